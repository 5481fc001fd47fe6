"""Opening dumps: views, and everything that is refused."""

from __future__ import annotations

import io
import os
import shutil

import numpy as np
import polars as pl
import pytest

from moefps.errors import ArgumentError, DataError, DtypeError, DumpError, FileError, MoefpsError
from moefps.io.dump import LayerInfo, open_dump, write_dump
from support import refused
from unit.dump_edits import OFFSETS, edit_array, edit_manifest, put, trace, write_small_dump

posix = pytest.mark.skipif(os.name == "nt", reason="links and pipes of POSIX")


@pytest.fixture
def path(tmp_path):
    return write_small_dump(tmp_path / "dump")


def test_what_a_dump_offers(path):
    dump = open_dump(path)
    assert repr(dump) == "Dump(4 samples, 12 tokens, 3 layers of 8 experts, top-2)"
    assert (len(dump), dump.n_samples, dump.n_tokens, dump.n_layers, dump.n_experts, dump.top_k) == (4, 4, 12, 3, 8, 2)
    assert dump.token_starts.tolist() == OFFSETS
    assert dump.token_starts.dtype == np.int64
    assert dump.tokens.columns == ["sample", "position", "token_id"]
    assert dump.hidden_states is None
    assert dump.router_vectors is None
    assert dump.arrays == ("expert_ids", "expert_weights", "router_logits", "fingerprints")
    for array in (dump.expert_ids, dump.expert_weights, dump.stored("router_logits")):
        assert not array.flags.writeable
        assert isinstance(array.base, np.memmap) or isinstance(array, np.memmap)
    given = trace()
    logits = dump.router_logits()
    assert list(logits) == [0, 1, 2]
    np.testing.assert_array_equal(logits[1], given["router_logits"][:, 1])
    sample = dump.sample(2)
    assert repr(sample) == "DumpSample(2, 5 tokens)"
    np.testing.assert_array_equal(sample.expert_ids, given["expert_ids"][4:9])
    np.testing.assert_array_equal(sample.expert_weights, given["expert_weights"][4:9])
    np.testing.assert_array_equal(sample.router_logits, given["router_logits"][4:9])
    assert sample.hidden_states is None
    assert sample.info == {"sample": 2, "token_start": 4, "n_tokens": 5, "task": "intent"}
    assert sample.tokens["token_id"].to_list() == [4, 5, 6, 7, 8]
    assert dump[-1].index == 3
    assert [sample.n_tokens for sample in dump] == [4, 0, 5, 3]
    refused(ArgumentError, lambda: dump.sample(4), "sample: 4; accepted: 0 to 3")
    refused(ArgumentError, lambda: dump.sample("2"), "sample: '2'; accepted: an integer")
    with pytest.raises(IndexError):
        dump[4]


def test_layers_that_share_a_number_are_known_by_path(tmp_path):
    layers = [
        LayerInfo(index=i, path=f"{stack}.block.1.mlp", layer=1, n_experts=n, top_k=1, stack=stack)
        for i, (stack, n) in enumerate([("encoder", 4), ("decoder", 2)])
    ]
    dump = write_dump(
        tmp_path / "dump",
        expert_ids=np.zeros((3, 2, 1), dtype=np.int8),
        router_logits=np.zeros((3, 2, 4), dtype=np.float16),
        offsets=[0, 3],
        layers=layers,
    )
    logits = dump.router_logits()
    assert {name: view.shape for name, view in logits.items()} == {
        "encoder.block.1.mlp": (3, 4),
        "decoder.block.1.mlp": (3, 2),
    }
    assert [layer.stack for layer in dump.layers] == ["encoder", "decoder"]


def test_what_a_dump_does_not_hold(tmp_path):
    dump = write_dump(tmp_path / "dump", expert_ids=trace()["expert_ids"], offsets=OFFSETS, n_experts=8)
    assert dump.tokens is None
    assert dump.expert_weights is None
    assert dump.sample(0).router_logits is None
    assert dump.sample(0).tokens is None
    refused(DumpError, dump.router_logits, "dump: holds no router_logits, only expert_ids")


def test_no_dump_at_all(tmp_path):
    refused(FileError, lambda: open_dump(tmp_path / "no"), "no such folder, expected a dump")
    (tmp_path / "file").write_text("")
    refused(FileError, lambda: open_dump(tmp_path / "file"), "is not a folder, expected a dump")
    refused(DumpError, lambda: open_dump(tmp_path), "is not a dump: the folder has no manifest.json")


def test_files_that_are_missing_or_cut(path):
    for name in ("expert_ids.npy", "router_logits.npy", "samples.parquet"):
        whole = (path / name).read_bytes()
        (path / name).unlink()
        refused(FileError, lambda name=name: open_dump(path), f"{name}: the file is missing from the dump")
        (path / name).write_bytes(whole[:-1])
        refused((FileError, DumpError), lambda name=name: open_dump(path), f"{name}: (truncated|is not a parquet file)")
        (path / name).write_bytes(b"")
        refused((FileError, DumpError), lambda name=name: open_dump(path), f"{name}: (the file is empty|is not a parq)")
        (path / name).write_bytes(whole)
    (path / "expert_ids.npy").write_bytes((path / "expert_ids.npy").read_bytes() + b"\0")
    refused(FileError, lambda: open_dump(path), "expert_ids.npy: corrupt")


@pytest.mark.parametrize(
    ("name", "edit", "words"),
    [
        ("expert_ids", lambda x: x[:-1], r"shape is \(11, 3, 2\); accepted: \[T, L, k\] = \[12, 3, 2\]"),
        ("expert_ids", lambda x: x[:, :2], r"shape is \(12, 2, 2\)"),
        ("expert_weights", lambda x: x[:, :, :1], r"shape is \(12, 3, 1\)"),
        ("router_logits", lambda x: x[:, :, :7], r"accepted: \[T, L, E\] = \[12, 3, 8\]"),
        ("fingerprints", lambda x: x[:3], r"accepted: \[N, L, E\] = \[4, 3, 8\]"),
        ("expert_ids", lambda x: x[:, :, 0], r"is 2-D with shape"),
        ("expert_ids", lambda x: x[:0], r"accepted: \[T, L, k\] with every size at least 1"),
        ("expert_ids", lambda x: x.astype(np.int32), "dtype is int32; accepted: int16"),
        ("expert_ids", lambda x: x.astype(">i2"), "byte order of another machine"),
        ("expert_weights", lambda x: x.astype(np.float64), "dtype is float64; accepted: float16, float32"),
        ("fingerprints", lambda x: x.astype(np.float16), "dtype is float16; accepted: float32"),
    ],
)
def test_arrays_that_do_not_fit_the_manifest(path, name, edit, words):
    edit_array(path, name, edit)
    refused(MoefpsError, lambda: open_dump(path), f"{name}.npy", words)


def test_pickled_arrays_are_never_loaded(path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was loaded",))

    array = np.empty((12, 3, 2), dtype=object)
    array[0, 0, 0] = Trap()
    np.save(path / "expert_weights.npy", array, allow_pickle=True)
    refused(DtypeError, lambda: open_dump(path), "holds pickled Python objects, which are never loaded")


@posix
def test_links_that_leave_the_folder(path):
    for name in ("manifest.json", "expert_ids.npy", "samples.parquet", "tokens.parquet", "router_logits.npy"):
        outside = path.parent / f"outside-{name}"
        shutil.move(path / name, outside)
        (path / name).symlink_to(outside)
        refused(DumpError, lambda name=name: open_dump(path), f"{name}: is a link to .*, out of the dump")
        (path / name).unlink()
        (path / name).symlink_to(f"../{outside.name}")
        refused(DumpError, lambda name=name: open_dump(path), f"{name}: is a link")
        (path / name).unlink()
        shutil.move(outside, path / name)
    # A link that stays inside, and a link to the whole dump, lead nowhere else.
    shutil.move(path / "expert_ids.npy", path / "ids.npy")
    (path / "expert_ids.npy").symlink_to("ids.npy")
    (path.parent / "link").symlink_to(path)
    assert open_dump(path.parent / "link").n_tokens == 12


@posix
def test_files_that_are_no_files(path):
    (path / "expert_weights.npy").unlink()
    os.mkfifo(path / "expert_weights.npy")
    refused(FileError, lambda: open_dump(path), "expert_weights.npy: is not a regular file")
    (path / "expert_weights.npy").unlink()
    (path / "expert_weights.npy").mkdir()
    refused(FileError, lambda: open_dump(path), "expert_weights.npy: is not a regular file")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"n_tokens": [4, 0, 5, 4]}, "row 3: token_start 9 and n_tokens 4 do not add up"),
        ({"n_tokens": [4, 1, 5, 3]}, "row 1: token_start 4 and n_tokens 1 do not add up: .*4, expected 5"),
        ({"n_tokens": [5, -1, 5, 3]}, "row 1: n_tokens is -1; accepted: 0 to 12"),
        ({"token_start": [0, 4, 4, 10]}, "row 2: token_start 4 and n_tokens 5 do not add up: .*10, expected 9"),
        ({"token_start": [1, 4, 4, 9]}, "row 0: token_start is 1; accepted: samples one after the other"),
        ({"token_start": [0, 4, 4, 2**62]}, "row 3: token_start is 4611686018427387904"),
        ({"token_start": [0, 4, None, 9]}, "row 2: token_start is null"),
        ({"token_start": [0.0, 4.0, 4.0, 9.0]}, "column 'token_start' is Float64; accepted: integers"),
        ({"sample": [0, 2, 1, 3]}, "row 1: sample is 2, expected 1"),
        ({"sample": ["0", "1", "2", "3"]}, "column 'sample' is String"),
    ],
)
def test_offsets_that_do_not_add_up(path, columns, words):
    frame = pl.read_parquet(path / "samples.parquet").with_columns(
        pl.Series(name, values, strict=False) for name, values in columns.items()
    )
    frame.write_parquet(path / "samples.parquet")
    refused(DumpError, lambda: open_dump(path), r"samples\.parquet", words)


def test_tables_that_do_not_fit(path):
    samples, tokens = pl.read_parquet(path / "samples.parquet"), pl.read_parquet(path / "tokens.parquet")
    samples[:3].write_parquet(path / "samples.parquet")
    refused(DumpError, lambda: open_dump(path), "has 3 rows, but the manifest says 4 samples")
    samples.drop("token_start").write_parquet(path / "samples.parquet")
    refused(DumpError, lambda: open_dump(path), "has no column 'token_start'")
    samples.write_parquet(path / "samples.parquet")
    tokens[:11].write_parquet(path / "tokens.parquet")
    refused(DumpError, lambda: open_dump(path), "tokens.parquet: has 11 rows, but the manifest says 12 tokens")
    tokens.with_columns(pl.Series("sample", [0] * 12)).write_parquet(path / "tokens.parquet")
    refused(DumpError, lambda: open_dump(path).tokens, "tokens.parquet: row 4: sample is 0, expected 2")


READS = {
    "sample": lambda dump: [(s.expert_ids, s.expert_weights, s.router_logits) for s in dump],
    "check": lambda dump: dump.check_values(),
    "fingerprints": lambda dump: dump.fingerprints("weights", drop_empty=True),
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize(
    ("name", "edit", "words"),
    [
        ("expert_ids", put((7, 1, 0), 8), r"row 7 \(sample 2\), layer 1, slot 0: found 8; accepted: -1 .*, 0 to 7"),
        ("expert_ids", put((11, 2, 1), -2), r"row 11 \(sample 3\), layer 2, slot 1: found -2"),
        ("expert_weights", put((4, 0, 1), np.nan), r"row 4 \(sample 2\), layer 0, slot 1: found nan; accepted: finite"),
        ("expert_weights", put((0, 0, 0), np.inf), r"row 0 \(sample 0\).*found inf"),
        ("expert_weights", put((0, 0, 0), -0.5), "found -0.5; accepted: weights of at least 0, unless .* signed"),
    ],
)
def test_values_are_checked_by_what_reads_them_first(path, read, name, edit, words):
    edit_array(path, name, edit)
    dump = open_dump(path)
    refused(DataError, lambda: READS[read](dump), f"{name}.npy: ", words)


def test_values_of_logits_and_fingerprints(path):
    whole = (path / "router_logits.npy").read_bytes()
    for value, is_refused in ((np.nan, True), (np.inf, True), (-np.inf, False)):
        edit_array(path, "router_logits", put((3, 1, 4), value))
        if is_refused:
            words = rf"router_logits.npy: row 3 \(sample 0\), layer 1, expert 4: found {value}"
            refused(DataError, lambda words=words: open_dump(path).check_values(), words)
        else:
            open_dump(path).check_values()
        (path / "router_logits.npy").write_bytes(whole)
    edit_array(path, "fingerprints", put((2, 1, 0), 3.0))
    refused(DataError, lambda: open_dump(path).fingerprints(drop_empty=True), "row 2, layer 1: the row sums to 3")
    edit_array(path, "fingerprints", put((2, 1, 0), np.nan))
    refused(DataError, lambda: open_dump(path).check_values(["fingerprints"]), "row 2, layer 1: found nan")


def test_signed_weights_and_empty_slots(path):
    edit_array(path, "expert_weights", put((0, 1, 0), -0.5))
    edit_manifest(path, lambda found: found["layers"][1].update(signed_weights=True))
    open_dump(path).check_values()
    edit_array(path, "expert_weights", put((0, 0, 0), -0.0))
    open_dump(path).check_values()
    # What stands beside an empty slot is padding.
    edit_array(path, "expert_weights", put((5, 2, 1), np.nan))
    edit_array(path, "expert_ids", put((5, 2, 1), -1))
    open_dump(path).check_values()
    edit_array(path, "expert_weights", put((5, 2, 0), np.nan))
    refused(DataError, open_dump(path).check_values, r"row 5 \(sample 2\), layer 2, slot 0: found nan")


def test_a_layer_with_fewer_experts_or_slots(path):
    edit_array(path, "expert_ids", lambda ids: np.minimum(ids, 3))
    edit_manifest(path, lambda found: found["layers"][1].update(n_experts=4))
    open_dump(path).check_values()
    edit_array(path, "expert_ids", put((2, 1, 1), 4))
    refused(DataError, open_dump(path).check_values, "row 2 .*layer 1, slot 1: found 4; accepted: -1 .*, 0 to 3")
    edit_manifest(path, lambda found: found["layers"][1].update(n_experts=8, top_k=1))
    refused(DataError, open_dump(path).check_values, r"layer 1, slot 1: found \d; accepted: -1, as layer 1 has 1 slots")


def test_values_are_checked_once(path):
    dump = open_dump(path)
    calls = []
    dump.check_values(progress=lambda done, total: calls.append((done, total)))
    assert (12, 12) in calls
    # The file changes below the open dump, which has looked at it already.
    with (path / "expert_ids.npy").open("r+b") as file:
        file.seek(-2, io.SEEK_END)
        file.write(b"\xff\x7f")
    dump.check_values()
    assert dump.expert_ids[-1, -1, -1] == 32767
    refused(DataError, open_dump(path).check_values, "found 32767")
    refused(DumpError, lambda: dump.check_values(["hidden_states"]), "holds no hidden_states")
