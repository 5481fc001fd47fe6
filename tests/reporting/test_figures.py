"""Figures as files, and the charts of metrics and selections."""

from __future__ import annotations

import struct
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ET
import zlib

import numpy as np
import polars as pl
import pytest

import moefps
from moefps.errors import MissingExtraError
from moefps.reporting import figures as module
from moefps.reporting.charts.curves import draw_curves
from moefps.reporting.charts.study import Study
from moefps.reporting.drawing import draw_png, draw_svg, vegalite_version
from moefps.reporting.figures import check_extra, comparison_charts, draw_figures, metric_charts, selection_charts
from reporting.studies import compare_rows

SVG = "{http://www.w3.org/2000/svg}"


def words_of(svg):
    """All text of an SVG, which must parse."""
    return " ".join(node.text or "" for node in ET.fromstring(svg).iter(f"{SVG}text"))


def test_files_are_images_of_their_charts_at_twice_the_size(tmp_path, monkeypatch):
    found = compare_rows(tmp_path, ["a", "b"], n_layers=2)
    made = comparison_charts(found)
    charts = {name: made[name] for name in ("usage_delta_heatmap", "A1_tv_curves", "margin")}
    # Three kinds are enough: each takes its time.
    monkeypatch.setattr(module, "comparison_charts", lambda found: charts)
    seen = []
    files = draw_figures(found, svg=True, progress=lambda done, total: seen.append((done, total)))
    assert list(files) == [f"{name}.{kind}" for name in charts for kind in ("png", "svg")]
    assert seen == [(done, len(charts)) for done in range(len(charts) + 1)]
    for name, figure in charts.items():
        drawn = ET.fromstring(files[f"{name}.svg"])
        png = files[f"{name}.png"]
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
        assert struct.unpack(">II", png[16:24]) == tuple(2 * int(float(drawn.get(of))) for of in ("width", "height"))
        words = words_of(files[f"{name}.svg"])
        assert " ".join(figure.spec()["title"]["text"]) in words
        for fraction in ("NaN", "undefined", "null"):
            assert fraction not in words


def test_packed_images_have_the_same_pixels():
    svg = f'<svg xmlns="{SVG[1:-1]}" width="40" height="10"><rect width="20" height="5" fill="#0072B2"/></svg>'
    packed = draw_png(svg)
    at, kinds, pixels = 8, [], b""
    while at < len(packed):
        (size,) = struct.unpack_from(">I", packed, at)
        kind, data = packed[at + 4 : at + 8], packed[at + 8 : at + 8 + size]
        assert struct.unpack_from(">I", packed, at + 8 + size) == (zlib.crc32(kind + data),)
        kinds.append(kind)
        pixels += data if kind == b"IDAT" else b""
        at += 12 + size
    assert kinds[0] == b"IHDR"
    assert kinds[-1] == b"IEND"
    assert len(zlib.decompress(pixels)) == 20 * (80 * 4 + 1)


def test_odd_names_of_groups_are_drawn_and_stay_xml(tmp_path):
    found = compare_rows(tmp_path, ["</svg><script>", "a & 'b' \"c\" \\", "\x00\x1b[31m", "日本語"] * 2, n_layers=2)
    words = words_of(draw_svg(draw_curves("tv_curve", Study(found)).spec()))
    for word in ("</svg><script>", "a & 'b' \"c\" \\", "??[31m", "日本語"):
        assert word in words


def test_charts_of_metrics(tmp_path):
    rng = np.random.default_rng(1)
    ids = np.argsort(rng.gumbel(size=(400, 3, 8)) + np.arange(8) / 2, axis=2)[:, :, -2:].astype(np.int16)
    ids[:, 1][ids[:, 1] == 0] = -1
    dump = moefps.write_dump(
        tmp_path / "t.dump",
        expert_ids=ids,
        expert_weights=np.full(ids.shape, 0.5, dtype=np.float32) * (ids >= 0),
        offsets=np.arange(0, 401, 40),
        n_experts=8,
        samples=pl.DataFrame({"domain": ["law", "code"] * 5}),
    )
    metrics = moefps.routing_metrics(dump, targets="spectra", ci=0.9, n_resamples=20)
    charts = metric_charts(metrics)
    assert list(charts) == ["expert_load", "metrics_over_layers", "unused_experts"]
    load = {
        (row["layer"], row["expert"]): row["relative"]
        for rows in charts["expert_load"].spec()["datasets"].values()
        for row in rows
        if "relative" in row
    }
    counts = metrics.experts.filter(pl.col("layer") == 2)["expert_activation_counts"].to_numpy()
    assert [load[2, e] for e in range(8)] == pytest.approx((8 * counts / counts.sum()).tolist(), rel=1e-6)
    assert "Black: never chosen." in charts["expert_load"].caption
    assert "90 % intervals" in charts["metrics_over_layers"].caption
    words = words_of(draw_svg(charts["metrics_over_layers"].spec()))
    assert "target < 0.05: met in 0 of 3 layers" in words
    numbers = [
        row for rows in charts["unused_experts"].spec()["datasets"].values() for row in rows if row["layer"] == 1
    ]
    seldom = metrics.value("underused_experts", layer=1)
    assert {row["kind"]: row["number"] for row in numbers} == {"never chosen": 1, "seldom chosen": seldom - 1}
    by = metric_charts(moefps.routing_metrics(dump, by="domain"))
    assert "There are no targets." in by["metrics_over_layers"].caption
    assert {"law", "code"} <= set(words_of(draw_svg(by["expert_load"].spec())).split())


def test_charts_of_a_selection():
    picks = pl.DataFrame(
        {
            "rank": [1, 2, 3, 4],
            "index": [7, 3, 9, 1],
            "radius": [2.0, 1.0, 1.0, 0.5],
            "cluster_size": [4, 3, 2, 1],
            "label": [1, 1, 2, None],
        }
    )
    charts = selection_charts(picks)
    assert list(charts) == ["covering_radius", "cluster_sizes", "picks_by_label"]
    rows = next(iter(charts["covering_radius"].spec()["datasets"].values()))
    assert [(row["rank"], row["index"], row["radius"]) for row in rows] == [
        (1, 7, 2),
        (2, 3, 1),
        (3, 9, 1),
        (4, 1, 0.5),
    ]
    rows = next(iter(charts["picks_by_label"].spec()["datasets"].values()))
    assert [(row["label"], row["picks"], row["samples"]) for row in rows] == [
        ("1", 2, 7),
        ("2", 1, 2),
        ("(none)", 1, 1),
    ]
    assert "picks_by_label" not in selection_charts(picks.drop("label"))
    assert selection_charts(picks.clear()) == {}
    many = pl.DataFrame({"rank": range(1, 301), "index": range(300)}).with_columns(
        radius=1 / pl.col("rank"), cluster_size=pl.col("rank")
    )
    assert "logarithmic" in words_of(draw_svg(selection_charts(many)["covering_radius"].spec()))


def test_a_missing_extra_is_one_line(tmp_path):
    """In a process that cannot import altair, compare stops before it starts, and goes on with --no-figures."""
    compare_rows(tmp_path, ["a", "b"], n_layers=1)
    script = """
        import sys
        class Blocked:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in {"altair", "vl_convert"}:
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        sys.meta_path.insert(0, Blocked())
        from moefps.cli.__main__ import run
        sys.argv = ["moefps", "compare", "base.dump", "tuned.dump", "--resamples", "0", "-o", "out", *sys.argv[1:]]
        run()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert found.stderr == (
        "error: figures need altair and vl-convert: pip install 'moefps[report]', "
        "or pass --no-figures for tables alone\n"
    )
    assert not (tmp_path / "out").exists()
    found = subprocess.run([*command, "--no-figures"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert not (tmp_path / "out" / "figures").exists()


def test_the_error_names_what_is_missing(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if name == "vl_convert" else object())
    with pytest.raises(MissingExtraError, match=r"^figures need vl-convert: pip install 'moefps\[report\]'$"):
        check_extra()


def test_versions_that_do_not_fit_are_one_line():
    with pytest.raises(
        MissingExtraError, match=r"^figures: altair writes Vega-Lite 7.0, vl-convert draws 5.8, 6.4: pip"
    ):
        vegalite_version("v7.0.0", ["5.8", "6.4"])
