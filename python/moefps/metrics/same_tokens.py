"""Whether two dumps are of the same tokens and of like layers, with the first difference named."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from moefps.errors import DumpError

if TYPE_CHECKING:
    from moefps._typing import IndexArray
    from moefps.io import Dump
    from moefps.io.dump.manifest import LayerInfo

__all__ = ["check_same_layers", "check_same_tokens"]

_SAME_LAYERS = "accepted: dumps of models of one architecture"
_SAME_SAMPLES = "accepted: dumps of the same samples, in the same order"


def check_same_layers(a: Dump, b: Dump) -> None:
    """Check that two dumps have as many layers, each with as many experts and slots.

    Raises
    ------
    DumpError
        They differ; the first difference is named.
    """
    if a.n_layers != b.n_layers:
        raise DumpError(f"{b.path}: has {b.n_layers} layers, and {a.path} {a.n_layers}; {_SAME_LAYERS}")
    for one, other in zip(a.layers, b.layers, strict=True):
        if _sizes(one) != _sizes(other):
            raise DumpError(
                f"{b.path}: layer {other.index} has {_sizes(other)}, and in {a.path} {_sizes(one)}; {_SAME_LAYERS}"
            )


def _sizes(layer: LayerInfo) -> str:
    passive = f" ({layer.passive_experts} passive)" if layer.passive_experts else ""
    return f"{layer.n_experts} experts{passive}, top-{layer.top_k}"


def check_same_tokens(a: Dump, b: Dump) -> bool:
    """Check that two dumps have the same samples, of the same tokens at the same positions.

    Parameters
    ----------
    a, b : Dump
        The dumps.

    Returns
    -------
    bool
        Whether token ids were compared. Where a dump has none, a warning says so, and only the samples' ids and
        lengths, and positions where both have them, are compared.

    Raises
    ------
    DumpError
        They differ; the first difference is named.
    """
    for one, other in ((a, b), (b, a)):
        if not one.n_tokens and other.n_tokens:
            what, number = ("token", other.n_tokens) if one.n_samples else ("sample", other.n_samples)
            raise DumpError(f"{one.path}: has no {what}, and {other.path} has {number:,}; {_SAME_SAMPLES}")
    if a.n_samples != b.n_samples:
        raise DumpError(f"{b.path}: has {b.n_samples:,} samples, and {a.path} {a.n_samples:,}; {_SAME_SAMPLES}")
    lengths = [np.diff(dump.token_starts) for dump in (a, b)]
    different = lengths[0] != lengths[1]
    if different.any():
        i = int(np.argmax(different))
        raise DumpError(
            f"{b.path}: {_name(b, i)} has {lengths[1][i]:,} tokens, and in {a.path} {lengths[0][i]:,}; {_SAME_SAMPLES}"
        )
    _check_columns(a, b, [name for name in ("position", "stack") if _has_token_column(a, b, name)])
    without = next((dump for dump in (a, b) if not _has_token_column(dump, dump, "token_id")), None)
    if without is None:
        _check_columns(a, b, ["token_id"])
        return True
    if all("id" in dump.samples.columns for dump in (a, b)):
        changed = _differences(a.samples["id"], b.samples["id"])
        if len(changed):
            i = int(changed[0])
            ids = [dump.samples["id"][i] for dump in (b, a)]
            raise DumpError(f"{b.path}: sample {i} has the id {ids[0]!r}, and in {a.path} {ids[1]!r}; {_SAME_SAMPLES}")
    warnings.warn(
        f"{without.path}: has no token ids, so that only the samples' lengths were compared: "
        "whether both dumps are of the same tokens is not known",
        UserWarning,
        stacklevel=3,
    )
    return False


def _has_token_column(a: Dump, b: Dump, name: str) -> bool:
    return all(dump.tokens is not None and name in dump.tokens.columns for dump in (a, b))


def _check_columns(a: Dump, b: Dump, names: list[str]) -> None:
    """Compare columns of the tokens, and name the first token that differs."""
    first: tuple[int, str] | None = None
    for name in names:
        changed = _differences(_column(a, name), _column(b, name))
        if len(changed) and (first is None or int(changed[0]) < first[0]):
            first = int(changed[0]), name
    if first is None:
        return
    row, name = first
    sample = int(np.searchsorted(a.token_starts, row, side="right")) - 1
    place = f"token {row - int(a.token_starts[sample])}"
    if name != "position" and _has_token_column(b, b, "position"):
        place = f"position {_column(b, 'position')[row]}"
    found, expected = _column(b, name)[row], _column(a, name)[row]
    raise DumpError(
        f"{b.path}: {_name(b, sample)}, {place}: {name} is {found!r}, and in {a.path} {expected!r}; "
        "accepted: dumps of the same tokens"
    )


def _column(dump: Dump, name: str) -> pl.Series:
    tokens = dump.tokens
    return pl.Series(name, dtype=pl.Null) if tokens is None else tokens[name]


def _differences(one: pl.Series, other: pl.Series) -> IndexArray:
    """Give the rows where two columns differ; an empty value is equal to an empty value only."""
    if one.dtype != other.dtype and not (one.dtype.is_integer() and other.dtype.is_integer()):
        one, other = one.cast(pl.String), other.cast(pl.String)
    return one.ne_missing(other).arg_true().cast(pl.Int64).to_numpy()


def _name(dump: Dump, sample: int) -> str:
    """Name a sample, by the user's own id too."""
    own = f" (id {dump.samples['id'][sample]!r})" if "id" in dump.samples.columns else ""
    return f"sample {sample}{own}"
