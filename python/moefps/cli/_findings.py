"""What `moefps info` prints about the things that it found."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from moefps._words import counted
from moefps.cli._render import emit_frame

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from moefps.io import Finding

__all__ = ["emit_rows", "print_findings"]


def print_findings(findings: Sequence[Finding]) -> None:
    """Print problems, and then what is only worth knowing."""
    for title, is_problem in (("problems", True), ("worth knowing", False)):
        chosen = [finding for finding in findings if finding.is_problem is is_problem]
        if chosen or is_problem:
            click.echo(f"{title}: {len(chosen) or 'none'}")
        for finding in chosen:
            click.echo(f"  {finding.name}: {_sentence(finding)}")


def emit_rows(
    facts: Mapping[str, Any],
    findings: Sequence[Finding],
    more: Sequence[tuple[str, str, Any]],
    output_format: str,
) -> None:
    """Write one row a fact, so that csv and parquet hold all of it.

    Parameters
    ----------
    facts : mapping
        Name to value.
    findings : sequence of Finding
        Each becomes a row with its place.
    more : sequence of (kind, name, value)
        Further rows.
    output_format : {"csv", "parquet"}
        How they are written.
    """
    import polars as pl

    rows: list[dict[str, Any]] = [{"kind": "fact", "name": name, "value": str(value)} for name, value in facts.items()]
    for finding in findings:
        kind = "problem" if finding.is_problem else "note"
        rows.append({"kind": kind, "value": str(finding.count), **asdict(finding)})
    rows += [{"kind": kind, "name": name, "value": str(value)} for kind, name, value in more]
    schema: dict[str, pl.DataType] = dict.fromkeys(("kind", "name", "value", "unit", "detail"), pl.String())
    schema |= dict.fromkeys(("sample", "layer", "expert"), pl.Int64())
    frame = pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema)
    emit_frame(frame, output_format)


def _place(finding: Finding) -> str:
    parts = [(name, getattr(finding, name)) for name in ("sample", "layer", "expert")]
    return ", ".join(f"{name} {number}" for name, number in parts if number is not None)


def _sentence(finding: Finding) -> str:
    """Say how many there are, where the first is, and what is known about them."""
    unit = finding.unit.removesuffix("s")
    words = counted(finding.count, unit)
    if _place(finding):
        words += f", first at {_place(finding)}"
    return words + (f": {finding.detail}" if finding.detail else "")
