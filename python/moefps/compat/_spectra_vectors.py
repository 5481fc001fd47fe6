"""Vectors of experts, as SPECTRAAnalyzer compares them: means over tokens, and the cosines between those.

Tensors are worked on by torch, in their own precision: where a Gram matrix is nearly singular, rounding decides what
its condition number comes out as, and that is then what the original computes. Arrays are worked on in float64.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from moefps._typing import Float64Array
from moefps.errors import ArgumentError, DataError, DtypeError, ShapeError
from moefps.metrics.batch import as_numpy, is_tensor

__all__ = ["ExpertVectors", "check_numbers", "describe_gram", "mean_and_std", "measure_vectors", "output_diversity"]

# Below it, the original takes a Gram matrix for singular.
SINGULAR = 1e-8
SHORTEST = 1e-12


@dataclass(frozen=True, eq=False)
class ExpertVectors:
    """One vector an expert, of length 1.

    Attributes
    ----------
    rows : ndarray of float64 [E, d]
        The vectors; one of length 0 stays 0.
    gram : ndarray of float64 [E, E]
        Their products.
    eigenvalues : ndarray of float64 [E]
        Those of `gram`, ascending.
    """

    rows: Float64Array
    gram: Float64Array
    eigenvalues: Float64Array

    @property
    def off_diagonal(self) -> Float64Array:
        """The cosines of all ordered pairs of different experts, [E (E - 1)]."""
        found: Float64Array = self.gram[~np.eye(len(self.gram), dtype=np.bool_)]
        return found

    @property
    def orthogonality(self) -> float:
        """1 - ‖G - I‖ / (E √2), of the Frobenius norm."""
        n_experts = len(self.gram)
        return float(1.0 - np.linalg.norm(self.gram - np.eye(n_experts)) / (n_experts * math.sqrt(2.0)))


def measure_vectors(name: str, vectors: Any, n_experts: int, *, flat: bool) -> ExpertVectors:
    """Take the mean over tokens, and compare the experts.

    Parameters
    ----------
    name : str
        What the caller calls them.
    vectors : ndarray or Tensor [T, E, d] or [B, S, E, d]
        A vector for each token and expert; with `flat` also [E, d].
    n_experts : int
        E.
    flat : bool
        Whether one vector an expert is accepted, too.

    Raises
    ------
    ShapeError, DtypeError
        It is something else.
    DataError
        A mean is not finite.
    """
    shape = tuple(np.shape(vectors))
    shapes = f"[T, {n_experts}, d] or [B, S, {n_experts}, d]" + (f" or [{n_experts}, d]" if flat else "")
    if len(shape) not in ((2, 3, 4) if flat else (3, 4)) or shape[-2] != n_experts or 0 in shape:
        raise ShapeError(f"{name}: shape {shape}; accepted: {shapes}")
    if is_tensor(vectors):
        return _measure_tensor(name, vectors)
    array = as_numpy(name, vectors)
    if array.dtype.kind not in "fiu":
        raise DtypeError(f"{name}: dtype {array.dtype}; accepted: real numbers")
    means = array.mean(axis=tuple(range(array.ndim - 2)), dtype=np.float64)
    _check_finite(name, means)
    rows = _unit(means)
    gram = rows @ rows.T
    eigenvalues: Float64Array = np.linalg.eigvalsh(gram).astype(np.float64)
    return ExpertVectors(rows, gram, eigenvalues)


def _measure_tensor(name: str, vectors: Any) -> ExpertVectors:
    torch = sys.modules["torch"]
    if vectors.dtype.is_complex or vectors.dtype == torch.bool:
        raise DtypeError(f"{name}: dtype {str(vectors.dtype).removeprefix('torch.')}; accepted: real numbers")
    values = vectors.detach()
    # Halves would be averaged in their own few digits.
    values = values if values.dtype in {torch.float32, torch.float64} else values.float()
    means = values.mean(dim=tuple(range(values.ndim - 2))) if values.ndim > 2 else values
    rows = torch.nn.functional.normalize(means, dim=-1)
    gram = rows @ rows.T
    _check_finite(name, gram.cpu().numpy())
    return ExpertVectors(*(part.cpu().numpy().astype(np.float64) for part in (rows, gram, torch.linalg.eigvalsh(gram))))


def _check_finite(name: str, means: npt.NDArray[Any]) -> None:
    finite = np.isfinite(means).all(axis=-1)
    if not finite.all():
        raise DataError(
            f"{name}: expert {int(np.argmin(finite))} has a mean that is not finite; accepted: finite numbers"
        )


def check_numbers(name: str, values: npt.NDArray[Any]) -> None:
    """Refuse an array of something else than real, finite numbers.

    Raises
    ------
    DtypeError
        It is of another kind.
    DataError
        A number is NaN or infinite; the first one is named.
    """
    if values.dtype.kind not in "fiu":
        raise DtypeError(f"{name}: dtype {values.dtype}; accepted: real numbers")
    wrong = ~np.isfinite(values)
    if wrong.any():
        where = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
        place = [int(i) for i in where]
        raise DataError(f"{name}: {values[where]} at {place}; accepted: finite numbers")


def _unit(rows: Float64Array) -> Float64Array:
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    unit: Float64Array = rows / np.maximum(lengths, SHORTEST)
    return unit


def describe_gram(vectors: ExpertVectors) -> dict[str, float]:
    """Give the numbers of a Gram matrix, under the original's keys."""
    smallest, largest = vectors.eigenvalues[0], vectors.eigenvalues[-1]
    return {
        "gram_matrix_orthogonality": vectors.orthogonality,
        "gram_diagonal_quality": float(np.diag(vectors.gram).mean()),
        "gram_off_diagonal_sparsity": mean_and_std(np.abs(vectors.off_diagonal))[0],
        "gram_condition_number": float(largest / smallest) if smallest > SINGULAR else math.inf,
        "gram_frobenius_norm": float(np.linalg.norm(vectors.gram)),
    }


def output_diversity(outputs: Any) -> float | None:
    """Give 1 - the mean cosine of different experts' mean outputs.

    Parameters
    ----------
    outputs : dict of int to ndarray or Tensor [n, d]
        What each expert gave for its tokens.

    Returns
    -------
    float or None
        None for fewer than two experts; NaN where one has no output, as in the original.
    """
    if not isinstance(outputs, Mapping):
        raise ArgumentError(f"expert_outputs: {type(outputs).__name__}; accepted: a dict from experts to their outputs")
    arrays = {expert: as_numpy(f"expert_outputs[{expert!r}]", outputs[expert]) for expert in sorted(outputs)}
    widths = {array.shape[1:] for array in arrays.values()}
    if len(widths) > 1 or any(len(width) != 1 for width in widths):
        shapes = ", ".join(str(array.shape) for array in arrays.values())
        raise ShapeError(f"expert_outputs: shapes {shapes}; accepted: [n, d] of one d")
    for expert, array in arrays.items():
        check_numbers(f"expert_outputs[{expert!r}]", array)
    if len(arrays) < 2:
        return None
    if not all(len(array) for array in arrays.values()):
        return math.nan
    rows = _unit(np.stack([array.mean(axis=0, dtype=np.float64) for array in arrays.values()]))
    cosines = (rows @ rows.T)[~np.eye(len(rows), dtype=np.bool_)]
    return float(1.0 - cosines.mean())


def mean_and_std(values: npt.NDArray[Any]) -> tuple[float, float]:
    """Give the mean and the standard deviation (ddof=1): NaN where there are too few values for them, as torch does."""
    mean = float(values.mean(dtype=np.float64)) if values.size else math.nan
    std = float(values.std(dtype=np.float64, ddof=1)) if values.size > 1 else math.nan
    return mean, std
