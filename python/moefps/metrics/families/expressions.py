"""The notation of the definitions as polars expressions, and what makes them undefined.

Each is an aggregation over the experts of one layer; a column of the layer is taken by ``.first()``.
"""

from __future__ import annotations

import math

import polars as pl

LN2 = math.log(2)


def layer(name: str) -> pl.Expr:
    """Give a column of the layer."""
    return pl.col(name).first()


def entropy(shares: pl.Expr) -> pl.Expr:
    """Give H(x) = -Σ x ln x in nats, with 0 ln 0 = 0."""
    # 0 times minus infinity is NaN; and 0 - 0 is 0, where -0 would be -0.0.
    return 0.0 - (shares * shares.log()).fill_nan(0.0).sum()


E = layer("n_experts")
K = layer("top_k")
T = layer("tokens")
c = pl.col("activations")
g = pl.col("share_sum")
w = pl.col("weight_sum")
A = c.sum()
m = A / E
q = c / c.sum()
r = g / g.sum()
mean_weight = pl.when(c > 0).then(w / c).otherwise(0.0)
"""a_e: the mean weight of the slots that chose e, 0 for an expert that none did."""

BOUNDS: dict[str, pl.Expr] = {
    "0": pl.lit(0.0),
    "1": pl.lit(1.0),
    "E": pl.col("n_experts"),
    "k": pl.lit(1.0),
    "log2 E": pl.col("n_experts").log(2),
    "ln k/ln E": pl.lit(0.0),
    "1/E": 1 / pl.col("n_experts"),
    "k/E": 1 / pl.col("n_experts"),
    "1-k/E": 1 - 1 / pl.col("n_experts"),
    "min(5, E)/E": pl.min_horizontal(pl.lit(5.0), pl.col("n_experts")) / pl.col("n_experts"),
    "1/k": pl.lit(1.0),
    "min(1, 5/k)": pl.lit(1.0),
    "E/k": pl.col("n_experts"),
    "E/k-1": pl.col("n_experts") - 1,
    "√(E(E-k)/(k(E-1)))": pl.col("n_experts").sqrt(),
    "1/cf": 1 / pl.col("capacity_factor"),
    "E/(k cf)": pl.col("n_experts") / pl.col("capacity_factor"),
}
"""The ends of ranges as expressions of the columns of a layer. Where slots are empty, tokens have fewer than k experts
but one at least: so these are the ends for k = 1, which hold for any k."""

NO_TOKEN = (A == 0, "no token has a filled slot in this layer")
ONE_EXPERT = (E == 1, "the layer has one expert only")
NO_SHARES = (g.sum() == 0, "no token has weights whose sum is not 0")
NEGATIVE_SHARE = (g.min() < 0, "an expert's share of the weights is negative, which has no logarithm")
NO_WEIGHT = (w.sum() <= 0, "the weights do not sum to more than 0")
NO_PAIR = (layer("pairs") == 0, "no two neighbouring tokens have filled slots in this layer")
NO_PROBS = (layer("logit_tokens") == 0, "no token with a filled slot has a full distribution in this layer")
