"""Folders that are either whole or not there.

A folder is filled under a temporary name beside its own and renamed when whole. Any error, Ctrl-C included, removes the
temporary folder and leaves what was there before as it was.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from moefps.errors import FileError
from moefps.io.atomic import file_error, temporary_name
from moefps.io.paths import check_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from moefps._typing import PathLike

__all__ = ["FolderKind", "atomic_folder", "check_folder", "put_in_place"]


@dataclass(frozen=True)
class FolderKind:
    """What tells a folder of ours from others, which are never replaced.

    Attributes
    ----------
    name : str
        What it is called in messages.
    signs : tuple of str
        What every folder of this kind has in it.
    others : tuple of str
        What it may have besides, as patterns of names.
    """

    name: str
    signs: tuple[str, ...]
    others: tuple[str, ...] = ()

    def check(self, folder: Path, name: str) -> None:
        """Refuse to replace what is not of this kind, or holds something besides.

        Raises
        ------
        FileError
            It is not to be replaced; `name` is what the user calls it.
        """
        entries = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
        missing = next((sign for sign in self.signs if sign not in entries), None)
        if missing is not None:
            raise FileError(f"{name}: is no {self.name} (it has no {missing}), so it is not replaced")
        for entry in entries:
            if entry not in self.signs and not any(fnmatchcase(entry, pattern) for pattern in self.others):
                raise FileError(f"{name}: is not replaced, as it holds {entry}, which is no part of a {self.name}")


def check_folder(path: PathLike, kind: FolderKind, *, overwrite: bool = False, argument: str = "path") -> Path:
    """Check, before any work is done, that a folder can be written.

    Parameters
    ----------
    path : path
        Where the folder is to be.
    kind : FolderKind
        What will be in it.
    overwrite : bool
        True accepts a folder of the same kind.
    argument : str
        What holds the path, for the message where it is none.

    Returns
    -------
    Path
        The path with symbolic links followed.

    Raises
    ------
    ArgumentError
        It is no path.
    FileError
        The folder around it is missing or not writable; or there is something, and `overwrite` is False or it is
        something else, which is never replaced.
    """
    name = check_path(path, argument)
    target = Path(os.path.realpath(name))
    try:
        if not target.parent.is_dir():
            is_there = target.parent.exists()
            raise FileError(f"{name}: the folder {target.parent} {'is a file' if is_there else 'does not exist'}")
        with suppress(FileNotFoundError):
            target.lstat()
            if not overwrite:
                raise FileError(f"{name}: exists already, pass --overwrite to replace it")
            kind.check(target, name)
        # Permission bits say little (root, read-only mounts, access lists): only trying tells.
        probe = temporary_name(target)
        probe.mkdir()
        probe.rmdir()
    except FileError:
        raise
    except OSError as error:
        raise file_error(path, error) from error
    return target


@contextmanager
def atomic_folder(path: PathLike, kind: FolderKind, *, overwrite: bool = False) -> Iterator[Path]:
    """Fill a folder that appears under its name only when the block ends well.

    Parameters
    ----------
    path : path
        Where the folder is to be.
    kind : FolderKind
        What will be in it.
    overwrite : bool
        True replaces a folder of the same kind.

    Yields
    ------
    Path
        The folder under a temporary name, empty.

    Raises
    ------
    FileError
        As `check_folder`, or the disk is full; nothing is left then, and what was there before stays.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "notes"
    >>> with atomic_folder(path, FolderKind("folder of notes", ("a.txt",))) as folder:
    ...     _ = (folder / "a.txt").write_text("whole")
    >>> [entry.name for entry in path.iterdir()]
    ['a.txt']
    """
    target = check_folder(path, kind, overwrite=overwrite)
    temporary = temporary_name(target)
    try:
        temporary.mkdir()
        yield temporary
        put_in_place(temporary, target)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, FileError):
            raise file_error(path, error) from error
        raise


def put_in_place(temporary: Path, target: Path) -> None:
    """Give a whole folder its name, in place of the folder that has it; after an error that one has it again.

    Parameters
    ----------
    temporary : Path
        The folder, under another name beside it.
    target : Path
        The name.
    """
    old = temporary.with_name(temporary.name + ".old")
    try:
        if target.exists():
            target.rename(old)
        temporary.rename(target)
    finally:
        # What is there now is asked, not remembered: Ctrl-C comes between any two lines.
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(old, ignore_errors=True)
