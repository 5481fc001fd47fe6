"""What the commands compute and print: the numbers of the Python API, in every format."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import polars.testing
import pytest

import moefps


@pytest.fixture
def folder_of_samples(here, planted):
    """Each sample in a file of its own."""
    Path("samples").mkdir()
    for i, sample in enumerate(planted.array):
        np.save(f"samples/s{i}.npy", sample)
    return planted.array


def test_distance_writes_what_the_api_gives(X, cli):
    result = cli("distance", "X.npy", "-o", "D.npy")
    assert np.array_equal(np.load("D.npy"), moefps.wasserstein_matrix(X))
    assert result.stdout.startswith("D.npy: 60 x 60 distances, float32, 14.5 kB, in ")
    assert "ground index, sum over 3 layers of 8 experts" in result.stdout
    assert result.stderr == ""
    assert sorted(path.name for path in Path().iterdir()) == ["D.npy", "X.npy", "labels.csv"]


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (["--ground", "values"], {"ground": "values"}),
        (["--ground", "discrete", "--reduce", "mean"], {"ground": "discrete", "reduce": "mean"}),
        (["--dtype", "float64", "--threads", "1"], {"dtype": "float64"}),
        (["--condensed"], {"condensed": True}),
        (["--positions", "p.npy"], {"ground": np.arange(8) ** 2}),
        (["--layer-weights", "w.npy"], {"layer_weights": [1, 2, 3]}),
    ],
)
def test_options_of_distance(options, arguments, X, cli):
    np.save("p.npy", np.arange(8) ** 2)
    np.save("w.npy", np.array([1, 2, 3]))
    cli("distance", "X.npy", "-o", "D.npy", *options)
    assert np.array_equal(np.load("D.npy"), moefps.wasserstein_matrix(X, **arguments))


def test_cross(X, cli):
    np.save("Y.npy", X[:5])
    cli("distance", "X.npy", "-o", "D.npy", "--cross", "Y.npy")
    assert np.array_equal(np.load("D.npy"), moefps.wasserstein_cross(X, X[:5]))


def test_normalize(X, cli):
    np.save("X.npy", X * 3)
    cli("distance", "X.npy", "-o", "D.npy", code=2)
    cli("distance", "X.npy", "-o", "D.npy", "--normalize")
    assert np.array_equal(np.load("D.npy"), moefps.wasserstein_matrix(X * 3, normalize=True))


def test_overwrite(X, cli):
    Path("D.npy").write_text("before")
    cli("distance", "X.npy", "-o", "D.npy", code=2)
    assert Path("D.npy").read_text() == "before"
    cli("distance", "X.npy", "-o", "D.npy", "--overwrite")
    assert np.load("D.npy").shape == (60, 60)


def test_single_layer(X, cli):
    np.save("X.npy", X[:, 0])
    cli("distance", "X.npy", "-o", "D.npy", code=2)
    cli("distance", "X.npy", "-o", "D.npy", "--single-layer")
    assert np.array_equal(np.load("D.npy"), moefps.wasserstein_matrix(X[:, :1]))


@pytest.mark.parametrize("output_format", ["json", "csv", "parquet"])
def test_the_summary_of_distance_for_programs(output_format, X, cli):
    result = cli("distance", "X.npy", "-o", "D.npy", "--format", output_format)
    if output_format == "json":
        record = json.loads(result.stdout)
    else:
        read = pl.read_csv if output_format == "csv" else pl.read_parquet
        record = read(io.BytesIO(result.stdout_bytes)).row(0, named=True)
    between = np.load("D.npy")[~np.eye(60, dtype=bool)].astype(np.float64)
    assert (record["rows"], record["columns"], record["dtype"]) == (60, 60, "float32")
    assert record["bytes"] == Path("D.npy").stat().st_size
    assert record["largest"] == pytest.approx(between.max())
    assert record["median"] == pytest.approx(np.median(between))
    assert record["is_sampled"] is False


def test_distances_of_a_folder_a_glob_and_stdin(folder_of_samples, cli):
    expected = moefps.wasserstein_matrix(folder_of_samples)
    buffer = io.BytesIO()
    np.save(buffer, folder_of_samples)
    for arguments, stdin in ((["samples"], None), (["samples/*.npy"], None), (["-"], buffer.getvalue())):
        cli("distance", *arguments, "-o", "D.npy", "--overwrite", stdin=stdin)
        assert np.array_equal(np.load("D.npy"), expected)


def frame_of(selection, X, **extra):
    return pl.DataFrame(
        {
            "rank": np.arange(1, len(selection.indices) + 1),
            "index": selection.indices,
            **extra,
            "radius": selection.radii,
            "cluster_size": selection.cluster_sizes,
            "typicality": moefps.typicality(X)[selection.indices],
        }
    )


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet"])
def test_select_to_a_file_and_to_stdout(suffix, X, cli):
    expected = frame_of(moefps.select(X, 7), X)
    read = {"csv": pl.read_csv, "json": pl.read_json, "parquet": pl.read_parquet}[suffix]
    result = cli("select", "X.npy", "-m", "7", "-o", f"sel.{suffix}")
    assert result.stdout.startswith(f"sel.{suffix}: 7 picks\n")
    pl.testing.assert_frame_equal(read(f"sel.{suffix}"), expected)
    result = cli("select", "X.npy", "-m", "7", "--format", suffix)
    pl.testing.assert_frame_equal(read(io.BytesIO(result.stdout_bytes)), expected)
    assert result.stderr == ""


def test_select_bare_indices(X, cli):
    cli("select", "X.npy", "-m", "7", "-o", "sel.npy")
    indices = np.load("sel.npy")
    assert indices.dtype == np.int64
    assert np.array_equal(indices, moefps.select(X, 7).indices)


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (["--start", "farthest"], {"start": "farthest"}),
        (["--start", "random", "--seed", "5"], {"start": "random", "seed": 5}),
        (["--start", "17"], {"start": 17}),
        (["--start", "17,3"], {"start": [17, 3]}),
        (["--ground", "discrete", "--dtype", "float64"], {"ground": "discrete", "dtype": "float64"}),
        (["--no-typicality"], {}),
    ],
)
def test_options_of_select(options, arguments, X, cli):
    cli("select", "X.npy", "-m", "7", "-o", "sel.csv", *options)
    frame = pl.read_csv("sel.csv")
    expected = moefps.select(X, 7, **arguments)
    assert frame["index"].to_list() == expected.indices.tolist()
    assert frame["radius"].to_list() == expected.radii.tolist()
    assert ("typicality" in frame.columns) == ("--no-typicality" not in options)


def test_stop_radius_alone(X, cli):
    radius = float(moefps.select(X, 9).radii[-1])
    result = cli("select", "X.npy", "--stop-radius", radius, "--format", "csv")
    assert pl.read_csv(io.StringIO(result.stdout))["radius"][-1] <= radius
    assert pl.read_csv(io.StringIO(result.stdout)).height == 9


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_select_from_distances_is_the_same(dtype, X, cli):
    cli("distance", "X.npy", "-o", "D.npy", "--dtype", dtype)
    result = cli("select", "--distances", "D.npy", "-m", "7", "--format", "csv", "--labels", "labels.csv")
    frame = pl.read_csv(io.StringIO(result.stdout))
    expected = moefps.select(X, 7, dtype=dtype)
    assert frame["index"].to_list() == expected.indices.tolist()
    assert frame["cluster_size"].to_list() == expected.cluster_sizes.tolist()
    typicality = moefps.typicality(X, dtype=dtype)[expected.indices]
    np.testing.assert_allclose(frame["typicality"].to_numpy(), typicality)
    assert "labels covered: " in cli("select", "--distances", "D.npy", "-m", "7", "--labels", "labels.csv").stdout


def test_ties_in_typicality_from_distances(here, cli):
    D = np.array([[0, 1, 1, 4], [1, 0, 1, 4], [1, 1, 0, 4], [4, 4, 4, 0]], dtype=np.float64)
    np.save("D.npy", D)
    result = cli("select", "--distances", "D.npy", "-m", "4", "--format", "csv")
    frame = pl.read_csv(io.StringIO(result.stdout)).sort("index")
    # The three alike beat the fourth and tie with two: (1 + 2 / 2) / 3.
    np.testing.assert_allclose(frame["typicality"].to_numpy(), [200 / 3, 200 / 3, 200 / 3, 0])


def test_names_of_samples(folder_of_samples, cli):
    frame = pl.read_csv(io.StringIO(cli("select", "samples", "-m", "5", "--format", "csv").stdout))
    assert frame.columns[:3] == ["rank", "index", "name"]
    assert frame["name"].to_list() == [f"s{i}" for i in frame["index"]]


def test_an_error_names_the_sample(folder_of_samples, cli):
    bad = folder_of_samples[12].copy()
    bad[1, 3] = np.nan
    np.save("samples/s12.npy", bad)
    assert "samples: sample 12 (s12), layer 1, expert 3 is NaN" in cli("select", "samples", "-m5", code=2).stderr


def test_evaluation(X, planted, cli):
    selection = moefps.select(X, 4)
    expected = moefps.evaluate_selection(X, selection.indices, planted.labels, n_random=20, seed=3)
    result = cli("select", "X.npy", "-m4", "--labels", "labels.csv", "--n-random", "20", "--seed", "3")
    assert "95 % of 20 random" in result.stdout
    assert f"labels covered, of {expected.n_labels}" in result.stdout
    assert f"{expected.random_covering_radius.mean:8.4g}" in result.stdout
    arguments = ["select", "X.npy", "-m4", "--labels", "labels.csv", "--n-random", "20", "--seed", "3"]
    record = json.loads(cli(*arguments, "-o", "s.csv", "--format", "json").stdout)
    assert record["covering_radius"] == expected.covering_radius
    assert record["labels_covered"] == expected.labels_covered
    assert record["random_labels_covered_low"] == expected.random_labels_covered.low
    # Rows on stdout leave the comparison to stderr.
    result = cli(*arguments, "--format", "csv")
    assert "covering radius" in result.stderr
    assert pl.read_csv(io.StringIO(result.stdout)).height == 4


def test_the_table_fits_80_columns(folder_of_samples, cli):
    Path("labels.txt").write_text("".join(f"label {i % 3} [bold]\n" for i in range(60)))
    result = cli("select", "samples", "-m", "50", "--labels", "labels.txt")
    lines = result.stdout.splitlines()
    assert max(len(line) for line in lines) <= 80
    assert "[bold]" in result.stdout
    assert len([line for line in lines if re.match(r" *\d+ +\d+ ", line)]) == 50
    assert "\x1b" not in result.stdout


def test_duplicates_are_a_warning_of_one_line(X, cli):
    np.save("X.npy", np.concatenate([X[:3], X[:3]]))
    result = cli("select", "X.npy", "-m", "5", "--format", "csv")
    assert result.stderr.startswith("warning: ")
    assert len(result.stderr.splitlines()) == 1
    assert cli("select", "X.npy", "-m", "5", "--format", "csv", "--quiet").stderr == ""


def test_info_of_sound_data(X, cli):
    result = cli("info", "X.npy")
    lines = result.stdout.splitlines()
    assert lines[:2] == ["X.npy: fingerprints of 60 samples, 3 layers, 8 experts", "  float32, C order, 5.8 kB"]
    assert "problems: none" in result.stdout
    assert "distance matrix: " in result.stdout


def test_info_of_bad_data_reports_all_and_exits_2(X, cli):
    bad = X.copy()
    bad[3, 1, 2] = np.nan
    bad[5, 0] = 0
    bad[9] = bad[8]
    np.save("X.npy", bad)
    result = cli("info", "X.npy", code=2)
    assert "problems: 2\n" in result.stdout
    assert "NaN: 1 value, first at sample 3, layer 1, expert 2" in result.stdout
    assert "all-zero row: 1 row, first at sample 5, layer 0" in result.stdout
    assert "exact duplicate: 1 sample, first at sample 9: equals sample 8" in result.stdout
    assert result.stderr == "error: X.npy: 2 kinds of problem found\n"


@pytest.mark.parametrize("output_format", ["csv", "parquet"])
def test_info_in_rows(output_format, X, cli):
    bad = X.copy()
    bad[3, 1, 2] = -1
    np.save("X.npy", bad)
    result = cli("info", "X.npy", "--format", output_format, code=2)
    frame = (pl.read_csv if output_format == "csv" else pl.read_parquet)(io.BytesIO(result.stdout_bytes))
    values = dict(zip(frame["name"], frame["value"], strict=True))
    assert (values["n_samples"], values["n_layers"], values["n_experts"]) == ("60", "3", "8")
    assert frame.row(by_predicate=pl.col("name") == "negative", named=True) == {
        "kind": "problem",
        "name": "negative",
        "value": "1",
        "unit": "values",
        "detail": "",
        "sample": 3,
        "layer": 1,
        "expert": 2,
    }


def test_info_as_json(X, cli):
    record = json.loads(cli("info", "X.npy", "--format", "json").stdout)
    assert (record["n_samples"], record["n_layers"], record["n_experts"]) == (60, 3, 8)
    assert record["findings"] == []
    assert record["matrix"]["bytes_float32"] == 4 * 60 * 60
    assert record["matrix"]["seconds"] > 0


@pytest.mark.parametrize("shape", [(1, 2, 4), (5, 2, 1)])
def test_info_where_no_matrix_is_possible(shape, here, cli):
    np.save("X.npy", np.full(shape, 1 / shape[-1]))
    result = cli("info", "X.npy", code=2 if shape[-1] == 1 else 0)
    assert "distance matrix: " not in result.stdout


def test_info_scales_a_measured_time_up(here, cli):
    rng = np.random.default_rng(0)
    np.save("X.npy", rng.dirichlet(np.ones(64), size=(3000, 8)).astype(np.float32))
    record = json.loads(cli("info", "X.npy", "--format", "json", "--threads", "1").stdout)
    assert record["matrix"]["threads"] == 1
    assert 0.001 < record["matrix"]["seconds"] < 60


def test_help_of_every_command(cli):
    for command in ([], ["info"], ["distance"], ["select"], ["demo"]):
        for option in ("-h", "--help"):
            text = cli(*command, option).stdout
            assert "Examples:" in text
            assert max(len(line) for line in text.splitlines()) <= 80
    for command in ([], ["distance"], ["select"]):
        text = " ".join(cli(*command, "-h").stdout.split())
        assert "has computed `--ground values`" in text
        assert "`index` depends on how experts are numbered, which training leaves arbitrary" in text


def test_version(cli):
    assert cli("--version").stdout == f"moefps {moefps.__version__}\n"
