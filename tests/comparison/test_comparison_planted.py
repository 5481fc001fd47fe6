"""`moefps.compare` on worlds whose answer is known by construction."""

from __future__ import annotations

import json
import threading

import numpy as np
import polars as pl
import pytest

import moefps
from comparison.worlds import make_record, random_routing, rows_of, write_condition, write_pairs
from moefps.comparison import distances, measuring, reduction

E, K = 32, 4


def both(folder, records, routing_a, routing_b, n_experts=(E,), **options):
    """The two dumps of records, each routed as it is said."""
    pairs = write_pairs(folder / "pairs.json", records)
    dumps = [
        write_condition(
            folder / condition,
            records,
            condition,
            ids=ids,
            weights=weights,
            n_experts=n_experts,
            pairs=pairs,
            **options,
        )
        for condition, (ids, weights) in {"agentic": routing_a, "assisted": routing_b}.items()
    ]
    return (*dumps, pairs)


def planted(records, condition, choose):
    """Route every token as `choose` says of its task, position and condition: experts and weights."""
    rows = [choose(records[task], position, condition) for task, position, _ in rows_of(records, condition)]
    ids, weights = zip(*rows, strict=True)
    return np.array(ids, dtype=np.int16)[:, None], np.array(weights, dtype=np.float32)[:, None]


def test_what_is_moved_by_hand_is_found_to_the_digit(tmp_path):
    """One of four experts is another one for B at odd positions of the solution; docstrings stay as they are."""
    rng = np.random.default_rng(0)
    records = [make_record(rng, f"T/{i}", canonical=40, stub=8) for i in range(5)]

    def choose(record, position, condition):
        in_solution = position in record["canonical_positions"]
        outside = position in record["tool_positions"]["response_non_docstring"]
        moved = condition == "assisted" and ((in_solution and position % 2) or outside)
        return [0, 1, 2, 9 if moved else 3], [0.4, 0.3, 0.2, 0.1]

    routing = [planted(records, condition, choose) for condition in ("agentic", "assisted")]
    found = moefps.compare(*both(tmp_path, records, *routing), n_resamples=50)
    rows = {row["group"]: row for row in found.layer_metrics.to_dicts()}
    assert rows["canonical"]["tv"] == pytest.approx(0.05, abs=1e-7)
    assert rows["canonical"]["jaccard"] == pytest.approx((1 + 3 / 5) / 2)
    assert rows["canonical"]["intersection_share"] == pytest.approx(3.5 / 4)
    assert rows["tool_response_docstring"]["tv"] == 0.0
    assert rows["tool_response_non_docstring"]["tv"] == pytest.approx(0.1, abs=1e-7)
    assert rows["canonical"]["entropy_diff"] == 0.0
    used = {row["group"]: row for row in found.layer_joint_metrics.to_dicts()}
    assert used["canonical"]["usage_tv"] == pytest.approx(0.5 / 4)
    # Expert 3 loses to expert 9 in both groups: of all pairs of values, the line is through three points.
    leak = found.tool_expert_leakage_summary.to_dicts()[0]
    assert leak["r"] == pytest.approx(1.0)
    share = sum(p % 2 for p in records[0]["canonical_non_ws_positions"]) / len(records[0]["canonical_non_ws_positions"])
    assert leak["slope"] == pytest.approx(share)
    first = found.top_experts_by_layer.head(2)
    assert first["expert"].to_list() == [3, 9]
    assert first["delta_u"].to_list() == pytest.approx([-first["delta_u"][1], first["delta_u"][1]])
    assert first["delta_u"][0] > 0
    response = found.summary["tool_response_tv"]
    assert response["docstring"] == 0
    assert response["difference_lo"] == pytest.approx(0.1, abs=1e-7)
    assert "Routing differs more outside docstrings" in found.findings


def test_a_trend_with_distance_is_found(tmp_path):
    """TV is 0.1 up to distance 16 and 0.3 past it."""
    # The last bin is one task's alone, and says nothing of distance.
    sizes = [*range(50, 60), 80]
    records = [make_record(np.random.default_rng(i), f"T/{i}", canonical=n) for i, n in enumerate(sizes)]

    def choose(record, position, condition):
        by = 0.1 if far_from_response(record, position) <= 16 else 0.3
        return [0, 1], [0.5 + by, 0.5 - by] if condition == "assisted" else [0.5, 0.5]

    routing = [planted(records, condition, choose) for condition in ("agentic", "assisted")]
    found = moefps.compare(*both(tmp_path, records, *routing), n_resamples=100)
    table = found.leakage_vs_distance
    assert table["tv"].to_list()[:7] == pytest.approx([0.1] * 4 + [0.3] * 3, abs=1e-6)
    assert table.filter(pl.col("count") == 0).height == table["tv"].null_count() == 3
    assert table["tv_lo"].null_count() == 4
    trend = found.summary["distance_trend"]
    assert trend["to"]["distance_max"] == 64
    assert (trend["from"]["tv"], trend["to"]["tv"]) == pytest.approx((0.1, 0.3), abs=1e-6)
    assert 0.02 < trend["tv_slope_lo"] <= trend["tv_slope"] <= trend["tv_slope_hi"] < 0.2
    assert trend["jaccard_slope"] == trend["jaccard_slope_hi"] == 0
    assert "Within tasks it rises: +0.0" in found.findings


def test_the_slope_of_a_trend_is_that_of_the_tasks_whatever_their_levels(tmp_path, monkeypatch):
    """TV grows by 0.02 with every doubling of the distance, from a level that is higher for short solutions."""
    sizes = [12, 15, 20, 25, 30, 60, 90]
    records = [make_record(np.random.default_rng(i), f"T/{i}", canonical=n) for i, n in enumerate(sizes)]

    def choose(record, position, condition):
        level = 0.3 - 0.045 * int(record["task_id"][2:])
        by = level + 0.02 * np.log2(max(1, far_from_response(record, position)))
        return [0, 1], [0.5 + by, 0.5 - by] if condition == "assisted" else [0.5, 0.5]

    routing = [planted(records, condition, choose) for condition in ("agentic", "assisted")]
    dumps = both(tmp_path, records, *routing)
    found = moefps.compare(*dumps, n_resamples=100)
    trend = found.summary["distance_trend"]
    # Over all tasks it falls, as those that reach far differ least.
    assert trend["to"]["tv"] < trend["from"]["tv"]
    for end in ("", "_lo", "_hi"):
        assert trend[f"tv_slope{end}"] == pytest.approx(0.02, abs=1e-6)
    assert "Within tasks it rises: +0.0200 with every doubling of the distance" in found.findings
    # Tasks have their own levels even where blocks of them are drawn, and where not all fit into memory at a time.
    monkeypatch.setattr(reduction, "MOST_UNITS", 3)
    monkeypatch.setattr(distances, "MOST_BYTES", 1)
    blocks = moefps.compare(*dumps, n_resamples=100).summary["distance_trend"]
    for end in ("", "_lo", "_hi"):
        assert blocks[f"tv_slope{end}"] == pytest.approx(0.02, abs=1e-6)
    assert blocks["to"] == trend["to"]


def far_from_response(record, position):
    return position - (max(end for kind, _, _, end in record["segments"] if kind == "tool_response") - 1)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_correlation_is_inside_its_interval_and_no_shift_has_even_p(tmp_path, sign):
    """In layer 0 the solution loses what the answer loses, or gains it; the others are noise, under uneven load."""
    rng = np.random.default_rng(4)
    records = [make_record(rng, f"T/{i}", canonical=60, stub=40) for i in range(30)]
    n_layers = 12
    shift = rng.normal(scale=0.7, size=E)
    base = np.linspace(2, 0, E)

    def route(condition):
        rows = list(rows_of(records, condition))
        scores = rng.gumbel(size=(len(rows), n_layers, E)) + base
        if condition == "assisted":
            in_solution = [position in records[i]["canonical_positions"] for i, position, _ in rows]
            scores[:, 0] += np.where(in_solution, sign, 1)[:, np.newaxis] * shift
        ids = np.argsort(-scores, axis=2)[:, :, :K].astype(np.int16)
        return ids, np.sort(rng.random(ids.shape), axis=2)[:, :, ::-1].astype(np.float32)

    a, b, pairs = both(tmp_path, records, route("agentic"), route("assisted"), n_experts=[E] * n_layers)
    found = moefps.compare(a, b, pairs, n_resamples=400)
    summary = found.tool_expert_leakage_summary
    first = summary.row(0, named=True)
    assert first["layer"] == 0
    assert min(sign * first["r_lo"], sign * first["r_hi"]) > 0.7
    # Where there is no shift, r is of noise, and says nothing.
    assert (summary["r_hi"] - summary["r_lo"]).tail(-1).mean() > 1.8
    assert first["q"] < 0.05
    assert summary.tail(-1)["p"].min() > 0.01
    used = found.layer_joint_metrics.filter(pl.col("group") == "all")
    # Where nothing is shifted, the observed TV is what exchanging the conditions gives.
    assert (used["usage_tv"] / used["usage_tv_null"]).tail(-1).is_between(0.75, 1.3).all()
    # Over all tokens, opposite shifts cancel out in part.
    assert used["usage_tv"][0] > (3 if sign > 0 else 2) * used["usage_tv_null"][0]
    assert used["usage_js_lo"][0] > 0
    assert "In 1 of 12 layers the shifts of experts" in found.findings
    assert "(q < 0.05). In all of these the interval of r leaves 0 out" in found.findings


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(7)
    records = [make_record(rng, f"T/{i}", canonical=12 + i) for i in range(5)]
    routing = [
        random_routing(rng, len(list(rows_of(records, condition))), (8, 8), 2, drop=0.1)
        for condition in ("agentic", "assisted")
    ]
    return records, (8, 8), both(folder, records, *routing, n_experts=(8, 8))


def test_exchanged_dumps_turn_differences_round_and_nothing_else(world):
    _, _, (a, b, pairs) = world
    one, other = moefps.compare(a, b, pairs, n_resamples=60), moefps.compare(b, a, pairs, n_resamples=60)
    for name, table in one.tables.items():
        back = other.tables[name]
        for column in table.columns:
            stem = column.removesuffix("_lo").removesuffix("_hi")
            sign, source = 1, column
            if stem.startswith("delta_u") or stem.endswith("_diff"):
                sign = -1
                source = {"_lo": f"{stem}_hi", "_hi": f"{stem}_lo"}.get(column[len(stem) :], column)
            else:
                for of, to in (("_a", "_b"), ("_b", "_a")):
                    if stem.endswith(of) or f"{of}_weighted" in stem:
                        source = column.replace(of, to)
            expected = sign * back[source] if sign < 0 else back[source]
            assert table[column].to_list() == expected.to_list(), (name, column)


def test_a_dump_against_itself_differs_nowhere(world):
    _, _, (a, _, pairs) = world
    found = moefps.compare(a, a, pairs, n_resamples=40)
    zero = ["tv", "js", "entropy_diff", "neff_diff", "margin_diff"]
    for name in [f"{column}{end}" for column in zero for end in ("", "_lo", "_hi")]:
        assert set(found.layer_metrics[name].drop_nulls()) == {0.0}, name
    assert set(found.layer_metrics["jaccard"].drop_nulls()) == {1.0}
    for name in ("usage_tv", "usage_tv_null", "usage_js", "usage_js_lo", "usage_js_hi", "usage_js_weighted_hi"):
        assert set(found.layer_joint_metrics[name].drop_nulls()) == {0.0}, name
    assert set(found.top_experts_by_layer["delta_u"]) == {0.0}
    # Of no difference in any task, nothing is to be resampled.
    assert found.expert_usage["delta_u_lo"].null_count() == found.expert_usage.height
    leak = found.tool_expert_leakage_summary
    assert leak["r"].null_count() == leak["p"].null_count() == leak.height
    assert leak["reason"].str.contains("the differences are all the same").all()
    assert "total variation is 0" in found.findings


def test_resampling_moves_and_can_be_stopped(world, monkeypatch):
    _, _, (a, b, pairs) = world
    seen = []
    moefps.compare(a, b, pairs, n_resamples=40, progress=lambda done, total: seen.append((done, total)))
    n_measures = 16
    assert [(layer, 2) for layer in (1, 2)] == [one for one in seen if one[1] == 2]
    assert [one for one in seen if one[1] == n_measures] == [(i, n_measures) for i in range(n_measures + 1)]

    def stop(done, total):
        if total in {2, n_measures}:
            raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        moefps.compare(a, b, pairs, n_resamples=40, progress=stop)
    assert threading.active_count() == before


def test_tasks_in_another_order_and_dumps_without_an_entry(world, tmp_path):
    records, n_experts, (a, b, pairs) = world
    order = [3, 0, 4, 1]
    spans = [slice(*b.token_starts[i : i + 2]) for i in order]
    shuffled = write_condition(
        tmp_path / "shuffled",
        [records[i] for i in order],
        "assisted",
        ids=np.concatenate([b.expert_ids[span] for span in spans]),
        weights=np.concatenate([b.expert_weights[span] for span in spans]),
        n_experts=n_experts,
    )
    found = moefps.compare(a, shuffled, pairs, n_resamples=0)
    assert found.summary["condition_b"] == "assisted"
    assert found.summary["left_out"] == {"a": ["T/2"], "b": []}
    assert found.summary["intervals"] == "none: no resamples were asked for"
    whole = moefps.compare(a, b, pairs, n_resamples=0)
    assert found.summary["count_all"] == whole.summary["count_all"] - len(records[2]["canonical_positions"]) - 6
    assert found.layer_metrics["tv_lo"].null_count() == found.layer_metrics.height


def test_one_task_has_no_intervals(tmp_path):
    rng = np.random.default_rng(1)
    records = [make_record(rng, "only")]
    routing = [random_routing(rng, len(list(rows_of(records, c))), (4,), 2) for c in ("agentic", "assisted")]
    found = moefps.compare(*both(tmp_path, records, *routing, n_experts=(4,)), groups=["canonical", "all"])
    assert found.layer_metrics["group"].to_list() == ["all", "canonical"]
    assert found.layer_metrics["tv"].null_count() == 0
    for name, table in found.tables.items():
        for column in table.columns:
            if column.endswith(("_lo", "_hi")) or "_null" in column:
                assert table[column].null_count() == table.height, (name, column)
    assert found.summary["intervals"] == "none: one task, there is nothing to resample"


def test_layers_of_other_sizes_and_passive_experts(tmp_path):
    """A layer of one slot has no margin; passive experts are nobody's choice."""
    rng = np.random.default_rng(2)
    records = [make_record(rng, f"T/{i}") for i in range(3)]
    routing = []
    for condition in ("agentic", "assisted"):
        ids, weights = random_routing(rng, len(list(rows_of(records, condition))), (8, 5), 2)
        ids[:, 1, 1] = -1
        routing.append((ids, weights))
    a, b, pairs = both(tmp_path, records, *routing, n_experts=(8, 5), top_k=(2, 1), passive=1)
    found = moefps.compare(a, b, pairs, n_resamples=20)
    assert found.layer_metrics.filter(pl.col("layer") == 1)["margin_diff"].null_count() == 9
    assert found.layer_metrics.filter(pl.col("layer") == 0, pl.col("count") > 0)["margin_diff"].null_count() == 0
    assert found.tool_expert_leakage_summary.sort("layer")["n_experts"].to_list() == [7, 4]
    assert found.top_experts_by_layer["expert"].max() < 7
    json.dumps(found.summary, allow_nan=False)


def test_memory_is_cut_by_layers_and_tasks_without_a_difference(world, monkeypatch):
    _, _, (a, b, pairs) = world
    whole = moefps.compare(a, b, pairs, n_resamples=30)
    monkeypatch.setattr(measuring, "layer_chunks", lambda *_: [[0], [1]])
    monkeypatch.setattr(reduction, "_ROWS", 7)
    cut = moefps.compare(a, b, pairs, n_resamples=30, n_threads=1)
    for name, table in whole.tables.items():
        assert table.equals(cut.tables[name]), name
    monkeypatch.setattr(reduction, "MOST_UNITS", 2)
    coarse = moefps.compare(a, b, pairs, n_resamples=30)
    assert coarse.summary["tasks_per_unit"] == 3
    assert coarse.summary["intervals"] == "95 %, 30 resamples of blocks of up to 3 tasks"
    assert coarse.layer_metrics["tv"].to_list() == pytest.approx(whole.layer_metrics["tv"].to_list())


def test_the_largest_differences_of_many_experts(tmp_path):
    rng = np.random.default_rng(12)
    records = [make_record(rng, f"T/{i}") for i in range(3)]
    sides = [random_routing(rng, len(list(rows_of(records, c))), (90, 70), 8) for c in ("agentic", "assisted")]
    found = moefps.compare(*both(tmp_path, records, *sides, n_experts=(90, 70)), n_resamples=0)
    assert found.expert_usage.height == 160
    assert found.top_experts_by_layer["rank"].to_list() == [*range(1, 65)] * 2
    largest = found.expert_usage["delta_u"].abs().sort(descending=True).head(64)
    assert found.top_experts_global["delta_u"].abs().to_list() == pytest.approx(largest.to_list())
