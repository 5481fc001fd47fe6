"""Counts of random traces: what the definitions say, for any layout, cut and number of threads."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from moefps.kernels import RoutingCounts, count_routing, find_neighbours
from reference.counts import COUNTS, SUMS, counts


class Case(NamedTuple):
    """A trace, and the arguments that go with it."""

    ids: np.ndarray
    weights: np.ndarray | None
    how: dict[str, Any]
    offsets: list[int]

    def __repr__(self):
        return f"Case({self.ids.shape}, weights={self.weights is not None}, {self.how}, {self.offsets})"


@st.composite
def traces(draw, max_tokens=300):
    n_tokens = draw(st.integers(0, 12) | st.integers(120, max_tokens))
    n_layers = draw(st.integers(1, 3))
    k = draw(st.integers(1, 9))
    most = draw(st.sampled_from([1, 2, k, k + 3, 40]))
    experts = [draw(st.integers(max(1, most // 2), most)) for _ in range(n_layers)]
    passive = [draw(st.integers(0, min(2, n - 1))) for n in experts]
    repeats = draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ids = np.full((n_tokens, n_layers, k), -1, dtype=np.int16)
    for layer, n in enumerate(experts):
        if repeats:
            ids[:, layer] = rng.integers(0, n, (n_tokens, k))
        else:
            filled = min(n, k)
            ids[:, layer, :filled] = rng.random((n_tokens, n)).argpartition(filled - 1, axis=1)[:, :filled]
    # Of slots, of tokens in a layer, and of tokens in all.
    ids[rng.random(ids.shape) < draw(st.sampled_from([0, 0.1, 0.7]))] = -1
    ids[rng.random(ids.shape[:2]) < draw(st.sampled_from([0, 0.2]))] = -1
    how = {"n_experts": experts, "passive_experts": passive}
    weights = None
    if draw(st.booleans()):
        # Few different ones, so that there are ties, zeros and sums of zero.
        values = draw(st.sampled_from([[0, 0.25, 0.5], [0, 1], [0], [1e-7, 3e4, 0], np.linspace(0, 1, 999)]))
        weights = rng.choice(values, ids.shape).astype(draw(st.sampled_from(["float16", "float32"])))
        if draw(st.booleans()):
            weights *= rng.choice(np.array([-1, 1], dtype=weights.dtype), ids.shape)
            how["signed_weights"] = True
        weights[ids < 0] = rng.choice([np.nan, 0, 9, -1])
    offsets = sorted({0, n_tokens, *draw(st.lists(st.integers(0, n_tokens), max_size=4))})
    if draw(st.booleans()):
        how["follows"] = find_neighbours(offsets)
    if draw(st.booleans()):
        n_groups = draw(st.integers(1, 4))
        how |= {"groups": rng.integers(0, n_groups, n_tokens), "n_groups": n_groups}
        if draw(st.booleans()):
            how["groups"].sort()
    return Case(ids, weights, how, offsets)


def plain(case):
    how = {key: value for key, value in case.how.items() if key not in {"passive_experts", "signed_weights"}}
    return counts(case.ids, case.weights, passive=case.how["passive_experts"], **how)


def assert_is(found, expected, grouped):
    for name, array in expected.items():
        value = getattr(found, name)
        if array is None:
            assert value is None, name
            continue
        want = array if grouped else array[0]
        assert value.shape == want.shape, name
        assert value.dtype == want.dtype, name
        if name in COUNTS:
            np.testing.assert_array_equal(value, want, err_msg=name)
        else:
            np.testing.assert_allclose(value, want, rtol=1e-11, atol=1e-11, err_msg=name)


def same(a, b):
    for field in dataclasses.fields(RoutingCounts):
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name), err_msg=field.name)


def layouts(array, kind):
    if array is None or kind == "c":
        return array
    if kind == "strided":
        return np.repeat(array, 2, axis=0)[::2]
    if kind == "fortran":
        return np.asfortranarray(array)
    return array[::-1, :, ::-1].copy()[::-1, :, ::-1]


@given(case=traces(), kind=st.sampled_from(["c", "strided", "fortran", "reversed"]))
def test_counts_are_what_the_definitions_say(case, kind):
    grouped = "groups" in case.how
    coactivation = "groups" if grouped else "whole"
    ids, weights = layouts(case.ids, kind), layouts(case.weights, kind)
    found = count_routing(ids, weights, coactivation=coactivation, **case.how)
    expected = plain(case)
    assert_is(found, expected, grouped)
    whole = count_routing(ids, weights, **case.how)
    np.testing.assert_array_equal(whole.coactivation, expected["coactivation"].sum(axis=0))
    np.testing.assert_array_equal(found.tokens, expected["filled_slots"][..., 1:].sum(axis=-1)[() if grouped else 0])
    assert (found.empty_slots >= 0).all()


@given(case=traces())
def test_threads_change_nothing(case):
    one = count_routing(case.ids, case.weights, n_threads=1, **case.how)
    for n_threads in (2, 8):
        same(count_routing(case.ids, case.weights, n_threads=n_threads, **case.how), one)


@given(case=traces(), data=st.data())
def test_pieces_add_up(case, data):
    """Cut between sequences; what groups have apart adds up to the whole."""
    cut = data.draw(st.sampled_from(case.offsets))
    tokens = ("follows", "groups")
    pieces = []
    for part in (slice(None, cut), slice(cut, None)):
        how = {key: value[part] if key in tokens else value for key, value in case.how.items()}
        pieces.append(count_routing(case.ids[part], None if case.weights is None else case.weights[part], **how))
    merged, whole = pieces[0] + pieces[1], count_routing(case.ids, case.weights, **case.how)
    for name in (*COUNTS, *SUMS):
        one, other = getattr(merged, name), getattr(whole, name)
        if name in COUNTS or one is None:
            np.testing.assert_array_equal(one, other, err_msg=name)
        else:
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12, err_msg=name)
