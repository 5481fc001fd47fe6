"""``fps`` on distance matrices against looking at everything every time."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.spatial.distance import cdist

import moefps
import reference
from support import same_selection

DTYPES = ["float32", "float64"]

pytestmark = pytest.mark.filterwarnings("ignore::moefps.DuplicateWarning")


@pytest.mark.parametrize("start", [0, 5, 28, [3, 0, 17]])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ground", ["index", "values", "discrete"])
@pytest.mark.parametrize("kind", reference.KINDS)
def test_our_own_matrices(kind, ground, dtype, start):
    D = moefps.wasserstein_matrix(reference.make(kind, 29, 2, 7, seed=40), ground=ground, dtype=dtype)
    for n_select in (3, 12, 29):
        same_selection(moefps.fps(D, n_select, start=start), reference.brute_force_fps(D, n_select, start))


@pytest.mark.parametrize("n_threads", [1, 2, 8])
@pytest.mark.parametrize("metric", ["cityblock", "euclidean", "sqeuclidean", "hamming"])
def test_any_symmetric_matrix(metric, n_threads):
    """The triangle inequality is not needed: squared distances and plain symmetric noise do too."""
    points = np.random.default_rng(41).integers(0, 4, size=(200, 3)).astype(np.float64)
    noise = np.random.default_rng(42).random((200, 200))
    for D in (cdist(points, points, metric), np.triu(noise, 1) + np.triu(noise, 1).T):
        found = moefps.fps(D, 40, start=7, n_threads=n_threads)
        same_selection(found, reference.brute_force_fps(D, 40, 7))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("start", ["medoid", "farthest", "random"])
def test_start_words(start, dtype):
    points = np.random.default_rng(43).normal(size=(80, 4))
    D = cdist(points, points, "cityblock").astype(dtype)
    for seed in (0, 1, 12345):
        first = reference.start_index(D, start, seed)
        same_selection(moefps.fps(D, 9, start=start, seed=seed), reference.brute_force_fps(D, 9, first))


@pytest.mark.parametrize("start", ["medoid", "farthest"])
def test_start_words_take_the_lowest_of_equals(start):
    """Whole distances, so the sums are exact and really equal."""
    at = np.array([3, 0, 6, 3, 0, 6, 3])
    D = np.abs(np.subtract.outer(at, at)).astype(np.float64)
    assert (
        moefps.fps(D, 1, start=start).indices[0]
        == reference.start_index(D, start)
        == {"medoid": 0, "farthest": 1}[start]
    )


def test_the_default_start_is_the_medoid():
    points = np.random.default_rng(44).normal(size=(50, 2))
    D = cdist(points, points)
    same_selection(moefps.fps(D, 9), reference.brute_force_fps(D, 9, reference.start_index(D, "medoid")))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_samples(n):
    D = np.abs(np.subtract.outer(np.arange(n), np.arange(n))).astype(np.float32)
    for start in range(n):
        for n_select in range(1, n + 1):
            same_selection(moefps.fps(D, n_select, start=start), reference.brute_force_fps(D, n_select, start))


@pytest.mark.parametrize("n_select", [None, 60, 4])
@pytest.mark.parametrize("start", [11, [4, 9]])
def test_stop_radius(start, n_select):
    points = np.random.default_rng(45).normal(size=(60, 2))
    D = cdist(points, points)
    radii = reference.brute_force_fps(D, 60, start).radii
    for stop in (radii[2], radii[20], np.nextafter(radii[20], 0), 0.0, 1e9):
        found = moefps.fps(D, n_select, start=start, stop_radius=float(stop))
        same_selection(found, reference.brute_force_fps(D, n_select, start, float(stop)))


def test_duplicates_are_picked_last_lowest_first_and_counted():
    at = np.array([5.0, 5.0, 0.0, 9.0, 0.0, 5.0])
    D = np.abs(np.subtract.outer(at, at))
    with pytest.warns(moefps.DuplicateWarning, match=r"\b3\b"):
        found = moefps.fps(D, 6, start=5)
    assert found.indices.tolist() == [5, 2, 3, 0, 1, 4]
    assert found.radii.tolist() == [5.0, 4.0, 0.0, 0.0, 0.0, 0.0]
    assert found.assignment.tolist() == [0, 0, 1, 2, 1, 0]
    assert found.cluster_sizes.tolist() == [3, 2, 1, 0, 0, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moefps.fps(D, 3, start=5)


@pytest.mark.parametrize("start", [0, 33])
def test_scikit_matter_on_l2(start):
    """Their distances are squared, which changes no order."""
    skmatter = pytest.importorskip("skmatter.sample_selection", reason="scikit-matter is not installed")
    points = np.random.default_rng(46).normal(size=(150, 6))
    theirs = skmatter.FPS(n_to_select=70, initialize=start).fit(points)
    D = cdist(points, points)
    ours = moefps.fps(D, 70, start=start)
    np.testing.assert_array_equal(ours.indices, theirs.selected_idx_)
    picked_at = D[ours.indices[1:]][:, ours.indices].copy()
    picked_at[np.triu_indices(69, 1, 70)] = np.inf
    np.testing.assert_allclose(ours.radii[:-1] ** 2, theirs.hausdorff_at_select_[ours.indices[1:]], rtol=1e-9)
    np.testing.assert_array_equal(ours.radii[:-1], picked_at.min(axis=1))


@pytest.mark.parametrize("start", [0, 33])
def test_scikit_matter_on_l1(start):
    """L1 distances are squared Euclidean distances of other points, which scikit-matter is given."""
    skmatter = pytest.importorskip("skmatter.sample_selection", reason="scikit-matter is not installed")
    D = moefps.wasserstein_matrix(reference.make("dirichlet_1", 100, 3, 8, seed=47), dtype="float64")
    centre = np.eye(100) - 0.01
    values, vectors = np.linalg.eigh(-0.5 * centre @ D @ centre)
    assert values.min() > -1e-9
    points = vectors * np.sqrt(np.maximum(values, 0))
    np.testing.assert_allclose(cdist(points, points, "sqeuclidean"), D, atol=1e-9)
    theirs = skmatter.FPS(n_to_select=50, initialize=start).fit(points)
    ours = moefps.fps(D, 50, start=start)
    np.testing.assert_array_equal(ours.indices, theirs.selected_idx_)
    np.testing.assert_allclose(ours.radii[:-1], theirs.hausdorff_at_select_[ours.indices[1:]], atol=1e-8)


@pytest.mark.parametrize("start", [0, 33])
@pytest.mark.parametrize("metric", ["cityblock", "euclidean"])
def test_rdkit(metric, start):
    pickers = pytest.importorskip("rdkit.SimDivFilters.rdSimDivPickers", reason="RDKit is not installed")
    points = np.random.default_rng(48).normal(size=(150, 6))
    D = cdist(points, points, metric)
    theirs = pickers.MaxMinPicker().LazyPick(lambda i, j: D[i, j], 150, 70, firstPicks=[start])
    np.testing.assert_array_equal(moefps.fps(D, 70, start=start).indices, list(theirs))
    packed = D[np.tril_indices(150, -1)]
    theirs = pickers.MaxMinPicker().Pick(packed, 150, 70, firstPicks=[start, 5])
    np.testing.assert_array_equal(moefps.fps(D, 70, start=[start, 5]).indices, list(theirs))


def test_rdkit_on_real_fingerprints(esft):
    """RDKit's own bit-vector picker on which experts were used, by Tanimoto distance."""
    pickers = pytest.importorskip("rdkit.SimDivFilters.rdSimDivPickers", reason="RDKit is not installed")
    from rdkit.DataStructs import CreateFromBitString

    used = (esft > 1 / 64).reshape(len(esft), -1)
    bits = [CreateFromBitString("".join("01"[int(b)] for b in row)) for row in used]
    both = (used[:, None] & used[None]).sum(axis=2)
    D = 1.0 - both / (used[:, None] | used[None]).sum(axis=2)
    picks = list(pickers.MaxMinPicker().LazyBitVectorPick(bits, len(bits), 40, firstPicks=[10]))
    ours = moefps.fps(D, 40, start=10)
    # Tanimoto distances are ratios of small whole numbers, so ties happen; RDKit may take another of the equals.
    theirs = reference.brute_force_fps(D, 40, picks)
    if np.array_equal(ours.indices, picks):
        np.testing.assert_array_equal(ours.radii, theirs.radii)
    else:
        first = int(np.argmax(ours.indices != picks))
        nearest = D[:, picks[:first]].min(axis=1)
        assert nearest[picks[first]] == nearest[ours.indices[first]]
        assert ours.indices[first] < picks[first]
