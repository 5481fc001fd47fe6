"""Bootstrap intervals over samples: what they are, that they cover, and where there are none and why."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import moefps
from moefps.kernels import count_routing, find_neighbours
from moefps.metrics import METRICS, find_metric, grouping, metrics_from_counts, routing_metrics, sources
from moefps.metrics.families.expressions import BOUNDS
from support import refused

E, K, LENGTH = 8, 2, 25


def sampled(rng, n_samples):
    """Samples that prefer experts, each a bit differently; ids [T, 2, K] and weights."""
    pull = rng.normal(size=(n_samples, 1, 2, E)) + np.linspace(0, 1, E)
    scores = rng.gumbel(size=(n_samples, LENGTH, 2, E)) + pull
    ids = np.argsort(-scores, axis=-1)[..., :K].astype(np.int16).reshape(-1, 2, K)
    return ids, rng.random(ids.shape).astype(np.float32)


def written(path, ids, weights, **options):
    offsets = np.arange(0, len(ids) + 1, LENGTH)
    given = {"expert_ids": ids, "expert_weights": weights, "offsets": offsets, "n_experts": E}
    return moefps.write_dump(path, **{**given, **options})


@pytest.fixture
def dump(tmp_path):
    ids, weights = sampled(np.random.default_rng(0), 12)
    return written(tmp_path / "dump", ids, weights, samples={"domain": ["a", "b", "b"] * 4})


def resampled_slowly(ids, weights, n_samples, n_resamples, seed):
    """The metrics of traces put together anew from whole samples."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n_resamples):
        times = rng.multinomial(n_samples, np.full(n_samples, 1 / n_samples))
        rows = np.concatenate(
            [np.arange(i * LENGTH, (i + 1) * LENGTH) for i in range(n_samples) for _ in range(times[i])]
        )
        follows = find_neighbours(np.arange(0, len(rows) + 1, LENGTH))
        counts = count_routing(ids[rows], weights[rows], n_experts=E, follows=follows)
        found.append(metrics_from_counts(counts).layers.with_columns(resample=len(found)))
    return pl.concat(found)


def reflected(metric, value, lo, hi, factor=1.25):
    """The interval that a metric is to have, of percentiles of resamples."""
    if metric.interval == "percentile":
        return lo, hi
    balanced = {"top1_share": 1 / E, "top5_share": 5 / E, "capacity_usage": 1 / factor}.get(metric.name)
    balanced = metric.balanced if balanced is None else balanced
    if metric.interval == "basic":
        ends = [2 * value - hi, 2 * value - lo]
    else:
        sign = -1 if metric.better == "up" else 1
        squares = [2 * (value - balanced) ** 2 - (end - balanced) ** 2 for end in (lo, hi)]
        ends = sorted(balanced + sign * max(square, 0) ** 0.5 for square in squares)
    # The ends of the range for one slot a token.
    numbers = {"E": E, "k": 1, "log2 E": math.log2(E), "ln k/ln E": 0, "1/E": 1 / E, "k/E": 1 / E, "1-k/E": 1 - 1 / E}
    numbers |= {"min(5, E)/E": 5 / E, "1/k": 1, "min(1, 5/k)": 1, "E/k": E, "E/k-1": E - 1, "1/cf": 1 / factor}
    numbers |= {"E/(k cf)": E / factor, "√(E(E-k)/(k(E-1)))": E**0.5, "0": 0, "1": 1, "": None}
    low, high = numbers[metric.low], numbers[metric.high]
    low = -math.inf if low is None else min(low, value)
    high = math.inf if high is None else max(high, value)
    return tuple(min(max(end, low), high) for end in ends)


def as_wanted(frame, values):
    """Reflect the intervals of a frame where the metrics ask for it."""
    rows = []
    for row in frame.iter_rows(named=True):
        at = {name: row[name] for name in ("layer", "metric") if name in row}
        value = values.filter(**at).row(0, named=True)["value"]
        lo, hi = reflected(find_metric(row["metric"]), value, row["lo"], row["hi"])
        rows.append({**at, "lo": lo, "hi": hi})
    return pl.DataFrame(rows)


def test_intervals_are_made_of_resampled_traces(dump):
    found = routing_metrics(dump, ci=0.8, n_resamples=15, seed=5)
    slow = resampled_slowly(dump.expert_ids, dump.expert_weights, 12, 15, 5)
    slow = slow.filter(pl.col("value").is_not_null(), pl.col("metric") != "capacity_factor")
    quantiles = [pl.col("value").quantile(q, interpolation="linear").alias(n) for q, n in ((0.1, "lo"), (0.9, "hi"))]
    expected = as_wanted(slow.group_by("layer", "metric").agg(quantiles), found.layers)
    mine = found.layers.filter(pl.col("lo").is_not_null()).select("layer", "metric", "lo", "hi")
    assert_frame_equal(mine, expected, check_row_order=False, rel_tol=1e-9, abs_tol=1e-9)
    means = slow.group_by("resample", "metric").agg(pl.col("value").mean()).group_by("metric").agg(quantiles)
    mine = found.summary.filter(pl.col("lo").is_not_null()).select("metric", "lo", "hi")
    means = as_wanted(means, found.summary.rename({"mean": "value"}))
    assert_frame_equal(mine, means, check_row_order=False, rel_tol=1e-9, abs_tol=1e-9)
    plain = routing_metrics(dump)
    assert_frame_equal(
        found.layers.drop("lo", "hi", "reason_ci"), plain.layers.drop("lo", "hi", "reason_ci"), rel_tol=1e-12
    )
    assert found.about["ci"]["resampled"] == "samples"
    for row in found.layers.iter_rows(named=True):
        assert (row["lo"] is None) == (row["reason_ci"] is not None), row
    assert_frame_equal(routing_metrics(dump, ci=0.8, n_resamples=15, seed=5, n_threads=1).layers, found.layers)


def test_groups_are_resampled_apart(dump):
    found = routing_metrics(dump, by="domain", ci=0.9, n_resamples=20)
    rows = np.concatenate([np.arange(i * LENGTH, (i + 1) * LENGTH) for i in range(12) if i % 3])
    alone = written(dump.path.parent / "alone", dump.expert_ids[rows], dump.expert_weights[rows])
    expected = routing_metrics(alone, ci=0.9, n_resamples=20)
    columns = ["metric", "mean", "lo", "hi"]
    mine = found.summary.filter(group="b")
    assert_frame_equal(mine.select(columns), expected.summary.select(columns), rel_tol=1e-9)
    labelled = routing_metrics(dump, by="sample", ci=0.9, n_resamples=5)
    assert labelled.layers["lo"].null_count() == labelled.layers.height
    assert (
        labelled.summary.filter(metric="maxvio", group=3)["reason_ci"][0] == "one sample: there is nothing to resample"
    )


def test_labels_of_tokens_are_resampled_by_sample(tmp_path):
    ids, weights = sampled(np.random.default_rng(1), 6)
    labels = np.where(np.arange(len(ids)) < LENGTH, "first", np.where(np.arange(len(ids)) % 2, "odd", None))
    dump = written(tmp_path / "dump", ids, weights, tokens={"segment": labels.tolist()})
    found = routing_metrics(dump, by="segment", ci=0.9, n_resamples=30, metrics=["maxvio", "expert_overlap"])
    odd = found.summary.filter(group="odd", metric="maxvio")
    assert odd["lo"][0] < odd["mean"][0] < odd["hi"][0]
    first = found.summary.filter(group="first", metric="maxvio")
    assert (first["lo"][0], first["reason_ci"][0]) == (None, "one sample: there is nothing to resample")


def test_blocks_where_samples_are_too_many(dump, monkeypatch):
    monkeypatch.setattr(grouping, "MOST_UNITS", 5)
    found = routing_metrics(dump, ci=0.9, n_resamples=20)
    assert found.about["ci"]["samples_per_unit"] == 4
    assert found.about["ci"]["resampled"] == "blocks of 4 consecutive samples"
    assert found.about["ci"]["units"] == 3
    assert_frame_equal(
        found.summary.select("metric", "mean"), routing_metrics(dump).summary.select("metric", "mean"), rel_tol=1e-12
    )


def test_pairs_out_of_reach(dump, monkeypatch):
    monkeypatch.setattr(sources, "MOST_PAIRS_OF_UNITS", 12 * 2 * E * E - 1)
    for by in (None, "domain"):
        found = routing_metrics(dump, ci=0.9, n_resamples=5, by=by)
        rows = found.summary.filter(metric="expert_overlap")
        assert rows["mean"].null_count() == 0
        assert rows["lo"].null_count() == rows.height
        assert rows["reason_ci"][0].startswith("pairs of experts are not counted by sample: 1,536 counters")
        assert_frame_equal(found.coactivation(), routing_metrics(dump, by=by).coactivation())
    monkeypatch.setattr(sources, "MOST_PAIRS", 2 * E * E - 1)
    found = routing_metrics(dump, ci=0.9, n_resamples=5)
    row = found.summary.row(by_predicate=pl.col("metric") == "expert_overlap", named=True)
    assert row["mean"] is None
    assert row["reason"] == "pairs of experts would take 128 counters; accepted: up to 127"
    refused(moefps.ArgumentError, found.coactivation, "pairs of experts would take 128 counters")


def test_without_samples_to_resample(tmp_path):
    ids, weights = sampled(np.random.default_rng(2), 1)
    found = routing_metrics(written(tmp_path / "dump", ids, weights), ci=0.95)
    assert found.summary["lo"].null_count() == found.summary.height
    assert found.summary.filter(metric="maxvio")["reason_ci"][0] == "one sample: there is nothing to resample"
    reasons = dict(found.summary.select("metric", "reason_ci").iter_rows())
    assert reasons["router_z_loss"] == "there is no value"


def test_fingerprints(dump):
    X = dump.fingerprints("counts")
    found = routing_metrics(X, ci=0.9, n_resamples=50)
    row = found.summary.row(by_predicate=pl.col("metric") == "maxvio", named=True)
    trace = routing_metrics(dump, ci=0.9, n_resamples=50).summary.row(
        by_predicate=pl.col("metric") == "maxvio", named=True
    )
    # All samples are of one length, so that the mean over samples is that over tokens.
    assert (row["mean"], row["lo"], row["hi"]) == pytest.approx((trace["mean"], trace["lo"], trace["hi"]), rel=1e-5)


def test_intervals_cover_what_they_should(tmp_path):
    """Of many data sets drawn from one source, about nine in ten have its value in their interval of 90 %."""
    rng = np.random.default_rng(7)
    ids, weights = sampled(rng, 6000)
    metrics = ["expert_concentration", "expert_reuse_rate", "top_k_entropy"]
    truth = metrics_from_counts(
        count_routing(ids, weights, n_experts=E, follows=find_neighbours(np.arange(0, len(ids) + 1, LENGTH))),
        metrics=metrics,
    )
    dump = written(
        tmp_path / "dump", ids[: 2000 * LENGTH], weights[: 2000 * LENGTH], samples={"set": np.repeat(np.arange(50), 40)}
    )
    found = routing_metrics(dump, by="set", ci=0.9, n_resamples=200, metrics=metrics).layers
    found = found.join(truth.layers.select("layer", "metric", truth="value"), on=["layer", "metric"])
    covered = found.with_columns(inside=pl.col("truth").is_between("lo", "hi"))
    shares = dict(covered.group_by("metric").agg(pl.col("inside").mean()).iter_rows())
    for name, share in shares.items():
        assert 0.8 <= share <= 0.99, (name, share)


def test_intervals_of_what_noise_pushes_one_way(tmp_path):
    """Load that is even but for noise: percentiles of the CV never reach 0, as every resample is noisier yet."""
    rng = np.random.default_rng(11)
    n_sets, n_samples, wide = 30, 10, 64
    ids = rng.random((n_sets * n_samples * LENGTH, 1, wide)).argsort(axis=-1)[..., :K].astype(np.int16)
    truth = {
        "load_balancing_coefficient": 0.0,
        "gini_coefficient": 0.0,
        "token_choice_entropy": 1.0,
        "utilization_efficiency": 1.0,
        "balanced_utilization": 1.0,
        "load_imbalance_ratio": 1.0,
        "top_k_overlap": K / wide,
    }
    dump = moefps.write_dump(
        tmp_path / "dump",
        expert_ids=ids,
        offsets=np.arange(0, len(ids) + 1, LENGTH),
        n_experts=wide,
        samples={"set": np.repeat(np.arange(n_sets), n_samples)},
    )
    found = routing_metrics(dump, by="set", ci=0.95, n_resamples=200, metrics=list(truth))
    assert found.about["ci"]["kinds"]["percentile"] == ["top_k_overlap"]
    assert found.about["ci"]["kinds"]["basic"] == ["token_choice_entropy"]
    for name, value in truth.items():
        rows = found.layers.filter(metric=name)
        covered = rows.select(pl.lit(value).is_between(pl.col("lo") - 1e-9, pl.col("hi") + 1e-9).mean()).item()
        assert covered >= 0.8, (name, covered)
        assert rows["lo"].null_count() == 0


def test_every_reflected_range_is_known():
    """Intervals of a range whose ends have no number would leave it."""
    for metric in METRICS:
        if metric.interval != "percentile":
            assert {metric.low, metric.high} <= {*BOUNDS, ""}, metric.name
