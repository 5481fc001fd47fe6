"""``FarthestPointSampler`` in the manner of scikit-learn and scikit-matter."""

from __future__ import annotations

import numpy as np
import pytest

import moefps

X = np.random.default_rng(0).dirichlet(np.ones(6), (30, 2))


def test_fit_picks_what_select_picks():
    sampler = moefps.FarthestPointSampler(7)
    assert sampler.fit(X) is sampler
    np.testing.assert_array_equal(sampler.selected_idx_, moefps.select(X, 7).indices)
    np.testing.assert_array_equal(sampler.fit(X, None).selected_idx_, moefps.select(X, 7).indices)


@pytest.mark.parametrize("ground", ["index", "values", "discrete", np.arange(6.0) ** 2])
def test_ground(ground):
    sampler = moefps.FarthestPointSampler(7, ground=ground).fit(X)
    np.testing.assert_array_equal(sampler.selected_idx_, moefps.select(X, 7, ground=ground).indices)


@pytest.mark.parametrize("initialize", ["medoid", "farthest", 4, [3, 9]])
def test_initialize(initialize):
    sampler = moefps.FarthestPointSampler(7, initialize=initialize).fit(X)
    np.testing.assert_array_equal(sampler.selected_idx_, moefps.select(X, 7, start=initialize).indices)


def test_random_state():
    sampler = moefps.FarthestPointSampler(7, initialize="random", random_state=5).fit(X)
    np.testing.assert_array_equal(sampler.selected_idx_, moefps.select(X, 7, start="random", seed=5).indices)


def test_distance_at_which_each_was_picked():
    """As in scikit-matter: one number a sample, infinite for the first pick and for those never picked."""
    skmatter = pytest.importorskip("skmatter.sample_selection", reason="scikit-matter is not installed")
    points = np.random.default_rng(1).normal(size=(30, 3))
    theirs = skmatter.FPS(n_to_select=7, initialize=4).fit(points)
    sampler = moefps.FarthestPointSampler(7, initialize=4).fit(X)
    selection = moefps.select(X, 7, start=4)
    assert sampler.hausdorff_at_select_.shape == theirs.hausdorff_at_select_.shape == (30,)
    first, *others = sampler.selected_idx_
    assert np.isinf(theirs.hausdorff_at_select_[theirs.selected_idx_[0]])
    assert np.isinf(sampler.hausdorff_at_select_[first])
    np.testing.assert_array_equal(sampler.hausdorff_at_select_[others], selection.radii[:-1])
    never = np.setdiff1d(np.arange(30), sampler.selected_idx_)
    assert np.isinf(theirs.hausdorff_at_select_[np.setdiff1d(np.arange(30), theirs.selected_idx_)]).all()
    assert np.isinf(sampler.hausdorff_at_select_[never]).all()


def test_parameters_are_kept_as_given():
    ground = np.arange(6.0)
    sampler = moefps.FarthestPointSampler(n_to_select=3, ground=ground, initialize=[1], random_state=2)
    assert sampler.get_params() == {"n_to_select": 3, "ground": ground, "initialize": [1], "random_state": 2}
    assert sampler.get_params(deep=False)["ground"] is ground
    assert sampler.set_params(n_to_select=4, initialize="farthest") is sampler
    assert (sampler.n_to_select, sampler.initialize) == (4, "farthest")


def test_unknown_parameter():
    with pytest.raises(ValueError, match="n_picks"):
        moefps.FarthestPointSampler(3).set_params(n_picks=4)


def test_clone():
    sklearn = pytest.importorskip("sklearn.base", reason="scikit-learn is not installed")
    sampler = moefps.FarthestPointSampler(3, ground="values", initialize=2, random_state=1).fit(X)
    copy = sklearn.clone(sampler)
    assert copy.get_params() == sampler.get_params()
    assert not hasattr(copy, "selected_idx_")


def test_not_fitted_yet():
    with pytest.raises(AttributeError):
        moefps.FarthestPointSampler(3).selected_idx_  # noqa: B018


def test_how_many_when_nothing_is_said():
    """As in scikit-matter: half of them."""
    assert len(moefps.FarthestPointSampler().fit(X).selected_idx_) == 15


@pytest.mark.parametrize("n_to_select", [0, 31, -1])
def test_bad_number(n_to_select):
    with pytest.raises(moefps.ArgumentError, match="select"):
        moefps.FarthestPointSampler(n_to_select).fit(X)


def test_bad_input():
    with pytest.raises(moefps.ShapeError, match="X"):
        moefps.FarthestPointSampler(2).fit(X[:, 0])
