"""Everything that is wrong or odd with fingerprints, found in one pass."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from moefps.errors import ShapeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from moefps._typing import FloatArray, ProgressCallback

__all__ = ["Finding", "Inspection", "inspect_fingerprints"]

ROW_SUM_TOLERANCE = {"float16": 2e-3, "float32": 1e-4, "float64": 1e-6}
"""How far the sum of a row may be from 1, by dtype; the distance kernels accept the same."""

_CHUNK_BYTES = 1 << 25


@dataclass(frozen=True)
class Finding:
    """One kind of thing that was found.

    Attributes
    ----------
    name : str
        What it is, in a word or two.
    is_problem : bool
        True where a distance would be refused, False where it is only worth knowing.
    count : int
        How many there are.
    unit : str
        What is counted.
    detail : str
        The worst value, or what to do about it; may be empty.
    sample, layer, expert : int or None
        The first place, as far as it has one.
    """

    name: str
    is_problem: bool
    count: int
    unit: str
    detail: str = ""
    sample: int | None = None
    layer: int | None = None
    expert: int | None = None


@dataclass(frozen=True)
class Inspection:
    """What `inspect_fingerprints` saw.

    Attributes
    ----------
    findings : tuple of Finding
        Problems first, then what is only worth knowing.
    smallest_row_sum, largest_row_sum : float
        Over the rows whose sum is finite; NaN where there is none.
    """

    findings: tuple[Finding, ...]
    smallest_row_sum: float
    largest_row_sum: float

    @property
    def has_problems(self) -> bool:
        """True where a distance would be refused."""
        return any(finding.is_problem for finding in self.findings)


def inspect_fingerprints(array: FloatArray, *, progress: ProgressCallback | None = None) -> Inspection:
    """Look for all that is wrong with fingerprints, in one pass over chunks of samples.

    Parameters
    ----------
    array : ndarray of shape [N, L, E]
        The fingerprints, memory-mapped or not; float16, float32 or float64.
    progress : callable, optional
        Takes ``(done, total)`` samples.

    Returns
    -------
    Inspection

    Raises
    ------
    ShapeError
        The array is not 3-D.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.full((3, 2, 4), 0.25)
    >>> X[1, 0, 2] = np.nan
    >>> [(finding.name, finding.sample, finding.layer) for finding in inspect_fingerprints(X).findings][:1]
    [('NaN', 1, 0)]
    """
    if array.ndim != 3:
        raise ShapeError(f"array: is {array.ndim}-D with shape {array.shape}; accepted: [N, L, E]")
    seen = _Seen(array[0].copy(), ROW_SUM_TOLERANCE[array.dtype.name])
    n_samples = array.shape[0]
    for start, stop in _chunks(array):
        seen.look_at(np.asarray(array[start:stop]), start)
        if progress is not None:
            progress(stop, n_samples)
    return seen.report(n_samples)


def _chunks(array: FloatArray) -> Iterator[tuple[int, int]]:
    step = max(1, _CHUNK_BYTES // max(1, array[0].nbytes))
    for start in range(0, array.shape[0], step):
        yield start, min(start + step, array.shape[0])


@dataclass
class _Tally:
    """How often something was found, and where first."""

    count: int = 0
    place: tuple[int, ...] | None = None

    def add(self, mask: npt.NDArray[np.bool_], first_sample: int) -> None:
        found = int(np.count_nonzero(mask))
        if found and self.place is None:
            where = np.unravel_index(int(np.argmax(mask)), mask.shape)
            self.place = (int(where[0]) + first_sample, *(int(i) for i in where[1:]))
        self.count += found

    def finding(self, name: str, unit: str, detail: str = "", *, is_problem: bool = True) -> Finding:
        place = (*(self.place or ()), None, None, None)
        return Finding(name, is_problem, self.count, unit, detail, place[0], place[1], place[2])


@dataclass
class _Seen:
    """What the chunks so far have shown."""

    first: npt.NDArray[Any]
    tolerance: float
    nan: _Tally = field(default_factory=_Tally)
    infinite: _Tally = field(default_factory=_Tally)
    negative: _Tally = field(default_factory=_Tally)
    zero_rows: _Tally = field(default_factory=_Tally)
    off_rows: _Tally = field(default_factory=_Tally)
    worst: tuple[float, float] = (0.0, 1.0)
    smallest: float = np.inf
    largest: float = -np.inf
    hashes: dict[bytes, int] = field(default_factory=dict)
    n_duplicates: int = 0
    duplicate: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        self.used = np.zeros(self.first.shape, dtype=np.bool_)
        self.constant = np.ones(self.first.shape[0], dtype=np.bool_)

    def look_at(self, chunk: FloatArray, start: int) -> None:
        with np.errstate(all="ignore"):
            sums = chunk.sum(axis=2, dtype=np.float64)
        finite = np.isfinite(sums)
        if not finite.all():
            # Looked for only where a sum shows one, as most data have none.
            self.nan.add(np.isnan(chunk), start)
            self.infinite.add(np.isinf(chunk), start)
        is_negative = chunk < 0
        if is_negative.any():
            self.negative.add(is_negative, start)
        nonzero = chunk != 0
        self.used |= nonzero.any(axis=0)
        self.constant &= (chunk == self.first).all(axis=(0, 2))
        empty = ~nonzero.any(axis=2)
        self.zero_rows.add(empty, start)
        off = finite & ~empty & (np.abs(sums - 1) > self.tolerance)
        self.off_rows.add(off, start)
        self._note_sums(sums, finite, off)
        self._note_duplicates(chunk, start)

    def _note_sums(
        self, sums: npt.NDArray[np.float64], finite: npt.NDArray[np.bool_], off: npt.NDArray[np.bool_]
    ) -> None:
        if finite.any():
            self.smallest = min(self.smallest, float(sums[finite].min()))
            self.largest = max(self.largest, float(sums[finite].max()))
        if off.any():
            values = sums[off]
            worst = float(values[np.argmax(np.abs(values - 1))])
            self.worst = max(self.worst, (abs(worst - 1), worst))

    def _note_duplicates(self, chunk: FloatArray, start: int) -> None:
        for i, sample in enumerate(np.ascontiguousarray(chunk)):
            digest = hashlib.blake2b(sample, digest_size=16).digest()
            first = self.hashes.setdefault(digest, start + i)
            if first != start + i:
                self.n_duplicates += 1
                self.duplicate = self.duplicate or (start + i, first)

    def report(self, n_samples: int) -> Inspection:
        n_layers, n_experts = self.first.shape
        problems = [
            self.nan.finding("NaN", "values"),
            self.infinite.finding("infinity", "values"),
            self.negative.finding("negative", "values"),
            self.zero_rows.finding("all-zero row", "rows"),
            self.off_rows.finding(
                "row sum not 1",
                "rows",
                f"worst sum {self.worst[1]:.6g}, accepted 1 ± {self.tolerance:g}; --normalize accepts any",
            ),
        ]
        if n_experts == 1:
            problems.append(Finding("one expert", True, 1, "expert", "E = 1; accepted: at least 2"))
        notes = []
        if n_samples == 1:
            notes.append(Finding("one sample", False, 1, "sample", "a distance matrix takes at least 2"))
        if self.duplicate is not None:
            sample, first = self.duplicate
            detail = f"equals sample {first}"
            notes.append(Finding("exact duplicate", False, self.n_duplicates, "samples", detail, sample))
        if not self.used.all():
            layer, expert = (int(i) for i in np.unravel_index(int(np.argmin(self.used)), self.used.shape))
            n_unused = int(np.count_nonzero(~self.used))
            detail = f"of {n_layers * n_experts:,} over all layers"
            notes.append(Finding("expert never used", False, n_unused, "experts", detail, None, layer, expert))
        if n_samples > 1 and self.constant.any():
            n_constant = int(np.count_nonzero(self.constant))
            layer = int(np.argmax(self.constant))
            detail = "the same row in all samples, so it adds nothing to a distance"
            notes.append(Finding("constant layer", False, n_constant, "layers", detail, None, layer))
        found = [problem for problem in problems if problem.count]
        smallest, largest = (self.smallest, self.largest) if self.largest >= self.smallest else (np.nan, np.nan)
        return Inspection((*found, *notes), smallest, largest)
