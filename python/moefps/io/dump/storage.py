"""Arrays on disk that are filled in any order: one .npy each, written at the right place as data come."""

from __future__ import annotations

import io
import math
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from moefps.errors import DumpError
from moefps.io.npy import read_npy_header

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

__all__ = ["BlockFile", "header_bytes", "npy_matches"]

_COPY_BYTES = 1 << 23
_HAS_PWRITE = hasattr(os, "pwrite")


def header_bytes(shape: Sequence[int], dtype: np.dtype[Any]) -> bytes:
    """Give the bytes that `numpy.save` writes before the data of an array in C order."""
    buffer = io.BytesIO()
    fields = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(buffer, fields)
    return buffer.getvalue()


class BlockFile:
    """One .npy open for writing rows at any place.

    Rows that nobody wrote are zeros, and take no space where the file system has holes.

    Parameters
    ----------
    path : Path
        The file; its folder exists.
    shape : sequence of int
        Of the whole array; the first dimension counts rows.
    dtype : numpy.dtype
        Of the array.
    create : bool
        True makes the file, which must not exist; False opens one that has this shape and dtype.

    Raises
    ------
    DumpError
        The file that is there has another header or size.
    OSError
        The system refuses.
    """

    def __init__(self, path: Path, shape: Sequence[int], dtype: np.dtype[Any], *, create: bool) -> None:
        self.path, self.shape, self.dtype = path, tuple(shape), np.dtype(dtype)
        self.row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        header = header_bytes(self.shape, self.dtype)
        self.data_start = len(header)
        size = self.data_start + self.shape[0] * self.row_bytes
        flags = os.O_RDWR | getattr(os, "O_BINARY", 0)
        self._turn = threading.Lock()
        self._number: int | None = os.open(path, flags | (os.O_CREAT | os.O_EXCL if create else 0), 0o666)
        try:
            if create:
                self._write_at(0, memoryview(header))
                os.ftruncate(self._number, size)
            elif os.fstat(self._number).st_size != size or self.read_at(0, self.data_start) != header:
                raise DumpError(
                    f"{path}: is not the {self.dtype} array of shape {self.shape} that was begun; pass --overwrite"
                )
        except BaseException:
            self.close()
            raise

    def write_rows(self, first: int, rows: npt.NDArray[Any]) -> None:
        """Write rows from a place on; the array is contiguous and of this file's row shape and dtype."""
        if rows.nbytes:
            self._write_at(self.data_start + first * self.row_bytes, rows.reshape(-1).view(np.uint8).data)

    def copy_rows(self, first: int, count: int, to: BlockFile, place: int) -> None:
        """Copy rows into another file with rows of the same size."""
        left, source, target = count * self.row_bytes, first * self.row_bytes, place * self.row_bytes
        while left:
            piece = self.read_at(self.data_start + source, min(left, _COPY_BYTES))
            if not piece:
                raise DumpError(f"{self.path}: truncated while it was read")
            to._write_at(to.data_start + target, memoryview(piece))
            left, source, target = left - len(piece), source + len(piece), target + len(piece)

    def read_at(self, offset: int, count: int) -> bytes:
        """Read bytes of the file, headers included; fewer at its end."""
        number = self._open_number()
        if _HAS_PWRITE:
            return os.pread(number, count, offset)
        with self._turn:
            os.lseek(number, offset, os.SEEK_SET)
            return os.read(number, count)

    def sync(self) -> None:
        """Wait until all that was written is on the disk."""
        os.fsync(self._open_number())

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._number is not None:
            os.close(self._number)
            self._number = None

    def _write_at(self, offset: int, data: memoryview) -> None:
        number = self._open_number()
        while data:
            # A disk that gets full takes part of the data first, and says so at the next try.
            if _HAS_PWRITE:
                written = os.pwrite(number, data, offset)
            else:
                with self._turn:
                    os.lseek(number, offset, os.SEEK_SET)
                    written = os.write(number, data)
            data, offset = data[written:], offset + written

    def _open_number(self) -> int:
        if self._number is None:
            raise DumpError(f"{self.path}: is closed")
        return self._number


def npy_matches(path: Path, shape: Sequence[int], dtype: np.dtype[Any], *, any_last: bool = False) -> bool:
    """Whether a .npy has this shape and dtype and all of its data; `any_last` leaves the last size open."""
    with path.open("rb") as file:
        header = read_npy_header(file, str(path))
        whole = os.fstat(file.fileno()).st_size == header.offset + header.n_bytes
    n_sizes = len(shape) - any_last
    same = len(header.shape) == len(shape) and header.shape[:n_sizes] == tuple(shape)[:n_sizes]
    return whole and same and header.dtype == dtype and not header.fortran_order
