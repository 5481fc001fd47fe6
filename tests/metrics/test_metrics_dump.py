"""Metrics of dumps: layers, groups, neighbours, real traces, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import moefps
from moefps.io import convert_trace
from moefps.io.dump import LayerInfo
from moefps.kernels import count_routing, find_neighbours
from moefps.metrics import metrics_from_counts, reduction, routing_metrics
from support import refused

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "esft"
OFFSETS = [0, 7, 7, 18, 30]
DOMAINS = ["law", "law", "code", "law"]


@pytest.fixture
def arrays():
    rng = np.random.default_rng(3)
    ids = rng.random((30, 3, 6)).argsort(axis=2)[:, :, :2].astype(np.int16)
    ids[rng.random((30, 3)) < 0.1] = -1
    return ids, rng.random((30, 3, 2)).astype(np.float32)


@pytest.fixture
def dump(tmp_path, arrays):
    return written(tmp_path, arrays)


def written(tmp_path, arrays, **options):
    given = {
        "expert_ids": arrays[0],
        "expert_weights": arrays[1],
        "offsets": OFFSETS,
        "n_experts": 6,
        "samples": {"domain": DOMAINS, "one": [1] * 4},
    }
    return moefps.write_dump(tmp_path / "dump", overwrite=True, **{**given, **options})


def values(found, **where):
    return found.layers.filter(**where).drop("layer", "group", strict=False)


def test_a_dump_and_its_counts_agree(dump, arrays):
    counts = count_routing(*arrays, n_experts=6, follows=find_neighbours(OFFSETS))
    found, expected = routing_metrics(dump.path), metrics_from_counts(counts)
    plain = ["layer", "metric", "value", "text", "chance"]
    is_text = pl.col("metric") == "routing_type"
    assert_frame_equal(found.layers.filter(~is_text).select(plain), expected.layers.filter(~is_text).select(plain))
    assert found.layers.filter(is_text)["text"].to_list() == ["token_choice"] * 3
    assert found.details["path"].to_list() == ["layers.0", "layers.1", "layers.2"]
    reasons = {row["metric"]: row["reason"] for row in found.layers.iter_rows(named=True)}
    assert reasons["maxvio_batch"] == "a dump knows no batches"
    assert reasons["router_z_loss"] == "the dump holds no router logits"
    for n_threads in (1, 2):
        assert_frame_equal(routing_metrics(dump, n_threads=n_threads).layers, found.layers, check_exact=True)


def test_pieces_change_nothing(dump, monkeypatch):
    """A trace too long for one call is cut between sequences."""
    whole = routing_metrics(dump, by="domain")
    monkeypatch.setattr(reduction, "MOST_SLOTS", 2 * 12)
    assert len(list(reduction.token_pieces(reduction.find_follows(dump), 12))) == 3
    assert_frame_equal(routing_metrics(dump, by="domain").layers, whole.layers, rel_tol=1e-12)


def test_nothing_to_count(tmp_path):
    """Samples without a token, and layers that no token saw."""
    empty = np.zeros((0, 2, 1), np.int16), np.zeros((0, 2, 1), np.float32)
    for arrays, offsets in ((empty, [0, 0, 0]), ([np.full((4, 2, 1), -1, np.int16), None], [0, 1, 4])):
        dump = written(tmp_path, arrays, offsets=offsets, n_experts=3, samples={"domain": ["a", "b"]})
        for options in ({}, {"by": "domain"}, {"ci": 0.9, "n_resamples": 3}):
            found = routing_metrics(dump, targets="spectra", **options)
            there = found.layers.filter(pl.col("value").is_not_null())
            assert set(there["metric"]) == {"total_expert_activations", "capacity_factor", "ideal_capacity_per_expert"}
            assert "NaN" not in found.layers.write_csv()
            assert repr(found)


def test_layers(dump):
    whole = routing_metrics(dump, metrics="maxvio")
    for chosen in ([2], [2, 0], (1, 2)):
        found = routing_metrics(dump, metrics="maxvio", layers=chosen)
        assert found.layers["layer"].to_list() == list(chosen)
        assert found.layers["value"].to_list() == [whole.value("maxvio", layer=layer) for layer in chosen]
    assert routing_metrics(dump, layers=1).details["path"].to_list() == ["layers.1"]
    for wrong in ([], [3], [-1], [0, 0], "all", [0.5]):
        refused(moefps.ArgumentError, lambda wrong=wrong: routing_metrics(dump, layers=wrong), "layers: .*0 to 2")


def test_by_samples(dump, arrays, tmp_path):
    """Each group is what a dump of its samples alone has."""
    found = routing_metrics(dump, by="domain", targets="spectra")
    assert found.layers["group"].unique(maintain_order=True).to_list() == ["code", "law"]
    assert (found.about["by"], found.about["groups"], found.about["tokens_without_group"]) == (
        "domain",
        ["code", "law"],
        0,
    )
    law = np.r_[0:7, 18:30]
    alone = written(tmp_path / "..", [a[law] for a in arrays], offsets=[0, 7, 7, 19], samples=None)
    expected = routing_metrics(alone, targets="spectra")
    for frame in ("layers", "experts", "summary"):
        mine = getattr(found, frame).filter(group="law").drop("group")
        assert_frame_equal(mine, getattr(expected, frame), rel_tol=1e-12)
    assert_frame_equal(
        found.coactivation(1).filter(group="law").drop("group"), expected.coactivation(1), check_row_order=True
    )
    one = found.domains.filter(layer=0, expert=3)
    n = {group: found.details.filter(group=group, layer=0)["tokens"][0] for group in ("code", "law")}
    own = dict(one.select("group", "tokens").iter_rows())
    for row in one.iter_rows(named=True):
        share = own[row["group"]] / n[row["group"]]
        assert row["domain_specialization"] == pytest.approx(share)
        assert row["domain_purity"] == pytest.approx(max(own.values()) / sum(own.values()))
        assert row["domain_affinity"] == pytest.approx(share / (sum(own.values()) / sum(n.values())))
        assert row["chance"] == pytest.approx(2 / 6)


def test_by_tokens(tmp_path, arrays):
    """Tokens without a label are in no group, and part their neighbours; they are counted."""
    labels = ["a", None, "b"] * 10
    dump = written(tmp_path, arrays, tokens={"token_id": np.arange(30), "segment": labels})
    found = routing_metrics(dump, by="segment")
    assert found.about["tokens_without_group"] == 10
    rows = np.flatnonzero(np.array(labels) == "b")
    expected = metrics_from_counts(count_routing(*(a[rows] for a in arrays), n_experts=6))
    shown = pl.col("metric").is_in(["maxvio", "top_k_entropy", "expert_overlap", "expert_concentration"])
    columns = ["layer", "metric", "value"]
    assert_frame_equal(
        found.layers.filter(shown, group="b").select(columns), expected.layers.filter(shown).select(columns)
    )
    assert found.details["rows"].to_list() == [10] * 6
    assert found.details["pairs"].to_list() == [0] * 6
    assert routing_metrics(dump, by="segment", layers=[2]).details["rows"].to_list() == [10] * 2
    integers = routing_metrics(dump, by="sample", metrics="maxvio")
    assert integers.layers["group"].to_list() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert integers.layers.filter(group=1)["reason"].unique().to_list() == ["no token has a filled slot in this layer"]


def test_neighbours_are_of_one_sample_and_stack_and_next_to_each_other(tmp_path):
    ids = np.zeros((8, 1, 1), dtype=np.int16)
    position = [0, 1, 3, 4, 0, 1, 2, 3]
    stack = ["encoder"] * 4 + ["decoder"] * 2 + ["encoder"] * 2
    dump = written(
        tmp_path, (ids, None), offsets=[0, 4, 8], samples=None, tokens={"position": position, "stack": stack}
    )
    assert routing_metrics(dump).details["pairs"].to_list() == [2 + 2]


def test_uneven_layers(tmp_path):
    """Padding never counts, nor do passive experts; chance levels are those of each layer."""
    ids = np.full((4, 3, 2), -1, dtype=np.int16)
    ids[:, 0], ids[:, 1, 0], ids[:, 2] = (
        [[0, 1], [2, 3], [0, 1], [2, 3]],
        [0, 1, 0, 1],
        [[0, 2], [1, 3], [2, 3], [2, 0]],
    )
    weights = np.ones(ids.shape, np.float32)
    layers = [
        LayerInfo(0, "a", 0, n_experts=4, top_k=2),
        LayerInfo(1, "b", 1, n_experts=2, top_k=1, routing_type="expert_choice"),
        LayerInfo(2, "c", 2, n_experts=4, top_k=2, passive_experts=2),
    ]
    dump = written(tmp_path, (ids, weights), offsets=[0, 4], n_experts=None, layers=layers, samples=None)
    found = routing_metrics(dump)
    assert found.experts.group_by("layer", maintain_order=True).len()["len"].to_list() == [4, 2, 2]
    assert found.layers.filter(metric="maxvio")["value"].to_list() == [0.0, 0.0, pytest.approx(1 / 3)]
    assert found.layers.filter(metric="passive_share")["value"].to_list() == [0.0, 0.0, 5 / 8]
    assert found.layers.filter(metric="top_k_overlap")["chance"].to_list() == [0.5, 0.5, 1.0]
    assert found.layers.filter(metric="routing_type")["text"].to_list() == [
        "token_choice",
        "expert_choice",
        "token_choice",
    ]
    assert found.details["tokens"].to_list() == [4, 4, 3]
    assert found.details["empty_slots"].to_list() == [0, 0, 0]
    impossible = [LayerInfo(0, "a", 0, n_experts=1, top_k=2), *layers[1:]]
    ids[:, 0] = [0, -1]
    dump = written(tmp_path, (ids, weights), offsets=[0, 4], n_experts=None, layers=impossible, samples=None)
    refused(moefps.DumpError, lambda: routing_metrics(dump), "layer 0 .a. has top_k 2 of 1 experts")


def test_weights(tmp_path, arrays):
    ids, weights = arrays
    weights[5, 1, 1] = -0.5
    refused(moefps.DataError, lambda: written(tmp_path, arrays), "expert_weights: row 5")
    signed = routing_metrics(written(tmp_path, arrays, signed_weights=True))
    assert signed.layers.filter(metric="expert_concentration")["value"].null_count() == 0
    none = routing_metrics(written(tmp_path, (ids, None)))
    reasons = dict(none.layers.filter(layer=0).select("metric", "reason").iter_rows())
    assert reasons["expert_activation_entropy"] == "the dump holds no weights"
    assert reasons["sequential_routing_consistency"] == "the dump holds no weights"
    assert reasons["expert_reuse_rate"] is None


def test_values_that_are_not_accepted(tmp_path, arrays):
    """Written past the checks, as another tool might."""
    dump = written(tmp_path, arrays)
    for name, place, value, words in (
        ("expert_weights", (4, 2, 0), np.nan, "expert_weights.npy.*row 4"),
        ("expert_ids", (9, 1, 1), 6, "expert_ids.npy.*row 9"),
    ):
        dump = written(tmp_path, (np.where(arrays[0] < 0, 0, arrays[0]).astype(np.int16), arrays[1]))
        array = np.load(dump.path / f"{name}.npy")
        array[place] = value
        np.save(dump.path / f"{name}.npy", array)
        refused(moefps.DataError, lambda: routing_metrics(moefps.open_dump(tmp_path / "dump")), words)


def test_wrong_arguments(dump):
    def refuse(words, error=moefps.ArgumentError, **options):
        refused(error, lambda: routing_metrics(dump, **options), words)

    refuse("metrics: 'gini_coeficient' is no metric, perhaps 'gini_coefficient'", metrics=["gini_coeficient"])
    refuse("metrics: domain_purity is of groups", metrics=["domain_purity"])
    refuse("by: .* has no column 'topic'; accepted: sample, domain, one", by="topic")
    refuse("by: column 'one' has the one value 1; accepted: a column of at least two", by="one")
    refuse("capacity_factor: 0; accepted: a number > 0", capacity_factor=0)
    refuse("ci: 95; accepted: a number between 0 and 1", ci=95)
    refuse("n_resamples: 0; accepted: an integer >= 1", n_resamples=0)
    refuse("convention: 'old'; accepted: 'literature', 'spectra'", convention="old")
    refuse("targets: 'SPECTRA.txt'; accepted: 'spectra', or a .toml or .json file", targets="SPECTRA.txt")


def test_fingerprints(dump):
    X = dump.fingerprints("counts", drop_empty=True)
    found = routing_metrics(X, targets="spectra")
    mean = X.astype(np.float64).mean(axis=0)
    expected = mean.max(axis=1) * 6 - 1
    np.testing.assert_allclose(found.layers.filter(metric="maxvio")["value"].to_numpy(), expected, rtol=1e-6)
    entropy = [-sum(p * np.log(p) for p in row if p > 0) / np.log(6) for row in mean]
    for name in ("token_choice_entropy", "expert_activation_entropy"):
        np.testing.assert_allclose(found.layers.filter(metric=name)["value"].to_numpy(), entropy, rtol=1e-6)
    without = found.summary.filter(pl.col("reason").is_not_null())
    assert {"std_tokens_per_expert", "expert_overlap", "top_k_entropy", "dropped_fraction", "normalized_maxvio"} <= set(
        without["metric"]
    )
    assert without.filter(metric="expert_overlap")["reason"][0] == "needs a trace: fingerprints hold shares alone"
    assert found.experts["expert_activation_counts"].null_count() == found.experts.height
    assert routing_metrics(X, layers=[1]).layers["layer"].unique().to_list() == [1]
    refused(moefps.ArgumentError, lambda: routing_metrics(X, by="domain"), "by: given with fingerprints")
    refused(moefps.ShapeError, lambda: routing_metrics(X[0]), "X: 2 dimensions")
    refused(moefps.DataError, lambda: routing_metrics(X * 2), "X: sample 0, layer 0 sums to 2.*; accepted: 1 within")


def test_views_of_a_result(dump):
    found = routing_metrics(dump, targets={"maxvio": "< 0.1", "lpr": "> 5"})
    assert "RoutingMetrics of" in repr(found)
    assert "2 targets" in repr(found)
    assert "<table" in found._repr_html_()
    worst = found.worst(3)
    assert worst["met"].to_list() == [False] * 3
    assert worst["violation"].is_sorted(descending=True)
    assert found.missed.height == 6
    assert found.worst_layers()["n_missed"].to_list() == [2] * 3
    assert found.value("lpr", layer=1) == found.value("gate_weight_cv", layer=1)
    assert routing_metrics(dump, metrics=["cv", "lpr", "gate_weight_cv"]).summary["metric"].to_list() == [
        "cv",
        "lpr",
        "gate_weight_cv",
    ]
    refused(moefps.ArgumentError, lambda: found.value("maxvio", layer=7), "layer: 7; accepted: 0, 1, 2")
    refused(moefps.ArgumentError, lambda: found.value("coactivation"), "not among the metrics")
    refused(moefps.ArgumentError, lambda: found.coactivation(9), "layer: 9; accepted: 0, 1, 2")
    refused(
        moefps.ArgumentError,
        lambda: routing_metrics(dump, metrics="maxvio").coactivation(),
        "no metric that was asked for needs pairs",
    )


@pytest.mark.real_data
def test_real_traces_agree_with_their_authors(traces, tmp_path):
    """Shares of assignments and gate weights per token, to the four decimals that they give."""
    dump = convert_trace(DATA / "esft_traces.npz", tmp_path / "esft.dump")
    found = routing_metrics(dump, by="task", metrics=["expert_token_proportions"])
    tokens = dict(found.details.filter(layer=0).select("group", "tokens").iter_rows())
    for task, n_tokens in tokens.items():
        summary = json.loads((DATA / f"summary_{task}.json").read_text(encoding="utf-8"))
        for layer in range(26):
            rows = found.experts.filter(group=task, layer=layer)
            theirs = summary["token_scores"][str(layer + 1)], summary["gate_scores"][str(layer + 1)]
            ours = rows["expert_token_proportions"], rows["expert_weighted_counts"] / n_tokens
            for mine, other in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(mine.to_numpy(), [other[str(e)] for e in range(64)], atol=5.1e-5, rtol=0)
