"""A report without a browser: what the page holds, what it never lets through, and what is refused."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import importlib.util
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import moefps
from moefps.io.table_folders import write_table_folder
from moefps.reporting.columns import column_meaning
from moefps.reporting.metric_words import metric_sections
from moefps.reporting.of_selection import selection_content
from moefps.reporting.page import render_page
from reporting.pages import DUMP, HOSTILE, MORE_HOSTILE, ODD, compare_pairs, hostile_dump, moefps_command
from support import refused


class Page(HTMLParser):
    """A page taken apart as a browser would: elements with their attributes, texts, and the content of scripts."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.texts, self.scripts, self._inside = [], [], [], []
        self.html = Path(path).read_text(encoding="utf-8")
        self.feed(self.html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = [tag, dict(attrs)]
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag):
        self._inside = []

    def handle_data(self, data):
        if self._inside[:1] == ["script"]:
            attrs, text = self.scripts[-1]
            self.scripts[-1] = (attrs, text + data)
        elif self._inside[:1] != ["style"]:
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    def values(self, table):
        """The values of a table, column by column, as the page's own script reads them."""
        island = json.loads(next(text for attrs, text in self.scripts if attrs.get("id") == f"values-{table}"))
        return {name: self._column(column) for name, column in island.items()}

    @staticmethod
    def _column(column):
        if isinstance(column, dict):
            return [None if at is None else column["words"][at] for at in column["at"]]
        return [float(value) if isinstance(value, str) else value for value in column]


def check_page(page):
    """What holds of every page: one file, nothing from elsewhere, a policy that names every script."""
    for tag, attrs in page.elements:
        assert not {name for name in attrs if name.startswith("on")}, (tag, attrs)
        for name in ("src", "srcset", "action", "data"):
            assert name not in attrs, (tag, attrs)
        if "href" in attrs:
            assert attrs["href"].startswith("#") or (tag, attrs["href"]) == ("link", "data:,")
    assert not {"img", "iframe", "object", "embed", "base", "form", "svg"} & {tag for tag, _ in page.elements}
    policy = next(attrs["content"] for attrs in page.all("meta") if "http-equiv" in attrs)
    assert policy.startswith("default-src 'none'; ")
    code = [text for attrs, text in page.scripts if "type" not in attrs]
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in code]
    assert re.findall(r"'sha256-([^']+)'", policy) == hashes
    assert "unsafe-eval" not in policy
    assert "script-src 'unsafe-inline'" not in policy
    data = [text for attrs, text in page.scripts if attrs.get("type") == "application/json"]
    assert len(data) + len(code) == len(page.scripts)
    for text in data:
        json.loads(text)
        assert not set("<>&\u2028\u2029") & set(text)
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["href"][1:] for attrs in page.all("a")} <= set(ids)
    for figure in page.all("figure"):
        assert figure["aria-label"].strip()


class Chart:
    """What a page needs of a chart."""

    def __init__(self, name):
        self.name, self.title, self.caption = name, f"{HOSTILE} over layers", MORE_HOSTILE

    def spec(self, *, titled):
        assert not titled
        return {"data": {"values": [{"group": HOSTILE}]}, "mark": "point"}


@pytest.fixture(scope="module", autouse=True)
def no_vega():
    """Leave Vega and altair out: they take longer than all else, and the tests in a browser have them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moefps.reporting.page._vega_bundle", lambda: "window.vegaEmbed = null;")
        for kind in ("comparison", "metric", "selection"):
            charts = {name: Chart(name) for name in ("one", "two")}
            patch.setattr(f"moefps.reporting.figures.{kind}_charts", lambda _, charts=charts: charts)
        yield


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return compare_pairs(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("pages")


def test_a_comparison(found, out):
    folder = found.write(out / "found", file_format="parquet")
    page = Page(moefps.write_report(folder, out / "found.html"))
    check_page(page)
    title, findings = found.findings.split("\n", 1)
    assert page.all("title")
    assert title.removeprefix("# ") in page.text
    for line in findings.splitlines():
        words = " ".join(line.replace("#", "").replace("`", " ").split())
        assert words in page.text.replace("  ", " ") or "`" in line
    assert [figure["aria-label"] for figure in page.all("figure")] == [f"{HOSTILE} over layers"] * 2
    left_out = moefps.reporting.figures.left_out_figures(found)
    assert all(f"{name}: {reason}" in page.text for name, reason in left_out.items())
    for name, table in found.tables.items():
        assert page.values(name) == {column: table[column].to_list() for column in table.columns}
        for column in table.columns:
            assert column[-3:] in {"_lo", "_hi"} or column_meaning("comparison", column).text, (name, column)


def test_metrics_and_their_groups(out):
    metrics = moefps.routing_metrics(DUMP, by="domain", targets="spectra", ci=0.9, n_resamples=20)
    folder = write_table_folder(out / "metrics", metrics.tables(), metrics.about)
    page = Page(moefps.write_report(folder, out / "metrics.html", title="Eight <domains> & more"))
    check_page(page)
    assert "Eight <domains> & more" in page.texts
    for word in ("by domain", "dictionary", "There are no intervals", "the dump holds no router vectors"):
        assert word in page.text, word
    assert page.values("layers")["value"] == metrics.layers["value"].to_list()
    for name, table in metrics.tables().items():
        for column in PAGE_COLUMNS.get(name, table.columns):
            assert column_meaning("metrics", column).text, (name, column)


PAGE_COLUMNS = {
    "summary": ("mean", "min", "max", "chance", "better", "target", "met", "n_missed", "n_layers", "n_null", "note"),
    "layers": ("layer", "metric", "value", "text", "chance", "target", "met", "reason"),
}


def test_a_dump_and_a_selection_from_it(out):
    page = Page(moefps.write_report(DUMP, out / "dump.html", n_select=3))
    check_page(page)
    for word in ("qwen3_moe", "softmax", "3 picks of 8 samples", "farthest point sampling", "captured by"):
        assert word in page.text, word
    selection = moefps.select(moefps.open_dump(DUMP).fingerprints(), 3)
    assert page.values("picks")["index"] == selection.indices.tolist()
    assert page.values("picks")["radius"] == selection.radii.tolist()
    of_selection = Page(moefps.write_report(selection, out / "selection.html"))
    check_page(of_selection)
    assert of_selection.values("picks")["cluster_size"] == selection.cluster_sizes.tolist()


def test_models_are_named_where_the_dumps_know_them(found, out):
    models = {"a": {"id": "Qwen/Qwen3", "dtype": "bfloat16"}, "b": {}}
    known = {**found.summary, "models": models, "captured": {"a": "2026-11-22T10:00:00Z", "b": None}}
    page = Page(moefps.write_report(dataclasses.replace(found, summary=known), out / "models.html"))
    assert "model of A" in page.texts
    assert "Qwen/Qwen3, bfloat16, captured 2026-11-22T10:00:00Z" in page.texts
    assert "model of B" not in page.texts


def test_a_dump_that_leaves_a_choice_to_make_sends_to_the_command_that_picks(tmp_path):
    dump = moefps.write_dump(tmp_path / "dump", expert_ids=[[[0, 1]], [[-1, -1]]], offsets=[0, 1, 2], n_experts=4)
    refused(
        moefps.DumpError,
        lambda: moefps.write_report(dump, tmp_path / "x.html", n_select=1),
        "accepted: counts; pick with `moefps select`, and report the picks",
    )
    assert not (tmp_path / "x.html").exists()


def test_names_from_data_stay_text(out, tmp_path):
    base, tuned = (hostile_dump(tmp_path, f"{name} {ODD}") for name in ("base", "tuned"))
    comparison = moefps.compare(base, tuned, by="part", n_resamples=10)
    metrics = moefps.routing_metrics(base, by="part", targets="spectra")
    picks = tmp_path / "picks.json"
    moefps_command("select", base.path, "-m", 3, "--labels", "column:part", "-o", picks)
    for name, source in {"comparison": comparison, "metrics": metrics, "picks": picks, "dump": base}.items():
        page = Page(moefps.write_report(source, out / f"hostile-{name}.html", title=f"{HOSTILE} {MORE_HOSTILE}"))
        check_page(page)
        assert f"{HOSTILE} {MORE_HOSTILE}" in page.texts
        for text in (HOSTILE, MORE_HOSTILE):
            assert text not in page.html
        # Nothing of jinja or of Markdown is done with what data say.
        assert "{{ 7 * 7 }}" in page.text
        assert "http://example.org" not in [attrs.get("href") for attrs in page.all("a")]
    table = Page(out / "hostile-comparison.html").values("layer_metrics")
    assert set(table["group"]) == {"all", HOSTILE, MORE_HOSTILE, ""}
    assert Page(out / "hostile-picks.html").values("picks")["text"][0].endswith("\n\u2028second line")


def test_wrong_sources_and_places_are_refused_and_leave_nothing(found, tmp_path, monkeypatch):
    folder, html = found.write(tmp_path / "found"), tmp_path / "x.html"
    writing = hostile_dump(tmp_path, "writing").path
    manifest = json.loads((writing / "manifest.json").read_text())
    (writing / "manifest.json").write_text(json.dumps({**manifest, "state": "writing"}))
    (tmp_path / "old.html").write_text("old")
    (tmp_path / "empty").mkdir()
    before = sorted(path.name for path in tmp_path.iterdir())

    def report(source, output=html, **settings):
        return lambda: moefps.write_report(source, output, **settings)

    refused(moefps.FileError, report(tmp_path / "none"), "none: does not exist; accepted: a folder that")
    refused(moefps.FileError, report(tmp_path / "empty"), "empty: is a folder of something else; accepted")
    refused(moefps.FileError, report(folder / "findings.md"), "is a file of something else; accepted")
    refused(moefps.FileError, report(folder / "tables" / "layer_metrics.csv"), "has no column rank")
    refused(moefps.DumpError, report(writing), "is half-written")
    refused(moefps.ArgumentError, report(3), "source: got a int; accepted: a Comparison")
    refused(moefps.ArgumentError, report((1, 2)), "source: got a tuple; accepted: a Comparison")
    refused(moefps.ArgumentError, report(found, n_select=3), "n_select: 3, but the source is no dump")
    refused(moefps.ArgumentError, report(DUMP, n_select=9), "n_select: 9; accepted: 1 to 8")
    refused(moefps.ArgumentError, report(DUMP, n_select=2.5), "n_select: 2.5; accepted: 1 to 8")
    refused(moefps.ArgumentError, report(found, title=" "), "title: ' '; accepted")
    refused(moefps.ArgumentError, report(found, tmp_path / "x.pdf"), "the suffix is .pdf; accepted: .html")
    refused(moefps.ArgumentError, report(found, 3), "output: got a int")
    refused(moefps.FileError, report(found, tmp_path / "old.html"), "exists already, pass --overwrite")
    refused(moefps.FileError, report(folder, folder / "x.html"), "is in the source, .*; give another place")
    refused(moefps.FileError, report(moefps.open_dump(DUMP), DUMP / "x.html"), "is in the source")

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("moefps.reporting.page.render_page", interrupt)
    with pytest.raises(KeyboardInterrupt):
        moefps.write_report(found, tmp_path / "old.html", overwrite=True)
    assert (tmp_path / "old.html").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert [path.name for path in DUMP.glob("*.html")] == []


def test_a_missing_extra_is_one_line(found, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    absent = {"altair", "vl_convert"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in absent else find(name, *rest))
    refused(
        moefps.MissingExtraError,
        lambda: moefps.write_report(found, tmp_path / "x.html"),
        r"a report needs altair and vl-convert-python: pip install 'moefps\[report\]'",
    )


def test_the_command(found, tmp_path):
    folder, html = found.write(tmp_path / "found"), tmp_path / "x.html"
    said = moefps_command("report", folder, "-o", html, "--title", "A study").stdout
    assert re.fullmatch(rf"{re.escape(str(html))}: [\d.]+ [kM]B, open it in a browser\n", said)
    assert "<title>A study</title>" in html.read_text(encoding="utf-8")
    for arguments, *words in (
        ((folder, "-o", html), "exists already, pass --overwrite"),
        ((folder, "-o", "-"), "-: the suffix is missing; accepted: .html"),
        ((folder, "-o", ""), "-o: found ''"),
        ((folder, "-m", 2, "-o", tmp_path / "y.html"), "error: -m: 2, but the source is no dump"),
        ((folder, "--title", "", "-o", tmp_path / "y.html"), "error: --title: ''; accepted"),
    ):
        said = moefps_command("report", *arguments, code=2).stderr
        assert all(word in said for word in words), said
    said = moefps_command("report", DUMP, "-m", 2, "-o", html, "--overwrite", "--progress")
    assert "report: " in said.stderr
    assert "2 picks of 8 samples" in html.read_text(encoding="utf-8")


def sentences(metrics):
    blocks = [block for section in metric_sections(metrics) for block in section.blocks]
    return "\n".join(line for block in blocks for line in ([block] if isinstance(block, str) else block))


def test_words_about_targets_say_what_the_numbers_bear(tmp_path):
    rng = np.random.default_rng(0)
    even = np.array([rng.permutation(4)[:2] for _ in range(800)]).reshape(-1, 1, 2)
    uneven = np.where(rng.random((800, 1, 1)) < 0.8, [[[0, 1]]], even)
    ids = np.concatenate([even, uneven], axis=1)
    dump = moefps.write_dump(tmp_path / "dump", expert_ids=ids, offsets=np.arange(0, 801, 40), n_experts=4)
    targets = {"gini_coefficient": "< 0.2", "min_max_expert_load_ratio": "> 0.01", "maxvio": "< 5"}
    said = sentences(moefps.routing_metrics(dump, targets=targets, ci=0.95, n_resamples=100))
    assert "The mean over layers meets 2 of 3 targets and misses 1:" in said
    assert re.search(r"gini_coefficient: 0\.2\d+ \(95 %: 0\.2\d+ to 0\.2\d+\), .* < 0\.2; missed in layer 1 of 2", said)
    assert "not sure" not in said
    assert re.search(r"The busiest expert of a layer gets 1\.\d+ \(95 %: .*\) times its even share", said)
    assert "No expert of any layer is without a single token." in said
    assert "experts with less than half the even share: layer 1: 2, 3." in said
    bare = sentences(moefps.routing_metrics(dump))
    assert "The values are held against no targets." in bare
    assert "No intervals were asked for" in bare
    unsure = sentences(moefps.routing_metrics(dump, targets={"gini_coefficient": "< 0.23"}, ci=0.95, n_resamples=100))
    assert ("the interval reaches the target, so the miss is not sure" in unsure) == ("0.23; missed" in unsure)


def test_words_about_what_is_dead_or_undefined(tmp_path):
    dump = moefps.write_dump(tmp_path / "dump", expert_ids=[[[0, 1]], [[1, 0]]], offsets=[0, 2], n_experts=4)
    said = sentences(moefps.routing_metrics(dump, ci=0.95))
    assert "Of 4 experts of a layer, 2 get at least one token" in said
    assert "2 experts without a single token: layer 0: 2, 3." in said
    assert "There are no intervals: " in said
    assert "An expert gets as few as 1 assignments" in said
    assert re.search(r"expert_activation_entropy.*: the dump holds no (expert )?weights", said)


def test_words_about_picks():
    x = np.array([0.0, 0.0, 1.0, 10.0])
    distances = np.abs(x[:, None] - x)
    with pytest.warns(moefps.DuplicateWarning):
        selection = moefps.fps(distances, 4, start=0)
    picks = moefps.io.picks.pick_table(selection, labels=np.array(["a", "b", "a", None], dtype=object))
    content = selection_content(picks, source="4")
    said = " ".join(content.sections[0].blocks)
    assert "Every one of 4 samples is within 0 of a pick; of the first pick alone, within 10," in said
    assert "1 pick repeats an earlier one exactly" in said
    assert "They show 2 labels: a, b." in said
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moefps.reporting.tables.MOST_ROWS", 2)
        patch.setattr("moefps.reporting.page.MOST_ROWS", 2)
        page = render_page(content).decode()
    assert "The page holds the first 2 of 4 rows." in page


def test_no_file_of_the_page_is_missing_from_the_package():
    data = Path(moefps.reporting.page.__file__).parent / "data"
    assert sorted(path.name for path in data.iterdir()) == ["charts.js", "page.css", "page.html", "tables.js"]
