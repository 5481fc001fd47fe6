"""`moefps compare`: how two dumps route the same tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from moefps._words import counted, listed
from moefps.cli._messages import in_words_of_the_command
from moefps.cli._options import progress_options, threads_option
from moefps.cli._outputs import output_option, overwrite_option, refuse_own_input
from moefps.cli._progress import progress_on_stderr

if TYPE_CHECKING:
    from collections.abc import Mapping

    from moefps.comparison import Comparison
    from moefps.io.tables import TableFormat


@click.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--pairs", metavar="FILE", help="The aligned tokens that both dumps were captured with.")
@click.option("--by", metavar="COLUMN", help="Without --pairs: groups by a column of the samples or tokens.")
@click.option("--groups", metavar="a,b", help="Which groups the tables of layers have; all when not given.")
@click.option(
    "--resamples",
    type=int,
    default=2000,
    show_default=True,
    metavar="n",
    help="Resamples of tasks for the intervals, and random signs for p; 0 for none.",
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="n", help="Seed of the resamples.")
@output_option("OUT", "The folder to write.", required=True)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["csv", "parquet"]),
    default="csv",
    show_default=True,
    help="Of the tables.",
)
@click.option("--svg", is_flag=True, help="Write the figures as SVG, too.")
@click.option("--no-figures", is_flag=True, help="Tables alone, which need no moefps[report].")
@overwrite_option("Replace such a folder where it exists.")
@threads_option
@progress_options
def compare(
    a: str,
    b: str,
    pairs: str | None,
    groups: str | None,
    resamples: int,
    output: str,
    file_format: TableFormat,
    svg: bool,
    no_figures: bool,
    overwrite: bool,
    threads: int | None,
    show_progress: bool | None,
    quiet: bool,
    **settings: Any,
) -> None:
    """Compare how two dumps route the same tokens.

    A and B are dumps of the same tokens: two conditions of one file of pairs, which --pairs names; or the same texts
    through two checkpoints, two quantisations, two settings, joined row by row. OUT gets tables/ (layer_metrics,
    layer_joint_metrics, top_experts_by_layer, top_experts_global, tool_expert_leakage_by_layer,
    tool_expert_leakage_summary, leakage_vs_distance, expert_usage), figures/ with the same to look at, summary.json and
    findings.md. Intervals are of a bootstrap over tasks. For texts that are not aligned, `moefps metrics --by` and
    `moefps focus` are the tools.

    \b
    Examples:
      moefps compare agentic.dump assisted.dump --pairs pair_tokens.json -o study/
      moefps compare base.dump tuned.dump --by domain -o tuned-vs-base/
    """  # noqa: D301 (click wants the character itself)
    if svg and no_figures:
        raise click.UsageError("--svg and --no-figures exclude each other")
    with in_words_of_the_command(None, groups="--groups", pairs="--pairs", output=output):
        refuse_own_input(output, [a, b] if pairs is None else [a, b, pairs])
        _check(output, overwrite=overwrite, figures=not no_figures)
        from moefps.comparison import compare as compare_dumps

        with progress_on_stderr("comparing", show_progress=show_progress, quiet=quiet) as progress:
            found = compare_dumps(
                a,
                b,
                pairs,
                groups=None if groups is None else [name.strip() for name in groups.split(",")],
                n_resamples=resamples,
                n_threads=threads,
                progress=progress or False,
                **settings,
            )
        drawn: dict[str, bytes] = {}
        if not no_figures:
            from moefps.reporting.figures import draw_figures

            with progress_on_stderr("drawing", show_progress=show_progress, quiet=quiet) as progress:
                drawn = draw_figures(found, svg=svg, progress=progress or False)
        found.write(output, file_format=file_format, figures=drawn, overwrite=overwrite)
    _report(found.summary, output)
    if not no_figures:
        _report_figures(found, drawn, output)


def _check(output: str, *, overwrite: bool, figures: bool) -> None:
    """Check, before any work is done, that everything can be written."""
    from moefps.comparison.writing import check_comparison_folder

    check_comparison_folder(output, overwrite=overwrite)
    if figures:
        from moefps.reporting.figures import check_extra

        check_extra(otherwise=", or pass --no-figures for tables alone")


def _report(summary: Mapping[str, Any], output: str) -> None:
    """Say what was compared, and what stands out most."""
    click.echo(
        f"{output}: {counted(summary['n_tasks'], 'task')}, {counted(summary['count_all'], 'token')} compared, "
        f"{counted(summary['n_layers'], 'layer')}"
    )
    for key, name, same, words in (
        ("top_tv_layers", "tv", 0.0, "mean TV is largest in"),
        ("low_jaccard_layers", "jaccard", 1.0, "mean Jaccard index is lowest in"),
        ("top_r_layers", "r", None, "correlation of the tool's answer and the solution is largest in"),
    ):
        # A layer where nothing differs is not where it differs most.
        rows = [row for row in summary[key] if row[name] != same]
        if rows:
            said = ", ".join(f"layer {row['layer']} ({_short(row[name])})" for row in rows[:3])
            click.echo(f"  {words} {said}")
        elif summary[key]:
            click.echo(f"  {'mean TV is 0' if name == 'tv' else 'the Jaccard index is 1'} in every layer")
    nothing = [name for name, side in summary["one_sided"].items() if side is not None]
    if nothing:
        click.echo(f"  no token to compare in {', '.join(nothing)}")
    for label, names in summary["left_out"].items():
        if names:
            click.echo(f"  left out of {label.upper()}, as they are not in all that was given: {listed(names)}")
    click.echo(f"  {output}/findings.md says it in words")


def _short(value: float) -> str:
    return f"{value:.3f}" if abs(value) >= 0.0005 else f"{value:.1e}"


def _report_figures(found: Comparison, drawn: Mapping[str, bytes], output: str) -> None:
    """Say how many figures there are, and why others are not."""
    from moefps.reporting.figures import left_out_figures

    click.echo(f"  {counted(sum(name.endswith('.png') for name in drawn), 'figure')} in {output}/figures")
    reasons: dict[str, list[str]] = {}
    for name, reason in left_out_figures(found).items():
        reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        click.echo(f"  without {', '.join(names)}: {reason}")
