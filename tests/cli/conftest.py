"""How the tests run the command: in this process for speed, or as a person would."""

from __future__ import annotations

import inspect
import os
import re
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from moefps.cli import main
from moefps.io import planted_fingerprints

# Before click 8.2 the two streams were mixed unless one said otherwise.
SEPARATE = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder, which is also the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def planted():
    """Planted fingerprints, [60, 3, 8], of four behaviours."""
    return planted_fingerprints(60, 3, 8, n_behaviours=4, contrast=0.5)


@pytest.fixture
def X(here, planted):
    """The same in ``X.npy``, with labels beside it."""
    np.save("X.npy", planted.array)
    Path("labels.csv").write_text("label\n" + "".join(f"b{label}\n" for label in planted.labels))
    return planted.array


@pytest.fixture
def cli():
    """Run the command in this process."""

    def run(*arguments, code=0, stdin=None):
        runner = CliRunner(**SEPARATE)
        result = runner.invoke(main, [str(argument) for argument in arguments], input=stdin, prog_name="moefps")
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def refuses(cli):
    """The command fails with one line that matches, prints nothing else, and leaves the folder as it was."""

    def run(words, *arguments):
        before = contents()
        result = cli(*arguments, code=2)
        line = one_error_line(result.stderr)
        assert re.search(words, line), line
        assert result.stdout == ""
        assert contents() == before

    return run


def contents():
    """What is in the current folder, and how large it is."""
    return sorted((str(path), path.stat().st_size) for path in Path().rglob("*"))


def one_error_line(stderr):
    """The one line in which an error is told; a second one may say where to read more."""
    lines = [line for line in stderr.splitlines() if not line.startswith("try: ")]
    assert len(lines) == 1, stderr
    assert lines[0].startswith("error: ")
    assert not lines[0].endswith(".")
    return lines[0]


def command_line(*arguments):
    """The words that start the real command."""
    script = Path(sysconfig.get_path("scripts")) / ("moefps.exe" if os.name == "nt" else "moefps")
    start = [str(script)] if script.exists() else [sys.executable, "-m", "moefps.cli"]
    return [*start, *(str(argument) for argument in arguments)]


@pytest.fixture
def process():
    """Run the real command in a process of its own."""

    def run(*arguments, code=0, **kwargs):
        kwargs = {"stdin": subprocess.DEVNULL, "encoding": "utf-8", "timeout": 60, **kwargs}
        done = subprocess.run(command_line(*arguments), capture_output=True, check=False, **kwargs)
        assert done.returncode == code, (done.stdout, done.stderr)
        return done

    return run


def default_signals():
    """Undo what a parent had its children ignore."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def start_process():
    """Start the real command and let the test end it."""
    started = []

    def start(*arguments, **kwargs):
        if os.name == "posix":
            # As a shell in front of a person starts it, also where nohup or a background job runs the tests.
            kwargs.setdefault("preexec_fn", default_signals)
        started.append(subprocess.Popen(command_line(*arguments), **kwargs))
        return started[-1]

    yield start
    for popen in started:
        if popen.poll() is None:
            popen.kill()
        popen.wait()
        for stream in (popen.stdin, popen.stdout, popen.stderr):
            if stream is not None:
                stream.close()
