"""Damaged dumps: `open_dump` opens them or says what is wrong, and never does anything else."""

from __future__ import annotations

import json
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moefps import MoefpsError
from moefps.io.dump import open_dump, resumable_header, write_dump
from moefps.io.dump.manifest_json import parse_manifest, serialise_manifest

ARRAYS = ("expert_ids", "expert_weights", "router_logits", "fingerprints")


class Files(dict):
    """Files by name, too long to show."""

    def __repr__(self):
        return f"files({', '.join(self)})"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The files of a small dump, as bytes by name."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("fuzz") / "dump"
    write_dump(
        path,
        expert_ids=rng.integers(0, 4, (9, 2, 2)),
        expert_weights=rng.random((9, 2, 2)).astype(np.float32),
        router_logits=rng.normal(size=(9, 2, 4)).astype(np.float32),
        fingerprints=rng.dirichlet(np.ones(4), size=(3, 2)).astype(np.float32),
        fingerprint_kind="probs",
        offsets=[0, 4, 4, 9],
        n_experts=4,
        scoring="softmax",
        samples={"task": ["a", "b", None]},
        tokens={"token_id": np.arange(9)},
    )
    return Files((file.name, file.read_bytes()) for file in path.iterdir())


def open_and_use(files):
    """Open a dump of these files and read all of it; only our own errors may come out."""
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        tracemalloc.start()
        try:
            dump = open_dump(folder)
            for use in (
                dump.check_values,
                lambda: dump.fingerprints("counts", drop_empty=True),
                lambda: dump.fingerprints(drop_empty=True),
                lambda: dump.fingerprints("probs", window=2, drop_empty=True),
                dump.router_logits,
                lambda: dump.tokens,
                lambda: [(sample.info, sample.expert_ids) for sample in dump],
                lambda: repr(dump),
            ):
                ours(use)
        except MoefpsError as error:
            one_line(error)
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        # The whole dump has a few kilobytes.
        assert peak < 50e6
        ours(lambda: resumable_header(folder))


def ours(call):
    """What the call raises, if anything, is one of our errors."""
    try:
        call()
    except MoefpsError as error:
        one_line(error)


def one_line(error):
    assert "\n" not in str(error)
    assert len(str(error)) < 600


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 12),
    st.sampled_from([2**15, 2**31, 2**53, 2**63, 2**64, 10**39, -(2**63), 10**60]),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["writing", "complete", "softmax", "probs", "decoder", "../x", "expert_ids", "\ud800"]),
    st.lists(st.integers(-1, 4) | st.text(max_size=3) | st.none(), max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers() | st.none(), max_size=3),
)
KEYS = [
    ("version",),
    ("state",),
    ("n_samples",),
    ("n_tokens",),
    ("top_k",),
    ("layers",),
    ("arrays",),
    ("fingerprint_kind",),
    ("hidden_layers",),
    ("model",),
    ("created",),
    ("tool_versions",),
    ("extra",),
    *(
        ("layers", i, key)
        for i in (0, 1)
        for key in (
            "index",
            "path",
            "layer",
            "n_experts",
            "top_k",
            "passive_experts",
            "scoring",
            "routing_type",
            "signed_weights",
            "stack",
            "note",
        )
    ),
]


@settings(max_examples=150)
@given(changes=st.lists(st.tuples(st.sampled_from(KEYS), st.one_of(ODD, st.just(...))), min_size=1, max_size=3))
def test_manifest_values(files, changes):
    found = json.loads(files["manifest.json"])
    for key, value in changes:
        place = found
        try:
            for part in key[:-1]:
                place = place[part]
            if value is ...:
                place.pop(key[-1], None)
            else:
                place[key[-1]] = value
        except (TypeError, KeyError, IndexError, AttributeError):
            continue
    text = json.dumps(found).encode()
    try:
        manifest = parse_manifest(text)
    except MoefpsError as error:
        one_line(error)
    else:
        assert parse_manifest(serialise_manifest(manifest)) == manifest
    open_and_use({**files, "manifest.json": text})


@settings(max_examples=60)
@given(data=st.data())
def test_manifest_text(files, data):
    text = files["manifest.json"]
    first = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(first, min(len(text), first + 20)))
    middle = data.draw(
        st.binary(max_size=8)
        | st.sampled_from(
            [b"[" * 5000, b'{"a":' * 5000, b"9" * 5000, b"NaN", b"-Infinity", b"1e999", b'"n_samples": 3,']
        )
    )
    open_and_use({**files, "manifest.json": text[:first] + middle + text[stop:]})


HEADERS = st.sampled_from(
    [
        b"{'descr': '<i2', 'fortran_order': False, 'shape': (9, 2, 2), }",
        b"{'descr': '<i2', 'fortran_order': True, 'shape': (9, 2, 2), }",
        b"{'descr': '<i2', 'fortran_order': False, 'shape': (9, 2, 9223372036854775807), }",
        b"{'descr': '<i2', 'fortran_order': False, 'shape': (1000000000000, 2, 2), }",
        b"{'descr': '<i2', 'fortran_order': False, 'shape': (-9, 2, 2), }",
        b"{'descr': '<i2', 'fortran_order': False, 'shape': (9, 2, True), }",
        b"{'descr': '|O', 'fortran_order': False, 'shape': (9, 2, 2), }",
        b"{'descr': [('a', '<i2')], 'fortran_order': False, 'shape': (9, 2, 2), }",
        b"{'descr': '<V999999999', 'fortran_order': False, 'shape': (9, 2, 2), }",
        b"{'descr': '<i2', 'fortran_order': False, 'shape': (0, 2, 2), }",
        b"{'shape': (9, 2, 2)}",
        b"__import__('os').abort()",
        b"(" * 3000,
    ]
)


@settings(max_examples=60)
@given(name=st.sampled_from(ARRAYS), header=HEADERS, version=st.sampled_from([b"\1\0", b"\2\0", b"\3\0", b"\7\0"]))
def test_forged_headers(files, name, header, version):
    header += b" " * (-len(header) % 64) + b"\n"
    size = len(header).to_bytes(2 if version == b"\1\0" else 4, "little")
    whole = files[f"{name}.npy"]
    open_and_use({**files, f"{name}.npy": b"\x93NUMPY" + version + size + header + whole[128:]})


@settings(max_examples=100)
@given(data=st.data())
def test_bytes_of_arrays(files, data):
    name = f"{data.draw(st.sampled_from(ARRAYS))}.npy"
    whole = bytearray(files[name])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole) - 1) | st.integers(0, 127))
        whole[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.none() | st.integers(0, len(whole)))
    open_and_use({**files, name: bytes(whole[:cut])})


COLUMN = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 10) | st.none(), min_size=3, max_size=3),
    st.lists(st.floats() | st.none(), min_size=3, max_size=3),
    st.lists(st.text(max_size=3), min_size=3, max_size=3),
    st.just([[1], [2], []]),
    st.just([None, None, None]),
    st.just([2**64 - 1, 0, 1]),
    st.just([2**100, 0, 1]),
)


@settings(max_examples=80)
@given(
    columns=st.dictionaries(st.sampled_from(["sample", "token_start", "n_tokens", "task", ""]), COLUMN, max_size=3),
    dropped=st.sets(st.sampled_from(["sample", "token_start", "n_tokens"]), max_size=1),
    n_rows=st.sampled_from([3, 3, 3, 2, 0]),
)
def test_sample_columns(files, columns, dropped, n_rows):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "samples.parquet"
        path.write_bytes(files["samples.parquet"])
        series = []
        for name, values in columns.items():
            kind = {2**64 - 1: pl.UInt64, 2**100: pl.Int128}.get(values[0]) if isinstance(values[0], int) else None
            series.append(pl.Series(name, values, dtype=kind, strict=False))
        frame = pl.read_parquet(path).with_columns(series).drop(dropped)[:n_rows]
        frame.write_parquet(path)
        open_and_use({**files, "samples.parquet": path.read_bytes()})


@settings(max_examples=40)
@given(name=st.sampled_from(["samples.parquet", "tokens.parquet"]), data=st.data())
def test_tables_that_are_cut(files, name, data):
    # Not other bytes: polars ends the process over sizes that a forged file only claims.
    whole = files[name]
    open_and_use({**files, name: whole[: data.draw(st.integers(0, len(whole) - 1))]})


@settings(max_examples=40)
@given(columns=st.dictionaries(st.sampled_from(["sample", "position", "token_id"]), st.integers(-5, 5), max_size=2))
def test_token_columns(files, columns):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokens.parquet"
        path.write_bytes(files["tokens.parquet"])
        pl.read_parquet(path).with_columns(pl.lit(value).alias(name) for name, value in columns.items()).write_parquet(
            path
        )
        open_and_use({**files, "tokens.parquet": path.read_bytes()})
