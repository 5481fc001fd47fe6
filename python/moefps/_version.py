"""The version, from the installed package's metadata, where maturin puts Cargo's."""

from __future__ import annotations

from importlib.metadata import version

__version__ = version("moefps")
