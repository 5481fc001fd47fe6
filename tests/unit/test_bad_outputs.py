"""Outputs that cannot be filled are refused by name, and nothing is left behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import moefps
from support import filled_or_refused, refused

X = np.random.default_rng(0).dirichlet(np.ones(5), (6, 3))
D = moefps.wasserstein_matrix(X)


@pytest.mark.parametrize("condensed", [False, True])
@pytest.mark.parametrize("out", [np.empty((6, 5), "float32"), np.empty((6, 6, 1), "float32"), np.empty(14, "float32")])
def test_out_of_another_shape(out, condensed):
    expected = r"\(15,\)" if condensed else r"\(6, 6\)"
    refused(moefps.ShapeError, lambda: moefps.wasserstein_matrix(X, out=out, condensed=condensed), "out", expected)


def test_out_of_another_dtype():
    refused(moefps.DtypeError, lambda: moefps.wasserstein_matrix(X, out=np.empty((6, 6))), "out", "float64", "float32")
    out = np.empty((6, 6), "float32")
    refused(
        moefps.DtypeError, lambda: moefps.wasserstein_matrix(X, dtype="float64", out=out), "out", "float32", "float64"
    )


def test_out_that_cannot_be_filled():
    read_only = np.zeros((6, 6), "float32")
    read_only.flags.writeable = False
    refused(moefps.MoefpsError, lambda: moefps.wasserstein_matrix(X, out=read_only), "out", "read-only|writ")
    assert not read_only.any()


@pytest.mark.parametrize("layout", ["strided", "fortran", "reversed"])
def test_out_in_another_layout(layout):
    out = {
        "strided": np.full((12, 18), -1, "float32")[::2, ::3],
        "fortran": np.asfortranarray(np.full((6, 6), -1, "float32")),
        "reversed": np.full((6, 6), -1, "float32")[::-1],
    }[layout]
    filled_or_refused(lambda: moefps.wasserstein_matrix(X, out=out), out, D, r"\bout\b.*C")


def test_out_that_overlaps_the_input():
    memory = np.zeros(6 * 3 * 5, "float32")
    mine = memory.reshape(6, 3, 5)
    mine[...] = X
    expected = moefps.wasserstein_matrix(mine)
    out = memory[:36].reshape(6, 6)
    filled_or_refused(lambda: moefps.wasserstein_matrix(mine, out=out), out, expected, r"\bout\b")


@pytest.mark.parametrize("out", [3, [[0.0]], object()], ids=["int", "list", "object"])
def test_out_of_another_kind(out):
    with pytest.raises((moefps.MoefpsError, TypeError), match="out"):
        moefps.wasserstein_matrix(X, out=out)


@pytest.mark.parametrize("call", [moefps.wasserstein_matrix, lambda X, out: moefps.wasserstein_cross(X, X, out=out)])
class TestOutputFiles:
    def test_missing_folder(self, call, tmp_path):
        path = tmp_path / "no" / "D.npy"
        refused(
            moefps.FileError,
            lambda: call(X, out=path),
            re.escape(str(path.parent)),
            "not exist|[Nn]o such|cannot find",
        )
        assert list(tmp_path.iterdir()) == []

    def test_folder_instead_of_a_file(self, call, tmp_path):
        folder = tmp_path / "D.npy"
        folder.mkdir()
        refused(moefps.FileError, lambda: call(X, out=folder), re.escape(str(folder)))
        assert [p.name for p in tmp_path.iterdir()] == ["D.npy"]

    @pytest.mark.parametrize("name", ["D", "D.csv", ".npy.gz", ""])
    def test_name_of_another_kind(self, call, name, tmp_path):
        refused(moefps.ArgumentError, lambda: call(X, out=tmp_path / name), "out", r"\.npy")
        assert list(tmp_path.iterdir()) == []

    def test_file_instead_of_a_folder(self, call, tmp_path):
        (tmp_path / "file").touch()
        path = tmp_path / "file" / "D.npy"
        refused(moefps.FileError, lambda: call(X, out=path), re.escape(str(path.parent)))

    def test_folder_that_is_not_writable(self, call, tmp_path):
        """``/proc`` takes no files from anybody, root included."""
        folder = Path("/proc/self/fd") if Path("/proc/self/fd").is_dir() else None
        if folder is None:
            pytest.skip("there is no /proc")
        refused(moefps.FileError, lambda: call(X, out=folder / "D.npy"), re.escape(str(folder)))

    def test_name_without_a_folder(self, call, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        call(X, out="D.npy")
        np.testing.assert_array_equal(np.load("D.npy"), D)


def test_folder_without_permission(tmp_path):
    if not hasattr(os, "geteuid") or os.geteuid() == 0:
        pytest.skip("there are no permissions here that would keep us out")
    tmp_path.chmod(0o555)
    try:
        refused(moefps.FileError, lambda: moefps.wasserstein_matrix(X, out=tmp_path / "D.npy"), "D.npy|permission")
    finally:
        tmp_path.chmod(0o755)


FULL = """
import resource, signal, sys
import numpy as np
import moefps
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
X = np.full((400, 1, 4), 0.25)
path = sys.argv[1]
if sys.argv[2] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    moefps.wasserstein_matrix(X, out=path)
except moefps.FileError as error:
    print(error)
"""


def run_full(path, how):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path), how], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert str(path) in done.stdout


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's file size limit")
def test_file_size_limit(tmp_path):
    path = tmp_path / "D.npy"
    path.write_bytes(b"kept")
    run_full(path, "limit")
    assert path.read_bytes() == b"kept"
    assert [p.name for p in tmp_path.iterdir()] == ["D.npy"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a small file system")
def test_full_disk(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if mounted.returncode:
        pytest.skip("only root may mount a small file system")
    try:
        run_full(folder / "D.npy", "disk")
        assert list(folder.iterdir()) == []
    finally:
        subprocess.run(["umount", str(folder)], check=True)
