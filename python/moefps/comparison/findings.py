"""What a comparison found, in words that its numbers bear."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["describe"]

_SURE = 0.05


def describe(summary: Mapping[str, Any]) -> str:
    """Write the findings page, as Markdown.

    A difference is called one only where its interval leaves 0 out, a correlation only where its q is below 0.05.

    Parameters
    ----------
    summary : mapping
        As `moefps.comparison.summarising.summarise` gives it.
    """
    sections = [
        (f"# {_title(summary)}", _what(summary)),
        ("## Where the routing differs most", _layers(summary)),
        ("## Inside tool responses", _responses(summary)),
        ("## From the tool's answer to the solution: tool-expert leakage", _leakage(summary)),
        ("## With the distance to the tool's answer", _distance(summary)),
        ("## What to keep in mind", _limits(summary)),
    ]
    parts = []
    for heading, lines in sections:
        written = list(lines)
        if written:
            parts.append("\n\n".join([heading, *written]))
    return "\n\n".join(parts) + "\n"


def _title(summary: Mapping[str, Any]) -> str:
    names = _names(summary)
    return f"{names[0]} against {names[1]}: how the same tokens are routed"


def _names(summary: Mapping[str, Any]) -> tuple[str, str]:
    """Call the dumps by their conditions, where they are of two."""
    conditions = summary["condition_a"], summary["condition_b"]
    if None not in conditions and conditions[0] != conditions[1]:
        return conditions
    return "A", "B"


def _what(summary: Mapping[str, Any]) -> Iterator[str]:
    names = _names(summary)
    words = [
        f"{name} is `{summary[key]}`" + (f" ({summary[of]})" if name == key.upper() and summary[of] else "")
        for name, key, of in zip(names, ("a", "b"), ("condition_a", "condition_b"), strict=True)
    ]
    yield f"{'; '.join(words)}."
    yield (
        f"{_count(summary['n_tasks'], 'task')}, {_count(summary['count_all'], 'token')} that both have, "
        f"{_count(summary['n_layers'], 'layer')} of {_count(summary['n_experts'], 'expert')}, "
        f"top-{summary['top_k']}. Intervals: {summary['intervals']}."
    )
    groups = {name[6:]: number for name, number in summary.items() if name.startswith("count_") and number}
    groups.pop("all", None)
    if groups:
        yield "Tokens by group: " + ", ".join(f"{name} {number:,}" for name, number in groups.items()) + "."


def _layers(summary: Mapping[str, Any]) -> Iterator[str]:
    if not summary["has_weights"]:
        yield "A dump holds no weights, so only the sets of chosen experts are compared, not their shares."
    for key, name, words in (
        ("top_tv_layers", "tv", "The mean total variation of a token's weights is largest in"),
        ("low_jaccard_layers", "jaccard", "The chosen experts overlap least (mean Jaccard index) in"),
    ):
        found = summary[key]
        if not found:
            continue
        if name == "tv" and found[0]["tv"] == 0:
            yield "The weights are the same for every token in every layer: total variation is 0."
        elif name == "jaccard" and found[0]["jaccard"] == 1:
            yield "The chosen experts are the same for every token in every layer: the Jaccard index is 1."
        else:
            said = ", ".join(f"layer {row['layer']} ({_value(row, name)})" for row in found)
            yield f"{words} {said}."


def _responses(summary: Mapping[str, Any]) -> Iterator[str]:
    found = summary["tool_response_tv"]
    if found is None or found["all"] is None:
        return
    parts = {"docstring": "docstrings", "non_docstring": "the rest"}
    said = [f"{words} {found[key]:.4f}" for key, words in parts.items() if found[key] is not None]
    yield f"Mean TV over layers is {found['all']:.4f} on tool responses" + (f": {', '.join(said)}." if said else ".")
    if found["difference"] is None:
        return
    lo, hi = found["difference_lo"], found["difference_hi"]
    if lo is None:
        yield "Whether docstrings and the rest differ in this cannot be told: there is no interval."
    elif lo > 0 or hi < 0:
        where = "outside docstrings" if lo > 0 else "inside docstrings"
        times = "" if found["ratio"] is None else f" (outside to inside, {found['ratio']:.2f} to 1)"
        yield f"Routing differs more {where}{times}: the difference is {found['difference']:.4f}, {_span(lo, hi)}."
    else:
        yield f"Docstrings and the rest do not differ surely: {found['difference']:.4f}, {_span(lo, hi)}."


def _leakage(summary: Mapping[str, Any]) -> Iterator[str]:
    if not summary["n_layers_tested"] and not summary["top_r_layers"]:
        if summary["tool_response_tv"] is not None:
            yield "No layer has a correlation: see the reasons in `tool_expert_leakage_summary`."
        return
    tested, sure = summary["n_layers_tested"], summary["n_layers_significant"]
    if tested:
        yield (
            f"Experts that the tool's answer shifts are shifted in the solution too, or against it, in {sure} of "
            f"{_count(tested, 'layer')} (q < {_SURE})."
            if sure
            else f"In none of {_count(tested, 'layer')} does the shift in the tool's answer carry over to the solution "
            f"surely (q < {_SURE})."
        )
    # An interval of r means something only where there is a correlation: of noise, r has no true value.
    said = ", ".join(
        f"layer {row['layer']} (r "
        + (_value(row, "r") if row["q"] is not None and row["q"] < _SURE else f"{row['r']:.4f}")
        + ("" if row["q"] is None else f", q {row['q']:.3g}")
        + ")"
        for row in summary["top_r_layers"]
    )
    yield f"The largest correlations: {said}. Picked for their size, they are likely to be smaller in truth."


def _distance(summary: Mapping[str, Any]) -> Iterator[str]:
    trend = summary["distance_trend"]
    if trend is None:
        return
    near, far = (_bin(trend[word]) for word in ("from", "to"))
    for name, words in (("tv", "Mean TV"), ("jaccard", "The mean Jaccard index")):
        if name not in trend["from"]:
            continue
        lo, hi, change = (trend[f"{name}_change{end}"] for end in ("_lo", "_hi", ""))
        text = f"{words} goes from {trend['from'][name]:.4f} at distance {near} to {trend['to'][name]:.4f} at {far}"
        if lo is None:
            yield f"{text}; there is no interval to tell whether that is more than chance."
        elif lo <= 0 <= hi:
            yield f"{text}: no sure change ({change:+.4f}, {_span(lo, hi)})."
        else:
            yield f"{text}: it {'rises' if change > 0 else 'falls'} ({change:+.4f}, {_span(lo, hi)})."


def _limits(summary: Mapping[str, Any]) -> Iterator[str]:
    one_sided = {name: side for name, side in summary["one_sided"].items() if side is not None}
    for side in sorted(set(one_sided.values())):
        groups = ", ".join(name for name, of in one_sided.items() if of == side)
        # Without a partner there is nothing to compare with.
        yield f"Only {side.upper()} has tokens that are not shared in {groups}: nothing is compared there (count 0)."
    empty = [name for name, side in summary["one_sided"].items() if side is None]
    if empty:
        yield f"No token at all is in {', '.join(empty)}."
    for label, names in summary["left_out"].items():
        if names:
            yield f"Tasks of {label.upper()} without a partner, left out: {', '.join(names)}."
    if summary["tasks_without_response"]:
        number = len(summary["tasks_without_response"])
        yield f"{_count(number, 'task')} without a tool response, left out of the distances."
    yield (
        "A mean TV or Jaccard index of tokens has no null value to be tested against: two runs of one model on "
        "other hardware differ too. Usage has one, `usage_tv_null`: what exchanging the conditions at random gives."
    )


def _bin(found: Mapping[str, Any]) -> str:
    last = found["distance_max"]
    return f"{found['distance_min']} and more" if last is None else f"{found['distance_min']}-{last}"


def _value(row: Mapping[str, Any], name: str) -> str:
    lo, hi = row[f"{name}_lo"], row[f"{name}_hi"]
    return f"{row[name]:.4f}" if lo is None else f"{row[name]:.4f}, {_span(lo, hi)}"


def _span(lo: float, hi: float) -> str:
    return f"95 % {lo:.4f} to {hi:.4f}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
