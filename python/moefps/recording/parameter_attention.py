"""What attention costs beside its weights: how far back a token looks, read from the modules of a model."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

__all__ = ["Mixer", "find_mixers"]

# What mixes tokens is called so in all families, and nothing else is.
MIXER = re.compile(r"(?:Attention|MLA|DeltaNet|Mamba\d?Mixer|MambaLayer|MambaMixer)$")
INDEXER = re.compile(r"Indexer$")
HEAD_BY_HEAD = re.compile(r"RelativeLogits$")
SLIDING_MASK = "create_sliding_window_causal_mask"
# A step of a recurrent state adds an outer product to it and reads it once: two operations each for every number of it.
PLAIN_STATE = 4
# The delta rule reads it once more, for what it already holds of the key.
DELTA_STATE = 6


@dataclass(frozen=True)
class Mixer:
    """Attention, or what stands in its place, in one layer.

    Attributes
    ----------
    path : str
        Its module path.
    kind : {"attention", "recurrent", "unknown"}
        Whether a token looks at the tokens before it, or at a state of fixed size; unknown where its attributes do not
        tell.
    n_heads, key_size, value_size : int
        Heads of queries, and the numbers in a key and in a value of one head; 0 where recurrent.
    window : int or None
        Most positions that a token looks at, by a sliding window or in chunks; None is all.
    selected : int or None
        Most positions, or compressed entries, that an indexer lets through; None where there is none.
    compression : int or None
        Positions in one compressed entry, which a token looks at beside its window.
    index_size : int
        Numbers that one key of an indexer is multiplied by: its queries, and a weight a head where there are such; 0
        without one.
    index_rate : int
        Positions in one key of the indexer.
    state_flops : int
        Operations of a token on a recurrent state, and others that do not grow with the context.
    """

    path: str
    kind: str
    n_heads: int = 0
    key_size: int = 0
    value_size: int = 0
    window: int | None = None
    selected: int | None = None
    compression: int | None = None
    index_size: int = 0
    index_rate: int = 1
    state_flops: int = 0

    def positions(self, context: int) -> int:
        """Count the positions that a token looks at, of `context` that are there, its own among them.

        Examples
        --------
        >>> Mixer("attn", "attention", 4, 8, 8, window=128).positions(4096)
        128
        """
        if self.kind != "attention":
            return 0
        near = context if self.window is None else min(context, self.window)
        if self.compression is not None:
            far = context // self.compression
            return near + (far if self.selected is None else min(far, self.selected))
        # Positions that fill no key of the indexer are always seen.
        return near if self.selected is None else min(near, self.selected + context % self.index_rate)

    def flops(self, context: int) -> int:
        """Count the operations of a token that looks back: QKᵀ and AV, its indexer, and its recurrent state.

        Examples
        --------
        >>> Mixer("attn", "attention", 4, 8, 8).flops(10) == 4 * 10 * 4 * 8
        True
        """
        look = 2 * self.positions(context) * self.n_heads * (self.key_size + self.value_size)
        choice = 2 * (context // self.index_rate) * self.index_size
        return look + choice + self.state_flops


def find_mixers(root: nn.Module, prefix: str = "") -> list[Mixer]:
    """Find all attention of a stack of layers, and what stands in its place.

    Parameters
    ----------
    root : nn.Module
        The model, or the stack.
    prefix : str
        Path of `root` in the model.

    Returns
    -------
    list of Mixer
        In the order of the modules. Those that hold another one are left out: only the inner one computes.

    Examples
    --------
    >>> find_mixers(nn.Linear(2, 2))
    []
    """
    found = {
        path: module
        for path, module in root.named_modules()
        if MIXER.search(type(module).__name__) and not getattr(module, "config_class", None)
    }
    inner = [path for path in found if not any(other.startswith(f"{path}.") for other in found)]
    code = getattr(inspect.unwrap(type(root).forward), "__code__", None)
    slides = code is not None and SLIDING_MASK in code.co_names
    return [_mixer(f"{prefix}.{path}" if prefix else path, found[path], slides=slides) for path in inner]


def _mixer(path: str, module: nn.Module, *, slides: bool) -> Mixer:
    """Read one module."""
    state = _state_flops(module)
    if state is not None:
        return Mixer(path, "recurrent", state_flops=state)
    sizes = _sizes(module)
    if sizes is None:
        return Mixer(path, "unknown")
    indexer = next((part for part in module.modules() if INDEXER.search(type(part).__name__)), None)
    compressor = getattr(module, "compressor", None)
    n_heads = sizes[0]
    return Mixer(
        path,
        "attention",
        *sizes,
        window=_window(module, slides=slides),
        selected=_selected(module, indexer),
        compression=None if compressor is None else _number(compressor, "compress_rate"),
        index_size=0 if indexer is None else _index_size(indexer),
        index_rate=1 if indexer is None else _number(indexer, "index_kpool", "compress_ratio", "compress_rate") or 1,
        state_flops=sum(
            2 * n_heads * parameter.numel()
            for part in module.modules()
            if HEAD_BY_HEAD.search(type(part).__name__)
            for parameter in part.parameters(recurse=False)
        ),
    )


def _state_flops(module: nn.Module) -> int | None:
    """Count the operations of a token on a recurrent state; None where there is no such state."""
    size = _number(module, "ssm_state_size")
    if size is not None:
        heads, width = _number(module, "num_heads"), _number(module, "head_dim")
        inner = heads * width if heads and width else _number(module, "intermediate_size")
        return None if inner is None else PLAIN_STATE * inner * size
    keys, values = _number(module, "head_k_dim"), _number(module, "head_v_dim")
    if keys and values:
        return DELTA_STATE * (_number(module, "num_v_heads") or 0) * keys * values
    heads, width = _number(module, "num_heads", "num_attention_heads"), _number(module, "head_dim")
    if getattr(module, "layer_type", None) == "linear_attention" or hasattr(module, "qkv_dim"):
        rule = DELTA_STATE if hasattr(module, "qkv_dim") else PLAIN_STATE
        return rule * heads * width * width if heads and width else None
    return None


def _sizes(module: nn.Module) -> tuple[int, int, int] | None:
    """Read heads of queries, and the sizes of a key and a value of one head."""
    config = getattr(module, "config", None)
    key = _number(module, "qk_head_dim", "head_dim", "key_value_proj_dim")
    if key is None:
        return None
    value = _number(module, "v_head_dim") or key
    heads = _number(module, "num_heads", "num_attention_heads", "n_heads")
    if heads is None:
        # Wider queries may hold a gate too, so that only the way out tells.
        outs = [getattr(module, name, None) for name in ("o_proj", "out_proj", "o")]
        wide = next((out.in_features for out in outs if isinstance(out, nn.Linear)), None)
        heads = wide // value if wide is not None else _number(config, "num_attention_heads")
    return None if heads is None else (heads, key, value)


def _window(module: nn.Module, *, slides: bool) -> int | None:
    """Read how many positions a token looks at: from the module, the layer's type, or for all layers.

    A configuration can have a window that nothing reads, so what is for all layers counts only where the model's own
    code makes such a mask.
    """
    config = getattr(module, "config", None)
    layer = _number(module, "layer_idx")
    types = _read(config, "layer_types")
    kind = types[layer] if isinstance(types, Sequence) and layer is not None and layer < len(types) else None
    if kind == "chunked_attention":
        return _number(config, "attention_chunk_size")
    if any(getattr(module, name, None) is False for name in ("is_sliding", "is_local_attention")):
        return None
    own = hasattr(module, "sliding_window")
    # Where layers differ, their types say which of them have the window.
    differ = isinstance(types, Sequence) and any("sliding" in str(one) for one in types)
    if not own and (kind != "sliding_attention" if differ else not slides):
        return None
    # Some configurations say 0 for none.
    window = _number(module if own else config, "sliding_window") or None
    # Where a token sees what comes after it too, the window reaches both ways.
    return 2 * window - 1 if window is not None and getattr(module, "is_causal", True) is False else window


def _selected(module: nn.Module, indexer: nn.Module | None) -> int | None:
    """Read how many positions are let through: by its indexer, by that of a layer before it, or by a learnt mask."""
    if indexer is None:
        if getattr(module, "skip_topk", False) is True:
            return _number(getattr(module, "config", None), "index_topk")
        return _number(module, "keep_window_size")
    blocks, length = _number(indexer, "topk_blocks"), _number(indexer, "block_size")
    if blocks is not None and length is not None:
        return blocks * length
    return _number(indexer, "index_topk", "token_budget")


def _index_size(indexer: nn.Module) -> int:
    heads = _number(indexer, "n_heads", "num_heads", "index_n_heads") or 0
    is_weighted = any(path.endswith("weights_proj") for path, _ in indexer.named_modules())
    return heads * ((_number(indexer, "head_dim", "index_head_dim") or 0) + is_weighted)


def _number(owner: Any, *names: str) -> int | None:
    """Read the first whole number of these attributes that is there."""
    for name in names:
        value = _read(owner, name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def _read(owner: Any, name: str) -> Any:
    """Read an attribute; configurations whose layers differ raise where a value is not the same for all."""
    try:
        return getattr(owner, name, None)
    except RuntimeError:
        return None
