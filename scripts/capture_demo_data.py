"""Captures the fingerprints that moefps brings along, and the small dump that its tests read, from models/demo-moe.

    python scripts/capture_demo_data.py bundle WORK/heldout.jsonl    python/moefps/data/demo: half a minute on a CPU
    python scripts/capture_demo_data.py tests                        tests/data/dumps/demo-moe

WORK/heldout.jsonl is made by the first two steps of scripts/train_demo_model.py. Its texts are others' and stay out of
the repository; what is written is fingerprints, and which documents they came from. The same machine gives the same
bytes; another CPU or torch gives numbers that differ by about 1e-6.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import click
import numpy as np
import polars as pl
import torch
from demo_model import jsonl

import moefps
from moefps.io.bundled import BUNDLED_FILES

ROOT = Path(__file__).resolve().parents[1]
MODEL = "models/demo-moe"
FOLDER = click.Path(file_okay=False, resolve_path=True, path_type=Path)
HASHED = ("model.safetensors", "tokenizer.json", "config.json")
KIND = "probs"


@click.group(help=__doc__.splitlines()[0])
def main() -> None:
    """Group of steps."""
    # The number of threads changes the order of sums, and so the last bits.
    torch.set_num_threads(1)
    # From here the model has the same name on every machine, and that name goes into what is written.
    os.chdir(ROOT)


def _capture(rows: list[dict[str, Any]], columns: tuple[str, ...], **choices: Any) -> moefps.Dump:
    """Capture texts in float32, as bfloat16 leaves nearly equal experts to chance."""
    return moefps.capture(
        MODEL,
        [row["text"] for row in rows],
        samples=pl.DataFrame({name: [row[name] for row in rows] for name in columns}),
        kind=KIND,
        dtype="float32",
        device="cpu",
        **choices,
    )


def _source(dump: moefps.Dump, files: dict[str, str]) -> dict[str, Any]:
    """Say what captured the numbers."""
    n_samples, n_layers, n_experts = dump.fingerprints().shape
    return {
        "about": f"fingerprints of a small trained Mixture-of-Experts model over {n_samples} held-out texts",
        "kind": dump.manifest.fingerprint_kind,
        "n_samples": n_samples,
        "n_tokens": dump.n_tokens,
        "n_layers": n_layers,
        "n_experts": n_experts,
        "top_k": dump.top_k,
        "scoring": dump.layers[0].scoring,
        "model": {"id": MODEL, "type": dump.manifest.model["type"], "dtype": "float32", "sha256": files},
        "texts": f"sources and licences in {MODEL}/README.md",
        "tool_versions": dump.manifest.tool_versions,
    }


@main.command()
@click.argument("heldout", type=click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path))
@click.option("-o", "--output", type=FOLDER, default=ROOT / "python/moefps/data/demo")
def bundle(heldout: Path, output: Path) -> None:
    """Write the data set of `moefps demo`, without texts."""
    rows = jsonl.read(heldout)
    dump = _capture(rows, ("id", "domain", "group"), progress=True)
    # The table has the texts, too, which are left behind here.
    samples = dump.samples.select("sample", "id", "domain", "group", "n_tokens")
    files = {name: hashlib.sha256(Path(MODEL, name).read_bytes()).hexdigest() for name in HASHED}
    output.mkdir(parents=True, exist_ok=True)
    numbers, table, source = (output / name for name in BUNDLED_FILES)
    np.save(numbers, dump.fingerprints(KIND), allow_pickle=False)
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(samples.columns)
        writer.writerows(samples.iter_rows())
    source.write_text(json.dumps(_source(dump, files), indent=2) + "\n", encoding="utf-8")
    for path in (numbers, table, source):
        click.echo(f"{path.name:<20}{path.stat().st_size:>10,} B")


@main.command()
@click.option("-o", "--output", type=FOLDER, default=ROOT / "tests/data/dumps/demo-moe")
def tests(output: Path) -> None:
    """Write the dump of the tests: ids, weights and logits of the first text of each domain."""
    rows: dict[str, dict[str, Any]] = {}
    for row in jsonl.read(Path("tests/data/texts.jsonl")):
        rows.setdefault(row["domain"], row)
    output.parent.mkdir(parents=True, exist_ok=True)
    dump = _capture([*rows.values()], ("id", "domain"), output=output, logits=True, overwrite=True)
    click.echo(f"{dump.n_samples} samples, {dump.n_tokens} tokens")


if __name__ == "__main__":
    main()
