"""The file of aligned tokens: two conditions of every task, token by token, on the same coordinates.

``moefps pairs align`` writes it; ``moefps capture --pairs`` and ``moefps compare`` read it. It is JSON, an array with
an object for each task. What it must satisfy is checked when it is written and whenever it is read, so that nobody
further on has to ask again.
"""

from __future__ import annotations

from moefps.io.pair_tokens.checking import check_task_tokens
from moefps.io.pair_tokens.reading import parse_pair_tokens, read_pair_tokens, serialise_pair_tokens
from moefps.io.pair_tokens.task import CONDITIONS, TOOL_POSITIONS, PairSegment, PairTokens, TaskTokens

__all__ = [
    "CONDITIONS",
    "TOOL_POSITIONS",
    "PairSegment",
    "PairTokens",
    "TaskTokens",
    "check_task_tokens",
    "parse_pair_tokens",
    "read_pair_tokens",
    "serialise_pair_tokens",
]
