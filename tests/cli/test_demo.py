"""`moefps demo`: what it claims about the data that come with moefps, and the data it leaves behind."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import moefps
from moefps.cli import main
from moefps.cli.demo import picks_until_covered
from moefps.io.bundled import bundled_fingerprints

NUMBER = r"([\d.,]+)"


def number(text, pattern):
    found = re.search(pattern.replace("#", NUMBER), text)
    assert found, f"{pattern!r} is not in\n{text}"
    return [float(value.replace(",", "")) for value in found.groups()]


@pytest.fixture(scope="module")
def text():
    """What `moefps demo` prints."""
    result = CliRunner().invoke(main, ["demo", "-q"], prog_name="moefps")
    assert result.exit_code == 0, result.output
    return result.output


def test_it_says_what_the_data_are_before_anything_else(text):
    first, second, third, *rest = text.splitlines()
    assert first == "captured data: 320 held-out texts of 8 domains, through a small trained model"
    assert second.startswith("320 samples, 6 layers, 16 experts; ")
    assert second.endswith("fingerprints of kind probs")
    assert third.startswith("40 texts of each domain: python, c, manual, german, french, dictionary, maths,")
    assert max(len(line) for line in text.splitlines()) <= 80
    assert any(line.startswith("  moefps demo --save demo ") for line in rest)


def test_every_domain_is_seen_sooner_than_at_random(text):
    (covered,) = number(text, "every domain seen after # picks")
    mean, low, high = number(text, r"random picks: after # \(95 % of 2,000 orders: # to #\)")
    # As few as there are domains, and fewer than 97.5 % of random orders need.
    assert covered == 8 < low < mean < high
    others = number(text, r"from another first one: after # \(95 % of all 320: # to #\)")
    assert others[0] < mean
    assert others[2] < high
    (nearest,) = number(text, "# % of samples have one of their own domain as their nearest")
    assert nearest > 90


def test_the_interval_does_not_hang_on_the_seed(text, cli):
    other = cli("demo", "--seed", 5).stdout
    pattern = r"random picks: after # \(95 % of 2,000 orders: # to #\)"
    assert number(other, pattern) != number(text, pattern)
    assert number(other, pattern) == pytest.approx(number(text, pattern), rel=0.1)


def test_the_numbers_are_those_of_the_api(text):
    bundled = bundled_fingerprints()
    selection = moefps.select(bundled.array, 12)
    judged = moefps.evaluate_selection(bundled.array, selection.indices, bundled.domains)
    rows = [line.split() for line in text.splitlines() if re.match(r" +\d+ +\d+ +[a-z]+ ", line)]
    assert [int(row[0]) for row in rows] == list(range(1, 13))
    assert [int(row[1]) for row in rows] == selection.indices.tolist()
    assert [row[2] for row in rows] == bundled.domains[selection.indices].tolist()
    plain = [[cell for cell in row if cell != "+"] for row in rows]
    assert [float(row[7]) for row in plain] == pytest.approx(selection.radii, abs=0.006)
    assert float(plain[-1][6]) == pytest.approx(judged.random_labels_covered.mean, abs=0.06)
    assert float(plain[-1][8]) == pytest.approx(judged.random_covering_radius.mean, abs=0.006)
    typicality = moefps.typicality(bundled.array)[selection.indices]
    assert [float(row[9]) for row in plain] == pytest.approx(typicality, abs=0.51)
    # Farther apart than random picks after every pick.
    assert all(float(row[7]) < float(row[8]) for row in plain)


def test_picks_until_covered():
    labels = np.array([0, 0, 1, 2, 2])
    assert picks_until_covered(labels, np.array([3, 4, 0, 2, 1])) == 4
    assert picks_until_covered(labels, np.array([0, 2, 3])) == 3
    assert picks_until_covered(labels, np.array([0, 1, 2])) is None


def test_what_it_keeps_is_what_the_other_commands_take(here, cli):
    result = cli("demo", "--save", "kept")
    assert sorted(path.name for path in Path("kept").iterdir()) == ["X.npy", "labels.csv", "source.json"]
    bundled = bundled_fingerprints()
    np.testing.assert_array_equal(np.load("kept/X.npy"), bundled.array)
    header, first, *_ = Path("kept/labels.csv").read_text(encoding="utf-8").splitlines()
    assert header == "sample,id,label,group,n_tokens"
    assert first.split(",")[:3] == ["0", bundled.ids[0], "python"]
    assert json.loads(Path("kept/source.json").read_text(encoding="utf-8")) == bundled.source
    shown = [line.split()[1:] for line in result.stdout.partition("next:\n")[2].splitlines()]
    assert [words[0] for words in shown] == ["info", "distance", "select"]
    outputs = [cli(*words).stdout for words in shown]
    assert re.search(r"labels covered, of 8 +8 ", outputs[2])


def test_a_folder_that_cannot_be_used_is_refused(here, cli):
    Path("kept").mkdir()
    Path("kept/source.json").touch()
    assert "exists already" in cli("demo", "--save", "kept", code=2).stderr
    assert "the folder no does not exist" in cli("demo", "--save", "no/kept", code=2).stderr
    assert "is a file, expected a folder" in cli("demo", "--save", "kept/source.json", code=2).stderr
    cli("demo", "--save", "kept", "--overwrite")
    assert len(list(Path("kept").iterdir())) == 3


@pytest.mark.parametrize("changes", [{"NO_COLOR": "1", "COLUMNS": "10"}, {"PYTHONIOENCODING": "ascii"}])
def test_it_runs_wherever_the_output_goes(changes, process, monkeypatch):
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    done = process("demo")
    assert "\x1b" not in done.stdout
    assert "every domain seen after 8 picks" in done.stdout
    assert done.stderr == ""


@pytest.mark.skipif(sys.platform != "linux", reason="openpty and its window size, as Linux has them")
@pytest.mark.parametrize("columns", [80, 20])
def test_a_terminal_of_any_width(columns, start_process, monkeypatch):
    import os

    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = os.openpty()
    running = start_process("demo", stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    parts = []
    while True:
        try:
            part = os.read(ours, 1 << 16)
        except OSError:  # how Linux says that the other side is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(ours)
    text = b"".join(parts).decode()
    assert running.wait(60) == 0, text
    assert "Traceback" not in text
    assert ("typicality" in text) == (columns >= 80)
    assert "every domain seen after 8 picks" in text


@pytest.mark.alone
@pytest.mark.skipif(sys.platform == "win32", reason="the time of a child process is told on POSIX")
def test_it_takes_less_than_five_seconds(process):
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process("demo")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Of the processor: what else a machine does must not fail this.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5
