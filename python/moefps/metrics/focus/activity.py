"""Where activations come from, read again: the tokens that an expert was active on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import polars as pl

from moefps.io.dump.scoring import full_probabilities
from moefps.kernels import round_threshold

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from moefps._typing import Float64Array, IndexArray
    from moefps.io import Dump

__all__ = ["Activity", "DenseActivity", "DumpActivity", "Found"]

_ENTRIES = 1 << 20
"""Slots or logits read at a time."""


class Found(NamedTuple):
    """Tokens, and how active an expert was on each."""

    rows: IndexArray
    activations: Float64Array


class Activity(Protocol):
    """What activations are read from."""

    def find(self, layer: int, expert: int, threshold: float) -> Found:
        """Give the tokens on which an expert's activation is above the threshold, in order."""

    def describe(self, rows: IndexArray) -> pl.DataFrame:
        """Say where tokens stand."""


class DenseActivity:
    """Activations that are an array.

    Parameters
    ----------
    activations : ndarray [T, E]
        As `moefps.kernels.sum_dense_activations` took them.
    """

    def __init__(self, activations: npt.NDArray[Any]) -> None:
        self._activations = activations

    def find(self, layer: int, expert: int, threshold: float) -> Found:
        """Give the tokens of an expert."""
        column = self._activations[:, expert].astype(np.float64)
        rows = np.flatnonzero(column > round_threshold(threshold, self._activations.dtype))
        return Found(rows, column[rows])

    def describe(self, rows: IndexArray) -> pl.DataFrame:
        """Say nothing more than the rows."""
        return pl.DataFrame({"token": rows})


class DumpActivity:
    """Activations of a dump.

    Parameters
    ----------
    dump : Dump
        The dump, whose values were checked.
    activation : {"weights", "renormalized", "probs"}
        Which activations.
    """

    def __init__(self, dump: Dump, activation: str) -> None:
        self._dump, self._activation = dump, activation

    def find(self, layer: int, expert: int, threshold: float) -> Found:
        """Give the tokens of an expert; the arrays are gone through in pieces."""
        rows, values = [np.empty(0, np.int64)], [np.empty(0)]
        if self._activation == "weights":
            threshold = round_threshold(threshold, self._dump.stored("expert_weights").dtype)
        for first, activations in self._pieces(layer, expert):
            # Those that are not defined are NaN, which is above nothing.
            at = np.flatnonzero(activations > threshold)
            rows.append(first + at)
            values.append(activations[at])
        return Found(np.concatenate(rows), np.concatenate(values))

    def _pieces(self, layer: int, expert: int) -> Iterator[tuple[int, Float64Array]]:
        dump, info = self._dump, self._dump.layers[layer]
        is_full = self._activation == "probs"
        step = max(1, _ENTRIES // (info.n_experts if is_full else dump.top_k))
        real = info.n_experts - info.passive_experts
        for first in range(0, dump.n_tokens, step):
            ids = np.asarray(dump.expert_ids[first : first + step, layer])
            is_filled = (ids >= 0) & (ids < real)
            if is_full:
                logits = dump.stored("router_logits")[first : first + step, layer, : info.n_experts]
                has_slot = is_filled.any(axis=1)
                shares = full_probabilities(logits[has_slot], info.scoring)
                found: Float64Array = np.full(len(ids), np.nan)
                found[has_slot] = shares[:, expert]
            else:
                found = self._of_slots(first, layer, ids == expert, is_filled)
            yield first, found

    def _of_slots(
        self, first: int, layer: int, is_expert: npt.NDArray[np.bool_], is_filled: npt.NDArray[np.bool_]
    ) -> Float64Array:
        """Give the activation of an expert on each token, 0 where it was not chosen."""
        weights = self._dump.stored("expert_weights")[first : first + len(is_expert), layer]
        own, whole = np.zeros(len(is_expert)), np.zeros(len(is_expert))
        # Slot by slot, in the order of the sums: numpy would add in another.
        for slot in range(is_expert.shape[1]):
            weight = np.where(is_filled[:, slot], weights[:, slot], 0).astype(np.float64)
            whole += weight
            own += np.where(is_expert[:, slot], weight, 0.0)
        if self._activation == "renormalized":
            np.divide(own, whole, out=own, where=whole != 0)
            own[whole == 0] = np.nan
        return own

    def describe(self, rows: IndexArray) -> pl.DataFrame:
        """Say of which sample tokens are, where they stand in it, and what the dump's table tells of them."""
        starts, table = self._dump.token_starts, self._dump.tokens
        if table is not None:
            frame = table[rows]
            clash = [name for name in ("token", "domain", "activation") if name in frame.columns]
            frame = frame.rename({name: f"{name}_of_token" for name in clash})
            return pl.concat([pl.DataFrame({"token": rows}), frame], how="horizontal")
        sample = np.searchsorted(starts, rows, side="right") - 1
        return pl.DataFrame({"token": rows, "sample": sample, "position": rows - starts[sample]})
