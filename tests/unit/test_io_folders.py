"""Folders that are either whole or not there."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

import moefps
from moefps.io.folders import FolderKind, atomic_folder, check_folder

NOTES = FolderKind("folder of notes", ("a.txt", "more"), ("*.csv",))


def write(path, text, *, overwrite=False, error=None):
    with atomic_folder(path, NOTES, overwrite=overwrite) as folder:
        (folder / "more").mkdir()
        (folder / "a.txt").write_text(text)
        if error is not None:
            raise error


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_a_folder_appears_whole_and_replaces_its_like(tmp_path):
    write(tmp_path / "out", "first")
    (tmp_path / "out/more/old.csv").write_text("")
    write(tmp_path / "out", "second", overwrite=True)
    assert (tmp_path / "out/a.txt").read_text() == "second"
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out/more") == []


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), OSError(errno.ENOSPC, "No space left")])
def test_an_error_while_writing_leaves_what_was_there(tmp_path, overwrite, error):
    if overwrite:
        write(tmp_path / "out", "first")
    is_full = isinstance(error, OSError)
    with pytest.raises(moefps.FileError if is_full else type(error), match="disk full" if is_full else None):
        write(tmp_path / "out", "second", overwrite=overwrite, error=error)
    assert names(tmp_path) == (["out"] if overwrite else [])
    assert not overwrite or (tmp_path / "out/a.txt").read_text() == "first"


@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_ctrl_c_between_the_two_renames_leaves_one_of_the_two(tmp_path, monkeypatch, call, moment):
    write(tmp_path / "out", "first")
    rename, calls = Path.rename, []

    def interrupted(path, target):
        calls.append(path)
        stops = len(calls) == call
        if stops and moment == "before":
            raise KeyboardInterrupt
        rename(path, target)
        if stops:
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out", "second", overwrite=True)
    assert names(tmp_path) == ["out"]
    done = (call, moment) == (2, "after")
    assert (tmp_path / "out/a.txt").read_text() == ("second" if done else "first")


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (lambda path: path.write_text("mine"), r"is no folder of notes \(it has no a.txt\), so it is not replaced"),
        (Path.mkdir, r"is no folder of notes \(it has no a.txt\)"),
        (lambda path: shutil.copytree(Path(__file__).parent, path), "is no folder of notes"),
        (lambda path: (write(path, ""), (path / "thesis.doc").write_text("")), "holds thesis.doc, which is no part of"),
    ],
)
def test_what_is_not_ours_is_never_replaced(tmp_path, fill, message):
    target = tmp_path / "out"
    fill(target)
    with pytest.raises(moefps.FileError, match="exists already, pass --overwrite"):
        check_folder(target, NOTES)
    with pytest.raises(moefps.FileError, match=message):
        write(target, "other", overwrite=True)
    assert names(tmp_path) == ["out"]


def test_a_folder_around_it_that_is_none(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(moefps.FileError, match=r"the folder .*nowhere does not exist"):
        check_folder(tmp_path / "nowhere/out", NOTES)
    with pytest.raises(moefps.FileError, match=r"the folder .*file is a file"):
        check_folder(tmp_path / "file/out", NOTES)
    with pytest.raises(moefps.FileError, match="file name too long"):
        check_folder(tmp_path / ("x" * 300), NOTES, overwrite=True)
