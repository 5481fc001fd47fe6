"""Every way in which a .npy can be wrong is one clear line, and a good one is mapped and not copied."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from moefps.errors import DataError, DtypeError, FileError, MoefpsError, ShapeError
from moefps.io import open_npy, read_numbers
from moefps.io.npy import open_float_npy


def save(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def uniform(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.full(shape, 1 / shape[-1], dtype=dtype)


def with_header(path: Path, header: str, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> Path:
    """Write a .npy by hand, with any header."""
    size = struct.pack("<H" if version == (1, 0) else "<I", len(header))
    path.write_bytes(b"\x93NUMPY" + bytes(version) + size + header.encode("latin1") + data)
    return path


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_good_file_is_mapped_read_only(tmp_path, dtype, order):
    X = np.asarray(np.random.default_rng(0).random((5, 3, 4)), dtype=dtype, order=order)
    opened = open_float_npy(save(tmp_path / "X.npy", X))
    assert np.array_equal(opened, X)
    assert opened.dtype == X.dtype
    assert not opened.flags.writeable
    assert opened.flags.f_contiguous == (order == "F")
    assert isinstance(opened.base, np.memmap)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_all_versions_of_the_format_are_read(tmp_path, version):
    X = uniform(2, 3, 4)
    with (tmp_path / "X.npy").open("wb") as file:
        np.lib.format.write_array(file, X, version=version)
    assert np.array_equal(open_npy(tmp_path / "X.npy"), X)


def test_data_that_are_not_aligned_are_refused(tmp_path):
    X = uniform(2, 3, 4, dtype="float64")
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3, 4), }"
    header += " " * ((5 - (10 + len(header))) % 8) + "\n"
    path = with_header(tmp_path / "X.npy", header, X.tobytes())
    with pytest.raises(FileError, match=r"X\.npy: the data begin at byte \d+, .*; accepted: aligned numbers"):
        open_npy(path)


def test_a_header_may_not_run_code(tmp_path):
    path = with_header(tmp_path / "X.npy", "__import__('os').remove('x')\n")
    with pytest.raises(FileError, match=r"X\.npy: corrupt \.npy header"):
        open_npy(path)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "{",
        "()",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-2, 3, 4), }\n",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 3, 4), }\n",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 3, }\n",
        "{'descr': '<f4', 'fortran_order': 1, 'shape': (3,), }\n",
        "{'descr': 'nonsense', 'fortran_order': False, 'shape': (3,), }\n",
        "{'descr': '<f4', 'shape': (3,), }\n",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, 4), 'more': 1}\n",
        "[" * 5000 + "\n",
        "\x00" * 40,
        "é" * 40,
    ],
)
def test_a_damaged_header(tmp_path, header):
    with pytest.raises(FileError, match=r"X\.npy: corrupt \.npy header: .+") as caught:
        open_npy(with_header(tmp_path / "X.npy", header))
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_cut_anywhere(tmp_path):
    whole = save(tmp_path / "X.npy", uniform(2, 3, 4)).read_bytes()
    cut = tmp_path / "cut.npy"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(FileError, match=r"cut\.npy: "):
            open_npy(cut)


def test_truncated_says_what_was_found_and_needed(tmp_path):
    path = save(tmp_path / "X.npy", uniform(10, 3, 4))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 100)
    with pytest.raises(FileError, match=r"truncated: found 380 bytes of data, shape \(10, 3, 4\) of float32 needs 480"):
        open_npy(path)


def test_longer_than_the_header_says(tmp_path):
    path = save(tmp_path / "X.npy", uniform(10, 3, 4))
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(FileError, match="corrupt: found 484 bytes of data"):
        open_npy(path)


def test_a_shape_that_no_memory_holds(tmp_path):
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000, 10000000000, 4), }\n"
    with pytest.raises(FileError, match="truncated"):
        open_npy(with_header(tmp_path / "X.npy", header))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"index,radius\n1,2\n", "not a .npy file: it starts with b'index,'"),
        (pickle.dumps([1, 2]), "it is a pickle, which is never loaded"),
        (b"PK\x03\x04rest", "zip archive"),
        (b"\x1f\x8b\x08rest", "compressed with gzip"),
        (b"\x93NUMPY", "corrupt header"),
        (b"\x93NUMPY\x09\x00", "corrupt header: .npy version"),
    ],
)
def test_not_a_npy(tmp_path, content, words):
    path = tmp_path / "X.npy"
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"X\.npy: ") as caught:
        open_npy(path)
    assert words in str(caught.value)


def test_missing_and_folder(tmp_path):
    with pytest.raises(FileError, match=r"missing\.npy: cannot be read: no such file"):
        open_npy(tmp_path / "missing.npy")
    with pytest.raises(FileError, match="is a folder"):
        open_npy(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="not a directory"):
        open_npy(tmp_path / "file" / "X.npy")


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", "complex64", "<U3", "S3", "datetime64[s]"])
def test_dtypes_that_are_not_accepted(tmp_path, dtype):
    path = save(tmp_path / "X.npy", np.zeros((2, 3, 4), dtype=dtype))
    with pytest.raises(DtypeError, match="accepted: float16, float32, float64"):
        open_float_npy(path)


@pytest.mark.skipif(np.dtype("longdouble").itemsize == 8, reason="long double is float64 here")
def test_long_double(tmp_path):
    path = save(tmp_path / "X.npy", np.zeros((2, 3, 4), dtype="longdouble"))
    with pytest.raises(DtypeError, match="dtype is float128; accepted: float16, float32, float64"):
        open_float_npy(path)


def test_structured_dtype(tmp_path):
    path = save(tmp_path / "X.npy", np.zeros((2, 3, 4), dtype=[("a", "f4")]))
    with pytest.raises(DtypeError, match="structured dtype"):
        open_float_npy(path)


def test_pickled_objects_are_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "boom"),)

    np.save(tmp_path / "X.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(DtypeError, match="pickled Python objects, which are never loaded"):
        open_float_npy(tmp_path / "X.npy")
    assert not (tmp_path / "boom").exists()


def test_another_byte_order(tmp_path):
    swapped = uniform(2, 3, 4).astype(np.dtype("float32").newbyteorder())
    with pytest.raises(DtypeError, match="byte order"):
        open_float_npy(save(tmp_path / "X.npy", swapped))


@pytest.mark.parametrize("shape", [(), (4,), (3, 4), (1, 2, 3, 4)])
def test_numbers_of_dimensions(tmp_path, shape):
    with pytest.raises(ShapeError, match=rf"is {len(shape)}-D with shape .*accepted: \[N, L, E\]"):
        open_float_npy(save(tmp_path / "X.npy", np.zeros(shape, dtype=np.float32)))


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_zero_sizes(tmp_path, shape):
    with pytest.raises(ShapeError, match="every size at least 1"):
        open_float_npy(save(tmp_path / "X.npy", np.zeros(shape, dtype=np.float32)))


def test_random_bytes_never_escape_as_another_error(tmp_path):
    rng = np.random.default_rng(0)
    whole = np.frombuffer(save(tmp_path / "X.npy", uniform(2, 3, 4)).read_bytes(), dtype=np.uint8)
    path = tmp_path / "bad.npy"
    for _ in range(300):
        damaged = whole.copy()
        damaged[rng.integers(0, 128, size=rng.integers(1, 6))] = rng.integers(0, 256)
        path.write_bytes(damaged.tobytes())
        # Some damage leaves a good header; any other error than ours fails the test.
        with contextlib.suppress(MoefpsError):
            open_float_npy(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_read_into_memory(tmp_path):
    X = np.asfortranarray(np.random.default_rng(0).random((5, 3, 4)))
    buffer = io.BytesIO()
    np.save(buffer, X)
    whole = buffer.getvalue()
    for content, good in ((whole, True), (whole[:-1], False), (whole + b"x", False)):
        pipe = tmp_path / "pipe"
        pipe.unlink(missing_ok=True)
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_bytes, args=(content,))
        writer.start()
        try:
            if good:
                assert np.array_equal(open_float_npy(pipe), X)
            else:
                with pytest.raises(FileError, match=r"truncated|corrupt"):
                    open_float_npy(pipe)
        finally:
            writer.join()


def test_stdin(tmp_path):
    path = save(tmp_path / "X.npy", uniform(2, 3, 4))
    code = "from moefps.io import open_npy; print(open_npy('-').shape)"
    with path.open("rb") as file:
        done = subprocess.run([sys.executable, "-c", code], stdin=file, capture_output=True, text=True, check=True)
    assert done.stdout == "(2, 3, 4)\n"


def test_numbers_are_read_as_float64_and_must_be_finite(tmp_path):
    path = save(tmp_path / "w.npy", np.array([1, 2, 3]))
    weights = read_numbers(path, ndim=(1,), layout="[L]")
    assert weights.dtype == np.float64
    assert weights.tolist() == [1, 2, 3]
    save(path, np.array([1.0, np.nan]))
    with pytest.raises(DataError, match=r"w\.npy: found nan at \[1\]"):
        read_numbers(path, ndim=(1,), layout="[L]")
    save(path, np.array(["a"]))
    with pytest.raises(DtypeError, match="accepted: floats, integers, unsigned integers"):
        read_numbers(path, ndim=(1,), layout="[L]")
