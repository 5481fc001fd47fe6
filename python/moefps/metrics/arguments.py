"""Checks of what people pass to routing metrics: one line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from moefps.errors import ArgumentError, DtypeError, DumpError, ShapeError
from moefps.kernels import RoutingCounts, check_count, check_layer_numbers, check_seed, is_real
from moefps.metrics.metric import NEEDS
from moefps.metrics.resampling import Resampling

if TYPE_CHECKING:
    import numpy.typing as npt

    from moefps._typing import Float64Array, IndexArray
    from moefps.io import Dump

__all__ = [
    "check_batches",
    "check_counts",
    "check_factor",
    "check_groups",
    "check_layers",
    "check_mapping",
    "check_resampling",
    "check_texts",
]

LEAST_FACTOR, MOST_FACTOR = 1e-6, 1e6
"""Capacity factors beyond these are slips, and numbers of slots beyond them no numbers any more."""


def check_layers(dump: Dump, layers: Sequence[int] | int | None) -> IndexArray:
    """Give the numbers of the layers that are meant, of a dump that has some and whose layers are possible."""
    if not dump.n_layers:
        raise DumpError(f"{dump.path}: has no layers; accepted: a dump of a model with routers")
    chosen = np.array(check_layer_numbers(layers, dump.n_layers), dtype=np.int64)
    for i in chosen.tolist():
        info = dump.layers[i]
        if info.top_k > info.n_experts:
            raise DumpError(
                f"{dump.path}: layer {i} ({info.path}) has top_k {info.top_k} of {info.n_experts} experts; "
                f"accepted: at most as many as experts"
            )
    return chosen


def check_factor(factor: Any) -> float:
    """Give a capacity factor."""
    if not is_real(factor) or not LEAST_FACTOR <= factor <= MOST_FACTOR:
        raise ArgumentError(
            f"capacity_factor: {_shown(factor)}; accepted: a number > 0, of {LEAST_FACTOR:g} to {MOST_FACTOR:g}"
        )
    return float(factor)


def check_resampling(ci: Any, n_resamples: Any, seed: Any) -> Resampling | None:
    """Give how to resample; None where no intervals are wanted."""
    accepted = "an integer >= 1"
    number = check_count("n_resamples", n_resamples, accepted)
    if number < 1:
        raise ArgumentError(f"n_resamples: {number}; accepted: {accepted}")
    checked = check_seed("seed", seed, is_optional=False)
    assert checked is not None  # noqa: S101 (for the type checker)
    if ci is None:
        return None
    if not is_real(ci) or not 0 < ci < 1:
        raise ArgumentError(f"ci: {ci!r}; accepted: a number between 0 and 1, such as 0.95, or None")
    return Resampling(float(ci), number, checked)


def check_counts(counts: Any) -> None:
    """Refuse what is no counts."""
    if not isinstance(counts, RoutingCounts):
        raise ArgumentError(f"counts: {type(counts).__name__}; accepted: what moefps.kernels.count_routing gives")


def check_groups(groups: Any, n_groups: int) -> pl.Series:
    """Give what the first axis of counts with groups stands for."""
    accepted = "distinct values, none of them null"
    if groups is None:
        return pl.Series("group", range(n_groups))
    if isinstance(groups, str) or not isinstance(groups, Sequence | np.ndarray | pl.Series):
        raise ArgumentError(f"groups: {type(groups).__name__}; accepted: a sequence of {accepted}")
    try:
        values = groups if isinstance(groups, pl.Series) else pl.Series("group", list(groups))
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        raise ArgumentError(f"groups: values of several types; accepted: {accepted}") from None
    if len(values) != n_groups:
        raise ShapeError(f"groups: {len(values)} of them; accepted: one for each of {n_groups} in the counts")
    if values.dtype.is_nested() or values.dtype == pl.Object:
        raise DtypeError(f"groups: {values.dtype}; accepted: {accepted}, such as text or integers")
    nothing = values.is_null() | (values.is_nan() if values.dtype.is_float() else False)
    if nothing.any():
        raise ArgumentError(
            f"groups: group {int(nothing.arg_true()[0])} is {values[int(nothing.arg_true()[0])]}; accepted: {accepted}"
        )
    if values.n_unique() < len(values):
        twice = values.filter(values.is_duplicated())[0]
        raise ArgumentError(f"groups: {twice!r} is there twice; accepted: {accepted}")
    return values.alias("group")


def check_batches(batch_maxvio: npt.ArrayLike, shape: tuple[int, ...]) -> Float64Array:
    """Give the means of maxvio over batches, NaN where there is none."""
    accepted = "numbers >= 0, or NaN where there is none"
    try:
        given = np.asarray(batch_maxvio)
    except ValueError:
        raise ShapeError(f"batch_maxvio: rows of different lengths; accepted: {accepted}") from None
    if given.dtype.kind not in "fiu":
        raise DtypeError(f"batch_maxvio: dtype {given.dtype}; accepted: {accepted}")
    if given.shape != shape:
        raise ShapeError(f"batch_maxvio: shape {given.shape}; accepted: {shape}, one for each layer")
    values: Float64Array = given.astype(np.float64)
    wrong = ~(np.isnan(values) | ((values >= 0) & (values < np.inf)))
    if wrong.any():
        raise ArgumentError(f"batch_maxvio: {values[wrong][0]}; accepted: {accepted}")
    return values


def check_texts(name: str, values: Any, n_layers: int, among: Sequence[str] | None = None) -> list[str]:
    """Give a text for each layer, of a few that are possible or any."""
    accepted = "text" if among is None else " or ".join(map(repr, among))
    if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray | pl.Series):
        raise ArgumentError(f"{name}: {_shown(values)}; accepted: {accepted}, one for each of {n_layers} layers")
    if len(values) != n_layers:
        raise ShapeError(f"{name}: {len(values)} of them; accepted: one for each of {n_layers} layers")
    found = list(values)
    for layer, value in enumerate(found):
        if not isinstance(value, str) or (among is not None and value not in among):
            raise ArgumentError(f"{name}: {_shown(value)} in layer {layer}; accepted: {accepted}")
    return found


def check_mapping(name: str, value: Any, *, of_needs: bool = False) -> dict[str, Any]:
    """Give a mapping as a dict; one of reasons has a text for what metrics may need."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ArgumentError(f"{name}: {_shown(value)}; accepted: a mapping, or None")
    for key, text in value.items() if of_needs else ():
        if key not in NEEDS or not isinstance(text, str):
            raise ArgumentError(f"{name}: {_shown(key)}: {_shown(text)}; accepted: text for {', '.join(NEEDS)}")
    return dict(value)


def _shown(value: Any) -> str:
    """Write a value as a message can show it: of a line, and not longer than one reads."""
    try:
        text = repr(value)
    except ValueError:
        # Python does not write integers of thousands of digits.
        return "an integer of thousands of digits"
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:57]}..."
