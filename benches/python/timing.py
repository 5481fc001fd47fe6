"""Times that can be compared: all contenders in turn, round after round, so that a drift of the machine hits all."""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

# Seconds. Threads of the contender before may still spin for a while, waiting for more work.
PAUSE = 0.1


@dataclass
class Contender:
    """One way to do the job.

    Attributes
    ----------
    name : str
        What the tables call it.
    call : callable
        Does the job and returns its answer.
    runs : int
        How often it is timed; the slow ones less often.
    scale : float
        What a measured time is multiplied by, for one that does only a part of the job.
    warm_up : callable, optional
        Called once before anything is timed; `call` itself if left out.
    inspect : callable, optional
        Gets the first answer, untimed, and returns what is to be known of it.
    details : dict
        Goes into the results as it is.
    """

    name: str
    call: Callable[[], Any]
    runs: int = 5
    scale: float = 1.0
    warm_up: Callable[[], object] | None = None
    inspect: Callable[[Any], dict[str, Any]] | None = None
    details: dict[str, Any] = field(default_factory=dict)


def race(
    contenders: Sequence[Contender], each_round: Callable[[], object] | None = None, pause: float = PAUSE
) -> list[dict[str, Any]]:
    """Time all contenders, A B C A B C …, and return one result for each.

    A result has the name, the details, what `inspect` said, and ``seconds``: the times of the whole job, a round each.
    """
    results: list[dict[str, Any]] = []
    for contender in contenders:
        say(f"  warm-up: {contender.name}")
        (contender.warm_up or contender.call)()
        results.append({"name": contender.name, "scale": contender.scale, **contender.details, "seconds": []})
    for turn in range(max(contender.runs for contender in contenders)):
        say(f"  round {turn + 1}")
        if each_round is not None:
            each_round()
        for contender, result in zip(contenders, results, strict=True):
            if turn >= contender.runs:
                continue
            gc.collect()
            time.sleep(pause)
            start = time.perf_counter()
            answer = contender.call()
            elapsed = time.perf_counter() - start
            result["seconds"].append(elapsed * contender.scale)
            if turn == 0 and contender.inspect is not None:
                result.update(contender.inspect(answer))
            # Not kept while the next one runs.
            del answer
    return results


def ratios(slower: Sequence[float], faster: Sequence[float]) -> dict[str, float]:
    """How many times as long, round by round: the median, the smallest and the largest."""
    pairs = [s / f for s, f in zip(slower, faster, strict=False)]
    return {"median": statistics.median(pairs), "low": min(pairs), "high": max(pairs)}


def say(line: str) -> None:
    """Tell the person who waits how far it is."""
    print(line, file=sys.stderr, flush=True)
