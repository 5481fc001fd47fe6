"""Opening .npz archives without trusting them, and without reading large arrays into memory.

An array that is stored as it is gets mapped where it lies in the archive; a compressed one is unpacked to a file
first where it is large. Nothing is ever unpickled.
"""

from __future__ import annotations

import os
import shutil
import struct
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from moefps.errors import DtypeError, FileError, MoefpsError, ShapeError
from moefps.io.atomic import file_error
from moefps.io.files import unreadable
from moefps.io.npy import NpyHeader, open_npy, read_npy_header

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    import numpy.typing as npt

    from moefps._typing import PathLike

__all__ = ["NpzArchive"]

_LOCAL_HEADER = struct.Struct("<26x2H")
_IN_MEMORY = 1 << 26
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, struct.error, ValueError)


class NpzArchive:
    """The arrays of a .npz, by name.

    Parameters
    ----------
    path : path
        The archive.
    scratch : Path
        A folder of ours where large compressed arrays are unpacked; must outlive the arrays.

    Raises
    ------
    FileError
        The file is missing, damaged, or no .npz.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> np.savez(folder / "a.npz", ids=np.zeros((5, 2, 1), dtype=np.int16))
    >>> archive = NpzArchive(folder / "a.npz", folder)
    >>> archive.headers["ids"].shape, archive.open("ids").shape
    ((5, 2, 1), (5, 2, 1))
    """

    def __init__(self, path: PathLike, scratch: Path) -> None:
        self.name = os.fspath(path)
        self._path = Path(path)
        self._scratch = scratch
        self._members: dict[str, zipfile.ZipInfo] = {}
        self.headers: dict[str, NpyHeader] = {}
        with self._said_in_one_line(), zipfile.ZipFile(self._path) as archive:
            for member in archive.infolist():
                if not member.filename.endswith(".npy"):
                    raise FileError(f"{self.name}: holds {member.filename!r}; accepted: arrays as numpy.savez has them")
                key = member.filename[:-4]
                if key in self._members:
                    raise FileError(f"{self.name}: holds the array {key!r} twice")
                self._members[key] = member
                with archive.open(member) as file:
                    self.headers[key] = read_npy_header(cast("BinaryIO", file), f"{self.name}: {key}")
        if not self._members:
            raise FileError(f"{self.name}: holds no array")

    def open(
        self, key: str, *, kinds: str = "fiubU", ndim: tuple[int, ...] | None = None, layout: str = ""
    ) -> npt.NDArray[Any]:
        """Open an array, read-only.

        Parameters
        ----------
        key : str
            Its name.
        kinds : str
            The kinds of dtype that are accepted, as ``numpy.dtype.kind`` names them.
        ndim : tuple of int, optional
            The numbers of dimensions that are accepted.
        layout : str
            What the dimensions mean, for messages.

        Raises
        ------
        FileError
            The array is damaged, or cannot be unpacked.
        DtypeError, ShapeError
            Its dtype or shape is not accepted.
        """
        name, header, member = f"{self.name}: {key}", self.headers[key], self._members[key]
        self._check(header, name, kinds, ndim, layout)
        with self._said_in_one_line():
            if member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1 and 0 not in header.shape:
                return self._mapped(member, header, name)
            if header.n_bytes > _IN_MEMORY:
                return self._unpacked(member, header, name)
            with zipfile.ZipFile(self._path) as archive, archive.open(member) as file:
                file.read(header.offset)
                return _read_whole(file, header, name)

    def _check(self, header: NpyHeader, name: str, kinds: str, ndim: tuple[int, ...] | None, layout: str) -> None:
        dtype = header.dtype
        words = {"f": "floats", "i": "integers", "u": "unsigned integers", "U": "text", "b": "bool"}
        accepted = ", ".join(words[kind] for kind in kinds)
        if dtype.hasobject:
            raise DtypeError(f"{name}: holds pickled Python objects, which are never loaded; accepted: {accepted}")
        if dtype.kind not in kinds or not dtype.isnative:
            raise DtypeError(
                f"{name}: dtype is {dtype.str if dtype.isnative is False else dtype}; accepted: {accepted}"
            )
        if ndim is not None and len(header.shape) not in ndim:
            raise ShapeError(f"{name}: is {len(header.shape)}-D with shape {header.shape}; accepted: {layout}")
        if self._members[name.removeprefix(f"{self.name}: ")].file_size != header.offset + header.n_bytes:
            raise FileError(f"{name}: corrupt: its size does not fit shape {header.shape} of {dtype}")

    def _mapped(self, member: zipfile.ZipInfo, header: NpyHeader, name: str) -> npt.NDArray[Any]:
        with self._path.open("rb") as file:
            file.seek(member.header_offset)
            name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
            start = member.header_offset + _LOCAL_HEADER.size + name_length + extra_length
            file.seek(start)
            if _checksum(file, member.file_size) != member.CRC:
                raise FileError(f"{name}: corrupt: its data do not fit their checksum")
            file.seek(start)
            if read_npy_header(file, name) != header:
                raise FileError(f"{name}: corrupt: the archive's index does not fit its data")
            order: Any = "F" if header.fortran_order else "C"
            mapped = np.memmap(
                file, dtype=header.dtype, mode="r", offset=start + header.offset, shape=header.shape, order=order
            )
        return np.asarray(mapped)

    def _unpacked(self, member: zipfile.ZipInfo, header: NpyHeader, name: str) -> npt.NDArray[Any]:
        target = self._scratch / f"{len(list(self._scratch.iterdir()))}.npy"
        free = shutil.disk_usage(self._scratch).free
        if header.n_bytes > free:
            raise FileError(
                f"{name}: too little disk space to unpack it: needs {header.n_bytes:,} B, free are {free:,}"
            )
        with zipfile.ZipFile(self._path) as archive, archive.open(member) as packed:
            try:
                with target.open("xb") as file:
                    shutil.copyfileobj(packed, file, 1 << 22)
            except OSError as error:
                raise file_error(target, error) from error
        return open_npy(target, kinds=header.dtype.kind, ndim=(len(header.shape),), layout="")

    @contextmanager
    def _said_in_one_line(self) -> Iterator[None]:
        try:
            yield
        except MoefpsError:
            raise
        except OSError as error:
            raise unreadable(self.name, error) from error
        # Whatever the zip module and the decompressor raise for data that are not theirs.
        except _BROKEN as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise FileError(f"{self.name}: is not a .npz that can be read: {reason[:120]}") from error


def _checksum(file: BinaryIO, n_bytes: int) -> int:
    """Give the checksum of the next bytes, as zip archives have it."""
    found = 0
    while n_bytes > 0 and (piece := file.read(min(n_bytes, 1 << 22))):
        found, n_bytes = zlib.crc32(piece, found), n_bytes - len(piece)
    return found


def _read_whole(file: IO[bytes], header: NpyHeader, name: str) -> npt.NDArray[Any]:
    data = file.read(header.n_bytes)
    # Reading to the end has the checksum compared.
    if len(data) != header.n_bytes or file.read(1):
        raise FileError(f"{name}: corrupt: its size does not fit shape {header.shape} of {header.dtype}")
    array = np.frombuffer(data, dtype=header.dtype)
    return array.reshape(header.shape, order="F" if header.fortran_order else "C")
