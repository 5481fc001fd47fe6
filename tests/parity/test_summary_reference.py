"""Mean distances, typicality and the evaluation of a selection against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest

import moefps
import reference

DTYPES = ["float32", "float64"]
POSITIONS = np.array([4.0, -2.0, 0.5, 0.5, 100.0, 3.0, 9.0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ground", ["index", "values", "discrete", "positions"])
@pytest.mark.parametrize("kind", reference.KINDS)
def test_mean_distances(kind, ground, dtype):
    how = {"ground": POSITIONS if ground == "positions" else ground, "layer_weights": [1.0, 0.5]}
    X = reference.make(kind, 25, 2, 7, seed=70)
    exact = reference.matrix(X, **how)
    allowed = reference.allowed_error(exact, 2, 7, dtype=dtype, **how).mean(axis=1) * 25 / 24
    found = moefps.mean_distances(X, dtype=dtype, **how)
    assert found.dtype == np.float64
    assert found.shape == (25,)
    assert (np.abs(found - reference.mean_distances(exact)) <= allowed).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_mean_distances_are_the_same_for_every_thread_count_and_instruction_set(dtype, simd, monkeypatch):
    X = reference.make("dirichlet_0.03", 301, 3, 20, seed=71)
    found = [moefps.mean_distances(X, dtype=dtype, n_threads=n) for n in (1, 2, 8)]
    monkeypatch.delenv("MOEFPS_SIMD")
    expected = moefps.mean_distances(X, dtype=dtype)
    for means in found:
        np.testing.assert_array_equal(means, expected)


def test_mean_distances_agree_with_the_matrix_of_real_samples(esft):
    D = moefps.wasserstein_matrix(esft, dtype="float64")
    np.testing.assert_allclose(moefps.mean_distances(esft, dtype="float64"), reference.mean_distances(D), rtol=1e-12)
    np.testing.assert_allclose(moefps.mean_distances(esft), reference.mean_distances(D), rtol=2e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["dirichlet_1", "duplicates", "counts", "one_hot", "uniform"])
def test_typicality(kind, dtype):
    X = reference.make(kind, 41, 2, 7, seed=72)
    found = moefps.typicality(X, dtype=dtype)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, reference.typicality(moefps.mean_distances(X, dtype=dtype)), atol=1e-9)


def test_typicality_of_equal_samples_is_equal():
    X = np.repeat(reference.make("dirichlet_1", 5, 2, 7, seed=73), 3, axis=0)
    percentile = moefps.typicality(X).reshape(5, 3)
    assert (percentile == percentile[:, :1]).all()


def test_typicality_says_common_and_rare():
    X = np.eye(9)[[4, 4, 4, 4, 5, 0]][:, None, :]
    percentile = moefps.typicality(X)
    assert percentile.argmin() == 5
    assert percentile[5] == 0.0
    assert percentile[:4].tolist() == [70.0] * 4


@pytest.mark.parametrize("ground", ["index", "values", "discrete"])
@pytest.mark.parametrize("kind", ["dirichlet_1", "duplicates", "one_hot"])
def test_evaluation(kind, ground):
    X = reference.make(kind, 60, 2, 7, seed=74)
    labels = np.array(list("abcdef"))[np.arange(60) % 6]
    D = moefps.wasserstein_matrix(X, ground=ground, dtype="float64")
    picks = [3, 9, 50, 51]
    found = moefps.evaluate_selection(X, picks, labels, ground=ground, dtype="float64")
    exact = reference.evaluation(D, picks, labels.tolist())
    assert (found.n_samples, found.n_selected, found.n_labels) == (60, 4, 6)
    assert found.covering_radius == pytest.approx(exact.covering_radius, rel=1e-12)
    assert found.mean_distance == pytest.approx(exact.mean_distance, rel=1e-12)
    assert found.labels_covered == exact.labels_covered == 2


def test_evaluation_without_labels():
    X = reference.make("dirichlet_1", 30, 2, 7, seed=75)
    found = moefps.evaluate_selection(X, [1, 2])
    assert found.labels_covered is None
    assert found.n_labels is None
    assert found.random_labels_covered is None
    assert found.n_random == 100


def test_random_selections():
    """The interval of random selections has what a hundred of our own random selections say."""
    X = reference.make("dirichlet_0.03", 80, 2, 7, seed=76)
    labels = [f"task {i % 5}" for i in range(80)]
    D = moefps.wasserstein_matrix(X)
    picks = moefps.select(X, 8).indices
    found = moefps.evaluate_selection(X, picks, labels, n_random=400, seed=1)
    rng = np.random.default_rng(2)
    random = [reference.evaluation(D, rng.choice(80, 8, replace=False), labels) for _ in range(400)]
    for interval, values in (
        (found.random_covering_radius, [r.covering_radius for r in random]),
        (found.random_mean_distance, [r.mean_distance for r in random]),
        (found.random_labels_covered, [r.labels_covered for r in random]),
    ):
        spread = np.std(values)
        assert interval.low <= interval.mean <= interval.high
        assert abs(interval.mean - np.mean(values)) < 0.3 * spread
        # Labels come in whole numbers, so a quantile of their count may be one off.
        near = 1.0 if isinstance(values[0], int) else spread
        assert abs(interval.low - np.quantile(values, 0.025)) <= near
        assert abs(interval.high - np.quantile(values, 0.975)) <= near
    assert found.covering_radius < found.random_covering_radius.low


def test_random_selections_repeat_with_the_seed():
    X = reference.make("dirichlet_1", 40, 2, 7, seed=77)
    how = {"n_random": 20, "labels": [0, 1] * 20}
    first = moefps.evaluate_selection(X, [0, 5], seed=3, **how)
    assert first == moefps.evaluate_selection(X, [0, 5], seed=3, n_threads=1, **how)
    assert first != moefps.evaluate_selection(X, [0, 5], seed=4, **how)


def test_evaluation_of_everything_selected():
    X = reference.make("dirichlet_1", 12, 2, 7, seed=78)
    found = moefps.evaluate_selection(X, np.arange(12)[::-1], n_random=5)
    assert found.covering_radius == found.mean_distance == 0.0
    assert found.random_covering_radius == (0.0, 0.0, 0.0) or found.random_covering_radius.high == 0.0
