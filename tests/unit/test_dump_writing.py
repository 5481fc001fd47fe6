"""Writing dumps: what is kept, what is replaced, and what is refused."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from moefps.errors import ArgumentError, DataError, DtypeError, DumpError, FileError, ShapeError
from moefps.io.dump import DumpHeader, DumpWriter, open_dump
from support import largest_file, refused
from unit.dump_samples import ARRAYS, LENGTHS, array_bytes, make_header, sample_data, write_all


def test_what_is_written_comes_back(tmp_path):
    samples = pl.DataFrame({"id": ["a", "b", "c", "d"], "score": [1.0, None, 0.5, 2.0]})
    with DumpWriter(tmp_path / "dump", make_header(), capacities=LENGTHS, samples=samples) as writer:
        write_all(writer, order=[2, 0, 3, 1])
    dump = open_dump(tmp_path / "dump")
    assert dump.samples.columns == ["sample", "token_start", "n_tokens", "id", "score"]
    assert dump.samples["token_start"].to_list() == [0, 3, 3, 8]
    assert dump.samples.select("id", "score").equals(samples)
    assert dump.manifest.extra == {"batching": {"tokens": 64}}
    assert dump.manifest.hidden_layers == (1, 2)
    assert set(dump.manifest.tool_versions) == {"moefps"}
    dump.check_values()
    for sample in dump:
        wanted = sample_data(sample.index, LENGTHS[sample.index])
        for name in ("expert_ids", "expert_weights", "router_logits", "hidden_states"):
            np.testing.assert_array_equal(getattr(sample, name), wanted[name])
        np.testing.assert_array_equal(dump.fingerprints("probs")[sample.index], wanted["fingerprint"])
        assert sample.tokens["token_id"].to_list() == wanted["token_ids"].tolist()
        assert sample.tokens["position"].to_list() == list(range(sample.n_tokens))
        assert sample.tokens["loss"].to_list() == wanted["labels"]["loss"].tolist()
        names = [("prompt", "generated")[code] for code in wanted["labels"]["segment"]]
        assert sample.tokens["segment"].to_list() == names
    assert sorted(entry.name for entry in (tmp_path / "dump").iterdir()) == sorted(
        ["manifest.json", "samples.parquet", "tokens.parquet", *(f"{name}.npy" for name in ARRAYS)]
    )


def test_arrays_are_those_of_numpy_save(tmp_path):
    """With room to spare or without, the files are byte for byte what one `numpy.save` writes."""
    for name, spare in (("exact", 0), ("spare", 3)):
        with DumpWriter(tmp_path / name, make_header(), capacities=np.array(LENGTHS) + spare) as writer:
            write_all(writer)
    assert array_bytes(tmp_path / "exact") == array_bytes(tmp_path / "spare")
    whole = np.concatenate([sample_data(i, n)["expert_ids"] for i, n in enumerate(LENGTHS)])
    np.save(tmp_path / "whole.npy", whole)
    assert (tmp_path / "exact" / "expert_ids.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    a, b = open_dump(tmp_path / "exact"), open_dump(tmp_path / "spare")
    assert a.tokens.equals(b.tokens)
    assert a.samples.equals(b.samples)


def test_token_ids_and_positions(tmp_path):
    header = make_header(arrays={"expert_ids": np.dtype(np.int16)}, token_labels={})
    ids = np.zeros((2, 3, 2), dtype=np.int16)
    with DumpWriter(tmp_path / "dump", header, capacities=[2, 2]) as writer:
        writer.write(0, expert_ids=ids, token_ids=[7, -1], positions=[4, 5])
        writer.write(1, expert_ids=ids)
    tokens = open_dump(tmp_path / "dump").tokens
    assert tokens["token_id"].to_list() == [7, None, None, None]
    assert tokens["position"].to_list() == [4, 5, 0, 1]
    assert tokens["sample"].to_list() == [0, 0, 1, 1]


def test_router_vectors(tmp_path):
    header = make_header(arrays={"expert_ids": np.dtype(np.int16), "router_vectors": np.dtype(np.float32)})
    vectors = np.random.default_rng(0).random((3, 8, 5)).astype(np.float32)
    with pytest.raises(DumpError), DumpWriter(tmp_path / "dump", header, capacities=[]) as writer:
        refused(DumpError, writer.finish, "router_vectors are not written")
    with DumpWriter(tmp_path / "dump", header, capacities=[], resume=True) as writer:
        refused(ShapeError, lambda: writer.write_router_vectors(vectors[:2]), r"accepted: \[3, 8, any\]")
        writer.write_router_vectors(vectors)
    np.testing.assert_array_equal(open_dump(tmp_path / "dump").router_vectors, vectors)


def test_a_dump_without_samples_or_layers(tmp_path):
    header = DumpHeader(layers=(), arrays={"expert_ids": np.dtype(np.int16)})
    dump = DumpWriter(tmp_path / "dump", header, capacities=[0, 2])
    dump.write(0, expert_ids=np.empty((0, 0, 0), dtype=np.int16))
    dump.write(1, expert_ids=np.empty((2, 0, 0), dtype=np.int16))
    opened = dump.finish()
    assert (opened.n_layers, opened.n_experts, opened.top_k, opened.n_tokens) == (0, 0, 0, 2)
    assert opened.fingerprints("counts").shape == (2, 0, 0)
    assert opened.sample(1).expert_ids.shape == (2, 0, 0)


def test_overwrite_replaces_a_dump_and_nothing_else(tmp_path):
    header = make_header(arrays={"expert_ids": np.dtype(np.int16)}, token_labels={})

    def write(path, value, **options):
        with DumpWriter(path, header, capacities=[1], **options) as writer:
            writer.write(0, expert_ids=np.full((1, 3, 2), value, dtype=np.int16))

    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", 1)
    refused(FileError, lambda: write(tmp_path / "empty", 2), "exists already, pass --overwrite")
    write(tmp_path / "empty", 2, overwrite=True)
    assert open_dump(tmp_path / "empty").expert_ids.ravel()[0] == 2
    (tmp_path / "empty" / "notes.txt").write_text("mine")
    refused(FileError, lambda: write(tmp_path / "empty", 3, overwrite=True), "holds notes.txt, which is no part")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("mine")
    refused(FileError, lambda: write(tmp_path / "folder", 1, overwrite=True), "a dump never replaces")
    (tmp_path / "folder" / "manifest.json").write_text("{}")
    refused(FileError, lambda: write(tmp_path / "folder", 1, overwrite=True), "a dump never replaces")
    (tmp_path / "file").write_text("mine")
    refused(FileError, lambda: write(tmp_path / "file", 1, overwrite=True), "is not a folder")
    refused(FileError, lambda: write(tmp_path / "no" / "dump", 1), r"the folder .*no does not exist")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["empty", "file", "folder"]


def test_an_overwrite_that_fails_keeps_what_was_there(tmp_path):
    header = make_header(arrays={"expert_ids": np.dtype(np.int16)}, token_labels={})
    with DumpWriter(tmp_path / "dump", header, capacities=[1]) as writer:
        writer.write(0, expert_ids=np.ones((1, 3, 2), dtype=np.int16))
    with largest_file(100):
        refused(
            FileError,
            lambda: DumpWriter(tmp_path / "dump", header, capacities=[1000], overwrite=True),
            "cannot be written: .*larger than the limit",
        )
    assert open_dump(tmp_path / "dump").n_tokens == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_what_write_refuses(tmp_path):
    writer = DumpWriter(tmp_path / "dump", make_header(), capacities=LENGTHS)
    good = sample_data(2, 5)

    def write(sample=2, **changes):
        return lambda: writer.write(sample, **{**good, **changes})

    refused(ArgumentError, write(sample=4), "sample: 4; accepted: 0 to 3")
    refused(ShapeError, write(sample=0), "sample 0 has 5 tokens; accepted: at most its capacity, 3")
    refused(ArgumentError, write(expert_weights=None), "expert_weights: missing, but in the header")
    refused(DtypeError, write(expert_ids=good["expert_ids"].astype(np.int64)), "expert_ids: int64; accepted: int16")
    refused(
        DtypeError, write(expert_weights=good["expert_weights"].tolist()), "expert_weights: list; accepted: float16"
    )
    refused(ShapeError, write(expert_ids=good["expert_ids"][:, :, :1]), r"shape \(5, 3, 1\); accepted: \[5, 3, 2\]")
    refused(ShapeError, write(router_logits=good["router_logits"][:4]), r"accepted: \[5, 3, 8\] of \[T, L, E\]")
    refused(ShapeError, write(fingerprint=good["fingerprint"][:2]), r"fingerprints: shape \(2, 8\)")
    refused(ShapeError, write(token_ids=[1, 2]), r"token_id: shape \(2,\); accepted: \[5\]")
    refused(DtypeError, write(token_ids=[0.5] * 5), "token_id: dtype float64")
    refused(DataError, write(token_ids=[2**31] * 5), "token_id: values of 2147483648")
    refused(DataError, write(positions=[-2] * 5), "position: values of -2")
    labels = good["labels"]
    refused(ArgumentError, write(labels={"loss": labels["loss"]}), "labels: segment is missing")
    refused(ArgumentError, write(labels={**labels, "more": labels["loss"]}), "'more' is not in the header")
    refused(DataError, write(labels={**labels, "segment": [2] * 5}), "segment: values of 2 to 2; accepted: 0 to 1")
    refused(DtypeError, write(labels={**labels, "loss": [0.5] * 5}), "loss: dtype float64; accepted: float32")
    assert not writer.done.any()
    write()()
    refused(ArgumentError, write(), "sample: 2 is written already")
    writer.close()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"arrays": {"expert_weights": np.dtype(np.float16)}}, ArgumentError, "arrays does not list expert_ids"),
        ({"arrays": {"expert_ids": np.dtype(np.int32)}}, DtypeError, "expert_ids is .*; accepted: int16"),
        ({"arrays": {"ids": np.dtype(np.int16)}}, ArgumentError, "'ids' is no array of a dump"),
        ({"fingerprint_kind": None}, ArgumentError, "fingerprint_kind is null"),
        ({"hidden_size": None}, ArgumentError, "hidden_size: None"),
        ({"hidden_layers": None}, ArgumentError, "hidden_layers is null"),
        ({"plan": {"x": {1, 2}}}, ArgumentError, "header: .*set is not JSON serializable"),
        ({"model": {"x": float("nan")}}, ArgumentError, "header"),
        ({"extra": {"layers": 3}}, ArgumentError, "'layers' is one of the format's own"),
        ({"token_labels": {"position": np.dtype(np.int8)}}, ArgumentError, "'position' is a column of every dump"),
        ({"token_labels": {"a": ("x", "x")}}, ArgumentError, "a has 2 names"),
        ({"token_labels": {"a": np.dtype("U3")}}, DtypeError, "a is <U3"),
        ({"layers": make_header().layers[1:]}, ArgumentError, r"layers\[0\].index is 1, expected 0"),
    ],
)
def test_headers_that_are_refused(tmp_path, changes, error, words):
    refused(error, lambda: DumpWriter(tmp_path / "dump", make_header(**changes), capacities=LENGTHS), words)
    assert not list(tmp_path.iterdir())


def test_capacities_and_samples_that_are_refused(tmp_path):
    def start(**options):
        return lambda: DumpWriter(tmp_path / "dump", make_header(), **{"capacities": LENGTHS, **options})

    refused(ShapeError, start(capacities=[[1]]), "capacities: 2 dimensions")
    refused(DtypeError, start(capacities=[0.5]), "capacities: dtype float64")
    refused(DataError, start(capacities=[3, -1]), r"capacities: -1 at \[1\]")
    refused(ShapeError, start(samples={"id": [1, 2]}), "samples: 2 rows; accepted: one for each of 4")
    refused(ArgumentError, start(samples={"n_tokens": LENGTHS}), "the column 'n_tokens' is one that every dump makes")
    refused(DtypeError, start(samples=[1, 2]), "samples: list; accepted: a polars DataFrame")
    refused(DtypeError, start(samples={"a": [1, 2], "b": [1]}), "samples: is no table")
    refused(DtypeError, start(samples={"a": [object()] * 4}), "column 'a' holds Python objects")
    refused(ArgumentError, start(overwrite=True, resume=True), "overwrite: True together with resume=True")
    assert not list(tmp_path.iterdir())
