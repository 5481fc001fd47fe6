"""Every argument that is not accepted is refused by name, in one line."""

from __future__ import annotations

import re

import numpy as np
import pytest

import moefps
from support import refused

X = np.random.default_rng(0).dirichlet(np.ones(5), (6, 3))
D = moefps.wasserstein_matrix(X)

SELECTORS = {
    "select": lambda *args, **how: moefps.select(X, *args, **how),
    "fps": lambda *args, **how: moefps.fps(D, *args, **how),
}
GROUNDED = {
    "matrix": lambda **how: moefps.wasserstein_matrix(X, **how),
    "cross": lambda **how: moefps.wasserstein_cross(X, X, **how),
    "select": lambda **how: moefps.select(X, 2, **how),
    "mean_distances": lambda **how: moefps.mean_distances(X, **how),
    "typicality": lambda **how: moefps.typicality(X, **how),
    "evaluate_selection": lambda **how: moefps.evaluate_selection(X, [0], n_random=2, **how),
}


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("n_select", [0, -1, 7, 10**12])
def test_n_select(name, n_select):
    refused(moefps.ArgumentError, lambda: SELECTORS[name](n_select), "n_select", str(n_select), "accepted", "6")


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("n_select", [2.5, "3", [2]])
def test_n_select_is_a_whole_number(name, n_select):
    with pytest.raises((moefps.ArgumentError, TypeError), match="n_select"):
        SELECTORS[name](n_select)


@pytest.mark.parametrize("name", SELECTORS)
def test_n_select_may_be_a_numpy_integer(name):
    assert len(SELECTORS[name](np.int32(2)).indices) == 2


@pytest.mark.parametrize("name", SELECTORS)
def test_something_must_end_the_selection(name):
    refused(moefps.ArgumentError, lambda: SELECTORS[name](None), "n_select", "stop_radius")


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("start", [6, -1, 10**15, [0, 6], [0, -1], np.array([7])], ids=str)
def test_start_out_of_range(name, start):
    refused(moefps.ArgumentError, lambda: SELECTORS[name](3, start=start), "start", "accepted", "0 to 5|5")


@pytest.mark.parametrize("name", SELECTORS)
def test_starts_that_repeat(name):
    refused(moefps.ArgumentError, lambda: SELECTORS[name](3, start=[2, 4, 2]), "start", r"\b2\b", "accepted")


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("start", [[], [0, 1, 2, 3]], ids=str)
def test_number_of_starts(name, start):
    refused(moefps.ArgumentError, lambda: SELECTORS[name](3, start=start), "start", "no|4", "accepted")


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("start", ["middle", "", "Medoid", 1.5, [0.5], None, "0", True, [[0, 1]]], ids=repr)
def test_start_of_another_kind(name, start):
    refused((moefps.ArgumentError, moefps.DtypeError), lambda: SELECTORS[name](3, start=start), "start", "accepted")


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("seed", [-1, 1.5, "a"], ids=repr)
def test_seed(name, seed):
    refused((moefps.ArgumentError, moefps.DtypeError), lambda: SELECTORS[name](3, start="random", seed=seed), "seed")


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("stop_radius", [-1.0, np.nan, -np.inf])
def test_stop_radius(name, stop_radius):
    refused(moefps.ArgumentError, lambda: SELECTORS[name](3, stop_radius=stop_radius), "stop_radius", "accepted")


@pytest.mark.parametrize("name", SELECTORS)
def test_an_infinite_stop_radius_stops_at_once(name):
    assert len(SELECTORS[name](None, stop_radius=np.inf).indices) == 1


@pytest.mark.parametrize("name", GROUNDED)
@pytest.mark.parametrize("ground", ["euclidean", "", "Index"])
def test_ground_word(name, ground):
    refused(
        moefps.ArgumentError,
        lambda: GROUNDED[name](ground=ground),
        "ground",
        re.escape(ground),
        "index",
        "values",
        "discrete",
    )


@pytest.mark.parametrize("name", GROUNDED)
@pytest.mark.parametrize(
    "ground",
    [np.arange(4.0), np.zeros((2, 5)), np.zeros((3, 4)), np.zeros((5, 3)), np.zeros((1, 3, 5)), np.float64(1)],
    ids=lambda g: str(np.shape(g)),
)
def test_positions_of_another_shape(name, ground):
    refused((moefps.ShapeError, moefps.ArgumentError), lambda: GROUNDED[name](ground=ground), "ground", "accepted", "5")


@pytest.mark.parametrize("name", GROUNDED)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_positions_that_are_not_finite(name, value):
    ground = np.arange(5.0)
    ground[3] = value
    refused(moefps.DataError, lambda: GROUNDED[name](ground=ground), "ground", "expert 3", "accepted", "finite")


def test_positions_too_far_apart():
    """What cannot be told from infinity is refused, not returned."""
    for dtype, far in (("float32", 1e40), ("float64", 1.7e308)):
        ground = np.array([0.0, far, -far, 1.0, 2.0])
        refused(
            moefps.DataError,
            lambda ground=ground, dtype=dtype: moefps.wasserstein_matrix(X, ground=ground, dtype=dtype),
            "ground",
            "gap|far|large",
        )


def test_layer_weights_too_large():
    weights = [1e40, 1.0, 1.0]
    refused(moefps.DataError, lambda: moefps.wasserstein_matrix(X, layer_weights=weights), "layer_weights|ground")


@pytest.mark.parametrize("name", GROUNDED)
@pytest.mark.parametrize(
    "ground", [["a", "b", "c", "d", "e"], np.zeros(5, complex), np.zeros(5, object), None, {}], ids=repr
)
def test_positions_of_another_kind(name, ground):
    with pytest.raises((moefps.DtypeError, moefps.ArgumentError, moefps.ShapeError), match="ground"):
        GROUNDED[name](ground=ground)


@pytest.mark.parametrize("name", GROUNDED)
@pytest.mark.parametrize("reduce", ["max", "", None, 1])
def test_reduce(name, reduce):
    refused(moefps.ArgumentError, lambda: GROUNDED[name](reduce=reduce), "reduce", "sum", "mean")


@pytest.mark.parametrize("name", GROUNDED)
@pytest.mark.parametrize("dtype", ["float16", "int32", "f8?", None, 32, object], ids=repr)
def test_dtype(name, dtype):
    refused(
        (moefps.ArgumentError, moefps.DtypeError), lambda: GROUNDED[name](dtype=dtype), "dtype", "float32", "float64"
    )


@pytest.mark.parametrize("name", GROUNDED)
@pytest.mark.parametrize("dtype", [np.dtype("float64"), np.float64], ids=repr)
def test_dtype_as_numpy_has_it(name, dtype):
    """Taken for what it is, or refused like any other."""
    try:
        found = GROUNDED[name](dtype=dtype)
    except moefps.MoefpsError as error:
        message = str(error)
    else:
        assert repr(found) == repr(GROUNDED[name](dtype="float64"))
        return
    assert "dtype" in message
    assert "accepted" in message


@pytest.mark.parametrize("name", GROUNDED)
@pytest.mark.parametrize("weights", [[1.0, 2.0], np.ones(4), 1.0, np.ones((3, 1))], ids=lambda w: str(np.shape(w)))
def test_layer_weights_of_another_shape(name, weights):
    refused(
        (moefps.ShapeError, moefps.ArgumentError),
        lambda: GROUNDED[name](layer_weights=weights),
        "layer_weights",
        "accepted",
        "3",
    )


@pytest.mark.parametrize("name", GROUNDED)
@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5])
def test_layer_weights_that_are_no_weights(name, value):
    refused(
        moefps.DataError,
        lambda: GROUNDED[name](layer_weights=[1.0, value, 1.0]),
        "layer_weights",
        "layer 1",
        "accepted",
    )


@pytest.mark.parametrize("name", GROUNDED)
@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_layer_weights_that_are_all_zero(name, reduce):
    refused(
        moefps.DataError,
        lambda: GROUNDED[name](layer_weights=[0, 0, 0], reduce=reduce),
        "layer_weights",
        "accepted",
        "positive",
    )


@pytest.mark.parametrize("name", [*GROUNDED, "fps"])
@pytest.mark.parametrize("n_threads", [0, -1, 1.5, "2"], ids=repr)
def test_n_threads(name, n_threads):
    call = GROUNDED.get(name, lambda **how: moefps.fps(D, 2, **how))
    refused((moefps.ArgumentError, moefps.DtypeError), lambda: call(n_threads=n_threads), "n_threads")


@pytest.mark.parametrize("name", [*GROUNDED, "fps"])
def test_far_too_many_threads(name):
    """Refused rather than started: a hundred thousand threads would bring the machine down."""
    call = GROUNDED.get(name, lambda **how: moefps.fps(D, 2, **how))
    for n_threads in (100_000, 2**70):
        refused(moefps.ArgumentError, lambda n=n_threads: call(n_threads=n), "n_threads", str(n_threads), "accepted")


@pytest.mark.parametrize("level", ["avx1024", "AVX2?", "fast"])
def test_unknown_instruction_set(level, monkeypatch):
    monkeypatch.setenv("MOEFPS_SIMD", level)
    refused(
        moefps.ArgumentError,
        lambda: moefps.wasserstein_matrix(X),
        "MOEFPS_SIMD",
        re.escape(level),
        "accepted",
        "scalar",
    )
    refused(moefps.ArgumentError, lambda: moefps.select(X, 2), "MOEFPS_SIMD")


def test_instruction_set_that_the_cpu_lacks(monkeypatch):
    import platform

    monkeypatch.setenv("MOEFPS_SIMD", "avx2" if platform.machine() in ("aarch64", "arm64") else "neon")
    refused(moefps.ArgumentError, lambda: moefps.wasserstein_matrix(X), "MOEFPS_SIMD", "accepted")


@pytest.mark.parametrize(
    ("indices", "word"),
    [
        ([0, 6], "6"),
        ([-1], "-1"),
        ([2, 2], "2"),
        ([], "0|empty|no "),
        ([0.5], "float|integer|whole"),
        ([[0]], "1-D|dim|shape"),
    ],
    ids=["range", "negative", "twice", "none", "float", "2-D"],
)
def test_evaluated_indices(indices, word):
    with pytest.raises(moefps.MoefpsError, match="indices") as caught:
        moefps.evaluate_selection(X, indices)
    assert re.search(word, str(caught.value))


@pytest.mark.parametrize("labels", [[0] * 5, [0] * 7, 3], ids=["short", "long", "scalar"])
def test_labels_of_another_length(labels):
    refused(moefps.MoefpsError, lambda: moefps.evaluate_selection(X, [0], labels), "labels", "6", "accepted")


@pytest.mark.parametrize("n_random", [0, -5, 1.5], ids=repr)
def test_n_random(n_random):
    refused(moefps.MoefpsError, lambda: moefps.evaluate_selection(X, [0], n_random=n_random), "n_random", "accepted")


@pytest.mark.parametrize("seed", [-1, "x"], ids=repr)
def test_evaluation_seed(seed):
    refused(moefps.MoefpsError, lambda: moefps.evaluate_selection(X, [0], n_random=2, seed=seed), "seed")


@pytest.mark.parametrize(
    "call",
    [
        lambda: moefps.wasserstein_matrix(X, "index"),
        lambda: moefps.wasserstein_cross(X, X, "index"),
        lambda: moefps.select(X, 2, "index"),
        lambda: moefps.fps(D, 2, "medoid"),
        lambda: moefps.mean_distances(X, "index"),
        lambda: moefps.typicality(X, "index"),
    ],
)
def test_options_are_named(call):
    with pytest.raises(TypeError, match="positional"):
        call()
