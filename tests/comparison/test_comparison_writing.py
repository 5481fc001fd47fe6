"""A comparison to a folder."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

import moefps
from moefps.comparison import TABLES


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Two tokens in two dumps: what is in the tables does not matter here."""
    folder = tmp_path_factory.mktemp("dumps")
    a, b = (
        moefps.write_dump(
            folder / name,
            expert_ids=ids,
            expert_weights=np.full((2, 1, 2), 0.5, np.float32),
            offsets=[0, 1, 2],
            n_experts=4,
        )
        for name, ids in {"a": [[[0, 1]], [[2, 3]]], "b": [[[0, 1]], [[2, 0]]]}.items()
    )
    return moefps.compare(a, b, n_resamples=0)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_figures_stand_beside_tables_summary_and_findings(found, tmp_path):
    figures = {"tv_curve.png": b"png", "js_curve.svg": b"svg"}
    assert found.write(tmp_path / "out", figures=figures) == tmp_path / "out"
    written = contents(tmp_path / "out")
    assert set(written) == {
        *(f"tables/{name}.csv" for name in TABLES),
        *("figures/tv_curve.png", "figures/js_curve.svg", "summary.json", "findings.md"),
    }
    assert written["figures/tv_curve.png"] == b"png"
    assert json.loads(written["summary.json"]) == found.summary
    assert written["findings.md"].decode() == found.findings
    found.write(tmp_path / "out", file_format="parquet", figures={}, overwrite=True)
    assert not (tmp_path / "out/figures").exists()
    assert pl.read_parquet(tmp_path / "out/tables/layer_metrics.parquet").equals(found.layer_metrics)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b.png", "../b.png", "a\\b.png", "/b.png", ".hidden", "a\0.png", 3])
def test_a_figure_has_a_plain_name(found, tmp_path, name):
    with pytest.raises(moefps.ArgumentError, match=r"figures: the name .*; accepted: plain names of files"):
        found.write(tmp_path / "out", figures={name: b""})
    assert list(tmp_path.iterdir()) == []


def test_what_else_is_refused_before_anything_is_written(found, tmp_path):
    with pytest.raises(moefps.ArgumentError, match=r"figures: a.png is a str; accepted: bytes"):
        found.write(tmp_path / "out", figures={"a.png": "png"})
    with pytest.raises(moefps.ArgumentError, match="file_format: 'json'; accepted: 'csv', 'parquet'"):
        found.write(tmp_path / "out", file_format="json")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_writing_keeps_the_comparison_that_was_there(found, tmp_path, monkeypatch):
    found.write(tmp_path / "out", figures={"tv_curve.png": b"png"})
    before = contents(tmp_path)

    def interrupted(table, file_format):
        if table.equals(found.leakage_vs_distance):
            raise KeyboardInterrupt
        return b""

    monkeypatch.setattr("moefps.comparison.writing.table_bytes", interrupted)
    for place, overwrite in (("out", True), ("new", False)):
        with pytest.raises(KeyboardInterrupt):
            found.write(tmp_path / place, overwrite=overwrite)
        assert contents(tmp_path) == before


def test_a_comparison_with_something_of_the_users_is_kept(found, tmp_path):
    found.write(tmp_path / "out")
    (tmp_path / "out/thesis.doc").write_text("mine")
    with pytest.raises(moefps.FileError, match=r"holds thesis\.doc, which is no part of a comparison"):
        found.write(tmp_path / "out", overwrite=True)
