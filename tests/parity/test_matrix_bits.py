"""The same bits, whatever the threads, the instruction set, the way out and the tiling."""

from __future__ import annotations

import numpy as np
import pytest

import moefps
import reference

GROUNDS = ["index", "values", "discrete", "positions"]
DTYPES = ["float32", "float64"]
SHAPES = [(2, 1, 2), (3, 2, 5), (67, 3, 37), (130, 1, 300), (33, 40, 16)]


def samples(shape, source="float32", seed=20):
    return reference.make("dirichlet_0.03", *shape, seed=seed).astype(source)


def ground_for(name, shape):
    return np.arange(shape[2])[::-1] ** 2.0 if name == "positions" else name


def same(a, b):
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_threads(shape, dtype):
    X = samples(shape)
    one = moefps.wasserstein_matrix(X, dtype=dtype, n_threads=1)
    for n_threads in (2, 3, 8, None):
        same(moefps.wasserstein_matrix(X, dtype=dtype, n_threads=n_threads), one)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_instruction_sets(shape, ground, dtype, simd, monkeypatch):
    X = samples(shape)
    ground = ground_for(ground, shape)
    ours = moefps.wasserstein_matrix(X, ground=ground, dtype=dtype)
    crossed = moefps.wasserstein_cross(X[:5], X, ground=ground, dtype=dtype)
    monkeypatch.delenv("MOEFPS_SIMD")
    same(ours, moefps.wasserstein_matrix(X, ground=ground, dtype=dtype))
    same(crossed, ours[:5])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_out_array(shape, dtype):
    X = samples(shape)
    plain = moefps.wasserstein_matrix(X, dtype=dtype)
    out = np.full(plain.shape, np.nan, dtype=dtype)
    returned = moefps.wasserstein_matrix(X, dtype=dtype, out=out)
    assert returned is out
    same(out, plain)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_out_file(shape, dtype, tmp_path):
    X = samples(shape)
    plain = moefps.wasserstein_matrix(X, dtype=dtype)
    path = tmp_path / "D.npy"
    returned = moefps.wasserstein_matrix(X, dtype=dtype, out=path)
    assert isinstance(returned, np.memmap)
    assert not returned.flags.writeable
    same(np.asarray(returned), plain)
    same(np.load(path), plain)
    assert [p.name for p in tmp_path.iterdir()] == ["D.npy"]


def test_out_file_is_replaced(tmp_path):
    path = tmp_path / "D.npy"
    path.write_bytes(b"something else")
    plain = moefps.wasserstein_matrix(samples(SHAPES[2]), out=str(path))
    same(np.load(path), np.asarray(plain))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_condensed(shape, dtype, tmp_path):
    X = samples(shape)
    plain = moefps.wasserstein_matrix(X, dtype=dtype)
    upper = plain[np.triu_indices(len(X), 1)]
    same(moefps.wasserstein_matrix(X, dtype=dtype, condensed=True), upper)
    out = np.empty(len(upper), dtype=dtype)
    assert moefps.wasserstein_matrix(X, dtype=dtype, condensed=True, out=out) is out
    same(out, upper)
    moefps.wasserstein_matrix(X, dtype=dtype, condensed=True, out=tmp_path / "c.npy")
    same(np.load(tmp_path / "c.npy"), upper)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("cut", [1, 30, 66])
def test_cross_is_a_block_of_the_matrix(ground, cut, dtype):
    X = samples(SHAPES[2])
    ground = ground_for(ground, SHAPES[2])
    D = moefps.wasserstein_matrix(X, ground=ground, dtype=dtype)
    same(moefps.wasserstein_cross(X[:cut], X[cut:], ground=ground, dtype=dtype), D[:cut, cut:].copy())
    same(moefps.wasserstein_cross(X, X, ground=ground, dtype=dtype), D)


@pytest.mark.parametrize("dtype", DTYPES)
def test_cross_in_pieces(dtype, tmp_path):
    X, Y = samples((70, 3, 37)), samples((90, 3, 37), "float16", seed=21)
    whole = moefps.wasserstein_cross(X, Y, dtype=dtype, n_threads=1)
    rows = [moefps.wasserstein_cross(X[i : i + 7], Y, dtype=dtype, n_threads=2) for i in range(0, 70, 7)]
    columns = [moefps.wasserstein_cross(X, Y[i : i + 13], dtype=dtype) for i in range(0, 90, 13)]
    same(np.concatenate(rows), whole)
    same(np.concatenate(columns, axis=1), whole)
    out = np.empty((70, 90), dtype=dtype)
    assert moefps.wasserstein_cross(X, Y, dtype=dtype, out=out) is out
    same(out, whole)
    moefps.wasserstein_cross(X, Y, dtype=dtype, out=tmp_path / "C.npy")
    same(np.load(tmp_path / "C.npy"), whole)
    same(moefps.wasserstein_cross(Y, X, dtype=dtype), np.ascontiguousarray(whole.T))


@pytest.mark.parametrize("dtype", DTYPES)
def test_order_of_samples_does_not_matter(dtype):
    X = samples(SHAPES[2])
    order = np.random.default_rng(22).permutation(len(X))
    D = moefps.wasserstein_matrix(X, dtype=dtype)
    same(moefps.wasserstein_matrix(X[order], dtype=dtype), D[np.ix_(order, order)])


def test_real_fingerprints(esft, simd):
    X = esft[::3].astype(np.float32)
    expected = reference.fixed_point_matrix(X)
    for n_threads in (1, 2, 8):
        same(moefps.wasserstein_matrix(X, n_threads=n_threads), expected)
