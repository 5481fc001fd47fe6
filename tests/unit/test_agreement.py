"""`compare_choices`: worked by hand, over chunks and instruction sets, and what it refuses."""

from __future__ import annotations

import dataclasses
import math
import threading

import numpy as np
import pytest

import moefps
from moefps.kernels import ChoiceSums, compare_choices
from reference.agreement import choice_sums
from support import refused


def trace(n=300, seed=0, experts=6):
    rng = np.random.default_rng(seed)
    ids = rng.random((n, 3, experts)).argsort(axis=2)[:, :, :2].astype(np.int16)
    return ids, rng.random(ids.shape, dtype=np.float32)


def call(a=None, b=None, **how):
    a, b = a or trace(seed=1), b or trace(seed=2)
    return lambda: compare_choices(*a, *b, **{"n_experts": 6, **how})


def same(a, b):
    for field in dataclasses.fields(ChoiceSums):
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name), err_msg=field.name)


def test_by_hand():
    """Experts 0, 2 with 1/4, 3/4 beside 2, 1 with 1/2, 1/2: in common is 2."""
    ids_a, ids_b = np.array([[[0, 2]]], dtype=np.int16), np.array([[[2, 1]]], dtype=np.int16)
    weights_a, weights_b = np.array([[[1, 3]]], dtype=np.float32), np.array([[[2, 2]]], dtype=np.float16)
    found = compare_choices(ids_a, weights_a, ids_b, weights_b, n_experts=4)
    assert (found.n_experts.tolist(), found.top_k.tolist()) == ([4], [2])
    assert found.pairs.tolist() == found.common_experts.tolist() == found.pairs_of_same_first.tolist() == [1]
    assert found.experts_a.tolist() == found.experts_b.tolist() == [2]
    assert found.equal_sets.tolist() == found.pairs_without_shares.tolist() == [0]
    assert found.common_top5.tolist() == [1]
    np.testing.assert_allclose(found.jaccard_sums, [1 / 3], rtol=1e-15)
    # ½ (1/4 + 1/2 + 1/4)
    assert found.tv_sums.tolist() == [0.5]
    middle = 0.625
    js = (0.25 + 0.5 + 0.75 * math.log2(0.75 / middle) + 0.5 * math.log2(0.5 / middle)) / 2
    np.testing.assert_allclose(found.js_sums, [js], rtol=1e-14)
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    np.testing.assert_allclose(found.entropy_sums_a, [entropy], rtol=1e-14)
    np.testing.assert_allclose(found.entropy_sums_b, [math.log(2)], rtol=1e-14)
    np.testing.assert_allclose(found.neff_sums_a, [math.exp(entropy)], rtol=1e-14)
    np.testing.assert_allclose(found.neff_sums_b, [2], rtol=1e-14)
    assert (found.margin_sums_a.tolist(), found.margin_sums_b.tolist()) == ([0.5], [0.0])
    assert found.activations_a.tolist() == [[1, 0, 1, 0]]
    assert found.share_sums_b.tolist() == [[0, 0.5, 0.5, 0]]


def test_ranks_go_by_weight_then_by_slot():
    """Seven slots of equal weight but one: the first five are slot 6, then 0 to 3."""
    ids = np.arange(7, dtype=np.int16).reshape(1, 1, 7)
    weights = np.array([[[1, 1, 1, 1, 1, 1, 2]]], dtype=np.float32)
    # In slots from the back, its first five are 6, then 5, 4, 3, 2.
    found = compare_choices(ids, weights, ids[..., ::-1], weights[..., ::-1], n_experts=7)
    assert found.pairs_of_same_first.tolist() == found.equal_sets.tolist() == [1]
    assert found.common_top5.tolist() == [3]
    assert found.tv_sums.tolist() == found.js_sums.tolist() == [0]
    equal = np.ones_like(weights)
    found = compare_choices(ids, equal, ids[..., ::-1], equal, n_experts=7)
    assert (found.pairs_of_same_first.tolist(), found.common_top5.tolist()) == ([0], [3])


def test_an_expert_twice():
    """Chosen twice by one token: one member of the set, the sum of the shares, the better rank; both are counted."""
    ids_a, ids_b = np.array([[[3, 1, 3]]], dtype=np.int16), np.array([[[3, 1, -1]]], dtype=np.int16)
    weights_a, weights_b = np.array([[[1, 2, 1]]], dtype=np.float32), np.array([[[2, 2, np.nan]]], dtype=np.float32)
    found = compare_choices(ids_a, weights_a, ids_b, weights_b, n_experts=4)
    assert found.experts_a.tolist() == found.common_experts.tolist() == found.common_top5.tolist() == [2]
    assert found.equal_sets.tolist() == found.jaccard_sums.tolist() == [1]
    assert found.tv_sums.tolist() == found.js_sums.tolist() == found.margin_sums_a.tolist() == [0]
    # Slot 1 has the largest weight of a, slot 0 of b.
    assert found.pairs_of_same_first.tolist() == [0]
    assert found.activations_a.tolist() == [[0, 1, 0, 2]]
    assert found.share_sums_a.tolist() == [[0, 0.5, 0, 0.5]]


def test_pairs_without_shares():
    """A pair of no weight, a pair with a negative one, a pair with an empty side, and a good one."""
    ids = np.array([[[0, 1]], [[0, 1]], [[-1, 3]], [[2, 1]]], dtype=np.int16)
    weights = np.array([[[0, 0]], [[2, -1]], [[1, 1]], [[1, 1]]], dtype=np.float32)
    good = np.ones_like(weights)
    how = {"n_experts": 4, "passive_experts": 1, "signed_weights": True}
    found = compare_choices(ids, weights, ids, good, **how)
    assert (found.pairs.tolist(), found.pairs_without_shares.tolist()) == ([3], [2])
    assert found.pairs_with_shares.tolist() == [1]
    assert found.common_experts.tolist() == [6]
    assert found.activations_a.tolist() == [[2, 3, 1]]
    assert found.share_sums_a.tolist() == found.share_sums_b.tolist() == [[0, 0.5, 0.5]]
    strict = compare_choices(ids, weights, ids, good, require_shares=True, **how)
    assert (strict.pairs.tolist(), strict.pairs_without_shares.tolist()) == ([3], [2])
    assert (strict.common_experts.tolist(), strict.equal_sets.tolist()) == ([2], [1])
    assert strict.activations_a.tolist() == [[0, 1, 1]]
    bare = compare_choices(ids, None, ids, None, n_experts=4)
    assert bare.pairs_with_shares is None
    assert bare.pairs.tolist() == [4]


def test_planted_overlap():
    """Tokens that keep m of k experts, for each m: exactly so many are in common."""
    rng = np.random.default_rng(0)
    k, experts, n = 4, 32, 500
    kept = rng.integers(0, k + 1, (n, 1))
    choice = rng.random((n, 1, experts)).argsort(axis=2)
    ids_a = choice[..., :k].astype(np.int16)
    slots = np.arange(k) + np.where(np.arange(k) < kept, 0, k)[:, None]
    ids_b = np.take_along_axis(choice, slots, axis=2).astype(np.int16)
    weights = np.ones(ids_a.shape, dtype=np.float32)
    found = compare_choices(ids_a, weights, ids_b, weights, n_experts=experts, groups=kept[:, 0], n_groups=k + 1)
    counts = np.bincount(kept[:, 0], minlength=k + 1)
    m = np.arange(k + 1)
    np.testing.assert_array_equal(found.pairs[:, 0], counts)
    np.testing.assert_array_equal(found.common_experts[:, 0], counts * m)
    np.testing.assert_array_equal(found.equal_sets[:, 0], np.where(m == k, counts, 0))
    np.testing.assert_allclose(found.jaccard_sums[:, 0], counts * m / (2 * k - m), rtol=1e-12)
    np.testing.assert_allclose(found.tv_sums[:, 0], counts * (1 - m / k), rtol=1e-12)
    np.testing.assert_allclose(found.js_sums[:, 0], counts * (1 - m / k), rtol=1e-12)


def test_more_than_a_chunk():
    """Several chunks and parts of chunks, with groups across their edges."""
    rng = np.random.default_rng(2)
    n, experts = 100_000, 40
    a, b = (rng.integers(-1, experts, (n, 2, 16), dtype=np.int16) for _ in range(2))
    weights = rng.random(a.shape, dtype=np.float32)
    groups = np.arange(n) * 5 // n
    how = {"n_experts": experts, "groups": groups}
    found, *others = (compare_choices(a, weights, b, weights, n_threads=t, **how) for t in (1, 2, 8))
    for other in others:
        same(other, found)
    filled = (a >= 0).sum(axis=2)
    np.testing.assert_array_equal(found.pairs, [(filled[groups == g] > 0).sum(axis=0) for g in range(5)])
    for layer in range(2):
        counts = np.bincount(a[:, layer][a[:, layer] >= 0], minlength=experts)
        np.testing.assert_array_equal(found.activations_a[:, layer].sum(axis=0), counts)
    parts = [compare_choices(a[p], weights[p], b[p], weights[p], n_experts=experts) for p in (groups < 2, groups > 1)]
    np.testing.assert_allclose((parts[0] + parts[1]).js_sums, found.js_sums.sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose((parts[0] + parts[1]).share_sums_b, found.share_sums_b.sum(axis=0), rtol=1e-12)
    # Around the edge between two groups, as the definitions say.
    rows = np.arange(39_995, 40_005)
    few = compare_choices(a, weights, b, weights, n_experts=experts, rows_a=rows, rows_b=rows, groups=groups[rows] - 1)
    traces = (a, b), (weights, weights)
    expected = choice_sums(*traces, n_experts=[experts] * 2, rows=(rows, rows), groups=groups[rows] - 1, n_groups=2)
    for name in ("tv_sums", "common_top5", "activations_b", "share_sums_a"):
        np.testing.assert_allclose(getattr(few, name), expected[name], rtol=1e-11, err_msg=name)


def test_instruction_sets_change_nothing(monkeypatch):
    rng = np.random.default_rng(4)
    a, b = (rng.integers(-1, 70, (3001, 2, 7)).astype(np.int16) for _ in range(2))
    weights_a, weights_b = (rng.random(a.shape).astype(np.float16) for _ in range(2))
    found = []
    for level in moefps.simd_levels():
        monkeypatch.setenv("MOEFPS_SIMD", level)
        found.append(compare_choices(a, weights_a, b, weights_b, n_experts=70))
    for other in found[1:]:
        same(other, found[0])


def test_layers_are_chosen():
    whole, some = call()(), call(layers=[2, 0])()
    for field in dataclasses.fields(ChoiceSums):
        np.testing.assert_array_equal(getattr(some, field.name), getattr(whole, field.name)[[2, 0]], field.name)


def test_a_mapped_trace(tmp_path):
    a, b = trace(seed=1), trace(seed=2)
    for name, array in zip("abcd", (*a, *b), strict=True):
        np.save(tmp_path / f"{name}.npy", array)
    mapped = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "abcd"]
    same(compare_choices(*mapped, n_experts=6), call(a, b)())


@pytest.mark.parametrize("value", [6, -2, 32767, -32768])
@pytest.mark.parametrize("n_threads", [1, 4])
def test_ids_out_of_range(value, n_threads):
    ids, weights = trace(seed=1)
    ids[137, 1, 1] = value
    ids[200:] = 99
    words = ("row 137", "layer 1", "slot 1", str(value), "accepted", "0 to 5", "-1")
    refused(moefps.DataError, call((ids, weights), n_threads=n_threads), "ids_a", *words)
    refused(moefps.DataError, call(b=(ids, weights), n_threads=n_threads), "ids_b", *words)


@pytest.mark.parametrize(
    ("value", "signed", "found"),
    [(np.nan, True, "NaN"), (np.inf, True, "inf"), (-np.inf, True, "-inf"), (-0.125, False, r"-0\.125")],
)
def test_weights_that_are_not_accepted(value, signed, found):
    ids, weights = trace(seed=1)
    weights[137, 1, 1] = value
    ids[137, 1, 1] = 5
    # Those of passive experts are looked at, those of empty slots are not.
    for passive in (0, 1):
        how = {"signed_weights": signed, "passive_experts": passive}
        words = ("row 137", "layer 1", "slot 1", found, "accepted", "finite")
        refused(moefps.DataError, call((ids, weights), **how), "weights_a", *words)
        refused(moefps.DataError, call(b=(ids, weights.astype(np.float16)), **how), "weights_b", *words)
    ids[137, 1, 1] = -1
    call((ids, weights), signed_weights=signed)()


def test_arguments():
    ids, weights = trace(seed=1)
    refused(moefps.DtypeError, call((ids.astype(np.int64), weights)), "ids_a", "i8", "int16")
    refused(moefps.ShapeError, call(b=(ids[0], weights)), "ids_b", r"\(3, 2\)", r"\[T, L, k\]")
    refused(moefps.ShapeError, call(b=(ids[:, :2], weights[:, :2])), "ids_b", r"\(300, 2, 2\)", r"\[Tb, 3, 2\]")
    refused(moefps.ArgumentError, call((ids, None)), "weights_a", "None", "both")
    refused(moefps.ArgumentError, call(b=(ids, None)), "weights_b", "None", "both")
    refused(moefps.DtypeError, call((ids, weights.astype(np.float64))), "weights_a", "f8", "float16, float32")
    refused(moefps.ShapeError, call((ids, weights[1:])), "weights_a", "299", "300")
    refused(moefps.ShapeError, call(b=(ids[1:], weights[1:])), "ids_b", "299 pairs", "ids_a has 300")
    refused(moefps.ArgumentError, call(passive_experts=6), "passive_experts", "6", "fewer")
    refused(moefps.ArgumentError, call(top_k=3), "top_k", "3", "0 to 2")
    refused(moefps.DataError, call(top_k=[2, 1, 2]), "ids_a", "row 0", "layer 1", "slot 1", "1 slots")
    refused(moefps.ArgumentError, call((ids, None), (ids, None), require_shares=True), "require_shares", "weights")
    refused(moefps.ArgumentError, call(layers=[3]), "layers", "3", "0 to 2")
    refused(moefps.ArgumentError, call(layers=[0, 0]), "layers", "each once")
    refused(moefps.ArgumentError, call(layers=[]), "layers", "each once")
    refused(moefps.ArgumentError, call(n_threads=0), "n_threads", "0")


def test_rows_and_groups():
    rows = np.arange(300)
    refused(moefps.ShapeError, call(rows_a=rows[1:]), "ids_b", "300 pairs", "rows_a has 299")
    refused(moefps.ShapeError, call(rows_a=rows, rows_b=rows[:7]), "rows_b", "7 pairs", "rows_a has 300")
    refused(moefps.ShapeError, call(rows_a=rows[:, None]), "rows_a", r"\(300, 1\)")
    refused(moefps.DtypeError, call(rows_a=rows * 0.5), "rows_a", "float64", "integers")
    for wrong in (300, -1):
        some = rows.copy()
        some[13] = wrong
        refused(moefps.DataError, call(rows_b=some), "rows_b", "entry 13", str(wrong), "0 to 299")
    groups = np.zeros(300, dtype=np.int64)
    refused(moefps.ShapeError, call(rows_a=rows[:9], rows_b=rows[:9], groups=groups), "groups", "300", "9")
    groups[7] = 3
    refused(moefps.DataError, call(groups=groups, n_groups=3), "groups", "row 7", "3", "0 to 2")
    assert call(groups=groups)().activations_a.shape == (4, 3, 6)
    nothing = call(rows_a=rows[:0], rows_b=rows[:0])()
    assert not nothing.pairs.any()
    assert not nothing.activations_a.any()
    empty = (np.zeros((0, 3, 2), dtype=np.int16), np.zeros((0, 3, 2), dtype=np.float32))
    assert not call(empty, empty)().tv_sums.any()
    refused(moefps.DataError, call(empty, rows_a=[0], rows_b=[0]), "rows_a", "entry 0 is 0")


def test_merging_wants_one_layout():
    plain = call()()
    refused(moefps.ArgumentError, lambda: plain + call(usage=False)(), "activations_a")
    refused(moefps.ShapeError, lambda: plain + call(layers=[0])(), "n_experts", r"\(3,\)", r"\(1,\)")
    refused(moefps.ArgumentError, lambda: plain + call(n_experts=7, passive_experts=[1, 1, 0])(), "n_experts")
    with pytest.raises(TypeError):
        plain + 1


def test_progress():
    seen = []
    call(progress=lambda done, total: seen.append((done, total, threading.get_ident())))()
    assert seen[-1][:2] == (900, 900)
    assert {thread for *_, thread in seen} == {threading.get_ident()}


def test_an_error_in_the_callback_ends_the_call():
    def callback(done, total):
        assert done < total, "the call ended before it was followed"
        raise RuntimeError("from the callback")

    ids = np.broadcast_to(np.arange(4, dtype=np.int16), (1 << 23, 2, 4))
    with pytest.raises(RuntimeError, match="from the callback"):
        call((ids, None), (ids, None), progress=callback)()
