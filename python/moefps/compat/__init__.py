"""The calls of tools that people come from, and their numbers; one file a tool, thin over the rest of moefps."""

from __future__ import annotations
