"""From sums of activations to the tables of a focus analysis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from moefps.metrics.focus.degree import BANDS, Degrees, compute_degrees
from moefps.metrics.focus.luck import expected_by_luck

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from moefps._typing import Float64Array, IndexArray
    from moefps.kernels import ActivationSums
    from moefps.metrics.focus.domains import Domains

__all__ = ["Missing", "Tables", "build_tables"]


_ACTIVITY = ("activations", "counted")


class Missing(NamedTuple):
    """A layer without activations."""

    n_experts: int
    reason: str


@dataclass(frozen=True, eq=False)
class Tables:
    """What `ExpertFocus` is made of; see there."""

    domains: pl.DataFrame
    experts: pl.DataFrame
    layers: pl.DataFrame
    summary: pl.DataFrame
    tokens: pl.DataFrame


class _Pairs(NamedTuple):
    """The experts of all layers, one after another."""

    place: IndexArray  # of the layer in the sums
    layer: IndexArray
    expert: IndexArray


def build_tables(
    sums: ActivationSums, domains: Domains, *, balanced: bool, missing: Mapping[int, Missing] | None = None
) -> Tables:
    """Make the tables of a focus analysis.

    Parameters
    ----------
    sums : ActivationSums
        By domain.
    domains : Domains
        The domains.
    balanced : bool
        Whether layers are summed up by the balanced focus degree.
    missing : mapping of int to Missing, optional
        Layers without activations.

    Returns
    -------
    Tables
    """
    present = np.arange(sums.counts.shape[2]) < sums.n_experts[:, np.newaxis]
    place, expert = np.nonzero(present)
    pairs = _Pairs(place, sums.layers[place], expert)
    totals = sums.totals[:, place, expert].T
    # Tokens that could have an activation, [L, D].
    n_tokens = (sums.tokens - sums.left_out).T
    there = (n_tokens > 0)[place]
    plain = compute_degrees(totals, there)
    balance = compute_degrees(totals / np.maximum(n_tokens, 1)[place], there)
    by_domain = _domain_table(sums, pairs, domains, plain, balance if balanced else None)
    experts = _expert_table(sums, pairs, domains, plain, balance)
    gone = _missing_experts(missing or {}, experts)
    experts = pl.concat([experts, gone]).sort("layer", "expert")
    tokens = _token_table(sums, domains)
    layers = _layer_table(experts, tokens, balanced=balanced)
    return Tables(by_domain.sort("layer", maintain_order=True), experts, layers, _summarise(experts, balanced), tokens)


def _domain_table(
    sums: ActivationSums, pairs: _Pairs, domains: Domains, plain: Degrees, balance: Degrees | None
) -> pl.DataFrame:
    """Give a row an expert and domain."""
    n_domains = len(domains.values)
    counts = _of_pairs(sums.counts, pairs)
    totals, maxima = _of_pairs(sums.totals, pairs), _of_pairs(sums.maxima, pairs)
    means = np.divide(totals, counts, out=np.full(totals.shape, np.nan), where=counts > 0)
    columns = {
        "layer": np.repeat(pairs.layer, n_domains),
        "expert": np.repeat(pairs.expert, n_domains),
        "domain": domains.values.gather(np.tile(np.arange(n_domains), len(pairs.layer))),
        "count": counts.ravel(),
        "mean_activation": _defined(means.ravel()),
        "max_activation": _defined(np.where(counts > 0, maxima, np.nan).ravel()),
        "total_activation": totals.ravel(),
        "percent": _defined(plain.percent.ravel()),
    }
    if balance is not None:
        columns["balanced_percent"] = _defined(balance.percent.ravel())
    return pl.DataFrame(columns)


def _expert_table(
    sums: ActivationSums, pairs: _Pairs, domains: Domains, plain: Degrees, balance: Degrees
) -> pl.DataFrame:
    """Give a row an expert."""
    seen, counted = _of_pairs(sums.activations, pairs).sum(axis=1), _of_pairs(sums.counts, pairs).sum(axis=1)
    n_tokens = (sums.tokens - sums.left_out).T
    chance, even = _chance_levels(n_tokens)
    luck, balanced_luck = expected_by_luck(counted, pairs.place, n_tokens)
    reasons = np.where(seen == 0, "no activation", f"no activation above the threshold {sums.threshold:g}")
    return pl.DataFrame(
        {
            "layer": pairs.layer,
            "expert": pairs.expert,
            "n_activations": seen,
            "n_counted": counted,
            "focus_degree": _defined(plain.degree),
            "domain": _names(domains, plain.domain),
            "second_domain": _names(domains, plain.second_domain),
            "second_percent": _defined(plain.second_percent),
            "focus_entropy": _defined(plain.entropy),
            "band": _bands(plain.band),
            "chance": _defined(chance[pairs.place]),
            "luck": _defined(luck),
            "balanced_focus_degree": _defined(balance.degree),
            "balanced_domain": _names(domains, balance.domain),
            "balanced_band": _bands(balance.band),
            "balanced_chance": _defined(even[pairs.place]),
            "balanced_luck": _defined(balanced_luck),
            "reason": pl.Series(np.where(counted == 0, reasons, "")).replace("", None),
        }
    )


def _chance_levels(n_tokens: IndexArray) -> tuple[Float64Array, Float64Array]:
    """Give the focus degree of experts that do not look at domains, by layer: as it is, and balanced."""
    total = n_tokens.sum(axis=1)
    largest = np.divide(n_tokens.max(axis=1), total, out=np.full(len(total), np.nan), where=total > 0)
    n_domains = (n_tokens > 0).sum(axis=1)
    even = np.divide(1.0, n_domains, out=np.full(len(total), np.nan), where=n_domains > 0)
    return 100.0 * largest, 100.0 * even


def _missing_experts(missing: Mapping[int, Missing], like: pl.DataFrame) -> pl.DataFrame:
    """Give the experts of layers without activations: all empty, with the reason."""
    rows = [
        {"layer": layer, "expert": expert, "reason": gone.reason}
        for layer, gone in missing.items()
        for expert in range(gone.n_experts)
    ]
    found = pl.DataFrame(rows, {"layer": pl.Int64, "expert": pl.Int64, "reason": pl.String})
    empty = [pl.lit(None, dtype).alias(name) for name, dtype in like.schema.items() if name not in found.columns]
    return found.with_columns(empty).select(like.columns)


def _token_table(sums: ActivationSums, domains: Domains) -> pl.DataFrame:
    """Give a row a layer and domain: the tokens that there are."""
    n_domains, n_layers = sums.tokens.shape
    return pl.DataFrame(
        {
            "layer": np.repeat(sums.layers, n_domains),
            "domain": domains.values.gather(np.tile(np.arange(n_domains), n_layers)),
            "tokens": sums.tokens.T.ravel(),
            "left_out": sums.left_out.T.ravel(),
        }
    )


def _layer_table(experts: pl.DataFrame, tokens: pl.DataFrame, *, balanced: bool) -> pl.DataFrame:
    """Give a row a layer."""
    taken = pl.col("tokens") - pl.col("left_out")
    seen = tokens.group_by("layer").agg(
        pl.col("tokens").sum(), pl.col("left_out").sum(), (taken > 0).sum().cast(pl.Int64).alias("n_domains")
    )
    found = experts.group_by("layer", maintain_order=True).agg(_aggregates(balanced=balanced))
    return _with_share(found.join(seen, on="layer", how="left", maintain_order="left"))


def _summarise(experts: pl.DataFrame, balanced: bool) -> pl.DataFrame:
    """Give one row over all layers."""
    n_layers = experts.filter(pl.col("focus_degree").is_not_null())["layer"].n_unique()
    found = experts.select(pl.lit(n_layers, pl.Int64).alias("n_layers"), *_aggregates(balanced=balanced))
    return _with_share(found)


def _aggregates(*, balanced: bool) -> list[pl.Expr]:
    """Say what is told of several experts; those without a focus degree are left out and counted."""
    prefix = "balanced_" if balanced else ""
    degree, band = pl.col(f"{prefix}focus_degree"), pl.col(f"{prefix}band")
    has_value = degree.is_not_null()
    return [
        pl.len().cast(pl.Int64).alias("n_experts"),
        has_value.sum().cast(pl.Int64).alias("n_with_value"),
        degree.is_null().sum().cast(pl.Int64).alias("n_null"),
        degree.mean().alias("mean"),
        degree.std(ddof=0).alias("std"),
        degree.min().alias("min"),
        degree.median().alias("median"),
        degree.max().alias("max"),
        *((band == name).sum().cast(pl.Int64).alias(name) for name in BANDS),
        *(pl.col(f"{prefix}{name}").filter(has_value).mean().alias(name) for name in ("chance", "luck")),
        *(pl.when(pl.col(f"n_{name}").count() > 0).then(pl.col(f"n_{name}").sum()).alias(name) for name in _ACTIVITY),
        pl.col("n_counted").filter(has_value).median().alias("median_counted"),
        pl.when(~has_value.any()).then(pl.col("reason").drop_nulls().first()).alias("reason"),
    ]


def _with_share(frame: pl.DataFrame) -> pl.DataFrame:
    """Add the share of activations that count."""
    share = pl.when(pl.col("activations") > 0).then(pl.col("counted") / pl.col("activations"))
    return frame.with_columns(share.alias("share_counted")).select(
        *(name for name in frame.columns if name != "reason"), "share_counted", "reason"
    )


def _of_pairs(values: npt.NDArray[Any], pairs: _Pairs) -> npt.NDArray[Any]:
    """Take [D, L, E] apart into a row an expert, [n, D]."""
    found: npt.NDArray[Any] = values[:, pairs.place, pairs.expert].T
    return found


def _defined(values: Float64Array) -> pl.Series:
    return pl.Series(values, nan_to_null=True)


def _names(domains: Domains, which: IndexArray) -> pl.Series:
    """Give the domains by their numbers; none for -1."""
    return domains.values.gather(pl.Series(np.where(which < 0, 0, which))).set(pl.Series(which < 0), None)


def _bands(which: IndexArray) -> pl.Series:
    return pl.Series([None if band < 0 else BANDS[band] for band in which.tolist()], dtype=pl.String)
