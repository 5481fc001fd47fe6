"""Checks of a trace and of what is said of its layers: the arrays that Rust reads in place, and lists by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from moefps.errors import ArgumentError, DataError, DtypeError, ShapeError
from moefps.kernels._arguments import check_count

MOST_EXPERTS = 2**15 - 1
MOST_GROUPS = 2**32 - 1

SCORINGS = ("softmax", "sigmoid", "softmax_topk", "sqrt_softplus", "probabilities", "hash", "other")
"""How a router turns logits into scores, as a dump's layers say it; ``other`` tells no full distribution."""


def check_ids(array: Any, name: str = "expert_ids") -> npt.NDArray[np.int16]:
    """Return chosen experts, [T, L, k]."""
    found = check_layout(name, array, (np.dtype(np.int16),))
    if found.ndim != 3 or 0 in found.shape[1:]:
        raise ShapeError(f"{name}: shape {found.shape}; accepted: [T, L, k], of at least 1 layer and 1 slot")
    return found


def check_weights(array: Any, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return weights of the shape of the chosen experts."""
    found = check_layout("expert_weights", array, (np.dtype(np.float16), np.dtype(np.float32)))
    if found.shape != shape:
        raise ShapeError(f"expert_weights: shape {found.shape}; accepted: {shape}, as expert_ids has it")
    return found


def check_layout(name: str, array: Any, accepted: tuple[np.dtype[Any], ...]) -> npt.NDArray[Any]:
    """Return an array that Rust can read in place."""
    names = ", ".join(str(dtype) for dtype in accepted)
    if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
        raise DtypeError(f"{name}: {type(array).__name__}; accepted: an array of {names}")
    if array.dtype not in accepted:
        raise DtypeError(f"{name}: dtype {array.dtype.str}; accepted: {names} in native byte order")
    if not array.flags.aligned or any(s % array.itemsize for s in array.strides):
        raise DtypeError(f"{name}: elements that are not aligned; accepted: aligned arrays, such as {name}.copy()")
    return array


def check_integers(name: str, values: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return integers as an array of some integer dtype."""
    found = _as_array(name, values, "integers")
    if found.dtype.kind not in "iu" and found.size:
        raise DtypeError(f"{name}: dtype {found.dtype}; accepted: integers")
    return found if found.size else found.astype(np.int64)


def by_layer(name: str, value: Any, n_layers: int, least: int, most: int) -> list[int]:
    """Return an integer for each layer, of one for all or one for each."""
    found = check_integers(name, value)
    if found.shape not in ((), (n_layers,)):
        raise ShapeError(f"{name}: shape {found.shape}; accepted: an integer, or one for each of {n_layers} layers")
    numbers: list[int] = np.broadcast_to(found, (n_layers,)).tolist()
    for layer, number in enumerate(numbers):
        if not least <= number <= most:
            raise ArgumentError(f"{name}: {number} in layer {layer}; accepted: {least} to {most}")
    return numbers


def check_experts(n_experts: Any, passive_experts: Any, n_layers: int) -> tuple[list[int], list[int]]:
    """Return how many experts each layer has, and how many of them are passive."""
    experts = by_layer("n_experts", n_experts, n_layers, 1, MOST_EXPERTS)
    passive = by_layer("passive_experts", passive_experts, n_layers, 0, MOST_EXPERTS)
    for layer, (n, idle) in enumerate(zip(experts, passive, strict=True)):
        if idle >= n:
            raise ArgumentError(
                f"passive_experts: {idle} of the {n} experts of layer {layer}; accepted: fewer than n_experts"
            )
    return experts, passive


def check_slots(top_k: Any, n_layers: int, slots: int) -> list[int]:
    """Return how many of an array's slots each layer has: all of them, where nothing is said."""
    return by_layer("top_k", slots if top_k is None else top_k, n_layers, 0, slots)


def check_logits(array: Any, rows: tuple[int, int], n_experts: int) -> npt.NDArray[Any]:
    """Return logits of the rows of the chosen experts, [T, L, E]."""
    found = check_layout("router_logits", array, (np.dtype(np.float16), np.dtype(np.float32)))
    if found.ndim != 3 or found.shape[:2] != rows or found.shape[2] < n_experts:
        raise ShapeError(
            f"router_logits: shape {found.shape}; accepted: ({rows[0]}, {rows[1]}, E), as expert_ids has it, of at "
            f"least {n_experts} experts"
        )
    return found


def check_scoring(scoring: Any, n_layers: int) -> list[str]:
    """Return how each layer's logits become scores, of a word for all or one for each."""
    given: Any = [scoring] * n_layers if isinstance(scoring, str) else scoring
    if not isinstance(given, Sequence | np.ndarray):
        raise ArgumentError(f"scoring: {scoring!r}; accepted: one for all, or one for each of {n_layers} layers")
    names = list(given)
    if len(names) != n_layers:
        raise ShapeError(f"scoring: {len(names)} of them; accepted: one for all, or one for each of {n_layers} layers")
    for layer, name in enumerate(names):
        if not isinstance(name, str) or name not in SCORINGS:
            raise ArgumentError(f"scoring: {name!r} in layer {layer}; accepted: {', '.join(SCORINGS)}")
    return names


def check_signs(value: Any, n_layers: int) -> list[bool]:
    """Return for each layer whether its weights may be negative, of one for all or one for each."""
    found = _as_array("signed_weights", value, "True, False, or one of them for each layer")
    if found.dtype != np.bool_:
        raise DtypeError(f"signed_weights: {value!r}; accepted: True, False, or one of them for each layer")
    if found.shape not in ((), (n_layers,)):
        raise ShapeError(f"signed_weights: shape {found.shape}; accepted: () or ({n_layers},), one for each layer")
    signs: list[bool] = np.broadcast_to(found, (n_layers,)).tolist()
    return signs


def check_flags(name: str, values: npt.ArrayLike, n_tokens: int) -> npt.NDArray[np.bool_]:
    """Return a flag for each token."""
    found = _as_array(name, values, f"bool, one for each of {n_tokens} tokens")
    if found.dtype != np.bool_ and found.size:
        raise DtypeError(f"{name}: dtype {found.dtype}; accepted: bool")
    if found.shape != (n_tokens,):
        raise ShapeError(f"{name}: shape {found.shape}; accepted: ({n_tokens},), one for each token")
    return np.ascontiguousarray(found, dtype=np.bool_)


def check_groups(
    groups: npt.ArrayLike | None, n_groups: int | None, n_tokens: int
) -> tuple[npt.NDArray[np.uint32] | None, int]:
    """Return the group of each token, and how many groups there are: one without groups."""
    if groups is None:
        if n_groups is not None:
            raise ArgumentError("n_groups: given without groups; accepted: None, or both")
        return None, 1
    found = check_integers("groups", groups)
    if found.shape != (n_tokens,):
        raise ShapeError(f"groups: shape {found.shape}; accepted: ({n_tokens},), one for each token")
    largest = int(found.max()) if n_tokens else -1
    count = largest + 1
    if n_groups is not None:
        count = check_count("n_groups", n_groups, "an integer >= 1, or None")
        if count < 1:
            raise ArgumentError(f"n_groups: {count}; accepted: an integer >= 1, or None")
    most = min(count, MOST_GROUPS)
    if n_tokens and (largest >= most or int(found.min()) < 0):
        row = int(np.argmax((found < 0) | (found >= most)))
        raise DataError(f"groups: token row {row} is {found[row]}; accepted: 0 to {most - 1}")
    return np.ascontiguousarray(found, dtype=np.uint32), count


def _as_array(name: str, values: Any, accepted: str) -> npt.NDArray[Any]:
    try:
        found: npt.NDArray[Any] = np.asarray(values)
    except ValueError:
        raise ShapeError(f"{name}: rows of different lengths; accepted: {accepted}") from None
    return found
