"""The captured data set that comes with moefps: what a small trained model did with held-out texts of eight domains.

``moefps demo`` runs on it. The numbers are captured, not made up; `source` says by what. No text is in it.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moefps.errors import FileError
from moefps.io.files import unreadable
from moefps.io.npy import open_npy

if TYPE_CHECKING:
    import numpy.typing as npt

    from moefps._typing import IndexArray

__all__ = ["BUNDLED_FILES", "Bundled", "bundled_fingerprints"]

BUNDLED_FILES = ("fingerprints.npy", "samples.csv", "source.json")
"""The files of the bundled set: the numbers, a row a sample, and what captured them."""

_FOLDER = Path(__file__).resolve().parent.parent / "data" / "demo"


@dataclass(frozen=True, eq=False)
class Bundled:
    """Captured fingerprints and the domain of every sample.

    Attributes
    ----------
    array : float32 ndarray of shape [N, L, E]
        Rows sum to 1. Read-only, mapped from the file.
    domains : ndarray of shape [N]
        The domain of every text, such as ``"french"``.
    ids : ndarray of shape [N]
        Which text it was: the document that it was cut from, and its place there.
    groups : ndarray of shape [N]
        Samples of one group are not independent: pieces of one document, or of one page in several languages.
    n_tokens : int64 ndarray of shape [N]
        Length of every text.
    kind : str
        The kind of fingerprint.
    source : dict
        What captured it: the model and the SHA-256 of its files, the versions of the tools.
    """

    array: npt.NDArray[np.float32]
    domains: npt.NDArray[np.str_]
    ids: npt.NDArray[np.str_]
    groups: npt.NDArray[np.str_]
    n_tokens: IndexArray
    kind: str
    source: dict[str, Any]


def bundled_fingerprints() -> Bundled:
    """Open the data set that comes with moefps.

    320 texts of 128 to 194 tokens, 40 of each of eight domains, that the model did not see in training, captured with
    `moefps.capture` from the model in ``models/demo-moe`` of the repository: 6 layers of 16 experts, 4 for each token.

    Returns
    -------
    Bundled

    Raises
    ------
    FileError
        A file is missing from the installed package, or damaged.

    Examples
    --------
    >>> import moefps
    >>> bundled = bundled_fingerprints()
    >>> bundled.array.shape, bundled.kind
    ((320, 6, 16), 'probs')
    >>> picks = moefps.select(bundled.array, 8).indices
    >>> len(set(bundled.domains[picks]))
    8
    """
    fingerprints, samples, source = (_FOLDER / name for name in BUNDLED_FILES)
    array = open_npy(fingerprints, kinds="f", ndim=(3,), layout="[N, L, E]")
    try:
        with samples.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
        described = json.loads(source.read_text(encoding="utf-8"))
        columns = {name: [row[name] for row in rows] for name in ("id", "domain", "group")}
        n_tokens = np.array([int(row["n_tokens"]) for row in rows], dtype=np.int64)
        kind = str(described["kind"])
    except OSError as error:
        raise unreadable(error.filename, error) from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise FileError(f"{_FOLDER}: damaged, install moefps again: {type(error).__name__}: {error}") from error
    if len(rows) != len(array):
        raise FileError(f"{samples}: has {len(rows)} rows, expected one for each of {len(array)} fingerprints")
    return Bundled(
        array=array,
        domains=np.array(columns["domain"], dtype=np.str_),
        ids=np.array(columns["id"], dtype=np.str_),
        groups=np.array(columns["group"], dtype=np.str_),
        n_tokens=n_tokens,
        kind=kind,
        source=described,
    )
