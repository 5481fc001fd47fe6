"""Dumps where fingerprints are taken, and `moefps info` on dumps, whole and half-written."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import moefps
from moefps.io.dump import DumpHeader, DumpWriter, LayerInfo

LENGTHS = [40, 9, 33, 12, 64, 21, 17, 30]


def arrays():
    rng = np.random.default_rng(0)
    ids = rng.permuted(np.tile(np.arange(8), (sum(LENGTHS), 3, 1)), axis=2)[:, :, :2].astype(np.int16)
    return ids, rng.random(ids.shape).astype(np.float32)


COLUMNS = pl.DataFrame(
    {
        "id": [f"s{i}" for i in range(8)],
        "domain": ["law", "law", "code", "code", "math", "math", "law", "code"],
        "index": list(range(10, 18)),
        "score": [0.5] * 8,
        "text": ["a long text " * 20 + "\nwith lines"] * 8,
    }
)


def make(path="t.dump", **changes):
    ids, weights = arrays()
    given = {
        "expert_ids": ids,
        "expert_weights": weights,
        "offsets": np.concatenate([[0], np.cumsum(LENGTHS)]),
        "n_experts": 8,
        "scoring": "softmax",
        "samples": COLUMNS,
    }
    return moefps.write_dump(path, **given | changes)


@pytest.fixture
def dump(here):
    return make()


def test_distance(dump, cli):
    result = cli("distance", "t.dump", "-o", "D.npy", "--kind", "counts")
    assert np.array_equal(np.load("D.npy"), moefps.wasserstein_matrix(dump.fingerprints("counts")))
    assert "  fingerprints of kind counts\n" in result.stdout
    record = json.loads(cli("distance", "t.dump", "-o", "D.npy", "--overwrite", "--format", "json").stdout)
    assert record["kind"] == "weights"


def test_distance_to_another(dump, cli):
    make("u.dump", samples=None)
    X = dump.fingerprints("counts")
    cli("distance", "t.dump", "-o", "D.npy", "--cross", "u.dump", "--kind", "counts")
    assert np.array_equal(np.load("D.npy"), moefps.wasserstein_cross(X, X))
    np.save("X.npy", X)
    cli("distance", "X.npy", "-o", "E.npy", "--cross", "t.dump", "--kind", "counts")
    cli("distance", "t.dump", "-o", "F.npy", "--cross", "X.npy", "--kind", "counts")
    assert np.array_equal(np.load("E.npy"), np.load("D.npy"))
    assert np.array_equal(np.load("F.npy"), np.load("D.npy"))


def test_select_carries_the_samples_own_columns(dump, process):
    process("select", "t.dump", "-m", "3", "-o", "sel.csv")
    picks = pl.read_csv("sel.csv")
    expected = moefps.select(dump.fingerprints(), 3)
    assert picks["index"].to_list() == expected.indices.tolist()
    assert picks.columns == [
        "rank", "index", "radius", "cluster_size", "typicality",
        "n_tokens", "id", "domain", "sample_index", "score", "text",
    ]  # fmt: skip
    for index, name, length in zip(picks["index"], picks["id"], picks["n_tokens"], strict=True):
        assert name == f"s{index}"
        assert length == LENGTHS[index]


def test_select_on_the_screen(dump, cli):
    lines = cli("select", "t.dump", "-m", "3", "--no-typicality").stdout.splitlines()
    assert lines[-1] == "fingerprints of kind weights"
    assert max(len(line) for line in lines) < 160
    assert any("…" in line and "s" in line for line in lines)


def test_select_windows(dump, cli):
    result = cli("select", "t.dump", "-m", "4", "--window", "16", "--stride", "8", "--format", "csv")
    picks = pl.read_csv(io.BytesIO(result.stdout_bytes))
    found = dump.fingerprint_set(window=16, stride=8)
    indices = moefps.select(found.array, 4).indices
    assert picks["index"].to_list() == indices.tolist()
    assert picks["sample"].to_list() == found.rows["sample"][indices].to_list()
    assert picks["window_start"].to_list() == found.rows["window_start"][indices].to_list()
    assert result.stderr == "fingerprints of kind weights\n"
    assert cli("select", "t.dump", "-m", "4", "--format", "csv", "-q").stderr == ""


def test_labels_of_a_column(dump, cli):
    covered = cli("select", "t.dump", "-m", "8", "--labels", "column:domain").stdout
    assert re.search(r"labels covered, of 3 +3 ", covered)
    frame = cli("select", "t.dump", "-m", "8", "--labels", "column:domain", "--format", "csv").stdout
    picks = pl.read_csv(io.BytesIO(frame.encode()))
    assert picks["label"].to_list() == picks["domain"].to_list()
    windows = cli("select", "t.dump", "-m", "4", "--window", "16", "--labels", "column:domain").stdout
    assert "labels covered, of 3" in windows


def test_empty_samples_are_left_out_when_asked(here, cli):
    ids, _ = arrays()
    ids[:40, 1] = -1
    make(expert_ids=ids)
    line = cli("select", "t.dump", "-m", "2", code=2).stderr
    assert re.search("sample 0.*layer 1.*--drop-empty", line)
    result = cli("select", "t.dump", "-m", "2", "--drop-empty", "--format", "json")
    picks = json.loads(result.stdout)
    assert all(pick["id"] == f"s{pick['sample']}" and pick["sample"] == pick["index"] + 1 for pick in picks)
    assert "warning: t.dump: left out 1 of its samples or windows, which have no fingerprint\n" in result.stderr


BAD = {
    "a column that is not there": (["select", "t.dump", "-m", "2", "--labels", "column:task"], "t.dump: has no column 'task'; accepted: sample, "),  # noqa: E501
    "a column of floats": (["select", "t.dump", "-m", "2", "--labels", "column:score"], "column 'score' is Float64; accepted: text"),  # noqa: E501
    "a column of a file": (["select", "X.npy", "-m", "2", "--labels", "column:a"], "names a column of a dump, and X.npy is none"),  # noqa: E501
    "two dumps": (["select", "t.dump", "t.dump", "-m", "2"], "t.dump: is a dump, which cannot be mixed"),
    "a dump and a file": (["distance", "X.npy", "t.dump", "-o", "D.npy"], "t.dump: is a dump, which cannot be mixed"),
    "kind of a file": (["select", "X.npy", "-m", "2", "--kind", "probs"], "--kind: is for a dump; X.npy holds"),
    "window of a file": (["distance", "X.npy", "-o", "D.npy", "--window", "8"], "--window: is for a dump"),
    "dropping from a file": (["distance", "X.npy", "-o", "D.npy", "--drop-empty"], "--drop-empty: is for a dump"),
    "kind of a matrix": (["select", "--distances", "X.npy", "-m", "2", "--kind", "probs"], "--kind changes nothing"),
    "no logits": (["select", "t.dump", "-m", "2", "--kind", "probs"], "cannot give fingerprints of kind probs: .*accepted: weights, counts"),  # noqa: E501
    "single layer": (["select", "t.dump", "-m", "2", "--single-layer"], "--single-layer: means nothing for a dump"),
    "threads of info": (["info", "t.dump", "--threads", "2"], "--threads and --single-layer are for fingerprints"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_one_line_and_exit_2(case, dump, refuses):
    arguments, words = BAD[case]
    np.save("X.npy", dump.fingerprints())
    refuses(words, *arguments)


def test_info(dump, process):
    lines = process("info", "t.dump").stdout.splitlines()
    assert re.fullmatch(r"t\.dump: dump of 8 samples, 226 tokens, [\d.]+ kB on disk", lines[0])
    assert lines[1:5] == [
        "  9 to 64 tokens a sample, median 25.5",
        "  3 layers of 8 experts, top-2, scoring softmax; the model's layers 0-2",
        "  columns of the samples: id, domain, index, score, text",
        "  expert_ids      int16    [226, 3, 2]  2.7 kB",
    ]
    assert lines[-1] == "problems: none"


def test_info_in_formats(dump, cli):
    record = json.loads(cli("info", "t.dump", "--format", "json").stdout)
    assert (record["n_samples"], record["n_tokens"], record["scoring"]) == (8, 226, "softmax")
    assert record["arrays"][0] == {"name": "expert_ids", "dtype": "int16", "shape": [226, 3, 2], "bytes": 2712}
    assert [layer["path"] for layer in record["layers"]] == ["layers.0", "layers.1", "layers.2"]
    assert record["findings"] == []
    frame = pl.read_csv(io.BytesIO(cli("info", "t.dump", "--format", "csv").stdout_bytes))
    values = dict(zip(frame["name"], frame["value"], strict=True))
    assert (values["n_samples"], values["expert_weights"]) == ("8", "float32 [226, 3, 2]")


def test_info_counts_what_is_odd(here, cli):
    ids, weights = arrays()
    ids[:40, 1] = -1
    ids[ids == 7] = 0
    weights[100, 2] = 0
    make(expert_ids=ids, expert_weights=weights)
    lines = cli("info", "t.dump").stdout.splitlines()
    assert lines[-5:] == [
        "worth knowing: 4",
        "  empty slot: 80 slots: 5.9 % of all: dropped tokens, or layers that did not see them",
        "  weights sum to 0: 1 routing, first at sample 4, layer 2: they count in kind counts, and not in kind weights",
        "  no fingerprint: 1 sample, first at sample 0, layer 1: no filled slot in a layer; --drop-empty leaves them out",  # noqa: E501
        "  expert never used: 3 experts, first at layer 0, expert 7: of 24 over all layers",
    ]


def test_info_says_what_is_wrong_with_the_values(here, cli):
    make()
    bad = np.load("t.dump/expert_weights.npy")
    bad[50, 1, 0] = np.nan
    np.save("t.dump/expert_weights.npy", bad)
    result = cli("info", "t.dump", code=2)
    assert re.search(
        r"problems: 1\n  expert_weights\.npy: 1 value: row 50 \(sample 2\), layer 1, slot 0: found nan", result.stdout
    )
    assert result.stderr == "error: t.dump: 1 kind of problem found\n"
    assert "expert_weights.npy: row 50" in cli("select", "t.dump", "-m", "2", code=2).stderr


def test_info_says_whether_ids_are_derived_and_layers_passive(here, cli):
    ids, _ = arrays()
    layers = [
        LayerInfo(
            index=i, path=f"m.{i}.gate", layer=2 * i + 1, n_experts=8, top_k=2, passive_experts=2, scoring="softmax"
        )
        for i in range(3)
    ]
    make(
        layers=layers,
        n_experts=None,
        scoring=None,
        expert_ids=ids,
        extra={"derived": True},
        model={"id": "a/b", "dtype": "bfloat16"},
    )
    text = cli("info", "t.dump").stdout
    assert "the model's layers 1, 3, 5; 2 passive experts at the end\n" in text
    assert "  model a/b, bfloat16\n" in text
    assert "are derived from router logits: not what a router returned\n" in text
    assert re.search(r"passive expert: \d+ assignments: 2\d(\.\d)? % of all", text)


def test_info_says_which_condition_of_which_pairs_a_dump_is_of(here, cli):
    make("one.dump", extra={"pairs": {"sha256": "3c8b5fdffda8" + 52 * "0", "condition": "agentic"}})
    text = cli("info", "one.dump").stdout
    assert "  the agentic condition of aligned pairs, the file with sha256 3c8b5fdffda8\n" in text
    record = json.loads(cli("info", "one.dump", "--format", "json").stdout)
    assert (record["pairs_condition"], record["pairs_sha256"]) == ("agentic", "3c8b5fdffda8" + 52 * "0")
    make("none.dump")
    assert "pairs" not in cli("info", "none.dump").stdout
    record = json.loads(cli("info", "none.dump", "--format", "json").stdout)
    assert record["pairs_condition"] is record["pairs_sha256"] is None
    make("odd.dump", extra={"pairs": "agentic"})
    assert "  the manifest's pairs is not an object of sha256 and condition; " in cli("info", "odd.dump").stdout


@pytest.mark.parametrize("command", [["info"], ["select", "-m", "2"], ["distance", "-o", "D.npy"]])
def test_a_half_written_dump(command, here, cli):
    ids, _ = arrays()
    layers = tuple(LayerInfo(index=i, path=f"g.{i}", layer=i, n_experts=8, top_k=2) for i in range(3))
    header = DumpHeader(layers=layers, arrays={"expert_ids": np.dtype(np.int16)})
    writer = DumpWriter("half.dump", header, capacities=LENGTHS)
    writer.write(0, expert_ids=ids[:40])
    writer.write(2, expert_ids=ids[49:82])
    writer.close()
    result = cli(command[0], "half.dump", *command[1:], code=2)
    assert result.stdout == ""
    line = result.stderr
    assert "error: half.dump: is half-written, 2 of 8 samples are whole" in line
    assert "--resume" in line
    assert len(line.splitlines()) == 1


def test_a_dump_of_a_model_without_experts(here, cli):
    header = DumpHeader(layers=(), arrays={"expert_ids": np.dtype(np.int16)})
    with DumpWriter("dense.dump", header, capacities=[2]) as writer:
        writer.write(0, expert_ids=np.empty((2, 0, 0), dtype=np.int16))
    assert "  no MoE layer\n" in cli("info", "dense.dump").stdout
    line = cli("fingerprint", "dense.dump", "-o", "X.npy", code=2).stderr
    assert line == "error: dense.dump: has no MoE layer, so there are no fingerprints\n"
    assert cli("select", "dense.dump", "-m", "1", code=2).stderr.startswith("error: dense.dump: ")
    assert not Path("X.npy").exists()


def test_help_of_the_commands_around_dumps(cli):
    for command in ("capture", "convert", "fingerprint"):
        text = cli(command, "--help").stdout
        assert "Examples:" in text
        assert max(len(line) for line in text.splitlines()) <= 80
