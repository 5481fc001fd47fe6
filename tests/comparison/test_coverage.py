"""Intervals hold the truth in 95 ± 3 % of 400 repeats, and p is even where there is no shift."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from comparison.task_worlds import make_world
from moefps.comparison.association import sign_flip_p
from moefps.comparison.correlating import correlation_intervals
from moefps.comparison.joint import Resamples, measure_layer
from moefps.comparison.resampling import mean_with_interval, resample_tasks
from moefps.comparison.usage import exchanged_halves, js_divergence

R = 100


def measured(world):
    n_tasks = world.groups[0]["tool"].n_units
    draws = Resamples(resample_tasks(n_tasks, R, seed=0), exchanged_halves(n_tasks, R, seed=0))
    options = {"whole": "tool", "leakage": ("tool", "canonical"), "draws": draws}
    return [measure_layer(groups, ("tool",), **options) for groups in world.groups]


def held(truth, lo, hi):
    return float(np.mean((lo <= truth) & (truth <= hi)))


@pytest.mark.parametrize(
    ("world", "most_width"),
    [
        ({"n_experts": 16, "n_tasks": 20, "signal": 0.3}, 2.0),
        ({"n_experts": 32, "n_tasks": 40, "signal": 5, "load": "uneven"}, 1.5),
        ({"n_experts": 16, "n_tasks": 60, "signal": 100}, 0.25),
    ],
)
def test_usage_that_is_shifted(world, most_width):
    made = make_world(np.random.default_rng(1), **world)
    layers = measured(made)
    ends = correlation_intervals([layer.moments for layer in layers])
    assert 0.92 <= held(made.r, *ends.T) <= 0.98
    assert np.ptp(ends, axis=1).mean() < most_width
    js = np.array([[layer.rows["tool"][f"usage_js_{end}"] for end in ("lo", "hi")] for layer in layers])
    assert 0.92 <= held(float(js_divergence(*made.usage)), *js.T) <= 0.98
    lo, hi = (np.stack([layer.experts[f"delta_u_{end}"] for layer in layers]) for end in ("lo", "hi"))
    there = ~np.isnan(lo)
    delta = np.broadcast_to(np.subtract(*made.usage), lo.shape)
    assert 0.92 <= held(delta[there], lo[there], hi[there]) <= 0.98


@pytest.mark.parametrize("load", ["even", "uneven"])
def test_usage_that_is_not_shifted(load):
    """The divergence is at its least, 0, which its interval holds; p is even, whatever the load."""
    made = make_world(np.random.default_rng(2), n_experts=32, n_tasks=30, signal=0, load=load)
    layers = measured(made)
    lo = np.array([layer.rows["tool"]["usage_js_lo"] for layer in layers])
    assert 0.92 <= held(0.0, lo, np.inf) <= 0.98
    # Differences of two studies have nothing to do with each other.
    deltas = np.stack([layer.delta for layer in layers])
    p = sign_flip_p(deltas[:, 0], np.roll(deltas[:, 1], 1, axis=0), n_resamples=400, seed=3)
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.01
    assert 0.03 <= (p <= 0.05).mean() <= 0.08
    assert 0.44 <= (p <= 0.5).mean() <= 0.56


@pytest.mark.parametrize(("n_tasks", "skew"), [(5, 0.1), (20, 0.2), (80, 0.4)])
def test_means_over_tokens_of_uneven_tasks(n_tasks, skew):
    rng = np.random.default_rng(3)
    counts = np.maximum(3, np.round(50 * rng.lognormal(sigma=0.6, size=(n_tasks, 400))))
    means = rng.lognormal(-(skew**2) / 2, skew, size=counts.shape) + rng.normal(size=counts.shape) / np.sqrt(counts)
    _, lo, hi = mean_with_interval(means * counts, counts, resample_tasks(n_tasks, 400, seed=0))
    assert 0.92 <= held(1.0, lo, hi) <= 0.98
