"""Statistics over tasks, against SciPy, against plain loops, and on data whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from moefps import ArgumentError
from moefps.comparison import association, resampling, usage

RNG = np.random.default_rng(5)


@given(st.integers(2, 40), st.integers(0, 2**32 - 1), st.booleans())
def test_correlations_are_those_of_scipy(n_experts, seed, has_ties):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, n_experts))
    if has_ties:
        x, y = np.round(x), np.round(y)
    r, rho = association.pearson(x, y), association.spearman(x, y)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert np.isnan(r)
        assert np.isnan(rho)
        return
    assert r == pytest.approx(scipy.stats.pearsonr(x, y).statistic, abs=1e-12)
    assert rho == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-12)
    assert association.slope(x, y) == pytest.approx(scipy.stats.linregress(x, y).slope, abs=1e-10)


def test_what_rounding_leaves_of_equal_values_is_no_correlation():
    x = np.full(7, 0.1) * 3
    assert np.isnan(association.pearson(x, np.arange(7.0)))
    assert association.spearman(np.array([0.1 + 0.2, 0.3, 1.0]), np.array([0.0, 0.0, 1.0])) == pytest.approx(1.0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_q_values_are_those_of_scipy(p):
    found = association.benjamini_hochberg(np.array(p))
    np.testing.assert_allclose(found, scipy.stats.false_discovery_control(p), atol=1e-12)


def test_the_test_of_signs_counts_every_flip():
    x, y = RNG.normal(size=(2, 3, 10))
    everything = np.array([[1 - 2 * (i >> e & 1) for e in range(10)] for i in range(1024)])
    observed = np.abs((x * y).sum(axis=1))
    exact = [(np.abs(everything @ (x * y)[layer]) >= observed[layer] - 1e-12).mean() for layer in range(3)]
    found = association.sign_flip_p(x, y, n_resamples=20_000, seed=0)
    np.testing.assert_allclose(found, exact, atol=0.015)
    np.testing.assert_array_equal(found[1:2], association.sign_flip_p(x, y, n_resamples=20_000, seed=0)[1:2])
    # Nothing to see is never significant.
    assert association.sign_flip_p(np.zeros((1, 4)), np.ones((1, 4)), n_resamples=99, seed=0).tolist() == [1.0]


@pytest.mark.parametrize("load", ["even", "uneven"])
def test_p_is_uniform_where_there_is_no_shift(load):
    """Symmetric noise on both differences, larger for busy experts: 5 % of p values are below 0.05."""
    size = np.ones(64) if load == "even" else np.random.default_rng(0).lognormal(sigma=1.5, size=64)
    x, y = np.random.default_rng(1).normal(size=(2, 400, 64)) * size
    p = association.sign_flip_p(x, y, n_resamples=400, seed=2)
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.01
    assert 0.02 < (p <= 0.05).mean() < 0.09


def test_divergences():
    u, v = usage.shares(RNG.random((2, 5, 16)))
    expected = [jensenshannon(a, b, base=2) ** 2 for a, b in zip(u, v, strict=True)]
    np.testing.assert_allclose(usage.js_divergence(u, v), expected, atol=1e-12)
    np.testing.assert_allclose(usage.usage_entropy(u), scipy.stats.entropy(u, axis=1), atol=1e-12)
    assert usage.js_divergence(u, u).tolist() == [0.0] * 5
    nothing = usage.shares(np.zeros((1, 3)))
    assert np.isnan(usage.js_divergence(nothing, nothing)).all()
    assert np.isnan(usage.usage_entropy(nothing)).all()
    assert np.isnan(usage.total_variation(nothing, nothing)).all()


def test_resamples_are_means_over_the_tasks_that_were_drawn():
    sums, counts = RNG.random((6, 2, 3)), RNG.integers(1, 5, size=(6, 2))
    taken = resampling.resample_tasks(6, 50, seed=3)
    found = resampling.resampled_ratios(taken, sums, counts)
    for r, row in enumerate(taken.astype(int)):
        drawn = np.repeat(np.arange(6), row)
        expected = sums[drawn].sum(axis=0) / counts[drawn].sum(axis=0)[:, None]
        np.testing.assert_allclose(found[r], expected, atol=1e-12)
    assert np.isnan(resampling.resampled_ratios(np.array([[1.0, 0.0]]), [0.0, 1.0], [0, 1])).all()


def test_intervals_of_means_cover():
    """Tasks of different sizes and means: 95 % intervals hold the truth in 95 % of repeats, about."""
    rng = np.random.default_rng(8)
    hits = 0
    for repeat in range(300):
        counts = rng.integers(5, 20, size=80)
        means = rng.normal(1.0, 0.5, size=80)
        taken = resampling.resample_tasks(80, 300, seed=repeat)
        lo, hi = resampling.percentile_interval(resampling.resampled_ratios(taken, means * counts, counts))
        hits += bool(lo <= 1.0 <= hi)
    assert 0.90 < hits / 300 < 0.98


def test_the_reflected_interval_of_a_divergence_covers_where_percentiles_do_not():
    """Noise raises the divergence of two samples; reflecting it takes that off again."""
    rng = np.random.default_rng(9)
    u = usage.shares(rng.random(32) + 0.2)
    v = usage.shares(u + 0.3 * rng.random(32))
    truth = float(usage.js_divergence(u, v))
    hits = {"basic": 0, "percentile": 0}
    for repeat in range(200):
        a, b = rng.multinomial(40, u, size=60), rng.multinomial(40, v, size=60)
        taken = resampling.resample_tasks(60, 200, seed=repeat)
        estimate = usage.js_divergence(usage.shares(a.sum(axis=0) * 1.0), usage.shares(b.sum(axis=0) * 1.0))
        resampled = usage.js_divergence(usage.shares(taken @ a), usage.shares(taken @ b))
        lo, hi = resampling.basic_interval(estimate, resampled, least=0.0)
        hits["basic"] += bool(lo <= truth <= hi)
        lo, hi = resampling.percentile_interval(resampled)
        hits["percentile"] += bool(lo <= truth <= hi)
    assert hits["basic"] / 200 > 0.85
    assert hits["percentile"] < 0.8 * hits["basic"]


def test_exchanging_halves_shows_what_chance_makes():
    rng = np.random.default_rng(10)
    u = usage.shares(rng.random(16))
    a, b = (rng.multinomial(30, u, size=(40, 1)).astype(float) for _ in range(2))
    by_chance = usage.exchanged_tv(a, b, n_resamples=100, seed=0)
    observed = usage.total_variation(usage.shares(a.sum(axis=0)), usage.shares(b.sum(axis=0)))
    assert 0.5 < float(observed[0] / by_chance[0]) < 2
    shifted = usage.exchanged_tv(a, np.roll(b, 8, axis=-1), n_resamples=100, seed=0)
    assert shifted[0] < 0.5 * usage.total_variation(u, np.roll(u, 8))


def test_refusals():
    with pytest.raises(ArgumentError, match="n_tasks: 0; accepted: at least 1"):
        resampling.resample_tasks(0, 10, seed=0)
    with pytest.raises(ArgumentError, match="level: 95; accepted: between 0 and 1"):
        resampling.percentile_interval(np.zeros((4, 2)), 95)
