"""Products of matrices that are worked off in the thread that asks for them."""

from __future__ import annotations

import numpy as np

from moefps._typing import Float64Array

__all__ = ["product"]

_ALONE = 1 << 18
"""Multiplications up to which OpenBLAS, which NumPy comes with, starts no threads of its own."""
_FEWEST = 8
"""Rows and columns of a piece, below which pieces cost more than threads."""
_DEPTH = 256
"""Products that are summed up at a time, so that there are not many pieces of few rows and columns."""


def product(a: Float64Array, b: Float64Array) -> Float64Array:
    """Give ``a @ b``, in pieces so small that BLAS does not start threads for them.

    Layers are measured beside each other already. Threads of BLAS on top of that wait for each other: on a machine that
    has anything else to do, a product of a fifth of a millisecond takes thirty.

    Parameters
    ----------
    a : ndarray [M, K]
        The left one.
    b : ndarray [K, N]
        The right one.

    Returns
    -------
    ndarray [M, N]

    Examples
    --------
    >>> product(np.eye(2), np.array([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """
    (n_rows, depth), n_columns = a.shape, b.shape[1]
    if depth > _DEPTH and n_rows * depth * n_columns > _ALONE:
        found = np.zeros((n_rows, n_columns))
        for first in range(0, depth, _DEPTH):
            found += product(np.ascontiguousarray(a[:, first : first + _DEPTH]), b[first : first + _DEPTH])
        return found
    # At least as many columns as the fewest are left for a piece of so many rows.
    most_rows = _ALONE // (_FEWEST * max(1, depth))
    if n_rows * depth * n_columns <= _ALONE or most_rows < _FEWEST:
        return a @ b
    if n_rows > most_rows:
        return np.concatenate([product(a[first : first + most_rows], b) for first in range(0, n_rows, most_rows)])
    width = _ALONE // (n_rows * depth)
    n_pieces = -(-n_columns // width)
    padded = np.zeros((depth, n_pieces * width))
    padded[:, :n_columns] = b
    found = np.empty((n_rows, n_pieces * width))
    # One call for all pieces: NumPy hands them to BLAS one after the other.
    pieces = padded.reshape(depth, n_pieces, width).transpose(1, 0, 2)
    np.matmul(a, pieces, out=found.reshape(n_rows, n_pieces, width).transpose(1, 0, 2))
    return found[:, :n_columns]
