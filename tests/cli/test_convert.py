"""`moefps convert` on the real command: dumps of what people have, and what is wrong with it in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import moefps

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture
def logits(here):
    logits = np.random.default_rng(0).normal(size=(20, 3, 8)).astype(np.float32)
    np.save("logits.npy", logits)
    return logits


def test_router_logits(logits, process):
    Path("s.csv").write_text("id,domain\na,law\nb,code\n")
    done = process(
        "convert", "logits.npy", "-o", "d.dump", "--top-k", "2", "--offsets", "5,15", "--samples", "s.csv",
        "--scoring", "sigmoid", "--first-layer", "1",
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"d\.dump: 2 samples, 20 tokens, [\d.]+ kB", lines[0])
    assert lines[1] == "  3 layers of 8 experts, top-2, scoring sigmoid"
    assert lines[2] == "  holds expert_ids, expert_weights, router_logits"
    assert "derived, not what a router returned" in done.stdout
    assert done.stderr == ""
    dump = moefps.open_dump("d.dump")
    assert dump.samples["domain"].to_list() == ["law", "code"]
    assert dump.manifest.extra["derived"] is True
    assert np.array_equal(dump.expert_ids[:, 0], np.argsort(-logits[:, 0], axis=1)[:, :2])
    assert sorted(path.name for path in Path().iterdir()) == ["d.dump", "logits.npy", "s.csv"]


def test_offsets_in_a_file_come_before_numbers(logits, cli):
    np.save("12", np.array([12, 8]))
    Path("12.npy").rename("12")
    assert "the suffix" in cli("convert", "logits.npy", "-o", "d", "--top-k", "1", "--offsets", "12", code=2).stderr
    cli("convert", "logits.npy", "-o", "d.dump", "--top-k", "1", "--offsets", "12, 8")
    assert moefps.open_dump("d.dump").token_starts.tolist() == [0, 12, 20]


@pytest.mark.parametrize("output_format", ["json", "csv", "parquet"])
def test_formats(output_format, logits, cli):
    result = cli("convert", "logits.npy", "-o", "d.dump", "--top-k", "2", "--format", output_format)
    if output_format == "json":
        record = json.loads(result.stdout)
        assert record["notes"][0] == "no offsets: all 20 tokens are one sample"
    else:
        read = pl.read_csv if output_format == "csv" else pl.read_parquet
        record = read(result.stdout_bytes).row(0, named=True)
        assert record["notes"].startswith("no offsets: all 20 tokens are one sample; ")
    assert (record["n_samples"], record["n_tokens"], record["top_k"], record["derived"]) == (1, 20, 2, True)


def test_progress_goes_to_stderr(logits, cli):
    result = cli("convert", "logits.npy", "-o", "d.dump", "--top-k", "2", "--progress")
    assert re.search(r"converting: [\d.]+ %", result.stderr)
    assert "converting" not in cli("convert", "logits.npy", "-o", "e.dump", "--top-k", "2", "--progress", "-q").stderr


BAD = {
    "no top_k": (["logits.npy"], "--top-k: missing; logits.npy has router logits"),
    "top_k too large": (["logits.npy", "--top-k", "9"], "--top-k: found 9; accepted: 1 to 8"),
    "top_k no number": (["logits.npy", "--top-k", "x"], "invalid value for '--top-k'"),
    "offsets": (["logits.npy", "--top-k", "2", "--offsets", "5,6"], "--offsets: the lengths add up to 11, expected 20"),
    "a missing offsets file": (["logits.npy", "--top-k", "2", "--offsets", "no.npy"], "no.npy: .*no such file"),
    "n_experts": (["logits.npy", "--top-k", "2", "--n-experts", "8"], "--n-experts: found 8"),
    "first layer": (["logits.npy", "--top-k", "2", "--first-layer", "-1"], "--first-layer: found -1"),
    "scoring": (["logits.npy", "--scoring", "hash"], "invalid value for '--scoring': 'hash'"),
    "samples": (["logits.npy", "--top-k", "2", "--samples", "s.csv"], "s.csv: found 2 rows, expected .* 1 sample"),
    "samples missing": (["logits.npy", "--top-k", "2", "--samples", "no.csv"], "no.csv: cannot be read: no such file"),
    "missing": (["no.npz"], "no.npz: cannot be read: no such file"),
    "suffix": (["s.csv"], "s.csv: the suffix is .csv; accepted: .npy, .npz"),
    "NaN": (["nan.npy", "--top-k", "2"], "nan.npy: token 3, layer 1, expert 2 is nan; accepted: numbers"),
    "taken": (["logits.npy", "--top-k", "2", "-o", "taken"], "taken: is a folder with other files"),
    "a file": (["logits.npy", "--top-k", "2", "-o", "s.csv"], "s.csv: exists and is not a folder"),
    "a folder that is missing": (["logits.npy", "--top-k", "2", "-o", "no/d"], "no/d: the folder no does not exist"),
}


@pytest.mark.parametrize("case", BAD)
def test_one_line_and_exit_2(case, logits, refuses):
    arguments, words = BAD[case]
    bad = logits.copy()
    bad[3, 1, 2] = np.nan
    np.save("nan.npy", bad)
    Path("s.csv").write_text("id\na\nb\n")
    Path("taken").mkdir()
    Path("taken/mine.txt").write_text("kept")
    if "-o" not in arguments:
        arguments = [*arguments, "-o", "d.dump"]
    refuses(words, "convert", *arguments)


def test_a_full_disk_leaves_nothing(here, process):
    resource = pytest.importorskip("resource", reason="limits on files are a POSIX thing")
    np.save("logits.npy", np.zeros((500, 3, 8), dtype=np.float32))
    done = process(
        "convert", "logits.npy", "-o", "d.dump", "--top-k", "2", code=2,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)),
    )  # fmt: skip
    assert re.fullmatch(r"error: d\.dump.*: cannot be written: .*\n", done.stderr)
    assert [path.name for path in Path().iterdir()] == ["logits.npy"]


@pytest.mark.usefixtures("traces")
def test_real_traces_to_picks_of_all_tasks(here, cli):
    result = cli("convert", DATA / "esft" / "esft_traces.npz", "-o", "esft.dump")
    assert result.stdout.startswith("esft.dump: 213 samples, 33,279 tokens, ")
    picks = cli("select", "esft.dump", "-m", "12", "--labels", "column:task", "--no-typicality").stdout
    assert re.search(r"labels covered, of 4 +4 ", picks)
    assert "fingerprints of kind weights" in picks
