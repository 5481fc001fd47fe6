"""Paths that are none: one line that names the argument, wherever they are handed in."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("polars")

import moefps
from moefps import io
from moefps.io.pair_tokens import read_pair_tokens
from support import refused

IDS = np.zeros((1, 1, 1), np.int16)
TRACE = {"expert_ids": IDS, "offsets": [0, 1], "n_experts": 2}

CALLS = {
    "path": [
        moefps.open_dump,
        lambda path: moefps.write_dump(path, **TRACE),
        io.open_npy,
        io.check_destination,
        lambda path: io.read_labels(path, 2),
        io.read_texts,
        io.table_format,
    ],
    "paths": [io.load_fingerprints, lambda path: io.load_fingerprints([path])],
    "pairs": [read_pair_tokens],
    "src": [lambda path: io.convert_trace(path, "out.dump")],
    "dump_or_X": [moefps.routing_metrics],
    "source": [moefps.expert_focus],
    "a": [lambda path: moefps.routing_consistency(path, "b.dump"), lambda path: moefps.compare(path, "b.dump")],
}


@pytest.mark.parametrize("path", [None, 3, b"a.dump", ""])
@pytest.mark.parametrize("argument", CALLS)
def test_what_is_no_path_is_named(here, argument, path):
    for call in CALLS[argument]:
        if argument == "paths" and isinstance(path, bytes) and call is io.load_fingerprints:
            continue  # a sequence of numbers
        what = "is empty" if path == "" else f"got a {type(path).__name__}"
        refused(moefps.ArgumentError, lambda call=call: call(path), rf"^{argument}: {what}; accepted: ")


@pytest.mark.parametrize("output", [3, b"a.dump", ""])
def test_what_is_no_output_is_named(here, output):
    np.save("ids.npy", IDS)
    dump = moefps.write_dump("a.dump", **TRACE)
    found = moefps.compare(dump, dump, n_resamples=0)
    before = sorted(here.iterdir())
    refused(moefps.ArgumentError, lambda: moefps.compare(dump, dump, output=output), "^output: ")
    refused(moefps.ArgumentError, lambda: io.convert_trace("ids.npy", output, n_experts=2), "^output: ")
    refused(moefps.ArgumentError, lambda: found.write(output), "^path: ")
    assert sorted(here.iterdir()) == before


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path
