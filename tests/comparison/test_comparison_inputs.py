"""Dumps that belong together, those that do not, and what is said of those."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

import moefps
from comparison.worlds import make_record, random_routing, rows_of, write_condition, write_pairs

LENGTHS = (5, 3, 6)


@pytest.fixture
def world(tmp_path):
    rng = np.random.default_rng(3)
    records = [make_record(rng, f"T/{i}") for i in range(3)]
    pairs = write_pairs(tmp_path / "pairs.json", records)

    def make(condition, name=None, of=records, n_experts=(6,), k=2, pairs=pairs):
        ids, weights = random_routing(rng, len(list(rows_of(of, condition))), n_experts, k)
        return write_condition(
            tmp_path / (name or condition), of, condition, ids=ids, weights=weights, n_experts=n_experts, pairs=pairs
        )

    return records, pairs, make


def plain(path, *, seed=0, lengths=LENGTHS, samples=None, tokens=None, ids=None, **options):
    rng = np.random.default_rng(seed)
    drawn, weights = random_routing(rng, sum(lengths), (6, 6), 2)
    given = {"expert_weights": weights, "n_experts": 6, "samples": samples, "tokens": tokens, **options}
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return moefps.write_dump(path, expert_ids=drawn if ids is None else ids, offsets=offsets, **given)


def test_dumps_that_do_not_belong_to_the_pairs_are_refused(world, tmp_path):
    records, pairs, make = world
    a, b = make("agentic"), make("assisted")
    other = write_pairs(tmp_path / "other.json", [make_record(np.random.default_rng(9), "T/0")])
    with pytest.raises(moefps.DataError, match="was captured with another pairs file"):
        moefps.compare(a, b, other)
    with pytest.raises(moefps.ArgumentError, match="two conditions of pairs; accepted: the file of the pairs"):
        moefps.compare(a, b)
    with pytest.raises(moefps.DumpError, match=r"layer 0 has n_experts 7, .* has 6; accepted: dumps of one layout"):
        moefps.compare(a, make("assisted", "wide", n_experts=(7,)), pairs)
    with pytest.raises(moefps.DumpError, match=r"has 2 layers, .* has 1"):
        moefps.compare(a, make("assisted", "deep", n_experts=(6, 6)), pairs)
    changed = json.loads(json.dumps(records))
    changed[1]["assisted_aligned_ids"][-1] = changed[1]["agentic_ids"][-1] = 77
    with pytest.raises(moefps.DataError, match=r"task T/1, position \d+: token id 77, the pairs have"):
        moefps.compare(a, make("assisted", "liar", of=changed), pairs)
    with pytest.raises(moefps.DataError, match="accepted: the tokens of one condition of"):
        moefps.compare(a, make("assisted", "stranger", of=changed, pairs=None), pairs)
    renamed = [{**record, "task_id": f"X/{i}"} for i, record in enumerate(records)]
    with pytest.raises(moefps.DataError, match=r"has no task of the pairs in common with .* found X/0, X/1, X/2"):
        moefps.compare(a, make("assisted", "renamed", of=renamed), pairs)
    with pytest.raises(moefps.ArgumentError, match="groups: 'tools'; accepted: all, canonical"):
        moefps.compare(a, b, pairs, groups=["canonical", "tools"])
    with pytest.raises(moefps.ArgumentError, match="by: 'segment' with pairs"):
        moefps.compare(a, b, pairs, by="segment")
    with pytest.raises(moefps.ArgumentError, match="n_resamples: -1"):
        moefps.compare(a, b, pairs, n_resamples=-1)


def test_a_dump_without_an_entry_must_have_token_ids(world, tmp_path):
    _, pairs, make = world
    a, b = make("agentic"), make("assisted", pairs=None)
    assert moefps.compare(a, b, pairs, n_resamples=0).summary["condition_b"] == "assisted"
    bare = moefps.write_dump(
        tmp_path / "bare",
        expert_ids=b.expert_ids,
        offsets=b.token_starts,
        n_experts=6,
        samples=b.samples.select("task_id"),
        tokens=b.tokens.select("position"),
    )
    with pytest.raises(moefps.DataError, match="says of no pairs file, and its tokens have no token_id"):
        moefps.compare(a, bare, pairs)


def test_dumps_of_the_same_texts_are_joined_row_by_row(tmp_path):
    domains = pl.DataFrame({"id": ["x", "y", "z"], "domain": ["law", "code", "law"]})
    tokens = pl.DataFrame({"token_id": range(sum(LENGTHS))})
    a = plain(tmp_path / "a", samples=domains, tokens=tokens)
    order = [2, 0, 1]
    rows = np.concatenate([np.arange(a.token_starts[i], a.token_starts[i + 1]) for i in order])
    b = plain(
        tmp_path / "b",
        ids=a.expert_ids[rows],
        expert_weights=a.expert_weights[rows],
        lengths=[LENGTHS[i] for i in order],
        samples=domains[order],
        tokens=tokens[rows],
    )
    found = moefps.compare(a, b, by="domain", n_resamples=20)
    assert found.layer_metrics["group"].to_list() == ["all", "code", "law"] * 2
    assert found.layer_metrics["count"].to_list() == [14, 3, 11] * 2
    assert set(found.layer_metrics["tv"]) == {0.0}
    assert found.leakage_vs_distance["count"].sum() == 0
    assert found.tool_expert_leakage_by_layer.height == 0
    reasons = found.tool_expert_leakage_summary["reason"].unique().to_list()
    assert reasons == ["there is no group tool_response_non_docstring"]
    assert found.findings.startswith("# A against B")


def test_tables_of_choices_alone(tmp_path):
    """Without weights, experts are compared and shares are not; and it is said."""
    a, b = (plain(tmp_path / name, seed=seed, expert_weights=None) for name, seed in (("a", 0), ("b", 1)))
    found = moefps.compare(a, b, n_resamples=20)
    assert found.layer_metrics["tv"].null_count() == found.layer_metrics.height
    assert found.layer_metrics["jaccard"].null_count() == 0
    assert found.layer_joint_metrics["usage_js_weighted"].null_count() == 2
    assert found.layer_joint_metrics["usage_js_lo"].null_count() == 0
    assert "holds no weights" in found.findings


def test_texts_that_are_not_aligned_are_told_the_tools_for_them(tmp_path):
    a = plain(tmp_path / "a", tokens=pl.DataFrame({"token_id": range(14)}))
    ids = [*range(9), 99, *range(10, 14)]
    other = plain(tmp_path / "b", tokens=pl.DataFrame({"token_id": ids}))
    with pytest.raises(moefps.DataError, match=r"task 2, token 1 has token id 99, 9 in .*metrics --by.*focus"):
        moefps.compare(a, other)
    with pytest.raises(moefps.DataError, match=r"task 0 has 3 tokens, 5 in .*metrics --by.*focus"):
        moefps.compare(a, plain(tmp_path / "c", lengths=(3, 5, 6)))
    with pytest.raises(moefps.DataError, match=r"has 2 samples, .* has 3"):
        moefps.compare(a, plain(tmp_path / "d", lengths=(5, 9)))
    with pytest.raises(moefps.DumpError, match="signed weights"):
        moefps.compare(a, plain(tmp_path / "e", signed_weights=True))
    with pytest.raises(moefps.ArgumentError, match=r"by: .* has no column 'topic'"):
        moefps.compare(a, a, by="topic")


def test_a_folder_is_written_whole_and_never_over_something_else(world, tmp_path):
    _, pairs, make = world
    a, b = make("agentic"), make("assisted")
    found = moefps.compare(a, b, pairs, n_resamples=20, output=tmp_path / "out", file_format="parquet")
    for name, table in found.tables.items():
        assert pl.read_parquet(tmp_path / "out" / "tables" / f"{name}.parquet").equals(table)
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == found.summary
    with pytest.raises(moefps.FileError, match="exists already"):
        moefps.compare(a, b, pairs, output=tmp_path / "out")
    found.write(tmp_path / "out", overwrite=True)
    assert sorted(p.suffix for p in (tmp_path / "out" / "tables").iterdir()) == [".csv"] * 8
    (tmp_path / "mine").mkdir()
    with pytest.raises(moefps.FileError, match="is no comparison"):
        found.write(tmp_path / "mine", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []
