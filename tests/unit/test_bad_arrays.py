"""Every bad array is refused by name, in one line, whichever function it is handed to."""

from __future__ import annotations

import re

import numpy as np
import pytest

import moefps
from support import refused

POSITIONS = np.arange(5.0)


def good(n=6, n_layers=3, n_experts=5, dtype="float64"):
    return np.full((n, n_layers, n_experts), 1 / n_experts, dtype=dtype)


def spoiled(value, sample=4, layer=1, expert=2, dtype="float64"):
    X = good(dtype=dtype)
    X[sample, layer, expert] = value
    return X


CALLS = {
    "matrix": moefps.wasserstein_matrix,
    "cross": lambda X, **how: moefps.wasserstein_cross(X, good(), **how),
    "select": lambda X, **how: moefps.select(X, 2, **how),
    "select_from": lambda X, **how: moefps.select(X, 2, start=0, **how),
    "mean_distances": moefps.mean_distances,
    "typicality": moefps.typicality,
    "evaluate_selection": lambda X, **how: moefps.evaluate_selection(X, [0, 1], n_random=2, **how),
    "sampler": lambda X, **how: moefps.FarthestPointSampler(2).fit(X, **how),
}
ARRAYS_ONLY = [name for name in CALLS if name != "sampler"]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    "X",
    [
        np.ones(5),
        np.full((6, 5), 0.2),
        np.full((2, 3, 4, 5), 0.2),
        np.float64(1.0),
    ],
    ids=["1-D", "2-D", "4-D", "0-D"],
)
def test_dimensions(name, X):
    words = ("X", re.escape(str(X.shape)), "accepted", r"\[samples, layers, experts\]")
    refused(moefps.ShapeError, lambda: CALLS[name](X), *words)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("shape", [(0, 3, 5), (6, 0, 5), (0, 0, 0)], ids=str)
def test_empty(name, shape):
    refused(moefps.ShapeError, lambda: CALLS[name](np.zeros(shape)), "X", re.escape(str(shape)), "accepted")


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("n_experts", [0, 1])
def test_too_few_experts(name, n_experts):
    X = np.ones((6, 3, n_experts))
    refused(moefps.ShapeError, lambda: CALLS[name](X), "X", str(n_experts), "accepted", "2")


def test_one_sample_has_no_matrix():
    refused(moefps.ShapeError, lambda: moefps.wasserstein_matrix(good(1)), "X", "1", "accepted", "2")
    refused(moefps.ShapeError, lambda: moefps.wasserstein_matrix(good(1), condensed=True), "X", "accepted")


def test_one_sample_can_be_selected_and_crossed():
    assert moefps.select(good(1), 1).indices.tolist() == [0]
    assert moefps.wasserstein_cross(good(1), good(1)).tolist() == [[0.0]]


def test_one_sample_has_no_others():
    assert moefps.mean_distances(good(1)).tolist() == [0.0]
    assert moefps.typicality(good(1)).tolist() == [50.0]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    "dtype", ["int64", "int32", "uint8", "bool", "complex64", "complex128", "object", "U4", "M8[s]", "longdouble"]
)
def test_dtypes(name, dtype):
    X = np.zeros((6, 3, 5), dtype=dtype)
    if X.dtype == np.float64:
        pytest.skip("long double is float64 here")
    found = (
        "str|U4"
        if dtype == "U4"
        else "datetime64"
        if dtype == "M8[s]"
        else "float128|longdouble"
        if dtype == "longdouble"
        else dtype
    )
    refused(moefps.DtypeError, lambda: CALLS[name](X), "X", found, "float16, float32|float16", "float64")


@pytest.mark.parametrize("name", CALLS)
def test_foreign_byte_order(name):
    X = good().astype(good().dtype.newbyteorder())
    refused(moefps.DtypeError, lambda: CALLS[name](X), "X", "byte order|>f8|<f8|big-endian", "accepted|native")


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("X", [None, "X.npy", {"a": 1}, object()], ids=["None", "str", "dict", "object"])
def test_no_array_at_all(name, X):
    with pytest.raises((moefps.DtypeError, moefps.ShapeError), match="X"):
        CALLS[name](X)


@pytest.mark.parametrize("name", CALLS)
def test_ragged_lists(name):
    with pytest.raises((moefps.DtypeError, moefps.ShapeError), match="X"):
        CALLS[name]([[[0.5, 0.5]], [[1.0]]])


@pytest.mark.parametrize(
    "ground", ["index", "values", "discrete", POSITIONS], ids=["index", "values", "discrete", "positions"]
)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    ("value", "found"),
    [(np.nan, "(?i)nan"), (np.inf, "inf"), (-np.inf, "-inf"), (-0.125, r"-0\.125")],
    ids=["nan", "inf", "-inf", "negative"],
)
@pytest.mark.parametrize("name", ARRAYS_ONLY)
@pytest.mark.parametrize("normalize", [False, True])
def test_values(name, ground, dtype, value, found, normalize):
    X = spoiled(value, dtype=dtype)
    how = {"ground": ground, "normalize": normalize}
    refused(moefps.DataError, lambda: CALLS[name](X, **how), "X", "sample 4", "layer 1", "expert 2", found, "accepted")


def test_minus_zero_is_zero():
    X = np.zeros((2, 1, 4))
    X[:, 0, 1] = 1
    Y = X.copy()
    Y[1, 0, 2:] = -0.0
    for ground in ("index", "values", "discrete"):
        for dtype in ("float32", "float64"):
            D = moefps.wasserstein_matrix(Y, ground=ground, dtype=dtype)
            assert not D.any()
            assert not np.signbit(D).any()


def test_a_negative_that_cancels_out_is_found():
    X = good()
    X[4, 1] = [0.5, 0.7, -0.2, 0.0, 0.0]
    refused(moefps.DataError, lambda: moefps.wasserstein_matrix(X), "sample 4", "layer 1", "expert 2")


@pytest.mark.parametrize("name", ARRAYS_ONLY)
@pytest.mark.parametrize("normalize", [False, True])
def test_rows_of_zeros(name, normalize):
    X = good()
    X[3, 2] = 0
    refused(
        moefps.DataError, lambda: CALLS[name](X, normalize=normalize), "X", "sample 3", "layer 2", "zero", "accepted"
    )


@pytest.mark.parametrize("name", ARRAYS_ONLY)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2e-3), ("float32", 1e-4), ("float64", 1e-6)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_row_sums(name, dtype, tolerance, sign):
    """Just inside the tolerance is fine; just outside names the first sample and layer, and how to accept it."""
    X = np.zeros((6, 3, 5), dtype=dtype)
    X[:, :, 0] = 1
    # Whole multiples of the dtype's spacing around 1, so the sum is what it is meant to be.
    step = np.spacing(np.asarray(0.5, dtype=dtype)).astype(np.float64)
    inside = np.floor(0.99 * tolerance / step) * step
    outside = np.ceil(1.01 * tolerance / step) * step
    fine = X.copy()
    fine[4, 1, :2] = 0.5, 0.5 + sign * inside
    CALLS[name](fine)
    bad = X.copy()
    bad[4:, 1, :2] = 0.5, 0.5 + sign * outside
    bad[4, 2] = 3
    words = ("X", "sample 4", "layer 1", "sums to", "accepted", "normalize")
    refused(moefps.DataError, lambda: CALLS[name](bad), *words)
    CALLS[name](bad, normalize=True)


@pytest.mark.parametrize("n_threads", [1, 2, 8])
def test_the_first_of_many_is_named(n_threads):
    X = good(500, 2, 4)
    X[137:, 1] *= 1.5
    X[137, 0] = np.nan
    for _ in range(5):
        refused(
            moefps.DataError,
            lambda: moefps.wasserstein_matrix(X, n_threads=n_threads),
            "sample 137",
            "layer 0",
            "expert 0",
        )


def test_the_second_array_is_called_y():
    refused(moefps.DataError, lambda: moefps.wasserstein_cross(good(), spoiled(np.nan)), r"\bY\b", "sample 4")
    refused(moefps.DtypeError, lambda: moefps.wasserstein_cross(good(), np.zeros((6, 3, 5), int)), r"\bY\b", "int64")
    refused(moefps.ShapeError, lambda: moefps.wasserstein_cross(good(), np.ones(5)), r"\bY\b", r"\(5,\)")


@pytest.mark.parametrize("shape", [(6, 3, 4), (6, 2, 5)])
def test_cross_needs_equal_layers_and_experts(shape):
    Y = np.full(shape, 1 / shape[2])
    refused(moefps.ShapeError, lambda: moefps.wasserstein_cross(good(), Y), "Y", "3", "5", "accepted")


def test_bad_input_leaves_the_output_alone(tmp_path):
    path = tmp_path / "D.npy"
    with pytest.raises(moefps.DataError):
        moefps.wasserstein_matrix(spoiled(np.nan), out=path)
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"kept")
    with pytest.raises(moefps.DataError):
        moefps.wasserstein_matrix(spoiled(np.nan), out=path)
    assert path.read_bytes() == b"kept"
    assert len(list(tmp_path.iterdir())) == 1


def distances(n=5):
    return np.abs(np.subtract.outer(np.arange(n), np.arange(n))).astype(np.float64)


@pytest.mark.parametrize("shape", [(5,), (5, 4), (2, 5, 5), (0, 0)], ids=str)
def test_distance_matrix_shape(shape):
    refused(moefps.ShapeError, lambda: moefps.fps(np.zeros(shape), 1), r"\bD\b", "accepted", "square|at least")


@pytest.mark.parametrize("dtype", ["int64", "object", "complex128", "bool", "U3"])
def test_distance_matrix_dtype(dtype):
    refused(moefps.DtypeError, lambda: moefps.fps(np.zeros((5, 5), dtype), 1), r"\bD\b", "float32", "float64")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("value", "found"), [(np.nan, "(?i)nan"), (np.inf, "inf"), (-1.0, "-1")], ids=["nan", "inf", "negative"]
)
def test_distance_matrix_values(value, found, dtype):
    D = distances().astype(dtype)
    D[1, 3] = D[3, 1] = value
    refused(moefps.DataError, lambda: moefps.fps(D, 2), r"D\[1, 3\]", found, "accepted")


def test_distance_matrix_symmetry():
    D = distances()
    D[4, 2] += 0.1
    refused(moefps.DataError, lambda: moefps.fps(D, 2), "symmetric", r"D\[2, 4\]", r"2\.1", "accepted")
    refused(moefps.DataError, lambda: moefps.fps(np.triu(distances()), 2), "symmetric", "accepted")


def test_distance_matrix_diagonal():
    D = distances()
    D[2, 2] = 0.5
    refused(moefps.DataError, lambda: moefps.fps(D, 2), r"D\[2, 2\]", r"0\.5", "accepted", "diagonal")


def test_the_first_bad_distance_of_many_is_named():
    D = distances(300)
    D[200:, 200:] = np.nan
    for n_threads in (1, 2, 8):
        refused(moefps.DataError, lambda n=n_threads: moefps.fps(D, 2, n_threads=n), r"D\[200, 200\]")


def test_rounding_is_no_asymmetry():
    D = distances().astype(np.float64) * (1 / 3)
    D[3, 1] = np.nextafter(D[1, 3], 9)
    assert moefps.fps(D, 2, start=0).indices.tolist() == [0, 4]


def test_rounding_on_the_diagonal_is_no_distance():
    D = distances()
    np.fill_diagonal(D, 1e-16)
    found = moefps.fps(D, 5, start=0)
    assert sorted(found.indices.tolist()) == list(range(5))
    assert found.radii[-1] == 0.0
