"""What routing metrics do not accept is refused in one line, by an error of moefps."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import moefps
from moefps.errors import ArgumentError, DtypeError, FileError, MoefpsError, ShapeError
from moefps.kernels import count_routing, sum_logits
from moefps.metrics import find_metric, list_metrics, metrics_from_counts, routing_metrics
from support import refused

IDS = np.array([[[0, 1]], [[0, 2]], [[0, 3]], [[1, 0]], [[2, 3]], [[3, 2]]], dtype=np.int16)
PARTS = [0, 1, 0, 1, 0, 1]


@pytest.fixture(scope="module")
def dump(tmp_path_factory):
    path = tmp_path_factory.mktemp("arguments") / "dump"
    return moefps.write_dump(path, expert_ids=IDS, offsets=[0, 3, 6], n_experts=4, samples={"domain": ["a", "b"]})


@pytest.fixture(scope="module")
def counts():
    return count_routing(IDS, n_experts=4)


@pytest.fixture(scope="module")
def grouped():
    return count_routing(IDS, n_experts=4, groups=PARTS)


BAD = [
    ({"by": ["domain"]}, "by: .'domain'.; accepted: the name of a column"),
    ({"metrics": 5}, "metrics: 5; accepted: a name, several, or None"),
    ({"layers": True}, "layers: True; accepted: integers of 0 to 0"),
    ({"layers": [True]}, "layers: True; accepted"),
    ({"ci": 0.9, "n_resamples": True}, "n_resamples: True; accepted: an integer >= 1"),
    ({"seed": True}, "seed: True; accepted: an integer >= 0$"),
    ({"seed": -1}, "seed: -1; accepted: an integer >= 0$"),
    ({"seed": None}, "seed: None; accepted: an integer >= 0$"),
    ({"n_threads": True}, "n_threads: True; accepted: an integer from 1"),
    ({"capacity_factor": 10**400}, "capacity_factor: 1000*[.]{3}; accepted: a number > 0, of 1e-06 to 1e"),
    ({"capacity_factor": 1e308}, "capacity_factor: 1e.308; accepted: a number > 0"),
    ({"capacity_factor": True}, "capacity_factor: True; accepted"),
]


@pytest.mark.parametrize(("given", "words"), BAD, ids=[str(given)[:40] for given, _ in BAD])
def test_of_a_dump(dump, given, words):
    refused(ArgumentError, lambda: routing_metrics(dump, **given), words)


BAD_OF_COUNTS = [
    ({"vectors": [[[1.0, 0.0]] * 4]}, DtypeError, "vectors: list; accepted: an array of float"),
    ({"batch_maxvio": ["a"]}, DtypeError, "batch_maxvio: dtype <U1; accepted: numbers >= 0"),
    ({"batch_maxvio": [[1], [1, 2]]}, ShapeError, "batch_maxvio: rows of different lengths"),
    ({"batch_maxvio": [np.inf]}, ArgumentError, "batch_maxvio: inf; accepted: numbers >= 0"),
    ({"batch_maxvio": [-1]}, ArgumentError, "batch_maxvio: -1.0; accepted: numbers >= 0"),
    ({"layer_names": [1]}, ArgumentError, "layer_names: 1 in layer 0; accepted: text"),
    ({"layer_names": 5}, ArgumentError, "layer_names: 5; accepted: text, one for each"),
    ({"layer_names": "a"}, ArgumentError, "layer_names: 'a'; accepted: text, one for each"),
    ({"layer_names": ["a", "b"]}, ShapeError, "layer_names: 2 of them; accepted: one for each of 1"),
    ({"routing_types": 5}, ArgumentError, "routing_types: 5; accepted: 'token_choice' or 'expert_choice'"),
    ({"routing_types": "foo"}, ArgumentError, "routing_types: 'foo' in layer 0; accepted: 'token_choice'"),
    ({"missing": 5}, ArgumentError, "missing: 5; accepted: a mapping"),
    ({"missing": {"nope": "x"}}, ArgumentError, "missing: 'nope': 'x'; accepted: text for trace"),
    ({"about": 5}, ArgumentError, "about: 5; accepted: a mapping"),
    ({"logit_sums": 5}, ArgumentError, "logit_sums: int; accepted: what moefps.kernels.sum_logits gives"),
]


@pytest.mark.parametrize(("given", "error", "words"), BAD_OF_COUNTS, ids=[str(bad[0])[:40] for bad in BAD_OF_COUNTS])
def test_of_counts(counts, given, error, words):
    refused(error, lambda: metrics_from_counts(counts, **given), words)


def test_what_is_no_counts():
    refused(ArgumentError, lambda: metrics_from_counts(5), "counts: int; accepted: what moefps.kernels.count_routing")


def test_sums_of_other_logits(counts, grouped):
    """Sums of logits of other experts, layers or groups than were counted."""
    logits = np.zeros((6, 1, 5), dtype=np.float32)

    def sums(n_experts=4, n_layers=1, **options):
        ids, found = np.repeat(IDS, n_layers, axis=1), np.repeat(logits, n_layers, axis=1)
        return sum_logits(ids, found, n_experts=n_experts, scoring="softmax", **options)

    assert metrics_from_counts(counts, logit_sums=sums()).value("routing_entropy") == pytest.approx(np.log(4))
    assert metrics_from_counts(grouped, logit_sums=sums(groups=PARTS)).value("routing_entropy", group=1) is not None
    refused(ArgumentError, lambda: metrics_from_counts(counts, logit_sums=sums(5)), "n_experts .5.; accepted: .4.")
    refused(ArgumentError, lambda: metrics_from_counts(counts, logit_sums=sums(4, 2)), "n_experts .4, 4.; accepted")
    refused(ShapeError, lambda: metrics_from_counts(counts, logit_sums=sums(groups=PARTS)), "logit_sums: shape .2, 1.")
    refused(ShapeError, lambda: metrics_from_counts(grouped, logit_sums=sums()), "logit_sums: shape .1,.")


@pytest.mark.parametrize(
    "groups", [("a", "a"), ("a", None), (None, None), (1, "a"), (1.5, float("nan")), "ab", 5, [[1], [2]]]
)
def test_groups_that_are_not_apart(grouped, groups):
    words = "^groups: .*accepted: .*distinct values, none of them null"
    refused(MoefpsError, lambda: metrics_from_counts(grouped, groups=groups), words)


def test_groups_keep_their_order(grouped):
    for groups in (["b", "a"], np.array([3, 2]), [True, False], pl.Series("mine", ["x", "y"])):
        found = metrics_from_counts(grouped, groups=groups, metrics=["total_expert_activations", "maxvio"])
        assert found.layers["group"].unique(maintain_order=True).to_list() == list(groups)
        # Expert 0 has 2 of the 6 slots of the first group, experts 1 and 3 have 1, expert 2 has 2.
        assert found.value("maxvio", group=groups[0]) == pytest.approx((2 - 1.5) / 1.5)
    refused(ShapeError, lambda: metrics_from_counts(grouped, groups=["a"]), "groups: 1 of them")


def test_fingerprints_of_another_shape():
    refused(ShapeError, lambda: routing_metrics(np.ones((2, 2)), layers=[0]), "X: 2 dimensions")
    refused(ShapeError, lambda: routing_metrics([[1], [1, 2]], layers=[0]), "X: rows of different lengths")


def test_targets_that_no_file_holds(dump, tmp_path):
    for name, text in (("deep.json", "[" * 100_000), ("deep.toml", "a = " + "[" * 100_000)):
        (tmp_path / name).write_text(text, encoding="utf-8")
        refused(FileError, lambda name=name: routing_metrics(dump, targets=tmp_path / name), f"{name}: cannot be read")
    refused(FileError, lambda: routing_metrics(dump, targets="a\0.toml"), "a.x00.toml.: cannot be read: embedded null")


def test_kernels():
    refused(
        ShapeError,
        lambda: count_routing(IDS[:2], n_experts=4, follows=[[True], [True, False]]),
        "follows: rows of different lengths; accepted: bool",
    )
    logits = np.zeros((6, 1, 4), dtype=np.float32)
    for scoring in (None, 5, [None]):
        refused(ArgumentError, lambda given=scoring: sum_logits(IDS, logits, n_experts=4, scoring=given), "^scoring: ")
    refused(ArgumentError, lambda: count_routing(IDS, n_experts=4, n_threads=True), "n_threads: True; accepted")
    refused(ArgumentError, lambda: count_routing(IDS, n_experts=4, groups=PARTS, n_groups=True), "n_groups: True")


def test_views_of_a_result(dump):
    found = routing_metrics(dump)
    refused(ArgumentError, lambda: found.value(5), "metrics: 5 is no metric")
    refused(ArgumentError, lambda: found.value("maxvio", layer=True), "layer: True; accepted")
    for n in ("a", -1, True):
        refused(ArgumentError, lambda n=n: found.worst(n), "n: .*; accepted: an integer >= 0, or None")
        refused(ArgumentError, lambda n=n: found.worst_layers(n), "n: .*; accepted: an integer >= 0, or None")
    for layer in ([0], True, "0", 9):
        refused(ArgumentError, lambda layer=layer: found.coactivation(layer), "layer: .*; accepted: 0$")
    refused(ArgumentError, lambda: list_metrics(5), "metrics: 5; accepted")
    assert list_metrics("lpr")["metric"].to_list() == ["gate_weight_cv"]


def test_text_alone(dump, counts):
    """The word of routing_type, with no metric beside it that is a number or a list."""
    for asked in ("routing_type", ["routing_type", "gini_coefficient"]):
        for options in ({}, {"convention": "spectra"}, {"ci": 0.9, "n_resamples": 5}, {"by": "domain"}):
            rows = routing_metrics(dump, metrics=asked, **options).layers.filter(metric="routing_type")
            assert rows["text"].to_list() == ["token_choice"] * rows.height
        found = metrics_from_counts(counts, metrics=asked, routing_types="token_choice")
        assert found.layers["text"][0] == "token_choice"


def test_no_negative_zero():
    """One expert that takes all has entropies of 0, with no sign."""
    ids, weights = np.zeros((3, 1, 1), np.int16), np.ones((3, 1, 1), np.float32)
    found = metrics_from_counts(count_routing(ids, weights, n_experts=4))
    values = found.layers.filter(pl.col("value") == 0)
    assert not np.signbit(values["value"].to_numpy()).any()
    assert "token_choice_entropy" in values["metric"]


def test_missed_targets_are_those_of_metrics_with_one(counts):
    found = metrics_from_counts(counts, targets={"gini_coefficient": "< 0.01"}, metrics=["gini_coefficient", "maxvio"])
    assert dict(found.summary.select("metric", "n_missed").iter_rows()) == {"gini_coefficient": 1, "maxvio": None}


def test_one_of_each_is_said_so(dump, grouped):
    said = repr(routing_metrics(dump, metrics="gini_coefficient", targets={"gini_coefficient": "< 1"}))
    assert "2 samples, 6 tokens, 1 layer\n1 metric with values; 1 of 1 target met" in said
    assert "\n2 groups\n" in repr(metrics_from_counts(grouped))
    assert "\nby domain: 2 groups\n" in repr(routing_metrics(dump, by="domain"))


def test_names_in_capitals_and_small_letters(dump):
    for name, metric in (
        ("MaxVio_batch", "maxvio_batch"),
        ("MaxVio_global", "maxvio"),
        ("CV", "load_balancing_coefficient"),
    ):
        assert find_metric(name).name == find_metric(name.lower()).name == metric
        assert name in find_metric(name).aliases
    found = routing_metrics(dump, metrics=["cv"])
    assert found.value("CV") == found.value("load_balancing_coefficient") == found.value("Load_Balancing_Coefficient")
    assert found.worst(metric="CV").height == 1


def test_metrics_with_a_command_of_their_own(dump):
    asked = {
        "routing_consistency": "`moefps consistency A B` computes it",
        "expert_focus_degree": "`moefps focus DUMP --by COLUMN` computes it",
        "active_parameters": "`moefps efficiency MODEL` computes it",
    }
    found = routing_metrics(dump, metrics=list(asked), ci=0.9, n_resamples=5)
    assert dict(found.layers.select("metric", "reason").iter_rows()) == asked
    assert found.summary["mean"].null_count() == 3
    assert set(asked).isdisjoint(routing_metrics(dump).layers["metric"])
    assert set(asked) <= set(list_metrics()["metric"])
    assert find_metric("routing_consistency").target.text == "> 0.85"
    assert find_metric("routing_consistency").chance == "k/E"


def test_directions_of_another_convention(tmp_path):
    """There, routing_confidence is an entropy, and gram_off_diagonal_sparsity a mean of cosines."""
    rng = np.random.default_rng(0)
    dump = moefps.write_dump(
        tmp_path / "dump",
        expert_ids=IDS,
        expert_weights=np.tile(np.float32([0.75, 0.25]), (6, 1, 1)),
        router_vectors=rng.normal(size=(1, 4, 3)).astype(np.float32),
        offsets=[0, 6],
        n_experts=4,
    )
    names = ["routing_confidence", "gram_off_diagonal_sparsity", "top_k_overlap", "gini_coefficient"]
    for convention, expected in (("literature", ["up", "up", "-", "down"]), ("spectra", ["down", "down", "-", "down"])):
        summary = routing_metrics(dump, metrics=names, convention=convention).summary
        assert summary["better"].to_list() == expected
        assert summary.filter(metric="top_k_overlap")["chance"].is_null()[0] == (convention == "spectra")
