"""`moefps fingerprint`: what `Dump.fingerprints` gives, in a file, with what each of them is of."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import moefps


@pytest.fixture
def dump(here):
    """Five samples, one of them empty in layer 1."""
    rng = np.random.default_rng(0)
    lengths = [40, 7, 33, 12, 64]
    n_tokens = sum(lengths)
    ids = rng.permuted(np.tile(np.arange(8), (n_tokens, 3, 1)), axis=2)[:, :, :2]
    ids[40:47, 1] = -1
    return moefps.write_dump(
        "t.dump",
        expert_ids=ids,
        expert_weights=rng.random((n_tokens, 3, 2)).astype(np.float32),
        router_logits=rng.normal(size=(n_tokens, 3, 8)).astype(np.float32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        n_experts=8,
        scoring="softmax",
        samples=pl.DataFrame({"domain": ["a", "b", "a", "c", "b"], "tags": [["x"], [], ["y"], [], []]}),
    )


@pytest.mark.parametrize("kind", ["probs", "weights", "counts", None])
def test_writes_what_the_api_gives(kind, dump, cli):
    options = [] if kind is None else ["--kind", kind]
    result = cli("fingerprint", "t.dump", "-o", "X.npy", "--drop-empty", *options)
    found = np.load("X.npy")
    assert found.dtype == np.float32
    assert np.array_equal(found, dump.fingerprints(kind, drop_empty=True))
    assert result.stdout.splitlines()[1] == f"  kind {kind or 'weights'}"
    assert "  1 without a fingerprint, left out" in result.stdout
    assert cli("info", "X.npy").stdout.startswith("X.npy: fingerprints of 4 samples, 3 layers, 8 experts")


def test_windows_with_their_table(dump, process):
    done = process(
        "fingerprint", "t.dump", "-o", "X.npy", "--window", "16", "--stride", "8", "--layers", "0,2", "--table", "r.csv"
    )
    found = dump.fingerprint_set(window=16, stride=8, layers=[0, 2])
    assert np.array_equal(np.load("X.npy"), found.array)
    table = pl.read_csv("r.csv")
    assert table.columns == ["sample", "window_start", "n_tokens", "domain", "tags"]
    assert table.height == len(found.array)
    assert table["tags"][0] == '["x"]'
    assert table["domain"].to_list() == found.rows["domain"].to_list()
    assert "  kind weights, a fingerprint for every 16 tokens, 8 apart\n" in done.stdout
    assert done.stdout.endswith("r.csv: what each of them is of\n")


@pytest.mark.parametrize("output_format", ["json", "csv"])
def test_formats(output_format, dump, cli):
    result = cli("fingerprint", "t.dump", "-o", "X.npy", "--drop-empty", "--format", output_format)
    record = (
        json.loads(result.stdout)
        if output_format == "json"
        else pl.read_csv(io.BytesIO(result.stdout_bytes)).row(0, named=True)
    )
    assert (record["n_samples"], record["kind"], record["n_dropped"]) == (4, "weights", 1)


BAD = {
    "an empty sample": ([], "sample 1.*layer 1"),
    "no such layer": (["--layers", "0-3"], "--layers: 3; accepted: "),
    "layers that are no numbers": (["--layers", "a"], "--layers: found 'a'; accepted: numbers and ranges"),
    "layers that go down": (["--layers", "3-1"], "--layers: found '3-1', which goes down"),
    "a layer twice": (["--layers", "0,0"], r"--layers: \[0, 0\]; accepted: integers of 0 to 2, each once"),
    "stride alone": (["--stride", "4"], "--stride: given without window"),
    "window": (["--window", "0"], "invalid value for '--window'"),
    "kind": (["--kind", "means"], "invalid value for '--kind'"),
    "suffix": (["-o", "X.csv"], "-o: found 'X.csv'; accepted: a name that ends in .npy"),
    "table suffix": (["--table", "r.xls"], "the suffix is .xls"),
    "table as .npy": (["--table", "r.npy"], "--table: found 'r.npy'"),
    "output exists": (["-o", "taken.npy"], "taken.npy: exists already"),
    "table exists": (["--table", "taken.csv"], "taken.csv: exists already"),
}


@pytest.mark.parametrize("case", BAD)
def test_one_line_and_exit_2(case, dump, refuses):
    arguments, words = BAD[case]
    Path("taken.npy").write_text("kept")
    Path("taken.csv").write_text("kept")
    if "-o" not in arguments:
        arguments = [*arguments, "-o", "X.npy"]
    refuses(words, "fingerprint", "t.dump", *arguments)


def test_what_is_no_dump(here, cli):
    Path("folder").mkdir()
    assert "folder: is not a dump" in cli("fingerprint", "folder", "-o", "X.npy", code=2).stderr
    assert "no: no such folder" in cli("fingerprint", "no", "-o", "X.npy", code=2).stderr


def test_a_kind_that_the_dump_cannot_give(here, cli):
    moefps.write_dump("t.dump", expert_ids=np.zeros((3, 1, 1), dtype=np.int16), offsets=[0, 3], n_experts=2)
    line = cli("fingerprint", "t.dump", "-o", "X.npy", code=2).stderr
    assert re.search("cannot give fingerprints of kind weights: .*no expert_weights; accepted: counts", line)


def test_a_layer_that_no_sample_has_routing_in(here, cli):
    ids = np.array([[[0], [-1]], [[1], [-1]]])
    moefps.write_dump("t.dump", expert_ids=ids, offsets=[0, 1, 2], n_experts=2)
    for more in ((), ("--drop-empty",)):
        line = cli("fingerprint", "t.dump", "-o", "X.npy", "--kind", "counts", *more, code=2).stderr
        assert "--layers" in line
    cli("fingerprint", "t.dump", "-o", "X.npy", "--kind", "counts", "--layers", "0")
