"""Targets: what values should reach, by the checklist or by a file of the user's own."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from moefps.errors import ArgumentError, FileError
from moefps.io.files import read_text
from moefps.io.strict_json import unique_keys
from moefps.metrics.metric import Target
from moefps.metrics.registry import METRICS, find_metric

if TYPE_CHECKING:
    from moefps._typing import PathLike

__all__ = ["judge", "parse_target", "resolve_targets", "thresholds"]

SETS = ("spectra",)
"""Names of the targets that come with moefps."""

_ACCEPTED = "text such as '< 0.05' or '>= 0.9'"
_TARGET = re.compile(r"(<=|>=|<|>|≤|≥)\s*([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)")
_SIGNS = {"≤": "<=", "≥": ">="}


def resolve_targets(targets: str | PathLike | Mapping[str, str] | None) -> dict[str, Target]:
    """Turn what a caller gives as targets into one for each metric.

    Parameters
    ----------
    targets : str, path, mapping of str to str, or None
        ``"spectra"`` for the checklist's, a mapping such as ``{"gini_coefficient": "< 0.05"}``, a .toml or .json file
        with the same, or None for no targets.

    Returns
    -------
    dict of str to Target
        By the metrics' own names.

    Raises
    ------
    ArgumentError
        A name is no metric's (the nearest is suggested), is not of one number a layer, is there twice; or a target is
        not ``op number``.
    FileError
        The file is missing or cannot be read as what its suffix says.

    Examples
    --------
    >>> {name: target.text for name, target in resolve_targets({"lpr": "≤ 0.5"}).items()}
    {'gate_weight_cv': '<= 0.5'}
    """
    if targets is None:
        return {}
    if isinstance(targets, str) and targets in SETS:
        return {metric.name: metric.target for metric in METRICS if metric.target is not None}
    if isinstance(targets, Mapping):
        return _from_mapping(targets, "targets")
    if not isinstance(targets, str | os.PathLike):
        raise ArgumentError(f"targets: {type(targets).__name__}; accepted: 'spectra', a mapping, a .toml or .json file")
    name = os.fspath(targets)
    if Path(name).suffix.lower() not in {".toml", ".json"}:
        raise ArgumentError(f"targets: {name!r}; accepted: 'spectra', or a .toml or .json file")
    return _from_mapping(_read(name), name)


def parse_target(text: Any, place: str) -> Target:
    """Read a target.

    Raises
    ------
    ArgumentError
        It is not a comparison and a number.

    Examples
    --------
    >>> parse_target("<0.05", "targets: gini_coefficient").text
    '< 0.05'
    """
    match = _TARGET.fullmatch(text.strip()) if isinstance(text, str) else None
    value = math.nan if match is None else float(match[2])
    if match is None or not math.isfinite(value):
        raise ArgumentError(f"{place} is {text!r}; accepted: {_ACCEPTED}")
    op = _SIGNS.get(match[1], match[1])
    return Target(text=f"{op} {match[2]}", op=op, value=value)


def thresholds(layers: pl.DataFrame, targets: Mapping[str, Target], keys: tuple[str, ...]) -> pl.DataFrame:
    """Give the number that each target stands for, layer by layer.

    Parameters
    ----------
    layers : polars.DataFrame
        The table of layers, with `keys`.
    targets : mapping of str to Target
        By metric.
    keys : tuple of str
        What tells its rows apart.

    Returns
    -------
    polars.DataFrame
        A row a key and metric: the keys, ``metric``, ``target`` (its text), ``threshold``.
    """
    parts = [
        layers.select(
            *keys,
            pl.lit(name).alias("metric"),
            pl.lit(target.text).alias("target"),
            target.threshold().cast(pl.Float64).alias("threshold"),
        )
        for name, target in targets.items()
    ]
    if parts:
        return pl.concat(parts)
    return layers.select(*keys, metric=pl.lit(""), target=pl.lit(""), threshold=pl.lit(0.0)).clear()


def judge(targets: Mapping[str, Target], value: str = "value") -> pl.Expr:
    """Say of rows with ``metric``, a value and ``threshold`` whether they meet their targets; null without either."""
    met = pl.lit(None, dtype=pl.Boolean)
    for op in ("<", "<=", ">", ">="):
        names = [name for name, target in targets.items() if target.op == op]
        if names:
            sample = Target(text="", op=op, value=0.0)
            met = (
                pl.when(pl.col("metric").is_in(names))
                .then(sample.is_met(pl.col(value), pl.col("threshold")))
                .otherwise(met)
            )
    return met


def _from_mapping(found: Mapping[Any, Any], place: str) -> dict[str, Target]:
    targets: dict[str, Target] = {}
    for name, text in found.items():
        metric = find_metric(name, argument=place)
        if not metric.is_scalar:
            raise ArgumentError(f"{place}: {name} is not one number a layer; accepted: metrics that are")
        if metric.name in targets:
            raise ArgumentError(f"{place}: {metric.name} is there under two names; accepted: one target a metric")
        targets[metric.name] = parse_target(text, f"{place}: {name}")
    return targets


def _read(name: str) -> Mapping[Any, Any]:
    text = read_text(name, "a .toml or .json of targets")
    try:
        found = json.loads(text, object_pairs_hook=unique_keys) if name.lower().endswith(".json") else _toml(name, text)
    except ValueError as error:
        raise FileError(f"{name}: cannot be read as its suffix says: {str(error).splitlines()[0][:120]}") from None
    except RecursionError:
        raise FileError(f"{name}: cannot be read as its suffix says: nested too deep") from None
    if not isinstance(found, dict):
        raise FileError(f"{name}: is no table of names and targets; accepted: such as gini_coefficient = '< 0.05'")
    return found


def _toml(name: str, text: str) -> Any:
    try:
        import tomllib
    except ImportError:
        raise FileError(f"{name}: this Python reads no TOML; accepted: .json, or Python 3.11 or newer") from None
    return tomllib.loads(text)
