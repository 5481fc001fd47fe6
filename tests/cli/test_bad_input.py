"""Bad input is one clear line and exit code 2, and nothing is written. All of it on the real command."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from cli.conftest import contents, one_error_line

DISTANCE = ("distance", "X.npy", "-o", "out/D.npy")
SELECT = ("select", "X.npy", "-m", "4", "-o", "out/sel.csv")
FPS = ("select", "--distances", "D.npy", "-m", "2", "-o", "out/sel.csv")


def good(dtype="float32"):
    return np.random.default_rng(0).dirichlet(np.ones(4), size=(10, 2)).astype(dtype)


def saved(array):
    return lambda: np.save("X.npy", array)


def saved_distances(array):
    return lambda: np.save("D.npy", array)


def changed(place, value, dtype="float32"):
    X = good(dtype)
    X[place] = value
    return saved(X)


def written(content):
    return lambda: Path("X.npy").write_bytes(content)


def truncated():
    np.save("X.npy", good())
    content = Path("X.npy").read_bytes()
    Path("X.npy").write_bytes(content[:-7])


def damaged():
    np.save("X.npy", good())
    content = Path("X.npy").read_bytes()
    Path("X.npy").write_bytes(content.replace(b"shape", b"shope"))


def distances(place=None, value=0.0):
    D = np.abs(np.arange(5.0)[:, np.newaxis] - np.arange(5.0))
    if place is not None:
        D[place] = value
    return saved_distances(D)


def nothing():
    pass


FILES = {
    "missing file": (nothing, DISTANCE, "X.npy: .*no such file"),
    "empty file": (written(b""), DISTANCE, "X.npy: the file is empty"),
    "not a .npy": (written(b"sample,layer\n"), DISTANCE, "X.npy: not a .npy file"),
    "truncated": (truncated, DISTANCE, "X.npy: truncated: found 313 bytes of data, .* needs 320"),
    "corrupt header": (damaged, DISTANCE, "X.npy: corrupt .npy header"),
    "pickled": (saved(np.array([{}, {}], dtype=object)), DISTANCE, "X.npy: .*pickled"),
    "object": (saved(good().astype(object)), SELECT, "X.npy: .*pickled"),
    "complex": (saved(good().astype(complex)), DISTANCE, "X.npy: dtype is complex128; accepted: float16, float32"),
    "int": (saved(good().astype(int)), DISTANCE, "X.npy: dtype is int64; accepted: float16, float32, float64"),
    "bool": (saved(good() > 0), DISTANCE, "X.npy: dtype is bool"),
    "big-endian": (saved(good().astype(">f4" if np.little_endian else "<f4")), DISTANCE, "X.npy: .*byte order"),
    "1-D": (saved(good()[0, 0]), DISTANCE, r"X.npy: is 1-D with shape \(4,\); accepted: \[N, L, E\]"),
    "2-D": (saved(good()[:, 0]), DISTANCE, r"X.npy: is 2-D with shape \(10, 4\); accepted: .*--single-layer"),
    "4-D": (saved(good()[np.newaxis]), DISTANCE, "X.npy: is 4-D"),
    "N = 0": (saved(good()[:0]), DISTANCE, r"X.npy: shape is \(0, 2, 4\)"),
    "N = 1": (saved(good()[:1]), DISTANCE, r"X.npy: shape \(1, 2, 4\); accepted: at least 2"),
    "E = 1": (saved(np.ones((10, 2, 1), dtype=np.float32)), DISTANCE, "X.npy: .*2 experts"),
    "L = 0": (saved(good()[:, :0]), DISTANCE, r"X.npy: shape is \(10, 0, 4\)"),
}

VALUES = {
    "NaN": (changed((3, 1, 2), np.nan), DISTANCE, "X.npy: sample 3, layer 1, expert 2 is NaN"),
    "infinity": (changed((3, 1, 2), np.inf), DISTANCE, "X.npy: sample 3, layer 1, expert 2 is inf"),
    "negative": (changed((3, 1, 2), -0.5), DISTANCE, "X.npy: sample 3, layer 1, expert 2 is -0.5"),
    "row sum": (changed((3, 1), 0.5), DISTANCE, "X.npy: sample 3, layer 1 sums to 2; .* --normalize"),
    "row sum, float16": (changed((3, 1), 0.26, "float16"), SELECT, "sample 3.*layer 1"),
    "row sum, float64": (changed((3, 1), 0.250001, "float64"), SELECT, "sample 3.*layer 1"),
    "all-zero row": (changed((3, 1), 0), DISTANCE, "sample 3.*layer 1"),
    "all-zero row, normalized": (changed((3, 1), 0), (*SELECT, "--normalize"), "sample 3.*layer 1"),
    "NaN in select": (changed((3, 1, 2), np.nan), SELECT, "sample 3.*layer 1"),
}

CHOICES = {
    "M = 0": (saved(good()), ("select", "X.npy", "-m", "0"), "-m: found 0; accepted: at least 1"),
    "M < 0": (saved(good()), ("select", "X.npy", "-m", "-1"), "-m: found -1"),
    "M > N": (saved(good()), ("select", "X.npy", "-m", "11"), "-m: found 11; accepted: 1 to 10"),
    "start out of range": (saved(good()), (*SELECT, "--start", "10"), "--start: index 10; accepted: 0 to 9"),
    "negative start": (saved(good()), (*SELECT, "--start=-1"), "--start: index -1"),
    "duplicate starts": (saved(good()), (*SELECT, "--start", "3,5,3"), "--start: index 3 twice"),
    "more starts than picks": (saved(good()), (*SELECT, "--start", "1,2,3,4,5"), "--start: "),
    "no such start": (saved(good()), (*SELECT, "--start", "middle"), "--start: found 'middle'; accepted: medoid, "),
    "stop radius NaN": (saved(good()), (*SELECT, "--stop-radius", "nan"), "--stop-radius: "),
    "stop radius negative": (saved(good()), (*SELECT, "--stop-radius=-1"), "--stop-radius: "),
}

MATRICES = {
    "not square": (saved_distances(np.zeros((4, 5))), FPS, r"D.npy: shape \(4, 5\); accepted: a square matrix"),
    "not symmetric": (distances((0, 1), 3.0), FPS, "D.npy: not symmetric"),
    "negative distance": (distances(([0, 1], [1, 0]), -1.0), FPS, r"D.npy: D\[0, 1\] is -1"),
    "NaN distance": (distances(([0, 1], [1, 0]), np.nan), FPS, r"D.npy: D\[0, 1\] is NaN"),
    "int distances": (saved_distances(np.zeros((4, 4), dtype=int)), FPS, "D.npy: dtype is int64"),
    "1-D distances": (saved_distances(np.zeros(6)), FPS, r"D.npy: is 1-D with shape \(6,\); accepted: \[N, N\]"),
}

OUTPUTS = {
    "output folder missing": (saved(good()), ("distance", "X.npy", "-o", "no/D.npy"), "the folder no does not exist"),
    "output folder missing, select": (
        saved(good()),
        ("select", "X.npy", "-m", "2", "-o", "no/sel.csv"),
        "the folder no does not exist",
    ),
    "output is a folder": (saved(good()), ("distance", "X.npy", "-o", "dir.npy"), "dir.npy: is a folder"),
    "output exists": (saved(good()), ("distance", "X.npy", "-o", "taken.npy"), "taken.npy: exists already"),
    "output is the input": (saved(good()), ("distance", "X.npy", "-o", "X.npy", "--overwrite"), "is the input too"),
    "output suffix": (saved(good()), ("distance", "X.npy", "-o", "out/D.csv"), "-o: found 'out/D.csv'"),
    "table suffix": (saved(good()), ("select", "X.npy", "-m", "2", "-o", "out/sel.xls"), "-o: found 'out/sel.xls'"),
}

CASES = {**FILES, **VALUES, **CHOICES, **MATRICES, **OUTPUTS}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("case", CASES)
def test_one_line_and_exit_2(case, process):
    prepare, arguments, expected = CASES[case]
    Path("out").mkdir()
    Path("dir.npy").mkdir()
    Path("taken.npy").write_text("kept")
    prepare()
    before = contents()
    done = process(*arguments, code=2)
    line = one_error_line(done.stderr)
    assert re.search(expected, line), line
    assert done.stdout == ""
    assert contents() == before


@pytest.fixture
def closed(X):
    """A folder that nobody may write into: root may write anywhere, so it becomes another user."""
    if os.name == "nt":
        pytest.skip("permissions of folders are another thing on Windows")
    folder = Path(tempfile.mkdtemp())
    np.save(folder / "X.npy", X)
    folder.chmod(0o555)
    is_root = os.geteuid() == 0
    yield folder, (lambda: os.seteuid(65534) if is_root else None)
    if is_root:
        os.seteuid(0)
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("output", ["D.npy", "sel.csv"])
def test_a_folder_that_is_not_writable(output, closed, cli):
    folder, become_another = closed
    arguments = ["distance", "X.npy"] if output == "D.npy" else ["select", "X.npy", "-m", "9"]
    # All modules are imported by then: the other user may not read them.
    cli(*arguments, "-o", output)
    become_another()
    arguments[1] = folder / "X.npy"
    line = one_error_line(cli(*arguments, "-o", folder / output, code=2).stderr)
    assert line == f"error: {folder / output}: the folder {folder} is not writable"
    assert [path.name for path in folder.iterdir()] == ["X.npy"]


@pytest.mark.parametrize("command", ["distance", "select"])
def test_a_disk_that_gets_full(command, X, process):
    resource = pytest.importorskip("resource", reason="limits on files are a POSIX thing")
    before = contents()
    arguments = ["distance", "X.npy"] if command == "distance" else ["select", "X.npy", "-m", "60"]
    output = "D.npy" if command == "distance" else "sel.csv"
    done = process(
        *arguments, "-o", output, code=2, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    )
    assert re.search(rf"{output}: ", one_error_line(done.stderr))
    assert contents() == before


def test_too_little_space_is_said_before_the_work(here, cli):
    # The file is sparse; nothing but its header is read.
    header = {"descr": "<f4" if np.little_endian else ">f4", "fortran_order": False, "shape": (4_000_000, 1, 2)}
    with Path("X.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 4_000_000 * 8)
    line = one_error_line(cli("distance", "X.npy", "-o", "D.npy", code=2).stderr)
    assert re.search(r"D.npy: too little disk space: needs 64\.0 TB, free are ", line)


USAGE = {
    "no such command": (("pick",), "No such command 'pick'|no such command 'pick'"),
    "no such option": (("info", "--frmat"), "no such option.*--frmat"),
    "no input": (("distance", "-o", "D.npy"), "missing argument 'X...'"),
    "no output": (("distance", "X.npy"), "missing option '-o' / '--output'"),
    "no choice": (("distance", "X.npy", "-o", "D.npy", "--ground", "l2"), "invalid value for '--ground': 'l2'"),
    "threads": (("distance", "X.npy", "-o", "D.npy", "--threads", "0"), "invalid value for '--threads'"),
    "two grounds": (
        ("distance", "X.npy", "-o", "D.npy", "--ground", "index", "--positions", "p.npy"),
        "--ground and --positions exclude each other",
    ),
    "cross and condensed": (("distance", "X.npy", "-o", "D.npy", "--cross", "X.npy", "--condensed"), "exclude"),
    "select nothing": (("select", "-m", "2"), "no input"),
    "select how many": (("select", "X.npy"), "give -m, --stop-radius or both"),
    "both inputs": (("select", "X.npy", "--distances", "D.npy", "-m", "2"), "give one of the two"),
    "evaluate distances": (("select", "--distances", "D.npy", "-m", "2", "--evaluate"), "needs fingerprints"),
    "ground of distances": (("select", "--distances", "D.npy", "-m", "2", "--ground", "index"), "--ground changes"),
    "mixed stdin": (("info", "X.npy", "-"), "cannot be mixed"),
}


@pytest.mark.usefixtures("X")
@pytest.mark.parametrize("case", USAGE)
def test_wrong_use(case, cli):
    arguments, expected = USAGE[case]
    result = cli(*arguments, code=2)
    assert re.search(expected, one_error_line(result.stderr)), result.stderr
    assert result.stdout == ""


@pytest.mark.usefixtures("X")
def test_wrong_use_says_where_to_read_more(cli):
    assert cli("distance", "X.npy", code=2).stderr.splitlines()[1] == "try: moefps distance --help"


@pytest.mark.usefixtures("X")
@pytest.mark.parametrize(
    ("option", "array", "expected"),
    [
        ("--positions", np.arange(7.0), "7"),
        ("--positions", np.array([0, 1, 2, np.nan, 4, 5, 6, 7]), "p.npy: found nan at"),
        ("--positions", np.zeros((3, 8, 1)), r"p.npy: is 3-D .*\[E\] or \[L, E\]"),
        ("--layer-weights", np.ones(2), "2"),
        ("--layer-weights", -np.ones(3), "-1"),
        ("--layer-weights", np.zeros(3), "--layer-weights: .*positive sum"),
        ("--cross", np.full((5, 3, 9), 1 / 9), "9"),
    ],
)
def test_other_files_that_do_not_fit(option, array, expected, cli):
    np.save("p.npy", array)
    result = cli("distance", "X.npy", "-o", "D.npy", option, "p.npy", code=2)
    assert re.search(expected, one_error_line(result.stderr)), result.stderr
    assert not Path("D.npy").exists()


@pytest.mark.usefixtures("X")
def test_labels_that_do_not_fit(cli):
    Path("labels.txt").write_text("one\ntwo\n")
    line = one_error_line(cli("select", "X.npy", "-m", "4", "--labels", "labels.txt", code=2).stderr)
    assert "labels.txt: found 2 labels, expected one for each of 60 samples" in line


def test_an_odd_file_in_a_folder(here, cli):
    for i in range(3):
        np.save(f"s{i}.npy", np.full((2, 4), 0.25))
    np.save("s1.npy", np.full((2, 5), 0.2))
    line = one_error_line(cli("info", ".", code=2).stderr)
    assert "s1.npy: shape is (2, 5), expected (2, 4) as in s0.npy" in line


@pytest.mark.usefixtures("X")
def test_an_unexpected_error_is_one_line_too(cli, monkeypatch):
    import moefps.io

    def broken(*args, **kwargs):
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr(moefps.io, "load_fingerprints", broken)
    line = one_error_line(cli("info", "X.npy", code=2).stderr)
    assert line == "error: unexpected RuntimeError: first second (MOEFPS_TRACEBACK=1 shows where)"
    monkeypatch.setenv("MOEFPS_TRACEBACK", "1")
    assert "Traceback" in cli("info", "X.npy", code=2).stderr


@pytest.mark.usefixtures("X")
def test_memory_that_is_not_there(cli, monkeypatch):
    import moefps.io

    def broken(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(moefps.io, "load_fingerprints", broken)
    assert one_error_line(cli("info", "X.npy", code=2).stderr) == "error: not enough memory"
