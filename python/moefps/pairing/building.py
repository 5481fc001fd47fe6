"""`build_pairs`: the same problem as the end of an agent's trajectory, and as a user's prompt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from moefps.errors import ArgumentError, DataError
from moefps.io.atomic import atomic_file, check_destination
from moefps.pairing.docstrings import clip_spans, docstring_spans, looks_like_python
from moefps.pairing.pair_files import CANONICAL, Pair, Segment, serialise_pairs
from moefps.pairing.problems import Problem, read_problems
from moefps.pairing.trajectories import Trajectory, read_trajectories, template_trajectory

if TYPE_CHECKING:
    from moefps._typing import PathLike

__all__ = ["STUB", "Pairs", "build_pairs"]

STUB = "stub"
"""Key of the problem's own text."""

INSTRUCTION = "Complete this function. Answer with the code that comes next.\n\n"
"""What the user says before the stub in the assisted condition."""

OPENING, CLOSING = "<tool_response>\n", "\n</tool_response>\n"
"""What stands around a tool's answer."""

_LINE_BREAK = re.compile(r"\r?\n")
_LINE_BREAK_AT_END = re.compile(r"\r?\n\Z")


@dataclass(frozen=True, eq=False)
class Pairs(Sequence[Pair]):
    """Pairs, and what became of the tasks that are not among them.

    Attributes
    ----------
    pairs : tuple of Pair
        In the order of the problems.
    left_out : dict
        Name of a task that has no pair to the reason why.
    canonical_only : tuple of str
        Tasks whose trajectory shows the stub nowhere verbatim, so that only the solution is compared.
    unused : dict
        Trajectories that were not taken to the reason why.
    """

    pairs: tuple[Pair, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    canonical_only: tuple[str, ...] = ()
    unused: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: Any) -> Any:
        return self.pairs[index]


def build_pairs(
    problems: PathLike | Iterable[Mapping[str, Any]],
    *,
    trajectories: PathLike | Iterable[PathLike | Mapping[str, Any]] | None = None,
    template: bool = False,
    output: PathLike | None = None,
    overwrite: bool = False,
) -> Pairs:
    r"""Build two conditions of every problem: after an agent's trajectory, and straight after a user's prompt.

    In the agentic condition the problem's stub reaches the model in a tool's answer, in the assisted one in the user's
    words; both end with the canonical solution. The stub and the solution have keys (``stub``, ``canonical``): they are
    the same text in both, and what is compared. The stub of the agentic condition is its first verbatim occurrence in
    the first tool response that has one; where none has, only the solution has a key.

    Parameters
    ----------
    problems : path or iterable of mapping
        A .jsonl, also .gz, with ``task_id``, ``prompt`` and ``canonical_solution``, such as HumanEval's own; or rows.
    trajectories : path, or iterable of path and mapping, optional
        What agents did: lines of ``{"task_id", "messages", "tools"?}`` in OpenAI's style, SWE-agent's .traj, or
        tau-bench's results.
    template : bool
        True makes a trajectory for every problem: a file-reading tool returns the stub.
    output : path, optional
        A .jsonl to write, a pair a line.
    overwrite : bool
        True replaces a file that exists.

    Returns
    -------
    Pairs

    Raises
    ------
    ArgumentError
        Neither or both of `trajectories` and `template` are given.
    DataError
        No pair could be built, or a problem has no name of its own.
    FileError
        A file is missing or damaged, or the output cannot be written.

    Examples
    --------
    >>> import moefps
    >>> stub, body = 'def one():\n    "One."\n', "    return 1\n"
    >>> problems = [{"task_id": "t/0", "prompt": stub, "canonical_solution": body}, {"task_id": "t/1", "prompt": stub}]
    >>> pairs = moefps.build_pairs(problems, template=True)
    >>> [(segment.kind, segment.key) for segment in pairs[0].assisted]
    [('user_prompt', None), ('user_prompt', 'stub'), ('canonical', 'canonical')]
    >>> [segment.kind for segment in pairs[0].agentic if segment.key == "stub"], pairs[0].assisted[1].docstrings
    (['tool_response'], ((15, 21),))
    >>> pairs.left_out
    {'t/1': 'has no canonical_solution'}
    """
    if template == (trajectories is not None):
        both = "both" if template else "neither"
        raise ArgumentError(f"trajectories and template: got {both}; accepted: one of them")
    if output is not None:
        check_destination(output, overwrite=overwrite, argument="output")
    found, left_out = read_problems(problems)
    by_task, unused = _trajectories(found, trajectories, left_out)
    pairs = tuple(build_pair(problem, by_task[problem.task_id]) for problem in found if problem.task_id in by_task)
    if not pairs:
        raise DataError(f"problems: no pair can be built: {_why(left_out, unused)}")
    # A text that the agent's side does not show verbatim has no key on the user's side either.
    without = tuple(pair.task_id for pair in pairs if all(segment.key != STUB for segment in pair.agentic))
    if output is not None:
        with atomic_file(output, overwrite=overwrite) as file:
            file.write(serialise_pairs(pairs))
    return Pairs(pairs, left_out, without, unused)


def build_pair(problem: Problem, trajectory: Trajectory) -> Pair:
    """Build both conditions of one problem."""
    stub_spans = docstring_spans(problem.prompt)
    stub = Segment("user_prompt", STUB, problem.prompt, tuple(stub_spans or ()))
    canonical = Segment(CANONICAL, CANONICAL, problem.solution, _canonical_spans(problem))
    agentic = [*_agentic(trajectory, stub), canonical]
    if all(segment.key != STUB for segment in agentic):
        stub = Segment(stub.kind, None, stub.text, stub.docstrings)
    assisted = (Segment("user_prompt", None, INSTRUCTION), stub, canonical)
    return Pair(problem.task_id, tuple(agentic), assisted)


def _trajectories(
    problems: list[Problem],
    trajectories: PathLike | Iterable[PathLike | Mapping[str, Any]] | None,
    left_out: dict[str, str],
) -> tuple[dict[str, Trajectory], dict[str, str]]:
    """Find a trajectory for every problem; adds the tasks without one to those left out."""
    if trajectories is None:
        return {problem.task_id: template_trajectory(problem.prompt) for problem in problems}, {}
    found = read_trajectories(trajectories, [*(problem.task_id for problem in problems), *left_out])
    for problem in problems:
        if problem.task_id not in found.by_task:
            left_out[problem.task_id] = found.malformed.get(problem.task_id, "has no trajectory")
    return found.by_task, found.unused


def _why(left_out: dict[str, str], unused: dict[str, str]) -> str:
    """Say why no task has a pair, by the last example, which had a solution if any had."""
    task_id, reason = list(left_out.items())[-1]
    others = f", and so on for all {len(left_out):,} tasks" if len(left_out) > 1 else ""
    source = next(iter(unused), None)
    return f"task {task_id} {reason}{others}" + ("" if source is None else f"; not used: {source}: {unused[source]}")


def _canonical_spans(problem: Problem) -> tuple[tuple[int, int], ...]:
    """Find the docstrings of a solution, which as a rule is the rest of a function and parses only after its stub."""
    whole = docstring_spans(problem.prompt + problem.solution)
    if whole is None:
        return tuple(docstring_spans(problem.solution) or ())
    n_stub = len(problem.prompt)
    return tuple(clip_spans(whole, n_stub, n_stub + len(problem.solution)))


def _agentic(trajectory: Trajectory, stub: Segment) -> Iterator[Segment]:
    """Put a trajectory into segments; the schema of the tools stands after the first system prompt."""
    schema = _schema(trajectory.tools)
    if not (trajectory.turns and trajectory.turns[0].role == "system"):
        yield from schema
        schema = []
    is_stub_shown = False
    for turn in trajectory.turns:
        if turn.role == "tool":
            for answer in _answers(turn.text, stub.text):
                segments = _response(answer, None if is_stub_shown else stub)
                is_stub_shown = is_stub_shown or any(segment.key == STUB for segment in segments)
                yield from segments
            continue
        kind = "user_prompt" if turn.role == "user" else turn.role
        if turn.text:
            yield Segment(kind, None, _line(turn.text))
        for call in turn.calls:
            yield Segment("tool_call", None, f"<tool_call>\n{call}\n</tool_call>\n")
        yield from schema
        schema = []


def _schema(tools: tuple[str, ...]) -> list[Segment]:
    lines = "\n".join(tools)
    return [Segment("tool_schema", None, f"<tools>\n{lines}\n</tools>\n")] if tools else []


def _response(text: str, stub: Segment | None) -> list[Segment]:
    """Put a tool's answer into segments: its tags, and the stub where it is looked for and there."""
    spans = docstring_spans(text) if looks_like_python(text) else None
    at = -1 if stub is None else text.find(stub.text)
    # Without the stub all is before it.
    at, end = (len(text), len(text)) if stub is None or at < 0 else (at, at + len(stub.text))
    segments = [Segment("tool_response", None, OPENING)]
    for start, stop in ((0, at), (at, end), (end, len(text))):
        inside = None if spans is None else tuple(clip_spans(spans, start, stop))
        if stub is not None and start == at < stop:
            segments.append(Segment("tool_response", STUB, stub.text, stub.docstrings))
        elif start < stop:
            segments.append(Segment("tool_response", None, text[start:stop], inside))
    return [*segments, Segment("tool_response", None, CLOSING)]


def _answers(text: str, stub: str) -> list[str]:
    """Take the tags off, which some agents record: of one answer, or of several in one message."""
    start, end = OPENING.strip(), CLOSING.strip()
    inner = text.strip()
    if len(inner) < len(start) + len(end) or not (inner.startswith(start) and inner.endswith(end)):
        return [text]
    inner = inner[len(start) : len(inner) - len(end)]
    return [_between_tags(answer, stub) for answer in re.split(f"{end}\\s*{start}", inner)]


def _between_tags(text: str, stub: str) -> str:
    """Take off the line breaks that go with the tags, but none that the stub begins or ends with."""
    before, after = _LINE_BREAK.match(text), _LINE_BREAK_AT_END.search(text)
    starts = {0 if before is None else before.end(), 0}
    ends = {len(text) if after is None else after.start(), len(text)}
    ways = [text[start:end] for start in sorted(starts, reverse=True) for end in sorted(ends)]
    return next((way for way in ways if stub in way), ways[0])


def _line(text: str) -> str:
    """End a text with a line break, as turns follow each other without anything between them."""
    return text if text.endswith("\n") else text + "\n"
