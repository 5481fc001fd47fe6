"""Comparisons for the tests of charts: real ones of small worlds, and wide ones by repeating those."""

from __future__ import annotations

import numpy as np
import polars as pl

import moefps
from comparison.worlds import make_record, random_routing, rows_of, write_condition, write_pairs


def compare_pairs(folder, *, n_layers=3, n_experts=8, k=2, n_tasks=6, weights=True, same=False, n_resamples=30):
    """Two conditions of random routing; with `same`, the second routes every token as the first does."""
    rng = np.random.default_rng(7)
    records = [make_record(rng, f"T/{i}", canonical=24, filler=i % 3) for i in range(n_tasks)]
    pairs = write_pairs(folder / "pairs.json", records)
    width = max(len(record["agentic_ids"]) for record in records)
    # By task and position, so that both conditions can have the same.
    shape = (len(records) * width, [n_experts] * n_layers, k)
    drawn = {name: random_routing(rng, *shape, skew=skew) for name, skew in (("agentic", 1.0), ("assisted", 2.0))}
    dumps = []
    for condition in ("agentic", "assisted"):
        ids, shares = drawn["agentic" if same else condition]
        at = [task * width + position for task, position, _ in rows_of(records, condition)]
        dumps.append(
            write_condition(
                folder / f"{condition}.dump",
                records,
                condition,
                ids=ids[at],
                weights=shares[at] if weights else None,
                n_experts=[n_experts] * n_layers,
                pairs=pairs,
            )
        )
    return moefps.compare(*dumps, pairs, n_resamples=n_resamples)


def compare_rows(folder, values, *, empty_layers=(), n_layers=4, n_experts=6, by="kind"):
    """Two dumps of the same tokens, in groups by a column of the samples; nothing is routed in some layers."""
    rng = np.random.default_rng(11)
    lengths = [3 + i % 4 for i in range(len(values))]
    dumps = []
    for name in ("base", "tuned"):
        ids, weights = random_routing(rng, sum(lengths), [n_experts] * n_layers, 2)
        ids[:, list(empty_layers)] = -1
        weights[:, list(empty_layers)] = 0
        dumps.append(
            moefps.write_dump(
                folder / f"{name}.dump",
                expert_ids=ids,
                expert_weights=weights,
                offsets=np.concatenate([[0], np.cumsum(lengths)]),
                n_experts=n_experts,
                samples=pl.DataFrame({"kind": values}),
            )
        )
    return moefps.compare(*dumps, by=by, n_resamples=20)
