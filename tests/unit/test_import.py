"""``import moefps`` is light, and says what it offers."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import pytest

import moefps

pytestmark = pytest.mark.alone
HEAVY = ("torch", "polars", "rich", "click", "scipy", "sklearn", "altair", "jinja2", "pandas")
PUBLIC = [
    "ExpertFocus",
    "FarthestPointSampler",
    "RoutingAnalyzer",
    "RoutingConsistency",
    "RoutingMetrics",
    "Selection",
    "SelectionEvaluation",
    "evaluate_selection",
    "expert_focus",
    "fps",
    "mean_distances",
    "open_comparison",
    "open_metrics",
    "routing_consistency",
    "routing_metrics",
    "select",
    "typicality",
    "wasserstein_cross",
    "wasserstein_matrix",
    "write_report",
]
ERRORS = ["ArgumentError", "DataError", "DtypeError", "DuplicateWarning", "FileError", "MoefpsError", "ShapeError"]


def in_a_fresh_process(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "use",
    [
        "",
        "dir(moefps)",
        "import numpy; moefps.select(numpy.full((2, 1, 2), 0.5), 1)",
        "import numpy; moefps.wasserstein_matrix(numpy.full((2, 1, 2), 0.5))",
    ],
    ids=["import", "dir", "select", "matrix"],
)
def test_nothing_heavy_is_imported(use):
    loaded = in_a_fresh_process(f"import json, sys, moefps\n{use}\nprint(json.dumps(sorted(sys.modules)))")
    assert not {name.split(".")[0] for name in loaded} & set(HEAVY)


def test_import_costs_little_more_than_numpy():
    """At most 0.05 s; the best of several runs, as other work on the machine only ever adds to it."""
    code = (
        "import json, time, numpy; t = time.perf_counter(); import moefps; print(json.dumps(time.perf_counter() - t))"
    )
    assert min(in_a_fresh_process(code) for _ in range(7)) <= 0.05


def test_the_first_call_costs_little_more():
    code = (
        "import json, time, numpy; X = numpy.full((4, 2, 3), 1 / 3); t = time.perf_counter(); import moefps; "
        "moefps.wasserstein_matrix(X); print(json.dumps(time.perf_counter() - t))"
    )
    assert min(in_a_fresh_process(code) for _ in range(7)) <= 0.15


@pytest.mark.parametrize("name", PUBLIC + ERRORS)
def test_public_names(name):
    assert name in moefps.__all__
    assert name in dir(moefps)
    thing = getattr(moefps, name)
    assert inspect.getdoc(thing)
    assert getattr(moefps, name) is thing


def test_all_is_what_is_there():
    assert len(set(moefps.__all__)) == len(moefps.__all__)
    for name in moefps.__all__:
        assert hasattr(moefps, name), name
    namespace: dict[str, object] = {}
    exec("from moefps import *", namespace)
    assert set(moefps.__all__) <= set(namespace)


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'wasserstien_matrix'"):
        moefps.wasserstien_matrix  # noqa: B018


def test_version_is_that_of_the_distribution():
    from importlib.metadata import version

    assert moefps.__version__ == version("moefps")


@pytest.mark.parametrize("name", [n for n in PUBLIC if n[0].islower()])
def test_documentation_says_what_users_need(name):
    text = inspect.getdoc(getattr(moefps, name))
    for section in ("Parameters", "Returns", "Raises", "Examples"):
        assert f"{section}\n---" in text, section


def test_errors_derive_from_what_numpy_users_catch():
    assert issubclass(moefps.ShapeError, ValueError)
    assert issubclass(moefps.DataError, ValueError)
    assert issubclass(moefps.ArgumentError, ValueError)
    assert issubclass(moefps.DtypeError, TypeError)
    assert issubclass(moefps.FileError, OSError)
    assert issubclass(moefps.DuplicateWarning, UserWarning)
    for name in ERRORS:
        if name.endswith("Error"):
            assert issubclass(getattr(moefps, name), moefps.MoefpsError)
