"""The benchmarks' own code, on small data and without the libraries that only `make bench` installs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    not (ROOT / "benches" / "python").is_dir(), reason="the benchmarks are not beside these tests"
)


@pytest.fixture(autouse=True)
def root_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def quick(section, output):
    """Run a section of the benchmarks on one thread and give its results and what it has printed."""
    command = [sys.executable, "-m", "benches.python", "--quick", "--only", section, "--threads", "1"]
    environment = {**os.environ, "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*command, "--output", str(output)],
        cwd=ROOT,
        env=environment,
        check=False,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    return json.loads(output.read_text(encoding="utf-8"))[section], done.stdout


def test_precision(tmp_path):
    rows, text = quick("precision", tmp_path / "out.json")
    assert {row["ground"] for row in rows} == {"index", "values", "discrete", "positions"}
    for row in rows:
        assert 0 <= row["float32"] <= 1, row
        assert 0 <= row["float64"] <= 1, row
        assert f"| {row['data']} | {row['ground']} |" in text


def test_comparison(tmp_path):
    by_threads, text = quick("compare", tmp_path / "out.json")
    found = by_threads["1"]["result"]
    whole, *others = found["contenders"]
    assert (found["tasks"], found["groups"]) == (12, 9)
    assert whole["smallest_group"] > 0
    assert whole["anonymous_bytes"] > 0 or sys.platform != "linux"
    # The kernel and plain numpy are always there; numba only where it is installed.
    assert len(others) >= 2
    assert all(way["difference"] < 1e-6 for way in others), others
    assert "8,000 pairs of choices" in text


@pytest.mark.slow
def test_selection(tmp_path):
    pytest.importorskip("skmatter")
    by_threads, text = quick("select", tmp_path / "out.json")
    for case in by_threads["1"]["result"]:
        exact = [c for c in case["contenders"] if "same" in c]
        assert len(exact) >= 4
        assert all(c["same"] for c in exact), case["data"]
        assert all(seconds > 0 for c in case["contenders"] for seconds in c["seconds"])
    assert "**no**" not in text


def test_all_in_turn():
    from benches.python.timing import Contender, race

    calls = []
    contenders = [
        Contender("a", lambda: calls.append("a"), 3, inspect=lambda answer: {"found": answer}),
        Contender("b", lambda: calls.append("b"), 2, scale=10.0, warm_up=lambda: calls.append("warm-up")),
    ]
    a, b = race(contenders, lambda: calls.append("round"), pause=0)
    assert calls == ["a", "warm-up", "round", "a", "b", "round", "a", "b", "round", "a"]
    assert (len(a["seconds"]), len(b["seconds"])) == (3, 2)
    assert a["found"] is None


def test_ratios_are_of_the_same_round():
    from benches.python.timing import ratios

    assert ratios([2.0, 9.0], [1.0, 3.0, 100.0]) == {"median": 2.5, "low": 2.0, "high": 3.0}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.001234, "0.00123"), (1.0, "1.00"), (9.999, "10.0"), (56.78, "56.8"), (78923.0, "78,900")],
)
def test_three_digits(value, text):
    from benches.python.report import number

    assert number(value) == text


def test_results_go_between_the_marks(tmp_path):
    from benches.python import report

    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n", encoding="utf-8")
    for _ in range(2):
        report.insert("new\n", page)
        assert page.read_text(encoding="utf-8") == f"before\n{report.BEGIN}\n\nnew\n\n{report.END}\nafter\n"
    page.write_text("no marks", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"page\.md"):
        report.insert("new\n", page)


def test_the_page_has_the_marks():
    from benches.python import report

    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert page.count(report.BEGIN) == page.count(report.END) == 1


def test_features_are_those_of_the_reference():
    from benches.python.data import cdf_features, random_fingerprints, windows

    import reference

    X = random_fingerprints(20, 3, 7)
    expected = reference.features(X).reshape(20, 3, 7)[:, :, :-1].reshape(20, -1)
    np.testing.assert_allclose(cdf_features(X, "float64"), expected, rtol=0, atol=1e-14)
    real = windows(small=True).array
    np.testing.assert_allclose(real.sum(axis=2), 1.0, atol=1e-5)


def test_windows_are_those_of_the_tests(esft_windows):
    from benches.python.data import windows

    np.testing.assert_allclose(windows().array, esft_windows, rtol=0, atol=1e-7)
