"""The command as a process: signals, pipes, terminals, how fast it starts."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(os.name == "nt", reason="signals and terminals of POSIX"),
]

# The machine may be busy with other things; what it can do once, it can do.
ATTEMPTS = 4


@pytest.fixture
def long_run(here):
    """Fingerprints whose matrix takes many seconds: [20000, 16, 64]."""
    rng = np.random.default_rng(0)
    X = np.lib.format.open_memmap("X.npy", mode="w+", dtype=np.float16, shape=(20_000, 16, 64))
    rows = rng.dirichlet(np.ones(64), size=(500, 16)).astype(np.float16)
    for start in range(0, 20_000, 500):
        X[start : start + 500] = np.roll(rows, start // 500, axis=2)
    X.flush()


def names():
    return sorted(path.name for path in Path().iterdir())


def first_progress(popen):
    """Wait until the work has begun and give the line that says so."""
    return popen.stderr.readline()


@pytest.mark.usefixtures("long_run")
@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated"), (signal.SIGHUP, 129, "terminated")],
)
def test_a_signal_in_the_middle_leaves_at_once_and_no_file(number, code, word, start_process):
    seconds = []
    for _ in range(ATTEMPTS):
        popen = start_process("distance", "X.npy", "-o", "D.npy", "--progress", stderr=subprocess.PIPE, text=True)
        assert re.match(r"distances: \d", first_progress(popen))
        # The unfinished file is beside the output, under another name.
        assert "D.npy" not in names()
        sent = time.perf_counter()
        popen.send_signal(number)
        _, stderr = popen.communicate(timeout=30)
        seconds.append(time.perf_counter() - sent)
        assert popen.returncode == code
        assert stderr.splitlines()[-1] == word
        assert "Traceback" not in stderr
        assert names() == ["X.npy"]
        if seconds[-1] < 0.2:
            return
    pytest.fail(f"the prompt was back after {seconds} seconds, expected less than 0.2")


@pytest.mark.usefixtures("long_run")
def test_an_interrupted_overwrite_leaves_the_old_file(start_process):
    Path("D.npy").write_text("before")
    popen = start_process("distance", "X.npy", "-o", "D.npy", "--overwrite", "--progress", stderr=subprocess.PIPE)
    first_progress(popen)
    popen.send_signal(signal.SIGINT)
    popen.communicate(timeout=30)
    assert popen.returncode == 130
    assert Path("D.npy").read_text() == "before"
    assert names() == ["D.npy", "X.npy"]


@pytest.mark.usefixtures("long_run")
def test_select_can_be_interrupted_too(start_process):
    popen = start_process("select", "X.npy", "-m", "5000", "-o", "s.csv", "--progress", stderr=subprocess.PIPE)
    first_progress(popen)
    popen.send_signal(signal.SIGINT)
    popen.communicate(timeout=30)
    assert popen.returncode == 130
    assert names() == ["X.npy"]


@pytest.mark.usefixtures("long_run")
def test_progress_advances_twice_a_second(start_process):
    for _ in range(ATTEMPTS):
        popen = start_process("distance", "X.npy", "-o", "D.npy", "--progress", stderr=subprocess.PIPE, text=True)
        seen = []
        while len(seen) < 6 and (line := popen.stderr.readline()):
            seen.append((time.perf_counter(), float(line.split()[1])))
        popen.send_signal(signal.SIGINT)
        popen.communicate(timeout=30)
        times, percents = zip(*seen, strict=True)
        assert all(0 <= percent <= 100 for percent in percents)
        if max(np.diff(times)) < 0.5 and min(np.diff(percents)) > 0:
            return
    pytest.fail(f"progress stood still: {seen}")


class Terminal:
    """A command on a terminal of 80 columns, and all that it has printed there."""

    def __init__(self, popen, descriptor):
        self.popen = popen
        self.descriptor = descriptor
        self.text = ""

    def read_until(self, pattern, seconds=30):
        end = time.monotonic() + seconds
        while not re.search(pattern, self.text):
            ready, _, _ = select.select([self.descriptor], [], [], max(0, end - time.monotonic()))
            assert ready, f"{pattern!r} did not come: {self.text!r}"
            try:
                data = os.read(self.descriptor, 1 << 16)
            # Linux ends a terminal that nobody writes to any more with an error.
            except OSError:
                data = b""
            if not data:
                break
            self.text += data.decode()

    def read_all(self):
        self.read_until(r"(?!)")
        return self.popen.wait(30)


@pytest.fixture
def terminal(start_process):
    """Run the command on a terminal."""
    import fcntl
    import pty
    import struct
    import termios

    masters = []

    def run(*arguments, **environment):
        master, slave = pty.openpty()
        masters.append(master)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        kept = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "COLUMNS", "LINES"}}
        popen = start_process(
            *arguments,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**kept, "TERM": "xterm-256color", "PYTHONUTF8": "1", **environment},
        )
        os.close(slave)
        return Terminal(popen, master)

    yield run
    for master in masters:
        os.close(master)


def visible(text):
    """Drop the sequences that move the cursor or choose colours."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "")


@pytest.mark.usefixtures("long_run")
def test_ctrl_c_typed_on_a_terminal(terminal):
    screen = terminal("distance", "X.npy", "-o", "D.npy")
    screen.read_until(r"[1-9]\S* %")
    os.write(screen.descriptor, b"\x03")
    assert screen.read_all() == 130
    assert visible(screen.text).endswith("\ninterrupted\n")
    # The cursor that the bar had hidden is back.
    assert screen.text.rindex("\x1b[?25h") > screen.text.rindex("\x1b[?25l")
    assert names() == ["X.npy"]


@pytest.mark.usefixtures("X")
def test_tables_on_a_terminal_fit_its_width(terminal):
    Path("labels.txt").write_text("".join(f"a label far too long for any table {i % 3}\n" for i in range(60)))
    screen = terminal("select", "X.npy", "-m", "50", "--labels", "labels.txt", "--no-progress")
    assert screen.read_all() == 0
    lines = visible(screen.text).splitlines()
    assert max(len(line) for line in lines) <= 80
    assert "50 picks, the middle left out; -o sel.csv writes them all" in lines
    assert "…" in screen.text


@pytest.mark.usefixtures("X")
def test_no_color(terminal):
    colours = r"\x1b\[[0-9;]*3[0-9][0-9;]*m"
    with_colour = terminal("info", "missing.npy")
    assert with_colour.read_all() == 2
    assert re.search(colours, with_colour.text)
    for arguments in (["info", "missing.npy"], ["select", "X.npy", "-m", "5"], ["distance", "X.npy", "-o", "D.npy"]):
        screen = terminal(*arguments, NO_COLOR="1")
        screen.read_all()
        assert not re.search(colours, screen.text)


@pytest.mark.usefixtures("X")
def test_no_progress_where_stderr_is_no_terminal(process):
    assert process("distance", "X.npy", "-o", "D.npy").stderr == ""
    assert "distances: " in process("distance", "X.npy", "-o", "D.npy", "--overwrite", "--progress").stderr
    assert process("distance", "X.npy", "-o", "D.npy", "--overwrite", "--progress", "--quiet").stderr == ""


@pytest.mark.usefixtures("X")
def test_parquet_is_kept_from_the_screen(terminal):
    screen = terminal("select", "X.npy", "-m", "5", "--format", "parquet")
    assert screen.read_all() == 2
    assert "error: --format parquet is not for a terminal" in visible(screen.text)


@pytest.mark.usefixtures("X")
def test_stdin_that_is_a_terminal(terminal):
    screen = terminal("info", "-")
    assert screen.read_all() == 2
    assert "error: stdin: is a terminal" in visible(screen.text)


@pytest.mark.usefixtures("X")
def test_a_pipe_in(process):
    with Path("X.npy").open("rb") as file:
        done = process("info", "-", stdin=file)
    assert done.stdout.startswith("stdin: fingerprints of 60 samples")


@pytest.mark.usefixtures("X")
def test_a_reader_that_goes_away_is_no_error(start_process):
    popen = start_process("select", "X.npy", "-m", "60", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    popen.stdout.close()
    assert popen.stderr.read() == ""
    assert popen.wait(30) == 141


@pytest.mark.usefixtures("X")
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_behind_stdout(process):
    with Path("/dev/full").open("w") as full:
        for arguments in (["info", "X.npy"], ["select", "X.npy", "-m", "5", "--format", "parquet"]):
            done = subprocess.run(
                [*process_words(), *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
            )
            assert done.returncode == 2
            assert done.stderr == "error: no space left on device\n"


def process_words():
    return [sys.executable, "-m", "moefps.cli"]


def test_help_is_quick_and_imports_little():
    seconds = []
    for _ in range(ATTEMPTS):
        started = time.perf_counter()
        subprocess.run([*process_words(), "--help"], check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.3
    code = """
import sys
from moefps.cli import main
main(["--help"], standalone_mode=False)
heavy = {"numpy", "polars", "rich", "moefps._core", "moefps.io", "moefps.cli.select"} & set(sys.modules)
sys.exit(str(heavy) if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
