"""Files that are either whole or not there.

A file is written under a temporary name in its own folder and renamed when whole. Any error, Ctrl-C included, removes
the temporary file and leaves what was there before as it was.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, BinaryIO

from moefps.errors import FileError
from moefps.io.files import plain_reason
from moefps.io.paths import check_path

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["atomic_file", "check_destination", "file_error", "human_bytes", "temporary_name"]

_FULL = {
    errno.ENOSPC: "disk full",
    errno.EFBIG: "the file would be larger than the limit of this process or file system",
    getattr(errno, "EDQUOT", -1): "disk quota exceeded",
}


@contextmanager
def atomic_file(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name only when the block ends well.

    Parameters
    ----------
    path : path
        Where the file is to be.
    overwrite : bool
        True replaces a file that exists.

    Yields
    ------
    binary file
        Open for writing, in the same folder, under a temporary name. Permissions follow the umask.

    Raises
    ------
    FileError
        The folder is missing or not writable, the file exists, or the disk is full.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.txt"
    >>> with atomic_file(path) as file:
    ...     _ = file.write(b"whole")
    >>> path.read_bytes()
    b'whole'
    """
    target = check_destination(path, overwrite=overwrite)
    temporary = temporary_name(target)
    try:
        with open(_create(temporary), "wb") as file:
            yield file
        temporary.replace(target)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and not isinstance(error, FileError):
            raise file_error(path, error) from error
        raise


def check_destination(
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    needed_bytes: int | None = None,
    argument: str = "path",
) -> Path:
    """Check, before any work is done, that a file can be written.

    Parameters
    ----------
    path : path
        Where a file is to be written.
    overwrite : bool
        True accepts a regular file that exists.
    needed_bytes : int, optional
        Size that the file will have; checked against the free space of its disk.
    argument : str
        What holds the path, for the message where it is none.

    Returns
    -------
    Path
        The path with symbolic links followed, so that a rename replaces the file and not the link.

    Raises
    ------
    ArgumentError
        It is no path.
    FileError
        The folder is missing or not writable, the path is a folder or a device, the file exists and `overwrite` is
        False, or the disk has too little space.
    """
    target = Path(os.path.realpath(check_path(path, argument)))
    folder = target.parent
    try:
        if not folder.exists():
            raise FileError(f"{os.fspath(path)}: the folder {_folder_name(path)} does not exist")
        if not folder.is_dir():
            raise FileError(f"{os.fspath(path)}: {_folder_name(path)} is not a folder")
        with suppress(FileNotFoundError):
            mode = target.stat().st_mode
            if stat.S_ISDIR(mode):
                raise FileError(f"{os.fspath(path)}: is a folder, expected the name of a file")
            if not stat.S_ISREG(mode):
                raise FileError(f"{os.fspath(path)}: is not a regular file, so it cannot be replaced")
            if not overwrite:
                raise FileError(f"{os.fspath(path)}: exists already, pass --overwrite to replace it")
        # Permission bits say little (root, read-only mounts, access lists): only trying tells.
        probe = temporary_name(target)
        os.close(_create(probe))
        probe.unlink()
        if needed_bytes is not None:
            free = shutil.disk_usage(folder).free
            if needed_bytes > free:
                raise FileError(
                    f"{os.fspath(path)}: too little disk space: needs {human_bytes(needed_bytes)}, "
                    f"free are {human_bytes(free)}"
                )
    except FileError:
        raise
    except OSError as error:
        raise file_error(path, error) from error
    return target


def file_error(path: str | os.PathLike[str], error: OSError) -> FileError:
    """Turn an error of the system into one clear line about the file."""
    if error.errno in _FULL:
        return FileError(f"{os.fspath(path)}: cannot be written: {_FULL[error.errno]}")
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return FileError(f"{os.fspath(path)}: the folder {_folder_name(path)} is not writable")
    return FileError(f"{os.fspath(path)}: cannot be written: {plain_reason(error)}")


def human_bytes(n_bytes: int) -> str:
    """Give a number of bytes in the unit that reads best, powers of 1000.

    Examples
    --------
    >>> human_bytes(512), human_bytes(1_600_000_128)
    ('512 B', '1.6 GB')
    """
    size = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 999.5 or unit == "TB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"


def temporary_name(target: Path) -> Path:
    """Give a name beside `target` that nothing has, for what is not whole yet."""
    # The start of the name is enough to recognise it, and keeps within the 255 bytes that a name may have.
    return target.with_name(f".{target.name[:40]}.{token_hex(4)}.tmp")


def _create(path: Path) -> int:
    """Create a file that must not exist; unlike tempfile's, its permissions follow the umask."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)


def _folder_name(path: str | os.PathLike[str]) -> str:
    return str(Path(path).parent)
