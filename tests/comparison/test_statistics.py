"""Statistics over tasks, against SciPy, against plain loops, and on data whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from moefps import ArgumentError
from moefps.comparison import association, correlating, jackknife, joint, measures, products, resampling, usage

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


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(0, 5))
def test_q_values_are_those_of_scipy(p, n_untested):
    """Layers without a test do not make the others' stricter."""
    values = RNG.permutation([*p, *[np.nan] * n_untested])
    tested = ~np.isnan(values)
    found = association.benjamini_hochberg(values)
    np.testing.assert_allclose(found[tested], scipy.stats.false_discovery_control(values[tested]), atol=1e-12)
    assert np.isnan(found[~tested]).all()


@pytest.mark.parametrize("shape", [(30, 700, 50), (3, 5, 4), (1, 4096, 7), (200, 300, 400)])
def test_products_in_pieces_are_products(shape):
    n_rows, depth, n_columns = shape
    a, b = RNG.normal(size=(n_rows, depth)), RNG.normal(size=(depth, n_columns))
    np.testing.assert_allclose(products.product(a, b), a @ b, atol=1e-11)


def test_what_is_equal_but_for_rounding_counts_as_as_large():
    """Of 16 flips, none and all give the sum that was observed, added up in whatever order."""
    x, y = RNG.normal(size=(2, 60, 4))
    assert association.sign_flip_p(x, y, n_resamples=5000, seed=1).min() > 0.1


def test_a_correlation_is_known_from_the_tasks_of_the_smaller_group():
    rng = np.random.default_rng(3)
    counts = rng.integers(1, 9, size=(2, 2, 10, 5)).astype(float)
    counts[1, :, 4:] = 0
    groups = {
        name: joint.GroupUsage((of[0], of[1]), None, n_units)
        for name, of, n_units in (("tool", counts[0], 10), ("canonical", counts[1], 4))
    }
    draws = joint.Resamples(resampling.resample_tasks(10, 20, seed=0), usage.exchanged_halves(10, 20, seed=0))
    for pair in (("tool", "canonical"), ("canonical", "tool")):
        found = joint.measure_layer(groups, [], whole="all", leakage=pair, draws=draws)
        assert found.moments is not None
        assert found.moments.n_tasks == 4


def test_the_covariance_of_noise_is_that_of_many_draws():
    """The sums of squares and of products of two correlated noises, against draws of them."""
    rng = np.random.default_rng(8)
    tasks = rng.normal(size=(40, 2, 3)) * [1.0, 2.0, 0.5]
    tasks[:, 1] += 0.8 * tasks[:, 0]
    delta = np.array([[1.0, -2.0, 1.0], [0.5, 0.5, -1.0]])
    found = correlating.find_moments(delta, [tasks[:, 0], tasks[:, 1]], 40)
    signs = rng.normal(size=(200_000, 40))
    x, y = (signs @ tasks[:, side] / np.linalg.norm(delta[side]) for side in range(2))
    sums = np.stack([(x * x).sum(axis=1), (y * y).sum(axis=1), (x * y).sum(axis=1)])
    np.testing.assert_allclose(found.noise, np.cov(sums), rtol=0.05)
    np.testing.assert_allclose(found.sums, [1, 1, found.r] - sums.mean(axis=1), rtol=0.02)


def test_a_difference_of_means_over_layers_is_resampled_as_one():
    """Docstrings against the rest: both means of the same draws, each layer counting as much as any other."""
    rng = np.random.default_rng(9)
    counts = rng.integers(1, 9, size=(2, 12, 3)) * np.array([1, 4, 9])
    sums = counts * rng.random(counts.shape)
    sums[1] += 0.7 * sums[0]
    taken = resampling.resample_tasks(12, 300, seed=0)
    means = [measures.mean_over_layers(of, count, taken) for of, count in zip(sums, counts, strict=True)]
    value, lo, hi = measures.with_interval(means[1].less(means[0]))

    def difference(weights):
        one, other = ((weights @ of / (weights @ count)).mean() for of, count in zip(sums, counts, strict=True))
        return other - one

    everything = np.ones(12)
    assert value == pytest.approx(difference(everything))
    without = [difference(everything - one) for one in np.eye(12)]
    half = jackknife.student_t(12) * np.sqrt(11 / 12 * ((np.array(without) - value) ** 2).sum())
    ends = np.quantile([difference(weights) for weights in taken], [0.025, 0.975])
    stretch = max(1.0, 2 * half / np.ptp(ends))
    assert (lo, hi) == pytest.approx(tuple(value + stretch * (ends - value)))


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
    found = resampling.resampled_ratios(taken, sums, counts[..., None])
    for r, row in enumerate(taken.astype(int)):
        drawn = np.repeat(np.arange(6), row)
        expected = sums[drawn].sum(axis=0) / counts[drawn].sum(axis=0)[:, None]
        np.testing.assert_allclose(found[..., r], expected, atol=1e-12)
    assert np.isnan(resampling.resampled_ratios(np.array([[1.0, 0.0]]), [0.0, 1.0], [0, 1])).all()


def test_what_a_task_does_is_what_leaving_it_out_does():
    sums, counts = RNG.random((6, 3)), RNG.integers(0, 5, size=(6, 3))
    counts[0] += 1
    counts[1] += 1
    found = jackknife.ratio_influences(sums * (counts > 0), counts)
    for task in range(6):
        others = np.arange(6) != task
        without = (sums * (counts > 0))[others].sum(axis=0) / counts[others].sum(axis=0)
        n = (counts > 0).sum(axis=0)
        whole = (sums * (counts > 0)).sum(axis=0) / counts.sum(axis=0)
        np.testing.assert_allclose(found[task], (whole - without) * np.sqrt((n - 1) / n), atol=1e-12)
    assert np.isnan(jackknife.ratio_influences([1.0, 0.0], [3, 0])).all()
    quantiles = [jackknife.student_t(n) for n in (2, 3, 4, 11, 164)]
    assert quantiles == pytest.approx(scipy.stats.t.ppf(0.975, [1, 2, 3, 10, 163]))


def test_an_interval_is_as_wide_as_the_jackknife_says_and_as_skewed_as_the_resamples():
    resampled = np.linspace(0, 3, 1001) ** 2
    lo, hi = np.quantile(resampled, [0.025, 0.975])
    narrow = resampling.percentile_interval(2.0, resampled, 0.1, 30)
    assert narrow == pytest.approx((lo, hi))
    wide = resampling.percentile_interval(2.0, resampled, 5.0, 30)
    assert wide[1] - wide[0] == pytest.approx(10 * jackknife.student_t(30))
    assert (wide[1] - 2) / (2 - wide[0]) == pytest.approx((hi - 2) / (2 - lo))
    few = np.where(np.arange(1001) % 3 == 0, resampled, np.nan)
    assert np.isnan(resampling.percentile_interval(2.0, few, 0.1, 30)).all()
    mean, low, high = resampling.mean_with_interval(
        np.array([9.0, 0.0, 9.5]), np.array([10, 1, 10]), resampling.resample_tasks(3, 200, seed=0), least=0, most=1
    )
    assert 0 < low < mean < high == 1


@pytest.mark.parametrize("case", range(4))
def test_the_ends_for_a_correlation_are_at_the_distance_that_is_wanted(case):
    """Against the definition, minimised by SciPy: the squared distance of the sums from the nearest that have an r."""
    rng = np.random.default_rng(case)
    truth = rng.normal(size=(2, 12))
    truth[1] += (0.0, 0.7, 2.0, -1.0)[case] * truth[0]
    truth -= truth.mean(axis=1, keepdims=True)
    tasks = (0.06, 0.03, 0.05, 0.1)[case] * rng.normal(size=(2, 25, 12))
    tasks[1] += 0.5 * tasks[0]
    moments = correlating.find_moments(truth + tasks.sum(axis=1), tasks, 25)
    lo, hi = correlating.correlation_intervals([moments])[0]
    assert lo < np.corrcoef(truth)[0, 1] < hi
    gram = np.array([[1, moments.r], [moments.r, 1]])

    def root_of(matrix):
        values, vectors = np.linalg.eigh(matrix)
        return vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T

    def covariance(sums):
        root = root_of(gram)
        turned = np.linalg.solve(root, root_of(root @ sums[[[0, 2], [2, 1]]] @ root)) @ np.linalg.inv(root)
        (p, q), (s, t) = turned
        forms = np.array([[2 * p, 2 * q, 0, 0], [0, 0, 2 * s, 2 * t], [s, t, p, q]])
        return forms @ moments.linear @ forms.T + moments.noise

    def distance(r):
        sums = np.array([*np.maximum(moments.sums[:2], 1e-6), 0.0])
        for _ in range(3):
            sums[2] = r * np.sqrt(sums[0] * sums[1])
            precision = np.linalg.inv(covariance(sums))

            def far(sizes, precision=precision):
                off = moments.sums - [sizes[0] ** 2, sizes[1] ** 2, r * sizes[0] * sizes[1]]
                return off @ precision @ off

            best = scipy.optimize.minimize(far, np.sqrt(sums[:2]), method="Nelder-Mead", tol=1e-10)
            sums = np.array([*best.x**2, 0.0])
        return best.fun

    for end in (lo, hi):
        if abs(end) < 1:
            assert distance(end) == pytest.approx(jackknife.student_t(25) ** 2, rel=1e-3)
        else:
            assert distance(end) <= jackknife.student_t(25) ** 2


def test_a_correlation_that_cannot_be_told_may_be_any():
    rng = np.random.default_rng(6)
    tasks = rng.normal(size=(2, 20, 8))
    tasks -= tasks.mean(axis=2, keepdims=True)
    noise, none = (correlating.find_moments(scale * tasks.sum(axis=1), tasks, 20) for scale in (1.0, 1e-3))
    assert correlating.correlation_intervals([noise, none]).tolist() == [[-1, 1], [-1, 1]]
    # Without noise there is nothing to doubt; with two experts there is nothing between -1 and 1.
    sure = correlating.find_moments(np.array([[1.0, -2.0, 1.0], [3.0, -1.0, -2.0]]), np.zeros((2, 20, 3)), 20)
    two = correlating.find_moments(np.array([[1.0, -1.0], [-2.0, 2.0]]), 1e-3 * tasks[..., :2], 20)
    assert correlating.correlation_intervals([sure])[0] == pytest.approx([sure.r] * 2, abs=1e-6)
    assert correlating.correlation_intervals([two])[0] == pytest.approx([-1, -1], abs=0.1)
    assert correlating.correlation_intervals([]).shape == (0, 2)


def test_exchanging_halves_shows_what_chance_makes():
    rng = np.random.default_rng(10)
    u = usage.shares(rng.random(16))
    a, b = (rng.multinomial(30, u, size=40).astype(float) for _ in range(2))
    halves = usage.exchanged_halves(40, 100, seed=0)
    by_chance, divergences = usage.exchanged_distances(a, b, halves)
    observed = usage.total_variation(usage.shares(a.sum(axis=0)), usage.shares(b.sum(axis=0)))
    assert 0.5 < observed / by_chance.mean() < 2
    assert usage.divergence_interval(a, b, halves, divergences)[0] == 0
    shifted = usage.exchanged_distances(a, np.roll(b, 8, axis=-1), halves)[0]
    assert shifted.mean() < 0.5 * usage.total_variation(u, np.roll(u, 8))
    # Tasks that differ and cancel out tell nothing of how much there would be over others.
    a = np.array([[10.0, 0.0], [0.0, 10.0]])
    halves = usage.exchanged_halves(2, 20, seed=0)
    for b, expected in ((a[::-1], (0, 1)), (a, (0, 0))):
        assert usage.divergence_interval(a, b, halves, usage.exchanged_distances(a, b, halves)[1]) == expected


def test_refusals():
    with pytest.raises(ArgumentError, match="n_tasks: 0; accepted: at least 1"):
        resampling.resample_tasks(0, 10, seed=0)
