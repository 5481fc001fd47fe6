"""Files that are whole or not there, tables, labels."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from moefps.errors import ArgumentError, DataError, DtypeError, FileError, ShapeError
from moefps.io import atomic_file, check_destination, read_labels, table_format, write_table
from moefps.io.atomic import human_bytes
from support import largest_file

posix = pytest.mark.skipif(os.name == "nt", reason="permissions, links and limits of POSIX")


@contextmanager
def folder_without_rights():
    """Make a folder that we may not write into, not even as root."""
    # Not in tmp_path, which is closed to the user that root becomes here.
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if is_root:
            os.seteuid(0)
        shutil.rmtree(folder)


@posix
def test_a_whole_file_appears_with_the_usual_permissions(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_file(tmp_path / "a") as file:
            file.write(b"whole")
            assert [path.suffix for path in tmp_path.iterdir()] == [".tmp"]
    finally:
        os.umask(before)
    assert (tmp_path / "a").read_bytes() == b"whole"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_any_error_leaves_what_was_there(tmp_path, error):
    (tmp_path / "a").write_text("before")

    def fail():
        with atomic_file(tmp_path / "a", overwrite=True) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert (tmp_path / "a").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_existing_file_is_kept_unless_asked(tmp_path):
    (tmp_path / "a").write_text("before")
    with pytest.raises(FileError, match="exists already, pass --overwrite"), atomic_file(tmp_path / "a"):
        pass
    with atomic_file(tmp_path / "a", overwrite=True) as file:
        file.write(b"after")
    assert (tmp_path / "a").read_text() == "after"


@posix
def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").write_text("before")
    (tmp_path / "link").symlink_to("real")
    with atomic_file(tmp_path / "link", overwrite=True) as file:
        file.write(b"after")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "after"


@posix
def test_places_where_no_file_can_be(tmp_path):
    with pytest.raises(FileError, match=r"the folder .*missing does not exist"):
        check_destination(tmp_path / "missing" / "D.npy")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="is not a folder"):
        check_destination(tmp_path / "file" / "D.npy")
    with pytest.raises(FileError, match="is a folder"):
        check_destination(tmp_path, overwrite=True)
    with pytest.raises(FileError, match="not a regular file"):
        check_destination(os.devnull, overwrite=True)
    with pytest.raises(FileError, match="cannot be written: file name too long"):
        check_destination(tmp_path / ("x" * 300))
    with folder_without_rights() as folder, pytest.raises(FileError, match=r"the folder .* is not writable"):
        check_destination(folder / "D.npy")


def test_too_little_space_is_said_before(tmp_path):
    with pytest.raises(FileError, match=r"too little disk space: needs 1000000 TB, free are"):
        check_destination(tmp_path / "D.npy", needed_bytes=10**18)
    check_destination(tmp_path / "D.npy", needed_bytes=1)
    assert not list(tmp_path.iterdir())


@posix
def test_a_disk_that_gets_full(tmp_path):
    frame = pl.DataFrame({"index": range(1000)})
    for name in ("a.csv", "a.json", "a.parquet", "a.npy"):
        with largest_file(500), pytest.raises(FileError, match=rf"{name}: cannot be written: .*larger than the limit"):
            write_table(frame, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_tables_come_back(tmp_path):
    frame = pl.DataFrame({"rank": [1, 2], "index": [7, 3], "radius": [0.5, 0.25]})
    write_table(frame, tmp_path / "a.csv")
    write_table(frame, tmp_path / "a.json")
    write_table(frame, tmp_path / "a.parquet")
    write_table(frame, tmp_path / "a.npy")
    write_table(frame, tmp_path / "a", file_format="csv")
    assert pl.read_csv(tmp_path / "a.csv").equals(frame)
    assert pl.read_json(tmp_path / "a.json").equals(frame)
    assert pl.read_parquet(tmp_path / "a.parquet").equals(frame)
    assert np.load(tmp_path / "a.npy").tolist() == [7, 3]
    assert (tmp_path / "a").read_text() == (tmp_path / "a.csv").read_text()


def test_the_format_is_told_by_the_suffix():
    assert table_format("a.PARQUET") == "parquet"
    assert table_format("a.csv", "json") == "csv"
    assert table_format("a.tsv", "json") == "json"
    with pytest.raises(ArgumentError, match=r"a\.tsv: the suffix is \.tsv; accepted: \.csv, \.json, \.parquet, \.npy"):
        table_format("a.tsv", "table")


def test_labels_from_every_kind_of_file(tmp_path):
    (tmp_path / "a.csv").write_text('id,label\n1,law\n2,"intent, or so"\n')
    assert read_labels(tmp_path / "a.csv", 2).tolist() == ["law", "intent, or so"]
    (tmp_path / "b.csv").write_text("task\nlaw\nintent\n")
    assert read_labels(tmp_path / "b.csv", 2).tolist() == ["law", "intent"]
    (tmp_path / "a.txt").write_text("law\nintent\n")
    assert read_labels(tmp_path / "a.txt", 2).tolist() == ["law", "intent"]
    np.save(tmp_path / "a.npy", np.array([3, 1]))
    assert read_labels(tmp_path / "a.npy", 2).tolist() == [3, 1]
    np.save(tmp_path / "b.npy", np.array(["law", "intent"]))
    assert read_labels(tmp_path / "b.npy", 2).tolist() == ["law", "intent"]


def test_labels_that_do_not_fit(tmp_path):
    (tmp_path / "a.txt").write_text("law\nintent\n")
    with pytest.raises(ShapeError, match=r"a\.txt: found 2 labels, expected one for each of 3 samples"):
        read_labels(tmp_path / "a.txt", 3)
    (tmp_path / "a.txt").write_text("law\n\nintent\n")
    with pytest.raises(DataError, match=r"a\.txt: label 2 is empty"):
        read_labels(tmp_path / "a.txt", 3)
    (tmp_path / "a.csv").write_text("id,task\n1,law\n")
    with pytest.raises(FileError, match="has the columns id, task, expected one named label"):
        read_labels(tmp_path / "a.csv", 1)
    (tmp_path / "a.csv").write_text("id,label\n1\n")
    with pytest.raises(FileError, match="row 1 has 1 columns, expected 2"):
        read_labels(tmp_path / "a.csv", 1)
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(FileError, match="the file is empty"):
        read_labels(tmp_path / "a.csv", 1)
    (tmp_path / "a.csv").write_bytes(b"label\n\xff\xfe\n")
    with pytest.raises(FileError, match="is not text in utf-8"):
        read_labels(tmp_path / "a.csv", 1)
    with pytest.raises(FileError, match="cannot be read: no such file"):
        read_labels(tmp_path / "missing.csv", 1)
    with pytest.raises(FileError, match=r"accepted: \.csv, \.txt, \.npy"):
        read_labels(tmp_path / "labels.tsv", 1)
    np.save(tmp_path / "a.npy", np.array([0.5]))
    with pytest.raises(DtypeError, match="accepted: integers, unsigned integers, text"):
        read_labels(tmp_path / "a.npy", 1)


def test_human_bytes():
    assert human_bytes(999) == "999 B"
    assert human_bytes(1000) == "1.0 kB"
    assert human_bytes(3_600_000_000) == "3.6 GB"
