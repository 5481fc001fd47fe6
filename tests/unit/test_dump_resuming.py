"""What a killed or failed writer of a dump leaves, and how another goes on with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from moefps.errors import DumpError, FileError
from moefps.io.dump import DumpWriter, open_dump, read_manifest, resumable_header
from moefps.io.dump.progress_files import count_done
from support import largest_file, refused
from unit.dump_samples import LENGTHS, array_bytes, make_header, write_all

TESTS = Path(__file__).resolve().parents[1]


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


KILLED = """
import sys, time
sys.path.insert(0, {folder!r})
import numpy as np
from unit.dump_samples import make_header, sample_data
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
    code = KILLED.format(folder=str(TESTS), lengths=lengths, path=str(path))
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
