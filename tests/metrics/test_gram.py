"""Vectors of experts: known answers, the plain reference, what is not defined and why, and real routers."""

from __future__ import annotations

import json
import math
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import moefps
from moefps.metrics.families import gram
from moefps.metrics.vectors import VECTOR_METRICS, cosine_gram, vector_metrics, vector_table
from reference.gram import gram_metrics
from support import refused

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo-moe" / "model.safetensors"
OFF_DIAGONAL = {
    "expert_similarity_mean",
    "expert_similarity_std",
    "expert_diversity_score",
    "expert_specialization_strength",
    "gram_matrix_orthogonality",
    "gram_off_diagonal_sparsity",
}
VECTORS = [[1, 0], [0, 1], [3, 4]]


def close(found, expected, tolerance=1e-9):
    assert found.values.keys() == set(VECTOR_METRICS)
    assert found.reasons.keys() == {name for name, value in found.values.items() if value is None}
    for name, value in expected.items():
        assert found.values[name] == (None if value is None else pytest.approx(value, rel=tolerance, abs=tolerance)), (
            name
        )


def test_registry_and_values_have_the_same_names():
    assert tuple(metric.name for metric in gram.METRICS) == VECTOR_METRICS
    for metric in gram.METRICS:
        assert metric.family == "gram"
        assert metric.value.meta.root_names() == [metric.name]


def example_of(name):
    if name == "gram_diagonal_quality":
        return vector_metrics([*VECTORS, [0, 0]])
    if name == "gram_condition_number":
        return vector_metrics([[1, 0], [3, 4]])
    return vector_metrics(VECTORS, outputs=VECTORS, expressions=[[1, 0], [0, -1], [4, 3]])


@pytest.mark.parametrize("metric", gram.METRICS, ids=lambda metric: metric.name)
def test_worked_examples(metric):
    end = metric.example.rsplit("= ", 1)[-1]
    assert re.fullmatch(r"[0-9]+(\.[0-9]+)?", end)
    assert round(example_of(metric.name).values[metric.name], 4) == pytest.approx(float(end), abs=1e-12)


def test_orthogonal_vectors():
    rotated, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(24, 24)))
    close(
        vector_metrics(rotated[:16] * np.linspace(0.1, 9, 16)[:, np.newaxis]),
        {
            "expert_similarity_mean": 0,
            "expert_similarity_std": 0,
            "expert_diversity_score": 1,
            "expert_specialization_strength": 0,
            "gram_matrix_orthogonality": 1,
            "gram_diagonal_quality": 1,
            "gram_off_diagonal_sparsity": 1,
            "gram_condition_number": 1,
            "gram_frobenius_norm": 4,
        },
    )


def test_identical_vectors():
    close(
        vector_metrics(np.tile(np.arange(1.0, 6), (7, 1))),
        {
            "expert_similarity_mean": 1,
            "expert_similarity_std": 0,
            "expert_diversity_score": 0,
            "expert_specialization_strength": 0,
            "gram_matrix_orthogonality": 0,
            "gram_diagonal_quality": 1,
            "gram_off_diagonal_sparsity": 0,
            "gram_condition_number": math.inf,
            "gram_frobenius_norm": 7,
        },
    )


def test_simplex():
    """As far apart as E vectors can be: all cosines -1/(E-1), the least that their mean can be."""
    found = vector_metrics(np.eye(5) - 0.2).values
    assert found["expert_similarity_mean"] == pytest.approx(-1 / 4, rel=1e-12)
    assert found["expert_diversity_score"] == pytest.approx(5 / 4, rel=1e-12)
    assert found["gram_condition_number"] == math.inf


def test_random_signs():
    """Cosines of random ±1 vectors have mean 0 and variance 1/d, each within its sampling error."""
    n, d = 64, 1024
    signs = np.random.default_rng(1).choice([-1.0, 1.0], (n, d))
    found = vector_metrics(signs).values
    pairs = n * (n - 1) / 2
    assert abs(found["expert_similarity_mean"]) < 5 / math.sqrt(d * pairs)
    assert found["expert_specialization_strength"] == pytest.approx(1 / d, rel=5 * math.sqrt(2 / pairs))
    assert found["gram_matrix_orthogonality"] == pytest.approx(1 - 1 / math.sqrt(d), abs=0.005)


@st.composite
def vectors(draw):
    n, d = draw(st.integers(1, 9)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    found = rng.normal(size=(n, d)) * 10.0 ** rng.integers(-3, 4, (n, 1))
    # Zeros, and vectors that are the same or opposite.
    found[rng.random(n) < 0.2] = 0
    found[rng.random(n) < 0.2] = found[0]
    found[rng.random(n) < 0.1] = -found[0]
    return found.astype(draw(st.sampled_from(["float16", "float32", "float64"])))


@given(found=vectors(), passive=st.integers(0, 2))
def test_values_are_what_the_definitions_say(found, passive):
    real = max(1, len(found) - passive)
    result = vector_metrics(
        found, passive_experts=len(found) - real, outputs=found[::-1], expressions=np.roll(found, 1, axis=1)
    )
    rows = found.astype(np.float64)
    expected = gram_metrics(rows[:real], rows[::-1][:real], np.roll(rows, 1, axis=1)[:real])
    condition = expected.pop("gram_condition_number")
    least = np.linalg.eigvalsh(cosine_gram(found[:real]))[0]
    # Closer to the smallest eigenvalue that counts, rounding decides.
    if least > 1e-6:
        assert result.values["gram_condition_number"] == pytest.approx(condition, rel=1e-8)
    elif least < 1e-9:
        assert result.values["gram_condition_number"] == condition == math.inf
    close(result, expected)


def test_scale_changes_nothing():
    """Of float64 as large and as small as it gets, squares are no numbers."""
    rows = np.random.default_rng(2).normal(size=(4, 6))
    for scale in (1e300, 1e-300):
        np.testing.assert_allclose(cosine_gram(rows * scale), cosine_gram(rows), rtol=1e-12)


def test_one_expert():
    found = vector_metrics([[3.0, 4.0]], outputs=[[1.0]], expressions=[[4.0, 3.0]])
    assert {name for name, value in found.values.items() if value is None} == OFF_DIAGONAL | {"expert_output_diversity"}
    assert set(found.reasons.values()) == {"the layer has one expert only"}
    assert found.values["gram_frobenius_norm"] == pytest.approx(1)
    assert found.values["expert_routing_expression_alignment"] == pytest.approx(0.96)
    # Two have one pair, in two orders.
    assert vector_metrics([[1, 0], [0, 1]]).values["expert_similarity_std"] == 0


def test_no_vectors():
    nothing = np.full((4, 3), np.nan)
    found = vector_metrics(nothing)
    assert set(found.values.values()) == {None}
    assert found.reasons["gram_frobenius_norm"] == "the router has no expert vectors"
    assert found.reasons["expert_output_diversity"] == "the experts' outputs were not captured"
    assert found.reasons["expert_routing_expression_alignment"] == "an ordinary router has one set of vectors, not two"
    # What does not need them is there.
    assert vector_metrics(nothing, outputs=np.eye(4)).values["expert_output_diversity"] == 1
    broken = np.eye(4)
    broken[2, 0] = np.inf
    assert vector_metrics(broken).reasons["gram_frobenius_norm"] == "the vector of expert 2 is not finite"
    # Passive experts' rows may be anything.
    assert vector_metrics(broken, passive_experts=2).values["gram_matrix_orthogonality"] == 1


def test_bad_arguments():
    refused(moefps.ShapeError, lambda: vector_metrics(np.zeros(3)), "vectors", r"\(3,\)", r"\[E, d\]")
    refused(moefps.ShapeError, lambda: vector_metrics(np.zeros((0, 3))), "vectors", "at least 1 expert")
    refused(moefps.ShapeError, lambda: vector_metrics([[1.0], [1.0, 2.0]]), "vectors", "different lengths")
    refused(moefps.DtypeError, lambda: vector_metrics([["a"]]), "vectors", "real numbers")
    refused(moefps.ArgumentError, lambda: vector_metrics(np.eye(3), passive_experts=3), "passive_experts", "0 to 2")
    refused(moefps.ShapeError, lambda: vector_metrics(np.eye(3), outputs=np.eye(2)), "outputs", r"\(3, d\)")
    refused(moefps.ShapeError, lambda: vector_metrics(np.eye(3), expressions=np.ones((3, 2))), "expressions", "3, 3")
    refused(moefps.ShapeError, lambda: vector_table(np.ones((2, 3, 4)), n_experts=[3]), "vectors", "each layer")
    refused(moefps.ShapeError, lambda: vector_table(np.ones((1, 3, 4)), n_experts=[4]), "vectors", r"\[4\]")


def test_table_of_layers():
    rows = np.random.default_rng(3).normal(size=(3, 5, 6)).astype(np.float32)
    rows[1] = np.nan
    rows[2, 3:] = np.nan
    table = vector_table(rows, n_experts=[5, 5, 3], layers=[4, 7, 9])
    assert table["layer"].to_list() == [4, 7, 9]
    assert table["no_vectors"].to_list() == [None, "the router has no expert vectors", None]
    for name, value in vector_metrics(rows[2, :3]).values.items():
        assert table[name].to_list()[1:] == [None, value], name


def real_routers():
    """Rows of the router of each layer of the demo model, bfloat16 in the file."""
    if not DEMO.is_file():
        pytest.skip("the demo model is not there")
    content = DEMO.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    found = []
    for name in sorted(name for name in header if name.endswith("mlp.gate.weight")):
        entry = header[name]
        assert entry["dtype"] == "BF16"
        first, stop = (8 + length + at for at in entry["data_offsets"])
        bits = np.frombuffer(content[first:stop], dtype="<u2").astype(np.uint32) << 16
        found.append(bits.view(np.float32).reshape(entry["shape"]))
    return np.stack(found)


def test_real_routers():
    routers = real_routers()
    assert routers.shape == (6, 16, 128)
    for rows in routers:
        found = vector_metrics(rows)
        close(found, {**gram_metrics(rows), "gram_condition_number": found.values["gram_condition_number"]})
        assert 0 < found.values["gram_matrix_orthogonality"] < 1
        assert 1 < found.values["gram_condition_number"] < 1e4
