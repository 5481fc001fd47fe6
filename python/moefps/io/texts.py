"""Texts to capture, with the columns that their file has beside them.

A text is a line of a .txt, or a field of a .jsonl, .csv or .parquet; the other fields stay with it as columns. What a
file holds is taken as it is: a text that is empty, not a string or not utf-8 is an error that names its place.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import polars as pl

from moefps.errors import ArgumentError, DataError, FileError
from moefps.io.files import read_bytes
from moefps.io.npy import STDIN, display_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from moefps._typing import PathLike

__all__ = ["RESERVED_COLUMNS", "TEXT_SUFFIXES", "Texts", "read_columns", "read_texts"]

Messages: TypeAlias = list[dict[str, Any]]

TEXT_FIELD = "text"
MESSAGES_FIELD = "messages"
TEXT_SUFFIXES = (".txt", ".jsonl", ".ndjson", ".csv", ".parquet")

RESERVED_COLUMNS = ("sample", "token_start", "n_tokens")
"""The columns that a dump writes itself."""

_INT64 = 1 << 63
_MANY_FIELDS = 12


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts and what their file says about them.

    Attributes
    ----------
    texts : list
        A string a sample; with chat, a list of messages a sample, each a dict with ``role`` and ``content``.
    columns : polars.DataFrame
        A row a sample: the text and every other field. Lists and objects of a .jsonl are here as JSON text.
    source : str
        The file, in words.
    """

    texts: list[str] | list[Messages]
    columns: pl.DataFrame
    source: str

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, eq=False)
class _Fields:
    """What a file holds: its columns, the values as they stood there where that differs, and each row's place."""

    columns: pl.DataFrame
    places: Sequence[str]
    raw: Mapping[str, Sequence[Any]] | None = None

    def values(self, field: str) -> Sequence[Any]:
        return self.columns[field].to_list() if self.raw is None else self.raw[field]


def read_texts(path: PathLike, *, text_field: str | None = None, chat: bool = False) -> Texts:
    r"""Read texts from a file, or from standard input.

    Parameters
    ----------
    path : path or "-"
        A .txt, a text a line; a .jsonl (or .ndjson), an object a line; a .csv with a header; a .parquet; or ``-`` for
        .jsonl or .txt on standard input, .jsonl where its first line is a JSON object.
    text_field : str, optional
        The field that holds the text; ``text`` when not given. A .txt has no fields.
    chat : bool
        True gives conversations: the field ``messages`` (or `text_field`), a list of objects with ``role`` and
        ``content``; a plain text becomes one message of the user.

    Returns
    -------
    Texts

    Raises
    ------
    FileError
        The file is missing, empty, not utf-8, or not what its suffix says.
    ArgumentError
        The suffix is unknown, no field has the name asked for, or a field has the name of a column of moefps.
    DataError
        A text is empty or not a string, or the values of a field are of several kinds.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "texts.jsonl"
    >>> _ = path.write_text('{"text": "1 + 1 =", "domain": "math"}\n{"text": "def f():", "domain": "code"}\n')
    >>> read = read_texts(path)
    >>> read.texts, read.columns["domain"].to_list()
    (['1 + 1 =', 'def f():'], ['math', 'code'])
    """
    name = display_name(path)
    fields = _read_fields(path, name, text_field)
    if not fields.columns.height:
        raise FileError(f"{name}: holds no text")
    for column in fields.columns.columns:
        if column in RESERVED_COLUMNS:
            raise ArgumentError(f"{name}: has a field {column}, which moefps writes itself; give it another name")
    field = _field_of_texts(name, fields, text_field, chat=chat)
    found: list[Any] = []
    for place, value in zip(fields.places, fields.values(field), strict=True):
        found.append(_conversation(name, place, field, value) if chat else _text(name, place, field, value))
    return Texts(found, fields.columns, name)


def read_columns(path: PathLike) -> pl.DataFrame:
    """Read a table of columns beside samples, such as their domain, from a .jsonl, .csv or .parquet.

    Raises
    ------
    FileError, ArgumentError, DataError
        As `read_texts`.
    """
    name = display_name(path)
    if Path(path).suffix.lower() == ".txt":
        raise ArgumentError(f"{name}: the suffix is .txt; accepted: {', '.join(TEXT_SUFFIXES[1:])}")
    return _read_fields(path, name, None).columns


def _read_fields(path: PathLike, name: str, text_field: str | None) -> _Fields:
    """Read a file by its suffix."""
    if os.fspath(path) == STDIN:
        content = _decoded(sys.stdin.buffer.read(), name)
        return _read_jsonl(content, name) if _starts_with_object(content) else _read_txt(content, name, text_field)
    suffix = Path(path).suffix.lower()
    if suffix not in TEXT_SUFFIXES:
        hint = ", compressed ones piped in with zcat and `-`" if suffix in {".gz", ".zst", ".xz", ".bz2"} else ""
        raise ArgumentError(f"{name}: the suffix is {suffix or 'missing'}; accepted: {', '.join(TEXT_SUFFIXES)}{hint}")
    data = read_bytes(path, "a file of texts")
    if not data:
        raise FileError(f"{name}: the file is empty, expected texts")
    if suffix == ".parquet":
        return _read_parquet(data, name)
    content = _decoded(data, name)
    if suffix == ".txt":
        return _read_txt(content, name, text_field)
    return _read_csv(content, name) if suffix == ".csv" else _read_jsonl(content, name)


def _decoded(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FileError(
            f"{name}: is not utf-8: byte 0x{data[error.start]:02x} in line {line:,}; accepted: text in utf-8"
        ) from error


def _lines(content: str) -> list[str]:
    """Split at line ends alone: a text may hold the other characters that Python takes for one."""
    lines = content.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def _starts_with_object(content: str) -> bool:
    first = content.split("\n", 1)[0].strip()
    if not first.startswith("{"):
        return False
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _read_txt(content: str, name: str, text_field: str | None) -> _Fields:
    if text_field is not None:
        raise ArgumentError(f"{name}: a .txt has a text a line and no fields, so a text field cannot be named")
    lines = _lines(content)
    return _Fields(pl.DataFrame({TEXT_FIELD: lines}), _places("line", len(lines)))


def _places(word: str, n_rows: int) -> list[str]:
    return [f"{word} {number:,}" for number in range(1, n_rows + 1)]


def _read_jsonl(content: str, name: str) -> _Fields:
    lines = _lines(content)
    while lines and not lines[-1].strip():
        lines.pop()
    places = _places("line", len(lines))
    # The keys in the order in which they first come.
    values: dict[str, list[Any]] = {}
    for i, record in enumerate(_objects(lines, places, name)):
        for key, value in record.items():
            if key not in values:
                values[key] = [None] * i
            values[key].append(value)
        for column in values.values():
            if len(column) == i:
                column.append(None)
    columns = {key: _column(name, key, column, places) for key, column in values.items()}
    return _Fields(pl.DataFrame(columns), places, values)


def _objects(lines: list[str], places: list[str], name: str) -> Iterator[dict[str, Any]]:
    for line, place in zip(lines, places, strict=True):
        if not line.strip():
            raise DataError(f"{name}: {place} is empty; accepted: a JSON object a line")
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise FileError(f"{name}: {place} is not JSON: {error.msg} at column {error.colno:,}") from error
        except (ValueError, RecursionError) as error:
            raise FileError(f"{name}: {place} is not JSON that can be read: {error}") from error
        if not isinstance(record, dict):
            raise DataError(f"{name}: {place} is {_kind(record)}; accepted: a JSON object a line")
        yield record


def _kind(value: Any) -> str:
    """Say what a value of JSON is."""
    if value is None:
        return "null"
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "a string", list: "a list"}
    return kinds.get(type(value), "an object")


def _column(name: str, key: str, values: list[Any], places: Sequence[str]) -> pl.Series:
    """Make a column of one kind of value; lists and objects become JSON text, as a table has no place for them."""
    found: dict[str, int] = {}
    for i, value in enumerate(values):
        if value is not None:
            kind = _kind(value)
            found.setdefault("a list or an object" if kind in {"a list", "an object"} else kind, i)
    if len(found) > 1:
        (first, i), (second, j) = list(found.items())[:2]
        raise DataError(
            f"{name}: the field {key} is {first} in {places[i]} and {second} in {places[j]}; "
            "accepted: one kind of value a field"
        )
    kind = next(iter(found), "null")
    if kind == "a number":
        return _numbers(name, key, values, places)
    if kind == "a list or an object":
        values = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
    if kind in {"a string", "a list or an object"}:
        for value, place in zip(values, places, strict=True):
            _check_characters(name, place, key, value)
    dtypes = {"null": pl.Null(), "true or false": pl.Boolean()}
    return pl.Series(key, values, dtype=dtypes.get(kind, pl.String()))


def _numbers(name: str, key: str, values: list[Any], places: Sequence[str]) -> pl.Series:
    if any(isinstance(value, float) for value in values):
        return pl.Series(key, [None if value is None else float(value) for value in values], dtype=pl.Float64)
    for value, place in zip(values, places, strict=True):
        if value is not None and not -_INT64 <= value < _INT64:
            digits = int(math.log10(abs(value))) + 1
            raise DataError(f"{name}: {place}: {key} has {digits} digits; accepted: integers of 64 bits")
    return pl.Series(key, values, dtype=pl.Int64)


def _read_csv(content: str, name: str) -> _Fields:
    """Read a .csv; a column whose numbers would be written the same way again becomes numbers."""
    limit = csv.field_size_limit()
    try:
        # A text may well be longer than the 128 KiB that the module allows a field.
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
        reader = csv.reader(io.StringIO(content, newline=""), strict=True)
        rows, places = [], []
        for row in reader:
            if row:
                rows.append(row)
                places.append(f"line {reader.line_num:,}")
    except csv.Error as error:
        raise FileError(f"{name}: is not a .csv: {error}") from error
    finally:
        csv.field_size_limit(limit)
    if not rows:
        raise FileError(f"{name}: the file is empty, expected a header and a row for every text")
    header = [column.strip() for column in rows[0]]
    if len(set(header)) < len(header):
        twice = next(column for column in header if header.count(column) > 1)
        raise FileError(f"{name}: the header has the column {twice!r} twice")
    for row, place in zip(rows, places, strict=True):
        if len(row) != len(header):
            raise FileError(f"{name}: {place} has {len(row)} columns, expected {len(header)} as in the header")
    texts = {
        column: [value if value != "" else None for value in values]
        for column, values in zip(header, zip(*rows[1:], strict=True), strict=False)
    }
    frame = pl.DataFrame({column: _plain_numbers(pl.Series(column, values)) for column, values in texts.items()})
    # The text itself stays what it is, also where it is a number.
    return _Fields(frame, places[1:], texts)


def _plain_numbers(series: pl.Series) -> pl.Series:
    for dtype in (pl.Int64, pl.Float64):
        numbers = series.cast(dtype, strict=False)
        if numbers.null_count() == series.null_count() < len(series) and numbers.cast(pl.String).equals(series):
            return numbers
    return series.cast(pl.String)


def _read_parquet(data: bytes, name: str) -> _Fields:
    try:
        frame = pl.read_parquet(io.BytesIO(data))
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileError(f"{name}: is not a .parquet that can be read: {reason[:120]}") from error
    frame = frame.with_columns(
        pl.col(column).cast(pl.String)
        for column, dtype in frame.schema.items()
        if isinstance(dtype, pl.Categorical | pl.Enum)
    )
    return _Fields(frame, _places("row", frame.height))


def _field_of_texts(name: str, fields: _Fields, text_field: str | None, *, chat: bool) -> str:
    """Find the field that holds the texts."""
    wanted = [text_field] if text_field is not None else [MESSAGES_FIELD, TEXT_FIELD] if chat else [TEXT_FIELD]
    for field in wanted:
        if field in fields.columns.columns:
            return field
    found = fields.columns.columns
    shown = ", ".join(found[:_MANY_FIELDS]) + (", …" if len(found) > _MANY_FIELDS else "")
    raise ArgumentError(
        f"{name}: has no field {' or '.join(wanted)}, found {shown or 'none'}; --text-field names the one to take"
    )


def _text(name: str, place: str, field: str, value: Any) -> str:
    if isinstance(value, str) and value:
        _check_characters(name, place, field, value)
        return value
    if value is None or value == "":
        raise DataError(f"{name}: {place}: {field} is {'missing' if value is None else 'empty'}; accepted: a text")
    hint = ", which --chat takes" if isinstance(value, list) else ""
    raise DataError(f"{name}: {place}: {field} is {_kind(value)}{hint}; accepted: a string")


def _check_characters(name: str, place: str, field: str, value: str | None) -> None:
    try:
        if value is not None:
            value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{name}: {place}: {field} holds half of a surrogate pair, which is no character") from error


def _conversation(name: str, place: str, field: str, value: Any) -> Messages:
    """Check a list of messages; a plain text is one message of the user."""
    if not isinstance(value, list):
        return [{"role": "user", "content": _text(name, place, field, value)}]
    if not value:
        raise DataError(f"{name}: {place}: {field} is an empty list; accepted: messages with role and content")
    messages = []
    for number, message in enumerate(value, start=1):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise DataError(
                f"{name}: {place}: message {number} of {field} has no role; accepted: objects with role and content"
            )
        if "content" not in message:
            raise DataError(
                f"{name}: {place}: message {number} of {field} has no content; accepted: objects with role and content"
            )
        # In a .parquet every message has the keys of all; a key without a value is one that it does not have.
        messages.append({key: part for key, part in message.items() if part is not None or key == "content"})
    return messages
