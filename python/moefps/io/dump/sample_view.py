"""One sample of an open dump."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import polars as pl

    from moefps.io.dump.reading import Dump

__all__ = ["DumpSample"]


class DumpSample:
    """One sample of a dump: views of its rows, checked when they are first read.

    Attributes
    ----------
    index : int
        Which sample, 0..N-1.
    """

    def __init__(self, dump: Dump, index: int) -> None:
        self._dump, self.index = dump, index
        self._first, self._stop = int(dump.token_starts[index]), int(dump.token_starts[index + 1])

    def __repr__(self) -> str:
        return f"DumpSample({self.index}, {self.n_tokens:,} tokens)"

    @property
    def n_tokens(self) -> int:
        """Number of tokens, n."""
        return self._stop - self._first

    @property
    def info(self) -> dict[str, Any]:
        """The sample's row of ``Dump.samples``."""
        return self._dump.samples.row(self.index, named=True)

    @property
    def tokens(self) -> pl.DataFrame | None:
        """The sample's rows of ``Dump.tokens``."""
        table = self._dump.tokens
        return None if table is None else table.slice(self._first, self.n_tokens)

    @property
    def expert_ids(self) -> npt.NDArray[np.int16]:
        """Chosen experts, int16 [n, L, k]."""
        return self._rows("expert_ids")

    @property
    def expert_weights(self) -> npt.NDArray[Any] | None:
        """Weights as the router returned them, [n, L, k]."""
        return self._rows("expert_weights") if "expert_weights" in self._dump.arrays else None

    @property
    def router_logits(self) -> npt.NDArray[Any] | None:
        """Logits, [n, L, E]; what is past a layer's own experts is padding."""
        return self._rows("router_logits") if "router_logits" in self._dump.arrays else None

    @property
    def hidden_states(self) -> npt.NDArray[Any] | None:
        """Hidden states, [n, L', d]."""
        return self._rows("hidden_states") if "hidden_states" in self._dump.arrays else None

    def _rows(self, name: str) -> npt.NDArray[Any]:
        self._dump.check_values([name], first=self._first, stop=self._stop)
        return self._dump.stored(name)[self._first : self._stop]
