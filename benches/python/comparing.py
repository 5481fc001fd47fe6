"""The comparison of two conditions: 20 million pairs of choices, beside what people write today."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import moefps
from moefps.comparison import Comparison
from moefps.comparison.matching import match_pairs
from moefps.io import Dump
from moefps.io.pair_tokens import read_pair_tokens
from moefps.kernels import compare_choices

from .paired import FULL, QUICK, write_conditions
from .peers import installed
from .timing import Contender, race, say
from .trace_metrics import AnonymousMemory

Array = npt.NDArray[Any]

RESAMPLES = 2000
CHUNK = 4096
# One layer in so many is enough to time a slow way by.
PART = 8


def main(n_threads: int, *, quick: bool) -> dict[str, Any]:
    """Time all contenders on `n_threads` threads."""
    with tempfile.TemporaryDirectory(prefix="moefps-bench-") as folder:
        paths, pairs = write_conditions(Path(folder), QUICK if quick else FULL)
        joined = _join(paths, pairs)
        say(f"compare, {n_threads} threads")
        contenders = race(list(_contenders(paths, pairs, joined, n_threads, runs=2 if quick else 3)))
        shape = len(joined.task), joined.dumps[0].n_layers, joined.dumps[0].top_k
        sizes = {"tasks": joined.shape[0], "groups": len(joined.members), "resamples": RESAMPLES}
        return {"shape": shape, **sizes, "contenders": contenders}


@dataclass(frozen=True)
class Joined:
    """Which tokens are compared: what all but `moefps.compare` itself are handed ready-made.

    `members` says which of K classes belong to each of G groups, and `expected` has the mean TV and Jaccard index,
    [L, G, 2], that all have to agree on.
    """

    dumps: tuple[Dump, Dump]
    rows: tuple[Array, Array]
    task: Array
    kind: Array
    members: Array
    expected: Array

    @property
    def shape(self) -> tuple[int, int]:
        """Tasks and classes, (N, K)."""
        return int(self.task[-1]) + 1, self.members.shape[1]

    @cached_property
    def cells(self) -> Array:
        """The task and class of every pair as one number, [P]."""
        return self.task * self.shape[1] + self.kind

    @property
    def n_cells(self) -> int:
        """N times K."""
        return math.prod(self.shape)


def _join(paths: list[Path], pairs: Path) -> Joined:
    a, b = (moefps.open_dump(path) for path in paths)
    match = match_pairs(a, b, read_pair_tokens(pairs))
    table = moefps.compare(a, b, pairs, n_resamples=0).layer_metrics
    means = table.select("tv", "jaccard").to_numpy().reshape(a.n_layers, len(match.grouping.names), 2)
    return Joined((a, b), match.rows, match.task, match.kind.astype(np.int64), match.grouping.members, means)


def _contenders(paths: list[Path], pairs: Path, joined: Joined, n_threads: int, *, runs: int) -> Iterator[Contender]:
    details = {"threads": n_threads}

    def whole() -> tuple[int, Comparison]:
        with AnonymousMemory() as memory:
            found = moefps.compare(*paths, pairs, n_resamples=RESAMPLES, n_threads=n_threads)
        return memory.peak_bytes, found

    yield Contender("moefps.compare", whole, runs, inspect=_describe, details=details)
    n_layers = joined.dumps[0].n_layers
    ways: list[tuple[str, Callable[[range], Array], range]]
    ways = [("moefps, its kernel alone", lambda _: _kernel(joined, n_threads), range(n_layers))]
    if installed("numba"):
        from .compiled_pairs import numba_sums

        def compiled(_: range) -> Array:
            sums = numba_sums(joined.dumps, joined.rows, joined.task, joined.kind, joined.shape[1])
            return np.concatenate([sums[..., :2], _count(joined, n_layers)], axis=-1)

        ways.append(("numba, a kernel written for this", compiled, range(n_layers)))

    def dense(layers: range) -> Array:
        with ThreadPoolExecutor(n_threads) as pool:
            return np.stack(list(pool.map(lambda layer: _dense_layer(joined, layer), layers)), axis=2)

    ways.append(("numpy, dense rows of experts, TV and Jaccard alone", dense, range(0, n_layers, PART)))
    for name, call, layers in ways:
        part = "" if len(layers) == n_layers else f"{len(layers)} of {n_layers} layers"
        yield Contender(
            name,
            partial(call, layers),
            runs,
            n_layers / len(layers),
            inspect=partial(_check, joined, layers),
            details={**details, "part": part},
        )


def _describe(answer: tuple[int, Comparison]) -> dict[str, int]:
    peak, found = answer
    counts = [int(number) for name, number in found.summary.items() if name.startswith("count_")]
    # So that nobody times a comparison in which a group has no token.
    return {"anonymous_bytes": peak, "smallest_group": min(counts)}


def _check(joined: Joined, layers: range, sums: Array) -> dict[str, float]:
    """Hold sums [N, K, L', 3] of TV, Jaccard index and tokens against the means of `moefps.compare`."""
    total = np.einsum("gk,klm->lgm", joined.members.astype(np.float64), sums.sum(axis=0))
    return {"difference": float(np.abs(total[..., :2] / total[..., 2:] - joined.expected[list(layers)]).max())}


def _kernel(joined: Joined, n_threads: int) -> Array:
    (a, b), (rows_a, rows_b) = joined.dumps, joined.rows
    sums = compare_choices(
        *(a.expert_ids, a.expert_weights, b.expert_ids, b.expert_weights),
        n_experts=a.n_experts,
        rows_a=rows_a,
        rows_b=rows_b,
        groups=joined.cells,
        n_groups=joined.n_cells,
        require_shares=True,
        n_threads=n_threads,
    )
    found = np.stack([sums.tv_sums, sums.jaccard_sums, sums.pairs], axis=-1)
    return found.reshape(*joined.shape, *found.shape[1:])


def _count(joined: Joined, n_layers: int) -> Array:
    """Tokens by task, class and layer, [N, K, L, 1]: in these data as many in every layer."""
    counts = np.bincount(joined.cells, minlength=joined.n_cells).reshape(joined.shape)
    return np.broadcast_to(counts[:, :, np.newaxis, np.newaxis], (*joined.shape, n_layers, 1))


def _dense_layer(joined: Joined, layer: int) -> Array:
    """Sum TV, the Jaccard index and tokens of a layer by task and class, [N, K, 3], with rows of all experts."""
    found = np.zeros((joined.n_cells, 3))
    for first in range(0, len(joined.task), CHUNK):
        pairs = slice(first, first + CHUNK)
        p, q = (
            _dense_rows(dump.expert_ids[rows[pairs], layer], dump.expert_weights[rows[pairs], layer], dump.n_experts)
            for dump, rows in zip(joined.dumps, joined.rows, strict=True)
        )
        tv = 0.5 * np.abs(p - q).sum(axis=1)
        has_p, has_q = p > 0, q > 0
        jaccard = (has_p & has_q).sum(axis=1) / (has_p | has_q).sum(axis=1)
        for column, of in enumerate((tv, jaccard, None)):
            found[:, column] += np.bincount(joined.cells[pairs], weights=of, minlength=len(found))
    return found.reshape(*joined.shape, 3)


def _dense_rows(ids: Array, weights: Array, n_experts: int) -> Array:
    """Shares of all experts, [n, E]."""
    rows = np.zeros((len(ids), n_experts), dtype=np.float32)
    np.put_along_axis(rows, ids.astype(np.int64), weights / weights.sum(axis=1, keepdims=True), axis=1)
    return rows
