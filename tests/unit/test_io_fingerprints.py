"""Fingerprints from one file, several, a folder, a glob."""

from __future__ import annotations

import numpy as np
import pytest

from moefps.errors import DtypeError, FileError, ShapeError
from moefps.io import load_fingerprints
from moefps.io.fingerprints import natural_key


@pytest.fixture
def samples(tmp_path):
    """Twelve files of [2, 4], each telling which it is."""
    for i in range(12):
        np.save(tmp_path / f"sample{i}.npy", np.full((2, 4), i, dtype=np.float32))
    (tmp_path / "notes.txt").write_text("not a sample")
    (tmp_path / "._sample0.npy").write_text("left by another system")
    return tmp_path


def order_of(loaded):
    return loaded.array[:, 0, 0].astype(int).tolist()


def test_one_file(tmp_path):
    np.save(tmp_path / "X.npy", np.full((3, 2, 4), 0.25))
    loaded = load_fingerprints(tmp_path / "X.npy")
    assert loaded.array.shape == (3, 2, 4)
    assert loaded.names is None
    assert loaded.n_samples == 3
    assert loaded.source == str(tmp_path / "X.npy")


def test_a_folder_is_in_natural_order(samples):
    loaded = load_fingerprints(samples)
    assert order_of(loaded) == list(range(12))
    assert loaded.names == tuple(f"sample{i}" for i in range(12))
    assert loaded.array.dtype == np.float32


def test_a_glob_is_in_natural_order(samples):
    loaded = load_fingerprints(str(samples / "sample1*.npy"))
    assert order_of(loaded) == [1, 10, 11]


def test_a_list_is_in_its_own_order(samples):
    loaded = load_fingerprints([samples / "sample3.npy", samples / "sample1.npy"])
    assert order_of(loaded) == [3, 1]
    assert loaded.names == ("sample3", "sample1")
    assert loaded.source == "2 files"


def test_a_file_whose_name_looks_like_a_glob(tmp_path):
    np.save(tmp_path / "X[1].npy", np.full((3, 2, 4), 0.25))
    assert load_fingerprints(tmp_path / "X[1].npy").n_samples == 3


def test_stems_that_repeat_are_named_by_path(tmp_path):
    for folder in ("law", "code"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "1.npy", np.full((2, 4), 0.25))
    loaded = load_fingerprints(str(tmp_path / "**" / "*.npy"))
    assert loaded.names == ("code/1", "law/1")


def test_the_same_file_twice(samples):
    with pytest.raises(FileError, match=r"sample1\.npy: given twice"):
        load_fingerprints([samples / "sample1.npy", samples / "sample1.npy"])


def test_the_odd_one_out_is_named(samples):
    np.save(samples / "sample5.npy", np.zeros((3, 4), dtype=np.float32))
    with pytest.raises(ShapeError, match=r"sample5\.npy: shape is \(3, 4\), expected \(2, 4\) as in .*sample0\.npy"):
        load_fingerprints(samples)
    np.save(samples / "sample5.npy", np.zeros((2, 4), dtype=np.float64))
    with pytest.raises(DtypeError, match=r"sample5\.npy: dtype is float64, expected float32 as in"):
        load_fingerprints(samples)
    np.save(samples / "sample5.npy", np.zeros((2, 2, 4), dtype=np.float32))
    with pytest.raises(ShapeError, match=r"sample5\.npy: is 3-D .* accepted: \[L, E\] a file"):
        load_fingerprints(samples)


def test_nothing_there(tmp_path):
    with pytest.raises(FileError, match=r"the folder holds no \.npy file"):
        load_fingerprints(tmp_path)
    with pytest.raises(FileError, match="no file matches"):
        load_fingerprints(str(tmp_path / "*.npy"))
    with pytest.raises(FileError, match="no such file"):
        load_fingerprints(tmp_path / "X.npy")
    with pytest.raises(FileError, match="no file given"):
        load_fingerprints([])
    with pytest.raises(FileError, match="cannot be mixed"):
        load_fingerprints(["-", "X.npy"])


def test_two_dimensions_only_when_asked(tmp_path):
    np.save(tmp_path / "X.npy", np.full((3, 4), 0.25))
    with pytest.raises(ShapeError, match=r"is 2-D with shape \(3, 4\); accepted: \[N, L, E\], .*--single-layer"):
        load_fingerprints(tmp_path / "X.npy")
    assert load_fingerprints(tmp_path / "X.npy", single_layer=True).array.shape == (3, 1, 4)
    np.save(tmp_path / "X.npy", np.full((3, 2, 4), 0.25))
    with pytest.raises(ShapeError, match="--single-layer"):
        load_fingerprints(tmp_path / "X.npy", single_layer=True)


def test_single_layer_files(tmp_path):
    for i in range(3):
        np.save(tmp_path / f"{i}.npy", np.full(4, 0.25))
    assert load_fingerprints(tmp_path, single_layer=True).array.shape == (3, 1, 4)


def test_natural_key_orders_any_names():
    names = ["b", "a10", "a9", "10", "9", "a", "A9", "²", ""]
    assert sorted(names, key=natural_key) == sorted(sorted(names, reverse=True), key=natural_key)
    assert sorted(["x10y2", "x10y1", "x9y3"], key=natural_key) == ["x9y3", "x10y1", "x10y2"]
