"""The page of a selection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from moefps._words import counted, listed
from moefps.reporting.content import Content, Section, short
from moefps.reporting.tables import PageTable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["selection_content"]

_RARE, _COMMON = 10.0, 75.0


def selection_content(picks: pl.DataFrame, *, source: str, facts: Sequence[tuple[str, str]] = ()) -> Content:
    """Say what picks are.

    Parameters
    ----------
    picks : polars.DataFrame
        As `moefps.io.picks.pick_table` gives them.
    source : str
        What they are of, as the title has it.
    facts : sequence of (str, str)
        What more is known of how they were picked.
    """
    from moefps.reporting.figures import selection_charts

    n_samples = int(picks["cluster_size"].sum())
    return Content(
        title=f"A selection of {counted(picks.height, 'sample')} of {source}",
        lead=f"{counted(picks.height, 'pick')} of {counted(n_samples, 'sample')}.",
        facts=[
            ("picks", f"{picks.height:,}"),
            ("samples that they are picked of", f"{n_samples:,}"),
            ("covering radius", short(picks["radius"][-1])),
            *facts,
        ],
        sections=[Section("What the picks cover", list(_words(picks, n_samples)))],
        figures=selection_charts(picks),
        tables=[PageTable("picks", "The picks, in order", "", picks, "picks")],
    )


def _words(picks: pl.DataFrame, n_samples: int) -> Iterator[str | list[str]]:
    radii, sizes = picks["radius"], picks["cluster_size"]
    said = f"Every one of {counted(n_samples, 'sample')} is within {short(radii[-1])} of a pick"
    if picks.height > 1:
        said += f"; of the first pick alone, within {short(radii[0])}"
        if radii[0] > 0:
            said += f", so the others take {100 * (1 - radii[-1] / radii[0]):.0f} % off"
    yield f"{said}."
    if picks.height > 1:
        largest = int(sizes.arg_max() or 0)
        alone = int((sizes == 1).sum())
        share = 100 * sizes[largest] / n_samples
        yield (
            f"Pick {picks['rank'][largest]} stands for the most, {counted(sizes[largest], 'sample')} ({share:.0f} %); "
            f"{counted(alone, 'pick')} {'stands' if alone == 1 else 'stand'} for no other sample."
        )
    doubles = int((sizes == 0).sum())
    if doubles:
        verb = "repeats" if doubles == 1 else "repeat"
        yield f"{counted(doubles, 'pick')} {verb} an earlier one exactly: there were no other samples left to add."
    if "typicality" in picks.columns and n_samples > 1:
        rare = int((picks["typicality"] < _RARE).sum())
        common = int((picks["typicality"] >= _COMMON).sum())
        yield (
            f"Among the picks, {rare} of the rarest tenth of all samples and {common} of the commonest quarter; random "
            f"picks would have about {picks.height / 10:.2g} and {picks.height / 4:.2g}."
        )
    if "label" in picks.columns:
        labels = picks["label"].drop_nulls().cast(pl.String, strict=False).unique(maintain_order=True).to_list()
        yield f"They show {counted(len(labels), 'label')}: {listed(labels, 20)}."
    yield (
        "The radius shrinks with more picks whatever the samples are. Whether it is small is told by as many random "
        "picks: moefps select --evaluate."
    )
