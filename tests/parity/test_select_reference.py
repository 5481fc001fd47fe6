"""``select`` gives exactly what brute force gives on the matrix of the same precision."""

from __future__ import annotations

import time

import numpy as np
import pytest

import moefps
import reference
from reference.fixed_point import fixed_point_sums
from support import same_selection

DTYPES = ["float32", "float64"]
GROUNDS = {
    "index": "index",
    "values": "values",
    "discrete": "discrete",
    "positions": np.array([4.0, -2.0, 0.5, 0.5, 1e6, 3.0, 9.0]),
    "layer_positions": np.random.default_rng(50).normal(size=(2, 7)),
}

pytestmark = pytest.mark.filterwarnings("ignore::moefps.DuplicateWarning")


@pytest.mark.parametrize("prune", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("kind", reference.KINDS)
def test_small(kind, ground, dtype, prune):
    how = {"ground": GROUNDS[ground], "dtype": dtype}
    X = reference.make(kind, 61, 2, 7, seed=51)
    D = moefps.wasserstein_matrix(X, **how)
    for n_select, start in ((1, 60), (17, 0), (30, [8, 2, 60]), (61, 3)):
        expected = reference.brute_force_fps(D, n_select, start)
        same_selection(moefps.select(X, n_select, start=start, prune=prune, **how), expected)


@pytest.mark.parametrize(
    "how", [{"reduce": "mean"}, {"layer_weights": [0.0, 1e-3, 5.0, 1.0]}], ids=["mean", "weighted"]
)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["dirichlet_1", "sparse", "counts", "near_duplicate"])
def test_layers(kind, dtype, how):
    X = reference.make(kind, 90, 4, 24, seed=52).astype(np.float32)
    D = moefps.wasserstein_matrix(X, dtype=dtype, **how)
    same_selection(moefps.select(X, 40, start=0, dtype=dtype, **how), reference.brute_force_fps(D, 40, 0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_threads", [1, 2, 8])
@pytest.mark.parametrize("kind", ["dirichlet_0.03", "dirichlet_100", "duplicates"])
def test_threads_and_instruction_sets(kind, n_threads, dtype, simd, monkeypatch):
    X = reference.make(kind, 400, 3, 40, seed=53)
    found = moefps.select(X, 150, n_threads=n_threads, dtype=dtype)
    monkeypatch.delenv("MOEFPS_SIMD")
    same_selection(found, moefps.select(X, 150, n_threads=1, dtype=dtype, prune=False))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["duplicates", "counts", "sparse"])
def test_wide_samples_shared_out_between_threads(kind, dtype):
    """Rows so wide that a few hundred samples make a thread's share, with ties across the shares."""
    X = reference.make(kind, 700, 40, 256, seed=62).astype(np.float32)
    D = moefps.wasserstein_matrix(X, dtype=dtype)
    expected = reference.brute_force_fps(D, 30, 699)
    for n_threads in (1, 3):
        same_selection(moefps.select(X, 30, start=699, dtype=dtype, n_threads=n_threads), expected)
        same_selection(moefps.select(X, 30, start=699, dtype=dtype, n_threads=n_threads, prune=False), expected)


@pytest.mark.parametrize("n_experts", [2, 3, 31, 32, 33, 300])
@pytest.mark.parametrize("ground", ["index", "values", "discrete"])
def test_widths_around_the_blocks_of_the_bounds(ground, n_experts):
    X = reference.make("dirichlet_0.03", 150, 2, n_experts, seed=54)
    D = moefps.wasserstein_matrix(X, ground=ground)
    same_selection(moefps.select(X, 60, ground=ground, start=1), reference.brute_force_fps(D, 60, 1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ground", ["index", "values", "discrete"])
@pytest.mark.parametrize("start", ["medoid", "farthest", "random"])
def test_start_words(start, ground, dtype):
    X = reference.make("dirichlet_1", 120, 3, 9, seed=55)
    D = moefps.wasserstein_matrix(X, ground=ground, dtype=dtype)
    for seed in (0, 77):
        first = reference.start_index(D, start, seed)
        found = moefps.select(X, 20, ground=ground, dtype=dtype, start=start, seed=seed)
        same_selection(found, reference.brute_force_fps(D, 20, first))


def test_the_default_start_is_the_medoid():
    X = reference.make("dirichlet_1", 50, 3, 9, seed=56)
    same_selection(moefps.select(X, 9), moefps.select(X, 9, start="medoid"))


@pytest.mark.parametrize("ground", ["index", "values", "discrete", "layer_positions"])
@pytest.mark.parametrize("kind", reference.KINDS)
@pytest.mark.parametrize("n", [2, 5, 64, 333])
def test_start_words_by_exact_sums(kind, ground, n):
    """In fixed point the sums are whole numbers, so the first pick is known even among near-equals."""
    ground = np.random.default_rng(63).normal(size=(3, 21)) if ground == "layer_positions" else ground
    X = reference.make(kind, n, 3, 21, seed=64)
    sums = fixed_point_sums(reference.fixed_point_features(X, ground=ground)[0]).sum(axis=1)
    for start, first in (("medoid", sums.argmin()), ("farthest", sums.argmax())):
        for n_threads in (1, 2):
            found = moefps.select(X, 1, ground=ground, start=start, n_threads=n_threads)
            assert found.indices[0] == first


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["uniform", "duplicates", "hardly_different"])
def test_the_medoid_of_near_equals_takes_no_longer(kind):
    """Where all sums are nearly equal, the smallest is still found without computing all distances."""
    if kind == "hardly_different":
        X = reference.make("dirichlet_1", 6000, 8, 64, seed=65)
        X = X[:1] + 1e-6 * (X - X[:1])
    else:
        X = reference.make(kind, 6000, 8, 64, seed=65)
    X[1000:3000] = X[1000]
    seconds = {"farthest": np.inf, "medoid": np.inf}
    for start in ("farthest", "medoid") * 2:
        begin = time.perf_counter()
        moefps.select(X, 1, start=start)
        seconds[start] = min(seconds[start], time.perf_counter() - begin)
    assert seconds["medoid"] < 3 * seconds["farthest"] + 0.3


@pytest.mark.parametrize("start", ["medoid", "farthest"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ground", ["index", "values", "discrete"])
def test_equal_samples_start_at_the_lowest(ground, dtype, start):
    X = reference.make("dirichlet_1", 6, 3, 8, seed=57)[[4, 1, 1, 2, 4, 2, 0, 0, 3, 5, 3, 5]]
    first = int(moefps.select(X, 1, ground=ground, dtype=dtype, start=start).indices[0])
    assert first == int(np.flatnonzero((X[first] == X).all(axis=(1, 2)))[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("start", [11, [4, 9]])
def test_stop_radius(start, dtype):
    X = reference.make("dirichlet_0.03", 60, 3, 9, seed=58)
    D = moefps.wasserstein_matrix(X, dtype=dtype)
    radii = reference.brute_force_fps(D, 60, start).radii
    for stop in (radii[2], radii[20], np.nextafter(radii[20], 0), 0.0, 1e9):
        for n_select in (None, 60, 5):
            found = moefps.select(X, n_select, start=start, stop_radius=float(stop), dtype=dtype)
            same_selection(found, reference.brute_force_fps(D, n_select, start, float(stop)))


@pytest.mark.parametrize("prune", [True, False])
def test_duplicates_are_picked_last_lowest_first_and_counted(prune):
    X = np.eye(9)[[5, 5, 0, 8, 0, 5]][:, None, :]
    with pytest.warns(moefps.DuplicateWarning, match=r"\b3\b"):
        found = moefps.select(X, 6, start=5, prune=prune)
    assert found.indices.tolist() == [5, 2, 3, 0, 1, 4]
    assert found.radii.tolist() == [5.0, 3.0, 0.0, 0.0, 0.0, 0.0]
    assert found.cluster_sizes.tolist() == [3, 2, 1, 0, 0, 0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_normalize(dtype):
    X = reference.make("dirichlet_1", 40, 3, 9, seed=59)
    scaled = X * 2.0 ** np.random.default_rng(60).integers(-9, 9, size=(40, 3, 1))
    same_selection(moefps.select(scaled, 12, normalize=True, dtype=dtype), moefps.select(X, 12, dtype=dtype))


@pytest.mark.parametrize("start", ["medoid", 1000])
@pytest.mark.parametrize("ground", ["index", "discrete"])
def test_real_windows(esft_windows, ground, start):
    D = moefps.wasserstein_matrix(esft_windows, ground=ground)
    first = reference.start_index(D, start) if isinstance(start, str) else start
    expected = brute_force_on_rows(D, 400, first)
    found = moefps.select(esft_windows, 400, ground=ground, start=start)
    np.testing.assert_array_equal(found.indices, expected[0])
    np.testing.assert_array_equal(found.radii, expected[1])
    np.testing.assert_array_equal(found.distances, D[:, found.indices].min(axis=1))
    np.testing.assert_array_equal(found.assignment, D[:, found.indices].argmin(axis=1))
    same_selection(moefps.select(esft_windows, 400, ground=ground, start=start, prune=False), found)
    same_selection(moefps.fps(D, 400, start=start), found)


def brute_force_on_rows(D, n_select, first):
    """As ``reference.brute_force_fps``, one row at a time: the same answer at N = 3,431 in a second."""
    picks, radii = [first], []
    nearest = D[first].copy()
    while True:
        radii.append(float(nearest.max()))
        if len(picks) == n_select:
            return picks, radii
        left = nearest.copy()
        left[picks] = -1
        picks.append(int(left.argmax()))
        nearest = np.minimum(nearest, D[picks[-1]])


def test_brute_force_on_rows_is_brute_force():
    D = moefps.wasserstein_matrix(reference.make("dirichlet_1", 60, 2, 5, seed=61))
    expected = reference.brute_force_fps(D, 25, 4)
    found = brute_force_on_rows(D, 25, 4)
    assert found == (expected.indices.tolist(), expected.radii.tolist())


def test_real_samples_float64(esft):
    D = moefps.wasserstein_matrix(esft, dtype="float64")
    first = reference.start_index(D, "medoid")
    same_selection(moefps.select(esft, 100, dtype="float64"), reference.brute_force_fps(D, 100, first))
