"""`moefps metrics` prints what `moefps.routing_metrics` finds, for people and for programs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import moefps
from moefps.metrics.registry import METRICS

LENGTHS = [40, 9, 33, 12, 64, 21, 17, 30]
DOMAINS = ["law", "law", "code", "code", "math", "math", "law", "code"]


@pytest.fixture
def dump(here):
    rng = np.random.default_rng(0)
    ids = rng.permuted(np.tile(np.arange(8), (sum(LENGTHS), 3, 1)), axis=2)[:, :, :2].astype(np.int16)
    # Layer 1 has a favourite.
    ids[::2, 1, 0], ids[::2, 1, 1] = 0, 1
    return moefps.write_dump(
        "t.dump",
        expert_ids=ids,
        expert_weights=rng.random(ids.shape).astype(np.float32),
        offsets=np.concatenate([[0], np.cumsum(LENGTHS)]),
        n_experts=8,
        scoring="softmax",
        samples=pl.DataFrame({"domain": DOMAINS, "same": ["x"] * len(DOMAINS)}),
    )


def test_every_format_has_the_values_of_the_api(dump, cli):
    layers = moefps.routing_metrics(dump).layers
    rows = json.loads(cli("metrics", "t.dump", "--format", "json").stdout)
    assert [row["metric"] for row in rows] == layers["metric"].to_list()
    assert [row["value"] for row in rows] == pytest.approx(layers["value"].to_list())
    csv = pl.read_csv(io.StringIO(cli("metrics", "t.dump", "--format", "csv").stdout), infer_schema_length=None)
    assert csv["value"].to_list() == pytest.approx(layers["value"].to_list())
    table = cli("metrics", "t.dump").stdout
    for name in layers.filter(pl.col("value").is_not_null())["metric"].unique():
        assert name in table
    assert "maxvio_batch: a dump knows no batches" in table
    assert "router_z_loss" in table
    assert "the dump holds no router logits" in table


def test_the_worst_layer_is_first(dump, cli):
    table = cli("metrics", "t.dump", "--targets", "spectra").stdout
    worst = table[table.index("worst layers first") :].splitlines()
    first = next(line for line in worst[3:] if line.strip())
    assert first.split()[0] == "1"
    assert "✗" in first


def test_targets_from_a_file_are_checked(dump, cli):
    Path("easy.toml").write_text('gini_coefficient = "< 0.99"\n')
    Path("hard.json").write_text('{"gini_coefficient": "< 0.001"}')
    only = ("metrics", "t.dump", "--metric", "gini_coefficient")
    assert "✓" in cli(*only, "--targets", "easy.toml", "--check").stdout
    assert "✗" in cli(*only, "--targets", "hard.json", "--check", code=1).stdout
    assert cli(*only, "--targets", "hard.json").exit_code == 0
    cli(*only, "--targets", "hard.json", "--check", "--format", "json", code=1)


def test_signs_are_words_where_there_are_none(dump, process):
    done = process("metrics", "t.dump", "--targets", "spectra", env={"PYTHONIOENCODING": "ascii:replace", "PATH": ""})
    assert "MISS" in done.stdout
    assert "?" not in done.stdout.replace("c_e > 0?", "")


def test_by_a_column(dump, cli):
    rows = json.loads(cli("metrics", "t.dump", "--by", "domain", "--format", "json").stdout)
    assert {row["group"] for row in rows} == {"law", "code", "math"}
    table = cli("metrics", "t.dump", "--by", "domain").stdout
    assert "by domain" in table
    assert all(name in table for name in ("law", "code", "math"))


def test_a_folder_of_tables(dump, cli):
    cli("metrics", "t.dump", "-o", "found", "--by", "domain", "--ci", "0.9", "--resamples", "50")
    assert {path.name for path in Path("found").iterdir()} == {
        "about.json",
        "coactivation.csv",
        "details.csv",
        "domains.csv",
        "experts.csv",
        "layers.csv",
        "summary.csv",
    }
    summary = pl.read_csv("found/summary.csv", infer_schema_length=None)
    assert summary.filter(pl.col("metric") == "maxvio")["lo"].is_not_null().all()
    about = json.loads(Path("found/about.json").read_text(encoding="utf-8"))
    assert about["source"].endswith("t.dump")
    assert "exists already" in cli("metrics", "t.dump", "-o", "found", code=2).stderr
    cli("metrics", "t.dump", "-o", "found", "--overwrite", "--format", "parquet")
    assert Path("found/layers.parquet").is_file()
    assert not Path("found/layers.csv").exists()
    Path("mine").mkdir()
    assert "is no folder of tables" in cli("metrics", "t.dump", "-o", "mine", "--overwrite", code=2).stderr
    assert list(Path().glob(".*")) == []


def test_fingerprints_alone(dump, cli):
    np.save("X.npy", dump.fingerprints("counts"))
    table = cli("metrics", "X.npy").stdout
    assert "gini_coefficient" in table
    assert "needs a trace" in table


def test_only_some_layers_and_metrics(dump, cli):
    rows = json.loads(cli("metrics", "t.dump", "--metric", "maxvio", "--layers", "1-2", "--format", "json").stdout)
    assert [(row["layer"], row["metric"]) for row in rows] == [(1, "maxvio"), (2, "maxvio")]


def test_the_list_has_every_metric(cli):
    text = cli("metrics", "--list").stdout
    assert all(f"  {metric.name}\n" in text for metric in METRICS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.dump"], "none.dump"),
        (["t.dump", "--metric", "gini"], "perhaps 'gini_coefficient'"),
        (["t.dump", "--by", "same"], "same"),
        (["t.dump", "--by", "dommain"], "domain"),
        (["t.dump", "--layers", "7"], "--layers"),
        (["t.dump", "--ci", "1.5"], "--ci"),
        (["t.dump", "--targets", "none.toml"], "none.toml"),
        (["t.dump", "--capacity-factor", "0"], "--capacity-factor"),
        (["t.dump", "--format", "xml"], "--format"),
    ],
)
def test_bad_input_is_one_line(dump, cli, arguments, words):
    error = cli("metrics", *arguments, code=2).stderr
    assert error.startswith("error: ")
    assert words in error
    assert len(error.strip().splitlines()) <= 2
