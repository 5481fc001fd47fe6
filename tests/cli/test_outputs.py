"""Where commands write to: names that are refused before any work is done."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import moefps

REQUIRED = {
    "metrics": ["a.dump"],
    "focus": ["a.dump"],
    "consistency": ["a.dump", "a.dump"],
    "select": ["a.dump", "-m", "1"],
    "distance": ["X.npy"],
    "fingerprint": ["a.dump"],
    "capture": ["model", "texts.jsonl"],
    "convert": ["ids.npy"],
    "efficiency": ["mixtral"],
    "pairs build": ["problems.jsonl", "--template"],
    "pairs align": ["pairs.jsonl", "--tokenizer", "model"],
}


@pytest.fixture
def dump(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ids = np.array([[[0]], [[1]], [[1]], [[0]]])
    weights = np.full(ids.shape, 0.5, np.float32)
    samples = {"domain": ["a", "b"]}
    moefps.write_dump("a.dump", expert_ids=ids, expert_weights=weights, offsets=[0, 2, 4], n_experts=2, samples=samples)


@pytest.mark.parametrize("command", REQUIRED)
def test_an_empty_name_says_which_option(cli, command):
    said = cli(*command.split(), *REQUIRED[command], "-o", "", code=2).stderr
    assert said.startswith("error: -o: found ''; accepted: the name of what is to be written\n")


@pytest.mark.parametrize(
    ("command", "name", "words"),
    [
        ("focus", "x.xyz", "accepted: a name in .csv, .json or .parquet, or a folder"),
        ("focus", "x.npy", "accepted: a name in .csv, .json or .parquet, or a folder"),
        ("consistency", "x.xyz", "accepted: a name in .csv, .json or .parquet, or a folder"),
        ("metrics", "x.csv", "accepted: a folder, to which all tables are written"),
        ("select", "x.xyz", "accepted: a name in .csv, .json, .parquet or .npy"),
        ("efficiency", "x.npy", "accepted: a name in .csv, .json or .parquet"),
    ],
)
def test_a_name_that_says_nothing_of_what_is_written(dump, cli, command, name, words):
    said = cli(command, *REQUIRED[command], "-o", name, code=2).stderr
    assert f"error: -o: found '{name}'; {words}" in said
    assert [path.name for path in Path().iterdir()] == ["a.dump"]


def test_a_folder_may_have_a_dot_in_its_name(dump, cli):
    cli("focus", "a.dump", "-o", "x.v2/")
    assert Path("x.v2/experts.csv").is_file()
    assert "exists already" in cli("focus", "a.dump", "-o", "x.v2", code=2).stderr
    cli("focus", "a.dump", "-o", "x.v2", "--overwrite", "--format", "parquet")
    assert Path("x.v2/experts.parquet").is_file()
    cli("metrics", "a.dump", "-o", "y.v2")
    assert Path("y.v2/layers.csv").is_file()
