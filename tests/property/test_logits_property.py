"""Sums over full distributions of random traces: what the definitions say, for any layout, cut and thread count."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from moefps.kernels import LogitSums, sum_logits
from reference.logits import COUNTS, SUMS, logit_sums

SCORINGS = ["softmax", "softmax_topk", "sigmoid", "sqrt_softplus", "hash", "probabilities", "other"]


class Case(NamedTuple):
    """A trace with logits, and the arguments that go with it."""

    ids: np.ndarray
    logits: np.ndarray
    how: dict[str, Any]

    def __repr__(self):
        return f"Case({self.ids.shape}, {self.logits.shape}, {self.logits.dtype}, {self.how})"


def draw_logits(rng, shape, spread, masked):
    logits = rng.normal(0, spread, shape)
    # Ties, and experts that are masked: some, and all of a token's.
    logits[rng.random(shape) < 0.1] = 0.5
    logits[rng.random(shape) < masked] = -np.inf
    logits[rng.random(shape[:2]) < masked / 4] = -np.inf
    return logits


def probabilities(logits):
    with np.errstate(invalid="ignore"):
        shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    return np.nan_to_num(shares, nan=0.0)


@st.composite
def traces(draw, max_tokens=40):
    n_tokens = draw(st.integers(0, 3) | st.integers(20, max_tokens))
    n_layers = draw(st.integers(1, 3))
    k = draw(st.integers(1, 4))
    most = draw(st.sampled_from([1, 2, k, 8, 9, 33]))
    experts = [draw(st.integers(max(1, most // 2), most)) for _ in range(n_layers)]
    passive = [draw(st.integers(0, min(2, n - 1))) for n in experts]
    scoring = [draw(st.sampled_from(SCORINGS)) for _ in range(n_layers)]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ids = np.stack([rng.integers(0, n, (n_tokens, k)) for n in experts], axis=1).astype(np.int16)
    if draw(st.booleans()):
        # One expert gets all.
        ids[:] = 0
    # Of slots, and of tokens in a layer.
    ids[rng.random(ids.shape) < draw(st.sampled_from([0, 0.3]))] = -1
    ids[rng.random(ids.shape[:2]) < draw(st.sampled_from([0, 0.3]))] = -1
    spread, masked = draw(st.sampled_from([0, 1, 8, 300])), draw(st.sampled_from([0, 0.3]))
    logits = draw_logits(rng, (n_tokens, n_layers, max(experts) + draw(st.integers(0, 1))), spread, masked)
    for layer, (n, name) in enumerate(zip(experts, scoring, strict=True)):
        if name == "probabilities":
            logits[:, layer, :n] = probabilities(logits[:, layer, :n])
        # What is not looked at: columns that the layer does not have, and tokens that it did not see.
        logits[:, layer, n:] = np.nan
        logits[(ids[:, layer] < 0).all(axis=1), layer] = np.nan
    how = {"n_experts": experts, "passive_experts": passive, "scoring": scoring}
    if draw(st.booleans()):
        how |= {"groups": rng.integers(0, 3, n_tokens), "n_groups": 3}
    return Case(ids, logits.astype(draw(st.sampled_from(["float16", "float32"]))), how)


def layouts(array, kind):
    if kind == "strided":
        return np.repeat(array, 2, axis=0)[::2]
    if kind == "fortran":
        return np.asfortranarray(array)
    if kind == "reversed":
        return array[::-1, :, ::-1].copy()[::-1, :, ::-1]
    return array


def close(found, expected, tolerance):
    for name in (*COUNTS, *SUMS):
        one, other = found[name], expected[name]
        assert one.shape == other.shape, name
        assert one.dtype == other.dtype, name
        if name in COUNTS:
            np.testing.assert_array_equal(one, other, err_msg=name)
        else:
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance, err_msg=name)


def same(a, b):
    for field in dataclasses.fields(LogitSums):
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name), err_msg=field.name)


@settings(max_examples=60)
@given(case=traces(), kind=st.sampled_from(["c", "strided", "fortran", "reversed"]))
def test_sums_are_what_the_definitions_say(case, kind):
    found = sum_logits(layouts(case.ids, kind), layouts(case.logits, kind), **case.how)
    how = {key: value for key, value in case.how.items() if key != "passive_experts"}
    expected = logit_sums(case.ids, case.logits, passive=case.how["passive_experts"], **how)
    if "groups" not in how:
        expected = {name: array[0] for name, array in expected.items()}
    close(vars(found), expected, 1e-12)
    # The distributions are over the experts that there are.
    np.testing.assert_allclose(found.prob_sums.sum(axis=-1), found.tokens, rtol=1e-12)


@given(case=traces())
def test_threads_change_nothing(case):
    one = sum_logits(case.ids, case.logits, n_threads=1, **case.how)
    for n_threads in (2, 8):
        same(sum_logits(case.ids, case.logits, n_threads=n_threads, **case.how), one)


@given(case=traces(), cut=st.integers(0, 40))
def test_pieces_and_groups_add_up(case, cut):
    pieces = []
    for part in (slice(None, cut), slice(cut, None)):
        how = {key: value[part] if key == "groups" else value for key, value in case.how.items()}
        pieces.append(sum_logits(case.ids[part], case.logits[part], **how))
    merged, whole = pieces[0] + pieces[1], sum_logits(case.ids, case.logits, **case.how)
    close(vars(merged), vars(whole), 1e-12)
    how = {key: value for key, value in case.how.items() if "groups" not in key}
    groups = np.arange(len(case.ids)) % 3
    grouped = sum_logits(case.ids, case.logits, groups=groups, n_groups=3, **how)
    together = {name: getattr(grouped, name).sum(axis=0) for name in (*COUNTS, *SUMS)}
    close(together, vars(sum_logits(case.ids, case.logits, **how)), 1e-12)
