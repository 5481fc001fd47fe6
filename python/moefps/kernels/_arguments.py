"""Checks of what people pass in: one line each, naming the argument, what was found and what is accepted."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from moefps._typing import Float64Array, FloatArray, Ground, Precision, Reduce
from moefps.errors import ArgumentError, DtypeError, ShapeError

# More than any machine has cores; a slip of the keyboard must not start a million threads.
MOST_THREADS = 1024

FLOAT_DTYPES = "float16, float32, float64"


class Distance(NamedTuple):
    """The arguments that define a distance, checked; Rust reads these attributes."""

    metric: str
    positions: Float64Array | None  # [L * E], for the metric "positions"
    reduce: str
    layer_weights: Float64Array | None  # [L]
    dtype: str
    normalize: bool


def check_float_array(name: str, array: npt.ArrayLike) -> FloatArray:
    """Return `array` as numpy sees it, without a copy, if Rust can read it in place."""
    if isinstance(array, np.ma.MaskedArray):
        raise DtypeError(f"{name}: a masked array; accepted: plain arrays, such as {name}.filled(0)")
    try:
        found: npt.NDArray[Any] = np.asarray(array)
    except ValueError:
        raise ShapeError(f"{name}: rows of different lengths; accepted: an array of {FLOAT_DTYPES}") from None
    if found.dtype.kind != "f" or found.dtype.itemsize > 8:
        raise DtypeError(f"{name}: dtype {found.dtype}; accepted: {FLOAT_DTYPES}")
    if not found.dtype.isnative:
        raise DtypeError(
            f"{name}: dtype {found.dtype.str} of another byte order; accepted: {FLOAT_DTYPES} in native byte order"
        )
    if not found.flags.aligned or any(s % found.itemsize for s in found.strides):
        raise DtypeError(f"{name}: elements that are not aligned; accepted: aligned arrays, such as {name}.copy()")
    return found


def check_fingerprints(name: str, array: npt.ArrayLike, *, at_least: int = 1) -> FloatArray:
    """Return `array` if it has the shape ``[N, L, E]`` of fingerprints; Rust checks the values."""
    found = check_float_array(name, array)
    if found.ndim != 3:
        hint = f"; for a single layer pass {name}[:, None, :]" if found.ndim == 2 else ""
        raise ShapeError(
            f"{name}: {found.ndim} dimensions {found.shape}; accepted: 3, [samples, layers, experts]{hint}"
        )
    n, layers, experts = found.shape
    if n < at_least or layers < 1 or experts < 2:
        raise ShapeError(
            f"{name}: shape {found.shape}; accepted: at least {at_least} sample{'s' * (at_least > 1)}, 1 layer and "
            f"2 experts"
        )
    return found


def check_distance(
    shape: tuple[int, ...],
    ground: Ground,
    reduce: Reduce,
    layer_weights: npt.ArrayLike | None,
    dtype: Precision,
    normalize: bool,
) -> Distance:
    """Check the arguments that define the distance and put them into the form that Rust takes."""
    _, layers, experts = shape
    metric, positions = _check_ground(ground, layers, experts)
    if reduce not in ("sum", "mean"):
        raise ArgumentError(f"reduce: {reduce!r}; accepted: 'sum', 'mean'")
    precision = check_precision(dtype)
    weights = None
    if layer_weights is not None:
        weights = _check_numbers("layer_weights", layer_weights)
        if weights.shape != (layers,):
            raise ShapeError(f"layer_weights: shape {weights.shape}; accepted: ({layers},), one for each layer")
    return Distance(metric, positions, reduce, weights, precision, bool(normalize))


def _check_ground(ground: Ground, layers: int, experts: int) -> tuple[str, Float64Array | None]:
    if isinstance(ground, str):
        if ground not in ("index", "values", "discrete"):
            raise ArgumentError(
                f"ground: {ground!r}; accepted: 'index', 'values', 'discrete', or an array of positions [E] or [L, E]"
            )
        return ground, None
    positions = _check_numbers("ground", ground)
    if positions.shape not in ((experts,), (layers, experts)):
        raise ShapeError(
            f"ground: positions of shape {positions.shape}; accepted: ({experts},) or ({layers}, {experts}), "
            f"one for each expert"
        )
    return "positions", np.ascontiguousarray(np.broadcast_to(positions, (layers, experts))).reshape(-1)


def _check_numbers(name: str, values: npt.ArrayLike) -> Float64Array:
    """Real numbers as float64: small arrays, in which integers are welcome."""
    found = np.asarray(values)
    if found.dtype.kind not in "fiu":
        raise DtypeError(f"{name}: dtype {found.dtype}; accepted: real numbers")
    return np.ascontiguousarray(found, dtype=np.float64)


def check_precision(dtype: object) -> str:
    """Return the name of the dtype, which may also be given as numpy's own."""
    try:
        # numpy takes None for float64, which nobody who writes it means.
        name = "" if dtype is None else np.dtype(cast("npt.DTypeLike", dtype)).name
    except TypeError:
        name = ""
    if name not in ("float32", "float64"):
        raise ArgumentError(f"dtype: {dtype!r}; accepted: 'float32', 'float64'")
    return name


def check_seed(name: str, seed: int | None, *, is_optional: bool = True) -> int | None:
    """Return a seed for numpy's generators; None, where that is accepted, takes a seed of the system's."""
    accepted = "an integer >= 0, or None" if is_optional else "an integer >= 0"
    if seed is None and is_optional:
        return None
    number = check_count(name, seed, accepted)
    if number < 0:
        raise ArgumentError(f"{name}: {number}; accepted: {accepted}")
    return number


def check_count(name: str, value: Any, accepted: str) -> int:
    """Return an integer argument as int; True and False, which Python counts among them, are none."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise ArgumentError(f"{name}: {value!r}; accepted: {accepted}")
    return number


def check_layer_numbers(layers: Any, n_layers: int) -> list[int]:
    """Return which layers are meant, of a number or several; None means all of them, in order."""
    if layers is None:
        return list(range(n_layers))
    accepted = f"integers of 0 to {n_layers - 1}, each once"
    given = [layers] if isinstance(layers, int | np.integer) else layers
    if isinstance(given, str) or not isinstance(given, Sequence | np.ndarray):
        raise ArgumentError(f"layers: {layers!r}; accepted: {accepted}")
    found = [check_count("layers", number, accepted) for number in given]
    wrong = next((n for n in found if not 0 <= n < n_layers), None)
    if wrong is not None or not found or len(set(found)) < len(found):
        raise ArgumentError(f"layers: {found if wrong is None else wrong}; accepted: {accepted}")
    return found


def is_real(value: Any) -> bool:
    """Say whether something is a real number, not True or False."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def check_threads(n_threads: int | None) -> int | None:
    """Return the number of threads, or None for all cores."""
    if n_threads is None:
        return None
    count = check_count("n_threads", n_threads, f"an integer from 1 to {MOST_THREADS}, or None")
    if not 1 <= count <= MOST_THREADS:
        raise ArgumentError(f"n_threads: {count}; accepted: 1 to {MOST_THREADS}, or None for all cores")
    return count
