"""Models without weights: built from a configuration on torch's meta device, where even the largest takes no memory."""

from __future__ import annotations

import copy
import importlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn

from moefps.errors import ArgumentError, FileError
from moefps.io.files import read_bytes
from moefps.recording.loading import first_sentence

__all__ = ["Shell", "open_shell"]

# The classes of transformers that know all of a model, before those that leave out its eyes and ears.
_AUTO_CLASSES = (
    "AutoModelForMultimodalLM",
    "AutoModelForImageTextToText",
    "AutoModelForSeq2SeqLM",
    "AutoModelForCausalLM",
    "AutoModelForTokenClassification",
    "AutoModelForSequenceClassification",
    "AutoModel",
)
# What says how a model is stored or run, not what it is made of.
_NOT_STRUCTURE = ("quantization_config", "attn_implementation", "_attn_implementation", "experts_implementation")
# What transformers raises on a configuration that describes no model.
_BROKEN = (
    OSError,
    ValueError,
    TypeError,
    ImportError,
    KeyError,
    AttributeError,
    RuntimeError,
    ArithmeticError,
    StrictDataclassError,
)


class Shell(NamedTuple):
    """A model whose structure is looked at, and where it came from.

    Attributes
    ----------
    model : nn.Module
        The model; its parameters have shapes, and values only if it was given.
    source : str
        What was given, in words.
    model_type : str
        Its family in transformers, or its class.
    """

    model: nn.Module
    source: str
    model_type: str


def open_shell(given: Any) -> Shell:
    """Find or build the model that is meant, without its weights and without a look at the network.

    Parameters
    ----------
    given : PreTrainedModel, PreTrainedConfig, path or str
        A model; a configuration; a folder with a config.json, or such a file; or the name of a family in transformers,
        whose default configuration is taken. A model whose weights are packed by quantisation is built again from its
        configuration, as packed weights do not tell how many there are.

    Returns
    -------
    Shell

    Raises
    ------
    ArgumentError
        `given` is nothing of these, or transformers cannot build it.
    FileError
        The file is missing or is no JSON.
    """
    from transformers import PretrainedConfig

    if isinstance(given, str | os.PathLike):
        config, source = _read_config(given)
        return Shell(_build(config, source), source, str(config.model_type))
    if isinstance(given, PretrainedConfig):
        name = type(given).__name__
        return Shell(_build(given, name), name, str(given.model_type))
    if not isinstance(given, nn.Module):
        raise ArgumentError(
            f"model: {type(given).__name__}; accepted: a model or configuration of transformers, a folder with "
            "config.json, or the name of a family, such as 'mixtral'"
        )
    model = getattr(given, "_orig_mod", given)
    config = getattr(model, "config", None)
    name = type(model).__name__
    if isinstance(config, PretrainedConfig) and _is_quantised(model, config):
        model = _build(config, name, type(model))
    return Shell(model, name, str(getattr(config, "model_type", "") or name))


def _is_quantised(model: nn.Module, config: Any) -> bool:
    return getattr(model, "hf_quantizer", None) is not None or getattr(config, "quantization_config", None) is not None


def _read_config(given: str | os.PathLike[str]) -> tuple[Any, str]:
    """Read a configuration from a folder or file, or take a family's default."""
    from transformers import CONFIG_MAPPING

    name = os.fspath(given)
    path = Path(name)
    if path.is_dir():
        path = path / "config.json"
        if not path.is_file():
            raise FileError(f"{name}: has no config.json; accepted: a folder that has one")
    elif not path.exists():
        if name not in CONFIG_MAPPING:
            raise ArgumentError(
                f"{name}: neither a folder, a file nor a family of transformers; accepted: a folder with config.json, "
                "or a family such as mixtral (nothing is downloaded)"
            )
        try:
            return CONFIG_MAPPING[name](), f"{name} (default configuration of transformers)"
        except _BROKEN as error:
            raise ArgumentError(
                f"{name}: transformers has no default configuration: {first_sentence(error)}"
            ) from error
    fields = _read_json(path)
    family = fields.pop("model_type", None)
    if family not in CONFIG_MAPPING:
        found = "no model_type" if family is None else f"model_type {family!r}"
        raise ArgumentError(f"{path}: {found}, which this transformers does not know; code of a model's own is not run")
    for key in _NOT_STRUCTURE:
        fields.pop(key, None)
    try:
        return CONFIG_MAPPING[family].from_dict(fields), name
    except _BROKEN as error:
        raise ArgumentError(f"{path}: no configuration of {family}: {first_sentence(error)}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_bytes(path))
    except ValueError as error:
        raise FileError(f"{path}: is no JSON; accepted: the config.json of a model") from error
    if not isinstance(found, dict):
        raise FileError(f"{path}: holds a {type(found).__name__}; accepted: the config.json of a model")
    return found


def _build(config: Any, source: str, model_class: Any = None) -> nn.Module:
    """Build a model on the meta device.

    Raises
    ------
    ArgumentError
        transformers has no model for the configuration, or the configuration does not describe one.
    """
    config = copy.deepcopy(config)
    if getattr(config, "quantization_config", None) is not None:
        del config.quantization_config
    try:
        chosen = model_class or _model_class(config)
        with torch.device("meta"):
            built: nn.Module = chosen._from_config(config, dtype=torch.bfloat16)  # noqa: SLF001 (what all auto classes call)
    except _BROKEN as error:
        raise ArgumentError(f"{source}: transformers cannot build it: {first_sentence(error)}") from error
    return built


def _model_class(config: Any) -> Any:
    """Choose the class that the weights were saved from, else the one that has most of the model."""
    import transformers

    for name in getattr(config, "architectures", None) or ():
        found = getattr(transformers, name, None)
        if found is not None:
            return found
    for name in _AUTO_CLASSES:
        mapping = getattr(getattr(transformers, name, None), "_model_mapping", None)
        if mapping is not None and type(config) in mapping:
            found = mapping[type(config)]
            return found[0] if isinstance(found, tuple | list) else found
    # A part of a model has no auto class of its own.
    path = type(config).__module__.replace(".configuration_", ".modeling_")
    if path.startswith("transformers.models."):
        for found in vars(importlib.import_module(path)).values():
            is_its = isinstance(found, type) and vars(found).get("config_class", None) is type(config)
            if is_its or _takes(found, type(config)):
                return found
    raise ValueError(f"it has no model for a {type(config).__name__}")


def _takes(found: Any, config_class: type) -> bool:
    """Tell whether a class is a model that its annotations say takes this configuration."""
    is_model = isinstance(found, type) and issubclass(found, nn.Module) and hasattr(found, "_from_config")
    if not is_model or found.__name__.endswith("PreTrainedModel"):
        return False
    return getattr(found, "config_class", None) is config_class
