"""What other tools' files of routing hold: expert ids with gate weights, or router logits."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moefps._words import listed
from moefps.errors import ArgumentError, DataError, ShapeError
from moefps.io.npy import open_npy
from moefps.io.npz import NpzArchive
from moefps.io.paths import check_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from moefps._typing import IndexArray, PathLike

__all__ = ["Logits", "Source", "check_offsets", "open_source"]

NAMES = {
    "ids": ("expert_ids", "ids", "topk_ids", "topk_indices", "expert_indices", "selected_experts", "indices"),
    "weights": ("expert_weights", "weights", "gate_weights", "topk_weights", "routing_weights"),
    "logits": ("router_logits", "logits", "gate_logits"),
    "offsets": ("offsets", "sample_offsets", "token_offsets", "cu_seqlens", "token_starts"),
    "lengths": ("lengths", "sample_lengths", "seq_lens", "n_tokens"),
    "token_id": ("token_ids", "token_id", "input_ids"),
    "position": ("positions", "position", "position_ids"),
    "n_experts": ("n_experts", "num_experts"),
}
"""The names that each array goes by."""

# A number alone, or the first one after a word such as layer, wherever that stands in a path.
_LAYER_KEY = re.compile(r"(?:^|(?:^|[._/-])(?:layers?|blocks?|h)[._/-]?)([0-9]{1,9})(?=$|[._/-])", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Logits:
    """Router logits of T tokens in L layers, which may differ in their number of experts.

    Attributes
    ----------
    blocks : tuple of ndarray
        An array [T, E] for each layer; views where the file is one [T, L, E].
    whole : ndarray of shape [T, L, E] or None
        All layers in one array, where the file has them so.
    """

    blocks: tuple[npt.NDArray[Any], ...]
    whole: npt.NDArray[Any] | None = None

    @property
    def n_tokens(self) -> int:
        """Number of tokens, T."""
        return int(self.blocks[0].shape[0])

    @property
    def widths(self) -> tuple[int, ...]:
        """Experts of each layer."""
        return tuple(int(block.shape[1]) for block in self.blocks)

    @property
    def dtype(self) -> np.dtype[Any]:
        """What a dump keeps them in: float16 stays, all else is float32."""
        is_half = all(block.dtype == np.float16 for block in self.blocks)
        return np.dtype(np.float16 if is_half else np.float32)

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Read some tokens, [n, L, E] in the file's precision; layers with fewer experts end in zeros."""
        if self.whole is not None:
            return np.asarray(self.whole[start:stop])
        read = np.zeros((stop - start, len(self.blocks), max(self.widths)), np.result_type(*self.blocks))
        for i, block in enumerate(self.blocks):
            read[:, i, : block.shape[1]] = block[start:stop]
        return read


@dataclass(frozen=True, eq=False)
class Source:
    """What a file of another tool holds.

    Attributes
    ----------
    name : str
        The file, for messages.
    ids : integer ndarray of shape [T, L, k] or None
        Chosen experts, -1 for an empty slot.
    weights : float ndarray of shape [T, L, k] or None
        Their gate weights.
    logits : Logits or None
        Router logits.
    layer_numbers : tuple of int or None
        The layers' own numbers, where the file says them.
    layer_paths : tuple of str or None
        The layers' names in the file, where it has some.
    offsets : int64 ndarray of shape [N + 1] or None
        Where samples begin, where the file says it.
    n_experts : int or None
        Experts of a layer, where the file says it.
    token_columns : mapping
        An array [T] for each of ``token_id`` and ``position`` that the file has.
    others : mapping
        Every other array.
    """

    name: str
    ids: npt.NDArray[Any] | None = None
    weights: npt.NDArray[Any] | None = None
    logits: Logits | None = None
    layer_numbers: tuple[int, ...] | None = None
    layer_paths: tuple[str, ...] | None = None
    offsets: IndexArray | None = None
    n_experts: int | None = None
    token_columns: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    others: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    @property
    def n_tokens(self) -> int:
        """Number of tokens, T."""
        return int(self.ids.shape[0]) if self.ids is not None else self.logits.n_tokens if self.logits else 0

    @property
    def n_layers(self) -> int:
        """Number of layers, L."""
        return int(self.ids.shape[1]) if self.ids is not None else len(self.logits.blocks) if self.logits else 0

    @property
    def has_doubles(self) -> bool:
        """Whether floats are more precise than a dump keeps them."""
        blocks = self.logits.blocks if self.logits is not None else ()
        return any(array is not None and array.dtype == np.float64 for array in (self.weights, *blocks))


def open_source(path: PathLike, scratch: Path) -> Source:
    """Open a .npy or .npz of routing, memory-mapped.

    Parameters
    ----------
    path : path
        A .npy of router logits [T, L, E] (floats) or expert ids [T, L, k] (integers); or a .npz with those under one
        of their names, or with router logits [T, E] for each layer under its number.
    scratch : Path
        A folder of ours for what must be unpacked.

    Returns
    -------
    Source
        Its shapes fit each other; values are not looked at.

    Raises
    ------
    FileError
        The file is missing or damaged.
    ArgumentError
        The suffix is unknown, or the .npz holds nothing that is known, or the same thing twice.
    ShapeError, DtypeError
        An array has the wrong shape or dtype.
    """
    name = check_path(path, "src")
    suffix = Path(name).suffix.lower()
    if suffix == ".npy":
        layout = "router logits [T, L, E] or expert ids [T, L, k]"
        array = open_npy(path, kinds="fiu", ndim=(3,), layout=layout)
        return Source(name, logits=_whole(array)) if array.dtype.kind == "f" else Source(name, ids=array)
    if suffix != ".npz":
        raise ArgumentError(f"{name}: the suffix is {suffix or 'missing'}; accepted: .npy, .npz")
    archive = NpzArchive(path, scratch)
    found = {role: _pick(archive, role) for role in NAMES}
    if found["ids"] is not None or found["logits"] is not None:
        return _open_by_names(archive, found)
    layers = _layer_keys(archive)
    if not layers:
        raise ArgumentError(
            f"{name}: holds {listed(list(archive.headers))}; accepted: expert ids [T, L, k] as "
            f"{listed(NAMES['ids'])}, router logits [T, L, E] as {listed(NAMES['logits'])}, or [T, E] for each "
            "layer under its number"
        )
    blocks = [archive.open(key, kinds="f", ndim=(2,), layout="[T, E]") for key in layers.values()]
    for key, block in zip(layers.values(), blocks, strict=True):
        if len(block) != len(blocks[0]) or 0 in block.shape:
            first = next(iter(layers.values()))
            raise ShapeError(f"{name}: {key} has shape {block.shape}, and {first} {blocks[0].shape}; accepted: one T")
    used = {*layers.values(), *(key for key in found.values() if key is not None)}
    return Source(
        name,
        logits=Logits(tuple(blocks)),
        layer_numbers=tuple(layers),
        layer_paths=tuple(f"layers.{key}" if key.isdigit() else key for key in layers.values()),
        **_beside(archive, found, used, len(blocks[0])),
    )


def _open_by_names(archive: NpzArchive, found: Mapping[str, str | None]) -> Source:
    """Open the arrays that go by names."""
    ids = weights = logits = None
    if found["ids"] is not None:
        ids = archive.open(found["ids"], kinds="iu", ndim=(3,), layout="[T, L, k]")
        if 0 in ids.shape:
            raise ShapeError(f"{archive.name}: {found['ids']} has shape {ids.shape}; accepted: sizes of at least 1")
    if found["weights"] is not None:
        if ids is None:
            raise ArgumentError(f"{archive.name}: holds {found['weights']} without expert ids; accepted: both")
        weights = archive.open(found["weights"], kinds="f", ndim=(3,), layout="[T, L, k]")
        if weights.shape != ids.shape:
            raise ShapeError(
                f"{archive.name}: {found['weights']} has shape {weights.shape}, expected {ids.shape} as {found['ids']}"
            )
    if found["logits"] is not None:
        array = archive.open(found["logits"], kinds="f", ndim=(3,), layout="[T, L, E]")
        if 0 in array.shape or (ids is not None and array.shape[:2] != ids.shape[:2]):
            expected = (
                "sizes of at least 1" if ids is None else f"({ids.shape[0]}, {ids.shape[1]}, E) as {found['ids']}"
            )
            raise ShapeError(f"{archive.name}: {found['logits']} has shape {array.shape}, expected {expected}")
        logits = _whole(array)
    n_tokens = len(ids) if ids is not None else logits.n_tokens if logits is not None else 0
    used = {key for key in found.values() if key is not None}
    return Source(archive.name, ids=ids, weights=weights, logits=logits, **_beside(archive, found, used, n_tokens))


def _whole(array: npt.NDArray[Any]) -> Logits:
    return Logits(tuple(array[:, i] for i in range(array.shape[1])), array)


def _pick(archive: NpzArchive, role: str) -> str | None:
    """Find the one array with a name for this role."""
    found = [key for key in NAMES[role] if key in archive.headers]
    if len(found) > 1:
        raise ArgumentError(f"{archive.name}: holds both {found[0]} and {found[1]}; accepted: one of them")
    return found[0] if found else None


def _layer_keys(archive: NpzArchive) -> dict[int, str]:
    """Find the arrays that are named by a layer's number, in the order of the numbers."""
    layers: dict[int, str] = {}
    for key, header in archive.headers.items():
        match = _LAYER_KEY.search(key)
        if match is None or len(header.shape) != 2:
            continue
        number = int(match[1])
        if number in layers:
            raise ArgumentError(f"{archive.name}: {layers[number]} and {key} are both of layer {number}; accepted: one")
        layers[number] = key
    return dict(sorted(layers.items()))


def _beside(archive: NpzArchive, found: Mapping[str, str | None], used: set[str], n_tokens: int) -> dict[str, Any]:
    """Open what stands beside the routing: offsets, sizes, and columns."""
    offsets = None
    if found["offsets"] is not None and found["lengths"] is not None:
        raise ArgumentError(f"{archive.name}: holds both {found['offsets']} and {found['lengths']}; accepted: one")
    for role in ("offsets", "lengths"):
        key = found[role]
        if key is not None:
            numbers = archive.open(key, kinds="iu", ndim=(1,), layout="[N + 1]" if role == "offsets" else "[N]")
            offsets = check_offsets(numbers, n_tokens, f"{archive.name}: {key}", is_lengths=role == "lengths")
    columns = {}
    for role in ("token_id", "position"):
        key = found[role]
        if key is not None:
            columns[role] = archive.open(key, kinds="iu", ndim=(1,), layout="[T]")
            if len(columns[role]) != n_tokens:
                raise ShapeError(f"{archive.name}: {key} has {len(columns[role]):,} numbers, expected {n_tokens:,}, T")
    n_experts = None
    if found["n_experts"] is not None:
        number = archive.open(found["n_experts"], kinds="iu", ndim=(0,), layout="one number")
        n_experts = int(number[()])
    others = {key: archive.open(key) for key in archive.headers if key not in used}
    return {"offsets": offsets, "token_columns": columns, "n_experts": n_experts, "others": others}


def check_offsets(numbers: npt.NDArray[Any], n_tokens: int, name: str, *, is_lengths: bool | None = None) -> IndexArray:
    """Turn offsets or lengths into offsets that add up.

    Parameters
    ----------
    numbers : integer ndarray
        Offsets [N + 1] from 0 to T, or the lengths [N] of samples, which add up to T.
    n_tokens : int
        T.
    name : str
        Where they come from, for messages.
    is_lengths : bool, optional
        What they are; offsets where they start at 0 and end at T, and lengths otherwise, when not given.

    Returns
    -------
    int64 ndarray of shape [N + 1]

    Raises
    ------
    DataError
        They do not add up.

    Examples
    --------
    >>> import numpy as np
    >>> check_offsets(np.array([2, 3]), 5, "--offsets").tolist()
    [0, 2, 5]
    >>> check_offsets(np.array([0, 2, 5]), 5, "--offsets").tolist()
    [0, 2, 5]
    """
    if numbers.dtype == np.uint64 and numbers.size and int(numbers.max()) > n_tokens:
        raise DataError(f"{name}: found {int(numbers.max())}; accepted: at most {n_tokens:,}, the number of tokens")
    found: IndexArray = np.asarray(numbers, dtype=np.int64)
    if is_lengths is None:
        is_lengths = not (len(found) > 1 and found[0] == 0 and found[-1] == n_tokens)
    if is_lengths:
        if (found < 0).any() or int(found.sum()) != n_tokens:
            raise DataError(f"{name}: the lengths add up to {int(found.sum()):,}, expected {n_tokens:,}, all tokens")
        found = np.concatenate([np.zeros(1, np.int64), np.cumsum(found)])
    if len(found) < 2 or found[0] != 0 or found[-1] != n_tokens:
        ends = f"go from {found[0]:,} to {found[-1]:,}" if len(found) else "are none"
        raise DataError(f"{name}: the offsets {ends}, expected 0 to {n_tokens:,}, all tokens")
    if (np.diff(found) < 0).any():
        i = int(np.argmax(np.diff(found) < 0))
        raise DataError(f"{name}: offset {i + 1} is {found[i + 1]:,} after {found[i]:,}; accepted: none that falls")
    return found
