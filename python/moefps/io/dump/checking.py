"""The values of a dump's arrays: checked in blocks, each block once."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from moefps.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from moefps._typing import ProgressCallback
    from moefps.io.dump.manifest import LayerInfo

__all__ = ["CHECKED", "Rules", "ValueChecks", "value_message"]

CHECKED = ("expert_ids", "expert_weights", "router_logits", "fingerprints")
"""The arrays whose values have rules."""

ROW_SUM_TOLERANCE = 1e-4
"""How far from 1 a float32 fingerprint's row may sum, as for every function that takes fingerprints."""

_BLOCK_ENTRIES = 1 << 20
_BITS: dict[np.dtype[Any], tuple[type[np.unsignedinteger[Any]], int]] = {
    np.dtype(np.float16): (np.uint16, 0x7C00),
    np.dtype(np.float32): (np.uint32, 0x7F80_0000),
}


class Rules:
    """What the values of the arrays may be.

    Parameters
    ----------
    layers : sequence of LayerInfo
        The layers, in order.
    top_k : int
        Slots in the arrays.
    """

    def __init__(self, layers: Sequence[LayerInfo], top_k: int) -> None:
        self.layers = layers
        most = [[layer.n_experts - 1 if slot < layer.top_k else -1 for slot in range(top_k)] for layer in layers]
        # [L, k]: the largest id of each slot; slots past a layer's own top_k are padding.
        self.most = np.array(most, dtype=np.int64).reshape(len(layers), top_k)
        self.signed = np.array([layer.signed_weights for layer in layers], dtype=np.bool_)

    def expert_ids(self, ids: npt.NDArray[Any]) -> tuple[tuple[int, ...], str] | None:
        """Find the first id that is out of range, and what is accepted there."""
        # Down the tokens first: the rows lie beside each other, so this runs at the speed of memory.
        if not ids.size or ((ids.min(axis=0) >= -1).all() and (ids.max(axis=0) <= self.most).all()):
            return None
        where = _first((ids < -1) | (ids > self.most))
        most = int(self.most[where[1:]])
        if most < 0:
            return where, f"-1, as layer {where[1]} has {self.layers[where[1]].top_k} slots"
        return where, f"-1 for an empty slot, 0 to {most}"

    def expert_weights(
        self, weights: npt.NDArray[Any], ids: Callable[[], npt.NDArray[Any]]
    ) -> tuple[tuple[int, ...], str] | None:
        """Find the first weight of a filled slot that is NaN, infinite, or negative without being announced."""
        unsigned, infinity = _BITS[weights.dtype]
        # The bits of floats from 0 up to infinity grow with the number; a sign or a NaN is past infinity.
        if not weights.size or int(weights.view(unsigned).max()) < infinity:
            return None
        negative = (weights < 0) & ~self.signed[:, np.newaxis]
        wrong = (negative | ~np.isfinite(weights)) & (ids() >= 0)
        if not wrong.any():
            return None
        where = _first(wrong)
        if not np.isfinite(weights[where]):
            return where, "finite weights"
        return where, "weights of at least 0, unless the layer has signed_weights"

    def router_logits(
        self, logits: npt.NDArray[Any], ids: Callable[[], npt.NDArray[Any]]
    ) -> tuple[tuple[int, ...], str] | None:
        """Find the first logit, of a token that its layer saw, that is NaN or plus infinity."""
        # Minus infinity is how routers mask an expert.
        if np.isfinite(logits).all():
            return None
        wrong: npt.NDArray[np.bool_] = ~(logits < np.inf) & (np.max(ids(), axis=2, keepdims=True) >= 0)
        for index, layer in enumerate(self.layers):
            wrong[:, index, layer.n_experts :] = False
        return (_first(wrong), "numbers, or minus infinity for a masked expert") if wrong.any() else None

    def fingerprints(self, rows: npt.NDArray[np.float32]) -> tuple[tuple[int, ...], str] | None:
        """Find the first layer of a fingerprint that is no distribution; one of zeros stands for none."""
        wrong = ~(np.isfinite(rows) & (rows >= 0))
        if wrong.any():
            return _first(wrong), "finite shares of at least 0"
        sums = rows.sum(axis=2, dtype=np.float64)
        off = (np.abs(sums - 1) > ROW_SUM_TOLERANCE) & (sums != 0)
        return (_first(off), "rows that sum to 1") if off.any() else None


class ValueChecks:
    """Remembers which rows of an open dump's arrays have been checked.

    Parameters
    ----------
    folder : path
        The dump, for messages.
    rules : Rules
        What the values may be.
    arrays : mapping of str to ndarray
        The arrays that are there.
    starts : ndarray of int64 [N + 1]
        First token of each sample, for messages.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        rules: Rules,
        arrays: Mapping[str, npt.NDArray[Any]],
        starts: npt.NDArray[np.int64],
    ) -> None:
        self._folder, self._rules, self._starts = folder, rules, starts
        self._arrays = {name: arrays[name] for name in CHECKED if name in arrays}
        self._block = {name: max(1, _BLOCK_ENTRIES // max(1, array[:1].size)) for name, array in self._arrays.items()}
        self._checked = {
            name: np.zeros(-(-len(array) // self._block[name]), dtype=np.bool_) for name, array in self._arrays.items()
        }

    def ensure(
        self, name: str, first: int = 0, stop: int | None = None, advance: ProgressCallback | None = None
    ) -> None:
        """Check the rows of an array from `first` to before `stop`, where nobody has yet.

        Raises
        ------
        DataError
            A value is not accepted; the message names the file, the row, what was found and what is accepted.
        """
        array, block, checked = self._arrays[name], self._block[name], self._checked[name]
        stop = len(array) if stop is None else min(stop, len(array))
        for number in range(first // block, -(-stop // block)):
            if not checked[number]:
                self._check_rows(name, array, number * block, min(len(array), (number + 1) * block))
                checked[number] = True
            if advance is not None:
                advance(min(len(array), (number + 1) * block), len(array))

    @property
    def names(self) -> tuple[str, ...]:
        """The arrays that can be checked."""
        return tuple(self._arrays)

    def _check_rows(self, name: str, array: npt.NDArray[Any], first: int, stop: int) -> None:
        rows = array[first:stop]

        def ids() -> npt.NDArray[Any]:
            return self._arrays["expert_ids"][first:stop]

        if name == "expert_ids":
            found = self._rules.expert_ids(rows)
        elif name == "expert_weights":
            found = self._rules.expert_weights(rows, ids)
        elif name == "router_logits":
            found = self._rules.router_logits(rows, ids)
        else:
            found = self._rules.fingerprints(rows)
        if found is not None:
            file = os.path.join(self._folder, f"{name}.npy")  # noqa: PTH118  the path as the user gave it
            raise DataError(value_message(file, name, rows, found, first, self._starts))


def value_message(
    file: str,
    name: str,
    rows: npt.NDArray[Any],
    found: tuple[tuple[int, ...], str],
    first: int,
    starts: npt.NDArray[np.int64],
) -> str:
    """Say where a wrong value is, what it is and what is accepted."""
    where, accepted = found
    row = first + where[0]
    if name == "fingerprints":
        value = rows[where] if len(where) == 3 else rows[where].sum(dtype=np.float64)
        what = f"found {value}" if len(where) == 3 else f"the row sums to {value:.6g}"
        return f"{file}: row {row}, layer {where[1]}: {what}; accepted: {accepted}"
    sample = int(np.searchsorted(starts, row, side="right")) - 1
    column = "expert" if name == "router_logits" else "slot"
    return (
        f"{file}: row {row} (sample {sample}), layer {where[1]}, {column} {where[2]}: found {rows[where]}; "
        f"accepted: {accepted}"
    )


def _first(wrong: npt.NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
