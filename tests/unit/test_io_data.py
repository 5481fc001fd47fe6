"""What `inspect_fingerprints` sees, and what planted data are like."""

from __future__ import annotations

import numpy as np
import pytest

from moefps.errors import ArgumentError, ShapeError
from moefps.io import inspect_fingerprints, planted_fingerprints
from moefps.io import inspection as inspection_module


def sound(n_samples=20, n_layers=3, n_experts=8, dtype="float32"):
    rng = np.random.default_rng(0)
    return rng.dirichlet(np.ones(n_experts), size=(n_samples, n_layers)).astype(dtype)


def found(X):
    return {finding.name: finding for finding in inspect_fingerprints(X).findings}


@pytest.fixture(params=["one chunk", "many chunks"])
def chunks(request, monkeypatch):
    """Run once with all samples in a chunk, once with two samples in each."""
    if request.param == "many chunks":
        monkeypatch.setattr(inspection_module, "_CHUNK_BYTES", 2 * 3 * 8 * 4)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_sound_data(dtype):
    inspection = inspect_fingerprints(sound(dtype=dtype))
    assert not inspection.has_problems
    assert inspection.findings == ()
    assert inspection.smallest_row_sum == pytest.approx(1, abs=2e-3)
    assert inspection.largest_row_sum == pytest.approx(1, abs=2e-3)


@pytest.mark.usefixtures("chunks")
def test_all_problems_are_found_in_one_pass():
    X = sound()
    X[3, 1, 2] = np.nan
    X[7, 0, :] = np.nan
    X[5, 2, 1] = np.inf
    X[9, 1, 4] -= 2
    X[11, 2] = 0
    X[13, 0] *= 1.5
    X[14, 0] *= 1.25
    X[17] = X[2]
    X[:, 1, 7] = 0
    findings = found(X)
    places = {name: (f.count, f.sample, f.layer, f.expert) for name, f in findings.items()}
    assert places["NaN"] == (9, 3, 1, 2)
    assert places["infinity"] == (1, 5, 2, 1)
    assert places["negative"] == (1, 9, 1, 4)
    assert places["all-zero row"] == (1, 11, 2, None)
    assert places["expert never used"] == (1, None, 1, 7)
    assert findings["row sum not 1"].sample == 0
    assert "worst sum -1" in findings["row sum not 1"].detail
    assert findings["exact duplicate"].detail == "equals sample 2"
    assert [finding.is_problem for finding in inspect_fingerprints(X).findings] == [True] * 5 + [False] * 2


@pytest.mark.usefixtures("chunks")
def test_a_constant_layer_and_progress():
    X = sound()
    X[:, 1] = X[0, 1]
    seen = []
    inspection = inspect_fingerprints(X, progress=lambda done, total: seen.append((done, total)))
    assert [(finding.name, finding.layer) for finding in inspection.findings] == [("constant layer", 1)]
    assert seen[-1] == (20, 20)


def test_infinities_of_both_signs_in_a_row_are_not_called_nan():
    X = sound()
    X[4, 0, :2] = np.inf, -np.inf
    findings = found(X)
    assert findings["infinity"].count == 2
    assert "NaN" not in findings


def test_large_numbers_do_not_overflow():
    X = sound(dtype="float16")
    X[0, 0] = 60000
    assert "row sum not 1" in found(X)
    assert "infinity" not in found(X)


def test_small_sizes():
    assert "one expert" in found(np.ones((3, 2, 1)))
    assert "one sample" in found(sound(1))
    with pytest.raises(ShapeError):
        inspect_fingerprints(np.ones((3, 2)))


def test_fortran_order_and_views_are_the_same():
    X = sound()
    X[3, 1, 2] = -1
    expected = inspect_fingerprints(X)
    assert inspect_fingerprints(np.asfortranarray(X)) == expected
    assert inspect_fingerprints(np.repeat(X, 2, axis=0)[::2]) == expected


def test_planted_data_are_sound_and_repeatable():
    planted = planted_fingerprints(500, 4, 16, n_behaviours=6)
    again = planted_fingerprints(500, 4, 16, n_behaviours=6)
    other = planted_fingerprints(500, 4, 16, n_behaviours=6, seed=1)
    assert np.array_equal(planted.array, again.array)
    assert not np.array_equal(planted.array, other.array)
    assert planted.array.dtype == np.float32
    assert not inspect_fingerprints(planted.array).has_problems
    assert np.bincount(planted.labels).tolist() == planted.sizes.tolist()
    assert planted.sizes.sum() == 500
    assert planted.sizes[-1] == 3
    assert planted.sizes[0] > 100
    assert (np.diff(planted.sizes) <= 0).all()


def test_samples_of_a_behaviour_are_alike():
    planted = planted_fingerprints(400, 6, 32, n_behaviours=5)
    X = planted.array.cumsum(axis=2).reshape(400, -1)
    centres = np.stack([X[planted.labels == label].mean(axis=0) for label in range(5)])
    nearest = np.abs(X[:, np.newaxis] - centres).sum(axis=2).argmin(axis=1)
    assert (nearest == planted.labels).all()


@pytest.mark.parametrize(
    "sizes", [{"n_samples": 5}, {"n_layers": 0}, {"n_experts": 1}, {"contrast": 2.0}, {"rarest": 0}, {"n_tokens": 0}]
)
def test_planted_sizes_are_checked(sizes):
    with pytest.raises(ArgumentError, match=r"found .*; accepted:"):
        planted_fingerprints(**sizes)
