"""The families of metrics: a module each, with one definition for every name."""

from __future__ import annotations
