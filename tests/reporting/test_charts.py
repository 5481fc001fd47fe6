"""Charts of comparisons: which there are, that they show the tables, and what they leave out."""

from __future__ import annotations

import dataclasses
import json
import math
from itertools import pairwise

import altair as alt
import polars as pl
import pytest

import moefps
from moefps.reporting.charts.curves import draw_curves, draw_panels
from moefps.reporting.charts.distance import draw_distance
from moefps.reporting.charts.labelling import Box, place_labels
from moefps.reporting.charts.leakage import draw_leakage
from moefps.reporting.charts.levels import draw_levels
from moefps.reporting.charts.lines import integer_ticks, interval_rows
from moefps.reporting.charts.study import Study
from moefps.reporting.charts.usage import draw_usage
from moefps.reporting.figures import comparison_charts, left_out_figures, selection_charts
from reporting.studies import compare_pairs, compare_rows

CURVES = {"tv_curve": "tv", "A1_tv_curves": "tv", "B1_jaccard": "jaccard", "js_curve": "js"}
ONLY_OF_PAIRS = {"tv_tool_vs_canonical", "tv_tool_response_split", "tool_expert_leakage_layerXX", "leakage_vs_distance"}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return compare_pairs(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def figures(study):
    return comparison_charts(study)


def rows_with(figure, *fields):
    """All rows of a figure's data that have these fields."""
    return [row for rows in figure.spec()["datasets"].values() for row in rows if row.keys() >= set(fields)]


def texts_in(spec):
    """Every text of a specification, keys too."""
    if isinstance(spec, dict):
        for key, value in spec.items():
            yield key
            yield from texts_in(value)
    elif isinstance(spec, list):
        for value in spec:
            yield from texts_in(value)
    elif isinstance(spec, str):
        yield spec


def encodings(spec, channel):
    """Every definition of a channel in a specification."""
    if isinstance(spec, dict):
        if isinstance(spec.get("encoding"), dict) and channel in spec["encoding"]:
            yield spec["encoding"][channel]
        for value in spec.values():
            yield from encodings(value, channel)
    elif isinstance(spec, list):
        for value in spec:
            yield from encodings(value, channel)


def test_the_figures_of_the_study_by_the_names_and_in_the_order_promised(study, figures):
    layers = study.tool_expert_leakage_summary["layer"].to_list()
    assert list(figures) == [
        *("tv_curve", "tv_tool_vs_canonical", "tv_tool_response_split", "usage_delta_heatmap"),
        *(f"tool_expert_leakage_layer{layer:02d}" for layer in layers),
        *("A1_tv_curves", "B1_jaccard", "entropy_neff", "margin", "js_curve", "leakage_vs_distance"),
    ]
    assert left_out_figures(study) == {}
    for name, figure in figures.items():
        spec = figure.spec()
        assert figure.name == name
        assert " ".join(spec["title"]["text"]) == figure.title
        assert " ".join(spec["title"]["subtitle"]) == figure.caption
        assert "title" not in figure.spec(titled=False)
        assert figure.title in spec["description"]
        assert spec["config"]["font"] == "sans-serif"
        # Nothing that a page or a drawing could ask a network for.
        assert not any("://" in text for text in texts_in(spec) if text != spec["$schema"])


def test_a_folder_read_back_gives_the_same_charts_whatever_theme_is_on(study, figures, tmp_path):
    first = {name: json.dumps(figure.spec()) for name, figure in figures.items()}
    study.write(tmp_path / "found")
    with alt.theme.enable("dark"):
        read = comparison_charts(moefps.open_comparison(tmp_path / "found"))
        assert {name: json.dumps(figure.spec()) for name, figure in read.items()} == first
    assert alt.theme.active == "default"


@pytest.mark.parametrize("name", CURVES)
def test_curves_show_the_table_of_layers(study, figures, name):
    measure = CURVES[name]
    shown = {(row["label"], row["layer"]): row for row in rows_with(figures[name], "label", "layer", "value")}
    there = study.layer_metrics.filter(pl.col(measure).is_not_null())
    words = {"all": "all tokens", "canonical": "solution", "tool_response_docstring": "tool response: docstrings"}
    assert len(shown) == there.height
    for group, word in words.items():
        for row in there.filter(pl.col("group") == group).iter_rows(named=True):
            of = shown[word, row["layer"]]
            assert of["count"] == row["count"]
            assert (of["value"], of["lo"], of["hi"]) == pytest.approx(
                (row[measure], row[f"{measure}_lo"], row[f"{measure}_hi"]), rel=1e-6
            )
    for word in ("tool schema", "tool call", "user prompt"):
        assert word in figures[name].caption
        assert word not in {label for label, _ in shown}


@pytest.mark.parametrize(("name", "measure"), [("entropy_neff", "neff"), ("margin", "margin")])
def test_levels_show_both_conditions_and_their_difference(study, figures, name, measure):
    rows = [{"label": row.get("condition"), **row} for row in rows_with(figures[name], "layer", "value")]
    of_all = study.layer_metrics.filter(pl.col("group") == "all")
    for side, label in (("a", "agentic"), ("b", "assisted")):
        wanted = of_all[f"{measure}_{side}"].to_list()
        found = [row["value"] for row in rows if row["label"] == label]
        assert found[-len(wanted) :] == pytest.approx(wanted, rel=1e-6)
    found = [row["value"] for row in rows if row["label"] == "all tokens"]
    assert found[-of_all.height :] == pytest.approx(of_all[f"{measure}_diff"].to_list(), rel=1e-6)
    assert "agentic minus assisted" in figures[name].caption


def test_the_map_has_every_expert_and_colours_centred_on_no_difference(study, figures):
    figure = figures["usage_delta_heatmap"]
    rows = pl.DataFrame(rows_with(figure, "expert", "delta_u")).sort("layer", "expert")
    wanted = study.expert_usage.sort("layer", "expert")
    assert rows["delta_u"].to_list() == pytest.approx(wanted["delta_u"].to_list(), rel=1e-6, abs=1e-15)
    color = next(encodings(figure.spec(), "color"))
    domain = color["scale"]["domain"]
    assert domain[2] == 0
    assert domain == [-end for end in reversed(domain)]
    assert domain[-1] >= wanted["delta_u"].abs().max()
    assert "more in agentic" in color["legend"]["labelExpr"]


def test_leakage_shows_experts_their_numbers_and_what_is_known_of_r(study, figures):
    for row in study.tool_expert_leakage_summary.iter_rows(named=True):
        figure = figures[f"tool_expert_leakage_layer{row['layer']:02d}"]
        points = {at["expert"]: at for at in rows_with(figure, "expert", "delta_u_tool")}
        of_layer = study.tool_expert_leakage_by_layer.filter(pl.col("layer") == row["layer"])
        assert [points[expert]["delta_u_tool"] for expert in of_layer["expert"]] == pytest.approx(
            of_layer["delta_u_tool"].to_list(), rel=1e-6, abs=1e-15
        )
        assert f"r = {row['r']:.3f}".replace("-", "\N{MINUS SIGN}") in figure.caption
        assert f"q = {row['q']:.3g}" in figure.caption
    sure = study.tool_expert_leakage_summary.with_columns(q=0.01, r=0.5, r_lo=-0.25, r_hi=0.75)
    figure = draw_leakage("layer00", Study(dataclasses.replace(study, tool_expert_leakage_summary=sure)), 0)
    assert figure.caption.startswith("r = 0.500 (95 % \N{MINUS SIGN}0.250 to 0.750), q = 0.01.")


def test_distances_are_the_bins_and_empty_ones_stay(study, figures):
    figure = figures["leakage_vs_distance"]
    bins = ["1-2", "3-4", "5-8", "9-16", "17-32", "33-64", "65-128", "129-256", "257-512", "513+"]
    assert all(x["scale"]["domain"] == bins for x in encodings(figure.spec(), "x"))
    table = study.leakage_vs_distance
    counts = {row["distance"]: row["count"] for row in rows_with(figure, "distance", "count")}
    assert [counts[name] for name in bins] == table["count"].to_list()
    values = [row["value"] for row in rows_with(figure, "bin", "value")]
    wanted = [*table["tv"].drop_nulls(), *table["jaccard"].drop_nulls()]
    assert values == pytest.approx(wanted, rel=1e-6)


def test_without_weights_only_sets_are_drawn(tmp_path):
    found = compare_pairs(tmp_path, n_layers=1, n_tasks=2, weights=False)
    assert list(comparison_charts(found)) == [
        *("usage_delta_heatmap", "tool_expert_leakage_layer00", "B1_jaccard", "leakage_vs_distance")
    ]
    reasons = left_out_figures(found)
    assert set(reasons) == {
        *("tv_curve", "tv_tool_vs_canonical", "tv_tool_response_split", "A1_tv_curves"),
        *("entropy_neff", "margin", "js_curve"),
    }
    assert set(reasons.values()) == {"a dump holds no weights, so only the sets of chosen experts are compared"}


def test_one_task_has_no_intervals_and_says_so(tmp_path):
    found = compare_pairs(tmp_path, n_layers=1, n_tasks=1)
    for figure in (draw_curves("js_curve", Study(found)), draw_distance("leakage_vs_distance", Study(found))):
        assert not rows_with(figure, "band")
        assert "No intervals: one task" in figure.caption


def test_a_against_itself_has_axes_and_no_leakage(tmp_path):
    found = compare_pairs(tmp_path, n_tasks=3, same=True)
    figures = comparison_charts(found)
    assert not any(name.startswith("tool_expert") for name in figures)
    assert "use all experts equally" in left_out_figures(found)["tool_expert_leakage_layerXX"]
    assert "Usage is the same in every layer." in figures["usage_delta_heatmap"].caption
    for figure in figures.values():
        for channel in ("x", "y"):
            for definition in encodings(figure.spec(), channel):
                domain = definition.get("scale", {}).get("domain")
                if domain is not None and definition["type"] == "quantitative":
                    assert -math.inf < domain[0] < domain[1] < math.inf


def test_fewer_groups_leave_figures_out_with_a_reason(study):
    table = study.layer_metrics.filter(pl.col("group").is_in(["canonical", "tool_response", "user_prompt"]))
    fewer = dataclasses.replace(study, layer_metrics=table)
    assert left_out_figures(fewer) == {
        "tv_tool_response_split": "the tables were made without the group tool_response_docstring",
    }
    levels = draw_levels("margin", Study(fewer))
    assert levels.caption.startswith("Above: solution, each condition by itself.")
    assert "grey" not in draw_panels("A1_tv_curves", Study(fewer)).caption


def test_many_groups_of_odd_names_are_told_apart_and_the_rest_named(tmp_path):
    odd = ["two\nlines", "two lines", "<b>'\"\\</b>", "control \x00\x1b", "long " * 20]
    values = [*odd, *(f"kind {i}" for i in range(9))]
    found = compare_rows(tmp_path, values * 2)
    assert set(left_out_figures(found)) == ONLY_OF_PAIRS
    assert len(set(left_out_figures(found).values())) == 1
    figures = {"tv_curve": draw_curves("tv_curve", Study(found)), "A1": draw_panels("A1_tv_curves", Study(found))}
    for name, most in (("tv_curve", 9), ("A1", 12)):
        labels = {row["label"] for row in rows_with(figures[name], "label", "value")}
        assert len(labels) == most
        assert "all tokens" in labels
        assert all(label.isprintable() and len(label) < 45 for label in labels)
        assert "as they have the fewest tokens of 15 groups" in figures[name].caption
    spec = figures["tv_curve"].spec()
    colors, dashes, shapes = (
        next(of["scale"]["range"] for of in encodings(spec, channel) if "scale" in of)
        for channel in ("color", "strokeDash", "shape")
    )
    assert len(set(shapes)) == 9
    assert len({(color, str(dash)) for color, dash in zip(colors, dashes, strict=True)}) == 9
    assert figures["tv_curve"].title.endswith("base.dump against tuned.dump")


def test_dumps_whose_names_no_legend_has_room_for(tmp_path):
    found = compare_rows(tmp_path, ["a", "b"])
    long = {"a": "runs/a-checkpoint-of-monday.dump", "b": "runs/a-checkpoint-of-friday.dump"}
    figure = draw_curves("tv_curve", Study(dataclasses.replace(found, summary={**found.summary, **long})))
    assert figure.title.endswith("A against B")
    assert figure.caption.endswith("A is runs/a-checkpoint-of-monday.dump, B is runs/a-checkpoint-of-friday.dump.")


def test_layers_where_nothing_is_compared_are_gaps(tmp_path):
    found = compare_rows(tmp_path, ["a", "b"] * 3, empty_layers=(1, 3), n_layers=6)
    figure = draw_curves("tv_curve", Study(found))
    of_all = [row for row in rows_with(figure, "label", "value") if row["label"] == "all tokens"]
    assert [row["layer"] for row in of_all] == [0, 2, 4, 5]
    assert len({row["run"] for row in of_all}) == 3
    assert [row["alone"] for row in of_all] == [True, True, False, False]
    ticks = next(encodings(figure.spec(), "x"))["axis"]["values"]
    assert ticks == [0, 1, 2, 3, 4, 5]
    assert "no token is compared are left out: 2." in draw_usage("usage", Study(found)).caption


def test_intervals_break_apart_from_the_line():
    frame = pl.DataFrame(
        {
            "label": ["g"] * 6,
            "layer": [0, 1, 2, 3, 4, 6],
            "count": [1] * 6,
            "m": [0.1] * 6,
            "m_lo": [0.0, 0.0, None, 0.0, 0.0, None],
            "m_hi": [0.2, 0.2, None, 0.2, 0.2, None],
        }
    )
    rows = interval_rows(frame, "m")
    assert rows["run"].n_unique() == 2
    bands = rows["band"].to_list()
    assert bands[2] is bands[5] is None
    assert bands[0] == bands[1] != bands[3] == bands[4]
    assert rows["range"].to_list() == [*["0.0 to 0.2"] * 2, "none", *["0.0 to 0.2"] * 2, "none"]


@pytest.mark.parametrize("n", [1, 2, 12, 48, 94, 1000])
def test_ticks_are_whole_numbers_at_even_steps(n):
    ticks = integer_ticks(0, n - 1)
    assert ticks[0] == 0
    assert len(ticks) <= 16
    assert len({b - a for a, b in pairwise(ticks)}) <= 1
    assert all(isinstance(tick, int) and tick < n for tick in ticks)


def test_labels_cover_neither_points_nor_each_other():
    points = [(20.0 + 7 * (i % 5), 20.0 + 6 * (i // 5)) for i in range(20)] + [(98.0, 2.0)]
    placed = place_labels(points, dict.fromkeys(range(21), "123"), Box(0, 0, 100, 100))
    boxes = []
    for (dx, dy), places in placed.items():
        for place in places:
            x, y = points[place][0] + dx, points[place][1] + dy
            left = x if dx > 0 else x - 24 if dx < 0 else x - 12
            boxes.append(Box(left, y - 7, left + 24, y + 7))
            assert not any(boxes[-1].meets(Box(px, py, px, py)) for px, py in points)
    assert 2 <= len(boxes) < 21
    assert not any(a.meets(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_axes_of_counts_have_whole_numbers_once(figures):
    """Also where the largest is 1, of which vega would make 0, 1, 1 by itself."""
    picks = {"rank": [1, 2], "index": [4, 7], "radius": [0.5, 0.0], "cluster_size": [1, 1], "label": ["a", "b"]}
    of_picks = selection_charts(pl.DataFrame(picks))
    for figure, channel, field in (
        (of_picks["cluster_sizes"], "y", "cluster_size"),
        (of_picks["picks_by_label"], "x", "picks"),
        (figures["leakage_vs_distance"], "y", "count"),
    ):
        found = [of for of in encodings(figure.spec(), channel) if of["field"] == field]
        assert found, field
        for values in (of["axis"]["values"] for of in found):
            assert values == sorted({int(value) for value in values})


def test_a_map_of_differences_says_how_many_are_sure(study, figures):
    there = study.expert_usage.filter(pl.col("delta_u_lo").is_not_null())
    sure = there.filter((pl.col("delta_u_lo") > 0) | (pl.col("delta_u_hi") < 0)).height
    said = f"leaves 0 out for {sure} of {there.height}; without any difference it would for about"
    assert said in figures["usage_delta_heatmap"].caption
