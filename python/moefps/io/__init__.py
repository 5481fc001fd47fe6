"""Files in and out: .npy fingerprints and distances, tables, labels, and data planted for the demo and tests."""

from __future__ import annotations

from moefps.io.atomic import atomic_file, check_destination
from moefps.io.fingerprints import Fingerprints, load_fingerprints
from moefps.io.inspection import Finding, Inspection, inspect_fingerprints
from moefps.io.labels import read_labels
from moefps.io.npy import open_npy, read_numbers
from moefps.io.planted import Planted, planted_fingerprints
from moefps.io.tables import table_bytes, table_format, write_table

__all__ = [
    "Finding",
    "Fingerprints",
    "Inspection",
    "Planted",
    "atomic_file",
    "check_destination",
    "inspect_fingerprints",
    "load_fingerprints",
    "open_npy",
    "planted_fingerprints",
    "read_labels",
    "read_numbers",
    "table_bytes",
    "table_format",
    "write_table",
]
