"""Files in and out: fingerprints and distances, dumps, other tools' traces, texts, tables, labels, planted data."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from moefps.io.atomic import atomic_file, check_destination
from moefps.io.bundled import Bundled, bundled_fingerprints
from moefps.io.dump import Dump, open_dump, take_dump, take_source, write_dump
from moefps.io.dump_inspection import inspect_dump
from moefps.io.fingerprints import Fingerprints, is_dump, load_fingerprints
from moefps.io.inspection import Finding, Inspection, inspect_fingerprints
from moefps.io.labels import labels_of_column, read_labels
from moefps.io.npy import open_npy, read_numbers
from moefps.io.planted import Planted, planted_fingerprints
from moefps.io.tables import table_bytes, table_format, write_table

if TYPE_CHECKING:
    from moefps.io.texts import Texts, read_texts
    from moefps.io.traces import convert_trace

__all__ = [
    "Bundled",
    "Dump",
    "Finding",
    "Fingerprints",
    "Inspection",
    "Planted",
    "Texts",
    "atomic_file",
    "bundled_fingerprints",
    "check_destination",
    "convert_trace",
    "inspect_dump",
    "inspect_fingerprints",
    "is_dump",
    "labels_of_column",
    "load_fingerprints",
    "open_dump",
    "open_npy",
    "planted_fingerprints",
    "read_labels",
    "read_numbers",
    "read_texts",
    "table_bytes",
    "table_format",
    "take_dump",
    "take_source",
    "write_dump",
    "write_table",
]

# These need polars from their first line on, which takes longer to import than most commands take to run.
_HOME = {"Texts": "moefps.io.texts", "convert_trace": "moefps.io.traces", "read_texts": "moefps.io.texts"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
