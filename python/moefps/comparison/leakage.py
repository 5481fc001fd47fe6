"""Does what a tool's answer does to the use of experts carry over to the solution: correlated, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from moefps.comparison.association import benjamini_hochberg, sign_flip_p, slope, spearman
from moefps.comparison.correlating import correlation_intervals
from moefps.comparison.grouping import CANONICAL, TOOL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from moefps._typing import Float64Array
    from moefps.comparison.joint import LayerUsage

__all__ = ["leakage_by_layer", "leakage_summary"]


def leakage_by_layer(layers: Sequence[LayerUsage]) -> pl.DataFrame:
    """Give both differences of usage of every expert, of the layers where there are both."""
    parts: dict[str, list[Any]] = {"layer": [], "expert": [], "delta_u_tool": [], "delta_u_canonical": []}
    for layer, found in enumerate(layers):
        if found.delta is None:
            continue
        n_experts = found.delta.shape[1]
        parts["layer"].append(np.full(n_experts, layer))
        parts["expert"].append(np.arange(n_experts))
        parts["delta_u_tool"].append(found.delta[0])
        parts["delta_u_canonical"].append(found.delta[1])
    schema = {"layer": pl.Int64, "expert": pl.Int64, "delta_u_tool": pl.Float64, "delta_u_canonical": pl.Float64}
    columns: dict[str, Any] = {name: np.concatenate(arrays) if arrays else [] for name, arrays in parts.items()}
    return pl.DataFrame(columns, schema=schema)


def leakage_summary(
    layers: Sequence[LayerUsage],
    counts: Mapping[str, Float64Array],
    n_experts: Sequence[int],
    *,
    n_resamples: int,
    seed: int,
) -> pl.DataFrame:
    """Correlate the two differences in every layer, with a test by signs.

    Parameters
    ----------
    layers : sequence of LayerUsage [L]
        What was found of each layer.
    counts : mapping of str to ndarray [L]
        Tokens that are compared in the two groups; a group that there is not is missing.
    n_experts : sequence of int [L]
        Experts of each layer.
    n_resamples, seed : int
        Of the test.

    Returns
    -------
    polars.DataFrame
        A row a layer: the largest absolute r first, those without an r last.
    """
    rows = []
    for layer, found in enumerate(layers):
        row: dict[str, Any] = dict.fromkeys(("r", "r_lo", "r_hi", "p", "q", "spearman", "slope"))
        row = {"layer": layer, **row, "n_experts": n_experts[layer], "reason": _reason(found, layer, counts)}
        if found.delta is not None:
            tool, canonical = found.delta
            row |= {"r": found.r, "spearman": float(spearman(tool, canonical)), "slope": float(slope(tool, canonical))}
        rows.append(row)
    moments = {layer: found.moments for layer, found in enumerate(layers) if found.moments is not None}
    for layer, (lo, hi) in zip(moments, correlation_intervals(list(moments.values())).tolist(), strict=True):
        rows[layer] |= {"r_lo": lo, "r_hi": hi}
    tested = [row["layer"] for row in rows if row["reason"] is None]
    if tested and n_resamples:
        p = _test(layers, tested, n_resamples, seed)
        for layer, value, adjusted in zip(tested, p, benjamini_hochberg(p), strict=True):
            rows[layer] |= {"p": float(value), "q": float(adjusted)}
    schema = {"layer": pl.Int64, "r": pl.Float64, "r_lo": pl.Float64, "r_hi": pl.Float64, "p": pl.Float64}
    schema |= {"q": pl.Float64, "spearman": pl.Float64, "slope": pl.Float64, "n_experts": pl.Int64}
    frame = pl.DataFrame(rows, schema={**schema, "reason": pl.String}, orient="row")
    frame = frame.with_columns(pl.col(pl.Float64).fill_nan(None))
    return frame.sort(pl.col("r").abs().round(12), descending=True, nulls_last=True, maintain_order=True)


def _test(layers: Sequence[LayerUsage], tested: Sequence[int], n_resamples: int, seed: int) -> Float64Array:
    """Give p of the layers that have an r; a layer's signs do not depend on which others do."""
    width = max(found.delta.shape[1] for found in layers if found.delta is not None)
    delta = np.zeros((2, len(layers), width))
    for layer, found in enumerate(layers):
        if found.delta is not None:
            delta[:, layer, : found.delta.shape[1]] = found.delta
    return sign_flip_p(*delta, n_resamples=n_resamples, seed=seed)[list(tested)]


def _reason(found: LayerUsage, layer: int, counts: Mapping[str, Float64Array]) -> str | None:
    """Say why a layer has no correlation; None where it has one."""
    for name in (TOOL, CANONICAL):
        if name not in counts:
            return f"there is no group {name}"
        if not counts[name][layer]:
            return f"no token of {name} is compared"
    if found.delta is None or not np.isnan(found.r):
        return None
    if found.delta.shape[1] < 2:
        return "the layer has one expert"
    same = [name for name, of in zip((TOOL, CANONICAL), found.delta, strict=True) if (of == of[0]).all()]
    what = " and on ".join(same) or "both groups"
    return f"the conditions use all experts equally on {what}: the differences are all the same"
