"""Write the tables of docs/metrics.md from the registry of metrics.

    python scripts/metrics_page.py

A test fails where the page is older than the registry.
"""

from __future__ import annotations

from pathlib import Path

from moefps.metrics.metric import Metric
from moefps.metrics.registry import METRICS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"
BEGIN = "<!-- metrics: begin (written by scripts/metrics_page.py) -->"
END = "<!-- metrics: end -->"

FAMILIES = {
    "load": "Load and utilisation",
    "balance": "Balance",
    "capacity": "Capacity",
    "confidence": "Confidence",
    "specialisation": "Specialisation and overlap",
    "gram": "Expert vectors",
    "locality": "Consistency and locality",
    "segments": "Segments and caches",
    "vocabulary": "Vocabulary",
    "consistency": "Two dumps",
    "focus": "Expert focus",
    "cost": "Cost",
}
BETTER = {"up": "higher", "down": "lower", "-": ""}


def page_with_tables(page: str) -> str:
    """Put the tables between the marks of the page."""
    before, found, rest = page.partition(BEGIN)
    _, found_end, after = rest.partition(END)
    if not found or not found_end:
        raise SystemExit(f"error: {PAGE.name}: found no {BEGIN} … {END}; accepted: a page that has both marks")
    return f"{before}{BEGIN}\n\n{tables()}\n{END}{after}"


def tables() -> str:
    """Make a section for each family."""
    families = dict.fromkeys(metric.family for metric in METRICS)
    return "\n".join(section(family) for family in families)


def section(family: str) -> str:
    """Make the table of one family, and its worked examples."""
    rows = [metric for metric in METRICS if metric.family == family]
    head = "| metric | definition | range | better | chance | target |\n|---|---|---|---|---|---|\n"
    lines = "".join(row(metric) for metric in rows)
    notes = [note(metric) for metric in rows]
    return f"### {FAMILIES[family]}\n\n{head}{lines}\n" + "".join(text for text in notes if text)


def row(metric: Metric) -> str:
    """Make a metric's row."""
    names = [f"`{metric.name}`", *(f"`{alias}`" for alias in metric.aliases)]
    target = metric.target.text if metric.target is not None else ""
    unit = f" ({metric.unit})" if metric.unit else ""
    cells = [" = ".join(names), metric.formula + unit, metric.range, BETTER[metric.better], metric.chance or "", target]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def note(metric: Metric) -> str:
    """Say what a metric needs, where it is from, what others report, and show it worked by hand."""
    parts = [f"needs {', '.join(metric.needs)}"] if metric.needs else []
    parts += [metric.source] if metric.source else []
    parts += list(metric.references)
    parts += [f"*{metric.example}*"] if metric.example else []
    text = "; ".join(parts).replace("|", "\\|")
    return f"- `{metric.name}`: {text}\n" if parts else ""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page_with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
