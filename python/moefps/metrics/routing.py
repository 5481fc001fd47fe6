"""Routing metrics of a dump, of fingerprints, or of counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from moefps.errors import ArgumentError, DtypeError
from moefps.io import Dump, take_source
from moefps.io.dump.manifest import ROUTING_TYPES
from moefps.metrics.arguments import (
    check_batches,
    check_counts,
    check_factor,
    check_groups,
    check_mapping,
    check_resampling,
    check_texts,
)
from moefps.metrics.assembly import Request, assemble, choose_metrics
from moefps.metrics.sources import OTHER_CONVENTIONS, DumpReader, measure_fingerprints, vector_columns, without
from moefps.metrics.sums import Sums, sums_of_counts
from moefps.metrics.targets import resolve_targets

if TYPE_CHECKING:
    import numpy.typing as npt

    from moefps._typing import PathLike, Progress
    from moefps.kernels import RoutingCounts
    from moefps.metrics.result import RoutingMetrics

__all__ = ["metrics_from_counts", "routing_metrics"]


def routing_metrics(
    dump_or_X: Dump | PathLike | npt.ArrayLike,
    *,
    metrics: Sequence[str] | str | None = None,
    layers: Sequence[int] | int | None = None,
    by: str | None = None,
    targets: str | PathLike | Mapping[str, str] | None = None,
    convention: Literal["literature", "spectra"] = "literature",
    capacity_factor: float = 1.25,
    ci: float | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
    segments: bool = False,
    vocabulary: bool = False,
    n_threads: int | None = None,
    progress: Progress = False,
) -> RoutingMetrics:
    """Compute routing metrics: of every layer, and over all of them.

    The trace is read once, in order, from memory-mapped files, and may be larger than memory.

    Parameters
    ----------
    dump_or_X : Dump, path of a dump, or array of float [N, L, E]
        A dump; or fingerprints, which allow the metrics that need shares alone.
    metrics : sequence of str, optional
        Which metrics, by name; all when not given.
    layers : sequence of int, optional
        Which layers, 0..L-1; all when not given.
    by : str, optional
        A column of the dump's samples, or else of its tokens: all is repeated for each of its values. Tokens without
        a value are left out, and counted.
    targets : str, path or mapping, optional
        ``"spectra"`` for the checklist's targets, a mapping such as ``{"gini_coefficient": "< 0.05"}``, or a .toml or
        .json file with the same.
    convention : {"literature", "spectra"}
        Which definitions, where the two differ.
    capacity_factor : float
        For the capacity metrics.
    ci : float, optional
        Level of bootstrap intervals over samples, such as 0.95; none when not given. They are of what very many
        samples of the same kind would give. Means and proportions have percentile intervals; what noise pushes one way
        (unevenness, entropies of load, overlap, unused experts) has basic ones, reflected at the value, in the range of
        the metric: ``about["ci"]["kinds"]`` says which. Neither changes the value itself: where noise dominates, with
        few tokens an expert, it is still pushed, and may lie outside its own interval.
    n_resamples, seed : int
        Of the bootstrap.
    segments, vocabulary : bool
        Whether to compute the segment metrics and the vocabulary table, which take longer.
    n_threads : int, optional
        All cores by default. The result does not depend on it.
    progress : bool or callable
        True shows a bar on stderr; a callable gets ``(done, total)``.

    Returns
    -------
    RoutingMetrics

    Raises
    ------
    ArgumentError
        An argument is not accepted: among them a metric, target, layer or column that there is not.
    DataError
        A value of the dump or array is not accepted; the message says which.
    DumpError
        The dump has no layers, or says something impossible of one.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> import moefps
    >>> from moefps.metrics import routing_metrics
    >>> ids = np.array([[[0, 1]], [[0, 2]], [[0, 1]], [[0, 2]]])
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "dump"
    >>> dump = moefps.write_dump(path, expert_ids=ids, offsets=[0, 4], n_experts=4)
    >>> found = routing_metrics(dump, metrics=["gini_coefficient", "dead_experts"], targets="spectra")
    >>> found.layers.select("metric", "value", "text", "target", "met").rows()
    [('gini_coefficient', 0.375, None, '< 0.05', False), ('dead_experts', 1.0, '3', None, None)]
    """
    request = Request(choose_metrics(metrics), resolve_targets(targets), check_factor(capacity_factor))
    how = check_resampling(ci, n_resamples, seed)
    conventions = ("literature", *OTHER_CONVENTIONS)
    if convention not in conventions:
        raise ArgumentError(f"convention: {convention!r}; accepted: {', '.join(map(repr, conventions))}")
    of_groups = next((name for name, metric in request.metrics.items() if metric.level == "domain"), None)
    if metrics is not None and by is None and of_groups is not None:
        raise ArgumentError(f"metrics: {of_groups} is of groups of tokens; accepted: with by=, such as by='domain'")
    about = {"convention": convention, "capacity_factor": request.capacity_factor, "targets": _said(targets)}
    source = take_source(dump_or_X, "dump_or_X", "fingerprints [N, L, E]")
    if isinstance(source, Dump):
        reader = DumpReader(source, request, layers, by, n_threads=n_threads, progress=progress)
        reader.extras = {"windows": segments, "token_ids": vocabulary}
        return reader.measure(how, convention, about)
    if by is not None:
        raise ArgumentError("by: given with fingerprints; accepted: None, as only a dump has columns")
    if convention != "literature":
        raise ArgumentError(f"convention: {convention!r} with fingerprints; accepted: 'literature', or a dump")
    return measure_fingerprints(source, request, layers, how, about)


def metrics_from_counts(
    counts: RoutingCounts,
    *,
    logit_sums: Any = None,
    vectors: npt.NDArray[Any] | None = None,
    batch_maxvio: npt.ArrayLike | None = None,
    capacity_factor: float = 1.25,
    layer_names: Sequence[str] | None = None,
    routing_types: Sequence[str] | str | None = None,
    groups: Sequence[Any] | pl.Series | None = None,
    metrics: Sequence[str] | str | None = None,
    targets: str | PathLike | Mapping[str, str] | None = None,
    missing: Mapping[str, str] | None = None,
    about: Mapping[str, Any] | None = None,
) -> RoutingMetrics:
    """Compute routing metrics of what a trace was reduced to.

    Parameters
    ----------
    counts : RoutingCounts
        As `moefps.kernels.count_routing` gives them, or a sum of such.
    logit_sums : LogitSums, optional
        The same of the logits; without it, what needs them is null.
    vectors : ndarray of float [L, E, d], optional
        The routers' expert vectors.
    batch_maxvio : array-like of float [L], optional
        For each layer the mean of maxvio over batches, NaN where there is none; [G, L] with groups.
    capacity_factor : float
        For the capacity metrics.
    layer_names : sequence of str [L], optional
        A name of each layer, for the table of details.
    routing_types : str or sequence of str [L], optional
        ``token_choice`` or ``expert_choice``.
    groups : sequence [G], optional
        What the first axis of counts with groups stands for; 0..G-1 when not given.
    metrics : sequence of str, optional
        Which metrics; all when not given.
    targets : str, path or mapping, optional
        As `routing_metrics` takes them.
    missing : mapping of str to str, optional
        Reasons why something that metrics need is not there, for what `counts` are without, such as ``weights``.
    about : mapping, optional
        What was measured.

    Returns
    -------
    RoutingMetrics

    Raises
    ------
    ArgumentError, ShapeError
        Arguments that are not accepted, or do not fit the counts.

    Examples
    --------
    >>> import numpy as np
    >>> from moefps.kernels import count_routing
    >>> from moefps.metrics import metrics_from_counts
    >>> counts = count_routing(np.array([[[0, 1]], [[0, 2]]], dtype=np.int16), n_experts=4)
    >>> metrics_from_counts(counts).value("maxvio")
    1.0
    """
    request = Request(choose_metrics(metrics), resolve_targets(targets), check_factor(capacity_factor))
    check_counts(counts)
    sums = sums_of_counts(counts, logit_sums)
    n_layers, is_grouped = len(sums.layers), counts.passive_slots.ndim == 2
    if not is_grouped and groups is not None:
        raise ArgumentError("groups: given with counts that have none; accepted: None, or counts with groups")
    values = check_groups(groups, sums.n_cells) if is_grouped else None
    absent = {
        "batches": "batches were not counted",
        "windows": "windows of tokens were not counted",
        "token_ids": "token ids were not counted",
        "vectors": "no expert vectors were given",
        "outputs": "no outputs of experts were given",
        **without(sums, {"weights": "no weights were given", "logits": "no router logits were given"}),
    }
    reasons = check_mapping("missing", missing, of_needs=True)
    absent = {need: reasons.get(need, text) for need, text in absent.items()}
    columns = []
    if batch_maxvio is not None:
        columns.append(_batch_column(batch_maxvio, sums, values))
        del absent["batches"]
    if vectors is not None:
        columns += vector_columns(_checked_vectors(vectors), sums)
        del absent["vectors"]
    return assemble(
        sums,
        request,
        groups=values,
        descriptors=_described(n_layers, layer_names, routing_types),
        columns=columns,
        missing=absent,
        about={
            "capacity_factor": float(capacity_factor),
            "targets": _said(targets),
            "n_layers": n_layers,
            **check_mapping("about", about),
        },
    )


def _checked_vectors(vectors: Any) -> npt.NDArray[Any]:
    if not isinstance(vectors, np.ndarray):
        raise DtypeError(f"vectors: {type(vectors).__name__}; accepted: an array of float [L, E, d]")
    return vectors


def _batch_column(batch_maxvio: npt.ArrayLike, sums: Sums, groups: pl.Series | None) -> pl.DataFrame:
    n_layers = len(sums.layers)
    values = check_batches(batch_maxvio, (n_layers,) if groups is None else (len(groups), n_layers))
    keys = {} if groups is None else {"group": groups[np.repeat(np.arange(len(groups)), n_layers)]}
    column = pl.Series("batch_maxvio", values.reshape(-1)).fill_nan(None)
    return pl.DataFrame({**keys, "layer": np.tile(sums.layers, values.size // n_layers), "batch_maxvio": column})


def _described(n_layers: int, names: Sequence[str] | None, routing_types: Sequence[str] | str | None) -> pl.DataFrame:
    columns: dict[str, Any] = {"layer": np.arange(n_layers)}
    if names is not None:
        columns["path"] = pl.Series(check_texts("layer_names", names, n_layers), dtype=pl.String)
    if routing_types is not None:
        given = [routing_types] * n_layers if isinstance(routing_types, str) else routing_types
        kinds = check_texts("routing_types", given, n_layers, ROUTING_TYPES)
        columns["routing_type"] = pl.Series(kinds, dtype=pl.String)
    return pl.DataFrame(columns)


def _said(targets: Any) -> Any:
    return dict(targets) if isinstance(targets, Mapping) else None if targets is None else str(targets)
