"""Means over tokens of what pairs of tokens say, by layer and group, with intervals over tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from moefps.comparison.jackknife import ratio_influences, standard_error
from moefps.comparison.resampling import mean_with_interval, percentile_interval, resampled_ratios

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from moefps._typing import Float64Array, IndexArray, ProgressCallback
    from moefps.comparison.grouping import Grouping

__all__ = ["MEASURES", "LayerMean", "TokenSums", "layer_table", "mean_over_layers", "token_sums", "with_interval"]


class Measure(NamedTuple):
    """A mean over tokens: the sums that it is of, and what they are divided by beside the number of tokens."""

    sums: str
    minus: str | None = None
    scale: str = "one"
    needs_weights: bool = True


MEASURES = {
    "tv": Measure("tv_sums"),
    "js": Measure("js_sums"),
    "jaccard": Measure("jaccard_sums", needs_weights=False),
    "intersection": Measure("common_experts", needs_weights=False),
    "intersection_share": Measure("common_experts", scale="k", needs_weights=False),
    "top1_match": Measure("pairs_of_same_first"),
    "top5_match": Measure("common_top5", scale="five"),
    **{
        f"{name}_{side}": Measure(f"{name}_sums_{part[0]}", f"{name}_sums_{part[1]}" if part[1:] else None, scale)
        for name, scale in (("entropy", "one"), ("neff", "one"), ("margin", "margin"))
        for side, part in (("a", "a"), ("b", "b"), ("diff", "ab"))
    },
}
"""Columns of the table of layers, in order."""


@dataclass(frozen=True, eq=False)
class TokenSums:
    """What pairs of tokens add up to, by unit, group and layer.

    Attributes
    ----------
    counts : ndarray of float64 [N, G, L]
        Tokens that are compared.
    sums : mapping of str to ndarray of float64 [N, G, L]
        The numerator of each measure; without those that need weights where there are none. NaN in layers where a
        measure is not defined.
    limits : mapping of str to tuple of ndarray [L]
        The least and the most that each measure can be.
    """

    counts: Float64Array
    sums: Mapping[str, Float64Array]
    limits: Mapping[str, tuple[Float64Array, Float64Array]]


class LayerMean(NamedTuple):
    """A mean over layers of means over tokens.

    Attributes
    ----------
    mean : float
        The mean.
    resampled : ndarray [R] or None
        Its resamples; None where there are none.
    influences : ndarray [N]
        What each unit does to it.
    n_units : int
        Units that have a token.
    """

    mean: float
    resampled: Float64Array | None
    influences: Float64Array
    n_units: int

    def less(self, other: LayerMean) -> LayerMean:
        """Give the difference to another, of the same draws."""
        return LayerMean(
            self.mean - other.mean,
            None if self.resampled is None or other.resampled is None else self.resampled - other.resampled,
            self.influences - other.influences,
            min(self.n_units, other.n_units),
        )


def token_sums(parts: Sequence[Mapping[str, Any]], grouping: Grouping, top_k: IndexArray) -> TokenSums:
    """Gather the measures of passes over stretches of layers.

    Parameters
    ----------
    parts : list of mapping of str to ndarray [N, K, L']
        As `moefps.comparison.reduction.reduce_pairs` gives them.
    grouping : Grouping
        Of the classes K.
    top_k : ndarray of int64 [L]
        Slots of each layer.
    """

    def gather(name: str) -> Float64Array:
        return grouping.add_up(np.concatenate([part[name] for part in parts], axis=2), axis=1)

    scales = {
        "one": np.ones(len(top_k)),
        "k": top_k.astype(np.float64),
        "five": np.minimum(5.0, top_k),
        # With one slot there is no second to be ahead of.
        "margin": np.where(top_k > 1, 1.0, np.nan),
    }
    has_weights = parts[0]["tv_sums"] is not None
    sums = {}
    for name, measure in MEASURES.items():
        if measure.needs_weights and not has_weights:
            continue
        numerator = gather(measure.sums)
        if measure.minus is not None:
            numerator = numerator - gather(measure.minus)
        sums[name] = numerator / scales[measure.scale]
    return TokenSums(gather("count"), sums, {name: _limits(name, top_k.astype(np.float64)) for name in sums})


def _limits(name: str, top_k: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Give the least and the most that a measure can be, in every layer."""
    one = np.ones(len(top_k))
    stem = name.partition("_")[0] if name.endswith(("_a", "_b", "_diff")) else name
    least = one if stem == "neff" else 0 * one
    most = {"intersection": top_k, "entropy": np.log(top_k), "neff": top_k}.get(stem, one)
    return (least - most, most - least) if name.endswith("_diff") else (least, most)


def layer_table(
    found: TokenSums,
    groups: Mapping[str, int],
    taken: Float64Array | None,
    progress: ProgressCallback | None = None,
) -> pl.DataFrame:
    """Make the table of layers: a row a layer and group, means with their intervals.

    Parameters
    ----------
    found : TokenSums
        The sums.
    groups : mapping of str to int
        The groups that are wanted, and their places.
    taken : ndarray [R, N] or None
        How often each unit is in each resample; None for no intervals.
    progress : callable, optional
        Gets the measures that are done, and how many there are.
    """
    places = list(groups.values())
    n_layers = found.counts.shape[2]
    counts = found.counts[:, places].transpose(0, 2, 1)
    columns: dict[str, Any] = {
        "layer": np.repeat(np.arange(n_layers), len(places)),
        "group": list(groups) * n_layers,
        "count": counts.sum(axis=0).astype(np.int64).ravel(),
    }
    for done, name in enumerate(MEASURES):
        if progress is not None:
            progress(done, len(MEASURES))
        if name not in found.sums:
            nothing = pl.Series([None] * (n_layers * len(places)), dtype=pl.Float64)
            columns |= {name: nothing, f"{name}_lo": nothing, f"{name}_hi": nothing}
            continue
        sums = found.sums[name][:, places].transpose(0, 2, 1)
        least, most = (of[:, np.newaxis] for of in found.limits[name])
        mean, lo, hi = mean_with_interval(sums, counts, taken, least=least, most=most)
        columns |= {name: mean.ravel(), f"{name}_lo": lo.ravel(), f"{name}_hi": hi.ravel()}
    if progress is not None:
        progress(len(MEASURES), len(MEASURES))
    return pl.DataFrame(columns, nan_to_null=True)


def mean_over_layers(sums: npt.NDArray[Any], counts: npt.NDArray[Any], taken: Float64Array | None) -> LayerMean | None:
    """Give the mean over layers of a mean over tokens, [N, L] each.

    Layers without a token count nowhere; None where there is no other.
    """
    has = counts.sum(axis=0) > 0
    if not has.any():
        return None
    sums, counts = sums[:, has], counts[:, has]
    mean = float((sums.sum(axis=0) / counts.sum(axis=0)).mean())
    resampled = None if taken is None else resampled_ratios(taken, sums, counts).mean(axis=0)
    return LayerMean(mean, resampled, ratio_influences(sums, counts).mean(axis=1), int((counts > 0).any(axis=1).sum()))


def with_interval(of: LayerMean, *, least: float = -np.inf) -> tuple[float, float | None, float | None]:
    """Give a mean over layers and its interval, from what it can be at least; None where there is none."""
    if of.resampled is None or of.n_units < 2:
        return of.mean, None, None
    ends = percentile_interval(of.mean, of.resampled, standard_error(of.influences), of.n_units)
    lo, hi = (None if np.isnan(end) else max(least, float(end)) for end in ends)
    return of.mean, lo, hi
