"""Every metric of random and degenerate layers is what the definitions say, or null with a reason."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moefps.kernels import count_routing, find_neighbours
from moefps.metrics import METRICS, metrics_from_counts
from reference.metrics import ELSEWHERE, layer_metrics, probabilities, sums_of_logits, tokens_of

COUNTS = {
    "num_active_experts",
    "dead_experts",
    "underused_experts",
    "total_expert_activations",
    "expert_utilization_rate",
}
OWN = [metric for metric in METRICS if metric.is_scalar and metric.family not in ELSEWHERE]
NOT_IN_A_LAYER = {"maxvio_batch", "expert_output_diversity", "expert_routing_expression_alignment"}


@st.composite
def traces(draw):
    n_tokens = draw(st.sampled_from([0, 1, 2, 3, 17, 40]))
    n_layers = draw(st.integers(1, 3))
    k = draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kinds = st.sampled_from(["random", "one expert", "dead experts", "k = E"])
    experts, passive, ids = [], [], np.full((n_tokens, n_layers, k), -1, dtype=np.int16)
    for layer in range(n_layers):
        kind = draw(kinds)
        n = k if kind == "k = E" else draw(st.integers(k, k + 6))
        idle = draw(st.integers(0, min(2, n - 1))) if kind == "random" else 0
        usable = max(k, n - 3) if kind == "dead experts" else n
        scores = rng.random((n_tokens, usable))
        if kind == "one expert":
            scores[:, 0] = 2
        ids[:, layer] = np.argsort(-scores, axis=1)[:, :k]
        experts.append(n)
        passive.append(idle)
    ids[rng.random(ids.shape) < draw(st.sampled_from([0, 0.2]))] = -1
    ids[rng.random(ids.shape[:2]) < draw(st.sampled_from([0, 0.2]))] = -1
    weights, signed = None, False
    if draw(st.booleans()):
        values = draw(st.sampled_from([[0, 0.25, 0.5], [0, 1], [0], np.linspace(0, 1, 999)]))
        weights = rng.choice(values, ids.shape).astype(np.float32)
        signed = draw(st.booleans())
        if signed:
            weights *= rng.choice(np.float32([-1, 1]), ids.shape)
    logits = rng.normal(size=(n_tokens, n_layers, max(experts))) * 3 if draw(st.booleans()) else None
    offsets = sorted({0, n_tokens, *draw(st.lists(st.integers(0, n_tokens), max_size=3))})
    follows = find_neighbours(offsets) if draw(st.booleans()) else None
    return ids, weights, signed, logits, follows, experts, passive, k


@settings(max_examples=30)
@given(case=traces(), factor=st.sampled_from([1.0, 1.2, 1.25, 2.0]))
def test_metrics_are_what_the_definitions_say(case, factor):
    ids, weights, signed, logits, follows, experts, passive, k = case
    counts = count_routing(
        ids, weights, n_experts=experts, passive_experts=passive, signed_weights=signed, follows=follows
    )
    probs = None if logits is None else probabilities(logits, experts, passive)
    sums = None if logits is None else sums_of_logits(logits, ids, probs, experts, passive)
    found = metrics_from_counts(counts, logit_sums=sums, capacity_factor=factor)
    for layer in range(len(experts)):
        expected = layer_metrics(
            ids[:, layer].tolist(),
            None if weights is None else weights[:, layer].tolist(),
            None if follows is None else follows.tolist(),
            n_experts=experts[layer],
            passive=passive[layer],
            top_k=k,
            probs=None if probs is None else probs[layer].tolist(),
            logits=None if logits is None else logits[:, layer, : experts[layer]].tolist(),
            capacity_factor=factor,
        )
        rows = found.layers.filter(pl.col("layer") == layer)
        compare(rows, expected)


def compare(rows, expected):
    values = dict(rows.select("metric", "value").iter_rows())
    reasons = dict(rows.select("metric", "reason").iter_rows())
    for metric in OWN:
        if metric.name in NOT_IN_A_LAYER:
            continue
        value, want = values[metric.name], expected[metric.name]
        if want is None:
            assert value is None, metric.name
            assert reasons[metric.name], metric.name
            assert "not defined for what" not in reasons[metric.name], metric.name
        elif metric.name in COUNTS:
            assert value == want, metric.name
        else:
            assert value == pytest.approx(want, rel=1e-9, abs=1e-9), metric.name
            assert reasons[metric.name] is None, metric.name


@settings(max_examples=12)
@given(case=traces())
def test_vectors_by_expert(case):
    ids, weights, signed, _, _, experts, passive, _ = case
    counts = count_routing(ids, weights, n_experts=experts, passive_experts=passive, signed_weights=signed)
    found = metrics_from_counts(counts)
    assert found.experts.height == sum(experts) - sum(passive)
    texts = {(row["layer"], row["metric"]): row["text"] for row in found.layers.iter_rows(named=True)}
    for layer, (n, idle) in enumerate(zip(experts, passive, strict=True)):
        tokens = tokens_of(ids[:, layer].tolist(), None if weights is None else weights[:, layer].tolist(), n - idle)
        c = [sum(chosen.count(e) for chosen, _ in tokens) for e in range(n - idle)]
        rows = found.experts.filter(pl.col("layer") == layer)
        assert rows["expert"].to_list() == list(range(n - idle))
        assert rows["expert_activation_counts"].to_list() == c
        assert rows["expert_token_counts"].to_list() == [
            sum(e in chosen for chosen, _ in tokens) for e in range(n - idle)
        ]
        A = sum(c)
        assert rows["expert_token_proportions"].to_list() == [x / A if A else None for x in c]
        if weights is not None:
            v = [
                sum(w for chosen, ws in tokens for x, w in zip(chosen, ws, strict=True) if x == e)
                for e in range(n - idle)
            ]
            np.testing.assert_allclose(rows["expert_weighted_counts"].to_numpy(), v, rtol=1e-9, atol=1e-9)
        dead = ", ".join(str(e) for e, x in enumerate(c) if x == 0)
        low = ", ".join(str(e) for e, x in enumerate(c) if x < A / len(c) / 2)
        assert texts[layer, "dead_experts"] == (dead if A else None)
        assert texts[layer, "underused_experts"] == (low if A else None)


def test_values_are_numbers_or_null():
    """Nothing is NaN or infinite, whatever is divided by."""
    for n_tokens, k, n_experts in [(0, 1, 1), (1, 1, 1), (5, 1, 1), (5, 3, 3), (1, 2, 9)]:
        ids = np.tile(np.arange(k, dtype=np.int16), (n_tokens, 1, 1))
        for weights in (None, np.zeros(ids.shape, np.float32)):
            counts = count_routing(ids, weights, n_experts=n_experts, follows=find_neighbours([0, n_tokens]))
            found = metrics_from_counts(counts)
            for frame in (found.layers, found.summary, found.experts):
                for column in frame.iter_columns():
                    if column.dtype.is_float():
                        assert column.drop_nulls().is_finite().all(), column.name
            scalars = found.layers.filter(pl.col("text").is_null() & (pl.col("metric") != "routing_type"))
            assert (scalars["value"].is_null() == scalars["reason"].is_not_null()).all()


def test_aggregates_leave_null_layers_out():
    ids = np.full((3, 4, 2), -1, dtype=np.int16)
    ids[:, 0], ids[:, 1], ids[:, 3] = [0, 1], [[0, 1], [0, 2], [0, 3]], [[0, 1], [2, 3], [0, 1]]
    found = metrics_from_counts(count_routing(ids, n_experts=4))
    row = found.summary.row(by_predicate=pl.col("metric") == "maxvio", named=True)
    values = [1.0, 1.0, 1 / 3]
    assert (row["n_layers"], row["n_null"], row["reason"]) == (3, 1, None)
    assert row["mean"] == pytest.approx(np.mean(values))
    assert (row["min"], row["max"]) == pytest.approx((min(values), max(values)))
    assert row["std"] == pytest.approx(np.std(values, ddof=1))
    for p in (5, 25, 50, 75, 95):
        assert row[f"p{p}"] == pytest.approx(np.percentile(values, p))
    null = found.layers.row(by_predicate=(pl.col("layer") == 2) & (pl.col("metric") == "maxvio"), named=True)
    assert null["value"] is None
    assert null["reason"] == "no token has a filled slot in this layer"
    row = found.summary.row(by_predicate=pl.col("metric") == "top_k_entropy", named=True)
    assert (row["n_layers"], row["n_null"], row["mean"], row["reason"]) == (0, 4, None, "no weights were given")


def test_coactivation():
    ids = np.array([[[0, 1]], [[0, 2]], [[0, 1]], [[0, -1]]], dtype=np.int16)
    found = metrics_from_counts(count_routing(ids, n_experts=4))
    rows = {(r["expert"], r["other"]): r for r in found.coactivation(0).iter_rows(named=True)}
    assert len(rows) == 12
    assert rows[0, 1]["coactivation"] == 0.5
    assert rows[1, 0]["coactivation"] == 1.0
    assert rows[3, 0]["coactivation"] is None
    assert rows[0, 3] == {"layer": 0, "expert": 0, "other": 3, "tokens": 0, "coactivation": 0.0, "chance": 1 / 3}


def test_batches_of_maxvio():
    ids = np.array([[[0], [1]]], dtype=np.int16)
    counts = count_routing(ids, n_experts=2)
    found = metrics_from_counts(counts, batch_maxvio=[0.5, np.nan], metrics=["maxvio_batch"])
    assert found.layers["value"].to_list() == [0.5, None]
    assert found.layers["reason"].to_list() == [None, "no batch has a token with a filled slot in this layer"]
