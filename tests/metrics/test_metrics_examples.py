"""The worked example of every metric gives the number at its end."""

from __future__ import annotations

import re

import numpy as np
import polars as pl
import pytest

import moefps
from moefps.kernels import count_routing
from moefps.metrics import METRICS, metrics_from_counts, routing_metrics
from moefps.metrics.examples import EXAMPLE
from reference.metrics import ELSEWHERE, probabilities, sums_of_logits

EXAMPLES = [metric for metric in METRICS if metric.family not in ELSEWHERE]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    dump = moefps.write_dump(
        tmp_path_factory.mktemp("example") / "dump",
        expert_ids=EXAMPLE.expert_ids,
        expert_weights=EXAMPLE.expert_weights,
        router_logits=EXAMPLE.router_logits,
        offsets=list(EXAMPLE.offsets),
        n_experts=4,
        scoring="softmax",
        tokens={"domain": list(EXAMPLE.domains)},
    )
    whole = routing_metrics(dump)
    values = {row["metric"]: row["value"] for row in whole.layers.iter_rows(named=True)}
    values |= {row["metric"]: row["text"] for row in whole.layers.iter_rows(named=True) if row["value"] is None}
    first = whole.experts.row(0, named=True)
    values |= {name: first[name] for name in first if name.startswith("expert_")}
    pair = whole.coactivation(0).filter(pl.col("expert") == 0, pl.col("other") == 1)
    values["coactivation"] = pair["coactivation"][0]
    table = routing_metrics(dump, by="domain").domains.filter(pl.col("group") == "code")
    values["domain_specialization"] = table["domain_specialization"][1]
    values["domain_purity"] = table["domain_purity"][0]
    values["domain_affinity"] = table["domain_affinity"][1]
    return values | with_logits()


def with_logits():
    """What logits say, added up here; and the mean over two batches."""
    ids, logits = EXAMPLE.expert_ids, EXAMPLE.router_logits.astype(np.float64)
    sums = sums_of_logits(logits, ids, probabilities(logits, [4], [0]), [4], [0])
    counts = count_routing(ids, n_experts=4)
    batches = [metrics_from_counts(count_routing(half, n_experts=4)).value("maxvio") for half in (ids[:2], ids[2:])]
    found = metrics_from_counts(counts, logit_sums=sums, batch_maxvio=[np.mean(batches)])
    names = [metric.name for metric in METRICS if {"logits", "batches"} & set(metric.needs)]
    return {name: found.value(name, layer=0) for name in names}


@pytest.mark.parametrize("metric", EXAMPLES, ids=lambda metric: metric.name)
def test_example(metric, found):
    assert metric.example, f"{metric.name} has no worked example"
    end = metric.example.rsplit("= ", 1)[-1]
    if metric.level == "text":
        assert end == found[metric.name]
        return
    assert re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", end), metric.example
    digits = len(end.partition(".")[2])
    assert round(found[metric.name], max(digits, 4)) == pytest.approx(float(end), abs=1e-12)


def test_the_text_of_lists(found):
    assert metrics_from_counts(count_routing(EXAMPLE.expert_ids, n_experts=4)).layers.filter(
        pl.col("metric") == "dead_experts"
    )["text"].to_list() == ["3"]
