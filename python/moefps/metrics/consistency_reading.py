"""Two dumps of the same tokens, read side by side and added up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from moefps.kernels import ChoiceSums, compare_choices
from moefps.metrics.consistency_measures import MEASURES, Measure, mean_over_layers, numerators, ratios
from moefps.metrics.dump_rows import layer_sizes, said_of_the_dump
from moefps.metrics.grouping import Cells, Groups, make_cells

if TYPE_CHECKING:
    import numpy.typing as npt

    from moefps._typing import Float64Array, IndexArray, ProgressCallback
    from moefps.io import Dump

__all__ = ["DumpPair", "SampleMeans", "UnitSums"]

_CHOICES = ("expert_ids", "expert_weights")
_SAMPLES_AT_A_TIME = 1024
_COUNTERS = 24
"""Counters that a cell has in a layer, about."""


class UnitSums(NamedTuple):
    """Sums of each unit of each group: a unit is a sample, or a block of samples where there are very many."""

    measures: tuple[Measure, ...]
    values: Float64Array  # [C, L, M]
    counts: Float64Array  # [C, L, M]: the tokens that each is a sum over
    group: IndexArray  # [C]
    n_groups: int

    def of_group(self, group: int) -> tuple[Float64Array, Float64Array]:
        """Give the sums of the units of a group that have a token that counts."""
        kept = (self.group == group) & (self.counts.max(axis=(1, 2), initial=0) > 0)
        return self.values[kept], self.counts[kept]


class SampleMeans(NamedTuple):
    """Means over layers of what each group has of each sample; NaN where no layer has a value."""

    sample: IndexArray  # [S]
    group: IndexArray  # [S]
    means: Float64Array  # [S, M]


class _Part(NamedTuple):
    """The tokens of some samples, cut into what each cell has of each sample."""

    sample: IndexArray  # [S]
    group: IndexArray  # [S]
    cell: IndexArray  # [S]
    start: int
    stop: int
    rows: IndexArray | None  # [P]: token rows; None where they are all from start to stop
    codes: npt.NDArray[np.uint32]  # [P]: which of the S each row is in


class DumpPair:
    """Two dumps of the same tokens, and what is compared of them.

    Parameters
    ----------
    a, b : Dump
        The dumps, which were found to be of the same samples and like layers.
    layers : ndarray of int64 [L]
        Which layers.
    groups : Groups or None
        Groups of the first dump's samples or tokens; None for one of all.
    resample : bool
        Whether samples are needed apart.

    Attributes
    ----------
    cells : Cells
        The units of each group.
    missing : str or None
        Why there is nothing about weights.
    lost_slots : int
        Slots of the tokens compared that are empty, on passive experts, or on an expert that the token has already.
    """

    def __init__(self, a: Dump, b: Dump, layers: IndexArray, groups: Groups | None, *, resample: bool) -> None:
        self.a, self.b, self.layers, self.groups = a, b, layers, groups
        self.infos = [a.layers[i] for i in layers.tolist()]
        self.cells: Cells = make_cells(a, groups, resample=resample, counters=len(layers) * _COUNTERS)
        self.missing = next(
            (f"{dump.path} holds no expert_weights" for dump in (a, b) if dump.expert_weights is None), None
        )
        self.measures = tuple(
            measure for measure in MEASURES if self.missing is None or "weights" not in measure.metric.needs
        )
        self.lost_slots = 0
        signs = [[layer.signed_weights for layer in dump.layers] for dump in (a, b)]
        self._signed = [one or other for one, other in zip(*signs, strict=True)]
        if signs[0] != signs[1]:
            # The kernel has one rule for both, which would let pass what one of them does not allow.
            for dump in (a, b):
                dump.check_values([name for name in _CHOICES if name in dump.arrays])

    @property
    def n_groups(self) -> int:
        """How many groups there are."""
        return 1 if self.groups is None else len(self.groups.values)

    def read(self, n_threads: int | None, callback: ProgressCallback | None) -> tuple[UnitSums, SampleMeans]:
        """Compare all tokens, some samples at a time."""
        shape = (self.cells.n_cells, len(self.layers), len(self.measures))
        values, counts = np.zeros(shape), np.zeros(shape)
        means = [SampleMeans(*(np.zeros(0, dtype=np.int64),) * 2, np.zeros((0, shape[2])))]
        for first in range(0, self.a.n_samples, _SAMPLES_AT_A_TIME):
            part = self._cut(first, min(self.a.n_samples, first + _SAMPLES_AT_A_TIME))
            sums = self._compare(part, n_threads, callback)
            more, of = (array[: len(part.cell)] for array in numerators(sums, self.measures))
            np.add.at(values, part.cell, more)
            np.add.at(counts, part.cell, of)
            means.append(SampleMeans(part.sample, part.group, mean_over_layers(ratios(more, of))))
        units = UnitSums(self.measures, values, counts, self.cells.group, self.n_groups)
        return units, SampleMeans(*(np.concatenate(arrays) for arrays in zip(*means, strict=True)))

    def _cut(self, first: int, stop: int) -> _Part:
        starts = self.a.token_starts[first : stop + 1]
        start, end = int(starts[0]), int(starts[-1])
        of_token = np.repeat(np.arange(stop - first), np.diff(starts))
        n_cells, cells = self.cells.n_cells, self.cells.codes
        if self.groups is not None and self.groups.of_tokens:
            cell = np.zeros(end - start, dtype=np.int64) if cells is None else cells[start:end].astype(np.int64)
            # Tokens without a value of the column are in the cell past the last.
            rows = np.flatnonzero(cell < n_cells)
            both, codes = np.unique(of_token[rows] * n_cells + cell[rows], return_inverse=True)
            own = both % n_cells
            codes = codes.reshape(-1).astype(np.uint32)
            return _Part(both // n_cells + first, self.cells.group[own], own, start, end, rows + start, codes)
        sample = np.arange(first, stop)
        own = np.zeros(stop - first, dtype=np.int64)
        if cells is not None:
            # A sample is in one cell as a whole; one without tokens adds nothing to any.
            has_tokens = np.diff(starts) > 0
            own[has_tokens] = cells[starts[:-1][has_tokens]]
        group = np.zeros_like(own) if self.groups is None else self.groups.codes[sample]
        return _Part(sample, group, own, start, end, None, of_token.astype(np.uint32))

    def _compare(self, part: _Part, n_threads: int | None, callback: ProgressCallback | None) -> ChoiceSums:
        some = slice(part.start, part.stop) if part.rows is None else slice(None)
        slots = max(layer.top_k for layer in self.a.layers)
        both = (self.a, self.b)
        ids = [dump.expert_ids[some, :, :slots] for dump in both]
        weights: list[Any] = [None, None]
        if self.missing is None:
            weights = [None if dump.expert_weights is None else dump.expert_weights[some, :, :slots] for dump in both]
        with said_of_the_dump(*both, arrays=_CHOICES):
            sums = compare_choices(
                ids[0],
                weights[0],
                ids[1],
                weights[1],
                **layer_sizes(self.a.layers),
                signed_weights=self._signed,
                layers=self.layers.tolist(),
                rows_a=part.rows,
                rows_b=part.rows,
                groups=part.codes,
                n_groups=max(1, len(part.sample)),
                usage=False,
                n_threads=n_threads,
                progress=self._shifted(callback, part.start),
            )
        lost = 2 * sums.pairs * sums.top_k - sums.experts_a - sums.experts_b
        self.lost_slots += int(lost.sum())
        return sums

    def _shifted(self, callback: ProgressCallback | None, first_row: int) -> ProgressCallback | bool:
        """Give a callback for some of the tokens, which calls the one for all of them."""
        if callback is None:
            return False
        n_layers = len(self.layers)
        total = self.a.n_tokens * n_layers

        def advance(done: int, _: int) -> None:
            callback(min(total, first_row * n_layers + done), total)

        return advance
