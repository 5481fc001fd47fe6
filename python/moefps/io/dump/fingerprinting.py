"""Fingerprints of a trace: for every sample or window, how each layer's routing is spread over its experts.

With s[t,j] the expert in slot j of token t, w[t,j] its weight and ŵ[t,j] = w[t,j] / Σ_j w[t,j] over the filled slots:

- ``counts``: Σ_{t,j} [s[t,j] = e] / number of filled slots;
- ``weights``: mean over tokens of Σ_j ŵ[t,j] [s[t,j] = e];
- ``probs``: mean over tokens of the router's full distribution p[t,e].

A token without a filled slot in a layer counts nowhere there. One whose weights sum to 0 has no ŵ and is left out of
``weights``; one whose scores are all 0 has no p and is left out of ``probs``. All sums are in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from moefps._progress import progress_callback
from moefps.errors import ArgumentError, DataError, DumpError
from moefps.io.dump.manifest import KINDS
from moefps.io.dump.scoring import full_probabilities, has_full_probabilities
from moefps.kernels import check_layer_numbers

if TYPE_CHECKING:
    import numpy.typing as npt
    import polars as pl

    from moefps._typing import Float64Array, IndexArray, Progress
    from moefps.io.dump.reading import Dump

__all__ = ["FingerprintSet", "compute_fingerprints", "resolve_kind"]

PROBABILITY_TOLERANCE = {2: 1e-2, 4: 1e-4}
"""How far from 1 recorded probabilities may sum, by the bytes of a number."""

_CELLS = 1 << 22
"""Cells of fingerprints summed at a time, 32 MB of float64."""
_ENTRIES = 1 << 20
"""Slots or logits read at a time."""


@dataclass(frozen=True, eq=False)
class FingerprintSet:
    """Fingerprints, and what each of them is of.

    Attributes
    ----------
    array : ndarray of float32 [R, L, E]
        The fingerprints.
    kind : str
        ``probs``, ``weights`` or ``counts``.
    rows : polars.DataFrame
        A row a fingerprint: ``sample``, ``window_start`` (the first token, counted from 0 in its sample),
        ``n_tokens``, and the user's own columns of the sample (one of the same name gets ``_of_sample`` added).
    n_left_out : ndarray of int64 [R, L] or None
        Tokens with a filled slot that are not in the mean, as their weights sum to 0 (or, for ``probs``, all their
        scores are 0); None where the dump held the fingerprints already.
    n_dropped : int
        Samples or windows without a fingerprint, left out because `drop_empty` was set.
    layers : tuple of int
        Which layers of the dump, in the order of `array`.
    """

    array: npt.NDArray[np.float32]
    kind: str
    rows: pl.DataFrame
    n_left_out: IndexArray | None
    n_dropped: int
    layers: tuple[int, ...]


class Spans(NamedTuple):
    """Stretches of tokens, one for each fingerprint."""

    sample: IndexArray
    offset: IndexArray  # of the first token, within the sample
    length: IndexArray


class Sums(NamedTuple):
    """What is summed over the tokens of each span."""

    mass: Float64Array  # [R, L, E]
    n_seen: IndexArray  # [R, L]: tokens with a filled slot
    n_summed: IndexArray  # [R, L]: of those, tokens that the mass is of; filled slots for counts


class Piece(NamedTuple):
    """Some tokens of some spans, in order."""

    tokens: Any  # their rows: a slice where they lie side by side, else an array
    span: IndexArray  # the span of each, counted from `first`
    first: int


def resolve_kind(dump: Dump, kind: str | None) -> str:
    """Say which kind of fingerprints a dump gives; see `Dump.fingerprint_kind`."""
    if kind is not None and kind not in KINDS:
        raise ArgumentError(f"kind: {kind!r}; accepted: {', '.join(KINDS)}")
    held = dump.manifest.fingerprint_kind if "fingerprints" in dump.arrays else None
    kind = kind or held or "weights"
    possible = [name for name in KINDS if name == held or not _missing(dump, name)]
    if kind not in possible:
        accepted = ", ".join(possible)
        reason = _missing(dump, kind)
        raise DumpError(f"{dump.path}: cannot give fingerprints of kind {kind}: {reason}; accepted: {accepted}")
    return kind


def compute_fingerprints(
    dump: Dump,
    *,
    kind: str | None,
    window: int | None,
    stride: int | None,
    layers: Sequence[int] | None,
    drop_empty: bool,
    progress: Progress,
) -> FingerprintSet:
    """Compute the fingerprints of a dump, or take those that it holds; see `Dump.fingerprint_set`."""
    kind = resolve_kind(dump, kind)
    chosen = np.array(check_layer_numbers(layers, dump.n_layers), dtype=np.int64)
    spans = _spans(np.diff(dump.token_starts), *_check_window(window, stride))
    if window is None and "fingerprints" in dump.arrays and dump.manifest.fingerprint_kind == kind:
        dump.check_values(["fingerprints"])
        array, n_left_out = _take_layers(dump, dump.stored("fingerprints"), chosen), None
        empty = np.logical_not(np.any(array, axis=2))
    else:
        _check_possible(dump, kind, chosen)
        array, n_left_out, empty = _compute(dump, kind, spans, chosen, progress)
    keep: npt.NDArray[np.bool_] = ~empty.any(axis=1)
    if not keep.all():
        if not drop_empty:
            raise DataError(_empty_message(dump, spans, empty, chosen, kind))
        array = array[keep]
        n_left_out = None if n_left_out is None else n_left_out[keep]
    rows = _table(dump, Spans(*(part[keep] for part in spans)))
    return FingerprintSet(array, kind, rows, n_left_out, int((~keep).sum()), tuple(chosen.tolist()))


def _missing(dump: Dump, kind: str, chosen: IndexArray | None = None) -> str:
    """Say what a dump lacks to compute a kind of fingerprints; empty where it lacks nothing."""
    if kind == "weights":
        return "" if "expert_weights" in dump.arrays else "the dump holds no expert_weights"
    if kind == "counts":
        return ""
    if "router_logits" not in dump.arrays:
        return "the dump holds no router_logits"
    layers = dump.layers if chosen is None else [dump.layers[index] for index in chosen]
    odd = next((layer for layer in layers if not has_full_probabilities(layer.scoring)), None)
    # Without a choice of layers, one that has them is enough to go on.
    if odd is None or (chosen is None and any(has_full_probabilities(layer.scoring) for layer in layers)):
        return ""
    return f"layer {odd.index} ({odd.path}) has the scoring {odd.scoring!r}, which tells no full distribution"


def _check_possible(dump: Dump, kind: str, chosen: IndexArray) -> None:
    reason = _missing(dump, kind, chosen)
    if reason:
        raise DumpError(f"{dump.path}: cannot compute fingerprints of kind {kind}: {reason}")


def _check_window(window: int | None, stride: int | None) -> tuple[int | None, int]:
    if window is None:
        if stride is not None:
            raise ArgumentError("stride: given without window; accepted: both, or neither")
        return None, 1
    given: tuple[tuple[str, Any], ...] = (("window", window), ("stride", window if stride is None else stride))
    for name, value in given:
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ArgumentError(f"{name}: {value!r}; accepted: a number of tokens, at least 1")
    return int(window), int(window if stride is None else stride)


def _spans(lengths: IndexArray, window: int | None, stride: int) -> Spans:
    """Cut every sample into its windows; a sample that is shorter than one is one span."""
    samples = np.arange(len(lengths))
    if window is None:
        return Spans(samples, np.zeros_like(lengths), lengths)
    n_windows = np.maximum(0, (lengths - window) // stride) + 1
    sample = np.repeat(samples, n_windows)
    number = np.arange(len(sample)) - np.repeat(np.cumsum(n_windows) - n_windows, n_windows)
    return Spans(sample, number * stride, np.minimum(lengths[sample], window))


def _compute(
    dump: Dump, kind: str, spans: Spans, chosen: IndexArray, progress: Progress
) -> tuple[npt.NDArray[np.float32], IndexArray, npt.NDArray[np.bool_]]:
    """Give the fingerprints, how many tokens are left out of each, and which layers have none."""
    shape = (len(spans.sample), len(chosen), dump.n_experts)
    array = np.zeros(shape, dtype=np.float32)
    n_left_out, empty = np.zeros(shape[:2], dtype=np.int64), np.zeros(shape[:2], dtype=np.bool_)
    add = {"counts": _add_counts, "weights": _add_weights, "probs": _add_probs}[kind]
    width = dump.n_experts if kind == "probs" else dump.top_k
    group = max(1, _CELLS // max(1, shape[1] * shape[2]))
    total, done = int(spans.length.sum()), 0
    with progress_callback(progress, f"Fingerprints ({kind})") as advance:
        for first in range(0, shape[0], group):
            part = Spans(*(values[first : first + group] for values in spans))
            n_rows = len(part.sample)
            sums = Sums(
                np.zeros((n_rows, *shape[1:])), *(np.zeros((n_rows, shape[1]), dtype=np.int64) for _ in range(2))
            )
            for piece in _pieces(dump, part, max(1, _ENTRIES // max(1, shape[1] * width))):
                add(dump, piece, chosen, sums)
                done += len(piece.span)
                if advance is not None:
                    advance(done, total)
            rows = slice(first, first + n_rows)
            # Layers without anything to divide by are told apart by `empty`.
            array[rows] = sums.mass / np.maximum(sums.n_summed, 1)[:, :, np.newaxis]
            empty[rows] = sums.n_summed == 0
            if kind != "counts":
                n_left_out[rows] = sums.n_seen - sums.n_summed
            if kind == "weights":
                _refuse_negative(dump, part, array[rows], chosen)
    return array, n_left_out, empty


def _pieces(dump: Dump, spans: Spans, most: int) -> Iterator[Piece]:
    """Go through the tokens of all spans, at most so many at a time, and check their values."""
    starts = dump.token_starts[spans.sample] + spans.offset
    ends = np.cumsum(spans.length)
    before = ends - spans.length
    total = int(ends[-1]) if len(ends) else 0
    for first in range(0, total, most):
        place = np.arange(first, min(total, first + most))
        span = np.searchsorted(ends, place, side="right")
        tokens: Any = starts[span] + (place - before[span])
        if (np.diff(tokens) == 1).all():
            tokens = slice(int(tokens[0]), int(tokens[-1]) + 1)
        yield Piece(tokens, span - span[0], int(span[0]))


def _read(dump: Dump, name: str, piece: Piece, chosen: IndexArray) -> npt.NDArray[Any]:
    """Read the chosen layers of a piece's rows, checked."""
    if isinstance(piece.tokens, slice):
        first, stop = piece.tokens.start, piece.tokens.stop
    else:
        first, stop = int(piece.tokens.min()), int(piece.tokens.max()) + 1
    dump.check_values([name], first=first, stop=stop)
    return _take_layers(dump, dump.stored(name)[piece.tokens], chosen)


def _take_layers(dump: Dump, rows: npt.NDArray[Any], chosen: IndexArray) -> npt.NDArray[Any]:
    """Take the chosen layers, without a copy where that is all of them in order."""
    return rows if np.array_equal(chosen, np.arange(dump.n_layers)) else rows[:, chosen]


def _cells(ids: npt.NDArray[Any], piece: Piece, n_experts: int) -> IndexArray:
    """Give the cell of [spans, L, E] that each slot counts for: [tokens, L, k]; empty slots mean nothing."""
    n_layers = ids.shape[1]
    row = (piece.span[:, np.newaxis] * n_layers + np.arange(n_layers)) * n_experts
    cells: IndexArray = row[:, :, np.newaxis] + ids
    return cells


def _count_tokens(which: npt.NDArray[np.bool_], piece: Piece, counted: IndexArray) -> None:
    """Add up, for each span and layer, the tokens that are marked."""
    edges = np.flatnonzero(np.diff(piece.span, prepend=-1))
    counted[piece.first + piece.span[edges]] += np.add.reduceat(which, edges, axis=0, dtype=np.int64)


def _add_counts(dump: Dump, piece: Piece, chosen: IndexArray, sums: Sums) -> None:
    ids = _read(dump, "expert_ids", piece, chosen)
    if not ids.size:
        return
    cells = _cells(ids, piece, dump.n_experts)
    filled: npt.NDArray[np.bool_] = np.greater_equal(ids, 0)
    n_rows = int(piece.span[-1]) + 1
    rows = slice(piece.first, piece.first + n_rows)
    used = cells.ravel() if filled.all() else cells[filled]
    mass = np.bincount(used, minlength=n_rows * len(chosen) * dump.n_experts)
    mass = mass.reshape(n_rows, len(chosen), dump.n_experts)
    sums.mass[rows] += mass
    sums.n_summed[rows] += mass.sum(axis=2)


def _add_weights(dump: Dump, piece: Piece, chosen: IndexArray, sums: Sums) -> None:
    ids = _read(dump, "expert_ids", piece, chosen)
    if not ids.size:
        return
    weights = _read(dump, "expert_weights", piece, chosen).astype(np.float64)
    filled: npt.NDArray[np.bool_] = np.greater_equal(ids, 0)
    whole = bool(filled.all())
    if not whole:
        weights = np.where(filled, weights, 0.0)
    total = weights.sum(axis=2)
    defined = total != 0
    if defined.all():
        weights /= total[:, :, np.newaxis]
    else:
        # A token whose weights sum to 0 adds nothing, signed ones that cancel out included.
        share = np.zeros_like(weights)
        weights = np.divide(weights, total[:, :, np.newaxis], out=share, where=defined[:, :, np.newaxis])
    cells = _cells(ids, piece, dump.n_experts)
    n_rows = int(piece.span[-1]) + 1
    mass = np.bincount(
        cells.ravel() if whole else cells[filled],
        weights=weights.ravel() if whole else weights[filled],
        minlength=n_rows * len(chosen) * dump.n_experts,
    )
    sums.mass[piece.first : piece.first + n_rows] += mass.reshape(n_rows, len(chosen), dump.n_experts)
    _count_tokens(np.any(filled, axis=2), piece, sums.n_seen)
    _count_tokens(defined, piece, sums.n_summed)


def _add_probs(dump: Dump, piece: Piece, chosen: IndexArray, sums: Sums) -> None:
    seen = np.any(np.greater_equal(_read(dump, "expert_ids", piece, chosen), 0), axis=2)
    logits = _read(dump, "router_logits", piece, chosen)
    edges = np.flatnonzero(np.diff(piece.span, prepend=-1))
    rows = piece.first + piece.span[edges]
    defined = np.empty_like(seen)
    for column, index in enumerate(chosen):
        layer = dump.layers[index]
        shares = full_probabilities(logits[:, column, : layer.n_experts], layer.scoring)
        total = shares.sum(axis=1)
        defined[:, column] = seen[:, column] & np.isfinite(total) & (total != 0)
        if layer.scoring == "probabilities":
            _check_probabilities(dump, piece, layer.index, np.where(defined[:, column], total, 1.0), logits.itemsize)
            shares /= np.where(total != 0, total, 1.0)[:, np.newaxis]
        shares[~defined[:, column]] = 0.0
        sums.mass[rows, column, : layer.n_experts] += np.add.reduceat(shares, edges, axis=0)
    _count_tokens(seen, piece, sums.n_seen)
    _count_tokens(defined, piece, sums.n_summed)


def _check_probabilities(dump: Dump, piece: Piece, layer: int, total: Float64Array, itemsize: int) -> None:
    off = np.abs(total - 1.0) > PROBABILITY_TOLERANCE[itemsize]
    if off.any():
        at = int(np.argmax(off))
        row = piece.tokens.start + at if isinstance(piece.tokens, slice) else int(piece.tokens[at])
        raise DataError(
            f"{dump.path}/router_logits.npy: row {row}, layer {layer}: sums to {total[at]:.6g}; "
            "accepted: probabilities that sum to 1, as the layer's scoring says"
        )


def _refuse_negative(dump: Dump, spans: Spans, array: npt.NDArray[np.float32], chosen: IndexArray) -> None:
    wrong = ~(array >= 0)
    if wrong.any():
        row, column, expert = (int(i) for i in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
        raise DataError(
            f"{dump.path}: {_span_name(dump, spans, row)} has the share {array[row, column, expert]} for expert "
            f"{expert} of layer {chosen[column]}, whose weights are signed; accepted: kind counts or probs"
        )


def _empty_message(dump: Dump, spans: Spans, empty: npt.NDArray[np.bool_], chosen: IndexArray, kind: str) -> str:
    row, column = (int(i) for i in np.unravel_index(int(np.argmax(empty)), empty.shape))
    layer = dump.layers[int(chosen[column])]
    first = int(dump.token_starts[spans.sample[row]] + spans.offset[row])
    ids = dump.expert_ids[first : first + int(spans.length[row]), layer.index]
    advice = "samples that have one, or drop_empty=True (--drop-empty) to leave it out"
    if empty.any(axis=1).all():
        advice = "layers= (moefps fingerprint --layers), as no sample has a fingerprint in all of them"
    lacks = "no filled slot" if not (ids >= 0).any() else f"no token with {kind} that have a sum"
    return (
        f"{dump.path}: {_span_name(dump, spans, row)} has {lacks} in layer {layer.index} ({layer.path}), so it has no "
        f"fingerprint; accepted: {advice}"
    )


def _span_name(dump: Dump, spans: Spans, row: int) -> str:
    sample, offset, length = int(spans.sample[row]), int(spans.offset[row]), int(spans.length[row])
    whole = length == int(dump.token_starts[sample + 1] - dump.token_starts[sample])
    return f"sample {sample}" if whole else f"sample {sample} from token {offset} to {offset + length}"


def _table(dump: Dump, spans: Spans) -> pl.DataFrame:
    import polars as pl

    frame = pl.DataFrame({"sample": spans.sample, "window_start": spans.offset, "n_tokens": spans.length})
    own = dump.samples.drop("sample", "token_start", "n_tokens")
    clash = [name for name in own.columns if name in frame.columns]
    own = own.rename({name: f"{name}_of_sample" for name in clash})
    return frame if not own.width else pl.concat([frame, own[spans.sample]], how="horizontal")
