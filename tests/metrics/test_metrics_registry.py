"""The registry: one entry for every name, with what a reader must know; and targets."""

from __future__ import annotations

import json
import sys
from typing import get_args

import polars as pl
import pytest

import moefps
from moefps.metrics import METRICS, find_metric, list_metrics
from moefps.metrics.metric import NEEDS, Level
from moefps.metrics.targets import resolve_targets
from support import refused

CHECKLIST = """
expert_token_counts expert_activation_counts expert_weighted_counts expert_token_proportions expert_utilization_rate
fraction_active_experts expert_activation_ratio sparsity_ratio num_active_experts dead_experts underused_experts
total_expert_activations avg_experts_per_token routing_sparsity routing_type token_choice_entropy
expert_activation_entropy expert_entropy_bits effective_experts top1_share top5_share expert_concentration
weighted_load_balancing_coefficient weighted_load_imbalance_ratio expert_avg_routing_weight_mean
expert_avg_routing_weight_std passive_share load_balancing_coefficient load_variance std_tokens_per_expert
load_imbalance_ratio expert_efficiency utilization_efficiency gini_coefficient min_max_expert_load_ratio maxvio
maxvio_batch normalized_maxvio aux_loss router_z_loss balanced_utilization capacity_factor ideal_capacity_per_expert
capacity_usage capacity_utilization dropped_fraction routing_entropy token_routing_entropy top_k_entropy
routing_confidence selection_margin top1_margin gate_weight_cv lpr expert_overlap expert_overlap_mean
expert_overlap_std expert_overlap_max coactivation domain_specialization domain_purity domain_affinity
sequential_routing_consistency expert_reuse_rate top_k_overlap top_k_jaccard routing_locality
"""
TARGETS = {
    "expert_activation_entropy": ">= 0.9",
    "expert_entropy_bits": ">= 0.9 log2 E (2.7 for 8 experts)",
    "load_balancing_coefficient": "< 0.1",
    "gini_coefficient": "< 0.05",
    "min_max_expert_load_ratio": "> 0.70",
    "expert_overlap": "< 0.15",
    "sequential_routing_consistency": "> 0.45",
}


@pytest.mark.parametrize("name", CHECKLIST.split())
def test_every_name_is_there(name):
    metric = find_metric(name)
    assert name in {metric.name, *metric.aliases}


def test_every_metric_says_what_it_is():
    names = [name for metric in METRICS for name in (metric.name, *metric.aliases)]
    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert metric.formula, metric.name
        assert metric.source, metric.name
        assert metric.example, metric.name
        assert metric.level in get_args(Level), metric.name
        assert metric.better in {"up", "down", "-"}, metric.name
        assert set(metric.needs) <= set(NEEDS), metric.name
        assert (metric.chance_value is None) or metric.chance, metric.name
        if metric.level != "text":
            assert metric.range, metric.name


def test_the_registry_as_a_table():
    table = list_metrics()
    assert table.height == len(METRICS)
    assert {"metric", "formula", "range", "better", "chance", "target", "source", "references"} <= set(table.columns)
    gini = table.row(by_predicate=pl.col("metric") == "gini_coefficient", named=True)
    assert (gini["range"], gini["target"], gini["references"]) == ("0..1-k/E", "< 0.05", "LPR reports 0.035")


def test_the_checklists_targets():
    found = {name: target.text for name, target in resolve_targets("spectra").items()}
    assert TARGETS.items() <= found.items()
    bits = resolve_targets("spectra")["expert_entropy_bits"].threshold()
    assert pl.DataFrame({"n_experts": [8, 64]}).select(bits).to_series().to_list() == pytest.approx([2.7, 5.4])


def test_targets_of_ones_own(tmp_path):
    wanted = {"gini_coefficient": "<0.05", "lpr": "≥ 1", "maxvio": "< 1e-1"}
    expected = {"gini_coefficient": "< 0.05", "gate_weight_cv": ">= 1", "maxvio": "< 1e-1"}
    (tmp_path / "t.json").write_text(json.dumps(wanted), encoding="utf-8")
    (tmp_path / "t.toml").write_text("".join(f'{name} = "{text}"\n' for name, text in wanted.items()), encoding="utf-8")
    files = [tmp_path / "t.json", *([tmp_path / "t.toml"] if sys.version_info >= (3, 11) else [])]
    for given in (wanted, *files, *map(str, files)):
        assert {name: target.text for name, target in resolve_targets(given).items()} == expected
    assert resolve_targets(None) == {}


def test_targets_that_are_not_accepted(tmp_path):
    def refuse(given, words, error=moefps.ArgumentError):
        refused(error, lambda: resolve_targets(given), words)

    refuse({"gini": "< 1"}, "targets: 'gini' is no metric, perhaps 'gini_coefficient'")
    refuse({"maxvio": 0.5}, "targets: maxvio is 0.5; accepted: text such as")
    refuse({"maxvio": "0.5"}, "targets: maxvio is '0.5'; accepted: text such as")
    refuse({"maxvio": "< 1e999"}, "targets: maxvio is '< 1e999'")
    refuse({"lpr": "< 1", "gate_weight_cv": "< 1"}, "gate_weight_cv is there under two names")
    refuse({"coactivation": "< 1"}, "coactivation is not one number a layer")
    refuse(3, "targets: int; accepted: 'spectra'")
    refuse(tmp_path / "no.json", "no.json: cannot be read: no such file", moefps.FileError)
    for text, words in (
        ("{", "cannot be read as its suffix says"),
        ("[1]", "is no table"),
        ('{"maxvio": "< 1", "maxvio": "< 2"}', "twice"),
    ):
        (tmp_path / "t.json").write_text(text, encoding="utf-8")
        refuse(tmp_path / "t.json", words, moefps.FileError)


def test_unknown_names():
    refused(
        moefps.ArgumentError, lambda: find_metric("load_balance_coefficient"), "perhaps 'load_balancing_coefficient'"
    )
    for name, near in (("ginni", "gini_coefficient"), ("confidense", "routing_confidence"), ("maxviol", "maxvio")):
        refused(moefps.ArgumentError, lambda name=name: find_metric(name), f"'{name}' is no metric, perhaps '{near}'")
    for name in ("xyzzy", "x"):
        refused(moefps.ArgumentError, lambda name=name: find_metric(name), f"'{name}' is no metric; accepted")
    refused(moefps.ArgumentError, lambda: find_metric(3), "3 is no metric")
