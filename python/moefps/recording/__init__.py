"""From a model and texts to a dump: finding routers, reading them, writing down what they did."""

from __future__ import annotations

from moefps.recording.recorder import capture, check_extra
from moefps.recording.specs import RouterSpec

__all__ = ["RouterSpec", "capture", "check_extra"]
