"""What people know from SPECTRA's evaluation code: its analyzer, and its numbers for a whole dump.

A script changes its import:

>>> from moefps.compat.spectra import SPECTRAAnalyzer

The original's names often stand for something else than the literature means by them; `moefps.routing_metrics` has the
literature's definitions, and ``convention="spectra"`` the numbers of here.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from moefps._typing import PathLike, Progress
from moefps.compat._spectra_dump import spectra_directions, spectra_tables
from moefps.compat._spectra_step import cosine_values, expression_values, routing_values, similarity_values
from moefps.compat._spectra_vectors import check_numbers, describe_gram, measure_vectors, output_diversity
from moefps.errors import ArgumentError, ShapeError
from moefps.io.atomic import atomic_file
from moefps.metrics.batch import as_numpy, check_ids, check_weights, is_tensor
from moefps.metrics.routing import routing_metrics

if TYPE_CHECKING:
    import polars as pl

    from moefps.io import Dump

__all__ = ["SPECTRAAnalyzer", "spectra_directions", "spectra_tables", "spectra_values"]

# What each history keeps of a step.
HISTORIES = {
    "gram_matrix_history": "gram_matrix_orthogonality",
    "speciality_penalty_history": "speciality_penalty",
    "cosine_similarity_history": "cosine_similarity_mean",
    "load_balancing_coefficient_history": "load_balancing_coefficient",
    "expert_token_counts_history": "expert_token_counts",
    "expert_utilization_rate_history": "expert_utilization_rate",
    "maxvio_history": "maxvio",
    "aux_loss_history": "aux_loss",
    "lpr_history": "lpr",
    "expert_efficiency_history": "expert_efficiency",
    "expert_capacity_utilization_history": "expert_capacity_utilization",
    "load_variance_history": "load_variance",
    "load_imbalance_ratio_history": "load_imbalance_ratio",
    "expert_diversity_score_history": "expert_diversity_score",
    "expert_similarity_mean_history": "expert_similarity_mean",
    "expert_specialization_strength_history": "expert_specialization_strength",
    "expert_overlap_history": "expert_overlap_mean",
    "gini_coefficient_history": "gini_coefficient",
    "min_max_expert_load_ratio_history": "min_max_expert_load_ratio",
    "routing_confidence_history": "routing_confidence",
}
# What is aggregated: the key's end, its history, and how.
AGGREGATED = (
    ("gram_orthogonality", "gram_matrix_history", ("avg", "std")),
    ("speciality_penalty", "speciality_penalty_history", ("avg",)),
    ("cosine_similarity", "cosine_similarity_history", ("avg",)),
    ("load_balancing_coefficient", "load_balancing_coefficient_history", ("avg", "std", "final")),
    ("expert_token_counts", "expert_token_counts_history", ("avg", "std", "final")),
    ("load_balancing_cv", "load_balancing_coefficient_history", ("final",)),
    ("load_imbalance_ratio", "load_imbalance_ratio_history", ("final",)),
    ("maxvio", "maxvio_history", ("avg", "max", "final")),
    ("aux_loss", "aux_loss_history", ("avg", "final")),
    ("lpr", "lpr_history", ("avg", "final")),
    ("expert_efficiency", "expert_efficiency_history", ("avg", "final")),
    ("expert_capacity_utilization", "expert_capacity_utilization_history", ("avg",)),
    ("load_variance", "load_variance_history", ("avg",)),
    ("expert_utilization_rate", "expert_utilization_rate_history", ("avg", "final")),
    ("expert_diversity_score", "expert_diversity_score_history", ("avg", "final")),
    ("expert_similarity_mean", "expert_similarity_mean_history", ("avg", "final")),
    ("expert_specialization_strength", "expert_specialization_strength_history", ("avg", "final")),
    ("expert_overlap", "expert_overlap_history", ("avg", "final", "min", "max")),
    ("gini_coefficient", "gini_coefficient_history", ("avg", "final", "min", "max")),
    ("min_max_expert_load_ratio", "min_max_expert_load_ratio_history", ("avg", "final", "min", "max")),
)
KINDS: dict[str, Callable[[Any], Any]] = {
    "avg": lambda steps: steps.mean(axis=0),
    "std": lambda steps: steps.std(axis=0),
    "min": lambda steps: steps.min(axis=0),
    "max": lambda steps: steps.max(axis=0),
    "final": lambda steps: steps[-1],
}


class SPECTRAAnalyzer:
    """SPECTRA's analyzer: all its keys, in its own numbers.

    Parameters
    ----------
    num_experts : int
        E.
    router_dim : int
        Kept, and used for nothing, as in the original.
    capacity_factor : float
        For the capacity metrics.

    Attributes
    ----------
    gram_matrix_history, load_balancing_coefficient_history, … : list
        A value a step, as in the original.

    Examples
    --------
    Two tokens, the first sent to experts 0 and 1, the second to 0 and 2:

    >>> import numpy as np
    >>> analyzer = SPECTRAAnalyzer(num_experts=4)
    >>> vectors = np.tile(np.eye(4), (2, 1, 1))
    >>> step = analyzer.analyze_routing_step(
    ...     routing_logits=vectors,
    ...     expression_logits=vectors,
    ...     selected_experts=np.array([[0, 1], [0, 2]]),
    ...     routing_weights=np.array([[0.75, 0.25], [0.5, 0.5]], dtype=np.float32),
    ...     speciality_penalty=0.0,
    ...     cosine_similarities=np.zeros((1, 2, 4)),
    ...     expression_loss=0.0,
    ... )
    >>> step["expert_token_counts"], round(step["gini_coefficient"], 3), step["maxvio"]
    ([2.0, 1.0, 1.0, 0.0], 0.125, 1.0)
    >>> round(analyzer.get_aggregated_metrics()["final_gini_coefficient"], 3)
    0.125
    """

    def __init__(self, num_experts: int, router_dim: int = 128, capacity_factor: float = 1.25) -> None:
        try:
            self.num_experts = operator.index(num_experts)
        except TypeError:
            raise ArgumentError(f"num_experts: {num_experts!r}; accepted: an integer >= 1") from None
        if self.num_experts < 1:
            raise ArgumentError(f"num_experts: {num_experts}; accepted: an integer >= 1")
        self.router_dim = router_dim
        self.capacity_factor = _number("capacity_factor", capacity_factor)
        if not 0 < self.capacity_factor < math.inf:
            raise ArgumentError(f"capacity_factor: {capacity_factor}; accepted: a finite number > 0")
        self.reset()

    def reset(self) -> None:
        """Forget all steps."""
        for history in HISTORIES:
            setattr(self, history, [])

    def analyze_routing_step(
        self,
        routing_logits: Any,
        expression_logits: Any,
        selected_experts: Any,
        routing_weights: Any,
        speciality_penalty: float,
        cosine_similarities: Any,
        expression_loss: float,
        expert_outputs: Any = None,
        hidden_states: Any = None,
    ) -> dict[str, Any]:
        """Compute the numbers of one step, and remember those that are aggregated over steps.

        Arrays are of numpy or torch, on any device. T is B·S, flat over batch and sequence.

        Parameters
        ----------
        routing_logits, expression_logits : array [T, E, d] or [B, S, E, d]
            Two vectors for each token and expert; `expression_logits` may be [E, d].
        selected_experts : array of integers [T, k]
            The chosen experts; empty slots are refused.
        routing_weights : array of floats [T, k]
            Their weights.
        speciality_penalty, expression_loss : float
            Passed through.
        cosine_similarities : array [B, S, E]
            Of each token and expert.
        expert_outputs : dict of int to array [n, d], optional
            What each expert gave for its tokens: with it there is ``expert_output_diversity``.
        hidden_states : array, optional
            Not looked at: the original adds nothing for it that is not there anyway.

        Returns
        -------
        dict
            Floats, integers, lists of them and one string, under the original's keys. ``expert_output_diversity``
            only with two experts' outputs; ``sequential_routing_consistency``, ``top_k_overlap``,
            ``routing_locality`` and ``expert_reuse_rate`` only for two tokens or more. What is not defined for one
            expert or one slot is NaN or infinite, as in the original.

        Raises
        ------
        ShapeError, DtypeError, ArgumentError
            An argument is not accepted.
        DataError
            An id is no expert's, a weight is NaN, infinite or negative, or a vector's mean is not finite.
        """
        n_experts = self.num_experts
        ids, weights = self._choices(selected_experts, routing_weights)
        cosines = as_numpy("cosine_similarities", cosine_similarities)
        if cosines.ndim != 3 or cosines.shape[-1] != n_experts or 0 in cosines.shape:
            raise ShapeError(f"cosine_similarities: shape {cosines.shape}; accepted: [B, S, {n_experts}]")
        check_numbers("cosine_similarities", cosines)
        routing = measure_vectors("routing_logits", routing_logits, n_experts, flat=False)
        expression = measure_vectors("expression_logits", expression_logits, n_experts, flat=True)
        if routing.rows.shape != expression.rows.shape:
            raise ShapeError(
                f"expression_logits: vectors of {expression.rows.shape[1]} numbers; accepted: "
                f"{routing.rows.shape[1]}, as in routing_logits"
            )
        step: dict[str, Any] = describe_gram(routing)
        step |= similarity_values(routing)
        step |= expression_values(routing, expression)
        step |= cosine_values(cosines, ids)
        step["speciality_penalty"] = _number("speciality_penalty", speciality_penalty)
        step["expression_loss"] = _number("expression_loss", expression_loss)
        if expert_outputs is not None:
            diversity = output_diversity(expert_outputs)
            step |= {} if diversity is None else {"expert_output_diversity": diversity}
        step |= routing_values(ids, weights, n_experts=n_experts, factor=self.capacity_factor)
        for history, key in HISTORIES.items():
            value = step[key]
            getattr(self, history).append(list(value) if isinstance(value, list) else value)
        return step

    def _choices(self, selected_experts: Any, routing_weights: Any) -> tuple[Any, Any]:
        ids = as_numpy("selected_experts", selected_experts)
        weights = as_numpy("routing_weights", routing_weights)
        if ids.ndim != 2 or 0 in ids.shape:
            raise ShapeError(
                f"selected_experts: shape {ids.shape}; accepted: [T, k], flat over batch and sequence, of at least 1 "
                "token and 1 slot"
            )
        check_ids("selected_experts", ids, self.num_experts, least=0)
        check_weights("routing_weights", weights, ids)
        # The original computes in float32, and in float64 where it is given that.
        return ids.astype(np.int64), weights.astype(np.float64 if weights.dtype == np.float64 else np.float32)

    def get_aggregated_metrics(self) -> dict[str, Any]:
        """Aggregate over steps.

        Returns
        -------
        dict
            ``avg_…``, ``std_…`` (ddof=0), ``min_…``, ``max_…`` and ``final_…`` (the last step's), as the original has
            them; empty before the first step. Those of expert_token_counts are lists, a value an expert.
        """
        found: dict[str, Any] = {}
        for name, history, kinds in AGGREGATED:
            steps = np.array(getattr(self, history), dtype=np.float64)
            if not len(steps):
                return {}
            for kind in kinds:
                found[f"{kind}_{name}"] = KINDS[kind](steps).tolist()
        return found

    def get_paper_metrics_summary(self) -> dict[str, dict[str, Any]]:
        """Give the numbers of the paper's tables.

        Returns
        -------
        dict of dict
            ``load_balancing``, ``expert_specialization``, ``gram_matrix_quality`` and ``routing_quality``; empty before
            the first step. Entries that the original leaves None are the last step's, and the mean over steps for
            ``routing_confidence``.
        """
        found = self.get_aggregated_metrics()
        if not found:
            return {}
        return {
            "load_balancing": {
                "coefficient_of_variation": found["final_load_balancing_cv"],
                "load_imbalance_ratio": found["final_load_imbalance_ratio"],
                "expert_utilization_rate": found["final_expert_utilization_rate"],
                "expert_token_distribution": found["final_expert_token_counts"],
                "gini_coefficient": found["final_gini_coefficient"],
                "min_max_expert_load_ratio": found["final_min_max_expert_load_ratio"],
            },
            "expert_specialization": {
                "expert_diversity_score": found["final_expert_diversity_score"],
                "expert_similarity_mean": found["final_expert_similarity_mean"],
                "expert_specialization_strength": found["final_expert_specialization_strength"],
                "expert_overlap_mean": found["final_expert_overlap"],
            },
            "gram_matrix_quality": {
                "orthogonality": found["avg_gram_orthogonality"],
                "orthogonality_std": found["std_gram_orthogonality"],
            },
            "routing_quality": {
                "routing_confidence": float(np.mean(self._history("routing_confidence_history"))),
                "cosine_similarity_mean": found["avg_cosine_similarity"],
            },
        }

    def save_analysis(self, filepath: PathLike) -> None:
        """Write the aggregate and the histories to a JSON file.

        Parameters
        ----------
        filepath : path
            Where; a file that is there is replaced, as in the original.

        Raises
        ------
        FileError
            It cannot be written.
        """
        histories = {history: self._history(history) for history in HISTORIES}
        analysis = {"aggregated_metrics": self.get_aggregated_metrics(), **histories}
        # JSON has no word for what is not finite.
        text = json.dumps(_finite(analysis), indent=2, allow_nan=False)
        with atomic_file(filepath, overwrite=True) as file:
            file.write(text.encode() + b"\n")

    def _history(self, name: str) -> list[Any]:
        history: list[Any] = getattr(self, name)
        return history


def _number(name: str, value: Any) -> float:
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        return float(value.detach() if is_tensor(value) else value)
    except (TypeError, ValueError, RuntimeError):
        raise ArgumentError(f"{name}: {value!r}; accepted: a number") from None


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def spectra_values(
    dump: Dump,
    *,
    layers: Sequence[int] | int | None = None,
    by: str | None = None,
    capacity_factor: float = 1.25,
    n_threads: int | None = None,
    progress: Progress = False,
) -> pl.DataFrame:
    """Give every metric of a dump, in SPECTRA's numbers where it has its own.

    Parameters
    ----------
    dump : Dump
        A dump without empty slots.
    layers, by, capacity_factor, n_threads, progress
        As `moefps.routing_metrics` takes them.

    Returns
    -------
    polars.DataFrame
        A row a layer and metric: ``layer``, ``metric``, ``value``, ``reason`` (why there is no value); with `by`, a
        first column ``group``. All samples, or all tokens of a group, are one sequence.

    Raises
    ------
    DataError
        A slot is empty or on a passive expert.
    MoefpsError
        As `moefps.routing_metrics`.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> import moefps
    >>> ids = np.array([[[0, 1]], [[2, 3]]])
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "dump"
    >>> dump = moefps.write_dump(path, expert_ids=ids, offsets=[0, 2], n_experts=4)
    >>> values = dict(spectra_values(dump).select("metric", "value").rows())
    >>> round(values["gini_coefficient"], 6), values["load_imbalance_ratio"]
    (-0.25, 1.0)
    """
    found = routing_metrics(
        dump,
        convention="spectra",
        layers=layers,
        by=by,
        capacity_factor=capacity_factor,
        n_threads=n_threads,
        progress=progress,
    ).layers
    return found.select(*(["group"] if by is not None else []), "layer", "metric", "value", "reason")
