"""Two aligned traces compared: statistics over tasks, not tokens."""

from __future__ import annotations
