"""How often intervals of comparisons hold the truth, from traces to tables: run by hand, for the documentation.

    PYTHONPATH=tests python -m coverage_runs --tasks 20 --tasks 60

A pool of tasks is made with shifts planted in it, and what `moefps.compare` says of the whole pool, without intervals,
is the truth. A study is tasks drawn from it: two dumps and a file of pairs, compared as anyone would. In the layers
without a shift every task of the pool has a twin with the conditions exchanged, so that nothing differs in the pool.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import polars as pl
import scipy.stats

import moefps
from comparison.worlds import make_record, rows_of, write_condition, write_pairs

E, K = 32, 4
CONDITIONS = ("agentic", "assisted")


@dataclass(frozen=True)
class Layer:
    """What is planted in a layer.

    `shift` moves scores of experts in the tool's answer and, correlated by `rho`, in the solution; `own` moves those of
    each task and condition; `noise` those of each token and condition, in the solution by `trend` more with every
    doubling of the distance.
    """

    name: str
    shift: float = 0.0
    rho: float = 0.6
    uneven: float = 0.0
    own: float = 0.0
    noise: float = 0.4
    trend: float = 0.0


LAYERS = (
    Layer("no shift"),
    Layer("no shift, uneven load", uneven=1.5),
    Layer("no shift, but of single tasks", own=0.3),
    Layer("weak shift", shift=0.05, own=0.2, trend=0.02),
    Layer("weak shift, uneven load", shift=0.1, own=0.2, uneven=1.5, trend=0.02),
    Layer("strong shift", shift=0.4, own=0.2, trend=0.05),
    Layer("strong shift, uneven load", shift=0.5, own=0.2, uneven=1.5, trend=0.05),
)
TWINS = 3
"""So many layers, the first, have no shift."""


@dataclass(frozen=True)
class Pool:
    """Tasks, and the routing of their tokens in both conditions, [S, L, K] each."""

    records: list[dict]
    routing: list[dict[str, tuple[np.ndarray, np.ndarray]]]


def make_pool(rng, n_tasks) -> Pool:
    """Make tasks of uneven length, the second half as long as the first, task by task."""
    directions = rng.normal(size=(2, len(LAYERS), E))
    rho = np.array([layer.rho for layer in LAYERS])[:, None]
    directions[1] = rho * directions[0] + np.sqrt(1 - rho**2) * directions[1]
    base = np.array([np.linspace(layer.uneven, -layer.uneven, E) for layer in LAYERS])
    records, routing = [], []
    for half in range(2):
        for number in range(n_tasks // 2):
            if half:
                record = {**records[number], "task_id": ""}
            else:
                sizes = np.clip(np.round(rng.lognormal([3.2, 3.6], 0.5)), 6, 200).astype(int).tolist()
                record = make_record(rng, "", stub=sizes[0], canonical=sizes[1])
            scores = _scores(rng, record, base, directions)
            found = {name: _choose(of) for name, of in zip(CONDITIONS, scores, strict=True)}
            if half:
                _exchange(record, found, routing[number])
            records.append(record)
            routing.append(found)
    return Pool(records, routing)


def _scores(rng, record, base, directions):
    """Give scores of the experts for every position of a task, in both conditions."""
    n = len(record["agentic_ids"])
    end = max(end for kind, _, _, end in record["segments"] if kind == "tool_response")
    positions = np.arange(n)
    distance = np.where(positions >= end, positions - end + 1, 1)
    common = base + rng.gumbel(size=(n, len(LAYERS), E)) + 0.5 * rng.normal(size=(len(LAYERS), E))
    noise = np.array([layer.noise + layer.trend * np.log2(distance) for layer in LAYERS]).T[..., None]
    is_docstring = np.isin(positions, record["tool_positions"]["response_docstring"])
    noise = noise * np.where(is_docstring, 0.6, 1.0)[:, None, None]
    own = np.array([layer.own for layer in LAYERS])[:, None]
    sides = [common + own * rng.normal(size=(*own.shape[:1], E)) + noise * rng.normal(size=common.shape) for _ in "ab"]
    shift = np.array([layer.shift for layer in LAYERS])[:, None]
    is_tool = np.isin(positions, record["tool_positions"]["response_non_docstring"])
    is_solution = np.isin(positions, record["canonical_positions"])
    for chosen, direction in ((is_tool, directions[0]), (is_solution, directions[1])):
        sides[0][chosen] += shift * direction
    return sides


def _choose(scores):
    ids = np.argsort(-scores, axis=2)[:, :, :K]
    weights = np.exp(np.take_along_axis(scores, ids, axis=2))
    return ids.astype(np.int16), (weights / weights.sum(axis=2, keepdims=True)).astype(np.float32)


def _exchange(record, found, twin):
    """Give a task what its twin has, the other way round, in the layers without a shift."""
    shared = np.flatnonzero(np.equal(record["agentic_ids"], record["assisted_aligned_ids"]))
    for name, other in (CONDITIONS, CONDITIONS[::-1]):
        for of, theirs in zip(found[name], twin[other], strict=True):
            of[shared, :TWINS] = theirs[shared, :TWINS]


def compare_some(pool, chosen, folder, n_resamples):
    """Write the tasks that were chosen, any of them as often as it was, and compare their conditions."""
    records = [{**pool.records[task], "task_id": str(i)} for i, task in enumerate(chosen)]
    pairs = write_pairs(folder / "pairs.json", records)
    dumps = []
    for name in CONDITIONS:
        masks = [
            np.ones(len(record["agentic_ids"]), dtype=bool)
            if name == "agentic"
            else np.array(record["assisted_aligned_attention_mask"], dtype=bool)
            for record in records
        ]
        ids, weights = (
            np.concatenate([pool.routing[task][name][part][mask] for task, mask in zip(chosen, masks, strict=True)])
            for part in range(2)
        )
        assert len(ids) == sum(1 for _ in rows_of(records, name))
        path = Path(tempfile.mkdtemp(dir=folder)) / name
        world = {"ids": ids, "weights": weights, "n_experts": [E] * len(LAYERS), "pairs": pairs}
        dumps.append(write_condition(path, records, name, **world))
    return moefps.compare(*dumps, pairs, n_resamples=n_resamples)


def estimates(found):
    """Give every estimate that has an interval: its kind, what it is of, its value and the ends."""
    names = [name for name in found.layer_metrics.columns if f"{name}_lo" in found.layer_metrics.columns]
    for name in names:
        for layer, group, *values in found.layer_metrics.select("layer", "group", *_ends(name)).rows():
            yield f"layer_metrics: {name}", (layer, group), values
    for name in ("usage_js", "usage_js_weighted"):
        for layer, group, *values in found.layer_joint_metrics.select("layer", "group", *_ends(name)).rows():
            yield f"{name}, {LAYERS[layer].name}", (layer, group), values
    for layer, expert, *values in found.expert_usage.select("layer", "expert", *_ends("delta_u")).rows():
        yield f"delta_u, {LAYERS[layer].name}", (layer, expert), values
    for layer, *values in found.tool_expert_leakage_summary.select("layer", *_ends("r")).rows():
        yield f"r, {LAYERS[layer].name}", layer, values
    for name in ("tv", "jaccard"):
        for first, *values in found.leakage_vs_distance.select("distance_min", *_ends(name)).rows():
            yield f"leakage_vs_distance: {name}", first, values
        if found.summary["distance_trend"] is not None:
            yield (
                f"distance_trend: {name}",
                "",
                [found.summary["distance_trend"][end] for end in _ends(f"{name}_slope")],
            )
    yield "tool_response_tv: difference", "", [found.summary["tool_response_tv"][end] for end in _ends("difference")]


def _ends(name):
    return [name, f"{name}_lo", f"{name}_hi"]


def run(pool, truth, n_tasks, n_repeats, n_resamples):
    """Repeat a study, and say of every kind of estimate how often its interval holds the truth."""
    rng = np.random.default_rng(n_tasks)
    held, widths = defaultdict(lambda: defaultdict(list)), defaultdict(list)
    p = defaultdict(list)
    for _ in range(n_repeats):
        with tempfile.TemporaryDirectory() as folder:
            chosen = rng.integers(len(pool.records), size=n_tasks)
            found = compare_some(pool, chosen, Path(folder), n_resamples)
        for kind, of, (_, lo, hi) in estimates(found):
            value = truth.get((kind, of))
            if value is not None and lo is not None:
                # The pool is summed up in another order.
                held[kind][of].append(lo - 1e-12 <= value <= hi + 1e-12)
                widths[kind].append(hi - lo)
        for layer, value in found.tool_expert_leakage_summary.select("layer", "p").rows():
            p[layer].append(value)
    click.echo(f"\n{n_tasks} tasks, {n_repeats} repeats, {n_resamples} resamples\n")
    click.echo("| estimate | how many | held, mean | lowest | highest | mean width |\n|---|---|---|---|---|---|")
    for kind, by_name in held.items():
        shares = [np.mean(hits) for hits in by_name.values() if len(hits) > n_repeats / 2]
        if shares:
            words = " | ".join(f"{100 * of:.1f} %" for of in (np.mean(shares), min(shares), max(shares)))
            click.echo(f"| {kind} | {len(shares)} | {words} | {np.mean(widths[kind]):.3g} |")
    click.echo("\n| p, layer | p <= 0.05 | p <= 0.5 | Kolmogorov-Smirnov |\n|---|---|---|---|")
    for layer, values in sorted(p.items()):
        words = " | ".join(f"{100 * np.mean(np.array(values) <= at):.1f} %" for at in (0.05, 0.5))
        click.echo(f"| {LAYERS[layer].name} | {words} | {scipy.stats.kstest(values, 'uniform').pvalue:.2g} |")


@click.command()
@click.option("--tasks", multiple=True, type=int, default=(20, 60, 164), show_default=True)
@click.option("--repeats", default=400, show_default=True)
@click.option("--resamples", default=1000, show_default=True)
@click.option("--pool", "n_pool", default=2000, show_default=True, help="Tasks that are drawn from.")
def main(tasks, repeats, resamples, n_pool):
    """Say how often intervals hold the truth, in tables of Markdown."""
    pool = make_pool(np.random.default_rng(0), n_pool)
    with tempfile.TemporaryDirectory() as folder:
        whole = compare_some(pool, np.arange(n_pool), Path(folder), 0)
    truth = {(kind, of): values[0] for kind, of, values in estimates(whole)}
    for layer, r, n in whole.tool_expert_leakage_summary.sort("layer").select("layer", "r", "n_experts").rows():
        used = whole.layer_joint_metrics.filter((pl.col("layer") == layer) & (pl.col("group") == "all"))
        js, tv = used.select("usage_js", "usage_tv").row(0)
        click.echo(f"layer {layer}, {LAYERS[layer].name}: r {r}, JS {js:.6f}, TV {tv:.5f} over {n} experts")
    for number in tasks:
        run(pool, truth, number, repeats, resamples)


if __name__ == "__main__":
    main()
