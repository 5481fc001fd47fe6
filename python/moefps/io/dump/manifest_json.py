"""The file manifest.json: read strictly, and written back whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moefps.errors import DumpError
from moefps.io import strict_json
from moefps.io.dump.manifest import (
    ARRAYS,
    FORMAT,
    KINDS,
    MOST_EXPERTS,
    ROUTING_TYPES,
    SCORINGS,
    STACKS,
    STATES,
    VERSION,
    LayerInfo,
    Manifest,
)
from moefps.io.strict_json import show

__all__ = ["parse_manifest", "serialise_manifest"]

MOST = 1 << 53


def parse_manifest(data: bytes, name: str = "manifest.json") -> Manifest:
    """Read a manifest and check every field of it.

    Parameters
    ----------
    data : bytes
        The file's content.
    name : str
        The file's name for messages.

    Returns
    -------
    Manifest

    Raises
    ------
    DumpError
        It is not JSON, not a dump's, of another version, or a field is missing or has a value that is not accepted.

    Examples
    --------
    >>> text = b'{"format": "moefps-dump", "version": 1, "state": "complete", "n_samples": 2, "n_tokens": 9,'
    >>> text += b'"top_k": 1, "layers": [{"index": 0, "path": "gate", "layer": 3, "n_experts": 4, "top_k": 1}]}'
    >>> parse_manifest(text).layers[0].n_experts
    4
    """
    try:
        found = strict_json.parse(data)
    except ValueError as error:
        raise DumpError(f"{name}: is not JSON as a dump has it: {error}") from None
    fields = _Fields(found, name, "")
    if fields.take("format", None) != FORMAT:
        raise DumpError(f'{name}: is not the manifest of a dump; accepted: "format": "{FORMAT}"')
    version = fields.integer("version", low=0)
    if version != VERSION:
        raise DumpError(f"{name}: version is {version}; accepted: {VERSION}, the only one that this moefps reads")
    state = fields.word("state", STATES)
    n_samples, n_tokens = fields.integer("n_samples", low=0), fields.integer("n_tokens", low=0)
    top_k = fields.integer("top_k", low=0, high=MOST_EXPERTS)
    layers = fields.items("layers")
    manifest = Manifest(
        state=state,
        n_samples=n_samples,
        n_tokens=n_tokens,
        top_k=top_k,
        layers=tuple(_parse_layer(layer, i, name) for i, layer in enumerate(layers)),
        arrays=fields.optional("arrays", _names),
        fingerprint_kind=fields.optional("fingerprint_kind", lambda of, key: of.word(key, KINDS)),
        hidden_layers=fields.optional("hidden_layers", _numbers),
        model=fields.optional("model", _Fields.mapping) or {},
        created=fields.optional("created", _Fields.text),
        tool_versions=fields.optional("tool_versions", _versions) or {},
        version=version,
        extra=fields.rest(),
    )
    problem = _contradiction(manifest)
    if problem is not None:
        raise DumpError(f"{name}: {problem}")
    return manifest


def serialise_manifest(manifest: Manifest) -> bytes:
    """Write a manifest as the bytes of a manifest.json, unknown keys included.

    Raises
    ------
    DumpError
        It would not be read again: a field has a value that is not accepted, or one that JSON cannot hold.
    """
    layers = []
    for layer in manifest.layers:
        known = {name: getattr(layer, name) for name in _LAYER_KEYS if name != "stack" or layer.stack is not None}
        _check_extra(layer.extra, known)
        layers.append({**known, **layer.extra})
    fields: dict[str, Any] = {
        "format": FORMAT,
        "version": manifest.version,
        "state": manifest.state,
        "n_samples": manifest.n_samples,
        "n_tokens": manifest.n_tokens,
        "top_k": manifest.top_k,
        "layers": layers,
        "arrays": None if manifest.arrays is None else list(manifest.arrays),
        "fingerprint_kind": manifest.fingerprint_kind,
        "hidden_layers": None if manifest.hidden_layers is None else list(manifest.hidden_layers),
        "model": dict(manifest.model),
        "created": manifest.created,
        "tool_versions": dict(manifest.tool_versions),
    }
    _check_extra(manifest.extra, fields)
    # Absent and null mean the same, and most dumps have no hidden states.
    for key in ("arrays", "hidden_layers", "created"):
        if fields[key] is None:
            del fields[key]
    try:
        data = strict_json.serialise({**fields, **manifest.extra})
    except ValueError as error:
        raise DumpError(f"manifest.json: cannot be written: {error}") from None
    parse_manifest(data)
    return data


_LAYER_KEYS = (
    "index",
    "path",
    "layer",
    "n_experts",
    "passive_experts",
    "top_k",
    "scoring",
    "routing_type",
    "signed_weights",
    "stack",
)


def _check_extra(extra: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    taken = next((key for key in extra if key in known), None)
    if taken is not None:
        raise DumpError(f"manifest.json: the further key {taken!r} is one of the format's own")


def _parse_layer(found: Any, index: int, name: str) -> LayerInfo:
    fields = _Fields(found, name, f"layers[{index}]")
    if fields.integer("index", low=0) != index:
        raise DumpError(f"{name}: layers[{index}].index is {found['index']}, expected {index}: layers are in order")
    path = fields.text("path")
    layer, n_experts = fields.integer("layer", low=0), fields.integer("n_experts", low=1, high=MOST_EXPERTS)
    top_k = fields.integer("top_k", low=1, high=MOST_EXPERTS)
    return LayerInfo(
        index=index,
        path=path,
        layer=layer,
        n_experts=n_experts,
        top_k=top_k,
        passive_experts=fields.integer("passive_experts", low=0, high=n_experts - 1, default=0),
        scoring=fields.word("scoring", SCORINGS, default="other"),
        routing_type=fields.word("routing_type", ROUTING_TYPES, default="token_choice"),
        signed_weights=fields.flag("signed_weights", default=False),
        stack=fields.optional("stack", lambda of, key: of.word(key, STACKS)),
        extra=fields.rest(),
    )


def _contradiction(manifest: Manifest) -> str | None:
    """Say what two fields of a manifest disagree about."""
    paths = [layer.path for layer in manifest.layers]
    if len(set(paths)) < len(paths):
        twice = next(path for i, path in enumerate(paths) if path in paths[:i])
        return f"two layers have the path {twice[:80]!r}; accepted: a path of its own for each"
    most = max((layer.top_k for layer in manifest.layers), default=0)
    if manifest.layers and most > manifest.top_k:
        return f"top_k is {manifest.top_k}, but a layer has {most}; accepted: the most of any layer"
    holds = manifest.arrays or ()
    if manifest.arrays is not None and "expert_ids" not in holds:
        return "arrays does not list expert_ids, which every dump has"
    if "fingerprints" in holds and manifest.fingerprint_kind is None:
        return f"holds fingerprints, but fingerprint_kind is null; accepted: {', '.join(KINDS)}"
    if "hidden_states" in holds and manifest.hidden_layers is None:
        return "holds hidden_states, but hidden_layers is null; accepted: the list of their layers"
    return None


class _Fields:
    """The keys of one JSON object, taken out one by one and checked."""

    def __init__(self, found: Any, file: str, place: str) -> None:
        if not isinstance(found, dict):
            raise DumpError(f"{file}: {place or 'the whole'} is {show(found)}, expected an object")
        self._left: dict[str, Any] = dict(found)
        self._file, self._place = file, place

    def refuse(self, key: str, found: Any, accepted: str) -> DumpError:
        where = f"{self._place}.{key}" if self._place else key
        return DumpError(f"{self._file}: {where} is {show(found)}; accepted: {accepted}")

    def take(self, key: str, default: Any = ...) -> Any:
        value = self._left.pop(key, default)
        if value is ...:
            where = f"{self._place}.{key}" if self._place else key
            raise DumpError(f"{self._file}: {where} is missing")
        return value

    def rest(self) -> dict[str, Any]:
        return self._left

    def integer(self, key: str, *, low: int, high: int = MOST, default: Any = ...) -> int:
        value = self.take(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.refuse(key, value, f"an integer of {low:,} to {high:,}")
        return value

    def flag(self, key: str, *, default: Any = ...) -> bool:
        value = self.take(key, default)
        if not isinstance(value, bool):
            raise self.refuse(key, value, "true, false")
        return value

    def word(self, key: str, accepted: tuple[str, ...], *, default: Any = ...) -> str:
        value = self.take(key, default)
        if not isinstance(value, str) or value not in accepted:
            raise self.refuse(key, value, ", ".join(accepted))
        return value

    def text(self, key: str) -> str:
        value = self.take(key)
        if not isinstance(value, str) or not value:
            raise self.refuse(key, value, "text that is not empty")
        return value

    def items(self, key: str) -> list[Any]:
        value = self.take(key)
        if not isinstance(value, list):
            raise self.refuse(key, value, "a list")
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        value = self.take(key)
        if not isinstance(value, dict):
            raise self.refuse(key, value, "an object")
        return value

    def optional(self, key: str, read: Any) -> Any:
        """Read a key with `read` unless it is absent or null."""
        if self._left.get(key) is None:
            self._left.pop(key, None)
            return None
        return read(self, key)


def _names(fields: _Fields, key: str) -> tuple[str, ...]:
    values = fields.items(key)
    wrong = next((value for value in values if value not in ARRAYS), None)
    if wrong is not None or None in values:
        raise fields.refuse(f"{key}[{values.index(wrong)}]", wrong, ", ".join(ARRAYS))
    if len(set(values)) < len(values):
        raise fields.refuse(key, values, "each array once")
    return tuple(values)


def _numbers(fields: _Fields, key: str) -> tuple[int, ...]:
    values = fields.items(key)
    if any(isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST for value in values):
        raise fields.refuse(key, values, "a list of integers of at least 0")
    if len(set(values)) < len(values):
        raise fields.refuse(key, values, "each layer once")
    return tuple(values)


def _versions(fields: _Fields, key: str) -> dict[str, str]:
    values = fields.mapping(key)
    if not all(isinstance(value, str) for value in values.values()):
        raise fields.refuse(key, values, "an object of texts")
    return values
