"""What is known of a dump when writing begins, and must be the same when it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import numpy as np

from moefps._version import __version__
from moefps.errors import ArgumentError, DtypeError, DumpError
from moefps.io import strict_json
from moefps.io.dump.layout import DTYPES, TOKEN_ARRAYS, array_shape, widths
from moefps.io.dump.manifest import ARRAYS, LayerInfo, Manifest
from moefps.io.dump.manifest_json import parse_manifest, serialise_manifest

__all__ = ["DumpHeader", "TokenColumn", "header_from_json", "header_to_json"]

RESERVED_TOKEN_COLUMNS = ("sample", "position", "token_id")


@dataclass(frozen=True)
class DumpHeader:
    """What is known of a dump when writing begins.

    Attributes
    ----------
    layers : tuple of LayerInfo
        The layers, in order.
    arrays : mapping of str to numpy.dtype
        The arrays to write, ``expert_ids`` (int16) among them: ``expert_weights``, ``router_logits``,
        ``hidden_states``, ``router_vectors`` (each float16 or float32), ``fingerprints`` (float32).
    fingerprint_kind : {"probs", "weights", "counts"}, optional
        What the fingerprints are; needed where there are some.
    hidden_layers : tuple of int, optional
        The layers whose hidden states are written; needed where there are some.
    hidden_size : int, optional
        Numbers in a hidden state, d; needed where there are some.
    model : mapping
        What is known of the model, as JSON.
    plan : mapping
        How the run goes about it, as JSON: kept until the dump is whole, so that a run that goes on can be told to do
        the same.
    token_labels : mapping of str to numpy.dtype or sequence of str
        Further columns of tokens.parquet. A sequence of names is an enumeration, written as numbers 0, 1, … of names.
    tool_versions : mapping of str to str
        Versions of what computes the data.
    extra : mapping
        Further keys of the manifest, as JSON.

    Notes
    -----
    When a run goes on, its header must equal the one that the dump was begun with.
    """

    layers: tuple[LayerInfo, ...]
    arrays: Mapping[str, np.dtype[Any]]
    fingerprint_kind: str | None = None
    hidden_layers: tuple[int, ...] | None = None
    hidden_size: int | None = None
    model: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)
    token_labels: Mapping[str, Any] = field(default_factory=dict)
    tool_versions: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Check everything that can be wrong with it.

        Raises
        ------
        ArgumentError
            A field is missing, does not fit the others, or cannot be kept as JSON.
        DtypeError
            An array's dtype is not one that the format has.
        """
        for name, dtype in self.arrays.items():
            if name not in ARRAYS:
                raise ArgumentError(f"arrays: {name!r} is no array of a dump; accepted: {', '.join(ARRAYS)}")
            if np.dtype(dtype) not in DTYPES[name] or not np.dtype(dtype).isnative:
                accepted = ", ".join(str(dtype) for dtype in DTYPES[name])
                raise DtypeError(f"arrays: {name} is {np.dtype(dtype).str}; accepted: {accepted}")
        if "hidden_states" in self.arrays and (self.hidden_size is None or self.hidden_size < 1):
            raise ArgumentError(f"hidden_size: {self.hidden_size}; accepted: numbers in a hidden state, at least 1")
        for name, column in self.token_columns().items():
            if name in RESERVED_TOKEN_COLUMNS and name in self.token_labels:
                raise ArgumentError(f"token_labels: {name!r} is a column of every dump; accepted: other names")
            names = column.names
            if names is not None and (
                len(set(names)) < len(names)
                or not 1 <= len(names) <= 1 << 16
                or not all(isinstance(label, str) for label in names)
            ):
                raise ArgumentError(
                    f"token_labels: {name} has {len(names)} names; accepted: 1 to 65,536 different texts"
                )
            if column.dtype.kind not in "iufb":
                raise DtypeError(f"token_labels: {name} is {column.dtype}; accepted: numbers, bool, a list of names")
        try:
            strict_json.plain(dict(self.plan))
            serialise_manifest(self.manifest("writing", 0, 0))
        except ValueError as error:
            raise ArgumentError(f"header: {error}") from None

    def token_columns(self) -> dict[str, TokenColumn]:
        """Give the columns of tokens.parquet that are written token by token."""
        columns = {name: TokenColumn(np.dtype(np.int32), None) for name in ("position", "token_id")}
        for name, given in self.token_labels.items():
            if isinstance(given, Sequence) and not isinstance(given, str):
                columns[name] = TokenColumn(np.dtype(np.uint8 if len(given) <= 256 else np.uint16), tuple(given))
            else:
                columns[name] = TokenColumn(np.dtype(given), None)
        return columns

    def array_shape(self, name: str, n_samples: int, n_tokens: int) -> tuple[int | None, ...]:
        """Give the shape of an array for so many samples and tokens; None for a size that is not known yet."""
        shape = array_shape(
            name,
            n_samples=n_samples,
            n_tokens=n_tokens,
            top_k=widths(self.layers)[0],
            layers=self.layers,
            n_hidden=len(self.hidden_layers or ()),
        )
        return (*shape[:2], self.hidden_size) if name == "hidden_states" else shape

    @property
    def token_arrays(self) -> tuple[str, ...]:
        """The arrays with a row for each token that are to be written."""
        return tuple(name for name in TOKEN_ARRAYS if name in self.arrays)

    def manifest(self, state: str, n_samples: int, n_tokens: int, created: str | None = None) -> Manifest:
        """Make the manifest of the dump."""
        return Manifest(
            state=state,
            n_samples=n_samples,
            n_tokens=n_tokens,
            top_k=widths(self.layers)[0],
            layers=tuple(self.layers),
            arrays=tuple(name for name in ARRAYS if name in self.arrays),
            fingerprint_kind=self.fingerprint_kind,
            hidden_layers=self.hidden_layers,
            model=self.model,
            created=created or datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            tool_versions={"moefps": __version__, **self.tool_versions},
            extra=self.extra,
        )


@dataclass(frozen=True)
class TokenColumn:
    """A column of tokens.parquet: how it is kept while writing, and the names that its numbers stand for."""

    dtype: np.dtype[Any]
    names: tuple[str, ...] | None


def header_to_json(header: DumpHeader, created: str) -> dict[str, Any]:
    """Give everything that a run which goes on must agree with, as JSON."""
    manifest = strict_json.parse(serialise_manifest(header.manifest("writing", 0, 0, created)))
    labels = {
        name: list(column.names) if column.names is not None else column.dtype.str
        for name, column in header.token_columns().items()
        if name in header.token_labels
    }
    found = strict_json.plain(
        {
            "arrays": {name: np.dtype(dtype).str for name, dtype in sorted(header.arrays.items())},
            "hidden_size": header.hidden_size,
            "plan": dict(header.plan),
            "token_labels": labels,
        }
    )
    return {"manifest": manifest, **found}


def header_from_json(found: Any, name: str) -> DumpHeader:
    """Read back what `header_to_json` gave.

    Raises
    ------
    DumpError
        It is damaged.
    """
    try:
        manifest = parse_manifest(strict_json.serialise(found["manifest"]), name)
        header = DumpHeader(
            layers=manifest.layers,
            arrays={str(array): np.dtype(str(text)) for array, text in found["arrays"].items()},
            fingerprint_kind=manifest.fingerprint_kind,
            hidden_layers=manifest.hidden_layers,
            hidden_size=found["hidden_size"],
            model=manifest.model,
            plan=dict(found["plan"]),
            token_labels={
                label: tuple(given) if isinstance(given, list) else np.dtype(str(given))
                for label, given in found["token_labels"].items()
            },
            # Writing puts moefps's own version there again.
            tool_versions={tool: number for tool, number in manifest.tool_versions.items() if tool != "moefps"},
            extra=manifest.extra,
        )
        header.check()
    except (KeyError, TypeError, AttributeError, ValueError, SyntaxError) as error:
        if isinstance(error, DumpError):
            raise
        raise DumpError(f"{name}: is damaged; pass --overwrite to begin again") from error
    return header
