"""Every example of the README and of the documentation runs, and prints what it is shown to print.

A document is run from top to bottom in one empty folder: its ``python`` blocks share one namespace, and the commands of
its ``console`` blocks are started as a person would start them. ``...`` in shown output stands for anything, and times
and speed ratios for any others.
"""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
# Commands that set up a machine or a checkout. `make test` runs the second, and cannot run inside itself.
NOT_RUN = re.compile(r"(make|pip|cargo|git|cd) ")
TIME = re.compile(r"\b[\d.,]+ (?:µs|ms|s|seconds?|minutes?|hours?|days?)\b")
RATIO = re.compile(r"\b[\d.,]+x")
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Block(NamedTuple):
    """A fenced block of a document."""

    language: str
    text: str
    line: int


class Command(NamedTuple):
    """A line after ``$``, and the lines that follow it."""

    line: str
    output: str


def blocks(document: str) -> list[Block]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return [
        Block(match["language"], match["text"], text.count("\n", 0, match.start()) + 2)
        for match in FENCE.finditer(text)
    ]


def commands(text: str) -> list[Command]:
    joined = text.replace("\\\n", " ")
    parts = re.split(r"^\$ ", joined, flags=re.MULTILINE)
    assert not parts[0].strip(), f"output before any command: {parts[0]!r}"
    found = []
    for part in parts[1:]:
        line, _, output = part.partition("\n")
        found.append(Command(line.strip(), output))
    return found


def program(name: str) -> str:
    suffix = ".exe" if os.name == "nt" else ""
    return str(Path(sysconfig.get_path("scripts")) / f"{name}{suffix}")


def timeless(text: str) -> str:
    """Drop what differs from run to run."""
    return RATIO.sub("RATIO", TIME.sub("TIME", text))


def check_output(shown: str, printed: str, where: str) -> None:
    """Compare as doctest does; nothing shown means that nothing is promised."""
    if shown.strip() and not doctest.OutputChecker().check_output(timeless(shown), timeless(printed), OPTIONS):
        pytest.fail(f"{where}\n--- shown\n{shown}\n--- printed\n{printed}", pytrace=False)


def run_console(block: Block, document: str, folder: Path) -> int:
    """Run the commands of a block and return how many were run."""
    environment = {**os.environ, "COLUMNS": "120", "NO_COLOR": "1", "PYTHONUTF8": "1"}
    n_run = 0
    for command in commands(block.text):
        where = f"{document}:{block.line}: $ {command.line}"
        # What follows a comment sign is for the reader.
        name, *arguments = shlex.split(command.line, comments=True)
        if NOT_RUN.match(command.line):
            continue
        assert name == "moefps", f"{where}: only moefps is run in examples"
        done = subprocess.run(
            [program(name), *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            stdin=subprocess.DEVNULL,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{where}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, f"{where}\n{done.stderr}"
        check_output(command.output, done.stdout, where)
        n_run += 1
    return n_run


def run_python(block: Block, document: str, namespace: dict[str, Any]) -> int:
    """Run a block in ``namespace``, as doctest does where it is shown as a session."""
    where = f"{document}:{block.line}"
    if ">>>" not in block.text:
        exec(compile(block.text, where, "exec"), namespace)
        return 1
    test = doctest.DocTestParser().get_doctest(block.text, namespace, where, document, block.line - 1)
    # get_doctest copies the names, and the next block needs those that this one has made.
    test.globs = namespace
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=OPTIONS, verbose=False)
    result = runner.run(test, out=report.append, clear_globs=False)
    if result.failed:
        pytest.fail("".join(report), pytrace=False)
    return result.attempted


@pytest.mark.parametrize("document", DOCUMENTS)
def test_examples_run(document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(document):
        if block.language == "console":
            run_console(block, document, tmp_path)
        elif block.language == "python":
            run_python(block, document, namespace)


def test_the_readme_shows_both_ways_in() -> None:
    found = {block.language for block in blocks("README.md")}
    assert {"console", "python"} <= found
    first_screen = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:40]
    for command in ("make demo", "make test"):
        assert any(command in line for line in first_screen), f"{command} is not on the first screen"


def test_a_wrong_example_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="Expected"):
        run_python(Block("python", ">>> 1 + 1\n3\n", 1), "x.md", {})
    with pytest.raises(AssertionError, match="exit 2"):
        run_console(Block("console", "$ moefps info missing.npy\n", 1), "x.md", tmp_path)
    with pytest.raises(pytest.fail.Exception, match="shown"):
        run_console(Block("console", "$ moefps --version\nnot this\n", 1), "x.md", tmp_path)


def test_scripts_of_this_environment_are_run() -> None:
    assert Path(program("moefps")).is_file(), f"moefps is not installed beside {sys.executable}"
