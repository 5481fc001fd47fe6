"""`moefps report`: one self-contained page about a comparison, routing metrics, a selection or a dump."""

from __future__ import annotations

from pathlib import Path

import click

from moefps.cli._messages import in_words_of_the_command
from moefps.cli._options import progress_options
from moefps.cli._outputs import output_option, overwrite_option
from moefps.cli._progress import progress_on_stderr


@click.command()
@click.argument("source", metavar="SOURCE")
@output_option("FILE.html", "The page to write.", required=True)
@click.option("--title", metavar="TEXT", help="Its title.  [default: what it is about]")
@click.option("-m", "--n-select", type=int, metavar="M", help="Of a dump: also pick M samples, and show them.")
@overwrite_option("Replace the page where it exists.")
@progress_options
def report(
    source: str,
    output: str,
    title: str | None,
    n_select: int | None,
    overwrite: bool,
    show_progress: bool | None,
    quiet: bool,
) -> None:
    """Write one HTML page: what was run, what it says in words, charts and tables.

    SOURCE is a folder that `moefps compare` or `moefps metrics -o` wrote; or the picks that `moefps select -o` wrote
    as .csv, .json or .parquet; or a dump, whose metrics are computed, with the targets of the checklist and intervals
    of 95 %. The page is one file that asks no network for anything: charts answer to the mouse, tables sort, filter and
    are saved as CSV, and it prints. It needs `pip install 'moefps[report]'`.

    \b
    Examples:
      moefps report study/ -o study.html
      moefps report texts.dump -o texts.html
      moefps report texts.dump -m 12 -o texts.html --overwrite
      moefps report picks.csv -o picks.html --title "Twelve texts"
    """  # noqa: D301 (click wants the character itself)
    with (
        in_words_of_the_command(None, source=source, title="--title"),
        progress_on_stderr("report", show_progress=show_progress, quiet=quiet) as progress,
    ):
        from moefps.io.atomic import human_bytes
        from moefps.reporting.report import write_report

        page = write_report(
            source, output, title=title, n_select=n_select, overwrite=overwrite, progress=progress or False
        )
    click.echo(f"{output}: {human_bytes(Path(page).stat().st_size)}, open it in a browser")
