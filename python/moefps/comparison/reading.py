"""A comparison from the folder that it was written to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from moefps._words import counted
from moefps.comparison.assembly import MOST_EXPERTS
from moefps.comparison.findings import describe
from moefps.comparison.measures import MEASURES
from moefps.comparison.result import TABLES, Comparison
from moefps.comparison.writing import SUMMARY, TABLE_FOLDER
from moefps.errors import FileError
from moefps.io.paths import check_path
from moefps.io.table_reading import find_table, read_json_object, read_table

if TYPE_CHECKING:
    from moefps._typing import PathLike

__all__ = ["SCHEMAS", "is_comparison", "open_comparison"]

_INTEGER, _NUMBER = pl.Int64(), pl.Float64()


def _numbers(*names: str) -> dict[str, pl.DataType]:
    return dict.fromkeys(names, _NUMBER)


def _integers(*names: str) -> dict[str, pl.DataType]:
    return dict.fromkeys(names, _INTEGER)


def _with_ends(*names: str) -> dict[str, pl.DataType]:
    return _numbers(*(f"{name}{end}" for name in names for end in ("", "_lo", "_hi")))


def _usage(suffix: str) -> dict[str, pl.DataType]:
    sides = [f"{name}_{side}{suffix}" for name in ("usage_entropy", "top1_share", "top5_share") for side in "ab"]
    tv = (f"usage_tv{suffix}", f"usage_tv_null{suffix}")
    return {**_numbers(*sides, *tv), **_with_ends(f"usage_js{suffix}")}


_EXPERT = {**_numbers("u_a", "u_b"), **_with_ends("delta_u")}

SCHEMAS: Mapping[str, Mapping[str, pl.DataType]] = {
    "layer_metrics": {**_integers("layer"), "group": pl.String(), **_integers("count"), **_with_ends(*MEASURES)},
    "layer_joint_metrics": {
        **_integers("layer"),
        "group": pl.String(),
        **_integers("N_both", "N_a", "N_b"),
        **_usage(""),
        **_usage("_weighted"),
    },
    "top_experts_by_layer": {**_integers("layer", "rank", "expert"), **_EXPERT},
    "top_experts_global": {**_integers("layer", "rank", "expert"), **_EXPERT},
    "tool_expert_leakage_by_layer": {
        **_integers("layer", "expert"),
        **_numbers("delta_u_tool", "delta_u_canonical"),
    },
    "tool_expert_leakage_summary": {
        **_integers("layer"),
        **_with_ends("r"),
        **_numbers("p", "q", "spearman", "slope"),
        **_integers("n_experts"),
        "reason": pl.String(),
    },
    "leakage_vs_distance": {
        **_integers("distance_min", "distance_max", "count"),
        **_with_ends("tv", "jaccard"),
    },
    "expert_usage": {**_integers("layer", "expert"), **_EXPERT},
}
"""The columns of every table, and their types."""

_NUMBERS = ("n_tasks", "n_layers", "n_experts", "top_k", "count_all")
_NEEDED = (
    *("a", "b", "condition_a", "condition_b", *_NUMBERS, "one_sided", "left_out", "tasks_without_response", "by"),
    *("has_weights", "intervals", "top_tv_layers", "low_jaccard_layers", "top_tv_groups", "usage_beyond_chance"),
    *("tool_response_tv", "top_r_layers", "n_layers_tested", "n_layers_significant", "n_layers_beyond_tasks"),
    "distance_trend",
)


def is_comparison(path: PathLike) -> bool:
    """Whether a path is a folder that `moefps compare` wrote, as far as its names tell."""
    folder = Path(path)
    return (folder / SUMMARY).is_file() and (folder / TABLE_FOLDER).is_dir()


def open_comparison(path: PathLike) -> Comparison:
    """Read what `moefps compare` or `Comparison.write` wrote.

    Parameters
    ----------
    path : path
        The folder.

    Returns
    -------
    Comparison
        Equal to the one that was written, types and nulls included, whether the tables are csv or parquet.

    Raises
    ------
    ArgumentError
        It is no path.
    FileError
        There is no such folder, it is none of a comparison, or one of its files is missing or damaged.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> import moefps
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> a, b = (
    ...     moefps.write_dump(folder / name, expert_ids=ids, offsets=[0, 1, 2], n_experts=4)
    ...     for name, ids in {"base": [[[0, 1]], [[2, 3]]], "tuned": [[[0, 1]], [[2, 0]]]}.items()
    ... )
    >>> path = moefps.compare(a, b).write(folder / "found")
    >>> moefps.open_comparison(path).layer_metrics.select("layer", "count", "tv", "intersection").rows()
    [(0, 2, None, 1.5)]
    """
    name = check_path(path)
    folder = Path(name)
    if not folder.is_dir():
        raise FileError(f"{name}: {'is a file' if folder.exists() else 'does not exist'}; accepted: {_ACCEPTED}")
    if not is_comparison(folder):
        raise FileError(f"{name}: has no {SUMMARY} beside {TABLE_FOLDER}/; accepted: {_ACCEPTED}")
    summary = read_json_object(folder / SUMMARY)
    missing = next((key for key in _NEEDED if key not in summary), None)
    if missing is not None:
        raise FileError(f"{name}: {SUMMARY} has no {missing}; accepted: {_ACCEPTED}")
    wrong = next((key for key in _NUMBERS if type(summary[key]) is not int), None)
    if wrong is not None:
        raise FileError(f"{name}: {SUMMARY} says {wrong} {summary[wrong]!r}; accepted: a whole number")
    try:
        describe(summary)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise FileError(f"{name}: {SUMMARY} is damaged ({error!r}); accepted: {_ACCEPTED}") from None
    tables = {table: _table(folder / TABLE_FOLDER, table) for table in TABLES}
    try:
        _check_fit(tables, summary)
    except FileError as error:
        raise FileError(f"{folder / TABLE_FOLDER}: {error}") from None
    return Comparison(**tables, summary=summary)


_ACCEPTED = "a folder that `moefps compare` wrote"


def _table(folder: Path, name: str) -> pl.DataFrame:
    found = find_table(folder, name)
    if found is None:
        raise FileError(f"{folder}: has no {name}.csv or {name}.parquet; accepted: {_ACCEPTED}, whole")
    columns: Mapping[str, Any] = SCHEMAS[name]
    return read_table(found, columns, accepted=f"{_ACCEPTED}, whole").select(*columns)


def _check_fit(tables: Mapping[str, pl.DataFrame], summary: Mapping[str, Any]) -> None:
    """Refuse tables that are of another comparison than the summary, or that are cut between two rows."""
    n_layers = summary["n_layers"]
    in_range = pl.col("layer").is_between(0, n_layers - 1).fill_null(value=False)
    for name, table in tables.items():
        strange = table.filter(~in_range)["layer"] if "layer" in table.columns else pl.Series([])
        if len(strange):
            raise FileError(f"{name} has the layer {strange[0]}; accepted: 0 to {n_layers - 1}, as {SUMMARY} says")
    for name in ("layer_metrics", "layer_joint_metrics"):
        groups = tables[name]["group"].unique(maintain_order=True).to_list()
        unknown = [group for group in groups if group is None or f"count_{group}" not in summary]
        if unknown:
            raise FileError(f"{name} has the group {unknown[0]!r}; accepted: those that {SUMMARY} counts")
        _check_rows(name, tables[name].select("layer", "group"), n_layers, len(groups), "group")
    of_layers = tables["tool_expert_leakage_summary"]
    _check_rows("tool_expert_leakage_summary", of_layers.select("layer"), n_layers)
    _check_experts(tables, dict(of_layers.select("layer", "n_experts").iter_rows()))
    # The last distances have no end.
    if tables["leakage_vs_distance"]["distance_max"].tail(1).to_list() != [None]:
        raise FileError("leakage_vs_distance has not the last distances; accepted: all of them")


def _check_experts(tables: Mapping[str, pl.DataFrame], sizes: Mapping[int, int]) -> None:
    """Refuse tables of experts that are not whole; `sizes` are the experts of each layer."""
    for name in ("expert_usage", "tool_expert_leakage_by_layer"):
        for (layer,), part in tables[name].group_by("layer", maintain_order=True):
            if part.height != sizes[layer] or part["expert"].to_list() != list(range(part.height)):
                raise FileError(
                    f"{name} has {counted(part.height, 'row')} of layer {layer}; accepted: one of each of its "
                    f"{sizes[layer]} experts"
                )
    found = tables["tool_expert_leakage_summary"].filter(pl.col("r").is_not_null())["layer"]
    lost = found.filter(~found.is_in(tables["tool_expert_leakage_by_layer"]["layer"].implode()))
    if len(lost):
        raise FileError(f"tool_expert_leakage_by_layer has no row of layer {lost[0]}, which has an r; accepted: all")
    used = [sizes[layer] for layer in tables["expert_usage"]["layer"].unique()]
    heights = {
        "top_experts_by_layer": sum(min(n, MOST_EXPERTS) for n in used),
        "top_experts_global": min(sum(used), MOST_EXPERTS),
    }
    for name, wanted in heights.items():
        if tables[name].height != wanted:
            found_rows = counted(tables[name].height, "row")
            raise FileError(f"{name} has {found_rows}; accepted: {wanted:,}, as expert_usage has those experts")


def _check_rows(name: str, keys: pl.DataFrame, n_layers: int, n_groups: int = 1, noun: str = "") -> None:
    """Refuse a table that has not every layer once, or once for each group."""
    if keys.height and keys.height == n_layers * n_groups and not keys.is_duplicated().any():
        return
    found = counted(keys.height, "row") + (f" of {counted(n_groups, noun)}" if noun else "")
    raise FileError(
        f"{name} has {found}, {SUMMARY} speaks of {counted(n_layers, 'layer')}; accepted: one of each layer"
        f"{' and ' + noun if noun else ''}"
    )
