"""Routing consistency: how alike two checkpoints route the same tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from moefps._progress import progress_callback
from moefps.errors import ArgumentError
from moefps.io import take_dump
from moefps.metrics.arguments import check_layers, check_resampling
from moefps.metrics.consistency_measures import METRICS
from moefps.metrics.consistency_reading import DumpPair
from moefps.metrics.consistency_tables import find_intervals, layer_table, sample_table, summary_table
from moefps.metrics.grouping import find_groups
from moefps.metrics.same_tokens import check_same_layers, check_same_tokens

if TYPE_CHECKING:
    from moefps._typing import PathLike, Progress
    from moefps.io import Dump

__all__ = ["METRICS", "RoutingConsistency", "routing_consistency"]

_SHOWN = 12


@dataclass(frozen=True, eq=False, repr=False)
class RoutingConsistency:
    """How alike two dumps of the same tokens are.

    Every table has a first column ``group`` more where ``by=`` was given.

    Attributes
    ----------
    layers : polars.DataFrame
        A row a layer and metric: ``layer``, ``metric``, ``value``, ``reason`` (why there is no value), ``chance`` (the
        value of two independent uniform choices of k of E), ``target``, ``threshold``, ``met``, ``tokens`` (compared
        in that layer), ``lo``, ``hi`` (the bootstrap interval), ``reason_ci`` (why there is none).
    summary : polars.DataFrame
        A row a metric: ``metric``, ``n_layers`` (layers with a value), ``n_null`` (without), ``mean``, ``min``,
        ``max``, ``std``, ``p5``, ``p25``, ``p50``, ``p75``, ``p95`` over layers, ``better``, ``chance``, ``target``,
        ``threshold``, ``met`` (whether the mean over layers meets it), ``n_missed`` (layers that miss it), ``reason``,
        ``lo``, ``hi`` (of the mean), ``reason_ci``.
    samples : polars.DataFrame
        A row a sample (of each group that it has tokens of): ``sample``, a column for each metric, the mean over the
        layers that have a value in that sample, and the samples' own columns in the first dump.
    about : dict
        What was compared and how.
    """

    layers: pl.DataFrame
    summary: pl.DataFrame
    samples: pl.DataFrame
    about: Mapping[str, Any]

    @property
    def met(self) -> bool:
        """Whether the mean over layers of routing_consistency meets its target, in every group; not without a value."""
        return bool(self.summary.filter(pl.col("metric") == METRICS[0].name)["met"].fill_null(value=False).all())

    def value(self, metric: str = "routing_consistency", *, layer: int | None = None, group: Any = None) -> Any:
        """Give one value: of a layer, or the mean over layers.

        Parameters
        ----------
        metric : str
            routing_consistency, exact_match, top1_match, jaccard, tv or js.
        layer : int, optional
            Of this layer; the mean over layers when not given.
        group : optional
            Of this group; needed where there are groups.

        Returns
        -------
        float or None
            None where it is not defined.

        Raises
        ------
        ArgumentError
            There is no such metric, layer or group.
        """
        frame = self.summary if layer is None else self.layers
        for name, wanted in (("metric", metric), ("layer", layer), ("group", group)):
            if name in frame.columns:
                there = frame[name].unique(maintain_order=True).to_list()
                if wanted not in there:
                    raise ArgumentError(f"{name}: {wanted!r}; accepted: {', '.join(map(str, there))}")
                frame = frame.filter(pl.col(name) == wanted)
            elif wanted is not None:
                raise ArgumentError(f"{name}: {wanted!r}, but there are no groups here; accepted: None")
        return frame["mean" if layer is None else "value"][0]

    def __repr__(self) -> str:
        about = self.about
        sizes = ", ".join(f"{about[f'n_{noun}']:,} {noun}" for noun in ("samples", "tokens", "layers"))
        lines = [f"RoutingConsistency of {about['a']} and {about['b']}: {sizes}"]
        shown = self.summary.filter(pl.col("mean").is_not_null())
        if "group" in shown.columns:
            shown = shown.filter(pl.col("metric") == METRICS[0].name)
            lines.append(f"{METRICS[0].name} by {about['by']}")
        for row in shown.head(_SHOWN).iter_rows(named=True):
            interval = "" if row["lo"] is None else f"  [{row['lo']:.4f}, {row['hi']:.4f}]"
            sign = {True: "  ✓", False: "  ✗", None: ""}[row["met"]]
            lines.append(f"  {row.get('group', row['metric']):<22}{row['mean']:>8.4f}{interval}{sign}")
        if shown.height > _SHOWN:
            lines.append(f"  and {shown.height - _SHOWN:,} more")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Show the summary in a notebook."""
        import html

        names = ("group", "metric", "mean", "lo", "hi", "min", "max", "chance", "target", "met")
        shown = self.summary.select(name for name in names if name in self.summary.columns)
        return f"<p>{html.escape(repr(self).splitlines()[0])}</p>{shown._repr_html_()}"

    def tables(self) -> dict[str, pl.DataFrame]:
        """Give every table by its name."""
        return {"layers": self.layers, "summary": self.summary, "samples": self.samples}


def routing_consistency(
    a: Dump | PathLike,
    b: Dump | PathLike,
    *,
    by: str | None = None,
    layers: Sequence[int] | int | None = None,
    ci: float | None = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
    n_threads: int | None = None,
    progress: Progress = False,
) -> RoutingConsistency:
    """Say how alike two dumps of the same tokens are: two checkpoints, two precisions, two quantisations.

    Both traces are read once, in order, from memory-mapped files, and may be larger than memory. That the dumps are of
    the same tokens is checked token by token. Exchanging the dumps changes nothing.

    Parameters
    ----------
    a, b : Dump or path
        The dumps: of the same samples and tokens, and of models with as many layers, experts and slots.
    by : str, optional
        A column of the first dump's samples, or else of its tokens: all is repeated for each of its values.
    layers : sequence of int, optional
        Which layers, 0..L-1; all when not given.
    ci : float or None
        Level of the bootstrap intervals over samples; None for none.
    n_resamples, seed : int
        Of the bootstrap.
    n_threads : int, optional
        All cores by default. The result does not depend on it.
    progress : bool or callable
        True shows a bar on stderr; a callable gets ``(done, total)``.

    Returns
    -------
    RoutingConsistency
        Means over the tokens that have a filled slot in both dumps, layer by layer, and over layers. Slots that are
        empty or on passive experts hold no expert: where there are such, routing_consistency stays below 1 even for
        equal choices, as it is divided by all k slots, and jaccard does not.

    Raises
    ------
    DumpError
        The dumps are of other samples, tokens or layers: the first difference is named.
    DataError
        A value of a dump is not accepted.
    ArgumentError
        Another argument is not accepted.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib, polars as pl
    >>> from moefps import routing_consistency, write_dump
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> tokens = {"token_id": [5, 6, 7]}
    >>> ids_a, ids_b = np.array([[[0, 1]], [[2, 3]], [[1, 3]]]), np.array([[[1, 0]], [[2, 0]], [[1, 3]]])
    >>> a = write_dump(folder / "a", expert_ids=ids_a, offsets=[0, 2, 3], n_experts=4, tokens=tokens)
    >>> b = write_dump(folder / "b", expert_ids=ids_b, offsets=[0, 2, 3], n_experts=4, tokens=tokens)
    >>> found = routing_consistency(a, b)
    >>> round(found.value(), 4), found.met
    (0.8333, False)
    >>> found.samples["exact_match"].to_list()
    [0.5, 1.0]
    """
    how = check_resampling(ci, n_resamples, seed)
    one, other = take_dump(a, "a"), take_dump(b, "b")
    check_same_layers(one, other)
    chosen = check_layers(one, layers)
    groups = None if by is None else find_groups(one, by)
    is_checked = check_same_tokens(one, other)
    pair = DumpPair(one, other, chosen, groups, resample=how is not None)
    with progress_callback(progress, "comparing") as callback:
        sums, means = pair.read(n_threads, callback)
    intervals = find_intervals(sums, how)
    frame = layer_table(pair, sums, intervals)
    about = {
        "a": str(one.path),
        "b": str(other.path),
        "n_samples": one.n_samples,
        "n_tokens": one.n_tokens,
        "n_layers": len(chosen),
        "by": by,
        "token_ids_compared": is_checked,
        "tokens_without_group": 0 if groups is None else groups.n_without,
        "lost_slots": pair.lost_slots,
        "ci": None if how is None else {**how._asdict(), "samples_per_unit": pair.cells.samples_per_unit},
    }
    summary = summary_table(pair, frame, sums, intervals)
    return RoutingConsistency(frame, summary, sample_table(pair, means), about)
