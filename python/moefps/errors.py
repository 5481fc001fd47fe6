"""The errors and warnings that moefps raises.

Every message is one line: the argument or file, what was found, what is accepted. Each class also derives from the
built-in exception that numpy users would expect, so ``except ValueError`` keeps working.
"""

from __future__ import annotations

__all__ = [
    "ArgumentError",
    "CaptureError",
    "CaptureWarning",
    "DataError",
    "DtypeError",
    "DumpError",
    "DuplicateWarning",
    "FileError",
    "MissingExtraError",
    "MoefpsError",
    "ShapeError",
]


class MoefpsError(Exception):
    """Base of every error that moefps raises on purpose."""


class ArgumentError(MoefpsError, ValueError):
    """An argument has a value that is not accepted, for example ``n_select=0``."""


class ShapeError(MoefpsError, ValueError):
    """An array has the wrong number of dimensions or the wrong size."""


class DtypeError(MoefpsError, TypeError):
    """An array has a dtype, a byte order or a memory layout that is not accepted."""


class DataError(MoefpsError, ValueError):
    """The values of an array are not what they must be, for example a row that does not sum to 1."""


class FileError(MoefpsError, OSError):
    """A file is missing, broken, in the way or could not be written."""


class DuplicateWarning(UserWarning):
    """A selection ran out of distinct samples and went on with exact duplicates."""


class DumpError(MoefpsError, ValueError):
    """A dump is half-written, damaged, of another version, or does not fit what is asked of it."""


class CaptureError(MoefpsError, RuntimeError):
    """A model's routing could not be recorded, or not all of it."""


class CaptureWarning(UserWarning):
    """Something about a capture that its reader should know, for example a model without MoE layers."""


class MissingExtraError(MoefpsError, ImportError):
    """An optional part of moefps is not installed, for example ``moefps[capture]``."""
