"""What the tests of reports share: sources with every kind of gap and of hostile name, and the command."""

from __future__ import annotations

import inspect
import os
from pathlib import Path

import numpy as np
import polars as pl
from click.testing import CliRunner

import moefps
from comparison.worlds import make_record, random_routing, rows_of, write_condition, write_pairs
from moefps.cli import main

DUMP = Path(__file__).resolve().parents[1] / "data" / "dumps" / "demo-moe"
HOSTILE = '</script><img src=x onerror="document.title=1">'
"""A name that ends a script and an attribute, and brings an element that runs code, where it is not escaped."""
MORE_HOSTILE = '"><svg/onload=alert(1)>, `[a](http://example.org) <!--<script> {{ 7 * 7 }}'
ODD = "'&" if os.name == "nt" else "'\"<b>&"
"""Letters of a file's name that HTML has uses for; not all systems allow them all."""
# Before click 8.2 the two streams were mixed unless one said otherwise.
_SEPARATE = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}


def moefps_command(*arguments, code=0):
    """Run the command in this process."""
    result = CliRunner(**_SEPARATE).invoke(main, [str(argument) for argument in arguments], prog_name="moefps")
    assert result.exit_code == code, (result.stdout, result.stderr)
    return result


def compare_pairs(folder, *, n_tasks=4, n_experts=(6, 5), n_resamples=20):
    """A comparison of pairs: one task has no tool response, and no token of two groups is compared."""
    rng = np.random.default_rng(5)
    records = [make_record(rng, f"T/{i}", has_response=i != 2) for i in range(n_tasks)]
    pairs = write_pairs(folder / "pairs.json", records)
    dumps = []
    for condition in ("agentic", "assisted"):
        ids, weights = random_routing(rng, len(list(rows_of(records, condition))), n_experts, 2)
        world = {"ids": ids, "weights": weights, "n_experts": n_experts, "pairs": pairs}
        dumps.append(write_condition(folder / f"{condition}.dump", records, condition, **world))
    return moefps.compare(*dumps, pairs, n_resamples=n_resamples)


def hostile_dump(folder, name, *, weights=True):
    """A dump of six samples whose column and path hold what should never become HTML."""
    rng = np.random.default_rng(sum(map(ord, name)))
    ids, shares = random_routing(rng, 60, (6, 6, 6), 2)
    samples = {"part": [HOSTILE, MORE_HOSTILE, ""] * 2, "text": [f"{HOSTILE} {i}\n\u2028second line" for i in range(6)]}
    return moefps.write_dump(
        folder / name,
        expert_ids=ids,
        expert_weights=shares if weights else None,
        offsets=np.arange(0, 61, 10),
        n_experts=6,
        samples=pl.DataFrame(samples),
        model={"id": MORE_HOSTILE},
    )
