"""What a comparison found, in words that its numbers bear."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from moefps._words import counted, listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["as_text", "describe", "dump_names"]

_SURE = 0.05
_MARKS = re.compile(r"[\\`*\[\]<>&|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_TICKS = re.compile("`+")
_MOST_TASKS = 20


def describe(summary: Mapping[str, Any]) -> str:
    """Write the findings page, as Markdown.

    A difference or a trend is called one only where its interval leaves 0 out, a correlation only where its q is below
    0.05. What is largest or lowest is so among the tokens that were compared.

    Parameters
    ----------
    summary : mapping
        As `moefps.comparison.summarising.summarise` gives it.
    """
    names = _written_names(summary)
    sections = [
        (f"# {names[0]} against {names[1]}: how the same tokens are routed", _what(summary)),
        ("## Where the routing differs most", _layers(summary)),
        ("## Inside tool responses", _responses(summary)),
        ("## In the tool's answer and in the solution: tool-expert leakage", _leakage(summary)),
        ("## With the distance to the tool's answer", _distance(summary)),
        ("## What to keep in mind", _limits(summary)),
    ]
    parts = []
    for heading, lines in sections:
        written = list(lines)
        if written:
            parts.append("\n\n".join([heading, *written]))
    return "\n\n".join(parts) + "\n"


def dump_names(summary: Mapping[str, Any]) -> tuple[str, str]:
    """Call the dumps by their conditions or by their folders, whichever tells them apart."""
    conditions = summary["condition_a"], summary["condition_b"]
    if None not in conditions and conditions[0] != conditions[1]:
        return conditions
    folders = tuple(PurePath(summary[label]).name for label in ("a", "b"))
    return (folders[0], folders[1]) if all(folders) and folders[0] != folders[1] else ("A", "B")


def _written_names(summary: Mapping[str, Any]) -> tuple[str, str]:
    a, b = (as_text(name) for name in dump_names(summary))
    return a, b


def as_text(name: object) -> str:
    r"""Write a name in one line that Markdown takes for nothing else; inside words, underscores mean nothing to it.

    Examples
    --------
    >>> print(as_text("tool_response"), as_text("__init__"), as_text("a*b"), as_text("[x](y)"))
    tool_response \_\_init\_\_ a\*b \[x\](y)
    """
    return _MARKS.sub(r"\\\g<0>", " ".join(str(name).split()))


def _code(path: str) -> str:
    """Write a path as code, whatever is in it."""
    if "`" not in path:
        return f"`{path}`"
    fence = "`" * (1 + max(len(run) for run in _TICKS.findall(path)))
    return f"{fence} {path} {fence}"


def _what(summary: Mapping[str, Any]) -> Iterator[str]:
    names = _written_names(summary)
    words = []
    for label, name in zip(("a", "b"), names, strict=True):
        condition = summary[f"condition_{label}"]
        about = f" ({condition})" if condition is not None and as_text(condition) != name else ""
        column = "" if name == label.upper() else f" ({label} in the tables)"
        words.append(f"{name}{column} is {_code(summary[label])}{about}")
    yield f"{'; '.join(words)}."
    yield (
        f"{counted(summary['n_tasks'], 'task')}, {counted(summary['count_all'], 'token')} that both have, "
        f"{counted(summary['n_layers'], 'layer')} of {counted(summary['n_experts'], 'expert')}, "
        f"top-{summary['top_k']}. Intervals: {summary['intervals']}."
    )
    groups = {name[6:]: number for name, number in summary.items() if name.startswith("count_") and number}
    groups.pop("all", None)
    if groups:
        by = "group" if summary["by"] is None else _code(summary["by"])
        yield f"Tokens by {by}: " + ", ".join(f"{as_text(name)} {number:,}" for name, number in groups.items()) + "."


def _layers(summary: Mapping[str, Any]) -> Iterator[str]:
    if not summary["has_weights"]:
        yield "A dump holds no weights, so only the sets of chosen experts are compared, not their shares."
    for key, name, same, words in (
        ("top_tv_layers", "tv", 0, "The mean total variation of a token's weights is largest in"),
        ("low_jaccard_layers", "jaccard", 1, "The chosen experts overlap least (mean Jaccard index) in"),
    ):
        # A layer where nothing differs is not where it differs most.
        rows = [row for row in summary[key] if row[name] != same]
        if rows:
            said = ", ".join(f"layer {row['layer']} ({_value(row, name)})" for row in rows)
            yield f"{words} {said}.{_caution(rows, name, 'Layers')}"
        elif summary[key] and name == "tv":
            yield "The weights are the same for every token in every layer: total variation is 0."
        elif summary[key]:
            yield "The chosen experts are the same for every token in every layer: the Jaccard index is 1."
    groups = [row for row in summary["top_tv_groups"] or [] if row["tv"] != 0]
    if groups:
        said = ", ".join(f"{as_text(row['group'])} ({_value(row, 'tv')})" for row in groups)
        caution = _caution(groups, "tv", "Groups")
        yield f"By {_code(summary['by'])}, mean TV over layers, the largest first: {said}.{caution}"
    chance = summary["usage_beyond_chance"]
    if chance is not None:
        n_layers, tested = chance["n_layers"], counted(chance["n_layers_tested"], "layer")
        yield (
            f"The use of experts differs by more than the choice of tasks would make it in {n_layers} of {tested}: the "
            "interval of `usage_js` leaves 0 out there, as it would in about one layer of 20 without any difference."
            if n_layers
            else f"The use of experts differs in none of {tested} by more than the choice of tasks would make it."
        )


def _caution(rows: Sequence[Mapping[str, Any]], name: str, what: str) -> str:
    """Say of some that are ranked whether they are known to differ."""
    if len(rows) < 2:
        return ""
    has = [row[f"{name}_lo"] is not None for row in rows]
    if not any(has):
        return " There are no intervals to tell whether they differ."
    return f" {what} whose intervals overlap{'' if all(has) else ', or that have none,'} may not differ."


def _responses(summary: Mapping[str, Any]) -> Iterator[str]:
    found = summary["tool_response_tv"]
    if found is None or found["all"] is None:
        return
    parts = {"docstring": "docstrings", "non_docstring": "the rest"}
    said = [f"{words} {_number(found[key])}" for key, words in parts.items() if found[key] is not None]
    yield f"Mean TV over layers is {_number(found['all'])} on tool responses" + (
        f": {', '.join(said)}." if said else "."
    )
    if found["difference"] is None:
        return
    lo, hi = found["difference_lo"], found["difference_hi"]
    difference = _number(found["difference"])
    if lo is None:
        yield f"The difference is {difference}; there is no interval to tell whether that is more than chance."
    elif lo > 0 or hi < 0:
        where = "outside docstrings" if lo > 0 else "inside docstrings"
        times = "" if found["ratio"] is None else f" (outside to inside, {found['ratio']:.2f} to 1)"
        yield f"Routing differs more {where}{times}: the difference is {difference}, {_span(lo, hi)}."
    else:
        yield f"Docstrings and the rest do not differ surely: {difference}, {_span(lo, hi)}."


def _leakage(summary: Mapping[str, Any]) -> Iterator[str]:
    if not _is_paired(summary):
        return
    largest = summary["top_r_layers"]
    if not largest:
        yield "No layer has a correlation: see the reasons in `tool_expert_leakage_summary`."
        return
    tested, sure = summary["n_layers_tested"], summary["n_layers_significant"]
    if sure:
        yield (
            f"In {sure} of {counted(tested, 'layer')} the shifts of experts in the tool's answer and in the solution "
            f"go together, or against each other (q < {_SURE}). "
            + _beyond(summary["n_layers_beyond_tasks"], sure, has_intervals=largest[0]["r_lo"] is not None)
        )
    elif tested:
        yield (
            f"In none of {counted(tested, 'layer')} do the shifts of experts in the tool's answer and in the solution "
            f"surely go together (q < {_SURE})."
        )
    yield f"The largest correlations: {', '.join(_correlation(row) for row in largest)}." + (
        "" if tested else " There is neither p nor interval to tell whether they are more than chance."
    )
    if largest[0]["r_lo"] is not None:
        yield (
            "q asks whether shifts that have nothing to do with each other would agree as much over these experts. The "
            "interval is for other tasks: for r without what the choice of tasks adds to both shifts, so r may lie "
            "outside. From -1 to 1 says that the shifts are too small to tell."
        )


def _beyond(number: int, sure: int, *, has_intervals: bool) -> str:
    """Say in how many layers that holds for more than these tasks."""
    if not has_intervals:
        return "Whether other tasks would show it cannot be told: there is no interval."
    if not number:
        return "In none of these does the interval of r leave 0 out: other tasks need not show it."
    return (
        f"In {'all' if number == sure else number} of these the interval of r leaves 0 out as well: it is not of these "
        "tasks alone."
    )


def _correlation(row: Mapping[str, Any]) -> str:
    q = "" if row["q"] is None else f", q {row['q']:.3g}"
    return f"layer {row['layer']} (r {_value(row, 'r')}{q})"


def _distance(summary: Mapping[str, Any]) -> Iterator[str]:
    trend = summary["distance_trend"]
    if trend is None:
        return
    near, far = (_bin(trend[word]) for word in ("from", "to"))
    for name, words in (("tv", "Mean TV"), ("jaccard", "The mean Jaccard index")):
        if name not in trend["from"]:
            continue
        others = "; those are of other tasks, as only long solutions reach far" if name == "tv" else ""
        slope, lo, hi = (trend[f"{name}_slope{end}"] for end in ("", "_lo", "_hi"))
        values = [_number(trend[end][name]) for end in ("from", "to")]
        ends = f"{words} is {values[0]} at distance {near} and {values[1]} at {far}{others}"
        per = "" if slope is None else f"{_number(slope, sign=True)} with every doubling of the distance"
        if slope is None:
            yield f"{ends}; no task has tokens at several distances."
        elif lo is None:
            yield f"{ends}. Within tasks it goes by {per}; there is no interval to tell whether that is chance."
        elif lo <= 0 <= hi:
            yield f"{ends}. Within tasks there is no sure trend: {per}, {_span(lo, hi)}."
        else:
            yield f"{ends}. Within tasks it {'rises' if slope > 0 else 'falls'}: {per}, {_span(lo, hi)}."


def _limits(summary: Mapping[str, Any]) -> Iterator[str]:
    names = dict(zip(("a", "b"), _written_names(summary), strict=True))
    one_sided = {name: side for name, side in summary["one_sided"].items() if side is not None}
    for side in sorted(set(one_sided.values())):
        groups = ", ".join(as_text(name) for name, of in one_sided.items() if of == side)
        if side in names:
            yield f"Only {names[side]} has tokens in {groups}: nothing is compared there (count 0)."
        elif _is_paired(summary):
            yield f"Nothing is compared in {groups}: no token of these is in both dumps and in both conditions."
        else:
            yield f"{names['a']} and {names['b']} have no token in common in {groups}: nothing is compared there."
    if one_sided and "assisted" in {summary["condition_a"], summary["condition_b"]}:
        yield "What only the assisted condition has, such as a prompt of its own, is in no group."
    empty = [name for name, side in summary["one_sided"].items() if side is None]
    if empty:
        yield f"No token at all is in {', '.join(as_text(name) for name in empty)}."
    for label, left_out in summary["left_out"].items():
        if left_out:
            yield f"Tasks of {names[label]} without a partner, left out: {as_text(listed(left_out, _MOST_TASKS))}."
    if summary["tasks_without_response"]:
        number = len(summary["tasks_without_response"])
        yield f"{counted(number, 'task')} without a tool response, left out of the distances."
    if _is_paired(summary) and summary["top_r_layers"]:
        yield (
            "That shifts go together does not say that the tool's answer is the cause: all else that only one "
            "condition has stands before both."
        )
    yield (
        "A mean TV or Jaccard index of tokens has no null value to be tested against: two runs of one model on "
        "other hardware differ too."
        + (
            ""
            if summary["usage_beyond_chance"] is None
            else " Usage has one, `usage_tv_null`: what exchanging the two at random gives."
        )
    )


def _is_paired(summary: Mapping[str, Any]) -> bool:
    """Whether the groups are those of pairs; a column may have values of the same names."""
    return summary["by"] is None and "count_canonical" in summary


def _bin(found: Mapping[str, Any]) -> str:
    last = found["distance_max"]
    return f"{found['distance_min']} and more" if last is None else f"{found['distance_min']}-{last}"


def _value(row: Mapping[str, Any], name: str) -> str:
    lo, hi = row[f"{name}_lo"], row[f"{name}_hi"]
    return _number(row[name]) if lo is None else f"{_number(row[name])}, {_span(lo, hi)}"


def _span(lo: float, hi: float) -> str:
    return f"95 % {_number(lo)} to {_number(hi)}"


def _number(value: float, *, sign: bool = False) -> str:
    """Write a number to four decimals, and a smaller one to two digits rather than as 0."""
    form = ".4f" if value == 0 or abs(value) >= 0.001 else ".1e"
    return format(value, f"{'+' if sign else ''}{form}")
