"""Dumps that belong together, those that do not, and what is said of those."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial

import numpy as np
import polars as pl
import polars.selectors as cs
import pytest

import moefps
from comparison.worlds import make_record, random_routing, rows_of, write_condition, write_pairs
from moefps.comparison import reduction
from support import refused

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
    offsets = np.cumsum((0, *lengths))
    return moefps.write_dump(path, expert_ids=drawn if ids is None else ids, offsets=offsets, **given)


def test_dumps_that_do_not_belong_to_the_pairs_are_refused(world, tmp_path):
    records, pairs, make = world
    a, b = make("agentic"), make("assisted")
    other = write_pairs(tmp_path / "other.json", [make_record(np.random.default_rng(9), "T/0")])
    with pytest.raises(moefps.DataError, match="was captured with another pairs file"):
        moefps.compare(a, b, other)
    with pytest.raises(moefps.DumpError, match=r"layer 0 has n_experts 7, .* has 6; accepted: dumps of one layout"):
        moefps.compare(a, make("assisted", "wide", n_experts=(7,)), pairs)
    with pytest.raises(moefps.DumpError, match=r"has 2 layers, .* has 1"):
        moefps.compare(a, make("assisted", "deep", n_experts=(6, 6)), pairs)
    changed = json.loads(json.dumps(records))
    changed[1]["assisted_aligned_ids"][-1] = changed[1]["agentic_ids"][-1] = 77
    with pytest.raises(moefps.DataError, match=r"task T/1, position \d+: token id 77, the pairs have"):
        moefps.compare(a, make("assisted", "liar", of=changed), pairs)
    line = (
        r"stranger: is neither agentic \(task T/0, position \d+: token id 51, the pairs have \d+\) nor assisted "
        r"\(task T/1, position \d+: token id 77, the pairs have \d+\); accepted: the tokens of one condition of"
    )
    with pytest.raises(moefps.DataError, match=line):
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


def again(path, dump, *, ids=None, rows=None, entry="its own", layers=None, **changes):
    """The same dump with other columns, other rows, or saying something else of itself."""
    chosen = slice(None) if rows is None else rows
    columns = {"position": dump.tokens["position"], "token_id": dump.tokens["token_id"], **changes}
    sample = dump.tokens["sample"].to_numpy()[chosen]
    weights = dump.expert_weights[chosen]
    return moefps.write_dump(
        path,
        expert_ids=dump.expert_ids[chosen] if ids is None else ids,
        expert_weights=-weights if layers is not None else weights,
        offsets=np.append(0, np.cumsum(np.bincount(sample, minlength=dump.n_samples))),
        layers=list(dump.layers) if layers is None else layers,
        samples=dump.samples.select("task_id"),
        tokens=pl.DataFrame({name: column for name, column in columns.items() if column is not None})[chosen],
        extra={"pairs": dict(dump.manifest.extra["pairs"])} if entry == "its own" else entry,
    )


def bad_changes(b, pairs):
    """What makes of a dump one that cannot be compared with the agentic one, and what is said of it."""
    position = b.tokens["position"].to_numpy()
    entry = {"sha256": pairs.sha256, "condition": "agentic"}

    def moved(row, to):
        return {"position": np.where(np.arange(len(position)) == row, to, position)}

    signed = [replace(layer, signed_weights=True) for layer in b.layers]
    of_itself = np.flatnonzero(b.tokens["token_id"].to_numpy() == 51)
    return [
        (moved(1, 99), "task T/0 has a token at position 99 of 29; accepted: the tokens of"),
        (moved(0, 0), "task T/0 has a token at position 0, where the condition has none"),
        ({**moved(3, position[2]), "token_id": None}, r"has position \d+ twice; accepted: each position once"),
        ({"position": position.astype(float)}, "column position of tokens.parquet is Float64; accepted: integers"),
        ({"entry": {"pairs": entry}}, r"task T/0, position \d+: token id 51, the pairs have \d+; accepted"),
        ({"entry": {"pairs": "p.json"}}, "the manifest's pairs is not an object of sha256 and condition"),
        ({"entry": {"pairs": {**entry, "condition": "robotic"}}}, "is 'robotic'; accepted: agentic, assisted"),
        ({"layers": signed}, r"layer 0 \(layers.0\) has signed weights.*or a dump without weights"),
        ({"rows": of_itself}, "has no token in common with .*agentic that the pairs share"),
    ]


def test_every_dump_that_cannot_be_compared_is_named_in_one_line(world, tmp_path):
    _, pairs, make = world
    a, b = make("agentic"), make("assisted")
    for number, (change, line) in enumerate(bad_changes(b, pairs)):
        dump = again(tmp_path / f"d{number}", b, **change)
        comparing = partial(moefps.compare, a, dump, pairs, n_resamples=0)
        refused((moefps.DataError, moefps.DumpError), comparing, rf"^{re.escape(str(dump.path))}: .*{line}")
    wide = make("assisted", "slots", k=3)
    line = "slots: has 3 slots of a token, .*agentic has 2; accepted: dumps of one layout"
    refused(moefps.DumpError, lambda: moefps.compare(a, wide, pairs), line)


def test_dumps_of_pairs_without_the_file_are_told_of_it(world, tmp_path):
    records, _, make = world
    a, b = make("agentic"), make("assisted")
    line = r"^pairs: not given, but .*two conditions of pairs, \S*agentic the agentic and \S*assisted the assisted one"
    refused(moefps.ArgumentError, lambda: moefps.compare(a, b), line, "accepted: the file of the pairs")
    other = write_pairs(tmp_path / "other.json", [*records[1:], records[0]])
    stranger = make("agentic", "stranger", pairs=other)
    refused(moefps.DataError, lambda: moefps.compare(a, stranger), "^.*stranger: was captured with another pairs file")
    unnamed = make("assisted", "unnamed", pairs=None)
    for given in ((a, unnamed), (unnamed, a)):
        refused(moefps.DataError, partial(moefps.compare, *given), r"task T/0 has \d+ tokens, .*--pairs")
    # One condition of two models is the same texts through both, and needs no file.
    assert moefps.compare(a, make("agentic", "tuned"), n_resamples=0).summary["count_all"] == a.n_tokens


def test_what_is_joined_does_not_depend_on_the_order_or_on_what_else_is_there(world, tmp_path):
    """Tasks in another order, tokens of a task in another order, tasks that the other has not, no entry, no ids."""
    records, pairs, make = world
    a, b = make("agentic"), make("assisted")
    expected = moefps.compare(a, b, pairs, n_resamples=20)

    def same(dump, **left_out):
        found = moefps.compare(a, dump, pairs, n_resamples=20)
        assert all(table.equals(expected.tables[name]) for name, table in found.tables.items())
        assert found.summary["left_out"] == {"a": [], "b": [], **left_out}

    sample, position = b.tokens["sample"].to_numpy(), b.tokens["position"].to_numpy()
    same(again(tmp_path / "tokens", b, rows=np.lexsort([-position, sample])))
    same(again(tmp_path / "no entry", b, entry=None))
    same(again(tmp_path / "no ids", b, token_id=None))
    with_other = [records[2], {**records[1], "task_id": "E/1"}, records[0], records[1]]
    rows = list(rows_of(with_other, "assisted"))
    of = {(records[number]["task_id"], place): i for i, (number, place, _) in enumerate(rows_of(records, "assisted"))}
    taken = np.array([of.get((with_other[number]["task_id"], place), 0) for number, place, _ in rows])
    routing = {"ids": b.expert_ids[taken], "weights": b.expert_weights[taken], "n_experts": (6,), "pairs": pairs}
    same(write_condition(tmp_path / "order", with_other, "assisted", **routing), b=["E/1"])
    few = moefps.compare(a, make("assisted", "few", of=records[1:2]), pairs, n_resamples=0)
    assert (few.summary["n_tasks"], few.summary["left_out"]) == (1, {"a": ["T/0", "T/2"], "b": []})
    assert few.summary["count_all"] == 14


def test_one_condition_twice(world):
    """Two models in one condition can be compared, and a dump with itself: all is zero, and r has no value."""
    _, pairs, make = world
    a, tuned = make("agentic"), make("agentic", "tuned")
    found = moefps.compare(a, tuned, pairs, n_resamples=0)
    assert (found.summary["condition_a"], found.summary["condition_b"]) == ("agentic", "agentic")
    assert found.summary["count_all"] == 42
    assert found.layer_metrics["tv"].drop_nulls().min() > 0
    same = moefps.compare(a, a, pairs, n_resamples=0)
    assert same.layer_metrics["count"].equals(found.layer_metrics["count"])
    assert set(same.layer_metrics["tv"].drop_nulls()) == {0.0}
    assert same.tool_expert_leakage_summary["r"].to_list() == [None]
    assert same.tool_expert_leakage_summary["reason"].null_count() == 0


@pytest.mark.parametrize("without", [("agentic",), ("assisted",), ("agentic", "assisted")])
def test_weights_that_one_of_them_has_not(world, tmp_path, without):
    _, pairs, make = world
    dumps = [make(condition) for condition in ("agentic", "assisted")]
    for i, (dump, condition) in enumerate(zip(dumps, ("agentic", "assisted"), strict=True)):
        if condition in without:
            dumps[i] = moefps.write_dump(
                tmp_path / f"{condition} without",
                expert_ids=dump.expert_ids,
                offsets=dump.token_starts,
                layers=list(dump.layers),
                samples=dump.samples.select("task_id"),
                tokens=dump.tokens.drop("sample"),
                extra={"pairs": dict(dump.manifest.extra["pairs"])},
            )
    found = moefps.compare(*dumps, pairs, n_resamples=0)
    assert found.layer_metrics["tv"].null_count() == found.layer_metrics.height
    assert found.layer_metrics.filter(group="all")["jaccard"].null_count() == 0
    assert "holds no weights" in found.findings or "hold no weights" in found.findings


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
    assert found.findings.startswith("# a against b")
    # Nothing of agents is said where there are none.
    assert found.summary["distance_trend"] is found.summary["tool_response_tv"] is None
    assert not any(word in found.findings for word in ("tool", "agentic", "solution"))
    assert [row["group"] for row in found.summary["top_tv_groups"]] == ["code", "law"]
    assert "By `domain`, mean TV" not in found.findings
    assert found.summary["usage_beyond_chance"] == {"n_layers": 0, "n_layers_tested": 2}
    assert "differs in none of 2 layers" in found.findings
    # What is said of all tokens is said though a table of groups is not to have them.
    fewer = moefps.compare(a, b, by="domain", n_resamples=20, groups=["law"])
    assert fewer.layer_joint_metrics["group"].to_list() == ["law"] * 2
    assert fewer.summary["usage_beyond_chance"] == found.summary["usage_beyond_chance"]


def test_the_order_of_tasks_does_not_matter(tmp_path):
    """Tasks are joined by name, and the same are drawn, whichever dump comes first."""
    samples = pl.DataFrame({"id": ["x", "y", "z"], "domain": ["law", "code", "law"]})
    a = plain(tmp_path / "a", samples=samples)
    b = plain(tmp_path / "b", seed=1, lengths=LENGTHS[::-1], samples=samples[::-1])
    one, other = moefps.compare(a, b, by="domain", n_resamples=30), moefps.compare(b, a, by="domain", n_resamples=30)
    assert one.layer_metrics["tv"].max() > 0.1
    names = ["layer", "group", "count", "tv", "tv_lo", "tv_hi", "js_hi", "jaccard_lo"]
    assert one.layer_metrics.select(names).equals(other.layer_metrics.select(names))
    assert one.expert_usage["delta_u_hi"].to_list() == (-other.expert_usage["delta_u_lo"]).to_list()
    means = [row["tv"] for row in one.summary["top_tv_groups"]]
    assert means == sorted(means, reverse=True) != sorted(means)


def test_many_small_groups_have_intervals_though_blocks_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(reduction, "MOST_UNITS", 5)
    samples = pl.DataFrame({"domain": [f"d{i // 2}" for i in range(12)]})
    a, b = (plain(tmp_path / name, seed=i, lengths=(4,) * 12, samples=samples) for i, name in enumerate("ab"))
    found = moefps.compare(a, b, by="domain", n_resamples=100)
    assert found.summary["intervals"] == "95 %, 100 resamples of blocks of up to 3 tasks"
    assert found.layer_metrics["tv_lo"].null_count() == 0
    # Few tasks make wide intervals, but not of what cannot be.
    for name, least, most in (("delta_u", -1, 1), ("u_a", 0, 1)):
        values = found.expert_usage.select(cs.starts_with(name)).to_numpy()
        assert np.nanmin(values) >= least, name
        assert np.nanmax(values) <= most, name
    assert found.layer_metrics["entropy_diff_hi"].max() <= np.log(2)


def test_dumps_without_samples(tmp_path):
    a, b = (plain(tmp_path / name, lengths=()) for name in "ab")
    refused(moefps.DataError, lambda: moefps.compare(a, b), "a: has no samples; accepted: dumps with at least one")


def test_tokens_that_no_layer_routes_in_both(tmp_path):
    """They are the same tokens, but there is nothing to compare."""
    a = plain(tmp_path / "a")
    b = plain(tmp_path / "b", ids=np.full_like(a.expert_ids, -1), expert_weights=np.zeros_like(a.expert_weights))
    with pytest.raises(moefps.DataError, match=r"b: no token that it has in common with .*a is routed in both; acc"):
        moefps.compare(a, b)


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
