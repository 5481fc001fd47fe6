"""`moefps.compare` against a slow reference, token by token."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

import moefps
from comparison.worlds import make_record, random_routing, rows_of, write_condition, write_pairs
from moefps.comparison.resampling import resample_tasks
from moefps.comparison.usage import exchanged_halves
from reference.comparison import BINS, GROUPS, Reference

R = 24


def make_world(folder, seed, *, n_tasks=4, n_experts=(6, 4), k=2, drop=0.15):
    rng = np.random.default_rng(seed)
    records = [
        make_record(rng, f"T/{i}", canonical=int(rng.integers(3, 30)), has_response=i != 2, filler=int(rng.integers(3)))
        for i in range(n_tasks)
    ]
    pairs = write_pairs(folder / "pairs.json", records)
    dumps = []
    for condition in ("agentic", "assisted"):
        ids, weights = random_routing(rng, len(list(rows_of(records, condition))), n_experts, k, drop=drop)
        if condition == "assisted":
            # A token whose weights sum to 0 is not compared, though it has experts.
            weights[rng.random(len(weights)) < 0.1] = 0
        world = {"ids": ids, "weights": weights, "n_experts": n_experts, "pairs": pairs}
        dumps.append(write_condition(folder / condition, records, condition, **world))
    draws = {"taken": resample_tasks(n_tasks, R, seed=3), "exchanged": exchanged_halves(n_tasks, R, seed=3)}
    reference = Reference(*dumps, records, n_experts=n_experts, top_k=[k] * len(n_experts), **draws)
    return (*dumps, pairs, reference)


def same(found, expected, names=None):
    for name in names or expected:
        value, wanted = found[name], expected[name]
        if wanted is None or (isinstance(wanted, float) and math.isnan(wanted)):
            assert value is None, name
        else:
            assert value == pytest.approx(wanted, abs=1e-9), name


@pytest.mark.parametrize("world", [{"seed": 0}, {"seed": 1, "k": 1}, {"seed": 2, "drop": 0.0, "n_tasks": 3}])
def test_every_table_is_that_of_the_reference(tmp_path, world):
    a, b, pairs, reference = make_world(tmp_path, **world)
    found = moefps.compare(a, b, pairs, n_resamples=R, seed=3)
    joint = {(row["layer"], row["group"]): row for row in found.layer_joint_metrics.to_dicts()}
    for row in found.layer_metrics.to_dicts():
        layer, group = row["layer"], row["group"]
        expected = reference.layer_row(group, layer)
        same(row, expected)
        used = joint[layer, group]
        assert used["N_both"] == expected["count"]
        if expected["count"]:
            same(used, reference.joint_row(group, layer))
        else:
            assert row["tv"] is None
            assert used["usage_tv"] is None
    assert found.layer_metrics["group"].unique(maintain_order=True).to_list() == list(GROUPS)
    for row in found.tool_expert_leakage_summary.to_dicts():
        same(row, reference.leakage(row["layer"]))
    for row in found.tool_expert_leakage_by_layer.to_dicts():
        for name, group in (("tool", "tool_response_non_docstring"), ("canonical", "canonical_non_ws")):
            assert row[f"delta_u_{name}"] == pytest.approx(
                reference.delta(group, row["layer"])[row["expert"]], abs=1e-12
            )
    for row, (first, last) in zip(found.leakage_vs_distance.to_dicts(), BINS, strict=True):
        assert (row["distance_min"], row["distance_max"]) == (first, None if math.isinf(last) else last)
        same(row, reference.distance_row(first, last))
    for row in found.expert_usage.to_dicts():
        same(row, reference.expert_row(row["layer"], row["expert"]))
    assert found.expert_usage.select("layer", "expert").rows() == [(0, e) for e in range(6)] + [
        (1, e) for e in range(4)
    ]
    for row in found.top_experts_by_layer.to_dicts():
        delta = reference.delta("all", row["layer"])
        order = np.argsort(-np.round(abs(delta), 12), kind="stable")
        assert row["expert"] == order[row["rank"] - 1]
        own = found.expert_usage.row(
            by_predicate=(pl.col("layer") == row["layer"]) & (pl.col("expert") == row["expert"])
        )
        assert tuple(row.values()) == (*own[:1], row["rank"], *own[1:])
    assert found.top_experts_global["delta_u"].abs().round(12).is_sorted(descending=True)


def test_tokens_of_one_condition_are_counted_and_their_usage_told(tmp_path):
    a, b, pairs, reference = make_world(tmp_path, 5, drop=0.0)
    found = moefps.compare(a, b, pairs, n_resamples=R)
    for row in found.layer_joint_metrics.to_dicts():
        assert row["N_a"] == reference.n_side("a", row["group"], row["layer"])
    schema = found.layer_joint_metrics.row(by_predicate=_is(found, "tool_schema"), named=True)
    assert schema["N_both"] == schema["N_b"] == 0
    assert schema["usage_entropy_a"] > 0
    assert schema["usage_entropy_b"] is None
    assert schema["usage_tv"] is None
    weights = np.zeros(6)
    for record, groups in zip(reference.tasks, reference.groups, strict=True):
        for position in groups["tool_schema"]:
            for expert, share in reference.a[record["task_id"], position][0]["shares"].items():
                weights[expert] += share
    assert schema["top1_share_a_weighted"] == pytest.approx(max(weights) / weights.sum())
    assert schema["top1_share_a_weighted"] != pytest.approx(schema["top1_share_a"])
    assert found.summary["one_sided"] == {"tool_schema": "a", "tool_call": "a", "user_prompt": "a"}


def _is(found, group):
    return (pl.col("group") == group) & (pl.col("layer") == 0)
