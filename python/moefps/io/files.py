"""Files that are read whole, and why one could not be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from moefps.errors import FileError

if TYPE_CHECKING:
    from moefps._typing import PathLike

__all__ = ["plain_reason", "read_bytes", "read_text", "unreadable"]


def read_bytes(path: PathLike, expected: str = "a file") -> bytes:
    """Read a file whole.

    Parameters
    ----------
    path : path
        The file.
    expected : str
        What it should be, for the message where it is a folder.

    Raises
    ------
    FileError
        It is missing, a folder, or cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except IsADirectoryError as error:
        raise FileError(f"{os.fspath(path)}: is a folder, expected {expected}") from error
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:
        # A name that no file can have.
        raise FileError(f"{os.fspath(path)!r}: cannot be read: {error}") from None


def read_text(path: PathLike, expected: str = "a file") -> str:
    """Read a text file in utf-8 whole, without the mark that some editors begin one with.

    Raises
    ------
    FileError
        As `read_bytes`, or it is not utf-8.
    """
    data = read_bytes(path, expected)
    try:
        # As a file that is opened as text has its lines.
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise FileError(f"{os.fspath(path)}: is not text in utf-8") from error


def unreadable(path: PathLike, error: OSError) -> FileError:
    """Turn an error of the system into one clear line about a file that cannot be read."""
    return FileError(f"{os.fspath(path)}: cannot be read: {plain_reason(error)}")


def plain_reason(error: OSError) -> str:
    """Give the system's reason in a few lower-case words."""
    return (error.strerror or str(error) or type(error).__name__).lower()
