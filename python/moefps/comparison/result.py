"""What a comparison is handed over as: tables, a summary, and the same in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from moefps.comparison.findings import describe
from moefps.comparison.writing import write_comparison_folder

if TYPE_CHECKING:
    from pathlib import Path

    from moefps._typing import PathLike
    from moefps.io.tables import TableFormat

__all__ = ["TABLES", "Comparison"]

TABLES = (
    *("layer_metrics", "layer_joint_metrics", "top_experts_by_layer", "top_experts_global"),
    *("tool_expert_leakage_by_layer", "tool_expert_leakage_summary", "leakage_vs_distance", "expert_usage"),
)


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """How two dumps route the same tokens. What is not defined is null.

    Every mean or estimate m with an interval over tasks has the columns ``m_lo`` and ``m_hi`` (95 %): null where fewer
    than two tasks have a token. That of ``usage_js`` is without what chance adds, that of ``r`` without what the choice
    of tasks adds to both shifts, so they may lie outside of their own. ``_a`` and ``_b`` are the dumps, differences are
    a - b.

    Attributes
    ----------
    layer_metrics : polars.DataFrame
        A row a layer and group: ``count`` (tokens that are compared), then means over them: ``tv``, ``js``,
        ``jaccard``, ``intersection``, ``intersection_share``, ``top1_match``, ``top5_match``; and ``entropy`` (nats),
        ``neff`` and ``margin``, each as ``_a``, ``_b``, ``_diff``.
    layer_joint_metrics : polars.DataFrame
        A row a layer and group: ``N_both`` (tokens that are compared), ``N_a`` and ``N_b`` (tokens of each dump with a
        filled slot), ``usage_entropy`` (nats), ``top1_share`` and ``top5_share`` of each, ``usage_tv``,
        ``usage_tv_null`` (its mean when the conditions are exchanged within random halves of the tasks),
        ``usage_js``; and the same ``_weighted``. Where no token is compared, the usage of each is that of its own
        tokens.
    top_experts_by_layer, top_experts_global : polars.DataFrame
        The 64 experts with the largest differences of usage, of each layer or of all: ``layer``, ``rank``,
        ``expert``, ``u_a``, ``u_b``, ``delta_u``.
    tool_expert_leakage_by_layer : polars.DataFrame
        A row a layer and expert: ``delta_u_tool``, ``delta_u_canonical``.
    tool_expert_leakage_summary : polars.DataFrame
        A row a layer: ``r`` of the two, ``p`` (signs flipped at random), ``q`` (Benjamini-Hochberg over layers),
        ``spearman``, ``slope``, ``n_experts``, ``reason`` (why there is no r); the largest absolute r first.
    leakage_vs_distance : polars.DataFrame
        A row a bin of distances to the last tool response: ``distance_min``, ``distance_max``, ``count``, ``tv``,
        ``jaccard``.
    expert_usage : polars.DataFrame
        A row a layer and expert, passive ones left out: the usage ``u_a``, ``u_b`` and ``delta_u``, of all tokens;
        without an interval where fewer than two tasks use the expert differently. A layer where nothing is compared has
        no row.
    summary : dict
        What stands out, and how it was measured.
    """

    layer_metrics: pl.DataFrame
    layer_joint_metrics: pl.DataFrame
    top_experts_by_layer: pl.DataFrame
    top_experts_global: pl.DataFrame
    tool_expert_leakage_by_layer: pl.DataFrame
    tool_expert_leakage_summary: pl.DataFrame
    leakage_vs_distance: pl.DataFrame
    expert_usage: pl.DataFrame
    summary: Mapping[str, Any]

    @property
    def tables(self) -> dict[str, pl.DataFrame]:
        """All tables by name."""
        return {name: getattr(self, name) for name in TABLES}

    @property
    def findings(self) -> str:
        """What was found, in words, as Markdown."""
        return describe(self.summary)

    def write(
        self,
        path: PathLike,
        *,
        file_format: TableFormat = "csv",
        figures: Mapping[str, bytes] | None = None,
        overwrite: bool = False,
    ) -> Path:
        """Write a folder of ``tables/``, ``summary.json``, ``findings.md`` and, where there are any, ``figures/``.

        Parameters
        ----------
        path : path
            The folder.
        file_format : {"csv", "parquet"}
            Of the tables.
        figures : mapping of str to bytes, optional
            Files for ``figures/``, by name.
        overwrite : bool
            True replaces a folder that was written so before.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        ArgumentError
            A figure has no plain name, or the format is another.
        FileError
            The folder exists, or cannot be written; nothing is left then, and what was there before stays.
        """
        return write_comparison_folder(
            path,
            self.tables,
            self.summary,
            self.findings,
            figures=figures,
            file_format=file_format,
            overwrite=overwrite,
        )

    def __repr__(self) -> str:
        about = self.summary
        return f"Comparison({about['a']} and {about['b']}: {about['n_tasks']} tasks, {about['count_all']:,} tokens)"
