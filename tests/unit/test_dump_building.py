"""Dumps from arrays that people have."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from moefps.errors import ArgumentError, DataError, DtypeError, FileError, MoefpsError, ShapeError
from moefps.io.dump import LayerInfo, open_dump, write_dump
from support import refused

IDS = np.array([[[0, 1], [3, 2]], [[2, 1], [0, -1]], [[1, 3], [2, 0]]])
WEIGHTS = np.array([[[0.5, 0.25], [1.0, 0.5]], [[0.5, 0.5], [1.0, 0.0]], [[0.75, 0.25], [0.5, 0.5]]], dtype=np.float32)


def write(tmp_path, **changes):
    given = {"expert_ids": IDS, "expert_weights": WEIGHTS, "offsets": [0, 2, 3], "n_experts": 4}
    return write_dump(tmp_path / "dump", **{**given, **changes})


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", ">i4"])
def test_integers_of_every_size(tmp_path, dtype):
    dump = write(tmp_path, expert_ids=IDS.astype(dtype))
    assert dump.expert_ids.dtype == np.int16
    np.testing.assert_array_equal(dump.expert_ids, IDS)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8"])
def test_unsigned_integers(tmp_path, dtype):
    ids = np.maximum(IDS, 0)
    np.testing.assert_array_equal(write(tmp_path, expert_ids=ids.astype(dtype)).expert_ids, ids)
    wide = ids.astype(dtype)
    wide[1, 1, 1] = 255
    refused(DataError, lambda: write(tmp_path, expert_ids=wide, overwrite=True), r"row 1 .*slot 1: found 255")


def test_ids_that_would_wrap_around(tmp_path):
    for value in (2**16, 2**40, -(2**16), 4, -2):
        ids = IDS.copy()
        ids[2, 0, 1] = value
        refused(
            DataError,
            lambda ids=ids: write(tmp_path, expert_ids=ids),
            rf"expert_ids: row 2 \(sample 1\), layer 0, slot 1: found {value}; accepted: -1 .* 0 to 3",
        )
    assert not list(tmp_path.iterdir())


def test_weights_keep_their_dtype_or_are_asked_to_change(tmp_path):
    for dtype in (np.float16, np.float32):
        dump = write(tmp_path, expert_weights=WEIGHTS.astype(dtype), overwrite=True)
        assert dump.expert_weights.dtype == dtype
        np.testing.assert_array_equal(dump.expert_weights, WEIGHTS)
    double = WEIGHTS.astype(np.float64)
    refused(DtypeError, lambda: write(tmp_path, expert_weights=double, overwrite=True), "float64; .*dtype='float32'")
    dump = write(tmp_path, expert_weights=double, dtype="float16", overwrite=True)
    assert dump.expert_weights.dtype == np.float16
    double[0, 0, 0] = 1e6
    refused(
        DataError,
        lambda: write(tmp_path, expert_weights=double, dtype="float16", overwrite=True),
        r"expert_weights: row 0 .*found 1000000.0; accepted: finite",
    )
    refused(DtypeError, lambda: write(tmp_path, dtype="float64", overwrite=True), "dtype: float64; accepted: float16")
    refused(DtypeError, lambda: write(tmp_path, expert_weights=IDS, overwrite=True), "expert_weights: dtype int64")
    # What was there before is still there.
    assert open_dump(tmp_path / "dump").expert_weights.dtype == np.float16


def test_everything_that_a_dump_can_hold(tmp_path):
    rng = np.random.default_rng(0)
    given = {
        "router_logits": rng.normal(size=(3, 2, 4)).astype(np.float16),
        "hidden_states": rng.normal(size=(3, 1, 5)).astype(np.float16),
        "router_vectors": rng.normal(size=(2, 4, 5)).astype(np.float32),
        "fingerprints": rng.dirichlet(np.ones(4), size=(2, 2)).astype(np.float32),
    }
    layers = [
        LayerInfo(index=i, path=f"l{i}", layer=3 + i, n_experts=4, top_k=2, passive_experts=1, extra={"note": i})
        for i in range(2)
    ]
    dump = write(
        tmp_path,
        **given,
        n_experts=[4, 4],
        layers=layers,
        scoring="softmax",
        hidden_layers=[3],
        fingerprint_kind="probs",
        model={"id": "tiny"},
        extra={"converted_from": "npz"},
        samples=pl.DataFrame({"task": ["law", "intent"], "n_tokens": [2, 1]}),
        tokens={"position": [5, 6, 7], "token_id": [1, 2, 3], "sample": [0, 0, 1]},
    )
    for name, array in given.items():
        np.testing.assert_array_equal(dump.stored(name), array)
    assert [layer.scoring for layer in dump.layers] == ["softmax", "softmax"]
    assert [layer.extra for layer in dump.layers] == [{"note": 0}, {"note": 1}]
    assert dump.manifest.model == {"id": "tiny"}
    assert dump.manifest.extra == {"converted_from": "npz"}
    assert dump.samples.columns == ["sample", "token_start", "n_tokens", "task"]
    assert dump.tokens.columns == ["sample", "position", "token_id"]
    assert dump.tokens["position"].to_list() == [5, 6, 7]
    dump.check_values()


def test_memory_maps_and_strided_arrays(tmp_path):
    np.save(tmp_path / "ids.npy", np.asfortranarray(IDS))
    mapped = np.load(tmp_path / "ids.npy", mmap_mode="r")
    dump = write(tmp_path, expert_ids=mapped, expert_weights=np.repeat(WEIGHTS, 2, axis=2)[:, :, ::2])
    np.testing.assert_array_equal(dump.expert_ids, IDS)
    np.testing.assert_array_equal(dump.expert_weights, WEIGHTS)
    assert (tmp_path / "dump" / "expert_ids.npy").stat().st_size == 128 + IDS.size * 2


def test_pieces_make_the_same_file(tmp_path, monkeypatch):
    write(tmp_path)
    whole = (tmp_path / "dump" / "expert_weights.npy").read_bytes()
    monkeypatch.setattr("moefps.io.dump.building._CHUNK_ENTRIES", 1)
    calls = []
    write(tmp_path, overwrite=True, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)] * 2
    assert (tmp_path / "dump" / "expert_weights.npy").read_bytes() == whole


def test_samples_without_tokens(tmp_path):
    dump = write(tmp_path, offsets=[0, 0, 3, 3])
    assert dump.samples["n_tokens"].to_list() == [0, 3, 0]
    empty = write(tmp_path, expert_ids=IDS[:0], expert_weights=WEIGHTS[:0], offsets=[0], overwrite=True)
    assert (empty.n_samples, empty.n_tokens) == (0, 0)
    assert open_dump(tmp_path / "dump").fingerprints().shape == (0, 2, 4)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"offsets": [0, 2]}, DataError, "offsets: from 0 to 2; accepted: from 0 to 3"),
        ({"offsets": [1, 3]}, DataError, "offsets: from 1 to 3"),
        ({"offsets": [0, 2, 1, 3]}, DataError, r"offsets: 1 after 2 at \[2\]"),
        ({"offsets": []}, ShapeError, r"offsets: shape \(0,\)"),
        ({"offsets": [0.0, 3.0]}, DtypeError, "offsets: dtype float64"),
        ({"expert_ids": IDS[:, 0]}, ShapeError, r"expert_ids: 2 dimensions \(3, 2\)"),
        ({"expert_ids": IDS.astype(float)}, DtypeError, "expert_ids: dtype float64; accepted: integers"),
        ({"expert_ids": [[[0], [1, 2]]]}, ShapeError, "expert_ids: rows of different lengths"),
        ({"expert_ids": np.ma.masked_equal(IDS, -1)}, DtypeError, "expert_ids: a masked array"),
        ({"expert_weights": WEIGHTS[:2]}, ShapeError, r"expert_weights: shape \(2, 2, 2\); accepted: .* \[3, 2, 2\]"),
        ({"expert_weights": -WEIGHTS}, DataError, "row 0 .*found -0.5; accepted: weights of at least 0"),
        ({"expert_weights": WEIGHTS * np.nan}, DataError, "expert_weights: row 0 .*found nan"),
        ({"router_logits": np.zeros((3, 2, 5), dtype="f4")}, ShapeError, r"router_logits: .*\[3, 2, 4\]"),
        ({"n_experts": None}, ArgumentError, "n_experts: missing"),
        ({"n_experts": [4]}, ShapeError, r"n_experts: shape \(1,\)"),
        ({"n_experts": 40_000}, ArgumentError, "n_experts: 40000; accepted: 1 to 32,767"),
        ({"n_experts": 0}, ArgumentError, "n_experts: 0"),
        ({"n_experts": "4"}, DtypeError, "n_experts: '4'"),
        ({"n_experts": [4, 3]}, DataError, r"row 0 \(sample 0\), layer 1, slot 0: found 3; accepted: .*0 to 2"),
        ({"scoring": "tanh"}, ArgumentError, 'scoring is "tanh"'),
        ({"layers": []}, ShapeError, "layers: 0; accepted: one for each of the 2 layers"),
        ({"fingerprint_kind": "probs"}, ArgumentError, "fingerprint_kind: given without fingerprints"),
        ({"hidden_layers": [1]}, ArgumentError, "hidden_layers: given without hidden_states"),
        ({"samples": {"n_tokens": [1, 2]}}, DataError, "the column 'n_tokens' does not agree .* at row 0"),
        ({"samples": {"sample": ["a", "b"]}}, DataError, "the column 'sample' does not agree"),
        ({"samples": {"task": ["a"]}}, ShapeError, "samples: 1 rows; accepted: one for each of 2"),
        ({"tokens": {"sample": [0, 1, 1]}}, DataError, "tokens: the column 'sample' does not agree .* at row 1"),
        ({"tokens": {"token_id": [1]}}, ShapeError, "tokens: 1 rows"),
        ({"extra": {"state": "x"}}, ArgumentError, "'state' is one of the format's own"),
    ],
)
def test_what_is_refused_leaves_nothing(tmp_path, changes, error, words):
    refused(error, lambda: write(tmp_path, **changes), words)
    assert not list(tmp_path.iterdir())


def test_signed_weights_have_to_be_announced(tmp_path):
    dump = write(tmp_path, expert_weights=-WEIGHTS, signed_weights=True)
    assert all(layer.signed_weights for layer in dump.layers)


def test_layers_that_disagree_with_the_arrays(tmp_path):
    layers = [LayerInfo(index=i, path=f"l{i}", layer=i, n_experts=4, top_k=1) for i in range(2)]
    refused(ShapeError, lambda: write(tmp_path, layers=layers), "no layer has top_k 2")
    layers = [LayerInfo(index=i, path=f"l{i}", layer=i, n_experts=8, top_k=2) for i in range(2)]
    refused(ArgumentError, lambda: write(tmp_path, layers=layers), "n_experts: not what the layers say")
    assert write(tmp_path, layers=layers, n_experts=None).n_experts == 8


def test_an_interrupted_overwrite_keeps_what_was_there(tmp_path, monkeypatch):
    write(tmp_path)
    before = (tmp_path / "dump" / "manifest.json").read_bytes()

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, progress=interrupt, overwrite=True)
    refused(FileError, lambda: write(tmp_path), "exists already, pass --overwrite")
    assert (tmp_path / "dump" / "manifest.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_every_error_is_ours(tmp_path):
    for changes in ({"expert_ids": object()}, {"offsets": "abc"}, {"samples": 3}, {"expert_weights": "x"}):
        refused(MoefpsError, lambda changes=changes: write(tmp_path, **changes))
