"""Routing metrics from the folder that they were written to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from moefps.errors import FileError
from moefps.io.paths import check_path
from moefps.io.table_folders import ABOUT
from moefps.io.table_reading import find_table, read_json_object, read_table
from moefps.metrics.aggregation import PERCENTILES
from moefps.metrics.registry import METRICS
from moefps.metrics.result import PairCounts, RoutingMetrics

if TYPE_CHECKING:
    from moefps._typing import PathLike

__all__ = ["is_metrics", "open_metrics"]

_INTEGER, _NUMBER, _TEXT, _TRUTH = pl.Int64(), pl.Float64(), pl.String(), pl.Boolean()
_INTERVAL = {"lo": _NUMBER, "hi": _NUMBER, "reason_ci": _TEXT}
_JUDGED = {"chance": _NUMBER, "target": _TEXT, "threshold": _NUMBER, "met": _TRUTH, "note": _TEXT, "reason": _TEXT}
_OVER_LAYERS = ("mean", "min", "max", "std", *(f"p{p}" for p in PERCENTILES))
_COUNTED = (
    *("n_experts", "top_k", "rows", "tokens", "assignments", "passive_slots", "empty_slots"),
    *("tokens_without_shares", "tokens_without_probs", "pairs", "pairs_without_shares"),
)

_NEEDED: Mapping[str, Mapping[str, pl.DataType]] = {
    "layers": {"layer": _INTEGER, "metric": _TEXT, "value": _NUMBER, "text": _TEXT, **_JUDGED, **_INTERVAL},
    "summary": {
        "metric": _TEXT,
        **dict.fromkeys(("n_layers", "n_null", "n_missed"), _INTEGER),
        **dict.fromkeys(_OVER_LAYERS, _NUMBER),
        "better": _TEXT,
        **_JUDGED,
        **_INTERVAL,
    },
    "experts": {
        **dict.fromkeys(("layer", "expert", "expert_token_counts", "expert_activation_counts"), _INTEGER),
        **dict.fromkeys(("expert_weighted_counts", "expert_token_proportions"), _NUMBER),
        **dict.fromkeys(("is_dead", "is_underused"), _TRUTH),
    },
    "details": {"layer": _INTEGER, **dict.fromkeys(_COUNTED, _INTEGER)},
    "domains": {
        **dict.fromkeys(("layer", "expert", "tokens"), _INTEGER),
        **dict.fromkeys(("domain_specialization", "chance", "domain_affinity", "domain_purity"), _NUMBER),
    },
    "coactivation": {
        **dict.fromkeys(("layer", "expert", "other", "tokens"), _INTEGER),
        **dict.fromkeys(("coactivation", "chance"), _NUMBER),
    },
}
_KNOWN_OF_LAYERS = {
    **dict.fromkeys(("path", "stack", "scoring", "routing_type"), _TEXT),
    **dict.fromkeys(("model_layer", "passive_experts"), _INTEGER),
    "signed_weights": _TRUTH,
}
_TEXTS = [of.name.casefold() for of in METRICS if of.level == "text"]
"""Metrics that a summary has not."""
_MAY_BE_INFINITE = {name.casefold() for of in METRICS if of.may_be_infinite for name in (of.name, *of.aliases)}
_INFINITE = ("value", "mean", "min", "max", *(f"p{p}" for p in PERCENTILES))
"""Columns of numbers of metrics, of which some may be infinite."""
_ALWAYS = ("layers", "summary", "experts", "details")
_ACCEPTED = "a folder that `moefps metrics -o` wrote"


def is_metrics(path: PathLike) -> bool:
    """Whether a path is a folder that `moefps metrics -o` wrote, as far as its names tell."""
    folder = Path(path)
    return (folder / ABOUT).is_file() and all(find_table(folder, name) is not None for name in _ALWAYS)


def open_metrics(path: PathLike) -> RoutingMetrics:
    """Read what `moefps metrics -o` wrote.

    Parameters
    ----------
    path : path
        The folder.

    Returns
    -------
    RoutingMetrics
        As they were written, types and nulls included, whether the tables are csv, json or parquet.

    Raises
    ------
    ArgumentError
        It is no path.
    FileError
        There is no such folder, it is none of metrics, or one of its files is missing or damaged.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> import moefps
    >>> from moefps.io.table_folders import write_table_folder
    >>> path = pathlib.Path(tempfile.mkdtemp())
    >>> dump = moefps.write_dump(path / "dump", expert_ids=[[[0, 1]], [[0, 2]]], offsets=[0, 2], n_experts=4)
    >>> metrics = moefps.routing_metrics(dump)
    >>> folder = write_table_folder(path / "found", metrics.tables(), metrics.about)
    >>> moefps.open_metrics(folder).value("gini_coefficient")
    0.375
    """
    name = check_path(path)
    folder = Path(name)
    if not folder.is_dir():
        raise FileError(f"{name}: {'is a file' if folder.exists() else 'does not exist'}; accepted: {_ACCEPTED}")
    missing = [one for one in _ALWAYS if find_table(folder, one) is None]
    if missing or not (folder / ABOUT).is_file():
        raise FileError(f"{name}: has no {'table ' + missing[0] if missing else ABOUT}; accepted: {_ACCEPTED}")
    about = read_json_object(folder / ABOUT)
    groups = _groups(name, about, "groups") if about.get("by") is not None or "groups" in about else None
    # Domains may be told apart in a table of their own alone.
    of_domains = _groups(name, about, "domains") if groups is None and "domains" in about else groups
    tables = {
        table: _table(folder, table, of_domains if table == "domains" else groups)
        for table in (*_ALWAYS, "domains", "coactivation")
        if find_table(folder, table)
    }
    _check_heights(name, tables, about)
    pairs = None
    if "coactivation" in tables:
        try:
            pairs = _pair_counts(tables["coactivation"], tables["experts"], tables["details"])
        except (LookupError, TypeError, ValueError):
            raise FileError(f"{name}: coactivation has other layers, groups or experts than details") from None
    return RoutingMetrics(
        layers=_infinite(tables["layers"], "value"),
        summary=_infinite(tables["summary"], "mean", "min", "max"),
        experts=tables["experts"],
        details=tables["details"],
        domains=tables.get("domains"),
        about=about,
        pairs=pairs,
    )


def _groups(name: str, about: Mapping[str, Any], key: str) -> pl.DataType:
    """Tell the type of groups or domains by their list."""
    groups = about.get(key)
    if not isinstance(groups, list):
        raise FileError(f"{name}: {ABOUT} has no list of {key}; accepted: {_ACCEPTED}")
    for kind, dtype in ((bool, _TRUTH), (int, _INTEGER), (str, _TEXT)):
        if all(isinstance(group, kind) for group in groups):
            return dtype
    raise FileError(f"{name}: {ABOUT} has {key} of several kinds; accepted: {_ACCEPTED}")


def _table(folder: Path, name: str, groups: pl.DataType | None) -> pl.DataFrame:
    file = find_table(folder, name)
    if file is None:
        raise FileError(f"{folder}: has no table {name}; accepted: {_ACCEPTED}")
    first: Mapping[str, pl.DataType] = {} if groups is None else {"group": groups}
    if name == "details":
        return read_table(file, {**first, **_NEEDED[name]}, optional=_KNOWN_OF_LAYERS, others=True, accepted=_ACCEPTED)
    found = read_table(file, {**first, **_NEEDED[name]}, infinite=_INFINITE, accepted=_ACCEPTED)
    if "metric" in found.columns:
        is_infinite = pl.any_horizontal(pl.col(column).is_infinite() for column in _INFINITE if column in found.columns)
        for metric in found.filter(is_infinite)["metric"].unique(maintain_order=True):
            if str(metric).casefold() not in _MAY_BE_INFINITE:
                raise FileError(f"{file}: {metric} is infinite; accepted: finite numbers, or nothing")
    return found


def _check_heights(name: str, tables: Mapping[str, pl.DataFrame], about: Mapping[str, Any]) -> None:
    """Refuse tables that are cut between two rows: each says how many the others have."""
    layers, details = tables["layers"], tables["details"]
    of_numbers = [metric for metric in layers["metric"].unique() if str(metric).casefold() not in _TEXTS]
    n_groups = len(about["groups"]) if "group" in details.columns else 1
    said = about.get("n_layers")
    # What was counted piece by piece does not say it.
    n_layers = said if type(said) is int else details["layer"].n_unique()
    n_experts = details["n_experts"].sum()
    n_pairs = (details["n_experts"] * (details["n_experts"] - 1)).sum()
    wanted = {
        "details": (n_layers * n_groups, "a row a layer and group"),
        "layers": (details.height * layers["metric"].n_unique(), "a row a layer, group and metric"),
        "summary": (n_groups * len(of_numbers), "a row a group and metric"),
        "experts": (n_experts, "a row a layer, group and expert"),
        "domains": (n_experts * len(about.get("domains", [None])), "a row a layer, group and expert"),
        "coactivation": (n_pairs, "a row a layer, group and pair of experts"),
    }
    for table, (height, rows) in wanted.items():
        if table in tables and tables[table].height != height:
            raise FileError(f"{name}: {table} has {tables[table].height:,} rows; accepted: {height:,}, {rows}")


def _infinite(frame: pl.DataFrame, *values: str) -> pl.DataFrame:
    """Take back what was said of infinite values for formats that have no such number."""
    said = pl.col("reason").eq_missing("infinite")
    return frame.with_columns(
        *(pl.when(said).then(pl.col(value).fill_null(float("inf"))).otherwise(pl.col(value)) for value in values),
        pl.when(said).then(None).otherwise(pl.col("reason")).alias("reason"),
    )


def _pair_counts(coactivation: pl.DataFrame, experts: pl.DataFrame, details: pl.DataFrame) -> PairCounts:
    """Lay the counts of pairs out as they were; on the diagonal stands what each expert got."""
    layers = details["layer"].unique(maintain_order=True)
    groups = details["group"].unique(maintain_order=True) if "group" in details.columns else None
    of_layers = details.unique("layer", keep="first", maintain_order=True)
    n_cells, size = 1 if groups is None else len(groups), int(of_layers["n_experts"].max() or 0)  # type: ignore[arg-type]
    counts = np.zeros((n_cells, len(layers), size, size), dtype=np.int64)
    places = {layer: place for place, layer in enumerate(layers.to_list())}
    cells = {None: 0} if groups is None else {group: cell for cell, group in enumerate(groups.to_list())}
    for frame, second, value in ((coactivation, "other", "tokens"), (experts, "expert", "expert_token_counts")):
        cell = [cells[group] for group in frame["group"]] if groups is not None else 0
        where = [places[layer] for layer in frame["layer"]]
        counts[cell, where, frame["expert"].to_numpy(), frame[second].to_numpy()] = frame[value].fill_null(0).to_numpy()
    return PairCounts(
        counts, of_layers["n_experts"].to_numpy(), of_layers["top_k"].to_numpy(), layers.to_numpy(), groups
    )
