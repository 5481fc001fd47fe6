"""Writing dumps: what is kept, what is refused, and what a killed run leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from moefps.errors import ArgumentError, DataError, DtypeError, DumpError, FileError, ShapeError
from moefps.io.dump import DumpHeader, DumpWriter, LayerInfo, open_dump, read_manifest, resumable_header
from moefps.io.dump.progress_files import count_done
from support import refused

ARRAYS = ("expert_ids", "expert_weights", "router_logits", "fingerprints", "hidden_states")
LENGTHS = [3, 0, 5, 2]
HERE = Path(__file__).resolve().parent


def make_header(**changes):
    layers = tuple(
        LayerInfo(index=i, path=f"model.layers.{i + 1}.mlp.gate", layer=i + 1, n_experts=8, top_k=2, scoring="softmax")
        for i in range(3)
    )
    fields = {
        "layers": layers,
        "arrays": {
            "expert_ids": np.dtype(np.int16),
            "expert_weights": np.dtype(np.float16),
            "router_logits": np.dtype(np.float32),
            "hidden_states": np.dtype(np.float32),
            "fingerprints": np.dtype(np.float32),
        },
        "fingerprint_kind": "probs",
        "hidden_layers": (1, 2),
        "hidden_size": 4,
        "model": {"id": "tiny"},
        "plan": {"batches": [[0, 2], [1, 3]], "dtype": "float32"},
        "token_labels": {"segment": ("prompt", "generated"), "loss": np.dtype(np.float32)},
        "extra": {"batching": {"tokens": 64}},
    }
    return DumpHeader(**{**fields, **changes})


def sample_data(sample, n_tokens):
    rng = np.random.default_rng(sample)
    logits = rng.normal(size=(n_tokens, 3, 8)).astype(np.float32)
    shares = rng.dirichlet(np.ones(8), size=3).astype(np.float32)
    return {
        "expert_ids": np.argsort(-logits, axis=2)[:, :, :2].astype(np.int16),
        "expert_weights": rng.random((n_tokens, 3, 2)).astype(np.float16),
        "router_logits": logits,
        "hidden_states": rng.normal(size=(n_tokens, 2, 4)).astype(np.float32),
        "fingerprint": shares,
        "token_ids": rng.integers(0, 1000, n_tokens),
        "labels": {
            "segment": (np.arange(n_tokens) > 1).astype(np.int64),
            "loss": rng.random(n_tokens).astype(np.float32),
        },
    }


def write_all(writer, order=None, lengths=None):
    for sample in range(len(LENGTHS)) if order is None else order:
        if not writer.done[sample]:
            writer.write(sample, **sample_data(sample, (LENGTHS if lengths is None else lengths)[sample]))


def array_bytes(path):
    return {name: (Path(path) / f"{name}.npy").read_bytes() for name in ARRAYS}


@contextmanager
def largest_file(n_bytes):
    """Let files grow to a size only, which fails as a full disk does."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


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


def test_an_error_leaves_it_resumable_and_says_so(tmp_path):
    path = tmp_path / "dump"

    def fail():
        with DumpWriter(path, make_header(), capacities=LENGTHS) as writer:
            write_all(writer, order=[2])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert read_manifest(path).state == "writing"
    refused(
        DumpError, lambda: open_dump(path), "half-written, 1 of 4 samples are whole; go on with .* -o .*dump --resume"
    )
    refused(FileError, lambda: DumpWriter(path, make_header(), capacities=LENGTHS), "pass --resume .* or --overwrite")
    assert resumable_header(path) == make_header()
    with DumpWriter(path, make_header(), capacities=LENGTHS, resume=True) as writer:
        assert writer.done.tolist() == [False, False, True, False]
        write_all(writer)
    with DumpWriter(tmp_path / "other", make_header(), capacities=LENGTHS) as writer:
        write_all(writer)
    assert array_bytes(path) == array_bytes(tmp_path / "other")
    assert open_dump(path).tokens.equals(open_dump(tmp_path / "other").tokens)
    assert resumable_header(path) is None
    assert resumable_header(tmp_path / "nothing") is None
    refused(DumpError, lambda: DumpWriter(path, make_header(), capacities=LENGTHS, resume=True), "is complete already")


def test_resume_with_columns_of_every_kind(tmp_path):
    samples = pl.DataFrame(
        {
            "id": ["a", None, "", "d"],
            "score": [1.0, float("nan"), None, -0.0],
            "tags": [["x"], [], None, ["y", "z"]],
            "meta": [{"k": 1}, {"k": None}, None, {"k": 2}],
            "nothing": [None] * 4,
            "domain": pl.Series(["law", "law", "code", None], dtype=pl.Categorical),
        }
    )
    DumpWriter(tmp_path / "dump", make_header(), capacities=LENGTHS, samples=samples).close()
    with DumpWriter(tmp_path / "dump", make_header(), capacities=LENGTHS, samples=samples, resume=True) as writer:
        write_all(writer)
    assert open_dump(tmp_path / "dump").samples["tags"].to_list() == samples["tags"].to_list()


def test_resume_begins_where_there_is_nothing(tmp_path):
    with DumpWriter(tmp_path / "dump", make_header(), capacities=LENGTHS, resume=True) as writer:
        write_all(writer)
    assert open_dump(tmp_path / "dump").n_tokens == 10


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"header": make_header(plan={"batches": [[0, 2], [1, 3]], "dtype": "bfloat16"})},
            'plan.dtype was "float32" and',
        ),
        (
            {"header": make_header(plan={"batches": [[0, 2], [3, 1]], "dtype": "float32"})},
            r"plan.batches\[1\]\[0\] was 1",
        ),
        ({"header": make_header(model={"id": "other"})}, 'model.id was "tiny" and is now "other"'),
        ({"header": make_header(hidden_size=5)}, "hidden_size was 4"),
        ({"header": make_header(token_labels={})}, "token_labels.segment was"),
        ({"header": make_header(extra={})}, "batching was"),
        ({"header": make_header(tool_versions={"torch": "2"})}, "tool_versions.torch was null"),
        ({"header": make_header(layers=make_header().layers[:2])}, "layers had 3 entries and now has 2"),
        ({"capacities": [3, 0, 6, 2]}, "sample 2 was to have 5 tokens, now 6"),
        ({"capacities": [3, 0, 5], "samples": {"id": ["a", "b", "c"]}}, "begun with 4 samples, now there are 3"),
        ({"samples": {"id": ["a", "b", "c", "e"]}}, "samples' column 'id' has changed"),
        ({"samples": None}, "samples had the columns"),
    ],
)
def test_resume_with_something_else_is_refused(tmp_path, changes, words):
    before = {"header": make_header(), "capacities": LENGTHS, "samples": {"id": ["a", "b", "c", "d"]}}
    DumpWriter(tmp_path / "dump", before["header"], capacities=LENGTHS, samples=before["samples"]).close()
    now = {**before, **changes}

    def again():
        DumpWriter(tmp_path / "dump", now["header"], capacities=now["capacities"], samples=now["samples"], resume=True)

    refused(DumpError, again, words, "or pass --overwrite")
    changes = {"header": before["header"], "capacities": LENGTHS}
    DumpWriter(tmp_path / "dump", **changes, samples=before["samples"], resume=True).close()


def test_two_writers_at_once(tmp_path):
    path = tmp_path / "dump"
    writer = DumpWriter(path, make_header(), capacities=LENGTHS)
    again = {"capacities": LENGTHS, "resume": True}
    refused(DumpError, lambda: DumpWriter(path, make_header(), **again), "another process is writing this dump")
    over = {"capacities": LENGTHS, "overwrite": True}
    refused(DumpError, lambda: DumpWriter(path, make_header(), **over), "another process is writing this dump")
    write_all(writer)
    assert writer.finish().n_samples == 4
    assert len(list(tmp_path.iterdir())) == 1


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


def test_a_disk_that_gets_full(tmp_path):
    """The sample that did not fit is not done, the others are, and the run goes on later."""
    header = make_header(arrays={"expert_ids": np.dtype(np.int16)}, token_labels={})
    rows = np.arange(400 * 6, dtype=np.int16).reshape(400, 3, 2) % 8
    writer = DumpWriter(tmp_path / "dump", header, capacities=[400, 400])
    writer.write(0, expert_ids=rows)
    with largest_file(8000):
        refused(FileError, lambda: writer.write(1, expert_ids=rows), "dump: cannot be written: .*larger than the limit")
    assert writer.done.tolist() == [True, False]
    writer.close()
    writer.close()
    refused(DumpError, lambda: writer.write(1, expert_ids=rows), "the writer is closed")
    with DumpWriter(tmp_path / "dump", header, capacities=[400, 400], resume=True) as again:
        assert again.done.tolist() == [True, False]
        again.write(1, expert_ids=rows)
    np.testing.assert_array_equal(open_dump(tmp_path / "dump").expert_ids, np.concatenate([rows, rows]))


def test_finish_is_refused_while_samples_are_missing(tmp_path):
    writer = DumpWriter(tmp_path / "dump", make_header(), capacities=LENGTHS)
    write_all(writer, order=[0, 2])
    refused(DumpError, writer.finish, "2 of 4 samples are not written, the first is sample 1")
    write_all(writer)
    assert writer.finish().n_samples == 4
    assert writer.closed


def test_an_interrupted_finish_is_finished(tmp_path):
    """Some arrays moved together, others not, at whatever file it stopped."""
    capacities = np.array(LENGTHS) + 2
    with DumpWriter(tmp_path / "whole", make_header(), capacities=capacities) as writer:
        write_all(writer)
    for stop_at in ("expert_weights.npy", "hidden_states.npy", "tokens.parquet", "manifest.json"):
        path = tmp_path / stop_at
        writer = DumpWriter(path, make_header(), capacities=capacities)
        write_all(writer)
        # A folder in the place of the file that would be written stops `finish` there.
        (path / "writing" / stop_at).mkdir()
        (path / f".{stop_at}.tmp").mkdir()
        refused(FileError, writer.finish, "cannot be written")
        (path / "writing" / stop_at).rmdir()
        (path / f".{stop_at}.tmp").rmdir()
        with DumpWriter(path, make_header(), capacities=capacities, resume=True) as writer:
            assert writer.done.all()
        assert array_bytes(path) == array_bytes(tmp_path / "whole")
        assert open_dump(path).tokens.equals(open_dump(tmp_path / "whole").tokens)


def test_a_torn_journal_counts_up_to_the_tear(tmp_path):
    path = tmp_path / "dump"
    writer = DumpWriter(path, make_header(), capacities=LENGTHS)
    write_all(writer, order=[3, 0, 2])
    writer.close()
    journal = path / "writing" / "journal"
    data = journal.read_bytes()
    for cut, expected in ((len(data), 3), (len(data) - 1, 2), (len(data) // 2, 1), (3, 0)):
        journal.write_bytes(data[:cut] + b"\0" * 20)
        with DumpWriter(path, make_header(), capacities=LENGTHS, resume=True) as writer:
            assert writer.done.sum() == expected
            writer.close()
    DumpWriter(path, make_header(), capacities=LENGTHS, resume=True).close()
    assert journal.read_bytes() == b""


@pytest.mark.parametrize("name", ["expert_ids.npy", "writing/header.json", "writing/capacities.npy"])
def test_resume_of_a_damaged_dump_is_refused(tmp_path, name):
    path = tmp_path / "dump"
    DumpWriter(path, make_header(), capacities=LENGTHS).close()
    (path / name).write_bytes(b"{")
    refused(DumpError, lambda: DumpWriter(path, make_header(), capacities=LENGTHS, resume=True), "--overwrite")
    with DumpWriter(path, make_header(), capacities=LENGTHS, overwrite=True) as writer:
        write_all(writer)


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


KILLED = """
import sys, time
sys.path[:0] = {folders!r}
import numpy as np
from test_dump_writing import make_header, sample_data
from moefps.io.dump import DumpWriter

lengths = {lengths!r}
writer = DumpWriter({path!r}, make_header(), capacities=[n + 2 for n in lengths], resume=True, sync_seconds=0.01)
print("ready", flush=True)
for sample, n in enumerate(lengths):
    if not writer.done[sample]:
        time.sleep(0.002)
        writer.write(sample, **sample_data(sample, n))
writer.finish()
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_kill_9_at_any_moment(tmp_path):
    lengths = [int(n) for n in np.random.default_rng(0).integers(0, 20, 120)]
    with DumpWriter(tmp_path / "whole", make_header(), capacities=lengths) as writer:
        write_all(writer, order=range(len(lengths)), lengths=lengths)
    path = tmp_path / "killed"
    code = KILLED.format(folders=[str(HERE), str(HERE.parent)], lengths=lengths, path=str(path))
    done = [0]
    waits = [0.0, 0.08, 0.15, 0.2, 0.05, 5.0]
    for wait in waits:
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"ready\n"
            time.sleep(wait) if wait < 1 else process.wait(60)
            process.send_signal(signal.SIGKILL)
        manifest = read_manifest(path)
        if manifest.state == "complete":
            break
        done.append(count_done(path, len(lengths)))
    assert manifest.state == "complete"
    assert done == sorted(done)
    assert any(0 < n < len(lengths) for n in done)
    assert array_bytes(path) == array_bytes(tmp_path / "whole")
    assert open_dump(path).tokens.equals(open_dump(tmp_path / "whole").tokens)
