"""``wasserstein_matrix`` and ``wasserstein_cross`` against float64 SciPy, within the documented precision."""

from __future__ import annotations

import numpy as np
import pytest

import moefps
import reference

N_LAYERS, N_EXPERTS = 3, 33
RNG = np.random.default_rng(99)
GROUNDS = {
    "index": "index",
    "values": "values",
    "discrete": "discrete",
    "positions": RNG.normal(size=N_EXPERTS),
    "tied_positions": np.repeat(RNG.permutation(11), 3) * 1.0,
    "wide_gaps": np.where(np.arange(N_EXPERTS) % 7 == 3, 1e6, 1.0) * RNG.permutation(N_EXPERTS),
    "layer_positions": np.stack([RNG.permutation(N_EXPERTS) * 1.0, RNG.random(N_EXPERTS), RNG.random(N_EXPERTS) * 1e6]),
    "whole_numbers": RNG.permutation(N_EXPERTS),
    "one_place": np.zeros(N_EXPERTS),
}
WAYS = {
    "sum": {},
    "mean": {"reduce": "mean"},
    "weighted": {"layer_weights": [0.25, 3.0, 0.0]},
    "weighted_mean": {"layer_weights": np.array([1, 2, 4]), "reduce": "mean"},
}
DTYPES = ["float32", "float64"]


def check(ours, exact, n_layers, n_experts, **how):
    """Within the bound, of the right dtype, symmetric, zero on the diagonal, triangle inequality within the bound."""
    assert ours.dtype == how["dtype"]
    assert ours.shape == exact.shape
    allowed = reference.allowed_error(exact, n_layers, n_experts, **how)
    excess = np.abs(ours - exact) - allowed
    assert excess.max() <= 0, f"{excess.max():.3g} above the bound at {np.unravel_index(excess.argmax(), excess.shape)}"
    np.testing.assert_array_equal(ours, ours.T)
    assert not ours.diagonal().any()
    detour = ours[:, :, None].astype(np.float64) + ours[None, :, :]
    slack = allowed[:, None, :] + allowed[:, :, None] + allowed[None, :, :]
    assert (ours[:, None, :] <= detour + slack).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("kind", reference.KINDS)
def test_matrix(kind, ground, way, dtype):
    how = {"ground": GROUNDS[ground], **WAYS[way]}
    X = reference.make(kind, 9, N_LAYERS, N_EXPERTS, seed=3)
    ours = moefps.wasserstein_matrix(X, dtype=dtype, **how)
    check(ours, reference.matrix(X, **how), N_LAYERS, N_EXPERTS, dtype=dtype, **how)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ground", ["index", "values", "discrete", "positions", "layer_positions"])
@pytest.mark.parametrize("source", ["float16", "float32"])
@pytest.mark.parametrize("kind", ["dirichlet_1", "sparse", "one_hot", "counts"])
def test_matrix_of_rounded_input(kind, source, ground, dtype):
    """The reference gets the same rounded numbers; each row counts as divided by its float64 sum."""
    how = {"ground": GROUNDS[ground]}
    X = reference.make(kind, 9, N_LAYERS, N_EXPERTS, seed=4).astype(source)
    ours = moefps.wasserstein_matrix(X, dtype=dtype, **how)
    check(ours, reference.matrix(X, **how), N_LAYERS, N_EXPERTS, dtype=dtype, **how)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ground", ["index", "values", "discrete", "positions", "wide_gaps"])
@pytest.mark.parametrize("kind", reference.KINDS)
def test_cross(kind, ground, dtype):
    how = {"ground": GROUNDS[ground]}
    X = reference.make(kind, 5, N_LAYERS, N_EXPERTS, seed=5)
    Y = reference.make(kind, 11, N_LAYERS, N_EXPERTS, seed=6).astype(np.float32)
    exact = reference.cross(X, Y, **how)
    ours = moefps.wasserstein_cross(X, Y, dtype=dtype, **how)
    assert ours.dtype == dtype
    assert ours.shape == (5, 11)
    assert (np.abs(ours - exact) <= reference.allowed_error(exact, N_LAYERS, N_EXPERTS, dtype=dtype, **how)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ground", ["index", "values", "discrete", "positions"])
@pytest.mark.parametrize(
    ("n_layers", "n_experts"), [(1, 2), (1, 3), (2, 17), (61, 256), (1, 20_000), (400, 50), (78, 256), (3000, 2)]
)
@pytest.mark.parametrize("kind", ["dirichlet_0.03", "dirichlet_100", "near_duplicate", "one_hot"])
def test_shapes(kind, n_layers, n_experts, ground, dtype):
    if ground == "positions":
        ground = np.random.default_rng(7).normal(size=(n_layers, n_experts)) * 100
    X = reference.make(kind, 4, n_layers, n_experts, seed=8)
    X[-1] = X[0]
    n_pairs = 1 if n_layers * n_experts > 5_000 else 3
    ours = moefps.wasserstein_matrix(X, ground=ground, dtype=dtype)
    exact = reference.cross(X[:1], X[1 : 1 + n_pairs], ground=ground)
    allowed = reference.allowed_error(exact, n_layers, n_experts, dtype=dtype, ground=ground)
    assert (np.abs(ours[:1, 1 : 1 + n_pairs] - exact) <= allowed).all()
    assert ours[0, 3] == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ground", ["index", "values", "discrete", "positions"])
def test_real_fingerprints(esft, ground, dtype):
    if ground == "positions":
        ground = np.random.default_rng(10).normal(size=(26, 64))
    X = esft[::18]
    exact = reference.matrix(X, ground=ground)
    check(moefps.wasserstein_matrix(X, ground=ground, dtype=dtype), exact, 26, 64, dtype=dtype, ground=ground)


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_real_pairs(esft, dtype):
    """All 22,578 pairs against the float64 features, which another test holds against SciPy."""
    from scipy.spatial.distance import cdist

    F = reference.features(esft)
    check(moefps.wasserstein_matrix(esft, dtype=dtype), cdist(F, F, "cityblock"), 26, 64, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ground", GROUNDS)
def test_equal_rows_are_exactly_zero_apart(ground, dtype):
    """Also where the rows are equal only once divided by their sums, by a power of two."""
    X = reference.make("dirichlet_1", 4, N_LAYERS, N_EXPERTS, seed=11)
    same = np.stack([X[0], X[1], X[0], X[0] * 0.5, X[1] * 4])
    D = moefps.wasserstein_matrix(same, ground=GROUNDS[ground], dtype=dtype, normalize=True)
    assert not D[np.ix_([0, 2, 3], [0, 2, 3])].any()
    assert D[1, 4] == 0
    assert D[0, 1] > 0 or ground == "one_place"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ground", ["index", "values", "discrete", "positions"])
def test_normalize_divides_by_the_row_sum(ground, dtype):
    how = {"ground": GROUNDS[ground]}
    X = reference.make("dirichlet_1", 6, N_LAYERS, N_EXPERTS, seed=12)
    scaled = X * np.random.default_rng(13).uniform(1e-3, 1e3, size=(6, N_LAYERS, 1))
    ours = moefps.wasserstein_matrix(scaled, dtype=dtype, normalize=True, **how)
    check(ours, reference.matrix(X, **how), N_LAYERS, N_EXPERTS, dtype=dtype, **how)


@pytest.mark.parametrize("total", [1e-310, 1e-300, 1e300])
@pytest.mark.parametrize("dtype", DTYPES)
def test_normalize_takes_any_positive_sum(total, dtype):
    X = reference.make("dirichlet_1", 4, N_LAYERS, N_EXPERTS, seed=14)
    ours = moefps.wasserstein_matrix(X * total, dtype=dtype, normalize=True)
    check(ours, reference.matrix(X), N_LAYERS, N_EXPERTS, dtype=dtype)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("ground", [name for name in GROUNDS if name != "one_place"])
@pytest.mark.parametrize("kind", reference.KINDS)
def test_fixed_point_bit_for_bit(kind, ground, way):
    how = {"ground": GROUNDS[ground], **WAYS[way]}
    X = reference.make(kind, 12, N_LAYERS, N_EXPERTS, seed=15)
    np.testing.assert_array_equal(moefps.wasserstein_matrix(X, **how), reference.fixed_point_matrix(X, **how))
