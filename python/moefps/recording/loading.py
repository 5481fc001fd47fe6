"""Models and tokenizers from a folder or a hub name."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

from moefps.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["first_sentence", "load_model", "load_tokenizer"]

_DTYPES = {"auto": "auto", "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    name: str,
    *,
    dtype: str = "auto",
    device: str | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    tp_plan: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Any:
    """Load a model by transformers' own classes.

    Parameters
    ----------
    name : str
        A folder, or a name on the hub.
    dtype : {"auto", "float32", "bfloat16", "float16"}
        Type of the weights; ``auto`` as they are stored.
    device : str, optional
        ``cpu``, ``cuda``, ``cuda:1`` …; a GPU where there is one when not given.
    device_map : str or mapping, optional
        Spread over devices by accelerate; `device` is left out then.
    tp_plan : str, optional
        Tensor parallelism, under torchrun.
    revision : str, optional
        Branch, tag or commit on the hub.
    trust_remote_code : bool
        True runs the model's own code.

    Raises
    ------
    ArgumentError
        There is no such model, dtype or device, or the model's code is not trusted.
    """
    from transformers import AutoConfig

    if dtype not in _DTYPES:
        raise ArgumentError(f"dtype: got {dtype!r}; accepted: {', '.join(_DTYPES)}")
    if sum(choice is not None for choice in (device, device_map, tp_plan)) > 1:
        raise ArgumentError("device, device_map and tp_plan: only one of them says where the model goes")
    if device is None and device_map is None and tp_plan is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device is not None:
        _check_device(device)
    common = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(name, **common)
        placing = {"device_map": device_map} if device_map is not None else _parallel(tp_plan)
        model = _auto_class(config, trust_remote_code=trust_remote_code).from_pretrained(
            name, dtype=_DTYPES[dtype], **common, **placing
        )
        return model if device is None else model.to(device)
    except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
        raise ArgumentError(f"{name}: cannot be loaded: {_reason(error)}") from error


def load_tokenizer(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """Load the tokenizer that belongs to a model; arguments as `load_model`."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
        raise ArgumentError(f"{name}: its tokenizer cannot be loaded: {_reason(error)}") from error


def _parallel(tp_plan: str | None) -> dict[str, Any]:
    """Ask for tensor parallelism as this release of transformers wants it."""
    if tp_plan is None:
        return {}
    from transformers.distributed import DistributedConfig

    if "tp_plan" not in inspect.signature(DistributedConfig).parameters:
        return {"tp_plan": tp_plan}
    return {"distributed_config": DistributedConfig(tp_plan=tp_plan)}


def _check_device(device: str) -> None:
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise ArgumentError(f"device: got {device!r}; accepted: cpu, cuda, cuda:1, …") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise ArgumentError(f"device: got {device!r}, and torch sees no GPU; accepted: cpu")


def _auto_class(config: Any, *, trust_remote_code: bool) -> Any:
    """Choose the class that the weights were saved from, so that nothing of them is left out."""
    import transformers

    names = list(getattr(config, "architectures", None) or ())
    auto_map = getattr(config, "auto_map", None) or {}
    if trust_remote_code and auto_map:
        for auto in ("AutoModelForCausalLM", "AutoModelForSeq2SeqLM", "AutoModelForImageTextToText", "AutoModel"):
            if auto in auto_map:
                return getattr(transformers, auto)
    for name in names:
        found = getattr(transformers, name, None)
        if found is not None:
            return found
    return transformers.AutoModelForCausalLM


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "trust_remote_code" in text:
        return "it brings code of its own; pass trust_remote_code=True (--trust-remote-code) if you trust it"
    return first_sentence(error)


def first_sentence(error: Exception) -> str:
    """Say what another library's error says first: what follows is advice for programmers.

    Examples
    --------
    >>> first_sentence(OSError("no such model. Check your connection."))
    'no such model'
    """
    text = " ".join(str(error).split())
    return text.partition(". ")[0][:300].rstrip(".") or type(error).__name__
