"""From a model and texts to a dump: finding routers, reading them, writing down what they did."""

from __future__ import annotations

from moefps.errors import MissingExtraError

try:
    import torch
    import transformers
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f"capture needs {error.name}, which is not installed; run: pip install 'moefps[capture]'"
    ) from error

from moefps.recording.recorder import capture
from moefps.recording.specs import RouterSpec

__all__ = ["RouterSpec", "capture"]

del torch, transformers
