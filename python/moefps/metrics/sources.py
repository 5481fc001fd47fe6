"""Where metrics come from: a dump that is read once, or fingerprints; and what each of them is without."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from moefps.kernels import check_fingerprints, check_layer_numbers
from moefps.metrics.arguments import check_layers
from moefps.metrics.assembly import Request, Uncertainty, assemble, interval_metrics
from moefps.metrics.grouping import Cells, find_groups, make_cells
from moefps.metrics.reduction import reduce_dump, reduce_logits
from moefps.metrics.resampling import Intervals, Resampling, bootstrap
from moefps.metrics.segments import count_dump_segments, segment_columns
from moefps.metrics.shares import MISSING, shares_of_fingerprints
from moefps.metrics.sums import Sums, sums_of_counts
from moefps.metrics.vectors import vector_table
from moefps.metrics.vocabulary import token_ids_of, vocabulary_columns, vocabulary_specialization

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from moefps._typing import Progress
    from moefps.io import Dump
    from moefps.kernels.counting import Coactivation
    from moefps.metrics.result import RoutingMetrics

__all__ = ["OTHER_CONVENTIONS", "DumpReader", "measure_fingerprints", "vector_columns", "without"]

MOST_PAIRS = 1 << 26
"""Counters of pairs of experts, at most."""
MOST_PAIRS_OF_UNITS = 1 << 25
"""The same for all units of a bootstrap together, which are copied as float64."""

_ONE_SAMPLE = "one sample: there is nothing to resample"

OTHER_CONVENTIONS = {"spectra": "moefps.compat.spectra"}
"""Where the values of other conventions are computed, by a function ``<convention>_tables``; a mapping
``<convention>_directions`` says which way is better where that differs."""


class DumpReader:
    """A dump, and what is to be read from it.

    Parameters
    ----------
    dump : Dump
        The dump.
    request : Request
        What is wanted.
    layers : sequence of int, optional
        Which layers; all when not given.
    by : str, optional
        A column whose values are groups.
    n_threads, progress
        As `routing_metrics` takes them.
    """

    def __init__(
        self,
        dump: Dump,
        request: Request,
        layers: Sequence[int] | int | None,
        by: str | None,
        *,
        n_threads: int | None = None,
        progress: Progress = False,
    ) -> None:
        self.dump, self.request = dump, request
        self.layers = check_layers(dump, layers)
        self.groups = None if by is None else find_groups(dump, by)
        self.options: dict[str, Any] = {"n_threads": n_threads, "progress": progress}
        self.widest = max(dump.layers[i].n_experts - dump.layers[i].passive_experts for i in self.layers.tolist())
        self.n_groups = 1 if self.groups is None else len(self.groups.values)
        self.pairs_of_a_cell = len(self.layers) * self.widest**2
        self.extras = {"windows": False, "token_ids": False}

    def measure(self, how: Resampling | None, convention: str, about: Mapping[str, Any]) -> RoutingMetrics:
        """Read the dump and compute all that is wanted.

        Parameters
        ----------
        how : Resampling or None
            How to resample, if at all.
        convention : str
            ``literature``, or one of `OTHER_CONVENTIONS`, whose values are then taken where it has them.
        about : mapping
            What to say of the result beside what the dump says.
        """
        cells = make_cells(self.dump, self.groups, resample=how is not None, counters=len(self.layers) * self.widest)
        units, pairs = self.count(cells, resample=how is not None)
        sums = units.total(cells.group, self.n_groups)
        if pairs is not None:
            sums = sums.with_coactivation(pairs)
        missing = self.missing(sums)
        said = {**self.about(), **about}
        if "pairs" in missing:
            said["no_pairs"] = missing["pairs"]
        replaced, directions = None, None
        if convention != "literature":
            replaced = self.values_of(convention)
            directions = getattr(importlib.import_module(OTHER_CONVENTIONS[convention]), f"{convention}_directions")
        others = [] if replaced is None else replaced["metric"].unique().to_list()
        uncertainty = None
        if how is not None:
            uncertainty = self.resample(units, cells, how, missing, others)
            said["ci"] = _say_resampling(how, cells, uncertainty, self.request)
        return assemble(
            sums,
            self.request,
            groups=None if self.groups is None else self.groups.values,
            descriptors=self.descriptors(),
            columns=self.columns(sums),
            missing=missing,
            uncertainty=uncertainty,
            replaced=replaced,
            directions=directions,
            about=said,
        )

    def count(self, cells: Cells, *, resample: bool) -> tuple[Sums, npt.NDArray[Any] | None]:
        """Count every cell, and pairs of experts of each group where they are not counted by cell."""
        wanted = self.request.needs("pairs")
        whole = wanted and self.n_groups * self.pairs_of_a_cell <= MOST_PAIRS
        most = MOST_PAIRS_OF_UNITS if resample else MOST_PAIRS
        by_cell = cells.codes is not None and whole and cells.n_cells * self.pairs_of_a_cell <= most
        mode: Coactivation = "groups" if by_cell else "whole" if whole and self.groups is None else "none"
        counts = reduce_dump(self.dump, self.layers, cells, coactivation=mode, **self.options)
        logit_sums = None
        if self.request.needs("logits"):
            logit_sums = reduce_logits(self.dump, self.layers, cells, **self.options)
        sums = sums_of_counts(counts, logit_sums, self.layers)
        if by_cell or not whole:
            return sums, None
        if self.groups is None:
            assert counts.coactivation is not None  # noqa: S101 (for the type checker)
            return sums.with_coactivation(None), counts.coactivation[np.newaxis]
        # By group and resampled, the cells are too many for pairs: the groups are counted once more for them.
        coarse = make_cells(self.dump, self.groups, resample=False, counters=1)
        pairs = reduce_dump(self.dump, self.layers, coarse, coactivation="groups", **self.options).coactivation
        return sums, pairs

    def resample(
        self, units: Sums, cells: Cells, how: Resampling, missing: Mapping[str, str], others: Sequence[str]
    ) -> Uncertainty:
        """Give intervals for each group, of all metrics but those of other conventions."""
        reasons = {}
        if units.coactivation is None and "pairs" not in missing:
            counters = cells.n_cells * self.pairs_of_a_cell
            reasons["pairs"] = (
                f"pairs of experts are not counted by sample: {counters:,} counters; up to {MOST_PAIRS_OF_UNITS:,} are"
            )
        of_metrics = dict.fromkeys(others, "intervals are of the convention literature")
        metrics = interval_metrics(self.request, Uncertainty(None, {**missing, **reasons}, metrics=of_metrics))
        found, alone = [], {}
        for place in range(self.n_groups):
            picked = np.flatnonzero(cells.group == place)
            value = None if self.groups is None else self.groups.values[place]
            if len(picked) < 2:
                alone[value] = _ONE_SAMPLE
                continue
            factor = self.request.capacity_factor
            intervals = bootstrap(units.pick(picked), metrics, how, capacity_factor=factor, missing=missing)
            if self.groups is not None:
                group = pl.lit(value, dtype=self.groups.values.dtype).alias("group")
                intervals = Intervals(*(frame.with_columns(group) for frame in intervals))
            found.append(intervals)
        if not found:
            return Uncertainty(None, {"": _ONE_SAMPLE})
        whole = Intervals(*(pl.concat(frames) for frames in zip(*found, strict=True)))
        return Uncertainty(whole, reasons, alone, of_metrics)

    def values_of(self, convention: str) -> pl.DataFrame:
        """Compute the values of another convention: the keys, ``metric``, ``value``, ``reason``."""
        module = importlib.import_module(OTHER_CONVENTIONS[convention])
        cells = make_cells(self.dump, self.groups, resample=False, counters=1)
        values: pl.DataFrame = getattr(module, f"{convention}_tables")(
            self.dump,
            layers=self.layers,
            groups=cells.codes,
            n_groups=self.n_groups,
            capacity_factor=self.request.capacity_factor,
            **self.options,
        )
        if self.groups is not None:
            values = values.with_columns(self.groups.values[values["group"].to_numpy()].alias("group"))
        return values

    def missing(self, sums: Sums) -> dict[str, str]:
        """Say what the dump is without, that metrics need."""
        counters = self.n_groups * self.pairs_of_a_cell
        no_pairs = f"pairs of experts would take {counters:,} counters; accepted: up to {MOST_PAIRS:,}"
        if not self.request.needs("pairs"):
            no_pairs = "no metric that was asked for needs pairs of experts"
        reasons = {
            "weights": "the dump holds no weights",
            "logits": "the dump holds no router logits",
            "pairs": no_pairs,
        }
        return {
            **without(sums, reasons),
            **({} if self.dump.router_vectors is not None else {"vectors": "the dump holds no router vectors"}),
            **self.missing_extras(),
            "outputs": "the outputs of experts are not captured",
            "batches": "a dump knows no batches",
        }

    def missing_extras(self) -> dict[str, str]:
        """Say why windows and token ids are not counted, where they are not."""
        reasons = {}
        for need, argument, counted in (
            ("windows", "segments", "windows are"),
            ("token_ids", "vocabulary", "token ids are"),
        ):
            if not self.extras[need]:
                reasons[need] = f"{counted} counted on request: {argument}=True (--{argument})"
            elif self.groups is not None:
                reasons[need] = f"{counted} counted over all tokens, not by group"
        if "token_ids" not in reasons and token_ids_of(self.dump) is None:
            reasons["token_ids"] = "the dump holds no token ids"  # noqa: S105 (no password)
        return reasons

    def extra_columns(self) -> list[pl.DataFrame]:
        """Count windows and token ids, where that is wanted and possible."""
        missing, found = self.missing_extras(), []
        if "windows" not in missing and self.request.needs("windows"):
            found.append(segment_columns(count_dump_segments(self.dump, self.layers, **self.options), self.layers))
        if "token_ids" not in missing and self.request.needs("token_ids"):
            found.append(
                vocabulary_columns(vocabulary_specialization(self.dump, layers=self.layers.tolist(), **self.options))
            )
        return found

    def columns(self, sums: Sums) -> list[pl.DataFrame]:
        """Give columns of layers that are not counted."""
        vectors = self.dump.router_vectors
        columns = [] if vectors is None else vector_columns(vectors[self.layers], sums)
        return columns + self.extra_columns()

    def descriptors(self) -> pl.DataFrame:
        """Say what the manifest knows of each layer."""
        infos = [self.dump.layers[i] for i in self.layers.tolist()]
        other = "the layer's scoring is other, which tells no distribution"
        return pl.DataFrame(
            {
                "layer": self.layers,
                "path": [info.path for info in infos],
                "model_layer": [info.layer for info in infos],
                "stack": pl.Series([info.stack for info in infos], dtype=pl.String),
                "scoring": [info.scoring for info in infos],
                "routing_type": [info.routing_type for info in infos],
                "passive_experts": [info.passive_experts for info in infos],
                "signed_weights": [info.signed_weights for info in infos],
                "no_logits": pl.Series([other if info.scoring == "other" else None for info in infos], dtype=pl.String),
            }
        )

    def about(self) -> dict[str, Any]:
        """Say what is measured."""
        dump = self.dump
        found: dict[str, Any] = {
            "source": str(dump.path),
            "n_samples": dump.n_samples,
            "n_tokens": dump.n_tokens,
            "n_layers": len(self.layers),
        }
        if self.groups is not None:
            found["by"] = self.groups.column
            found["groups"] = self.groups.values.to_list()
            found["tokens_without_group"] = self.groups.n_without
        return found


def measure_fingerprints(
    X: npt.ArrayLike,
    request: Request,
    layers: Sequence[int] | int | None,
    how: Resampling | None,
    about: dict[str, Any],
) -> RoutingMetrics:
    """Compute what fingerprints allow.

    Parameters
    ----------
    X : array of float [N, L, E]
        Fingerprints.
    request : Request
        What is wanted.
    layers : sequence of int, optional
        Which layers; all when not given.
    how : Resampling or None
        How to resample, if at all.
    about : mapping
        What to say of the result beside what is said of the fingerprints.
    """
    shape = check_fingerprints("X", X).shape
    chosen = None if layers is None else np.array(check_layer_numbers(layers, shape[1]), dtype=np.int64)
    units, per_unit = shares_of_fingerprints(X, chosen, units=how is not None)
    n_units = units.n_cells
    sums = units.total(np.zeros(n_units, dtype=np.int64), 1)
    mean = Sums(
        sums.layers,
        sums.n_experts,
        None,
        {},
        {name: array / shape[0] for name, array in sums.by_expert.items()},
    )
    missing = {
        **MISSING,
        "vectors": "fingerprints hold no router vectors",
        "outputs": "fingerprints hold no outputs of experts",
        "batches": "fingerprints know no batches",
    }
    uncertainty = None
    if how is not None and n_units < 2:
        uncertainty = Uncertainty(None, {"": _ONE_SAMPLE})
    elif how is not None:
        chosen_metrics = interval_metrics(request, Uncertainty(None, missing))
        uncertainty = Uncertainty(
            bootstrap(units, chosen_metrics, how, capacity_factor=request.capacity_factor, missing=missing), missing
        )
    about = {
        "source": f"fingerprints {list(shape)}",
        "n_samples": int(shape[0]),
        "n_layers": len(sums.layers),
        "shares": "the mean over samples, taken as the shares of assignments and of weights",
        **about,
    }
    if uncertainty is not None and how is not None:
        cells = Cells(None, n_units, np.zeros(n_units, dtype=np.int64), samples_per_unit=per_unit)
        about["ci"] = _say_resampling(how, cells, uncertainty, request)
    return assemble(mean, request, missing=missing, uncertainty=uncertainty, about=about)


def without(sums: Sums, reasons: Mapping[str, str]) -> dict[str, str]:
    """Say what sums are without."""
    absent = {
        "weights": "share_sum" not in sums.by_expert,
        "logits": "prob_sum" not in sums.by_expert,
        "neighbours": "pairs" not in sums.by_layer,
        "pairs": sums.coactivation is None,
    }
    default = {"neighbours": "neighbouring tokens were not counted", "pairs": "pairs of experts were not counted"}
    return {need: {**default, **reasons}[need] for need, is_absent in absent.items() if is_absent}


def vector_columns(vectors: npt.NDArray[Any], sums: Sums) -> list[pl.DataFrame]:
    """Give the columns that metrics of expert vectors are made of: a frame with ``layer``."""
    return [vector_table(vectors, n_experts=sums.n_experts, layers=sums.layers)]


def _say_resampling(how: Resampling, cells: Cells, uncertainty: Uncertainty, request: Request) -> dict[str, Any]:
    per_unit = cells.samples_per_unit
    kinds: dict[str, list[str]] = {}
    for metric in interval_metrics(request, uncertainty):
        kinds.setdefault(metric.interval, []).append(metric.name)
    return {
        **how._asdict(),
        "units": cells.n_cells,
        "samples_per_unit": per_unit,
        "resampled": "samples" if per_unit == 1 else f"blocks of {per_unit} consecutive samples",
        "given": uncertainty.intervals is not None,
        "kinds": kinds if uncertainty.intervals is not None else {},
    }
