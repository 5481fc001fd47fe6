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
    # 0 times minus infinity is NaN.
    return -(shares * shares.log()).fill_nan(0.0).sum()


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

NO_TOKEN = (A == 0, "no token has a filled slot in this layer")
ONE_EXPERT = (E == 1, "the layer has one expert only")
NO_SHARES = (g.sum() == 0, "no token has weights whose sum is not 0")
NEGATIVE_SHARE = (g.min() < 0, "an expert's share of the weights is negative, which has no logarithm")
NO_WEIGHT = (w.sum() <= 0, "the weights do not sum to more than 0")
NO_PAIR = (layer("pairs") == 0, "no two neighbouring tokens have filled slots in this layer")
NO_PROBS = (layer("logit_tokens") == 0, "no token with a filled slot has a full distribution in this layer")
