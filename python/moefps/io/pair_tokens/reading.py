"""Reading and writing files of aligned tokens."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from moefps.errors import DataError, FileError
from moefps.io.files import read_bytes
from moefps.io.pair_tokens.checking import check_task_tokens
from moefps.io.pair_tokens.task import TOOL_POSITIONS, PairTokens, TaskTokens
from moefps.io.paths import check_path
from moefps.io.strict_json import show, show_text, unique_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from moefps._typing import PathLike

__all__ = ["parse_pair_tokens", "read_pair_tokens", "serialise_pair_tokens"]


def read_pair_tokens(path: PathLike) -> PairTokens:
    """Read a file of aligned tokens, and check all that it must satisfy.

    Parameters
    ----------
    path : path
        A JSON file, as `moefps.align_pairs` writes it.

    Returns
    -------
    PairTokens

    Raises
    ------
    FileError
        The file is missing, cannot be read or is no JSON.
    DataError
        A task is not what `check_task_tokens` asks for, or there twice; names it.
    """
    name = check_path(path, "pairs")
    return parse_pair_tokens(read_bytes(path, "a file of aligned tokens"), name)


def parse_pair_tokens(data: bytes, name: str) -> PairTokens:
    """Take the bytes of such a file; errors as `read_pair_tokens`."""
    try:
        found = json.loads(data.decode("utf-8-sig"), object_pairs_hook=unique_keys)
    except UnicodeDecodeError as error:
        raise FileError(f"{name}: byte {error.start:,} is not utf-8; accepted: JSON in utf-8") from error
    except RecursionError as error:
        raise FileError(f"{name}: is nested too deeply for a file of aligned tokens") from error
    except ValueError as error:
        raise FileError(f"{name}: is not JSON as `moefps pairs align` writes it: {show_text(str(error))}") from error
    if not isinstance(found, list):
        raise DataError(f"{name}: is {show(found)}; accepted: an array with an object for every task")
    if not found:
        raise DataError(f"{name}: holds no task; accepted: at least one")
    tasks = tuple(check_task_tokens(record, name, f"entry {i}") for i, record in enumerate(found))
    seen: set[str] = set()
    for task in tasks:
        if task.task_id in seen:
            raise DataError(f"{name}: task {show_text(task.task_id)} is there twice; accepted: every task once")
        seen.add(task.task_id)
    return PairTokens(tasks, hashlib.sha256(data).hexdigest(), name)


def serialise_pair_tokens(tasks: Sequence[TaskTokens]) -> bytes:
    """Write tasks as the bytes of a file, a line for each; the same tasks always give the same bytes."""
    lines = []
    for task in tasks:
        record: dict[str, Any] = {}
        for field in fields(task):
            value = getattr(task, field.name)
            if field.name == "tool_positions":
                record[field.name] = {part: value[part].tolist() for part in TOOL_POSITIONS}
            elif field.name == "segments":
                record[field.name] = [list(segment) for segment in value]
            else:
                record[field.name] = value if isinstance(value, str) else value.tolist()
        lines.append(json.dumps(record, ensure_ascii=False, separators=(", ", ": ")))
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode("utf-8")
