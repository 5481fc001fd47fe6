"""Where a command writes to: -o and --overwrite, checked before any work is done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from moefps.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from moefps.io.tables import TableFormat

__all__ = ["Sink", "check_table_output", "open_sink", "output_option", "overwrite_option", "refuse_own_input"]

Command = TypeVar("Command", bound="Callable[..., Any]")

TABLES = ("csv", "json", "parquet")
"""Formats of one table, each the ending of a name."""


def output_option(metavar: str, text: str, *, required: bool = False) -> Callable[[Command], Command]:
    """Add -o, which takes any name but an empty one: that is what a variable of the shell gives that is not set."""
    return click.option(
        "-o", "--output", metavar=metavar, required=required, callback=_refuse_empty, expose_value=True, help=text
    )


def overwrite_option(text: str = "Replace the output where it exists.") -> Callable[[Command], Command]:
    """Add --overwrite."""
    return click.option("--overwrite", is_flag=True, help=text)


@dataclass(frozen=True)
class Sink:
    """Where a table goes, and how.

    Attributes
    ----------
    output : str or None
        A file; None for stdout.
    file_format : str or None
        How the file is written.
    output_format : str
        How stdout is written.
    overwrite : bool
        True replaces the file where it exists.
    """

    output: str | None
    file_format: TableFormat | None
    output_format: str
    overwrite: bool


def open_sink(
    output: str | None,
    output_format: str,
    *,
    overwrite: bool,
    inputs: Sequence[str],
    accepted: Sequence[str] = TABLES,
) -> Sink:
    """Check that a table can be written to a file, whose ending says how, or else --format."""
    from moefps.io import check_destination, table_format

    if output is None:
        return Sink(None, None, output_format, overwrite)
    ending = _ending(output)
    # An ending that means another format than --format is no name for the latter.
    if ending not in accepted and (ending == "npy" or output_format not in accepted):
        raise click.UsageError(f"-o: found {output!r}; accepted: a name in {_listed(accepted)}")
    file_format = table_format(output, output_format)
    refuse_own_input(output, inputs)
    check_destination(output, overwrite=overwrite)
    return Sink(output, file_format, output_format, overwrite)


def check_table_output(output: str, *, overwrite: bool, inputs: Sequence[str] = (), is_folder: bool = False) -> bool:
    """Check that one table, or a folder of several, can be written; say whether it is one table.

    Parameters
    ----------
    output : str
        A name of a table's ending is a file. One without an ending is a folder, as one that ends in .d or a slash, or
        is a folder already.
    overwrite : bool
        True replaces what is there.
    inputs : sequence of str
        What is read, which is never replaced.
    is_folder : bool
        True accepts a folder alone, of any name that is not a table's.
    """
    from moefps.io import check_destination
    from moefps.io.table_folders import check_table_folder

    ending = "" if output.endswith(("/", "\\", ".d")) or Path(output).is_dir() else _ending(output)
    if is_folder and ending in {*TABLES, "npy"}:
        raise click.UsageError(f"-o: found {output!r}; accepted: a folder, to which all tables are written")
    is_file = ending in TABLES
    if ending and not is_file and not is_folder:
        raise click.UsageError(
            f"-o: found {output!r}; accepted: a name in {_listed(TABLES)}, or a folder: one whose name has a dot ends "
            "in a slash"
        )
    refuse_own_input(output, inputs)
    if is_file:
        check_destination(output, overwrite=overwrite)
    else:
        check_table_folder(output, overwrite=overwrite)
    return is_file


def refuse_own_input(output: str, inputs: Sequence[str]) -> None:
    """Keep --overwrite from replacing what is being read, or a part of it."""
    target = Path(output)
    for path in inputs:
        source = Path(path)
        if target.exists() and source.exists() and target.samefile(source):
            raise FileError(f"{output}: is the input too, give another name for the output")
        # A dump is more than one file, and so is a model.
        is_whole = (source / "manifest.json").is_file() or ((source / "config.json").is_file() and target.exists())
        if is_whole and source.resolve() in target.resolve().parents:
            raise FileError(f"{output}: is in the input, {path}; give another place for the output")


def _refuse_empty(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value == "":
        raise click.UsageError("-o: found ''; accepted: the name of what is to be written")
    return value


def _ending(output: str) -> str:
    return Path(output).suffix.lower().removeprefix(".")


def _listed(formats: Sequence[str]) -> str:
    return ", ".join(f".{name}" for name in formats[:-1]) + f" or .{formats[-1]}"
