"""Opening .npy files without trusting them.

The header is read by numpy's own functions, the data are memory-mapped, and nothing is ever unpickled. What is wrong
with a file is said in one line that names it.
"""

from __future__ import annotations

import math
import os
import stat
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

import numpy as np

from moefps.errors import DataError, DtypeError, FileError, MoefpsError, ShapeError
from moefps.io.files import unreadable
from moefps.io.paths import check_path

if TYPE_CHECKING:
    import io

    import numpy.typing as npt

    from moefps._typing import Float64Array, FloatArray, PathLike

__all__ = ["STDIN", "NpyHeader", "open_float_npy", "open_npy", "read_npy_header", "read_numbers"]

STDIN = "-"
"""The file name that stands for standard input."""

FLOATS: tuple[np.dtype[Any], ...] = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))
"""The dtypes that fingerprints and distances may have."""

_READ_BYTES = 1 << 24


@dataclass(frozen=True)
class NpyHeader:
    """What the header of a .npy file says.

    Attributes
    ----------
    shape : tuple of int
        Size of every dimension.
    dtype : numpy.dtype
        Type of the numbers.
    fortran_order : bool
        True where the first dimension varies fastest.
    offset : int
        Bytes before the data.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    offset: int

    @property
    def n_bytes(self) -> int:
        """Bytes that the data take."""
        return math.prod(self.shape) * self.dtype.itemsize


def display_name(path: PathLike) -> str:
    """Name a file in a message: its path as the user gave it."""
    name = check_path(path)
    return "stdin" if name == STDIN else name


def read_npy_header(file: BinaryIO, name: str) -> NpyHeader:
    """Read the header of an open .npy file, leaving the file at the first byte of data.

    Parameters
    ----------
    file : binary file
        Open for reading, at its first byte; need not be seekable.
    name : str
        The file's name for messages.

    Returns
    -------
    NpyHeader

    Raises
    ------
    FileError
        The file is empty, not a .npy file, or its header is damaged.
    """
    prefix = file.read(6)
    if not prefix:
        raise FileError(f"{name}: the file is empty, expected a .npy file")
    if prefix != b"\x93NUMPY":
        raise FileError(f"{name}: not a .npy file{_looks_like(prefix)}")
    try:
        version = tuple(file.read(2))
        if version not in {(1, 0), (2, 0), (3, 0)}:
            raise FileError(f"{name}: corrupt header: .npy version {version}; accepted: 1.0, 2.0, 3.0")
        counted = _CountingReader(file)
        with warnings.catch_warnings():
            # numpy warns about headers that Python 2 wrote; they are read all the same.
            warnings.simplefilter("ignore")
            # A 3.0 header differs from 2.0 only in the field names of structured dtypes, which nobody here accepts.
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran_order, dtype = read(cast("BinaryIO", counted))
    except (MoefpsError, OSError):
        raise
    # numpy parses a damaged header as Python and lets out whatever the parser raises.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileError(f"{name}: corrupt .npy header: {reason[:120]}") from error
    if any(isinstance(size, bool) or size < 0 for size in shape):
        raise FileError(f"{name}: corrupt .npy header: the shape is {shape}")
    return NpyHeader(tuple(shape), dtype, fortran_order, 8 + counted.n_read)


def open_npy(
    path: PathLike,
    *,
    dtypes: tuple[np.dtype[Any], ...] | None = None,
    kinds: str = "f",
    ndim: tuple[int, ...] = (3,),
    layout: str = "[N, L, E]",
) -> npt.NDArray[Any]:
    """Open a .npy file, memory-mapped and read-only; stdin and pipes are read into memory.

    Parameters
    ----------
    path : path or "-"
        The file, or ``-`` for standard input.
    dtypes : tuple of numpy.dtype, optional
        The dtypes that are accepted; any of the accepted kinds when not given.
    kinds : str
        The kinds of dtype that are accepted, as ``numpy.dtype.kind`` names them.
    ndim : tuple of int
        The numbers of dimensions that are accepted.
    layout : str
        What the dimensions mean, for messages.

    Returns
    -------
    ndarray
        Of the shape, dtype and order that the header names.

    Raises
    ------
    FileError
        The file is missing, a directory, not readable, not a .npy file, damaged, truncated or longer than its header
        says.
    DtypeError
        The dtype is not accepted, holds Python objects, or has another machine's byte order.
    ShapeError
        The number of dimensions is not accepted or a dimension has size 0.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "X.npy"
    >>> np.save(path, np.full((2, 1, 4), 0.25, dtype=np.float32))
    >>> open_npy(path).shape
    (2, 1, 4)
    """
    name = display_name(path)
    try:
        if os.fspath(path) == STDIN:
            if sys.stdin is None or sys.stdin.isatty():
                raise FileError("stdin: is a terminal, expected a .npy file piped in")
            return _read_stream(sys.stdin.buffer, name, dtypes, kinds, ndim, layout)
        mode = Path(path).stat().st_mode
        if stat.S_ISDIR(mode):
            raise FileError(f"{name}: is a folder, expected a .npy file")
        with Path(path).open("rb") as file:
            if not stat.S_ISREG(mode):
                return _read_stream(file, name, dtypes, kinds, ndim, layout)
            return _map_file(file, name, dtypes, kinds, ndim, layout)
    except MoefpsError:
        raise
    except OSError as error:
        raise unreadable(name, error) from error


def open_float_npy(path: PathLike, *, ndim: tuple[int, ...] = (3,), layout: str = "[N, L, E]") -> FloatArray:
    """Open a .npy file of float16, float32 or float64; see `open_npy`."""
    return cast("FloatArray", open_npy(path, dtypes=FLOATS, ndim=ndim, layout=layout))


def read_numbers(path: PathLike, *, ndim: tuple[int, ...], layout: str) -> Float64Array:
    """Read a small .npy file of real numbers, such as layer weights, as float64.

    Parameters
    ----------
    path : path or "-"
        The file; any float or integer dtype.
    ndim : tuple of int
        The numbers of dimensions that are accepted.
    layout : str
        What the dimensions mean, for messages.

    Returns
    -------
    ndarray of float64

    Raises
    ------
    FileError, DtypeError, ShapeError
        As `open_npy`.
    DataError
        A number is NaN or infinite.
    """
    numbers = open_npy(path, kinds="fiu", ndim=ndim, layout=layout).astype(np.float64)
    if not np.isfinite(numbers).all():
        where = np.unravel_index(int(np.argmin(np.isfinite(numbers))), numbers.shape)
        place = ", ".join(str(int(i)) for i in where)
        raise DataError(f"{display_name(path)}: found {numbers[where]} at [{place}]; accepted: finite numbers")
    return numbers


class _CountingReader:
    """Counts the bytes that numpy reads, as a pipe cannot say where it stands."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.n_read = 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.n_read += len(data)
        return data


def _map_file(
    file: io.BufferedReader,
    name: str,
    dtypes: tuple[np.dtype[Any], ...] | None,
    kinds: str,
    ndim: tuple[int, ...],
    layout: str,
) -> npt.NDArray[Any]:
    """Check the header of a regular file and map its data."""
    header = read_npy_header(file, name)
    found = os.fstat(file.fileno()).st_size - header.offset
    _check_dtype(header, name, dtypes, kinds)
    _check_shape(header, name, ndim, layout)
    _check_length(header, name, found)
    order: Literal["C", "F"] = "F" if header.fortran_order else "C"
    try:
        # The stub asks for a file that can be written, which mode "r" does not need.
        mapped = np.memmap(
            cast("Any", file), dtype=header.dtype, mode="r", offset=header.offset, shape=header.shape, order=order
        )
    except OSError:
        # Some file systems cannot map; reading always works.
        file.seek(header.offset)
        return _read_data(file, header, name)
    view = np.asarray(mapped)
    if not view.flags.aligned:
        # The kernels want aligned numbers, and only a hand-made header leaves them otherwise.
        raise FileError(
            f"{name}: the data begin at byte {header.offset}, which is no multiple of {header.dtype.alignment}; "
            f"accepted: aligned numbers; load it and save it again with numpy"
        )
    return view


def _read_stream(
    file: BinaryIO,
    name: str,
    dtypes: tuple[np.dtype[Any], ...] | None,
    kinds: str,
    ndim: tuple[int, ...],
    layout: str,
) -> npt.NDArray[Any]:
    """Read a .npy that can be read only once, front to back."""
    header = read_npy_header(file, name)
    _check_dtype(header, name, dtypes, kinds)
    _check_shape(header, name, ndim, layout)
    data = _read_data(file, header, name)
    if file.read(1):
        raise FileError(f"{name}: corrupt: more data than {_needs(header)}")
    return data


def _read_data(file: BinaryIO, header: NpyHeader, name: str) -> npt.NDArray[Any]:
    """Read the data after the header into a new read-only array."""
    try:
        flat = np.empty(math.prod(header.shape), dtype=header.dtype)
    except (MemoryError, ValueError) as error:
        raise FileError(f"{name}: does not fit in memory: {_needs(header)}") from error
    target = flat.view(np.uint8)
    n_read = 0
    while n_read < len(target):
        piece = file.read(min(_READ_BYTES, len(target) - n_read))
        if not piece:
            _check_length(header, name, n_read)
        target[n_read : n_read + len(piece)] = np.frombuffer(piece, dtype=np.uint8)
        n_read += len(piece)
    flat.flags.writeable = False
    return flat.reshape(header.shape, order="F" if header.fortran_order else "C")


def _check_dtype(header: NpyHeader, name: str, dtypes: tuple[np.dtype[Any], ...] | None, kinds: str) -> None:
    dtype = header.dtype
    if dtypes is not None:
        accepted = ", ".join(str(accepted) for accepted in dtypes)
    else:
        words = {"f": "floats", "i": "integers", "u": "unsigned integers", "U": "text", "b": "bool"}
        accepted = ", ".join(words[kind] for kind in kinds)
    if dtype.hasobject:
        raise DtypeError(f"{name}: holds pickled Python objects, which are never loaded; accepted: {accepted}")
    if dtype.names is not None:
        raise DtypeError(f"{name}: has a structured dtype with {len(dtype.names)} fields; accepted: {accepted}")
    native = dtype.newbyteorder("=")
    if native not in dtypes if dtypes is not None else dtype.kind not in kinds:
        raise DtypeError(f"{name}: dtype is {native}; accepted: {accepted}")
    if not dtype.isnative:
        raise DtypeError(
            f"{name}: dtype is {dtype.str}, in the byte order of another machine; "
            f"accepted: native order ({sys.byteorder}-endian)"
        )


def _check_shape(header: NpyHeader, name: str, ndim: tuple[int, ...], layout: str) -> None:
    if len(header.shape) not in ndim:
        raise ShapeError(f"{name}: is {len(header.shape)}-D with shape {header.shape}; accepted: {layout}")
    if 0 in header.shape:
        raise ShapeError(f"{name}: shape is {header.shape}; accepted: {layout} with every size at least 1")


def _check_length(header: NpyHeader, name: str, found: int) -> None:
    if found < header.n_bytes:
        raise FileError(f"{name}: truncated: found {found:,} bytes of data, {_needs(header)}")
    if found > header.n_bytes:
        raise FileError(f"{name}: corrupt: found {found:,} bytes of data, {_needs(header)}")


def _needs(header: NpyHeader) -> str:
    return f"shape {header.shape} of {header.dtype} needs {header.n_bytes:,}"


def _looks_like(prefix: bytes) -> str:
    """Say what a file is instead, where its first bytes tell."""
    if prefix.startswith(b"PK\x03\x04"):
        return ": it is a zip archive, perhaps .npz; save the array alone with numpy.save"
    if prefix[:1] == b"\x80":
        return ": it is a pickle, which is never loaded"
    if prefix.startswith(b"\x1f\x8b"):
        return ": it is compressed with gzip; pipe it in with zcat and `-`"
    return f": it starts with {prefix!r}"
