"""Dumps: traces on disk, as one folder of plain .npy files, two tables and a manifest."""

from __future__ import annotations

from moefps.io.dump.building import write_dump
from moefps.io.dump.fingerprinting import FingerprintSet
from moefps.io.dump.folders import read_manifest
from moefps.io.dump.header import DumpHeader
from moefps.io.dump.manifest import LayerInfo, Manifest
from moefps.io.dump.progress_files import resumable_header
from moefps.io.dump.reading import Dump, open_dump
from moefps.io.dump.sample_view import DumpSample
from moefps.io.dump.scoring import full_probabilities, has_full_probabilities
from moefps.io.dump.taking import take_dump, take_source
from moefps.io.dump.writing import DumpWriter

__all__ = [
    "Dump",
    "DumpHeader",
    "DumpSample",
    "DumpWriter",
    "FingerprintSet",
    "LayerInfo",
    "Manifest",
    "full_probabilities",
    "has_full_probabilities",
    "open_dump",
    "read_manifest",
    "resumable_header",
    "take_dump",
    "take_source",
    "write_dump",
]
