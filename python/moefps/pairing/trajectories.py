"""Trajectories of agents: OpenAI-style lines, SWE-agent's .traj, tau-bench's results."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from moefps.errors import DataError, FileError
from moefps.pairing.messages import MalformedError, Turn, read_messages, read_tools
from moefps.pairing.problems import name_of_task, read_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from moefps._typing import PathLike

__all__ = ["Trajectories", "Trajectory", "read_trajectories", "template_trajectory"]

_TRAJ = ".traj"
_GZ = ".gz"


@dataclass(frozen=True)
class Trajectory:
    """What an agent said and was told about one task.

    Attributes
    ----------
    turns : tuple of Turn
        The messages, in order.
    tools : tuple of str
        The tools that it was offered, each as JSON.
    source : str
        Where it comes from, in words.
    """

    turns: tuple[Turn, ...]
    tools: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class Trajectories:
    """Trajectories by task, and what was not taken.

    Attributes
    ----------
    by_task : dict
        Name of a task to its trajectory.
    malformed : dict
        Name of a task, all of whose trajectories are malformed, to what is wrong.
    unused : dict
        What is left out beside that, in words, to the reason why.
    """

    by_task: dict[str, Trajectory]
    malformed: dict[str, str]
    unused: dict[str, str]


@dataclass(frozen=True)
class _Record:
    """One trajectory as it was found, not looked into yet."""

    task_id: str
    trial: int
    messages: Any
    tools: Any
    source: str


def read_trajectories(
    trajectories: PathLike | Iterable[PathLike | Mapping[str, Any]], tasks: Sequence[str]
) -> Trajectories:
    """Read the trajectories of tasks; one that is malformed is named, and the others go on.

    Parameters
    ----------
    trajectories : path, or iterable of path and mapping
        Files, told apart by what they hold: lines or a list of ``{"task_id", "messages", "tools"?}``; SWE-agent's
        ``{"history"}``, whose task is the stem of the file's name; tau-bench's list of ``{"task_id", "trial",
        "traj"}``. Or such rows.
    tasks : sequence of str
        Names of the problems. The stem of a .traj may have other characters where a name has what no file name can
        hold: ``HumanEval_0.traj`` is that of ``HumanEval/0``.

    Returns
    -------
    Trajectories
        Of several for one task the lowest trial, then the one given first.

    Raises
    ------
    DataError
        Nothing was given.
    FileError
        A file does not exist.
    """
    given = [trajectories] if isinstance(trajectories, str | os.PathLike | Mapping) else list(trajectories)
    if not given:
        raise DataError("trajectories: got none; accepted: files, or rows with task_id and messages")
    found = Trajectories({}, {}, {})
    records: list[_Record] = []
    for i, one in enumerate(given):
        name = f"trajectories[{i}]" if isinstance(one, Mapping) else os.fspath(one)
        if not isinstance(one, Mapping) and (Path(name).is_dir() or not Path(name).exists()):
            raise FileError(f"{name}: {'is a folder, expected a file' if Path(name).is_dir() else 'does not exist'}")
        try:
            records.extend(_records(one, name, tasks, found))
        except (FileError, MalformedError) as error:
            found.unused[name] = str(error).removeprefix(f"{name}: ")
    known = set(tasks)
    for record in sorted(records, key=lambda record: record.trial):
        _take(record, found, known)
    for task_id in [task_id for task_id in found.malformed if task_id in found.by_task or task_id not in known]:
        found.unused[f"a trajectory of task {task_id}"] = found.malformed.pop(task_id)
    return found


def template_trajectory(stub: str) -> Trajectory:
    """Make the trajectory of an agent that reads the stub from a file, and then answers.

    Parameters
    ----------
    stub : str
        The problem's prompt, which the tool returns as it is.

    Examples
    --------
    >>> [turn.role for turn in template_trajectory("def f():").turns]
    ['system', 'user', 'assistant', 'tool']
    """
    call = '{"name": "read_file", "arguments": {"path": "solution.py"}}'
    tool = {
        "type": "function",
        "function": {
            "name": "read_file",
            "description": "Read a file of the workspace.",
            "parameters": {
                "type": "object",
                "properties": {"path": {"type": "string", "description": "The file's path."}},
                "required": ["path"],
            },
        },
    }
    turns = (
        Turn("system", "You are a programming assistant. You work in a repository, with tools."),
        Turn("user", "Complete the function in solution.py. Answer with the code that comes next in the file."),
        Turn("assistant", "I will read the file first.", (call,)),
        Turn("tool", stub),
    )
    return Trajectory(turns, (json.dumps(tool),), "the template")


def _take(record: _Record, found: Trajectories, known: set[str]) -> None:
    """Look into one trajectory, and keep it where it is the first good one of a task."""
    if record.task_id not in known:
        found.unused[record.source] = f"no problem has its task, {record.task_id}"
        return
    if record.task_id in found.by_task:
        found.unused[record.source] = f"task {record.task_id} has one already, {found.by_task[record.task_id].source}"
        return
    try:
        turns, tools = read_messages(record.messages), read_tools(record.tools)
    except MalformedError as error:
        found.malformed.setdefault(record.task_id, f"its trajectory is malformed: {record.source}: {error}")
        return
    found.by_task[record.task_id] = Trajectory(tuple(turns), tools, record.source)


def _records(
    given: PathLike | Mapping[str, Any], name: str, tasks: Sequence[str], found: Trajectories
) -> Iterator[_Record]:
    """Tell the kinds of file apart, and give the trajectories of one."""
    if isinstance(given, Mapping):
        yield _row_record(given, name)
        return
    content = read_lines(name)
    whole = _json_or_none(content)
    file = PurePath(name).name.removesuffix(_GZ)
    if file.endswith(_TRAJ) or (isinstance(whole, dict) and "history" in whole):
        task_id = _task_of_stem(PurePath(file).stem, tasks)
        if isinstance(whole, dict) and "history" in whole:
            yield _Record(task_id, 0, whole["history"], whole.get("tools"), name)
        else:
            problem = "has no history, SWE-agent's list of messages" if whole is not None else "is not JSON"
            found.malformed.setdefault(task_id, f"its trajectory is malformed: {name}: {problem}")
        return
    if isinstance(whole, list):
        rows = [(f"{name}, entry {i}", row) for i, row in enumerate(whole)]
    elif isinstance(whole, dict):
        rows = [(name, whole)]
    else:
        lines = enumerate(content.split("\n"), start=1)
        rows = [(f"{name}, line {number:,}", line) for number, line in lines if line.strip()]
    for place, row in rows:
        try:
            yield _row_record(row, place)
        except MalformedError as error:  # noqa: PERF203 (the others go on)
            found.unused[place] = str(error)


def _row_record(row: Any, place: str) -> _Record:
    """Take one row of a list, or one line."""
    if isinstance(row, str):
        row = _json_or_none(row)
        if row is None:
            raise MalformedError("is not JSON")
    if not isinstance(row, Mapping):
        raise MalformedError("is no object")
    if "traj" not in row:
        return _openai_record(row, place)
    task_id, trial = name_of_task(row.get("task_id")), row.get("trial", 0)
    if task_id is None:
        raise MalformedError("has no task_id")
    if not isinstance(trial, int):
        raise MalformedError(f"the trial of task {task_id} is no number")
    return _Record(task_id, trial, row["traj"], row.get("tools"), f"{place} (task {task_id}, trial {trial})")


def _openai_record(row: Mapping[str, Any], place: str) -> _Record:
    task_id = name_of_task(row.get("task_id"))
    if task_id is None:
        raise MalformedError("has no task_id")
    return _Record(task_id, 0, row.get("messages"), row.get("tools"), f"{place} (task {task_id})")


def _json_or_none(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _task_of_stem(stem: str, tasks: Sequence[str]) -> str:
    """Find the task that a file is named after; the stem itself where there is none, or several."""
    if stem in tasks:
        return stem
    plain = _plain(stem)
    like = [task for task in tasks if _plain(task) == plain]
    return like[0] if len(like) == 1 else stem


@lru_cache(maxsize=1 << 16)
def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", name)
