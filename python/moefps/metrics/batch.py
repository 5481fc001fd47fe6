"""A batch of routing as callers have it, laid out a row a token: arrays of numpy, or tensors of torch on any device.

torch is used only on tensors, and never imported here.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from moefps.errors import ArgumentError, DataError, DtypeError, ShapeError
from moefps.kernels import find_neighbours

__all__ = ["Batch", "as_numpy", "check_ids", "check_sizes", "check_weights", "is_tensor", "lay_out"]

LARGEST = 1e100
"""Numbers up to here can be added up and squared in float64, however many there are. All of float32 are below."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Tokens of one layer.

    Attributes
    ----------
    ids : ndarray of int16 [T, k]
        Chosen experts, -1 for an empty slot.
    weights : ndarray of float [T, k] or None
        Their weights.
    logits : ndarray of float [T, E] or None
        The router's logits.
    follows : ndarray of bool [T]
        Whether each row is the next token of the row before.
    domains : tuple of str or int
        The domains that occur.
    groups : ndarray of int64 [T] or None
        The domain of each token, as a place in `domains`; None where they were not given.
    """

    ids: npt.NDArray[np.int16]
    weights: npt.NDArray[Any] | None
    logits: npt.NDArray[Any] | None
    follows: npt.NDArray[np.bool_]
    domains: tuple[str | int, ...]
    groups: npt.NDArray[np.int64] | None


def is_tensor(values: Any) -> bool:
    """Tell whether something is a tensor of torch, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(values, torch.Tensor)


def as_numpy(name: str, values: Any) -> npt.NDArray[Any]:
    """See an argument as an array; a tensor is copied to the CPU where it is elsewhere.

    Parameters
    ----------
    name : str
        What the caller calls it.
    values : array-like or Tensor
        Anything; bfloat16 becomes float32, which holds all of its values.

    Raises
    ------
    ShapeError, DtypeError
        It is no array.

    Examples
    --------
    >>> as_numpy("ids", [[0, 1]])
    array([[0, 1]])
    """
    if is_tensor(values):
        tensor = values.detach()
        # numpy has no type for the other floats of torch: bfloat16, and those of 8 bits.
        if tensor.dtype.is_floating_point and tensor.element_size() < 4 and str(tensor.dtype) != "torch.float16":
            tensor = tensor.float()
        try:
            found: npt.NDArray[Any] = tensor.resolve_conj().resolve_neg().cpu().numpy()
        # What torch raises for tensors without plain data differs from kind to kind.
        except (TypeError, RuntimeError, NotImplementedError):
            raise DtypeError(
                f"{name}: a tensor of {tensor.layout} on {tensor.device}; accepted: dense tensors with data"
            ) from None
        return found
    if isinstance(values, np.ma.MaskedArray):
        raise DtypeError(f"{name}: a masked array; accepted: plain arrays, such as {name}.filled(-1)")
    try:
        return np.asarray(values)
    except ValueError:
        raise ShapeError(f"{name}: rows of different lengths; accepted: an array") from None


def check_ids(name: str, ids: npt.NDArray[Any], n_experts: int, *, least: int = -1) -> None:
    """Check that ids are integers, from `least` (-1 is an empty slot) to below `n_experts`.

    Raises
    ------
    DtypeError, DataError
        They are not; the first one that is wrong is named.
    """
    if ids.dtype.kind not in "iu":
        raise DtypeError(f"{name}: dtype {ids.dtype}; accepted: integers")
    if ids.size and (int(ids.min()) < least or int(ids.max()) >= n_experts):
        where = _first((ids < least) | (ids >= n_experts))
        empty = "; empty slots cannot be counted here" if least == 0 and ids[where] == -1 else ""
        empty = " or -1 for an empty slot" if least < 0 else empty
        raise DataError(f"{name}: {ids[where]} at {list(where)}; accepted: 0 to {n_experts - 1}{empty}")


def check_weights(name: str, weights: npt.NDArray[Any], ids: npt.NDArray[Any], *, signed: bool = False) -> None:
    """Check that weights are finite floats of the shape of `ids`, from 0 up unless `signed`, where a slot is filled.

    Raises
    ------
    DtypeError, ShapeError, DataError
        They are not; the first one that is wrong is named.
    """
    if weights.dtype.kind != "f" or weights.dtype.itemsize > 8:
        raise DtypeError(f"{name}: dtype {weights.dtype}; accepted: floats of at most 64 bits")
    if weights.shape != ids.shape:
        raise ShapeError(f"{name}: shape {weights.shape}; accepted: {ids.shape}, that of the ids")
    with np.errstate(invalid="ignore"):
        wrong = ~np.isfinite(weights) if signed else ~((weights >= 0) & (weights < math.inf))
    wrong &= ids >= 0
    if wrong.any():
        where = _first(wrong)
        accepted = "finite weights" if signed else "finite weights >= 0"
        raise DataError(f"{name}: {weights[where]} at {list(where)}; accepted: {accepted}")
    check_sizes(name, np.where(ids >= 0, weights, 0) if weights.dtype == np.float64 else weights)


def check_sizes(name: str, values: npt.NDArray[Any]) -> None:
    """Refuse numbers of float64 whose sums or squares it does not hold.

    Raises
    ------
    DataError
        There are some; the first one is named.
    """
    if values.dtype != np.float64:
        return
    wrong = np.abs(values) > LARGEST
    if wrong.any():
        where = _first(wrong)
        raise DataError(f"{name}: {values[where]:g} at {list(where)}; accepted: numbers of at most {LARGEST:g}")


def lay_out(
    ids: Any,
    weights: Any = None,
    logits: Any = None,
    *,
    n_experts: int,
    signed: bool = False,
    mask: Any = None,
    offsets: Any = None,
    domains: Any = None,
) -> Batch:
    """Check a batch and lay it out a row a token.

    Parameters
    ----------
    ids : array-like or Tensor of integers [B, S, k] or [T, k]
        Chosen experts, a row a sequence or a row a token; -1 is an empty slot.
    weights : array-like or Tensor of floats, of the shape of `ids`, optional
        Their weights.
    logits : array-like or Tensor of floats [B, S, E] or [T, E], optional
        The router's logits.
    n_experts : int
        E.
    signed : bool
        Whether weights may be negative.
    mask : array-like or Tensor of bool or 0 and 1 [B, S], optional
        Which positions are tokens.
    offsets : array-like or Tensor of int [N + 1], optional
        Where sequences of ids [T, k] start, and T. One sequence when not given.
    domains : str, int, or array-like of one for each sequence or token, optional
        What the tokens are from.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError, DataError
        Something is not accepted.
    """
    found = as_numpy("ids", ids)
    if found.ndim not in (2, 3) or found.shape[-1] == 0:
        raise ShapeError(f"ids: shape {found.shape}; accepted: [B, S, k] or [T, k], of at least 1 slot")
    if found.shape[-1] > n_experts:
        raise ShapeError(f"ids: {found.shape[-1]} slots a token; accepted: at most {n_experts}, the number of experts")
    check_ids("ids", found, n_experts)
    shape = found.shape[:-1]
    taken = None if weights is None else as_numpy("weights", weights)
    if taken is not None:
        check_weights("weights", taken, found, signed=signed)
    scores = None if logits is None else as_numpy("logits", logits)
    if scores is not None:
        if scores.dtype.kind != "f" or scores.dtype.itemsize > 8:
            raise DtypeError(f"logits: dtype {scores.dtype}; accepted: floats of at most 64 bits")
        if scores.shape != (*shape, n_experts):
            raise ShapeError(f"logits: shape {scores.shape}; accepted: {(*shape, n_experts)}")
    keep, follows, starts = _sequences(shape, mask, offsets)
    names: tuple[str | int, ...] = ()
    groups = None
    if domains is not None:
        names, groups = _domains(domains, shape, starts, keep)
    return Batch(
        _rows(found, keep).astype(np.int16),
        None if taken is None else _rows(taken, keep),
        None if scores is None else _rows(scores, keep),
        follows,
        names,
        groups,
    )


def _rows(array: npt.NDArray[Any], keep: npt.NDArray[np.bool_] | None) -> npt.NDArray[Any]:
    flat = array.reshape(-1, array.shape[-1])
    return flat if keep is None else flat[keep]


def _sequences(
    shape: tuple[int, ...], mask: Any, offsets: Any
) -> tuple[npt.NDArray[np.bool_] | None, npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Give which positions are tokens (None: all), which of those follow the one before, and where sequences start."""
    if len(shape) == 2:
        if offsets is not None:
            raise ArgumentError("offsets: given with ids [B, S, k], a row a sequence; accepted: with ids [T, k]")
        batch, length = shape
        starts = np.arange(batch + 1, dtype=np.int64) * length
        if mask is None:
            return None, find_neighbours(starts), starts
        keep = _check_mask(mask, shape)
        counts = np.concatenate([[0], np.cumsum(keep.sum(axis=1))])
        positions = np.nonzero(keep)[1]
        return keep.reshape(-1), find_neighbours(counts, positions), starts
    if mask is not None:
        raise ArgumentError("mask: given with ids [T, k], where every row is a token; accepted: with ids [B, S, k]")
    starts = np.array([0, shape[0]]) if offsets is None else as_numpy("offsets", offsets)
    follows = find_neighbours(starts)
    if len(follows) != shape[0]:
        raise ShapeError(f"offsets: end at {len(follows)}; accepted: {shape[0]}, the number of tokens")
    return None, follows, starts


def _check_mask(mask: Any, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    found = as_numpy("mask", mask)
    if found.shape != shape:
        raise ShapeError(f"mask: shape {found.shape}; accepted: {shape}, a value for each position")
    if found.dtype == np.bool_:
        return found
    if found.dtype.kind not in "iu":
        raise DtypeError(f"mask: dtype {found.dtype}; accepted: bool, or the integers 0 and 1")
    if not np.isin(found, (0, 1)).all():
        raise DataError(f"mask: {found[_first(~np.isin(found, (0, 1)))]}; accepted: 0 and 1")
    return found.astype(np.bool_)


def _domains(
    domains: Any, shape: tuple[int, ...], starts: npt.NDArray[np.int64], keep: npt.NDArray[np.bool_] | None
) -> tuple[tuple[str | int, ...], npt.NDArray[np.int64]]:
    """Give the domains' names, and each token's place among them."""
    given = as_numpy("domains", domains)
    if given.dtype == np.object_ and all(isinstance(name, str) for name in given.flat):
        # How columns of tables come.
        given = given.astype(np.str_)
    if given.dtype.kind not in "iuU":
        raise DtypeError(f"domains: dtype {given.dtype}; accepted: strings or integers")
    n_sequences = len(starts) - 1
    if given.shape == (n_sequences,):
        by_token = np.repeat(given, np.diff(starts))
    elif given.shape in ((), shape):
        by_token = np.broadcast_to(given, shape).reshape(-1)
    else:
        raise ShapeError(
            f"domains: shape {given.shape}; accepted: one for all, {(n_sequences,)} for each sequence, or {shape} for "
            "each token"
        )
    names, places = np.unique(by_token if keep is None else by_token[keep], return_inverse=True)
    return tuple(names.tolist()), places.reshape(-1).astype(np.int64)


def _first(wrong: npt.NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
