"""Every metric by its name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from moefps.errors import ArgumentError
from moefps.metrics.families import (
    balance,
    capacity,
    command,
    confidence,
    gram,
    load,
    locality,
    segments,
    specialisation,
)

if TYPE_CHECKING:
    import polars as pl

    from moefps.metrics.metric import Metric

__all__ = ["FAMILIES", "METRICS", "find_metric", "find_metrics", "list_metrics"]

FAMILIES = (
    load,
    balance,
    capacity,
    confidence,
    specialisation,
    gram,
    locality,
    segments,
    # Further families are added here, one module a line; what has a command of its own comes last.
    command,
)

METRICS: tuple[Metric, ...] = tuple(metric for family in FAMILIES for metric in family.METRICS)
"""All metrics, in the order of the documentation."""

_BY_NAME = {name.casefold(): metric for metric in METRICS for name in (*metric.aliases, metric.name)}


def find_metric(name: str, *, argument: str = "metrics") -> Metric:
    """Find a metric by its name, or another name that it is known by.

    Parameters
    ----------
    name : str
        The name, in capitals or small letters.
    argument : str
        What the message calls the place where the name was given.

    Returns
    -------
    Metric

    Raises
    ------
    ArgumentError
        There is no such metric; the nearest name is suggested.

    Examples
    --------
    >>> find_metric("lpr").name
    'gate_weight_cv'
    >>> find_metric("MaxVio_global").name
    'maxvio'
    >>> find_metric("gini")
    Traceback (most recent call last):
        ...
    moefps.errors.ArgumentError: metrics: 'gini' is no metric, perhaps 'gini_coefficient'; accepted: the names that
    `moefps metrics --list` gives
    """
    given: object = name
    found = _BY_NAME.get(name.casefold()) if isinstance(given, str) else None
    if found is None:
        raise ArgumentError(f"{argument}: {name!r} is no metric{_suggest(name)}; accepted: the names that {_LISTED}")
    return found


def find_metrics(names: Iterable[str] | str | None) -> dict[str, Metric]:
    """Find metrics by the names that a caller gives; all when none are given.

    Raises
    ------
    ArgumentError
        A name is no metric's, or what was given is no names.
    """
    given: Any = [names] if isinstance(names, str) else [metric.name for metric in METRICS] if names is None else names
    if not isinstance(given, Iterable):
        raise ArgumentError(f"metrics: {given!r}; accepted: a name, several, or None for all; {_LISTED} them")
    return {name: find_metric(name) for name in given}


_LISTED = "`moefps metrics --list` gives"


def _suggest(name: object) -> str:
    text = str(name).lower()
    near = difflib.get_close_matches(text, _BY_NAME, n=1, cutoff=0.6)
    # Part of a name, or one word of it with a slip.
    if not near and len(text) > 2:
        near = [known for known in _BY_NAME if text in known or known in text][:1]
    if not near:
        words = {word: known for known in reversed(_BY_NAME) for word in known.split("_")}
        near = [words[word] for word in difflib.get_close_matches(text, words, n=1, cutoff=0.75)]
    return f", perhaps {near[0]!r}" if near else ""


def list_metrics(names: Iterable[str] | str | None = None) -> pl.DataFrame:
    """Give the registry as a table.

    Parameters
    ----------
    names : str or iterable of str, optional
        Which metrics; all when not given.

    Returns
    -------
    polars.DataFrame
        A row a metric: ``metric``, ``family``, ``level``, ``formula``, ``range``, ``unit``, ``better``, ``chance``,
        ``target``, ``needs``, ``source``, ``references``, ``aliases``, ``example``.

    Examples
    --------
    >>> list_metrics(["maxvio"])["formula"][0]
    '(max c - m) / m, over the whole set (MaxVio_global)'
    """
    import polars as pl

    rows = [
        {
            "metric": metric.name,
            "family": metric.family,
            "level": metric.level,
            "formula": metric.formula,
            "range": metric.range or None,
            "unit": metric.unit or None,
            "better": metric.better,
            "chance": metric.chance,
            "target": None if metric.target is None else metric.target.text,
            "needs": ", ".join(metric.needs) or None,
            "source": metric.source,
            "references": "; ".join(metric.references) or None,
            "aliases": ", ".join(metric.aliases) or None,
            "example": metric.example,
        }
        for metric in find_metrics(names).values()
    ]
    return pl.DataFrame(rows, schema_overrides=dict.fromkeys(_TEXT, pl.String))


_TEXT = ("range", "unit", "chance", "target", "needs", "references", "aliases")
