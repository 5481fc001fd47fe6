"""`moefps focus`: the numbers of the Python API, in every format; and one line for what is wrong."""

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

LENGTHS = [40, 9, 33, 12, 64, 21, 17, 30]


@pytest.fixture
def dump(here):
    """A dump of eight samples in three domains, whose tokens have segments."""
    rng = np.random.default_rng(0)
    ids = rng.permuted(np.tile(np.arange(8), (sum(LENGTHS), 3, 1)), axis=2)[:, :, :2].astype(np.int16)
    domains = ["law", "law", "code", "code", "[b]math[/b]", "[b]math[/b]", "law", "code"]
    # Code goes to expert 5 of layer 1 with weights as no other domain has them.
    weights = rng.random(ids.shape).astype(np.float32) / 2
    is_code = np.repeat([domain == "code" for domain in domains], LENGTHS)
    weights[:, 1][(ids[:, 1] == 5) & is_code[:, np.newaxis]] = 0.9
    return moefps.write_dump(
        "t.dump",
        expert_ids=ids,
        expert_weights=weights,
        offsets=np.concatenate([[0], np.cumsum(LENGTHS)]),
        n_experts=8,
        scoring="softmax",
        samples=pl.DataFrame({"domain": domains, "score": [0.5] * 8, "one": ["x"] * 8}),
        tokens={"segment": rng.choice(["prompt", "answer"], sum(LENGTHS))},
    )


def test_what_people_see(dump, process):
    done = process("focus", "t.dump", "--threshold", "0.45", env={**os.environ, "PYTHONUTF8": "1", "NO_COLOR": "1"})
    found = moefps.expert_focus(dump, threshold=0.45)
    lines = done.stdout.splitlines()
    assert lines[0] == "t.dump: 8 samples, 226 tokens; 3 domains by domain"
    text = " ".join(done.stdout.split())
    assert found.reading in text
    medium = found.bands.row(2, named=True)
    assert re.search(rf"40-60  medium +{medium['n_experts']} +{100 * medium['share']:.1f} % +█+", done.stdout)
    for row in found.layers.iter_rows(named=True):
        shown = [f"{row[name]:.1f}" for name in ("mean", "std", "chance", "luck")]
        assert re.search(rf"^ +{row['layer']} +{' +'.join(shown)} ", done.stdout, re.MULTILINE)
    first = found.experts.sort("focus_degree", descending=True).row(0, named=True)
    assert re.search(
        rf"^ +{first['layer']} +{first['expert']} +{first['focus_degree']:.1f} +{re.escape(first['domain'])} ",
        done.stdout,
        re.MULTILINE,
    )
    assert max(len(line) for line in lines) <= 100
    assert done.stderr == ""


def test_bars_without_blocks(dump, process):
    done = process(
        "focus", "t.dump", encoding="ascii", env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    )
    assert re.search(r"20-40  light +\d+ +[\d.]+ %  #+\n|40-60  medium +\d+ +[\d.]+ %  #+\n", done.stdout)


def test_json_has_everything(dump, cli):
    options = ["--by", "segment", "--threshold", "0.2", "--balanced", "--layers", "1-2", "--activation", "renormalized"]
    record = json.loads(cli("focus", "t.dump", *options, "--format", "json").stdout)
    found = moefps.expert_focus(dump, "segment", threshold=0.2, balanced=True, layers=[1, 2], activation="renormalized")
    assert record["about"] == found.about
    assert record["reading"] == found.reading
    for name in ("layers", "experts", "domains", "bands"):
        assert record[name] == getattr(found, name).to_dicts()
    assert record["summary"] == found.summary.to_dicts()[0]


@pytest.mark.parametrize("table", [None, "experts", "domains", "layers", "summary", "tokens", "activations"])
def test_tables_for_programs(table, dump, cli):
    named = [] if table is None else ["--table", table]
    result = cli("focus", "t.dump", *named, "--format", "csv")
    found = moefps.expert_focus(dump)
    expected = found.activation_histogram() if table == "activations" else getattr(found, table or "experts")
    frame = pl.read_csv(io.BytesIO(result.stdout_bytes), infer_schema_length=None)
    assert frame.columns == expected.columns
    assert frame.height == expected.height
    assert result.stderr == found.reading + "\n"
    parquet = cli("focus", "t.dump", *named, "--format", "parquet", "-q")
    assert pl.read_parquet(io.BytesIO(parquet.stdout_bytes)).equals(expected)
    assert parquet.stderr == ""


def test_a_folder_of_tables(dump, cli):
    last = cli("focus", "t.dump", "--together", "-o", "found").stdout.splitlines()[-1]
    assert last == "found: all tables"
    found = moefps.expert_focus(dump, together=True)
    names = ["about.json", "activations.csv", "domains.csv", "experts.csv", "layers.csv", "summary.csv"]
    assert sorted(path.name for path in Path("found").iterdir()) == [*names, "together.csv", "tokens.csv"]
    about = json.loads(Path("found/about.json").read_text())
    assert (about["by"], about["reading"]) == ("domain", found.reading)
    assert pl.read_csv("found/together.csv").height == found.together(n=None).height
    assert cli("focus", "t.dump", "-o", "found", code=2).stderr.startswith(
        "error: found: exists already, pass --overwr"
    )
    cli("focus", "t.dump", "-o", "found", "--overwrite", "--format", "parquet", "--table", "layers", "-q")
    assert pl.read_parquet("found/domains.parquet").equals(found.domains)
    assert not Path("found/together.csv").exists()


def test_a_file(dump, cli):
    assert cli("focus", "t.dump", "-o", "e.csv", "--top", "0").stdout.splitlines()[-1] == "e.csv: experts"
    assert pl.read_csv("e.csv").columns == moefps.expert_focus(dump).experts.columns
    cli("focus", "t.dump", "-o", "d.parquet", "--table", "domains")
    assert pl.read_parquet("d.parquet").equals(moefps.expert_focus(dump).domains)


def test_clusters_of_the_selection(dump, cli):
    record = json.loads(cli("focus", "t.dump", "--by", "cluster:3", "--format", "json").stdout)
    clusters = moefps.select(dump.fingerprints(), 3).assignment
    found = moefps.expert_focus(dump, clusters)
    assert record["about"]["by"] == "cluster:3"
    assert record["domains"] == found.domains.to_dicts()
    assert "3 domains by cluster:3\n" in cli("focus", "t.dump", "--by", "cluster:3").stdout


def test_tokens_of_an_expert(dump, cli):
    found = moefps.expert_focus(dump)
    tokens = found.tokens_of(5, 1)
    record = json.loads(cli("focus", "t.dump", "--tokens-of", "1:5", "--format", "json").stdout)
    assert record == tokens.to_dicts()
    text = cli("focus", "t.dump", "--tokens-of", "1:5", "--top", "3").stdout
    assert f"layer 1, expert 5: {tokens.height} tokens, the most active first\n" in text
    assert re.findall(r"(?:answer|prompt) +code +0\.9000", text)


def test_experts_that_work_together(dump, cli):
    text = cli("focus", "t.dump", "--together", "--top", "1").stdout
    row = moefps.expert_focus(dump, together=True).together(n=1).row(0, named=True)
    assert f"{100 * row['share']:.1f} %" in text.split("experts that work together")[1]


BAD = {
    "a column that is not there": (["--by", "task"], r"--by: t\.dump has no column 'task'; accepted: sample, domain, "),
    "one value": (["--by", "one"], "--by: column 'one' has the one value 'x'"),
    "floats": (["--by", "score"], "--by: column 'score' is Float64"),
    "one cluster": (["--by", "cluster:1"], "--by: found 'cluster:1'; accepted: a column, or cluster:2 to cluster:8"),
    "no number of clusters": (["--by", "cluster:x"], "--by: found 'cluster:x'"),
    "threshold": (["--threshold", "-1"], "--threshold: -1.0; accepted: a number from 0 on, of which 0.01 to 0.3"),
    "threshold of shares": (
        ["--threshold", "1", "--activation", "renormalized"],
        "--threshold: 1.0; accepted: .*below 1",
    ),
    "no logits": (["--activation", "probs"], "t.dump: holds no router_logits, .*accepted: weights, renormalized"),
    "another activation": (["--activation", "counts"], "'counts' is not one of"),
    "layers": (["--layers", "3"], "--layers: 3; accepted"),
    "an expert": (["--tokens-of", "5"], "--tokens-of: found '5'; accepted: a layer and an expert, such as 3:17"),
    "an expert that is not there": (["--tokens-of", "1:8"], "--tokens-of: expert: 8; accepted: 0 to 7"),
    "a layer that is not there": (["--tokens-of", "3:0"], "--tokens-of: layer: 3; accepted.*0, 1, 2"),
    "pairs": (["--table", "together"], "--table together needs --together"),
    "npy": (["-o", "x.npy"], "-o: found 'x.npy'; accepted: a name in"),
    "no folder": (["-o", "no/where"], "no/where: the folder .* does not exist"),
    "itself": (["-o", "t.dump", "--overwrite"], "t.dump: is the input too"),
}


@pytest.mark.parametrize("case", BAD)
def test_one_line_and_exit_2(case, dump, refuses):
    arguments, words = BAD[case]
    refuses(words, "focus", "t.dump", *arguments)


def test_no_dump(here, cli):
    np.save("X.npy", np.zeros((2, 2)))
    assert cli("focus", "X.npy", code=2).stderr == "error: X.npy: is not a folder, expected a dump\n"


def test_samples_without_a_fingerprint_have_no_cluster(dump, cli):
    ids = np.load("t.dump/expert_ids.npy")
    ids[:40, 1] = -1
    np.save("t.dump/expert_ids.npy", ids)
    line = cli("focus", "t.dump", "--by", "cluster:3", code=2).stderr
    assert line.startswith("error: t.dump: 1 of 8 samples have no fingerprint, so no cluster; accepted: a column")


def test_help(cli):
    text = cli("focus", "--help").stdout
    assert "Examples:" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_no_output_goes_into_the_dump_that_is_read(cli, dump):
    """Also with --overwrite: a file of the dump would be gone."""
    before = (Path("t.dump") / "samples.parquet").read_bytes()
    for target in ("t.dump/samples.parquet", "t.dump/new.csv"):
        assert "is in the input" in cli("focus", "t.dump", "-o", target, "--overwrite", code=2).stderr
        assert "is in the input" in cli("select", "t.dump", "-m", "2", "-o", target, "--overwrite", code=2).stderr
    assert (Path("t.dump") / "samples.parquet").read_bytes() == before
