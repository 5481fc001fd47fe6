"""What must hold for every selection."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import moefps
import reference
from reference.strategies import DTYPES, fingerprints, grounds, layer_options
from support import same_selection

pytestmark = pytest.mark.filterwarnings("ignore::moefps.DuplicateWarning")


@st.composite
def small_matrices(draw, max_samples=12):
    """Symmetric whole numbers with a zero diagonal: many ties, no triangle inequality."""
    n = draw(st.integers(1, max_samples))
    dtype = draw(st.sampled_from(["float32", "float64"]))
    upper = draw(hnp.arrays(dtype, (n, n), elements=st.integers(0, 4)))
    return np.triu(upper, 1) + np.triu(upper, 1).T


@given(small_matrices(), st.data())
def test_fps_is_brute_force(D, data):
    n_select = data.draw(st.integers(1, len(D)))
    starts = data.draw(st.lists(st.integers(0, len(D) - 1), min_size=1, max_size=n_select, unique=True))
    stop = data.draw(st.sampled_from([None, 0.0, 1.0, 2.5]))
    found = moefps.fps(D, n_select, start=starts, stop_radius=stop)
    same_selection(found, reference.brute_force_fps(D, n_select, starts, stop))


@given(small_matrices())
def test_start_words_on_exact_sums(D):
    for word in ("medoid", "farthest"):
        assert moefps.fps(D, 1, start=word).indices[0] == reference.start_index(D, word)


@given(st.data(), fingerprints(), DTYPES)
def test_select_is_brute_force_with_and_without_pruning(data, X, dtype):
    how = {"ground": data.draw(grounds(X.shape)), "dtype": dtype, **data.draw(layer_options(X.shape[1]))}
    n_select = data.draw(st.integers(1, len(X)))
    starts = data.draw(st.lists(st.integers(0, len(X) - 1), min_size=1, max_size=n_select, unique=True))
    expected = reference.brute_force_fps(moefps.wasserstein_matrix(X, **how), n_select, starts)
    n_threads = data.draw(st.sampled_from([1, 2, 8]))
    for prune in (True, False):
        same_selection(moefps.select(X, n_select, start=starts, prune=prune, n_threads=n_threads, **how), expected)


@given(st.data(), fingerprints(), DTYPES)
def test_covering(data, X, dtype):
    """Radii never grow, and the last one covers everything; no index comes twice."""
    n_select = data.draw(st.integers(1, len(X)))
    ground = data.draw(grounds(X.shape))
    found = moefps.select(X, n_select, ground=ground, dtype=dtype)
    assert len(set(found.indices.tolist())) == len(found.indices) == n_select
    assert (np.diff(found.radii) <= 0).all()
    assert found.distances.max() == found.radii[-1]
    assert found.cluster_sizes.sum() == len(X)
    D = moefps.wasserstein_matrix(X, ground=ground, dtype=dtype)
    np.testing.assert_array_equal(D[np.arange(len(X)), found.indices[found.assignment]], found.distances)
    picked = D[np.ix_(found.indices, found.indices)].astype(np.float64)
    np.fill_diagonal(picked, np.inf)
    # Every later pick was at least as far from the earlier ones as the last radius.
    assert n_select == 1 or picked.min() >= found.radii[-1]


@given(fingerprints(max_samples=9), st.integers(1, 4), DTYPES)
def test_at_most_twice_the_optimum(X, n_select, dtype):
    n_select = min(n_select, len(X))
    D = moefps.wasserstein_matrix(X, dtype=dtype)
    best = reference.optimal_radius(D, n_select)
    found = moefps.select(X, n_select, dtype=dtype).radii[-1]
    assert best <= found <= 2 * best * (1 + 1e-6) + 1e-6


@given(fingerprints(min_samples=3), DTYPES, st.data())
def test_a_longer_selection_starts_with_the_shorter(X, dtype, data):
    short = data.draw(st.integers(1, len(X) - 1))
    long = moefps.select(X, len(X), dtype=dtype)
    part = moefps.select(X, short, dtype=dtype)
    np.testing.assert_array_equal(part.indices, long.indices[:short])
    np.testing.assert_array_equal(part.radii, long.radii[:short])
    again = moefps.select(X, len(X), start=part.indices, dtype=dtype)
    np.testing.assert_array_equal(again.indices, long.indices)


@given(fingerprints(), DTYPES)
def test_stopping_at_a_radius_that_was_reached(X, dtype):
    whole = moefps.select(X, len(X), dtype=dtype)
    for radius in np.unique(whole.radii):
        found = moefps.select(X, None, stop_radius=float(radius), dtype=dtype)
        n = int(np.argmax(whole.radii <= radius)) + 1
        np.testing.assert_array_equal(found.indices, whole.indices[:n])


@given(fingerprints(), DTYPES)
def test_mean_distances_and_typicality(X, dtype):
    D = moefps.wasserstein_matrix(X, dtype=dtype).astype(np.float64)
    means = moefps.mean_distances(X, dtype=dtype)
    np.testing.assert_allclose(means, reference.mean_distances(D), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(moefps.typicality(X, dtype=dtype), reference.typicality(means), atol=1e-9)
