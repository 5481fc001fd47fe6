"""`moefps consistency` prints what `moefps.routing_consistency` finds, for people and for programs."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import moefps

LENGTHS = [30, 9, 21, 12, 24, 18]
DOMAINS = ["law", "code"] * 3


def dump(path, layers_changed=(0.05, 0.6, 0.3), **how):
    """Choices of two of eight experts; of each layer, a share of the tokens chooses otherwise."""
    rng = np.random.default_rng(0)
    ids = rng.random((sum(LENGTHS), 3, 8)).argsort(axis=2)[:, :, :4].astype(np.int16)
    changed = rng.random(ids.shape[:2]) < layers_changed
    return moefps.write_dump(
        path,
        expert_ids=np.where(changed[:, :, None], ids[:, :, 2:], ids[:, :, :2]),
        expert_weights=rng.random((*ids.shape[:2], 2), dtype=np.float32),
        offsets=np.concatenate([[0], np.cumsum(LENGTHS)]),
        n_experts=8,
        **{
            "tokens": {"token_id": np.arange(len(ids))},
            "samples": {"id": [f"s{i}" for i in range(6)], "domain": DOMAINS},
            **how,
        },
    )


@pytest.fixture
def pair(here):
    return dump("a.dump", (0, 0, 0)), dump("b.dump")


def rows_of(text):
    """The rows of the table: their first word and the numbers that follow."""
    found = re.findall(r"^ *(\w+(?: +\d+)?) +(0\.\d{4}|1\.0000) .*?([✓✗]?)\s*$", text, re.MULTILINE)
    return [(name, float(value), sign) for name, value, sign in found]


def test_the_lowest_layer_is_first(pair, cli):
    table = cli("consistency", "a.dump", "b.dump").stdout
    found = moefps.routing_consistency(*pair)
    rows = rows_of(table)
    assert [name for name, *_ in rows] == ["1", "2", "0", "mean", "chance"]
    assert [sign for *_, sign in rows] == ["✗", "✗", "✓", "✗", ""]
    assert rows[0][1] == pytest.approx(found.value(layer=1), abs=5e-5)
    assert rows[3][1] == pytest.approx(found.value(), abs=5e-5)
    lo, hi = found.summary.select("lo", "hi").row(0)
    assert f"{lo:.3f} to {hi:.3f}" in table
    assert table.startswith("a.dump and b.dump: 6 samples, 114 tokens, 3 layers\n")
    assert "target > 0.85: missed by the mean over layers ✗, missed by 2 of 3 layers\n" in table


def test_programs_get_the_table_of_layers(pair, cli):
    found = moefps.routing_consistency(*pair, ci=0.9, n_resamples=30, seed=5, layers=[0, 2]).layers
    options = ("--ci", 0.9, "--resamples", 30, "--seed", 5, "--layers", "0,2", "--threads", 1)
    rows = json.loads(cli("consistency", "a.dump", "b.dump", *options, "--format", "json").stdout)
    assert rows == found.to_dicts()
    csv = pl.read_csv(io.StringIO(cli("consistency", "a.dump", "b.dump", *options, "--format", "csv").stdout))
    assert csv["hi"].to_list() == pytest.approx(found["hi"].to_list())
    result = cli("consistency", "a.dump", "b.dump", *options, "--format", "parquet")
    assert pl.read_parquet(io.BytesIO(result.stdout_bytes)).equals(found)


def test_check(pair, cli):
    cli("consistency", "a.dump", "b.dump")
    cli("consistency", "a.dump", "b.dump", "--check", code=1)
    cli("consistency", "a.dump", "b.dump", "--check", "--format", "json", code=1)
    assert "met by the mean over layers ✓" in cli("consistency", "a.dump", "b.dump", "--check", "--layers", "0").stdout
    # Twice the same dump is nothing odd.
    same = cli("consistency", "a.dump", "a.dump", "--check", "--resamples", "0").stdout
    assert rows_of(same)[0][1] == 1
    assert " to " not in same


def test_by_a_column(pair, cli):
    table = cli("consistency", "a.dump", "b.dump", "--by", "domain").stdout
    names = [name for name, *_ in rows_of(table)]
    assert set(names[:2]) == {"law", "code"}
    assert re.fullmatch(r"(law|code) +1", names[2])
    assert len(names) == 8
    assert "by every group" not in table
    assert "missed by the mean over layers of every group" in table


def test_all_layers_are_shown_where_asked_for(here, cli):
    ids = np.tile(np.arange(2, dtype=np.int16), (5, 20, 1))
    moefps.write_dump("many.dump", expert_ids=ids, offsets=[0, 3, 5], n_experts=4, tokens={"token_id": range(5)})
    table = cli("consistency", "many.dump", "many.dump").stdout
    assert len(rows_of(table)) == 12 + 2
    assert "8 more layers: --all-layers shows all" in table
    assert "without a value: top-1, tv, js: many.dump holds no expert_weights" in table
    assert len(rows_of(cli("consistency", "many.dump", "many.dump", "--all-layers").stdout)) == 20 + 2


def test_output_to_a_file_or_a_folder(pair, cli):
    found = moefps.routing_consistency(*pair)
    table = cli("consistency", "a.dump", "b.dump", "-o", "layers.parquet").stdout
    assert table.endswith("layers.parquet: layers\n")
    assert pl.read_parquet("layers.parquet").equals(found.layers)
    done = cli("consistency", "a.dump", "b.dump", "-o", "found", "-q")
    assert done.stdout.endswith("found: layers, summary, samples\n")
    assert sorted(path.name for path in Path("found").iterdir()) == [
        *("about.json", "layers.csv", "samples.csv", "summary.csv"),
    ]
    assert pl.read_csv("found/samples.csv")["id"].to_list() == [f"s{i}" for i in range(6)]
    assert json.loads(Path("found/about.json").read_text())["token_ids_compared"] is True
    for name in ("found", "layers.parquet"):
        line = cli("consistency", "a.dump", "b.dump", "-o", name, code=2).stderr
        assert f"{name}: exists already" in line
    cli("consistency", "a.dump", "b.dump", "-o", "found", "--overwrite", "--format", "json")
    assert json.loads(Path("found/layers.json").read_text())[0]["metric"] == "routing_consistency"
    assert not Path("found/summary.csv").exists()
    assert "input too" in cli("consistency", "a.dump", "b.dump", "-o", "b.dump", "--overwrite", code=2).stderr


def test_what_is_shown_fits_the_terminal(pair, monkeypatch, capsys):
    from rich.console import Console

    from moefps.cli.consistency import _print
    from moefps.metrics.consistency import routing_consistency

    found = routing_consistency(*pair, by="domain")
    monkeypatch.setattr(Console, "is_terminal", property(lambda _: True))
    for width in (60, 80, 100):
        monkeypatch.setenv("COLUMNS", str(width))
        _print(found, None)
        text = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
        tables = [part for part in text.split("\n\n") if "─" in part]
        assert len(tables) == 2
        assert max(len(line) for table in tables for line in table.splitlines()) <= width
        assert "…" not in text
        assert [" js " in table for table in tables] == [width >= 80, width == 100]


BAD = {
    "other lengths": (["a.dump", "short.dump"], "short.dump: sample 0 .*has 29 tokens, and in a.dump 30"),
    "other tokens": (["a.dump", "other.dump"], r"other.dump: sample 1 \(id 's1'\), position 2: token_id is 7, .* 32"),
    "other layers": (["a.dump", "thin.dump"], "thin.dump: has 1 layers, and a.dump 3"),
    "no such dump": (["a.dump", "none"], "none: no such"),
    "no dump": (["a.dump", "file.txt"], "file.txt"),
    "layers": (["a.dump", "b.dump", "--layers", "7"], "--layers: 7; accepted"),
    "by": (["a.dump", "b.dump", "--by", "tone"], "--by: .*has no column 'tone'; accepted: sample, id"),
    "one value": (["a.dump", "b.dump", "--by", "same"], "--by: column 'same' has the one value"),
    "ci": (["a.dump", "b.dump", "--ci", "95"], "--ci: 95"),
    "suffix": (["a.dump", "b.dump", "-o", "x.xlsx"], "-o: found 'x.xlsx'; accepted: a name in .csv"),
    "npy": (["a.dump", "b.dump", "-o", "x.npy"], "-o: found 'x.npy'"),
    "one dump": (["a.dump"], "missing argument 'B'"),
}


@pytest.mark.parametrize("case", BAD)
def test_one_line_and_exit_2(case, here, refuses):
    arguments, words = BAD[case]
    for name in {"a.dump", "b.dump", *arguments} & {"a.dump", "b.dump"}:
        dump(name, samples={"id": [f"s{i}" for i in range(6)], "same": ["x"] * 6})
    ids = np.zeros((sum(LENGTHS), 3, 2), dtype=np.int16) + np.arange(2, dtype=np.int16)
    tokens = {"token_id": np.arange(len(ids))}
    offsets = np.concatenate([[0], np.cumsum(LENGTHS)])
    samples = {"id": [f"s{i}" for i in range(6)]}
    if "short.dump" in arguments:
        moved = np.concatenate([[0], [29], np.cumsum(LENGTHS)[1:]])
        moefps.write_dump("short.dump", expert_ids=ids, offsets=moved, n_experts=8, tokens=tokens, samples=samples)
    if "other.dump" in arguments:
        tokens["token_id"][32:] = 7
        moefps.write_dump("other.dump", expert_ids=ids, offsets=offsets, n_experts=8, tokens=tokens, samples=samples)
    if "thin.dump" in arguments:
        moefps.write_dump("thin.dump", expert_ids=ids[:, :1], offsets=offsets, n_experts=8, tokens=tokens)
    Path("file.txt").write_text("text")
    refuses(words, "consistency", *arguments)


def test_a_warning_is_one_line(here, cli):
    dump("a.dump", tokens=None)
    result = cli("consistency", "a.dump", "a.dump")
    assert result.stderr == (
        "warning: a.dump: has no token ids, so that only the samples' lengths were compared: "
        "whether both dumps are of the same tokens is not known\n"
    )
    assert cli("consistency", "a.dump", "a.dump", "-q").stderr == ""


def test_the_process(pair, process):
    """Signs become words where the terminal has none, and the exit code arrives."""
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = process("consistency", "a.dump", "b.dump", "--check", "--progress", code=1, env=env)
    assert "MISS" in done.stdout
    assert "comparing" in done.stderr


@pytest.mark.parametrize(
    ("offsets", "words"), [([0], "no sample, and a.dump has 6"), ([0, 0], "no token, and a.dump has 114")]
)
def test_dumps_of_nothing(pair, cli, offsets, words):
    tokens = {"token_id": np.zeros(0, int)}
    ids, weights = np.zeros((0, 3, 2), np.int16), np.zeros((0, 3, 2), np.float32)
    moefps.write_dump("e.dump", expert_ids=ids, expert_weights=weights, offsets=offsets, n_experts=8, tokens=tokens)
    for dumps in (("a.dump", "e.dump"), ("e.dump", "a.dump")):
        assert f"error: e.dump: has {words}; accepted: " in cli("consistency", *dumps, code=2).stderr
    assert "target > 0.85: not judged, as there is no value\n" in cli("consistency", "e.dump", "e.dump").stdout
