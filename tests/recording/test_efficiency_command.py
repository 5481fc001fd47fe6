"""`moefps efficiency`: what `model_cost` and `routing_cost` give, in words, tables and files; errors in one line."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result

from moefps.cli import main
from moefps.metrics.cost import model_cost
from moefps.metrics.cost_routing import routing_cost

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "demo-moe"
DUMP = ROOT / "tests" / "data" / "dumps" / "demo-moe"
# Before click 8.2 the two streams were mixed unless one said otherwise.
SEPARATE: dict[str, Any] = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in a folder with the demo model and its dump."""
    from transformers.utils import logging

    monkeypatch.chdir(tmp_path)
    Path("model").symlink_to(MODEL)
    Path("t.dump").symlink_to(DUMP)
    before = logging.get_verbosity()

    def invoke(*arguments: Any, code: int = 0) -> Result:
        words = ["efficiency", *(str(argument) for argument in arguments)]
        result = CliRunner(**SEPARATE).invoke(main, words, prog_name="moefps")
        # The command quietens transformers for its process, which is this one.
        logging.set_verbosity(before)
        assert result.exit_code == code, (result.stdout, result.stderr)
        assert "Traceback" not in result.stderr
        return result

    return invoke


def test_a_table_for_people(run: Run) -> None:
    done = run("model")
    lines = done.stdout.splitlines()
    assert lines[0] == "model: qwen3_moe, 6 MoE layers of 16 experts, top-4"
    table = {line.split("  ")[0]: line.split() for line in lines[3:12]}
    assert table["experts"][1:] == ["2.95", "M", "737", "k", "1.47", "M", "9.4", "%"]
    assert table["head"][1:] == ["tied", "tied", "1.05", "M", "6.7", "%"]
    assert table["all"][1:] == ["3.78", "M", "1.57", "M", "15.7", "M", "100.0", "%"]
    assert "attention over 4,096 positions" in table
    assert lines[12] == "a token is multiplied by 1.57 M of the active parameters"
    assert lines[13].startswith("2.4 parameters for each that a token uses; with all experts computing, 1.3 times")
    assert done.stderr == ""


def test_all_numbers_as_json(run: Run) -> None:
    found = json.loads(run("model", "--context", 128, "--top-k", 2, "--format", "json").stdout)
    cost = model_cost("model", context=128, top_k=2)
    for name, value in found.items():
        if name not in {"stacks", "layers"}:
            expected = getattr(cost, name)
            assert value == (list(expected) if isinstance(expected, tuple) else expected), name
    assert found["layers"] == cost.layer_table().to_dicts()
    assert found["stacks"][0]["flops"] == cost.stacks[0].flops
    assert found["notes"] == ["top-2 instead of the model's own top-4"]
    assert "dump" not in found


def test_a_dump_of_the_model(run: Run) -> None:
    done = run("model", "--dump", "t.dump", "--ranks", "2,3")
    lines = done.stdout.splitlines()
    start = lines.index("t.dump: 453 tokens, 6 of 6 MoE layers")
    assert lines[start + 1] == "  experts spent 1.47 M FLOPs a token, 668 M in all"
    assert (
        lines[start + 2] == "  100.0 % of the slots on an expert that computes; 0 empty, 0 on experts that do nothing"
    )
    assert re.fullmatch(r" +2 +8 +1\.080 +7\.4 % +model\.layers\.5\.mlp\.gate, 1\.20", lines[start + 6])
    assert len(lines) == start + 8
    found = json.loads(run("model", "--dump", "t.dump", "--ranks", "2,3", "--format", "json").stdout)["dump"]
    spent = routing_cost("t.dump", "model", ranks=[2, 3])
    assert found["ranks"] == spent.parallelism.summary.to_dicts()
    assert found["ranks_by_layer"] == spent.parallelism.layers.to_dicts()
    assert found["layers"] == spent.layers.to_dicts()
    assert found["expert_flops"] == spent.expert_flops


def test_files(run: Run) -> None:
    shown = run("model", "--dump", "t.dump", "-o", "all.csv").stdout
    assert shown == run("model", "--dump", "t.dump").stdout
    run("model", "--dump", "t.dump", "-o", "all.parquet", "--format", "csv")
    run("model", "--dump", "t.dump", "-o", "all.json", "--quiet")
    rows = pl.read_parquet("all.parquet")
    assert rows.columns == ["of", "path", "ranks", "rank", "name", "value"]
    assert set(rows["of"]) == {"model", "stack", "layer", "dump", "dump layer", "ranks", "rank"}
    assert pl.read_csv("all.csv", schema_overrides=rows.schema).equals(rows)
    record = json.loads(Path("all.json").read_text())
    whole = dict(rows.filter(pl.col("of") == "model").select("name", "value").rows())
    assert whole["flops_per_token"] == record["flops_per_token"]
    loads = rows.filter((pl.col("of") == "rank") & (pl.col("ranks") == 8) & (pl.col("name") == "load"))
    assert loads.height == 6 * 8
    assert loads["value"].sum() == 6 * 4 * 453
    assert run("model", "--dump", "t.dump", "--format", "csv").stdout == Path("all.csv").read_text()
    for name, word in (("all.csv", "--overwrite"), ("x.npy", ".npy"), ("x.txt", ".txt"), ("no/x.csv", "no")):
        assert word in run("model", "-o", name, code=2).stderr
    assert run("model", "-o", "all.csv", "--overwrite", "--format", "json").stdout == '{\n  "output": "all.csv"\n}\n'


def test_families_by_name(run: Run) -> None:
    lines = run("mixtral").stdout.splitlines()
    assert lines[0] == "mixtral (default configuration of transformers): mixtral, 32 MoE layers of 8 experts, top-2"
    assert re.fullmatch(r"all +46\.7 B +12\.9 B +27\.6 B +100\.0 %", lines[-3].strip())
    both = run("switch_transformers").stdout
    assert re.search(r"^  encoder: .* active, .* FLOPs a token$", both, re.MULTILINE)
    assert "a token in each of the stacks (encoder, decoder): their sums" in both
    assert "512 experts and 256 that do nothing, top-12" in run("longcat_flash").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gemma4"], ["gemma4", "no MoE layer"]),
        (["nothing-of-the-kind"], ["nothing-of-the-kind", "nothing is downloaded"]),
        (["."], ["config.json"]),
        (["dense"], ["dense", "no MoE layer"]),
        (["mixtral", "--dump", "t.dump"], ["t.dump", "16 experts", "accepted"]),
        (["model", "--dump", "none.dump"], ["none.dump"]),
        (["model", "--ranks", "2"], ["--ranks is for --dump"]),
        (["model", "--threads", "2"], ["--threads is for --dump"]),
        (["model", "--dump", "t.dump", "--ranks", "2,x"], ["--ranks", "'2,x'"]),
        (["model", "--dump", "t.dump", "--ranks", "0"], ["--ranks", "'0'"]),
        (["model", "--dump", "t.dump", "--ranks", "2,2"], ["--ranks", "each once"]),
        (["model", "--top-k", "17"], ["--top-k", "16 experts"]),
        (["model", "--context", "0"], ["--context"]),
    ],
)
def test_what_is_wrong_is_one_line(run: Run, arguments: list[str], words: list[str]) -> None:
    Path("dense").mkdir()
    Path("dense/config.json").write_text('{"model_type": "qwen3", "num_hidden_layers": 1}')
    done = run(*arguments, code=2)
    line = done.stderr.splitlines()[0]
    assert line.startswith("error: ")
    assert all(word in line for word in words), line
    assert done.stdout == ""


def test_without_torch(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    line = run("mixtral", code=2).stderr
    assert (
        line == "error: the cost of a model needs torch, which is not installed; run: pip install 'moefps[capture]'\n"
    )


def test_help_names_the_options() -> None:
    shown = CliRunner(**SEPARATE).invoke(main, ["efficiency", "--help"], prog_name="moefps").stdout
    for option in ("--dump", "--ranks", "--context", "--top-k", "--output", "--overwrite", "--threads", "--format"):
        assert option in shown
