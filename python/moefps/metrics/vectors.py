"""How much alike vectors of experts are: those with which a router compares tokens, or the experts' mean outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from moefps._typing import Float64Array
from moefps.errors import ArgumentError, DtypeError, ShapeError

if TYPE_CHECKING:
    import polars as pl

__all__ = ["VECTOR_METRICS", "VectorMetrics", "cosine_gram", "vector_metrics", "vector_table"]

VECTOR_METRICS: tuple[str, ...] = (
    "expert_similarity_mean",
    "expert_similarity_std",
    "expert_diversity_score",
    "expert_specialization_strength",
    "gram_matrix_orthogonality",
    "gram_diagonal_quality",
    "gram_off_diagonal_sparsity",
    "gram_condition_number",
    "gram_frobenius_norm",
    "expert_output_diversity",
    "expert_routing_expression_alignment",
)
"""What is computed from vectors, by name."""

NO_VECTORS = "the router has no expert vectors"
ONE_EXPERT = "the layer has one expert only"
NO_OUTPUTS = "the experts' outputs were not captured"
ONE_SET = "an ordinary router has one set of vectors, not two"

_LEAST_EIGENVALUE = 1e-8
"""At or below this, the smallest eigenvalue is taken for 0."""


@dataclass(frozen=True)
class VectorMetrics:
    """What the vectors of one layer's experts say.

    Attributes
    ----------
    values : dict of str to float or None
        The metrics of `VECTOR_METRICS`; None where one is not defined. The condition number may be infinite.
    reasons : dict of str to str
        For those that are None, why.
    """

    values: dict[str, float | None]
    reasons: dict[str, str]


def cosine_gram(vectors: npt.ArrayLike) -> Float64Array:
    """Give the cosines between all pairs of vectors: the Gram matrix of the vectors at length 1.

    Parameters
    ----------
    vectors : array-like of float [E, d]
        Finite numbers. A vector of zeros has cosine 0 with all, itself included.

    Returns
    -------
    ndarray of float64 [E, E]
        Symmetric; 1 on the diagonal but for rounding.

    Raises
    ------
    ShapeError, DtypeError
        The array is something else.

    Examples
    --------
    >>> cosine_gram([[1.0, 0.0], [3.0, 4.0], [0.0, 0.0]]).round(6).tolist()
    [[1.0, 0.6, 0.0], [0.6, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    unit = _at_length_one(_check_vectors("vectors", vectors))
    gram: Float64Array = unit @ unit.T
    return gram


def vector_metrics(
    vectors: npt.ArrayLike,
    *,
    passive_experts: int = 0,
    outputs: npt.ArrayLike | None = None,
    expressions: npt.ArrayLike | None = None,
) -> VectorMetrics:
    """Compute what the vectors of one layer's experts say about their likeness.

    All are of the cosine Gram matrix G, and what is said of pairs runs over the E(E-1) ordered pairs of different
    experts, std and variance with ddof=1. SPECTRA's checklist of MoE evaluation metrics has the names.

    Parameters
    ----------
    vectors : array-like of float [E, d]
        The rows with which the router compares a token. Rows that are NaN throughout stand for none.
    passive_experts : int, default 0
        How many of the last rows are of experts that do nothing; they are left out.
    outputs : array-like of float [E, d'], optional
        Each expert's mean output, for `expert_output_diversity`.
    expressions : array-like of float [E, d], optional
        A second set of vectors, aligned with the first, for `expert_routing_expression_alignment`.

    Returns
    -------
    VectorMetrics
        Values by name, None where not defined, with reasons.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        An array or argument is something else, or they do not fit each other.

    Examples
    --------
    >>> found = vector_metrics([[1.0, 0.0], [0.0, 1.0]])
    >>> found.values["gram_matrix_orthogonality"], found.values["gram_condition_number"]
    (1.0, 1.0)
    >>> found.reasons["expert_output_diversity"]
    "the experts' outputs were not captured"
    """
    rows = _check_vectors("vectors", vectors)
    if not 0 <= passive_experts < len(rows):
        raise ArgumentError(f"passive_experts: {passive_experts} of {len(rows)}; accepted: 0 to {len(rows) - 1}")
    real = len(rows) - passive_experts
    values: dict[str, float | None] = dict.fromkeys(VECTOR_METRICS)
    reasons: dict[str, str] = {}
    missing = _why_not(rows[:real])
    if missing is None:
        _add_gram(values, rows[:real])
    if real == 1:
        reasons |= dict.fromkeys(VECTOR_METRICS[:-1], ONE_EXPERT)
    if missing is not None:
        reasons |= dict.fromkeys(VECTOR_METRICS, missing)
    reasons["expert_output_diversity"] = NO_OUTPUTS
    if outputs is not None:
        second = _check_aligned("outputs", outputs, len(rows))[:real]
        reasons["expert_output_diversity"] = _why_not(second) or ONE_EXPERT
        if _why_not(second) is None and real > 1:
            values["expert_output_diversity"] = 1.0 - float(_off_diagonal(cosine_gram(second)).mean())
    reasons["expert_routing_expression_alignment"] = ONE_SET
    if expressions is not None:
        second = _check_aligned("expressions", expressions, len(rows), rows.shape[1])[:real]
        why = missing or _why_not(second)
        reasons["expert_routing_expression_alignment"] = why or ""
        if why is None:
            cosines = (_at_length_one(rows[:real]) * _at_length_one(second)).sum(axis=1)
            values["expert_routing_expression_alignment"] = float(cosines.mean())
    return VectorMetrics(values, {name: reasons[name] for name in VECTOR_METRICS if values[name] is None})


def vector_table(
    vectors: npt.NDArray[Any],
    *,
    n_experts: npt.ArrayLike,
    layers: Sequence[int] | npt.NDArray[np.integer[Any]] | None = None,
    outputs: npt.NDArray[Any] | None = None,
) -> pl.DataFrame:
    """Compute `vector_metrics` of every layer.

    Parameters
    ----------
    vectors : ndarray of float [L, E, d]
        As a dump holds them, a memory map or not; a layer at a time is read.
    n_experts : array-like of int [L]
        Experts of each layer, without passive ones; rows past them are not looked at.
    layers : sequence of int [L], optional
        The layers' numbers; 0..L-1 when not given.
    outputs : ndarray of float [L, E, d'], optional
        The experts' mean outputs.

    Returns
    -------
    polars.DataFrame
        A row a layer: ``layer``, the metrics of `VECTOR_METRICS` as Float64, and ``no_vectors``, the reason why the
        layer has none of those that need vectors, else null.

    Raises
    ------
    ShapeError, DtypeError
        An array is something else, or they do not fit each other.

    Examples
    --------
    >>> import numpy as np
    >>> table = vector_table(np.array([[[1.0, 0], [3, 4]], [[np.nan, np.nan]] * 2]), n_experts=[2, 2])
    >>> table.select("layer", "expert_similarity_mean", "no_vectors").rows()
    [(0, 0.6, None), (1, None, 'the router has no expert vectors')]
    """
    import polars as pl

    counts = np.asarray(n_experts)
    if vectors.ndim != 3 or counts.shape != vectors.shape[:1]:
        raise ShapeError(
            f"vectors: shape {vectors.shape} with n_experts {counts.shape}; accepted: [L, E, d] with one for each layer"
        )
    if counts.size and (counts.min() < 1 or counts.max() > vectors.shape[1]):
        raise ShapeError(f"vectors: {vectors.shape[1]} a layer for {counts.tolist()} experts; accepted: one for each")
    numbers = range(len(counts)) if layers is None else layers
    found = [
        vector_metrics(vectors[i, :n], outputs=None if outputs is None else outputs[i, :n])
        for i, n in enumerate(counts.tolist())
    ]
    # The Frobenius norm is there whenever vectors are.
    why = [None if of.values["gram_frobenius_norm"] is not None else of.reasons["gram_frobenius_norm"] for of in found]
    return pl.DataFrame(
        {
            "layer": np.asarray(numbers, dtype=np.int64),
            **{name: pl.Series([of.values[name] for of in found], dtype=pl.Float64) for name in VECTOR_METRICS},
            "no_vectors": pl.Series(why, dtype=pl.String),
        }
    )


def _add_gram(values: dict[str, float | None], rows: Float64Array) -> None:
    n = len(rows)
    gram = cosine_gram(rows)
    values["gram_diagonal_quality"] = float(gram.diagonal().mean())
    values["gram_frobenius_norm"] = float(np.linalg.norm(gram))
    eigenvalues = np.linalg.eigvalsh(gram)
    least, most = float(eigenvalues[0]), float(eigenvalues[-1])
    values["gram_condition_number"] = most / least if least > _LEAST_EIGENVALUE else math.inf
    if n == 1:
        return
    cosines = _off_diagonal(gram)
    mean = float(cosines.mean())
    values["expert_similarity_mean"] = mean
    values["expert_similarity_std"] = float(cosines.std(ddof=1))
    values["expert_diversity_score"] = 1.0 - mean
    values["expert_specialization_strength"] = float(cosines.var(ddof=1))
    values["gram_matrix_orthogonality"] = 1.0 - float(np.linalg.norm(gram - np.eye(n))) / math.sqrt(n * (n - 1))
    values["gram_off_diagonal_sparsity"] = 1.0 - float(np.abs(cosines).mean())


def _off_diagonal(square: Float64Array) -> Float64Array:
    found: Float64Array = square[~np.eye(len(square), dtype=np.bool_)]
    return found


def _at_length_one(rows: Float64Array) -> Float64Array:
    """Divide rows by their length; those of zeros stay."""
    # By the largest number first: squares of very large or small ones are not numbers any more.
    largest = np.abs(rows).max(axis=1, keepdims=True)
    scaled = rows / np.where(largest > 0, largest, 1.0)
    length = np.sqrt((scaled * scaled).sum(axis=1, keepdims=True))
    unit: Float64Array = scaled / np.where(length > 0, length, 1.0)
    return unit


def _why_not(rows: Float64Array) -> str | None:
    """Say why vectors cannot be used, if so."""
    finite = np.isfinite(rows).all(axis=1)
    if finite.all():
        return None
    if np.isnan(rows).all():
        return NO_VECTORS
    return f"the vector of expert {int(np.argmin(finite))} is not finite"


def _check_vectors(name: str, array: npt.ArrayLike) -> Float64Array:
    try:
        found = np.asarray(array)
    except ValueError:
        raise ShapeError(f"{name}: rows of different lengths; accepted: [E, d]") from None
    if found.dtype.kind not in "fiu":
        raise DtypeError(f"{name}: dtype {found.dtype}; accepted: real numbers")
    if found.ndim != 2 or 0 in found.shape:
        raise ShapeError(f"{name}: shape {found.shape}; accepted: [E, d], of at least 1 expert and 1 number")
    return np.asarray(found, dtype=np.float64)


def _check_aligned(name: str, array: npt.ArrayLike, n_experts: int, length: int | None = None) -> Float64Array:
    found = _check_vectors(name, array)
    if len(found) != n_experts or (length is not None and found.shape[1] != length):
        wanted = f"({n_experts}, {'d' if length is None else length})"
        raise ShapeError(f"{name}: shape {found.shape}; accepted: {wanted}, as vectors has it")
    return found
