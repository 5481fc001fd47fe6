"""The expert focus degree, for those who have the activation statistics of experts by domain already.

The call, and the keys of its result, are those of the analysis scripts that the focus degree comes from; nothing is
printed or drawn here. `moefps.expert_focus` makes the statistics too, from a dump or from activations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from moefps.errors import ArgumentError, DataError

__all__ = ["calculate_expert_focus_degree"]


def calculate_expert_focus_degree(
    expert_domain_stats: Mapping[Any, Mapping[Any, Mapping[str, Any]]],
    *,
    domain_tokens: Mapping[Any, int] | None = None,
) -> dict[str, Any]:
    """Compute the focus degree of experts from their total activation in each domain.

    P[i, d] = 100 · total[i, d] / Σ_d total[i, d]; the focus degree of expert i is the largest P[i, d].

    Parameters
    ----------
    expert_domain_stats : mapping
        ``{expert: {domain: {"total_activation": number}}}``; other keys are not looked at. A domain that an expert does
        not have counts as 0.
    domain_tokens : mapping, optional
        The tokens of each domain. Given, the totals are divided by them first, so that domains count alike, whatever
        their size: the balanced focus degree.

    Returns
    -------
    dict
        ``average_focus_degree``, ``median_focus_degree``, ``std_focus_degree`` (population): over experts with a value,
        None where there is none. ``focus_degrees``: their values, in order. ``expert_focus_details``: expert to
        ``most_focused_domain``, ``focus_percentage`` and ``domain_percentages``, which are None, None and empty for
        an expert without activation. ``focus_entropy``: expert to 1 - H(P / 100) / ln D, None for one domain.
        ``band_counts``: experts by band, of 20 points each.

    Raises
    ------
    ArgumentError
        The mappings are none, there is no expert, or a total or the tokens of a domain are missing.
    DataError
        A total is no number from 0 on, or a domain has no tokens.

    Examples
    --------
    >>> stats = {7: {"code": {"total_activation": 45.2}, "law": {"total_activation": 12.8}}}
    >>> stats[7]["maths"] = {"total_activation": 18.6}
    >>> found = calculate_expert_focus_degree(stats)
    >>> details = found["expert_focus_details"][7]
    >>> {domain: round(percent, 1) for domain, percent in details["domain_percentages"].items()}
    {'code': 59.0, 'law': 16.7, 'maths': 24.3}
    >>> round(found["average_focus_degree"], 1), details["most_focused_domain"]
    (59.0, 'code')
    >>> found["band_counts"]
    {'scattered': 0, 'light': 0, 'medium': 1, 'high': 0, 'extreme': 0}
    """
    import numpy as np

    from moefps.metrics.focus import BANDS, compute_degrees

    totals = _totals(expert_domain_stats)
    domains = list(dict.fromkeys(domain for of_domain in totals.values() for domain in of_domain))
    table = np.array([[of_domain.get(domain, 0.0) for domain in domains] for of_domain in totals.values()])
    if domain_tokens is not None:
        table = table / np.array([_tokens(domain_tokens, domain) for domain in domains])
    found = compute_degrees(table)
    is_defined = found.band >= 0
    degrees = found.degree[is_defined]
    details, entropies = {}, {}
    for row, expert in enumerate(totals):
        details[expert] = _details(domains, found.percent[row].tolist(), int(found.domain[row]))
        entropies[expert] = None if math.isnan(found.entropy[row]) else float(found.entropy[row])
    has_any = len(degrees) > 0
    return {
        "average_focus_degree": float(degrees.mean()) if has_any else None,
        "median_focus_degree": float(np.median(degrees)) if has_any else None,
        "std_focus_degree": float(degrees.std()) if has_any else None,
        "focus_degrees": degrees.tolist(),
        "expert_focus_details": details,
        "focus_entropy": entropies,
        "band_counts": {band: int((found.band == number).sum()) for number, band in enumerate(BANDS)},
    }


def _details(domains: list[Any], percent: list[float], first: int) -> dict[str, Any]:
    if first < 0:
        return {"most_focused_domain": None, "focus_percentage": None, "domain_percentages": {}}
    return {
        "most_focused_domain": domains[first],
        "focus_percentage": percent[first],
        "domain_percentages": dict(zip(domains, percent, strict=True)),
    }


def _totals(stats: Any) -> dict[Any, dict[Any, float]]:
    """Take the totals out of the statistics, checked."""
    accepted = "accepted: {expert: {domain: {'total_activation': number}}}"
    if not isinstance(stats, Mapping) or not stats:
        found = "no expert" if isinstance(stats, Mapping) else type(stats).__name__
        raise ArgumentError(f"expert_domain_stats: {found}; {accepted}")
    totals: dict[Any, dict[Any, float]] = {}
    for expert, of_domain in stats.items():
        if not isinstance(of_domain, Mapping) or not of_domain:
            raise ArgumentError(f"expert_domain_stats: expert {expert!r} has no domains; {accepted}")
        totals[expert] = {}
        for domain, values in of_domain.items():
            where = f"expert_domain_stats: expert {expert!r}, domain {domain!r}"
            if not isinstance(values, Mapping) or "total_activation" not in values:
                raise ArgumentError(f"{where} has no total_activation; {accepted}")
            totals[expert][domain] = _number(f"{where}: total_activation", values["total_activation"])
    return totals


def _tokens(domain_tokens: Any, domain: Any) -> float:
    if not isinstance(domain_tokens, Mapping) or domain not in domain_tokens:
        raise ArgumentError(f"domain_tokens: has no domain {domain!r}; accepted: the tokens of each domain")
    tokens = _number(f"domain_tokens: domain {domain!r}", domain_tokens[domain])
    if tokens == 0:
        raise DataError(f"domain_tokens: domain {domain!r} has 0; accepted: a number above 0")
    return tokens


def _number(where: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise DataError(f"{where} is {value!r}; accepted: a finite number from 0 on")
    return number
