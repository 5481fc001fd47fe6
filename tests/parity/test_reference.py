"""The references are right: they agree with SciPy, scikit-matter and RDKit, which know nothing of each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.distance import cdist, squareform
from scipy.stats import wasserstein_distance

import reference
from reference.fixed_point import fixed_point_sums

N_LAYERS, N_EXPERTS = 3, 9
SPREAD = np.array([5.0, 0.25, 5.0, -3.0, 1e6, 7.5, 0.0, -3.0, 2.0])
GROUNDS = {
    "index": "index",
    "values": "values",
    "discrete": "discrete",
    "positions": SPREAD,
    "layer_positions": np.stack([SPREAD, SPREAD[::-1] / 1e6, np.arange(9.0)]),
}


def test_one_row_is_what_scipy_says():
    p, q = np.random.default_rng(0).dirichlet(np.ones(N_EXPERTS), 2)
    experts = np.arange(N_EXPERTS)
    # Not to the bit: versions of SciPy add up in different orders.
    assert reference.row_distance(p, q, "index") == pytest.approx(
        wasserstein_distance(experts, experts, p, q), rel=1e-14
    )
    assert reference.row_distance(p, q, "values") == pytest.approx(wasserstein_distance(p, q), rel=1e-14)
    assert reference.row_distance(p, q, SPREAD) == pytest.approx(wasserstein_distance(SPREAD, SPREAD, p, q), rel=1e-14)
    assert reference.row_distance(p, q, "discrete") == pytest.approx(np.maximum(p - q, 0).sum(), rel=1e-14)


def test_known_distances():
    a = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
    b = np.array([[0.0, 0.0, 1.0], [0.5, 0.5, 0.0]])
    assert reference.distance(a, b) == 2.0
    assert reference.distance(a, b, reduce="mean") == 1.0
    assert reference.distance(a, b, ground="values") == 0.0
    assert reference.distance(a, b, ground="discrete") == 1.0
    assert reference.distance(a, b, ground=np.array([0.0, 5.0, 7.0])) == 7.0
    assert reference.distance(a, b, layer_weights=[3.0, 1.0]) == 6.0
    assert reference.distance(a, b, layer_weights=[3.0, 1.0], reduce="mean") == 1.5


@pytest.mark.parametrize("ground", GROUNDS.values(), ids=GROUNDS)
@pytest.mark.parametrize("kind", reference.KINDS)
@pytest.mark.parametrize(("reduce", "weights"), [("sum", None), ("mean", [0.5, 0.0, 2.0])])
def test_features_give_the_same_distances(kind, ground, reduce, weights):
    how = {"ground": ground, "reduce": reduce, "layer_weights": weights}
    X = reference.make(kind, 7, N_LAYERS, N_EXPERTS, seed=1)
    slow = reference.matrix(X, **how)
    F = reference.features(X, **how)
    assert np.abs(cdist(F, F, "cityblock") - slow).max() <= 1e-14 * max(1.0, reference.largest_gap(ground)) * N_EXPERTS
    np.testing.assert_array_equal(reference.cross(X[:2], X, **how), slow[:2])


@pytest.mark.parametrize("ground", GROUNDS.values(), ids=GROUNDS)
@pytest.mark.parametrize("kind", reference.KINDS)
def test_fixed_point_is_within_its_bound(kind, ground):
    how = {"ground": ground, "layer_weights": [0.5, 1.0, 2.0]}
    X = reference.make(kind, 7, N_LAYERS, N_EXPERTS, seed=2)
    exact = reference.matrix(X, **how)
    error = np.abs(reference.fixed_point_matrix(X, **how) - exact)
    assert (error <= reference.allowed_error(exact, N_LAYERS, N_EXPERTS, **how)).all()


def test_fixed_point_sums_are_whole_and_exact():
    F, unit = reference.fixed_point_features(reference.make("dirichlet_1", 5, 2, 4))
    assert F.dtype == np.int64
    assert unit == 1 / (2**31 - 1)
    assert fixed_point_sums(F)[1, 3] == sum(abs(int(a) - int(b)) for a, b in zip(F[1], F[3], strict=True))


def test_start_words():
    D = squareform([1.0, 2.0, 3.0, 1.0, 2.0, 1.0])  # four points in a row
    assert reference.start_index(D, "medoid") == 1
    assert reference.start_index(D, "farthest") == 0
    assert reference.start_index(D, "random", seed=3) == int(np.random.default_rng(3).integers(4))


def test_fps_by_hand():
    D = np.abs(np.subtract.outer([0.0, 1.0, 5.0, 5.0, 10.0], [0.0, 1.0, 5.0, 5.0, 10.0]))
    picked = reference.brute_force_fps(D, 5, start=0)
    assert picked.indices.tolist() == [0, 4, 2, 1, 3]
    assert picked.radii.tolist() == [10.0, 5.0, 1.0, 0.0, 0.0]
    assert picked.assignment.tolist() == [0, 3, 2, 2, 1]
    assert picked.cluster_sizes.tolist() == [1, 1, 2, 1, 0]
    assert reference.brute_force_fps(D, None, start=0, stop_radius=1.0).indices.tolist() == [0, 4, 2]
    assert reference.brute_force_fps(D, 3, start=[3, 0]).indices.tolist() == [3, 0, 4]


@pytest.mark.parametrize("start", [0, 17])
def test_fps_agrees_with_scikit_matter(start):
    skmatter = pytest.importorskip("skmatter.sample_selection", reason="scikit-matter is not installed")
    points = np.random.default_rng(4).normal(size=(60, 5))
    theirs = skmatter.FPS(n_to_select=25, initialize=start).fit(points)
    ours = reference.brute_force_fps(cdist(points, points, "sqeuclidean"), 25, start=start)
    np.testing.assert_array_equal(ours.indices, theirs.selected_idx_)


@pytest.mark.parametrize("start", [0, 17])
def test_fps_agrees_with_rdkit(start):
    pickers = pytest.importorskip("rdkit.SimDivFilters.rdSimDivPickers", reason="RDKit is not installed")
    points = np.random.default_rng(5).normal(size=(60, 5))
    D = cdist(points, points, "cityblock")
    theirs = pickers.MaxMinPicker().LazyPick(lambda i, j: D[i, j], 60, 25, firstPicks=[start])
    np.testing.assert_array_equal(reference.brute_force_fps(D, 25, start=start).indices, list(theirs))


def test_fps_is_within_twice_the_optimum():
    points = np.random.default_rng(6).normal(size=(11, 2))
    D = cdist(points, points)
    best = reference.optimal_radius(D, 4)
    for start in range(11):
        assert best <= reference.brute_force_fps(D, 4, start=start).radii[-1] <= 2 * best


def test_summary_by_hand():
    D = np.abs(np.subtract.outer([0.0, 1.0, 2.0, 9.0], [0.0, 1.0, 2.0, 9.0]))
    means = reference.mean_distances(D)
    assert means.tolist() == [4.0, 10 / 3, 10 / 3, 8.0]
    assert reference.typicality(means) == pytest.approx([100 / 3, 250 / 3, 250 / 3, 0.0])
    found = reference.evaluation(D, [0, 3], labels=list("abbc"))
    assert found == (2.0, 0.75, 2)
    assert math.isclose(reference.covering_radius(D, [1]), 8.0)
