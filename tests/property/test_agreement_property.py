"""Two random traces compared: what the definitions say, for any layout, rows, groups and number of threads."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from moefps.kernels import ChoiceSums, compare_choices
from reference.agreement import COUNTS, SHARES, USAGE, WEIGHTED_COUNTS, WEIGHTED_SUMS, choice_sums

EXACT = (*COUNTS, *WEIGHTED_COUNTS, *USAGE)
PER_PAIR = ("rows_a", "rows_b", "groups")


class Case(NamedTuple):
    """Two traces, and the arguments that go with them."""

    a: tuple[np.ndarray, np.ndarray | None]
    b: tuple[np.ndarray, np.ndarray | None]
    how: dict[str, Any]

    def __repr__(self):
        return f"Case({self.a[0].shape}, {self.b[0].shape}, weights={self.a[1] is not None}, {self.how})"


def make_ids(rng, shape, experts, repeats, emptiness):
    n_tokens, _, k = shape
    ids = np.full(shape, -1, dtype=np.int16)
    for layer, n in enumerate(experts):
        if repeats:
            ids[:, layer] = rng.integers(0, n, (n_tokens, k))
        else:
            filled = min(n, k)
            ids[:, layer, :filled] = rng.random((n_tokens, n)).argsort(axis=1)[:, :filled]
    ids[rng.random(shape) < emptiness] = -1
    ids[rng.random(shape[:2]) < emptiness / 2] = -1
    return ids


def make_weights(rng, ids, values, dtype, signed):
    weights = rng.choice(values, ids.shape).astype(dtype)
    if signed:
        weights *= rng.choice(np.array([-1, 1, 1, 1], dtype=dtype), ids.shape)
    weights[ids < 0] = rng.choice([np.nan, 0, 9, -1])
    return weights


@st.composite
def cases(draw, max_tokens=200):
    n_tokens = draw(st.integers(0, 12) | st.integers(120, max_tokens))
    n_layers, k = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 9, 13]))
    most = draw(st.sampled_from([1, 2, k, k + 3, 40]))
    experts = [draw(st.integers(max(1, most // 2), most)) for _ in range(n_layers)]
    how: dict[str, Any] = {"n_experts": experts}
    how["passive_experts"] = [draw(st.integers(0, min(2, n - 1))) for n in experts]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    repeats, emptiness = draw(st.sampled_from([False, False, True])), draw(st.sampled_from([0, 0.1, 0.7]))
    lengths = n_tokens, n_tokens
    if draw(st.booleans()):
        # Rows in any order, some repeatedly, some not at all, of traces of different lengths.
        lengths = max(1, n_tokens), draw(st.integers(1, 150))
        how |= {f"rows_{side}": rng.integers(0, n, n_tokens) for side, n in zip("ab", lengths, strict=True)}
    ids_a, ids_b = (make_ids(rng, (n, n_layers, k), experts, repeats, emptiness) for n in lengths)
    if lengths[0] == lengths[1]:
        same = rng.random(n_tokens) < draw(st.sampled_from([0, 0.5, 1]))
        ids_b[same] = rng.permuted(ids_a[same], axis=2)
    weights: list[Any] = [None, None]
    if draw(st.sampled_from([True, True, False])):
        values = draw(st.sampled_from([[0, 0.25, 0.5], [0, 1], [0], [1e-7, 3e4, 0], np.linspace(0, 1, 999)]))
        dtypes = draw(st.tuples(*[st.sampled_from(["float16", "float32"])] * 2))
        how["signed_weights"] = draw(st.sampled_from([False, False, True]))
        weights = [
            make_weights(rng, ids, values, dtype, how["signed_weights"])
            for ids, dtype in zip((ids_a, ids_b), dtypes, strict=True)
        ]
        how["require_shares"] = draw(st.booleans())
    if draw(st.booleans()):
        n_groups = draw(st.integers(1, 4))
        how |= {"groups": rng.integers(0, n_groups, n_tokens), "n_groups": n_groups}
        if draw(st.booleans()):
            how["groups"].sort()
    if draw(st.booleans()):
        how["layers"] = draw(st.permutations(range(n_layers)))[: draw(st.integers(1, n_layers))]
    return Case((ids_a, weights[0]), (ids_b, weights[1]), how)


def run(case, **more):
    return compare_choices(*case.a, *case.b, **{**case.how, **more})


def plain(case):
    names = ("n_experts", "layers", "groups", "n_groups", "require_shares")
    how = {name: case.how[name] for name in names if name in case.how}
    sides = list(zip(case.a, case.b, strict=True))
    rows = case.how.get("rows_a"), case.how.get("rows_b")
    return choice_sums(*sides, passive=case.how["passive_experts"], rows=rows, **how)


def layouts(side, kind):
    def change(array):
        if array is None or kind == "c":
            return array
        if kind == "strided":
            return np.repeat(array, 2, axis=0)[::2]
        return array[::-1, :, ::-1].copy()[::-1, :, ::-1]

    return tuple(change(array) for array in side)


def same(a, b, names=None):
    """Equal, to the last bit."""
    for name in names or [field.name for field in dataclasses.fields(ChoiceSums)]:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


@given(case=cases(), kind=st.sampled_from(["c", "strided", "reversed"]))
def test_sums_are_what_the_definitions_say(case, kind):
    case = case._replace(a=layouts(case.a, kind), b=layouts(case.b, kind))
    found, expected = run(case), plain(case)
    for name, array in expected.items():
        value = getattr(found, name)
        if array is None:
            assert value is None, name
            continue
        want = array if "groups" in case.how else array[0]
        assert value.shape == want.shape, name
        if name in EXACT:
            np.testing.assert_array_equal(value, want, err_msg=name)
        else:
            np.testing.assert_allclose(value, want, rtol=1e-11, atol=1e-12, err_msg=name)
    without = run(case, usage=False)
    assert {getattr(without, name) for name in (*USAGE, *SHARES)} == {None}
    same(found, without, ["pairs", "js_sums", *COUNTS])


@given(case=cases())
@settings(max_examples=25)
def test_threads_change_nothing(case):
    one = run(case, n_threads=1)
    for n_threads in (2, 8):
        same(run(case, n_threads=n_threads), one)


@given(case=cases())
@settings(max_examples=25)
def test_exchanging_the_sides_mirrors(case):
    """To the last bit: what is said of a is then said of b, and what is said of both stays."""
    found = run(case)
    how = dict(case.how)
    if "rows_a" in how:
        how |= {"rows_a": how["rows_b"], "rows_b": how["rows_a"]}
    mirrored = compare_choices(*case.b, *case.a, **how)
    for field in dataclasses.fields(ChoiceSums):
        name = field.name
        other = {"a": f"{name[:-2]}_b", "b": f"{name[:-2]}_a"}.get(name[-1] if name[-2] == "_" else "", name)
        np.testing.assert_array_equal(getattr(found, name), getattr(mirrored, other), err_msg=name)


@given(case=cases())
@settings(max_examples=25)
def test_a_trace_against_itself(case):
    """Nothing is apart, whatever order the slots are in and wherever a token repeats."""
    rng = np.random.default_rng(0)
    ids, weights = case.a
    order = rng.random(ids.shape).argsort(axis=2)
    if weights is not None and len(np.unique(weights[ids >= 0])) < 900:
        # Equal weights rank by their slots, which must then stay.
        order = np.broadcast_to(np.arange(ids.shape[2]), ids.shape)
    mixed = [None if array is None else np.take_along_axis(array, order, axis=2) for array in (ids, weights)]
    how = {name: value for name, value in case.how.items() if name not in PER_PAIR}
    found = compare_choices(ids, weights, *mixed, **{**how, "n_groups": None})
    compared = found.pairs if not case.how.get("require_shares") else found.pairs_with_shares
    np.testing.assert_array_equal(found.jaccard_sums, compared)
    np.testing.assert_array_equal(found.equal_sets, compared)
    np.testing.assert_array_equal(found.common_experts, found.experts_a)
    np.testing.assert_array_equal(found.activations_a, found.activations_b)
    if weights is not None:
        np.testing.assert_array_equal(found.pairs_of_same_first, compared)
        assert not found.tv_sums.any()
        assert not found.js_sums.any()
        for name in ("entropy", "neff", "margin"):
            same_on_both = [getattr(found, f"{name}_sums_{side}") for side in "ab"]
            np.testing.assert_array_equal(*same_on_both, err_msg=name)


@given(case=cases(), data=st.data())
@settings(max_examples=25)
def test_pieces_add_up(case, data):
    n_pairs = len(case.how.get("rows_a", case.a[0]))
    rows = {f"rows_{side}": case.how.get(f"rows_{side}", np.arange(n_pairs)) for side in "ab"}
    case = case._replace(how={**case.how, **rows})
    cut = data.draw(st.integers(0, n_pairs))
    pieces = [
        run(case, **{name: case.how[name][part] for name in PER_PAIR if name in case.how})
        for part in (slice(None, cut), slice(cut, None))
    ]
    merged, whole = pieces[0] + pieces[1], run(case)
    for name in (*EXACT, *WEIGHTED_SUMS, *SHARES, "jaccard_sums"):
        one, other = getattr(merged, name), getattr(whole, name)
        if name in EXACT or one is None:
            np.testing.assert_array_equal(one, other, err_msg=name)
        else:
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12, err_msg=name)


@given(case=cases())
@settings(max_examples=25)
def test_ranges(case):
    found = run(case)
    pairs = found.pairs if not case.how.get("require_shares") else found.pairs_with_shares
    k = case.a[0].shape[2]
    slack = 1e-12 * (1 + pairs)
    assert (found.common_experts <= np.minimum(found.experts_a, found.experts_b)).all()
    assert (found.equal_sets <= pairs).all()
    assert (found.jaccard_sums <= pairs + slack).all()
    if found.tv_sums is None:
        return
    shared = found.pairs_with_shares
    assert (found.common_top5 <= min(5, k) * pairs).all()
    # Lin (1991): to base 2, the divergence is at most the total variation.
    assert (found.js_sums <= found.tv_sums + slack).all()
    assert (found.tv_sums <= shared + slack).all()
    for side in "ab":
        assert (getattr(found, f"entropy_sums_{side}") <= shared * np.log(max(k, 1)) + slack).all()
        neff = getattr(found, f"neff_sums_{side}")
        assert ((neff >= shared - slack) & (neff <= shared * k * (1 + 1e-12) + slack)).all()
