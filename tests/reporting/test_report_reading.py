"""What was written to a folder or a file is read back as it was, or refused in one line."""

from __future__ import annotations

import json
import shutil

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import moefps
from moefps.comparison.reading import SCHEMAS
from moefps.io.picks import read_picks
from moefps.io.table_folders import write_table_folder
from moefps.io.table_reading import read_table
from moefps.io.tables import table_bytes
from reporting.pages import DUMP, compare_pairs, moefps_command
from support import refused


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return compare_pairs(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Two texts without weights and without intervals, grouped by an odd column: most columns are null."""
    folder = tmp_path_factory.mktemp("bare")
    samples = pl.DataFrame({"part": ["", 'a "b", c\n</script>']})
    dumps = [
        moefps.write_dump(folder / name, expert_ids=ids, offsets=[0, 1, 2], n_experts=4, samples=samples)
        for name, ids in {"base": [[[0, 1]], [[2, 3]]], "tuned": [[[0, 1]], [[2, 0]]]}.items()
    ]
    return moefps.compare(*dumps, by="part", n_resamples=0)


def same_comparison(one, other):
    assert one.summary == other.summary
    assert one.findings == other.findings
    assert list(one.tables) == list(other.tables)
    for name, table in one.tables.items():
        assert_frame_equal(table, other.tables[name], check_exact=True)


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
@pytest.mark.parametrize("which", ["found", "bare"])
def test_a_comparison_comes_back_as_it_was(which, file_format, tmp_path, request):
    comparison = request.getfixturevalue(which)
    assert {name: list(table.schema.items()) for name, table in comparison.tables.items()} == {
        name: list(schema.items()) for name, schema in SCHEMAS.items()
    }
    folder = comparison.write(tmp_path / "out", file_format=file_format, figures={"a.png": b"1"})
    same_comparison(moefps.open_comparison(folder), comparison)


def test_what_is_no_comparison_is_refused(found, tmp_path):
    whole = found.write(tmp_path / "whole")

    def broken(name, break_it):
        folder = shutil.copytree(whole, tmp_path / name)
        break_it(folder)
        return lambda: moefps.open_comparison(folder)

    def change_summary(folder):
        summary = json.loads((folder / "summary.json").read_text())
        del summary["n_tasks"]
        (folder / "summary.json").write_text(json.dumps(summary))

    table = "tables/layer_metrics.csv"
    refused(moefps.FileError, lambda: moefps.open_comparison(tmp_path / "none"), "none: does not exist; accepted")
    refused(moefps.FileError, lambda: moefps.open_comparison(whole / table), "is a file")
    refused(moefps.FileError, lambda: moefps.open_comparison(tmp_path), r"has no summary\.json")
    for name, break_it, *words in (
        ("half", lambda folder: (folder / table).unlink(), "has no layer_metrics.csv or layer_metrics.parquet"),
        ("twice", lambda folder: shutil.copy(folder / table, folder / "tables/layer_metrics.json"), "accepted: one"),
        ("empty", lambda folder: (folder / table).write_text(""), "is empty"),
        ("column", lambda folder: (folder / table).write_text("layer,group\n0,all\n"), "has no column count; accepted"),
        ("summary", change_summary, r"summary\.json has no n_tasks"),
        ("json", lambda folder: (folder / "summary.json").write_text("{"), "cannot be read as json"),
        ("list", lambda folder: (folder / "summary.json").write_text("[]"), "holds a list"),
    ):
        refused(moefps.FileError, broken(name, break_it), *words)
    text = (whole / table).read_text().replace("all,", "all,x", 1)
    refused(
        moefps.FileError,
        broken("value", lambda folder: (folder / table).write_text(text)),
        "column count has 'x.*'; accepted: whole numbers, or nothing",
    )


def test_a_damaged_summary_is_refused(found, tmp_path):
    folder = found.write(tmp_path / "out")

    def opened(summary):
        (folder / "summary.json").write_text(json.dumps(summary))
        return lambda: moefps.open_comparison(folder)

    # The findings do not need these.
    needless = {"models", "captured", "n_resamples", "tasks_per_unit", "seed", "tool_versions"}
    for key in found.summary:
        if key == "count_all" or not (key in needless or key.startswith("count_")):
            without = {name: value for name, value in found.summary.items() if name != key}
            refused(moefps.FileError, opened(without), f"summary.json has no {key}; accepted")
    refused(moefps.FileError, opened({**found.summary, "n_tasks": "many"}), "says n_tasks 'many'; accepted: a whole")
    refused(moefps.FileError, opened({**found.summary, "top_tv_layers": 3}), r"summary.json is damaged \(TypeError")
    refused(moefps.FileError, opened({**found.summary, "left_out": []}), r"summary.json is damaged \(AttributeError")


@pytest.mark.parametrize("file_format", ["csv", "json", "parquet"])
@pytest.mark.parametrize("by", [None, "domain", "number"])
def test_metrics_come_back_as_they_were(by, file_format, tmp_path):
    if by == "number":
        dump = moefps.open_dump(DUMP)
        samples = dump.samples.select(number=pl.int_range(pl.len()) // 5)
        source = moefps.write_dump(
            tmp_path / "dump",
            expert_ids=dump.expert_ids,
            offsets=dump.token_starts,
            n_experts=16,
            samples=samples,
        )
    else:
        source = DUMP
    metrics = moefps.routing_metrics(source, by=by, targets="spectra", ci=0.9, n_resamples=20)
    tables = {**metrics.tables(), "coactivation": metrics.coactivation()}
    folder = write_table_folder(tmp_path / "out", tables, metrics.about, file_format=file_format)
    again = moefps.open_metrics(folder)
    assert repr(again) == repr(metrics)
    assert dict(again.about) == dict(metrics.about)
    for name, table in metrics.tables().items():
        assert_frame_equal(again.tables()[name], table, check_exact=True)
    assert_frame_equal(again.coactivation(), metrics.coactivation(), check_exact=True)


def test_infinite_values_come_back(tmp_path):
    ids = np.array([[[0, 1]], [[0, 1]]])
    weights = np.array([[[1.0, 0.0]], [[1.0, 0.0]]], dtype=np.float32)
    dump = moefps.write_dump(tmp_path / "dump", expert_ids=ids, expert_weights=weights, offsets=[0, 2], n_experts=2)
    metrics = moefps.routing_metrics(dump)
    for file_format in ("csv", "json"):
        out = tmp_path / file_format
        moefps_command("metrics", tmp_path / "dump", "--targets", "none", "--format", file_format, "-o", out)
        again = moefps.open_metrics(tmp_path / file_format)
        assert_frame_equal(again.layers, metrics.layers, check_exact=True)


def test_what_is_no_folder_of_metrics_is_refused(tmp_path):
    metrics = moefps.routing_metrics(DUMP, by="domain", metrics=["gini_coefficient"])
    whole = write_table_folder(tmp_path / "whole", metrics.tables(), metrics.about)
    other = write_table_folder(tmp_path / "other", {"experts": pl.DataFrame({"expert": [0]})}, {"source": "x"})
    refused(moefps.FileError, lambda: moefps.open_metrics(other), "has no table layers; accepted: a folder that")
    (whole / "layers.csv").write_text((whole / "layers.csv").read_text().replace("gini", "gini,", 1))
    refused(moefps.FileError, lambda: moefps.open_metrics(whole), r"layers.csv: line 2 has 15 of 14 columns; acc")


def edited(whole, folder, name, edit):
    """Copy a folder, with one of its files changed as text."""
    shutil.copytree(whole, folder)
    (folder / name).write_text(edit((folder / name).read_text()))
    return folder


def test_tables_that_are_cut_or_do_not_fit_the_summary_are_refused(found, tmp_path):
    whole = found.write(tmp_path / "whole")
    n_layers = found.summary["n_layers"]

    def without_last(text):
        return text[: text.rindex("\n", 0, -1) + 1]

    def change_summary(text):
        return json.dumps({**json.loads(text), "n_layers": n_layers + 1})

    metrics = "tables/layer_metrics.csv"
    for i, (name, edit, *words) in enumerate(
        (
            (
                metrics,
                lambda text: text[: text.index("\n", text.index("\n1,")) - 30],
                r"line \d+ has \d+ of \d\d columns; acc",
            ),
            (metrics, lambda text: text[:-1], r"line \d+ has no end, as if the file were cut; accepted: whole lines"),
            (metrics, lambda text: f"{text}0\n", r"csv: line \d+ has 1 of \d\d columns; accepted: all of them"),
            (metrics, without_last, r"tables: layer_metrics has \d+ rows of 9 groups, summary.json speaks of 2 layers"),
            (metrics, lambda text: text + text.splitlines()[-1] + "\n", "accepted: one of each layer and group"),
            (metrics, lambda text: text[: text.index("\n") + 1], "has 0 rows of 0 groups"),
            (metrics, lambda text: text.replace("\n0,all,", "\n0,some,"), "layer_metrics has the group 'some'; acc"),
            ("tables/layer_joint_metrics.csv", without_last, "layer_joint_metrics has"),
            ("tables/tool_expert_leakage_summary.csv", without_last, "has 1 row, summary.json speaks of 2 layers"),
            (
                "tables/expert_usage.csv",
                without_last,
                "has 4 rows of layer 1; accepted: one of each of its 5 experts",
            ),
            (
                "tables/top_experts_global.csv",
                lambda text: text.replace("\n1,", "\n2,"),
                "the layer 2; accepted: 0 to 1",
            ),
            ("tables/top_experts_by_layer.csv", without_last, "has 10 rows; accepted: 11, as expert_usage has those"),
            ("tables/leakage_vs_distance.csv", without_last, "has not the last distances"),
            ("summary.json", change_summary, "summary.json speaks of 3 layers"),
        )
    ):
        folder = edited(whole, tmp_path / str(i), name, edit)
        refused(moefps.FileError, lambda folder=folder: moefps.open_comparison(folder), *words)


def test_some_groups_alone_are_whole(tmp_path):
    compare_pairs(tmp_path)
    dumps = tmp_path / "agentic.dump", tmp_path / "assisted.dump"
    some = moefps.compare(*dumps, tmp_path / "pairs.json", groups=["tool_call", "canonical"], n_resamples=0)
    same_comparison(moefps.open_comparison(some.write(tmp_path / "out")), some)


@pytest.mark.parametrize("file_format", ["csv", "json", "parquet"])
def test_numbers_that_are_not_finite_are_refused(file_format, tmp_path):
    columns = {"layer": pl.Int64(), "tv": pl.Float64(), "value": pl.Float64()}
    path = tmp_path / f"a.{file_format}"

    def read(**values):
        frame = pl.DataFrame({"layer": [0, 1], "tv": [0.5, None], "value": [1.0, None], **values}, schema=columns)
        if file_format == "json":
            # As Python writes it; polars writes nothing that JSON does not have.
            path.write_text(json.dumps(frame.to_dicts()))
        else:
            path.write_bytes(table_bytes(frame, file_format))
        assert_frame_equal(read_table(path, columns, infinite=["value"]), frame)

    read(value=[np.inf, None])
    for number in (np.nan, np.inf, -np.inf):
        words = f"a.{file_format}: column tv has '{number}'; accepted: finite numbers, or nothing"
        refused(moefps.FileError, lambda number=number: read(tv=[1.0, number]), words)
    refused(moefps.FileError, lambda: read(value=[np.nan, 1.0]), "column value has 'nan'")


def test_rows_of_a_csv_are_counted_as_csv_has_them(tmp_path):
    path = tmp_path / "a.csv"
    texts = ["a, b\nc", 'with "quotes", too', None, "", "x" * 200_000]
    frame = pl.DataFrame({"layer": range(5), "reason": texts})
    path.write_bytes(table_bytes(frame, "csv"))
    assert_frame_equal(read_table(path, frame.schema), frame)
    path.write_bytes(path.read_bytes() + b"5\n")
    refused(moefps.FileError, lambda: read_table(path, frame.schema), "a.csv: line 8 has 1 of 2 columns; accepted")
    path.write_bytes(b'layer,reason\r\n0,"a\r\n1,b\r\n')
    refused(moefps.FileError, lambda: read_table(path, frame.schema), "line 2: unexpected end of data; accepted")
    # The only value of a row may be nothing.
    one = frame.select("reason")
    path.write_bytes(table_bytes(one, "csv"))
    assert_frame_equal(read_table(path, one.schema), one)


def test_metrics_that_are_cut_are_refused(tmp_path):
    metrics = moefps.routing_metrics(DUMP, metrics=["gini_coefficient", "maxvio", "expert_overlap", "Routing_Type"])
    tables = {**metrics.tables(), "coactivation": metrics.coactivation()}
    whole = write_table_folder(tmp_path / "whole", tables, metrics.about)
    for name in tables:
        folder = edited(
            whole, tmp_path / name, f"{name}.csv", lambda text: "".join(text.splitlines(keepends=True)[:-1])
        )
        refused(
            moefps.FileError, lambda folder=folder: moefps.open_metrics(folder), rf"{name} has [\d,]+ rows; accepted: "
        )
    folder = edited(whole, tmp_path / "cut", "layers.csv", lambda text: text[:-20])
    refused(moefps.FileError, lambda: moefps.open_metrics(folder), r"layers.csv: line \d+ has \d+ of 13 columns")
    value = str(metrics.layers["value"][0])
    wild = edited(whole, tmp_path / "inf", "layers.csv", lambda text: text.replace(value, "inf", 1))
    refused(moefps.FileError, lambda: moefps.open_metrics(wild), "layers.csv: gini_coefficient is infinite; accepted")


@pytest.mark.parametrize("by_domain", [False, True])
@pytest.mark.parametrize("domains", [["law", "code"], [3, 1]])
def test_metrics_of_batches_come_back(by_domain, domains, tmp_path):
    analyzer = moefps.RoutingAnalyzer(8)
    ids = np.argsort(np.random.default_rng(0).random((30, 8)), axis=1)[:, :2]
    for layer in (0, 2):
        analyzer.update(ids, layer=layer, domains=[domains[i % 2] for i in range(30)])
    metrics = analyzer.result(["gini_coefficient", "expert_overlap"], by_domain=by_domain)
    again = moefps.open_metrics(write_table_folder(tmp_path / "found", metrics.tables(), metrics.about))
    assert again.domains is not None
    for name, table in metrics.tables().items():
        assert_frame_equal(again.tables()[name], table)


def test_picks_come_back_and_others_are_refused(tmp_path):
    moefps_command("select", DUMP, "-m", "3", "-o", tmp_path / "sel.csv")
    moefps_command("select", DUMP, "-m", "3", "-o", tmp_path / "sel.json")
    moefps_command("select", DUMP, "-m", "3", "-o", tmp_path / "sel.parquet")
    moefps_command("select", DUMP, "-m", "3", "-o", tmp_path / "sel.npy")
    picks = read_picks(tmp_path / "sel.parquet")
    assert picks.columns[:5] == ["rank", "index", "radius", "cluster_size", "typicality"]
    assert_frame_equal(read_picks(tmp_path / "sel.csv"), picks, check_exact=True)
    assert_frame_equal(read_picks(tmp_path / "sel.json"), picks, check_exact=True)
    refused(moefps.FileError, lambda: read_picks(tmp_path / "sel.npy"), "is no file of picks; accepted: a .csv")
    head = "rank,index,radius,cluster_size\n"
    for text, *words in (
        ("rank,index\n1,2\n", "has no column radius; accepted: the picks that `moefps select -o` wrote"),
        ("", "is empty; accepted: the picks that"),
        (f"{head}1,2,0.5,3\n2,3,0.5,1\n3,4,0.75,1\n", "radius rises from 0.5 at rank 2 to 0.75; accepted: the picks"),
        (f"{head}1,2,inf,3\n", "column radius has 'inf'; accepted: finite"),
        (head, "has no row"),
        (f"{head}1,,0,1\n", "row 0 .* has None for index"),
        (f"{head}1,2,-1,1\n", "row 0 .* has -1.0 for radius"),
        (f"{head}2,2,1,1\n", "the ranks are not 1 to 1"),
    ):
        (tmp_path / "bad.csv").write_text(text)
        refused(moefps.FileError, lambda: read_picks(tmp_path / "bad.csv"), *words)
