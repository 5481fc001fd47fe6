"""What must hold for every input: the distance is a metric, and nothing about the call changes the bits."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

import moefps
import reference
from reference.strategies import DTYPES, fingerprints, grounds, layer_options


@given(st.data(), fingerprints(), DTYPES)
def test_exact_within_the_bound(data, X, dtype):
    how = {"ground": data.draw(grounds(X.shape)), **data.draw(layer_options(X.shape[1]))}
    F = reference.features(X, **how)
    exact = cdist(F, F, "cityblock")
    allowed = reference.allowed_error(exact, *X.shape[1:], dtype=dtype, **how)
    assert (np.abs(moefps.wasserstein_matrix(X, dtype=dtype, **how) - exact) <= allowed).all()


@given(st.data(), fingerprints(), DTYPES)
def test_metric_axioms(data, X, dtype):
    how = {"ground": data.draw(grounds(X.shape)), **data.draw(layer_options(X.shape[1]))}
    D = moefps.wasserstein_matrix(X, dtype=dtype, **how)
    assert (D >= 0).all()
    assert not D.diagonal().any()
    np.testing.assert_array_equal(D, D.T)
    allowed = reference.allowed_error(D.astype(np.float64), *X.shape[1:], dtype=dtype, **how)
    detour = D[:, :, None].astype(np.float64) + D[None, :, :]
    assert (D[:, None, :] <= detour + allowed[:, None, :] + allowed[:, :, None] + allowed[None, :, :]).all()


@given(st.data(), fingerprints(), DTYPES)
def test_order_of_samples(data, X, dtype):
    ground = data.draw(grounds(X.shape))
    order = data.draw(st.permutations(range(len(X))))
    D = moefps.wasserstein_matrix(X, ground=ground, dtype=dtype)
    np.testing.assert_array_equal(
        moefps.wasserstein_matrix(X[order], ground=ground, dtype=dtype), D[np.ix_(order, order)]
    )


@given(st.data(), fingerprints())
def test_numbering_of_experts(data, X):
    """``discrete`` and ``values`` do not care how experts are numbered; ``index`` is its own mirror image."""
    order = data.draw(st.permutations(range(X.shape[2])))
    # The row sums are added up in another order, so the last bit may differ.
    for ground in ("discrete", "values"):
        D = moefps.wasserstein_matrix(X, ground=ground)
        again = moefps.wasserstein_matrix(X[:, :, order], ground=ground)
        slack = reference.allowed_error(D.astype(np.float64), *X.shape[1:])
        assert (np.abs(again - D) <= slack).all()
    D = moefps.wasserstein_matrix(X, dtype="float64")
    mirrored = moefps.wasserstein_matrix(X[:, :, ::-1], dtype="float64")
    assert (np.abs(mirrored - D) <= reference.allowed_error(D, *X.shape[1:], dtype="float64")).all()


@given(fingerprints(), DTYPES)
def test_index_is_positions_in_order(X, dtype):
    D = moefps.wasserstein_matrix(X, dtype=dtype)
    np.testing.assert_array_equal(moefps.wasserstein_matrix(X, ground=np.arange(X.shape[2]), dtype=dtype), D)
    np.testing.assert_array_equal(moefps.wasserstein_matrix(X, ground=range(X.shape[2]), dtype=dtype), D)


@given(fingerprints(), DTYPES)
def test_positions_may_move_together_and_flip(X, dtype):
    at = np.random.default_rng(X.shape[2]).integers(-50, 50, size=X.shape[2]) * 1.0
    D = moefps.wasserstein_matrix(X, ground=at, dtype=dtype)
    np.testing.assert_array_equal(moefps.wasserstein_matrix(X, ground=at + 1024, dtype=dtype), D)
    # Zero positions everywhere are allowed, and then all is zero.
    allowed = 2 * reference.allowed_error(D.astype(np.float64), *X.shape[1:], dtype=dtype, ground=at)
    assert (np.abs(moefps.wasserstein_matrix(X, ground=-at, dtype=dtype) - D) <= allowed).all()


@given(fingerprints(min_samples=3), st.integers(1, 8), DTYPES, st.data())
def test_cross_is_a_block(X, n_threads, dtype, data):
    cut = data.draw(st.integers(1, len(X) - 1))
    D = moefps.wasserstein_matrix(X, dtype=dtype, n_threads=n_threads)
    np.testing.assert_array_equal(moefps.wasserstein_cross(X[:cut], X[cut:], dtype=dtype), D[:cut, cut:])
    upper = D[np.triu_indices(len(X), 1)]
    np.testing.assert_array_equal(moefps.wasserstein_matrix(X, dtype=dtype, condensed=True), upper)


@given(st.data(), fingerprints())
def test_float32_is_the_fixed_point_kernel(data, X):
    how = {"ground": data.draw(grounds(X.shape)), **data.draw(layer_options(X.shape[1]))}
    np.testing.assert_array_equal(moefps.wasserstein_matrix(X, **how), reference.fixed_point_matrix(X, **how))
