"""What one sample of a dump is written from: arrays and token columns, checked against the header."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from moefps.errors import ArgumentError, DataError, DtypeError, ShapeError
from moefps.io.dump.layout import LAYOUTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from moefps.io.dump.header import TokenColumn

__all__ = ["check_block", "check_capacities", "column_rows"]

_LARGEST_TOKEN_ID = (1 << 31) - 1


def check_capacities(capacities: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return the most tokens that each sample can have, [N]."""
    found = np.asarray(capacities)
    if found.ndim != 1:
        raise ShapeError(f"capacities: {found.ndim} dimensions; accepted: 1, [N]")
    if found.dtype.kind not in "iu" and found.size:
        raise DtypeError(f"capacities: dtype {found.dtype}; accepted: integers")
    if found.size and int(found.min()) < 0:
        raise DataError(f"capacities: {found.min()} at [{int(found.argmin())}]; accepted: at least 0")
    return found.astype(np.int64)


def check_block(name: str, array: Any, dtype: np.dtype[Any], shape: tuple[int | None, ...]) -> None:
    """Refuse an array that has not the dtype of the header, or another shape; None stands for any size."""
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        raise DtypeError(
            f"{name}: {getattr(array, 'dtype', type(array).__name__)}; accepted: {dtype}, as in the header"
        )
    fits = array.ndim == len(shape) and all(want in {None, size} for want, size in zip(shape, array.shape, strict=True))
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ShapeError(f"{name}: shape {array.shape}; accepted: [{wanted}] of {LAYOUTS[name]}")


def column_rows(name: str, column: TokenColumn, given: Mapping[str, Any], n_tokens: int) -> npt.NDArray[Any]:
    """Give one token column of a sample, as it is kept."""
    if name not in given:
        raise ArgumentError(f"labels: {name} is missing, but in the header's token_labels")
    values = np.asarray(given[name])
    if values.ndim == 0 and name == "token_id":
        values = np.full(n_tokens, values)
    if values.shape != (n_tokens,):
        raise ShapeError(f"{name}: shape {values.shape}; accepted: [{n_tokens}], one for each token")
    numbered = column.names is not None or name in {"token_id", "position"}
    if not numbered:
        if values.dtype != column.dtype:
            raise DtypeError(f"{name}: dtype {values.dtype}; accepted: {column.dtype}, as in the header")
        return np.ascontiguousarray(values)
    if values.dtype.kind not in "iu" and values.size:
        raise DtypeError(f"{name}: dtype {values.dtype}; accepted: integers")
    low, high = (0, len(column.names) - 1) if column.names is not None else (-1, _LARGEST_TOKEN_ID)
    if values.size and not low <= int(values.min()) <= int(values.max()) <= high:
        raise DataError(f"{name}: values of {values.min()} to {values.max()}; accepted: {low} to {high}")
    return np.ascontiguousarray(values, dtype=column.dtype)
