"""Everything that is wrong or odd with a dump, found by reading all of it once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from moefps.errors import DataError
from moefps.io.inspection import Finding

if TYPE_CHECKING:
    import numpy.typing as npt

    from moefps._typing import Progress, ProgressCallback
    from moefps.io.dump import Dump

__all__ = ["inspect_dump"]

_CHECKED = ("expert_ids", "expert_weights", "router_logits", "fingerprints")
_CHUNK_ENTRIES = 1 << 20


def inspect_dump(dump: Dump, *, progress: ProgressCallback | None = None) -> tuple[Finding, ...]:
    """Look for all that is wrong or odd with the values of a dump.

    Parameters
    ----------
    dump : Dump
        An open dump; its files fit each other already.
    progress : callable, optional
        Takes ``(done, total)``.

    Returns
    -------
    tuple of Finding
        Problems first, at most one for each array: the first value that is not accepted. Then what is only worth
        knowing: empty slots, tokens whose weights sum to 0, samples without a fingerprint, experts never used, and the
        share of passive experts.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> from moefps.io.dump import write_dump
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "d.dump"
    >>> dump = write_dump(path, expert_ids=np.array([[[0]], [[-1]], [[3]]]), offsets=[0, 2, 3], n_experts=4)
    >>> [(finding.name, finding.count) for finding in inspect_dump(dump)]
    [('empty slot', 1), ('expert never used', 2)]
    """
    names = [name for name in _CHECKED if name in dump.arrays]
    n_passes = len(names) + 1
    found = [_problem(dump, name, _part(progress, i, n_passes)) for i, name in enumerate(names)]
    findings = [finding for finding in found if finding is not None]
    if findings and findings[0].name == "expert_ids.npy":
        # What is counted below goes by the ids.
        return tuple(findings)
    seen = _Seen(dump)
    step = max(1, _CHUNK_ENTRIES // max(1, dump.n_layers * dump.top_k))
    advance = _part(progress, n_passes - 1, n_passes)
    for start in range(0, dump.n_tokens, step):
        stop = min(start + step, dump.n_tokens)
        seen.look_at(start, stop)
        if callable(advance):
            advance(stop, dump.n_tokens)
    return (*findings, *seen.notes())


def _problem(dump: Dump, name: str, progress: Progress) -> Finding | None:
    """Read an array, and give the first value that is not accepted."""
    try:
        dump.check_values([name], progress=progress)
    except DataError as error:
        return Finding(f"{name}.npy", True, 1, "values", str(error).partition(f"{name}.npy: ")[2])
    return None


def _part(progress: ProgressCallback | None, number: int, n_parts: int) -> Progress:
    """Give a callback for one of several passes of the same length."""
    if progress is None:
        return False
    return lambda done, total: progress(number * max(total, 1) + done, n_parts * max(total, 1))


class _Seen:
    """What the tokens so far have shown."""

    def __init__(self, dump: Dump) -> None:
        self.dump = dump
        slots = np.arange(dump.top_k)
        # [L, k]: slots past a layer's own top_k are padding.
        self.is_slot = slots < np.array([layer.top_k for layer in dump.layers]).reshape(-1, 1)
        self.counts = np.zeros((dump.n_layers, dump.n_experts), dtype=np.int64)
        self.n_filled = np.zeros((dump.n_samples, dump.n_layers), dtype=np.int64)
        self.n_empty = self.n_weightless = 0
        self.first_weightless: tuple[int, int] | None = None

    def look_at(self, start: int, stop: int) -> None:
        dump = self.dump
        ids = np.asarray(dump.expert_ids[start:stop])
        filled = ids >= 0
        self.n_empty += int(np.count_nonzero(~filled & self.is_slot))
        layer_of_slot = np.broadcast_to(np.arange(dump.n_layers).reshape(1, -1, 1), ids.shape)
        cells = layer_of_slot[filled] * dump.n_experts + ids[filled]
        self.counts += np.bincount(cells, minlength=self.counts.size).reshape(self.counts.shape)
        sample_of_row = np.searchsorted(dump.token_starts, np.arange(start, stop), side="right") - 1
        np.add.at(self.n_filled, sample_of_row, filled.sum(axis=2))
        if dump.expert_weights is not None:
            self._note_weightless(np.asarray(dump.expert_weights[start:stop]), filled, sample_of_row)

    def _note_weightless(
        self, weights: npt.NDArray[np.floating], filled: npt.NDArray[np.bool_], sample_of_row: npt.NDArray[np.int64]
    ) -> None:
        total = np.where(filled, weights, 0).sum(axis=2, dtype=np.float64)
        weightless = filled.any(axis=2) & (total == 0)
        found = int(np.count_nonzero(weightless))
        if found and self.first_weightless is None:
            row, layer = np.unravel_index(int(np.argmax(weightless)), weightless.shape)
            self.first_weightless = int(sample_of_row[row]), int(layer)
        self.n_weightless += found

    def notes(self) -> list[Finding]:
        dump = self.dump
        notes = []
        if self.n_empty:
            share = 100 * self.n_empty / (dump.n_tokens * int(self.is_slot.sum()))
            detail = f"{share:.3g} % of all: dropped tokens, or layers that did not see them"
            notes.append(Finding("empty slot", False, self.n_empty, "slots", detail))
        if self.first_weightless is not None:
            detail = "they count in kind counts, and not in kind weights"
            notes.append(
                Finding("weights sum to 0", False, self.n_weightless, "routings", detail, *self.first_weightless)
            )
        empty = self.n_filled == 0
        if empty.any():
            sample, layer = (int(i) for i in np.unravel_index(int(np.argmax(empty)), empty.shape))
            detail = "no filled slot in a layer; --drop-empty leaves them out"
            notes.append(
                Finding("no fingerprint", False, int(empty.any(axis=1).sum()), "samples", detail, sample, layer)
            )
        return notes + self._notes_on_experts()

    def _notes_on_experts(self) -> list[Finding]:
        layers = self.dump.layers
        columns = np.arange(self.dump.n_experts)
        n_experts = np.array([layer.n_experts for layer in layers], dtype=np.int64).reshape(-1, 1)
        n_real = n_experts - np.array([layer.passive_experts for layer in layers], dtype=np.int64).reshape(-1, 1)
        is_real = columns < n_real
        unused = is_real & (self.counts == 0)
        notes = []
        if unused.any() and self.dump.n_tokens:
            layer, expert = (int(i) for i in np.unravel_index(int(np.argmax(unused)), unused.shape))
            detail = f"of {int(is_real.sum()):,} over all layers"
            n_unused = int(np.count_nonzero(unused))
            notes.append(Finding("expert never used", False, n_unused, "experts", detail, None, layer, expert))
        passive = int(self.counts[(columns >= n_real) & (columns < n_experts)].sum())
        if passive:
            share = 100 * passive / int(self.counts.sum())
            notes.append(Finding("passive expert", False, passive, "assignments", f"{share:.3g} % of all"))
        return notes
