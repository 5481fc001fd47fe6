"""Sums of activations against the plain definitions, worked examples, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moefps
from moefps.io.dump.scoring import full_probabilities
from moefps.kernels import ActivationSums, sum_activations, sum_dense_activations
from reference.focus import distribution, sums, token_activations
from support import refused

SCORINGS = ("softmax", "sigmoid", "sqrt_softplus", "probabilities")


@st.composite
def cases(draw):
    """A trace of a few layers, uneven, with dropped tokens, repeats, passive experts and weights that sum to 0."""
    n_tokens = draw(st.integers(0, 8) | st.integers(120, 200))
    n_layers, k = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    experts = [draw(st.sampled_from([1, 2, k, 9])) for _ in range(n_layers)]
    how = {"n_experts": experts, "passive_experts": [draw(st.integers(0, min(1, n - 1))) for n in experts]}
    how["activation"] = draw(st.sampled_from(["weights", "renormalized", "probs"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ids = np.stack([rng.integers(0, n, (n_tokens, k)) for n in experts], axis=1).astype(np.int16)
    if draw(st.booleans()):
        ids[:] = 0
    ids[rng.random(ids.shape) < draw(st.sampled_from([0, 0.3]))] = -1
    ids[rng.random(ids.shape[:2]) < draw(st.sampled_from([0, 0.2]))] = -1
    dtype = draw(st.sampled_from([np.float16, np.float32]))
    if how["activation"] == "probs":
        scoring = how["scoring"] = [draw(st.sampled_from(SCORINGS)) for _ in experts]
        numbers = rng.normal(0, 2, (n_tokens, n_layers, max(experts) + 1)).astype(dtype)
        numbers[rng.random(numbers.shape) < draw(st.sampled_from([0, 0.3]))] = -np.inf
        for layer, word in enumerate(scoring):
            if word == "probabilities":
                scores = rng.random((n_tokens, experts[layer]))
                numbers[:, layer, : experts[layer]] = scores / scores.sum(axis=1, keepdims=True)
        # Padding, and layers that did not see a token.
        numbers[:, :, max(experts) :] = np.nan
        numbers[(ids < 0).all(axis=2)] = np.nan
    else:
        values = draw(st.sampled_from([[0, 0.25, 0.5], [0], [1e-7, 3, 0.1], np.linspace(0, 1, 999)]))
        numbers = rng.choice(values, ids.shape).astype(dtype)
        if draw(st.booleans()):
            numbers *= rng.choice(np.array([-1, 1], dtype=dtype), ids.shape)
            how["signed_weights"] = True
        numbers[ids < 0] = rng.choice([np.nan, 9, -1])
    how["threshold"] = draw(st.sampled_from([0.0, 0.1, 0.3]))
    how |= {"n_bins": draw(st.sampled_from([1, 7, 100])), "highest": draw(st.sampled_from([0.5, 1.0]))}
    n_groups = draw(st.integers(1, 3))
    how |= {"groups": rng.integers(0, n_groups, n_tokens), "n_groups": n_groups}
    return ids, numbers, how


def compute(ids, numbers, how, **more):
    where = "router_logits" if how["activation"] == "probs" else "expert_weights"
    return sum_activations(ids, **{where: numbers}, **how, **more)


def in_precision(numbers, how):
    """The threshold as the weights can have it; what is computed from them is in double precision."""
    return float(numbers.dtype.type(how["threshold"])) if how["activation"] == "weights" else how["threshold"]


def same(a, b):
    for field in dataclasses.fields(ActivationSums):
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name), err_msg=field.name)


@settings(max_examples=40)
@given(case=cases(), layout=st.sampled_from(["c", "strided", "fortran"]))
def test_sums_are_what_the_definitions_say(case, layout):
    ids, numbers, how = case
    if layout == "strided":
        ids, numbers = np.repeat(ids, 2, axis=0)[::2], np.repeat(numbers, 2, axis=0)[::2]
    elif layout == "fortran":
        ids, numbers = np.asfortranarray(ids), np.asfortranarray(numbers)
    chosen = list(range(ids.shape[1]))[::-1]
    found = compute(ids, numbers, how, layers=chosen)
    assert found.layers.tolist() == chosen
    for place, layer in enumerate(chosen):
        real = how["n_experts"][layer] - how["passive_experts"][layer]
        assert found.n_experts[place] == real
        tokens = [
            token_activations(
                ids[t, layer],
                numbers[t, layer],
                activation=how["activation"],
                n_experts=how["n_experts"][layer],
                passive=how["passive_experts"][layer],
                scoring=how["scoring"][layer] if "scoring" in how else None,
            )
            for t in range(len(ids))
        ]
        expected = sums(
            tokens,
            how["groups"],
            how["n_groups"],
            n_experts=real,
            threshold=in_precision(numbers, how),
            n_bins=how["n_bins"],
            highest=how["highest"],
        )
        for name, array in expected.items():
            value = getattr(found, name)
            by_group = name in ("tokens", "left_out", "activations", "counts", "totals", "maxima")
            value = value[:, place] if by_group else value[place]
            if name not in ("tokens", "left_out"):
                value, padding = (np.split(value, [real], axis=1 if by_group else 0)) if real else (value, value)
                assert not padding.any()
            if array.dtype == float:
                np.testing.assert_allclose(value, array, rtol=1e-9, atol=1e-12, err_msg=name)
            else:
                np.testing.assert_array_equal(value, array, err_msg=name)


@settings(max_examples=20)
@given(case=cases(), cut=st.integers(0, 200), n_threads=st.integers(2, 7))
def test_threads_change_nothing_and_pieces_add_up(case, cut, n_threads):
    ids, numbers, how = case
    whole = compute(ids, numbers, how, n_threads=1)
    same(compute(ids, numbers, how, n_threads=n_threads), whole)
    pieces = [
        compute(ids[part], numbers[part], how | {"groups": how["groups"][part]})
        for part in (slice(None, cut), slice(cut, None))
    ]
    merged = pieces[0] + pieces[1]
    for field in dataclasses.fields(ActivationSums):
        if field.name == "totals":
            np.testing.assert_allclose(merged.totals, whole.totals, rtol=1e-12, atol=1e-12)
        else:
            np.testing.assert_array_equal(getattr(merged, field.name), getattr(whole, field.name), err_msg=field.name)


@settings(max_examples=25)
@given(case=cases())
def test_a_dense_array_says_the_same(case):
    """Weights put where their experts are: the same sums, but for weights of 0, which are no activations there."""
    ids, numbers, how = case
    if how["activation"] == "probs" or "signed_weights" in how:
        return
    layer = ids.shape[1] - 1
    real = how["n_experts"][layer] - how["passive_experts"][layer]
    dense = np.zeros((len(ids), real))
    for t in range(len(ids)):
        token = token_activations(
            ids[t, layer],
            numbers[t, layer],
            activation=how["activation"],
            n_experts=how["n_experts"][layer],
            passive=how["passive_experts"][layer],
        )
        for expert, x in (token or {}).items():
            dense[t, expert] = x
    of_slots = compute(ids, numbers, how, layers=[layer])
    names = ("groups", "n_groups", "n_bins", "highest")
    found = sum_dense_activations(dense, threshold=in_precision(numbers, how), **{name: how[name] for name in names})
    for name in ("counts", "totals", "maxima", "above"):
        np.testing.assert_allclose(getattr(found, name), getattr(of_slots, name), rtol=1e-12, err_msg=name)
    np.testing.assert_array_equal(found.histogram[..., 1:], of_slots.histogram[..., 1:])
    assert found.tokens.sum() == (dense > 0).any(axis=1).sum()
    assert found.activations.sum() == (dense > 0).sum()


@pytest.mark.parametrize("scoring", SCORINGS)
def test_the_reference_distributions_are_those_of_dumps(scoring):
    rng = np.random.default_rng(1)
    logits = rng.dirichlet(np.ones(6), 20) if scoring == "probabilities" else rng.normal(0, 3, (20, 6))
    expected = [distribution(row.tolist(), scoring) for row in logits]
    np.testing.assert_allclose(full_probabilities(logits, scoring), expected, rtol=1e-12)


def test_values_at_edges():
    """A threshold is not passed by what equals it; a bin owns its lower edge, the last one also its upper."""
    values = np.array([[0.0, 0.25, 0.5, 0.75, 1.0, 1.0 + 1e-9]])
    found = sum_dense_activations(values, threshold=0.5, n_bins=4)
    assert found.counts.tolist() == [[0, 0, 0, 1, 1, 1]]
    assert found.histogram[0].argmax(axis=1)[1:5].tolist() == [1, 2, 3, 3]
    assert found.above.tolist() == [[0, 0, 0, 0, 0, 1]]
    assert found.activations.tolist() == [[0, 1, 1, 1, 1, 1]]


def test_a_threshold_is_in_the_precision_of_the_weights():
    """0.1 is not above 0.1, in no precision."""
    for dtype in (np.float16, np.float32, np.float64):
        for threshold in (0.1, 0.2, 0.3):
            values = np.array([[threshold, 2 * threshold]], dtype=dtype)
            assert sum_dense_activations(values, threshold=threshold).counts.tolist() == [[0, 1]]
            if dtype != np.float64:
                ids = np.array([[[0, 1]]], dtype=np.int16)
                assert sum_activations(ids, values[np.newaxis], n_experts=2, threshold=threshold).counts.sum() == 1


def test_float64_and_no_tokens():
    found = sum_dense_activations(np.zeros((0, 3)), groups=[], n_groups=2)
    assert found.totals.shape == (2, 1, 3)
    assert not found.tokens.any()
    nothing = np.zeros((0, 2, 1))
    assert sum_activations(nothing.astype(np.int16), nothing.astype(np.float32), n_experts=3).counts.shape == (2, 3)


IDS = np.array([[[0, 1]], [[2, -1]], [[1, 0]]], dtype=np.int16)
WEIGHTS = np.array([[[0.5, 0.5]], [[0.25, 7]], [[1, 0]]], dtype=np.float32)
LOGITS = np.zeros((3, 1, 3), dtype=np.float32)


def put(array, where, value):
    changed = array.copy()
    changed[where] = value
    return changed


CASES = {
    "id": ({"expert_ids": put(IDS, (1, 0, 0), 3)}, "expert_ids: token row 1, layer 0, slot 0 is 3; accepted: 0 to 2"),
    "id below": ({"expert_ids": put(IDS, (2, 0, 1), -2)}, "token row 2, layer 0, slot 1 is -2"),
    "slot past top_k": ({"top_k": 1}, "token row 0, layer 0, slot 1 is 1; accepted: -1, since the layer has 1 slots"),
    "nan": ({"expert_weights": put(WEIGHTS, (2, 0, 0), np.nan)}, "expert_weights: token row 2, layer 0, slot 0 is NaN"),
    "negative": ({"expert_weights": put(WEIGHTS, (0, 0, 1), -1)}, "slot 1 is -1; accepted: finite numbers >= 0"),
    "infinite": ({"expert_weights": put(WEIGHTS, (0, 0, 1), np.inf), "signed_weights": True}, "slot 1 is inf"),
    "no weights": ({"expert_weights": None}, "expert_weights: None; accepted: weights"),
    "weights of float64": ({"expert_weights": WEIGHTS.astype(float)}, "expert_weights: dtype <f8"),
    "no logits": ({"activation": "probs", "scoring": "softmax"}, "router_logits: None"),
    "no scoring": ({"activation": "probs", "router_logits": LOGITS}, "scoring: None"),
    "other scoring": ({"activation": "probs", "router_logits": LOGITS, "scoring": ["other"]}, "'other' of layer 0"),
    "two scorings": (
        {"activation": "probs", "router_logits": LOGITS, "scoring": ["softmax"] * 2},
        "scoring: 2 of them",
    ),
    "logits of few": ({"activation": "probs", "router_logits": LOGITS[..., :2], "scoring": "softmax"}, "at least 3"),
    "logit nan": (
        {"activation": "probs", "router_logits": put(LOGITS, (1, 0, 2), np.nan), "scoring": "softmax"},
        "router_logits: token row 1, layer 0, expert 2 is NaN; accepted: numbers, or minus infinity",
    ),
    "no probability": (
        {"activation": "probs", "router_logits": put(LOGITS, (1, 0, 2), -1), "scoring": "probabilities"},
        "expert 2 is -1; accepted: probabilities",
    ),
    "sum": (
        {"activation": "probs", "router_logits": LOGITS + 0.4, "scoring": "probabilities"},
        "row 0, layer 0 sums to 1.2",
    ),
    "kind": ({"activation": "counts"}, "activation: 'counts'; accepted: 'weights', 'renormalized', 'probs'"),
    "threshold": ({"threshold": -0.1}, "threshold: -0.1; accepted: a number from 0 on, of which 0.01 to 0.3"),
    "threshold of shares": ({"threshold": 1.0, "activation": "renormalized"}, "threshold: 1.0; accepted: .*below 1"),
    "threshold nan": ({"threshold": np.nan}, "threshold: nan"),
    "threshold text": ({"threshold": "0.1"}, "threshold: '0.1'"),
    "layer": ({"layers": [1]}, "layers: 1; accepted: integers of 0 to 0, each once"),
    "layer twice": ({"layers": [0, 0]}, r"layers: \[0, 0\]; accepted: .*, each once"),
    "no layer": ({"layers": []}, r"layers: \[\]; accepted"),
    "bins": ({"n_bins": 0}, "n_bins: 0; accepted: 1 to 10000"),
    "highest": ({"highest": 0}, "highest: 0; accepted: a number above 0"),
    "group": ({"groups": [0, 1, 2], "n_groups": 2}, "groups: token row 2 is 2; accepted: 0 to 1"),
    "all passive": ({"passive_experts": 3}, "passive_experts: 3 of the 3 experts"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused(case):
    changes, words = CASES[case]
    good = {"expert_ids": IDS, "expert_weights": WEIGHTS, "n_experts": 3}
    assert sum_activations(**good).counts.sum() == 4
    refused(moefps.MoefpsError, lambda: sum_activations(**good | changes), words)


def test_refused_of_a_dense_array():
    refused(moefps.DataError, lambda: sum_dense_activations([[0.5, -1.0]]), "activations: token row 0, expert 1 is -1")
    refused(moefps.ShapeError, lambda: sum_dense_activations(np.zeros((2, 3, 4))), r"\[T, E\]")
    refused(moefps.DtypeError, lambda: sum_dense_activations([[1, 0]]), "activations: dtype int64")


def test_sums_of_another_layout_do_not_add_up():
    one = sum_dense_activations(np.ones((2, 3)))
    refused(moefps.ArgumentError, lambda: one + sum_dense_activations(np.ones((2, 3)), threshold=0.2), "threshold")
    refused(moefps.ArgumentError, lambda: one + sum_dense_activations(np.ones((2, 4))), r"n_experts \[3\] and \[4\]")
    refused(moefps.ShapeError, lambda: one + sum_dense_activations(np.ones((2, 3)), n_bins=9), "histogram of shapes")
    with pytest.raises(TypeError):
        one + 1
