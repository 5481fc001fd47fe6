"""SPECTRAAnalyzer's numbers: of steps, over steps, and of a whole dump."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moefps
from moefps.compat._spectra_dump import NAMES
from moefps.compat.spectra import SPECTRAAnalyzer, spectra_values
from moefps.errors import ArgumentError, DataError, DtypeError, ShapeError
from reference import spectra as plain
from support import refused

# Decided by rounding where a Gram matrix is nearly singular.
ROUNDED = "gram_condition_number"


def assert_same(found, expected, key="", rel=1e-6):
    if isinstance(expected, dict):
        assert set(found) == set(expected)
        for name in expected:
            assert_same(found[name], expected[name], name, rel)
    elif isinstance(expected, list):
        assert len(found) == len(expected), key
        for a, b in zip(found, expected, strict=True):
            assert_same(a, b, key, rel)
    elif isinstance(expected, str):
        assert found == expected, key
    else:
        if key == ROUNDED and min(abs(found), abs(expected)) > 1e4:
            return
        assert type(found) is type(expected), key
        assert found == pytest.approx(expected, rel=rel, abs=2e-7, nan_ok=True), key


def make_step(seed=0, n_experts=6, top_k=2, shape=(2, 5), width=4, dtype=np.float32, repeats=False, fours=False):
    """Arguments of a step."""
    rng = np.random.default_rng(seed)
    n_tokens = shape[0] * shape[1]
    ids = rng.random((n_tokens, n_experts)).argsort(axis=1)[:, :top_k]
    if repeats:
        ids = rng.integers(0, n_experts, (n_tokens, top_k)) // 2
    lead = shape if fours else (n_tokens,)
    return {
        "routing_logits": rng.normal(size=(*lead, n_experts, width)).astype(dtype),
        "expression_logits": rng.normal(size=(*lead, n_experts, width)).astype(dtype),
        "selected_experts": ids,
        "routing_weights": rng.choice([rng.random(), 0.0, 0.25, 1.0], (n_tokens, top_k)).astype(dtype),
        "speciality_penalty": 0.25,
        "cosine_similarities": rng.uniform(-1, 1, (*shape, n_experts)).astype(dtype),
        "expression_loss": 0.5,
    }


def reference_of(step, n_experts, **more):
    return plain.step(
        step["routing_logits"],
        step["expression_logits"],
        step["selected_experts"],
        step["routing_weights"],
        step["cosine_similarities"],
        n_experts=n_experts,
        penalty=step["speciality_penalty"],
        loss=step["expression_loss"],
        **more,
    )


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_experts=st.integers(1, 9),
    top_k=st.integers(1, 9),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 8)),
    dtype=st.sampled_from([np.float32, np.float64]),
    repeats=st.booleans(),
    fours=st.booleans(),
)
def test_every_key_of_a_step(seed, n_experts, top_k, shape, dtype, repeats, fours):
    step = make_step(seed, n_experts, min(top_k, n_experts), shape, dtype=dtype, repeats=repeats, fours=fours)
    found = SPECTRAAnalyzer(n_experts).analyze_routing_step(**step)
    expected = reference_of(step, n_experts)
    if n_experts == 1 or min(top_k, n_experts) == 1:
        # 0 / 0 and ±x / 0: which of them is a matter of the epsilon.
        for key in ("routing_confidence", "expert_activation_entropy"):
            assert not math.isfinite(found.pop(key)) or math.isfinite(expected[key])
            found[key] = expected[key]
    assert_same(found, expected)


def test_a_step_by_hand():
    """Two tokens of four experts: 0 and 1, then 0 and 2."""
    analyzer = SPECTRAAnalyzer(num_experts=4)
    same = np.ones((2, 4, 3))
    same[:, 1] = -1
    step = analyzer.analyze_routing_step(
        same, same, np.array([[0, 1], [0, 2]]), np.array([[0.75, 0.25], [0.5, 0.5]]), 0.0, np.zeros((1, 2, 4)), 0.0
    )
    assert step["expert_token_counts"] == [2.0, 1.0, 1.0, 0.0]
    assert step["expert_activation_counts"] == [2, 1, 1, 0]
    assert step["expert_weighted_counts"] == [1.25, 0.25, 0.5, 0.0]
    # std of 2, 1, 1, 0 is √(2/3), their mean 1.
    assert step["load_balancing_coefficient"] == pytest.approx(math.sqrt(2 / 3), rel=1e-6)
    # 3/8 - 1/4
    assert step["gini_coefficient"] == pytest.approx(0.125, abs=1e-7)
    assert step["maxvio"] == 1.0
    assert step["min_max_expert_load_ratio"] == 0.0
    # {0,1}: 1/2; {0,2}: 1/2; {0,3}, {1,2}, {1,3}, {2,3}: 0.
    assert step["expert_overlap_mean"] == pytest.approx(1 / 6)
    # One of three is shared.
    assert step["top_k_overlap"] == pytest.approx(1 / 3)
    assert step["sequential_routing_consistency"] == step["expert_reuse_rate"] == 1.0
    assert step["routing_locality"] == 0.75
    # (H(3/4, 1/4) + ln 2) / (2 ln 2)
    assert step["routing_confidence"] == pytest.approx((0.8112781 + 1) / 2, rel=1e-6)
    # b = 0.625, 0.25, 0.5, 0 of 1.375: 4 (2/4 · 0.625 + 1/4 · 0.25 + 1/4 · 0.5) / 1.375
    assert step["aux_loss"] == pytest.approx(4 * 0.5 / 1.375, rel=1e-6)
    # All cosines are ±1: ‖G - I‖ = √12, of 4 √2.
    assert step["gram_matrix_orthogonality"] == pytest.approx(1 - math.sqrt(12) / math.sqrt(32))
    assert step["gram_off_diagonal_sparsity"] == pytest.approx(1.0)
    assert step["gram_condition_number"] == math.inf
    assert step["expression_routing_complementarity"] == pytest.approx(0.0)


def test_perfect_balance_has_the_negative_gini_of_the_original():
    ids = np.arange(8)[:, None]
    step = make_step(n_experts=8, top_k=1, shape=(1, 8)) | {"selected_experts": ids}
    assert SPECTRAAnalyzer(8).analyze_routing_step(**step)["gini_coefficient"] == pytest.approx(-0.125, abs=1e-7)


def test_one_token_has_no_neighbours():
    found = SPECTRAAnalyzer(6).analyze_routing_step(**make_step(shape=(1, 1)), hidden_states=np.zeros((1, 3)))
    assert not {"sequential_routing_consistency", "top_k_overlap", "routing_locality", "expert_reuse_rate"} & set(found)


def test_outputs_of_experts():
    step, rng = make_step(), np.random.default_rng(1)
    outputs = {e: rng.normal(size=(e + 1, 5)) for e in (4, 1, 2)}
    found = SPECTRAAnalyzer(6).analyze_routing_step(**step, expert_outputs=outputs)
    assert found["expert_output_diversity"] == pytest.approx(plain.output_diversity(outputs)["expert_output_diversity"])
    for few in ({}, {3: outputs[1]}):
        assert "expert_output_diversity" not in SPECTRAAnalyzer(6).analyze_routing_step(**step, expert_outputs=few)


def test_cosines_of_fewer_positions_begin_again():
    step = make_step(shape=(2, 5))
    step["cosine_similarities"] = step["cosine_similarities"][:, :2]
    found = SPECTRAAnalyzer(6).analyze_routing_step(**step)
    assert_same(found, reference_of(step, 6))


def test_aggregates_over_steps(tmp_path):
    analyzer = SPECTRAAnalyzer(6, capacity_factor=2.0)
    assert analyzer.get_aggregated_metrics() == analyzer.get_paper_metrics_summary() == {}
    steps = [analyzer.analyze_routing_step(**make_step(seed)) for seed in range(3)]
    assert steps[0]["capacity_factor"] == 2.0
    found = analyzer.get_aggregated_metrics()
    assert_same(found, plain.aggregate(steps), rel=1e-12)
    summary = analyzer.get_paper_metrics_summary()
    assert summary["load_balancing"]["coefficient_of_variation"] == found["final_load_balancing_cv"]
    assert summary["load_balancing"]["expert_token_distribution"] == steps[-1]["expert_token_counts"]
    assert summary["routing_quality"]["routing_confidence"] == np.mean([s["routing_confidence"] for s in steps])
    assert not [name for part in summary.values() for name, value in part.items() if value is None]
    steps[0]["expert_token_counts"][0] = -1.0
    path = tmp_path / "analysis.json"
    for _ in range(2):
        analyzer.save_analysis(path)
    saved = json.loads(path.read_text(encoding="utf-8"))
    assert saved["aggregated_metrics"] == analyzer.get_aggregated_metrics() == found
    assert saved["gini_coefficient_history"] == [s["gini_coefficient"] for s in steps]
    assert json.loads(json.dumps(steps[1])) == steps[1]
    analyzer.reset()
    assert analyzer.get_aggregated_metrics() == {}


def test_what_is_not_finite_is_null_in_the_file(tmp_path):
    analyzer = SPECTRAAnalyzer(1)
    step = analyzer.analyze_routing_step(**make_step(n_experts=1, top_k=1))
    assert math.isnan(step["expert_similarity_mean"])
    analyzer.save_analysis(tmp_path / "a.json")
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text)["expert_similarity_mean_history"] == [None]


BAD_STEPS = [
    ({"selected_experts": [[0, 6]] * 10}, DataError, "selected_experts: 6 at"),
    ({"selected_experts": [[0, -1]] * 10}, DataError, "empty slots"),
    ({"selected_experts": np.zeros((10, 2))}, DtypeError, "selected_experts: dtype float64"),
    ({"selected_experts": np.zeros((2, 5, 2), dtype=int)}, ShapeError, r"selected_experts: shape \(2, 5, 2\)"),
    ({"selected_experts": np.zeros((0, 2), dtype=int)}, ShapeError, "selected_experts"),
    ({"routing_weights": np.full((10, 2), np.nan)}, DataError, "routing_weights: nan at"),
    ({"routing_weights": np.full((10, 2), -0.5)}, DataError, "routing_weights: -0.5 at"),
    ({"routing_weights": np.ones((10, 3))}, ShapeError, "routing_weights: shape"),
    ({"routing_logits": np.ones((6, 4))}, ShapeError, "routing_logits: shape"),
    ({"routing_logits": np.ones((10, 5, 4))}, ShapeError, "routing_logits: shape"),
    ({"routing_logits": np.full((10, 6, 4), np.inf)}, DataError, "routing_logits: expert 0"),
    ({"expression_logits": np.ones((10, 6, 3))}, ShapeError, "expression_logits"),
    ({"cosine_similarities": np.ones((10, 6))}, ShapeError, "cosine_similarities: shape"),
    ({"cosine_similarities": np.ones((2, 5, 6), complex)}, DtypeError, "cosine_similarities: dtype complex128"),
    ({"cosine_similarities": np.full((2, 5, 6), np.nan)}, DataError, r"cosine_similarities: nan at \[0, 0, 0\]"),
    ({"routing_weights": np.full((10, 2), 1e200)}, DataError, r"routing_weights: 1e\+200 at \[0, 0\]; accepted"),
    ({"speciality_penalty": None}, ArgumentError, "speciality_penalty: None"),
    ({"expert_outputs": [np.ones((2, 3))] * 2}, ArgumentError, "expert_outputs: list"),
    ({"expert_outputs": {0: np.ones((2, 3)), 1: np.ones((2, 4))}}, ShapeError, "expert_outputs"),
    ({"expert_outputs": {0: np.ones((2, 3), complex)}}, DtypeError, r"expert_outputs\[0\]: dtype complex128"),
    ({"expert_outputs": {0: np.full((2, 3), np.inf)}}, DataError, r"expert_outputs\[0\]: inf at \[0, 0\]"),
]


@pytest.mark.parametrize(("change", "error", "words"), BAD_STEPS, ids=[words for _, _, words in BAD_STEPS])
def test_bad_steps_are_refused_and_leave_nothing(change, error, words):
    analyzer = SPECTRAAnalyzer(6)
    refused(error, lambda: analyzer.analyze_routing_step(**(make_step() | change)), words)
    assert analyzer.get_aggregated_metrics() == {}


@pytest.mark.parametrize("arguments", [(0,), (2.5,), ("8",), (8, 128, 0.0), (8, 128, math.nan), (8, 128, "1")])
def test_bad_settings_are_refused(arguments):
    refused(ArgumentError, lambda: SPECTRAAnalyzer(*arguments), "num_experts|capacity_factor")


def test_torch_is_not_imported():
    code = (
        "import sys, numpy as np\n"
        "from moefps.compat.spectra import SPECTRAAnalyzer\n"
        "SPECTRAAnalyzer(2).analyze_routing_step(np.ones((1, 2, 2)), np.ones((1, 2, 2)), [[0]], [[1.0]], 0, "
        "np.ones((1, 1, 2)), 0)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Of a dump.


def write(path, seed=0, lengths=(3, 1, 4), experts=(5, 3), top_k=(2, 1), weights=True, vectors=True, **more):
    """A dump of layers with different numbers of experts and slots."""
    rng = np.random.default_rng(seed)
    n_tokens, width = sum(lengths), max(top_k)
    ids = np.full((n_tokens, len(experts), width), -1, dtype=np.int16)
    values = np.zeros(ids.shape, dtype=np.float16)
    for layer, (n, k) in enumerate(zip(experts, top_k, strict=True)):
        ids[:, layer, :k] = rng.random((n_tokens, n)).argsort(axis=1)[:, :k]
        values[:, layer, :k] = rng.random((n_tokens, k))
    infos = [
        {"index": i, "path": f"layers.{i}", "layer": i, "n_experts": n, "top_k": k, "scoring": "softmax"}
        for i, (n, k) in enumerate(zip(experts, top_k, strict=True))
    ]
    samples = pl.DataFrame({"domain": [("code", "maths", "prose")[i % 3 % 2] for i in range(len(lengths))]})
    return moefps.write_dump(
        path,
        expert_ids=ids,
        expert_weights=values if weights else None,
        router_vectors=rng.normal(size=(len(experts), max(experts), 4)).astype(np.float32) if vectors else None,
        offsets=np.cumsum([0, *lengths]),
        layers=[moefps.io.dump.LayerInfo(**info) for info in infos],
        samples=samples,
        **more,
    )


def plain_values(dump, layer, rows):
    info = dump.layers[layer]
    k, n = info.top_k, info.n_experts
    return plain.step(
        dump.router_vectors[layer, :n],
        dump.router_vectors[layer, :n],
        dump.expert_ids[rows, layer, :k],
        dump.expert_weights[rows, layer, :k],
        np.zeros((1, len(rows), n)),
        n_experts=n,
    )


@pytest.mark.parametrize("by", [None, "domain", "side"])
@pytest.mark.parametrize("cells", [1, 1 << 20])
def test_a_dump_is_one_sequence(tmp_path, monkeypatch, by, cells):
    """Whatever the pieces that it is read in, and with groups those of each group alone."""
    tokens = pl.DataFrame({"side": ["b", "a", "a", "b", "b", "a", "b", "a"]})
    dump = write(tmp_path / "dump", tokens=tokens)
    monkeypatch.setattr("moefps.compat._spectra_dump.CELLS", cells)
    monkeypatch.setattr("moefps.compat._spectra_dump.ROWS", 3 if cells == 1 else 1 << 22)
    found = spectra_values(dump, by=by)
    literature = moefps.metrics.routing_metrics(dump, by=by).layers
    assert found["metric"].to_list() == literature["metric"].to_list()
    of_sample = np.repeat(dump.samples["domain"].to_numpy(), np.diff(dump.token_starts))
    groups = {None: np.full(8, "all"), "domain": of_sample, "side": tokens["side"].to_numpy()}[by]
    known = set(NAMES) & set(found["metric"])
    assert {"gini_coefficient", "routing_locality", "top_k_overlap", "aux_loss"} <= known
    for group in np.unique(groups):
        for layer in (0, 1):
            expected = plain_values(dump, layer, np.flatnonzero(groups == group))
            here = (pl.col("layer") == layer) & (pl.lit(value=True) if by is None else pl.col("group") == group)
            values = dict(found.filter(here).select("metric", "value").rows())
            for name in known:
                want = expected.get(NAMES[name], math.nan)
                if math.isfinite(want):
                    assert values[name] == pytest.approx(want, rel=1e-5, abs=1e-7), (name, layer)
                else:
                    assert values[name] is None, name
            for name, value in literature.filter(here, ~pl.col("metric").is_in(known)).select("metric", "value").rows():
                assert values[name] == value, name
    missing = found.filter(pl.col("value").is_null() & pl.col("metric").is_in(known))
    assert missing["reason"].null_count() == 0


def test_what_does_not_differ_equals_the_literature(tmp_path):
    """Keys of a step that are in the registry and are not replaced."""
    dump = write(tmp_path / "dump", experts=(6,), top_k=(2,))
    values = dict(spectra_values(dump).select("metric", "value").rows())
    step = plain_values(dump, 0, np.arange(8))
    shared = [name for name, value in step.items() if values.get(name) is not None and isinstance(value, (int, float))]
    assert len(shared) > 30
    for name in shared:
        assert values[name] == pytest.approx(step[name], rel=1e-5, abs=1e-7), name


def test_without_weights_or_vectors(tmp_path):
    dump = write(tmp_path / "dump", weights=False, vectors=False)
    found = spectra_values(dump, layers=[0])
    rows = {row["metric"]: row for row in found.iter_rows(named=True)}
    for name in ("routing_confidence", "expert_activation_entropy", "aux_loss", "routing_locality"):
        assert rows[name]["value"] is None
        assert "weights" in rows[name]["reason"]
    assert rows["sequential_routing_consistency"]["value"] is not None


def test_an_empty_slot_is_refused(tmp_path):
    ids = np.array([[[0, 1]], [[2, -1]]], dtype=np.int16)
    dump = moefps.write_dump(tmp_path / "dump", expert_ids=ids, offsets=[0, 2], n_experts=4)
    refused(DataError, lambda: spectra_values(dump), "1 slots of layer 0 are empty", "spectra")
