"""Chance levels are what independent uniform top-k routing gives."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from moefps.kernels import count_routing, find_neighbours
from moefps.metrics import find_metric, metrics_from_counts
from moefps.metrics.tables import hypergeometric
from reference.metrics import chances

N_TOKENS = 40_000
SIGMAS = 4.5


def uniform(rng, n_tokens, n_experts, k):
    return rng.random((n_tokens, n_experts)).argsort(axis=1)[:, :k].astype(np.int16)[:, np.newaxis]


@pytest.mark.parametrize(("n_experts", "k"), [(1, 1), (2, 1), (4, 2), (5, 4), (6, 6), (8, 3), (9, 5)])
def test_chances_of_small_layers(n_experts, k):
    """Over all choices of k of E experts."""
    counts = count_routing(np.zeros((1, 1, k), np.int16), n_experts=n_experts, follows=[False])
    found = dict(metrics_from_counts(counts).layers.select("metric", "chance").iter_rows())
    for name, value in chances(n_experts, k).items():
        assert found[name] == (None if value is None else pytest.approx(value, rel=1e-12)), name


@pytest.mark.parametrize(("n_experts", "k"), [(8, 2), (16, 4), (64, 6), (5, 5), (7, 1)])
def test_chances_by_simulation(n_experts, k):
    rng = np.random.default_rng(n_experts * 100 + k)
    ids = uniform(rng, N_TOKENS, n_experts, k)
    weights = rng.random(ids.shape).astype(np.float32)
    groups = np.arange(N_TOKENS) % 2
    options = {"n_experts": n_experts, "follows": find_neighbours([0, N_TOKENS])}
    found = metrics_from_counts(count_routing(ids, weights, **options))
    layers = {row["metric"]: row for row in found.layers.iter_rows(named=True)}
    for name in ("sequential_routing_consistency", "expert_reuse_rate", "top_k_overlap", "top_k_jaccard"):
        row = layers[name]
        # A share has the largest variance of all that lies between 0 and 1; neighbouring pairs share a token.
        error = np.sqrt(2 * row["chance"] * (1 - row["chance"]) / (N_TOKENS - 1))
        assert abs(row["value"] - row["chance"]) <= SIGMAS * error + 1e-12, name
    if n_experts > 1:
        chance = layers["expert_overlap"]["chance"]
        # Jaccard indices of different pairs go up and down almost independently of each other.
        error = layers["expert_overlap_std"]["value"] / np.sqrt(n_experts * (n_experts - 1) / 2)
        assert abs(layers["expert_overlap"]["value"] - chance) <= SIGMAS * error + 2 / N_TOKENS
        pairs = found.coactivation(0)
        error = np.sqrt(pairs["chance"] * (1 - pairs["chance"]) / (N_TOKENS * k / n_experts))
        assert ((pairs["coactivation"] - pairs["chance"]).abs() <= (SIGMAS + 1) * error + 1e-12).all()
    table = metrics_from_counts(count_routing(ids, groups=groups, **options)).domains
    error = np.sqrt(table["chance"] * (1 - table["chance"]) / (N_TOKENS / 2))
    assert ((table["domain_specialization"] - table["chance"]).abs() <= (SIGMAS + 1) * error + 1e-12).all()
    assert ((table["domain_affinity"] - 1).abs() <= (SIGMAS + 1) * error / table["chance"] + 1e-12).all()


def test_no_chance_where_there_is_none():
    assert hypergeometric(4, 5) == (None, None)
    assert hypergeometric(4, 0) == (None, None)
    no_weights = metrics_from_counts(count_routing(np.zeros((2, 1, 2), np.int16), n_experts=3, passive_experts=2))
    assert no_weights.layers["chance"].drop_nulls().to_list() == [1.0]


def test_chance_above_the_target_is_said():
    """Independent choice of 4 of 8 experts overlaps more than the checklist allows."""
    ids = uniform(np.random.default_rng(0), 200, 8, 4)
    found = metrics_from_counts(count_routing(ids, n_experts=8), targets="spectra")
    row = found.layers.row(by_predicate=pl.col("metric") == "expert_overlap", named=True)
    assert row["chance"] == pytest.approx(3 / 11)
    assert (row["target"], row["met"], row["note"]) == (
        "< 0.15",
        False,
        "independent uniform choice is above the target, too",
    )
    assert find_metric("expert_overlap").chance == "J0 = (k-1) / (2E-k-1)"
    row = found.layers.row(by_predicate=pl.col("metric") == "expert_activation_entropy", named=True)
    assert (row["met"], row["note"]) == (None, None)
