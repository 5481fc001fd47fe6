"""The folder of a dump: what may be in it, who is writing it, and how it appears whole."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from moefps.errors import DumpError, FileError
from moefps.io.atomic import file_error, temporary_name
from moefps.io.dump.manifest import ARRAYS, Manifest
from moefps.io.dump.manifest_json import parse_manifest
from moefps.io.files import unreadable
from moefps.io.folders import put_in_place
from moefps.io.paths import check_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from moefps._typing import PathLike

__all__ = [
    "JOURNAL",
    "LOCK",
    "MANIFEST",
    "SAMPLES",
    "TOKENS",
    "WRITING",
    "Destination",
    "FolderLock",
    "destination",
    "member",
    "new_folder",
    "read_manifest",
    "replace_file",
    "sync_folder",
]

MANIFEST = "manifest.json"
SAMPLES = "samples.parquet"
TOKENS = "tokens.parquet"
WRITING = "writing"
"""The folder inside a dump for what is only needed until it is whole."""

JOURNAL = "journal"
LOCK = "lock"

LARGEST_MANIFEST = 1 << 26
"""Bytes; a manifest has a few hundred for each layer."""

_MEMBERS = {MANIFEST, SAMPLES, TOKENS, WRITING, *(f"{name}.npy" for name in ARRAYS)}


def member(folder: Path, name: str) -> Path:
    """Give the path of a file in a dump, if it is a plain file that lies in the folder.

    Parameters
    ----------
    folder : Path
        The dump.
    name : str
        The file's name.

    Raises
    ------
    FileError
        The file is missing, or is no regular file.
    DumpError
        The file is a link that leads out of the folder.
    """
    path = folder / name
    try:
        if path.is_symlink():
            target = Path(os.path.realpath(path))
            if not target.is_relative_to(os.path.realpath(folder)):
                raise DumpError(f"{path}: is a link to {target}, out of the dump; accepted: files in the folder")
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise FileError(f"{path}: the file is missing from the dump") from None
    except OSError as error:
        raise unreadable(path, error) from error
    if not stat.S_ISREG(mode):
        raise FileError(f"{path}: is not a regular file, as all files of a dump are")
    return path


def read_manifest(path: PathLike) -> Manifest:
    """Read the manifest of a dump, whole or half-written.

    Parameters
    ----------
    path : path
        The dump's folder.

    Raises
    ------
    FileError
        There is no such folder, or it cannot be read.
    DumpError
        The folder is no dump, or its manifest is damaged or of another version.
    """
    folder, name = Path(path), os.fspath(path)
    if not folder.is_dir():
        there = os.path.lexists(folder)
        raise FileError(f"{name}: {'is not a folder' if there else 'no such folder'}, expected a dump")
    if not os.path.lexists(folder / MANIFEST):
        raise DumpError(f"{name}: is not a dump: the folder has no {MANIFEST}")
    file = member(folder, MANIFEST)
    try:
        size = file.stat().st_size
        if size > LARGEST_MANIFEST:
            raise DumpError(f"{file}: has {size:,} bytes; accepted: {LARGEST_MANIFEST:,}, more than any manifest needs")
        data = file.read_bytes()
    except OSError as error:
        raise unreadable(file, error) from error
    return parse_manifest(data, str(file))


class Destination(NamedTuple):
    """Where a dump is to be, and what is there now."""

    path: Path  # links followed
    manifest: Manifest | None  # of the dump that is there
    is_there: bool  # a folder, perhaps an empty one


def destination(path: PathLike, argument: str = "path") -> Destination:
    """Look at the place where a dump is to be written; `argument` holds the path.

    Raises
    ------
    FileError
        The folder around it is missing, or there is something that is neither a dump nor an empty folder.
    """
    name = check_path(path, argument, "the folder to write")
    target = Path(os.path.realpath(name))
    if not target.parent.is_dir():
        raise FileError(f"{name}: the folder {Path(path).parent} does not exist")
    if not os.path.lexists(target):
        return Destination(target, None, is_there=False)
    if not target.is_dir():
        raise FileError(f"{name}: exists and is not a folder, expected the name of a dump")
    try:
        entries = {entry.name for entry in target.iterdir()}
    except OSError as error:
        raise unreadable(name, error) from error
    if not entries:
        return Destination(target, None, is_there=True)
    if MANIFEST not in entries:
        raise FileError(f"{name}: is a folder with other files, which a dump never replaces")
    try:
        return Destination(target, read_manifest(target), is_there=True)
    except DumpError as error:
        raise FileError(f"{name}: is a folder that a dump never replaces: {error}") from error


@contextmanager
def new_folder(place: Destination, name: str, *, overwrite: bool) -> Iterator[Path]:
    """Fill a folder under a temporary name; it appears under its own when the block ends well.

    Parameters
    ----------
    place : Destination
        Where it is to be.
    name : str
        The same, as the user gave it, for messages.
    overwrite : bool
        True replaces the dump that is there.

    Yields
    ------
    Path
        The temporary folder, beside the final one.

    Raises
    ------
    FileError
        There is a dump already and `overwrite` is False, it holds files that no dump has, it is being written, or
        the disk is full or not writable.
    """
    if place.manifest is not None:
        _check_replaceable(place, name, overwrite=overwrite)
    temporary = temporary_name(place.path)
    try:
        temporary.mkdir()
        yield temporary
        sync_folder(temporary)
        _put_in_place(temporary, place, name)
        sync_folder(place.path.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, FileError):
            raise file_error(name, error) from error
        raise


def replace_file(path: Path, data: bytes) -> None:
    """Write a small file so that after a crash it has either the old content or the new."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder outlast a power cut, where the system has a way to."""
    if os.name == "nt":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems do not sync folders.
        with suppress(OSError):
            os.fsync(number)
    finally:
        os.close(number)


class FolderLock:
    """Lets one process at a time write a dump; the system lets go of it when the process ends, however it ends.

    Parameters
    ----------
    folder : Path
        The dump.
    name : str
        Its name for messages.

    Raises
    ------
    DumpError
        Another process, or another writer of this one, is writing the dump.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._number: int | None = os.open(folder / WRITING / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(self._number)
        except OSError as error:
            # A file system without locks says something else, and is written without one.
            if error.errno in {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}:
                self.release()
                raise DumpError(f"{name}: another process is writing this dump") from None

    def release(self) -> None:
        """Let others write; a second call does nothing."""
        if self._number is not None:
            os.close(self._number)
            self._number = None


if sys.platform == "win32":
    import msvcrt

    def _lock(number: int) -> None:
        msvcrt.locking(number, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(number: int) -> None:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _check_replaceable(place: Destination, name: str, *, overwrite: bool) -> None:
    if place.manifest is not None and not overwrite:
        half = place.manifest.state != "complete"
        what = "is half-written: pass --resume to go on, or" if half else "exists already, pass"
        raise FileError(f"{name}: {what} --overwrite to replace it")
    stranger = next((entry.name for entry in sorted(place.path.iterdir()) if not _belongs(entry.name)), None)
    if stranger is not None:
        raise FileError(f"{name}: is not replaced, as it holds {stranger}, which is no part of a dump")


def _belongs(entry: str) -> bool:
    return entry in _MEMBERS or (entry.startswith(".") and entry.endswith(".tmp"))


def _put_in_place(temporary: Path, place: Destination, name: str) -> None:
    if not place.is_there:
        temporary.rename(place.path)
        return
    if place.manifest is None:
        place.path.rmdir()
        temporary.rename(place.path)
        return
    with contextlib.ExitStack() as stack:
        if (place.path / WRITING).is_dir():
            lock = FolderLock(place.path, name)
            stack.callback(lock.release)
        put_in_place(temporary, place.path)
