"""The problems that both conditions solve: HumanEval's own file, or any of its shape."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moefps.errors import ArgumentError, DataError, FileError
from moefps.io.files import read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from moefps._typing import PathLike

__all__ = ["Problem", "bad_text", "is_unicode", "name_of_task", "read_lines", "read_problems"]

_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes
    ----------
    task_id : str
        Its name.
    prompt : str
        The stub: what is to be completed, verbatim.
    solution : str
        The canonical solution, which follows the stub.
    """

    task_id: str
    prompt: str
    solution: str


def read_problems(
    problems: PathLike | Iterable[Mapping[str, Any]],
) -> tuple[list[Problem], dict[str, str]]:
    """Read problems, and say which cannot be used.

    Parameters
    ----------
    problems : path or iterable of mapping
        A .jsonl, also compressed with gzip, with ``task_id``, ``prompt`` and ``canonical_solution`` in every line; or
        such rows.

    Returns
    -------
    problems : list of Problem
        In the order of the file.
    left_out : dict
        Name of a task to the reason why it cannot be used: it has no prompt, or no solution.

    Raises
    ------
    ArgumentError
        It is neither a path nor rows.
    FileError
        The file is missing, empty, not utf-8, or a line is not JSON.
    DataError
        A row has no ``task_id``, or one that another row has, too.

    Examples
    --------
    >>> rows = [{"task_id": "a", "prompt": "def f():", "canonical_solution": " pass"}, {"task_id": "b", "prompt": "x"}]
    >>> read_problems(rows)
    ([Problem(task_id='a', prompt='def f():', solution=' pass')], {'b': 'has no canonical_solution'})
    """
    if isinstance(problems, str | os.PathLike):
        name = os.fspath(problems)
        rows = [(f"line {number:,}", row) for number, row in _json_lines(name)]
    else:
        if not isinstance(problems, Iterable):
            raise ArgumentError(f"problems: got a {type(problems).__name__}; accepted: a file, or rows")
        name, rows = "problems", [(f"entry {i}", row) for i, row in enumerate(problems)]
    found: list[Problem] = []
    left_out: dict[str, str] = {}
    seen: set[str] = set()
    for place, row in rows:
        if not isinstance(row, Mapping):
            raise DataError(f"{name}: {place} is no object; accepted: task_id, prompt and canonical_solution")
        task_id = name_of_task(row.get("task_id"))
        if task_id is None:
            raise DataError(f"{name}: {place}: task_id is missing or no text; accepted: a text that is not empty")
        if task_id in seen:
            raise DataError(f"{name}: {place}: task {task_id} is there twice; accepted: every task once")
        seen.add(task_id)
        problem = Problem(task_id, row.get("prompt"), row.get("canonical_solution"))  # type: ignore[arg-type]
        reason = bad_text("prompt", problem.prompt) or bad_text("canonical_solution", problem.solution)
        if reason is None:
            found.append(problem)
        else:
            left_out[task_id] = reason
    if not seen:
        raise FileError(f"{name}: holds no problem")
    return found, left_out


def name_of_task(value: Any) -> str | None:
    """Give the name of a task, a text on one line or a number; None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    is_name = isinstance(value, str) and value != "" and len(value.splitlines()) == 1 and is_unicode(value)
    return value if is_name else None


def bad_text(field: str, value: Any) -> str | None:
    """Say what is wrong with a text, None where it is one."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return f"has no {field}"
    if not isinstance(value, str):
        return f"has a {field} that is no text"
    return None if is_unicode(value) else f"has half of a surrogate pair in its {field}, which is no character"


def is_unicode(value: str) -> bool:
    """Tell whether a text is made of characters; JSON can hold half of a surrogate pair."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_lines(name: str) -> str:
    """Read a text file as a whole, unpacked where it is compressed with gzip.

    Raises
    ------
    FileError
        The file is missing, empty, damaged or not utf-8.
    """
    data = read_bytes(name)
    if data.startswith(_GZIP):
        try:
            data = gzip.decompress(data)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise FileError(f"{name}: is damaged: gzip cannot unpack it") from error
    if not data.strip():
        raise FileError(f"{name}: the file is empty")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FileError(f"{name}: line {line:,} is not utf-8; accepted: text in utf-8") from error


def _json_lines(name: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(read_lines(name).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", None) or str(error).splitlines()[0]
            raise FileError(f"{name}: line {number:,} is not JSON: {reason}; accepted: a problem a line") from error
