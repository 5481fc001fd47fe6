"""`moefps compare` from two dumps to a folder, and from a model to it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from comparison.worlds import make_record, random_routing, rows_of, write_condition, write_pairs

TABLES = {
    "layer_metrics",
    "layer_joint_metrics",
    "top_experts_by_layer",
    "top_experts_global",
    "tool_expert_leakage_by_layer",
    "tool_expert_leakage_summary",
    "leakage_vs_distance",
    "expert_usage",
}
OWN = Path(__file__).resolve().parents[1] / "data" / "pairs"


@pytest.fixture
def dumps(here):
    rng = np.random.default_rng(3)
    records = [make_record(rng, f"T/{i}") for i in range(4)]
    pairs = write_pairs(Path("pairs.json"), records)
    for condition in ("agentic", "assisted"):
        ids, weights = random_routing(rng, len(list(rows_of(records, condition))), (6, 6), 2)
        world = {"ids": ids, "weights": weights, "n_experts": (6, 6), "pairs": pairs}
        write_condition(f"{condition}.dump", records, condition, **world)


def test_a_folder_and_what_is_said_of_it(dumps, cli):
    command = ("compare", "agentic.dump", "assisted.dump", "--pairs", "pairs.json", "--resamples", "50", "-o", "out")
    said = cli(*command, "--groups", "all,canonical", "--no-figures").stdout
    assert "figure" not in said
    assert "out: 4 tasks, 56 tokens compared, 2 layers" in said
    assert "mean TV is largest in layer" in said
    assert {path.stem for path in Path("out/tables").iterdir()} == TABLES
    metrics = pl.read_csv("out/tables/layer_metrics.csv")
    assert metrics.columns[:6] == ["layer", "group", "count", "tv", "tv_lo", "tv_hi"]
    assert metrics["group"].to_list() == ["all", "canonical"] * 2
    summary = json.loads(Path("out/summary.json").read_text())
    assert {"top_tv_layers", "low_jaccard_layers", "tool_response_tv", "top_r_layers", "distance_trend"} <= set(summary)
    assert summary["count_canonical"] == 32
    assert Path("out/findings.md").read_text().startswith("# agentic against assisted")
    assert "exists already, pass --overwrite" in cli(*command, code=2).stderr
    cli(*command, "--overwrite", "--format", "parquet", "--no-figures")
    assert sorted(path.name for path in Path("out").iterdir()) == ["findings.md", "summary.json", "tables"]
    assert pl.read_parquet("out/tables/leakage_vs_distance.parquet").height == 10
    same = cli("compare", "agentic.dump", "agentic.dump", *command[3:], "--overwrite", "--no-figures").stdout
    assert "mean TV is 0 in every layer" in same
    assert "the Jaccard index is 1 in every layer" in same


def test_figures_by_the_names_promised(dumps, cli):
    command = ("compare", "agentic.dump", "assisted.dump", "--pairs", "pairs.json", "--resamples", "50", "-o", "out")
    said = cli(*command, "--groups", "all,tool_response,canonical", "--svg").stdout
    names = {
        *("tv_curve", "tv_tool_vs_canonical", "usage_delta_heatmap", "A1_tv_curves", "B1_jaccard", "entropy_neff"),
        *("margin", "js_curve", "leakage_vs_distance"),
        *("tool_expert_leakage_layer00", "tool_expert_leakage_layer01"),
    }
    drawn = {path.name: path.read_bytes() for path in Path("out/figures").iterdir()}
    assert set(drawn) == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    assert all(data.startswith(b"\x89PNG" if name.endswith(".png") else b"<svg") for name, data in drawn.items())
    assert b"agentic against assisted" in drawn["tv_curve.svg"]
    assert "  11 figures in out/figures\n" in said
    assert "  without tv_tool_response_split: the tables were made without the group tool_response_docstring\n" in said


def test_what_is_wrong_is_said_in_words_of_the_command(dumps, cli):
    command = ("compare", "agentic.dump", "assisted.dump", "-o", "out")
    assert "--pairs: not given, but the dumps are two conditions" in cli(*command, code=2).stderr
    assert "--groups: 'x'; accepted: all, canonical" in (
        cli(*command, "--pairs", "pairs.json", "--groups", "x", code=2).stderr
    )
    assert "--by: 'segment' with pairs" in cli(*command, "--pairs", "pairs.json", "--by", "segment", code=2).stderr
    assert "--svg and --no-figures exclude each other" in cli(*command, "--svg", "--no-figures", code=2).stderr
    assert not Path("out").exists()


def test_from_problems_to_findings(here, cli):
    """Build, align, capture twice, compare: the study on a small model."""
    pytest.importorskip("transformers")
    from small_model import save_small_model

    save_small_model(Path("model"))
    cli("pairs", "build", OWN / "problems.jsonl", "--template", "-o", "pairs.jsonl")
    cli("pairs", "align", "pairs.jsonl", "--tokenizer", "model", "-o", "tokens.json")
    for condition in ("agentic", "assisted"):
        cli("capture", "model", "--pairs", "tokens.json", "--condition", condition, "-o", f"{condition}.dump", "-q")
    options = ("--pairs", "tokens.json", "--resamples", "100", "-q")
    cli("compare", "agentic.dump", "assisted.dump", *options, "--no-figures", "-o", "out")
    metrics = pl.read_csv("out/tables/layer_metrics.csv")
    of_all = metrics.filter(pl.col("group") == "all")
    assert of_all["tv"].is_between(0, 1).all()
    assert of_all["count"].min() > 0
    summary = json.loads(Path("out/summary.json").read_text())
    shared = sum(
        end - start
        for task in json.loads(Path("tokens.json").read_text())
        for _, key, start, end in task["segments"]
        if key is not None
    )
    assert summary["count_all"] == shared
    assert set(summary["one_sided"]) >= {"tool_schema", "tool_call"}
