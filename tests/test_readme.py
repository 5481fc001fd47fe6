"""Every example of the README and of the documentation runs, and prints what it is shown to print.

A document is run from top to bottom in one folder, which has the repository's model and test data and nothing else. Its
``python`` blocks share one namespace, and the commands of its ``console`` blocks are started as a person would start
them. ``...`` in shown output stands for anything, and times and speed ratios for any others. Numbers with a decimal
point may be off by one in the last place, as models compute slightly differently from machine to machine. A command
that is shown to print ``error: ...`` has exit code 2.

``<!-- needs capture -->`` before a block leaves it out where torch or the model is missing, as beside a wheel alone.
"""

from __future__ import annotations

import doctest
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
FENCE = re.compile(
    r"^(?:<!-- needs (?P<needs>\w+) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
# Commands that set up a machine or a checkout. `make test` runs the second, and cannot run inside itself.
NOT_RUN = re.compile(r"(make|pip|cargo|git|cd) ")
TIME = re.compile(r"\b(?:(?:about|less than) )?[\d.,]+ (?:µs|ms|s|seconds?|minutes?|hours?|days?|tokens/s)\b")
RATIO = re.compile(r"\b[\d.,]+x")
DECIMAL = re.compile(r"\d[\d,]*\.\d+")
MODEL = "models/demo-moe"
DATA = "tests/data"
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Block(NamedTuple):
    """A fenced block of a document."""

    language: str
    text: str
    line: int
    needs: str | None = None


class Command(NamedTuple):
    """A line after ``$``, and the lines that follow it."""

    line: str
    output: str


def blocks(document: str) -> list[Block]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return [
        Block(match["language"], match["text"], text.count("\n", 0, match.start("text")) + 1, match["needs"])
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


class Checker(doctest.OutputChecker):
    """Compares as doctest does, and again with the last places of numbers left open."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        want, got = timeless(want), timeless(got)
        return super().check_output(want, got, optionflags) or nearly(want, got)


def nearly(want: str, got: str) -> bool:
    """Tell whether two outputs are the same but for the last places of numbers with a decimal point."""
    pieces = re.split(rf"(\.\.\.|{DECIMAL.pattern}|\s+)", want.strip())
    pattern, expected = "", []
    for piece in pieces:
        if DECIMAL.fullmatch(piece):
            expected.append(piece)
            pattern += f"({DECIMAL.pattern})"
        else:
            pattern += ".*?" if piece == "..." else r"\s+" if piece.isspace() else re.escape(piece)
    match = re.fullmatch(pattern, got.strip(), re.DOTALL)
    return match is not None and all(
        abs(number(one) - number(other)) <= 1.001 * 10.0 ** -len(one.partition(".")[2])
        for one, other in zip(expected, match.groups(), strict=True)
    )


def number(text: str) -> float:
    return float(text.replace(",", ""))


def check_output(shown: str, printed: str, where: str) -> None:
    """Compare; nothing shown means that nothing is promised."""
    if shown.strip() and not Checker().check_output(shown, printed, OPTIONS):
        pytest.fail(f"{where}\n--- shown\n{shown}\n--- printed\n{printed}", pytrace=False)


def missing_for_capture() -> str | None:
    """Say what is missing to capture; None where all is there."""
    absent = next((name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None), None)
    if absent is not None:
        return f"{absent} is not installed"
    return None if (ROOT / MODEL / "config.json").is_file() else f"{MODEL} is not there"


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
        is_refused = command.output.startswith("error: ")
        assert done.returncode == 2 * is_refused, f"{where}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, f"{where}\n{done.stderr}"
        check_output(command.output, done.stderr if is_refused else done.stdout, where)
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
    runner = doctest.DocTestRunner(checker=Checker(), optionflags=OPTIONS, verbose=False)
    result = runner.run(test, out=report.append, clear_globs=False)
    if result.failed:
        pytest.fail("".join(report), pytrace=False)
    return result.attempted


@pytest.mark.parametrize("document", DOCUMENTS)
def test_examples_run(document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    missing = missing_for_capture()
    found = blocks(document)
    needing = [block for block in found if block.needs is not None]
    assert {block.needs for block in needing} <= {"capture"}
    if needing and missing is None:
        shutil.copytree(ROOT / MODEL, tmp_path / MODEL)
    shutil.copytree(ROOT / DATA, tmp_path / DATA)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in found:
        if block in needing and missing is not None:
            continue
        if block.language == "console":
            run_console(block, document, tmp_path)
        elif block.language == "python":
            run_python(block, document, namespace)
    if needing and missing is not None:
        pytest.skip(f"all else ran, but {len(needing)} blocks of {document} capture, and {missing}")


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


def test_only_the_last_place_of_a_number_is_open() -> None:
    assert nearly("radius  1,234.57 of ...", "radius 1,234.58 of 12 picks")
    for want, got in (("1.57", "1.59"), ("1.57 a", "1.57 b"), ("12 picks", "13 picks"), ("1.5 2.5", "1.5")):
        assert not nearly(want, got), (want, got)


def test_scripts_of_this_environment_are_run() -> None:
    assert Path(program("moefps")).is_file(), f"moefps is not installed beside {sys.executable}"
