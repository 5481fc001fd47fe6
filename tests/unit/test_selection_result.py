"""What ``select`` and ``fps`` hand back."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest

import moefps

X = np.random.default_rng(0).dirichlet(np.ones(6), (30, 2))


@pytest.fixture(params=["select", "fps"])
def selection(request):
    if request.param == "select":
        return moefps.select(X, 5)
    return moefps.fps(moefps.wasserstein_matrix(X), 5)


def test_fields(selection):
    assert isinstance(selection, moefps.Selection)
    assert [f.name for f in dataclasses.fields(selection)][:5] == [
        "indices",
        "radii",
        "assignment",
        "distances",
        "cluster_sizes",
    ]
    assert (selection.indices.dtype, selection.indices.shape) == (np.int64, (5,))
    assert (selection.radii.dtype, selection.radii.shape) == (np.float64, (5,))
    assert (selection.assignment.dtype, selection.assignment.shape) == (np.int64, (30,))
    assert (selection.distances.dtype, selection.distances.shape) == (np.float64, (30,))
    assert (selection.cluster_sizes.dtype, selection.cluster_sizes.shape) == (np.int64, (5,))


def test_frozen(selection):
    with pytest.raises(dataclasses.FrozenInstanceError):
        selection.indices = np.arange(5)
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError, TypeError)):
        selection.another = 1


def test_the_parts_belong_together(selection):
    np.testing.assert_array_equal(selection.assignment[selection.indices], np.arange(5))
    assert not selection.distances[selection.indices].any()
    np.testing.assert_array_equal(np.bincount(selection.assignment, minlength=5), selection.cluster_sizes)
    assert selection.distances.max() == selection.radii[-1]


def test_pickle(selection):
    again = pickle.loads(pickle.dumps(selection))
    for field in dataclasses.fields(selection):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(selection, field.name))


def test_repr_is_short(selection):
    assert repr(selection).startswith("Selection(")
    large = moefps.select(np.random.default_rng(1).dirichlet(np.ones(3), (3000, 1)), 10)
    assert len(repr(large)) < 2000


def test_the_input_is_left_alone():
    before = X.copy()
    moefps.select(X, 5)
    moefps.mean_distances(X)
    np.testing.assert_array_equal(X, before)


def test_evaluation_is_frozen():
    found = moefps.evaluate_selection(X, [1, 2], n_random=3)
    assert isinstance(found, moefps.SelectionEvaluation)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.covering_radius = 0.0
    assert {"mean", "low", "high"} <= {f.name for f in dataclasses.fields(found.random_covering_radius)}
