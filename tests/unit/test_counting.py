"""Counting a trace: bad input by name, large and odd ones, real ones, and calls that are followed and stopped."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest

import moefps
from moefps.kernels import RoutingCounts, count_routing, find_neighbours
from reference.counts import COUNTS, SUMS, counts
from support import refused

LARGE = (1 << 20, 2, 4)


def good(n=300, n_layers=3, n_experts=6, k=2):
    rng = np.random.default_rng(0)
    ids = rng.random((n, n_layers, n_experts)).argpartition(k, axis=2)[:, :, :k].astype(np.int16)
    return ids, rng.random(ids.shape, dtype=np.float32)


def spoiled(ids=None, weights=None, at=(137, 1, 1)):
    arrays = good()
    for array, value in zip(arrays, (ids, weights), strict=True):
        if value is not None:
            array[at] = value
    return arrays


def call(ids, weights=None, **how):
    return lambda: count_routing(ids, weights, **{"n_experts": 6, **how})


@pytest.mark.parametrize("value", [6, -2, 32767, -32768])
@pytest.mark.parametrize("n_threads", [1, 2, 8])
def test_ids_out_of_range(value, n_threads):
    ids, weights = spoiled(ids=value)
    ids[200:] = 99
    words = ("expert_ids", "row 137", "layer 1", "slot 1", str(value), "accepted", "0 to 5", "-1")
    refused(moefps.DataError, call(ids, weights, n_threads=n_threads), *words)
    refused(moefps.DataError, call(ids, n_threads=n_threads), *words)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(
    ("value", "signed", "found"),
    [(np.nan, True, "NaN"), (np.inf, True, "inf"), (-np.inf, True, "-inf"), (-0.125, False, r"-0\.125")],
)
def test_weights_that_are_not_accepted(value, signed, found, dtype):
    ids, weights = spoiled(weights=value)
    words = ("expert_weights", "row 137", "layer 1", "slot 1", found, "accepted", "finite")
    refused(moefps.DataError, call(ids, weights.astype(dtype), signed_weights=signed), *words)
    # Passive experts' weights are checked, those of empty slots are not.
    ids[137, 1, 1] = 5
    refused(moefps.DataError, call(ids, weights.astype(dtype), signed_weights=signed, passive_experts=1), *words)
    ids[137, 1, 1] = -1
    call(ids, weights.astype(dtype), signed_weights=signed)()


def test_signs_by_layer():
    ids, weights = spoiled(weights=-0.5)
    call(ids, weights, signed_weights=[False, True, False])()
    refused(moefps.DataError, call(ids, weights, signed_weights=[True, False, True]), "row 137", ">= 0")


def test_slots_past_those_of_the_layer():
    ids, _ = good()
    refused(moefps.DataError, call(ids, top_k=[2, 1, 2]), "row 0", "layer 1", "slot 1", "1 slots", "-1")
    ids[:, 1, 1] = -1
    found = call(ids, top_k=[2, 1, 2])()
    assert found.empty_slots.tolist() == [0, 0, 0]
    assert call(ids)().empty_slots.tolist() == [0, 300, 0]


@pytest.mark.parametrize("n_threads", [1, 2, 8])
def test_the_first_of_many_is_named(n_threads):
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 9, LARGE, dtype=np.int16)
    ids[700_000:, 0] = 9
    ids[600_001:, 1, 3] = 10
    how = {"n_experts": 9, "n_threads": n_threads}
    for _ in range(3):
        refused(moefps.DataError, call(ids, **how), "row 600001", "layer 1", "slot 3")


def test_arrays():
    ids, weights = good()
    refused(moefps.DtypeError, call(ids.astype(np.int64)), "expert_ids", "i8", "int16")
    refused(moefps.DtypeError, call(ids.astype(">i2")), "expert_ids", ">i2", "native")
    refused(moefps.DtypeError, call(ids.tolist()), "expert_ids", "list", "int16")
    refused(moefps.DtypeError, call(np.ma.masked_array(ids)), "expert_ids", "MaskedArray")
    refused(moefps.ShapeError, call(ids[0]), "expert_ids", r"\(3, 2\)", r"\[T, L, k\]")
    refused(moefps.ShapeError, call(ids[:, :0]), "expert_ids", r"\(300, 0, 2\)")
    refused(moefps.DtypeError, call(ids, weights.astype(np.float64)), "expert_weights", "f8", "float16, float32")
    refused(moefps.ShapeError, call(ids, weights[1:]), "expert_weights", "299", "300")
    shifted = np.frombuffer(b"\0" + ids.tobytes(), dtype=np.uint8)[1:].view(np.int16).reshape(ids.shape)
    refused(moefps.DtypeError, call(shifted), "expert_ids", "aligned")


def test_arguments():
    ids, _ = good()
    refused(moefps.ArgumentError, call(ids, n_experts=0), "n_experts", "0", "1 to 32767")
    refused(moefps.ArgumentError, call(ids, n_experts=[6, 6, 40000]), "n_experts", "40000", "layer 2")
    refused(moefps.ShapeError, call(ids, n_experts=[6, 6]), "n_experts", r"\(2,\)", "3 layers")
    refused(moefps.DtypeError, call(ids, n_experts=6.0), "n_experts", "float64", "integers")
    refused(moefps.ArgumentError, call(ids, passive_experts=6), "passive_experts", "6", "fewer")
    refused(moefps.ArgumentError, call(ids, passive_experts=-1), "passive_experts", "-1")
    refused(moefps.ArgumentError, call(ids, top_k=3), "top_k", "3", "0 to 2")
    refused(moefps.DtypeError, call(ids, signed_weights=1), "signed_weights", "1", "True")
    refused(moefps.ShapeError, call(ids, signed_weights=[True]), "signed_weights", r"\(1,\)")
    refused(moefps.ArgumentError, call(ids, coactivation="yes"), "coactivation", "yes", "whole")
    refused(moefps.ArgumentError, call(ids, coactivation="groups"), "coactivation", "groups")
    refused(moefps.ArgumentError, call(ids, n_threads=0), "n_threads", "0")
    refused(moefps.ShapeError, call(ids, follows=[True]), "follows", r"\(1,\)", r"\(300,\)")
    refused(moefps.DtypeError, call(ids, follows=np.ones(300)), "follows", "float64", "bool")


def test_groups():
    ids, _ = good()
    groups = np.zeros(300, dtype=np.int64)
    refused(moefps.ArgumentError, call(ids, n_groups=2), "n_groups", "groups")
    refused(moefps.ArgumentError, call(ids, groups=groups, n_groups=0), "n_groups", "0")
    refused(moefps.ShapeError, call(ids, groups=groups[1:]), "groups", "299", "300")
    refused(moefps.DtypeError, call(ids, groups=groups * 0.5), "groups", "float64")
    groups[7] = -1
    refused(moefps.DataError, call(ids, groups=groups), "groups", "row 7", "-1", "accepted")
    groups[7] = 3
    refused(moefps.DataError, call(ids, groups=groups, n_groups=3), "groups", "row 7", "3", "0 to 2")
    assert call(ids, groups=groups)().activations.shape == (4, 3, 6)
    assert call(ids, groups=groups, n_groups=9)().tokens[:, 0].tolist() == [299, 0, 0, 1, 0, 0, 0, 0, 0]


def test_neighbours():
    assert find_neighbours([0, 0, 2, 2, 5, 5]).tolist() == [False, True, False, True, True]
    assert find_neighbours([0]).tolist() == []
    positions = np.array([255, 0, 1, 3, 4], dtype=np.uint8)
    assert find_neighbours([0, 5], positions).tolist() == [False, False, True, False, True]
    refused(moefps.ArgumentError, lambda: find_neighbours([1, 2]), "offsets", "0")
    refused(moefps.ArgumentError, lambda: find_neighbours([0, 3, 2]), "offsets", "down")
    refused(moefps.ShapeError, lambda: find_neighbours([]), "offsets")
    refused(moefps.ShapeError, lambda: find_neighbours([0, 2], [0]), "positions", "2")
    refused(moefps.DtypeError, lambda: find_neighbours([0.5, 2]), "offsets", "float64")


def test_merging_wants_one_layout():
    ids, weights = good()
    plain = call(ids)()
    refused(moefps.ArgumentError, lambda: plain + call(ids, weights)(), "first_choices")
    refused(moefps.ShapeError, lambda: plain + call(ids[:, :1])(), "n_experts", r"\(3,\)", r"\(1,\)")
    groups = np.zeros(300, dtype=np.int64)
    refused(moefps.ShapeError, lambda: plain + call(ids, groups=groups)(), "filled_slots", r"\(1, 3, 3\)")
    other = call(ids % 5, n_experts=[6, 6, 5])()
    refused(moefps.ArgumentError, lambda: plain + other, "n_experts", r"\[6, 6, 5\]")
    with pytest.raises(TypeError):
        plain + 1


def test_nothing_to_count():
    ids, weights = good()
    found = call(ids[:0], weights[:0], follows=np.ones(0, bool))()
    assert not found.activations.any()
    assert not found.pairs.any()
    assert found.share_sums.shape == (3, 6)
    first = call(ids[:1], weights[:1], follows=[True])()
    # The first row has nothing before it, whatever is said of it.
    assert first.pairs.tolist() == [0, 0, 0]


def test_by_hand():
    """Two tokens of three slots: experts 0, 2, and 2, 1, 3 of which 3 is passive."""
    ids = np.array([[[0, 2, -1]], [[2, 1, 3]]], dtype=np.int16)
    weights = np.array([[[0.25, 0.75, 9]], [[0.5, 0.5, 1]]], dtype=np.float32)
    found = count_routing(ids, weights, n_experts=4, passive_experts=1, follows=[False, True])
    assert found.n_experts.tolist() == [3]
    assert found.filled_slots.tolist() == [[0, 0, 2, 0]]
    assert found.passive_slots.tolist() == [1]
    assert found.empty_slots.tolist() == [1]
    assert found.activations.tolist() == [[1, 1, 2]]
    assert found.coactivation.tolist() == [[[1, 0, 1], [0, 1, 1], [1, 1, 2]]]
    assert found.first_choices.tolist() == [[0, 0, 2]]
    assert found.weight_sums.tolist() == [[0.25, 0.5, 1.25]]
    assert found.share_sums.tolist() == [[0.25, 0.5, 1.25]]
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75)) / np.log(2)
    np.testing.assert_allclose(found.entropy_sums, [entropy + 1], rtol=1e-15)
    assert found.pairs.tolist() == found.pairs_with_common.tolist() == found.common_experts.tolist() == [1]
    assert found.jaccard_sums.tolist() == [1 / 3]
    assert found.pairs_of_same_first.tolist() == [1]
    assert found.locality_sums.tolist() == [0.5]


def check(ids, weights, **how):
    found = count_routing(ids, weights, **how)
    expected = counts(ids, weights, **how)
    for name in COUNTS:
        np.testing.assert_array_equal(getattr(found, name), expected[name][0], err_msg=name)
    for name in SUMS:
        np.testing.assert_allclose(getattr(found, name), expected[name][0], rtol=1e-11, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_more_than_a_chunk(dtype, simd):
    """Several chunks and parts of chunks, with neighbours across their edges; the same on every instruction set."""
    rng = np.random.default_rng(2)
    n, n_layers, k = 30_000, 3, 4
    ids = rng.integers(-1, 40, (n, n_layers, k)).astype(np.int16)
    weights = rng.random(ids.shape).astype(dtype)
    follows = rng.random(n) < 0.97
    check(ids, weights, n_experts=[40] * n_layers, follows=follows)


def test_instruction_sets_change_nothing(monkeypatch):
    rng = np.random.default_rng(4)
    ids = rng.integers(-1, 70, (3001, 3, 7)).astype(np.int16)
    weights = rng.normal(size=ids.shape).astype(np.float32)
    found = []
    for level in moefps.simd_levels():
        monkeypatch.setenv("MOEFPS_SIMD", level)
        how = {"n_experts": 70, "signed_weights": [True, False, True], "follows": rng.random(3001) < 2}
        weights[:, 1] = np.abs(weights[:, 1])
        found.append(count_routing(ids, weights, **how))
    for other in found[1:]:
        for field in dataclasses.fields(RoutingCounts):
            np.testing.assert_array_equal(getattr(found[0], field.name), getattr(other, field.name), field.name)


@pytest.mark.slow
def test_threads_change_nothing_over_chunks():
    rng = np.random.default_rng(3)
    ids = rng.integers(-1, 9, LARGE).astype(np.int16)
    weights = rng.random(ids.shape, dtype=np.float32)
    groups = rng.integers(0, 3, len(ids))
    follows = np.ones(len(ids), dtype=np.bool_)
    for how in ({}, {"groups": groups, "coactivation": "groups"}):
        one, *others = (
            count_routing(ids, weights, n_experts=9, follows=follows, n_threads=n, **how) for n in (1, 2, 8)
        )
        assert one.pairs.max() > 1000
        for other in others:
            for field in dataclasses.fields(RoutingCounts):
                np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), err_msg=field.name)


def test_a_mapped_trace(tmp_path):
    ids, weights = good()
    np.save(tmp_path / "ids.npy", ids)
    np.save(tmp_path / "weights.npy", weights)
    mapped = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("ids", "weights")]
    np.testing.assert_array_equal(call(*mapped)().share_sums, call(ids, weights)().share_sums)


def test_real_traces(traces):
    """The authors' models: shares of ids and weights as numpy has them, and everything on some of the tokens."""
    ids = np.ascontiguousarray(traces.experts, dtype=np.int16)
    weights = traces.weights.astype(np.float32)
    n_tokens, n_layers, k = ids.shape
    follows = find_neighbours(traces.offsets)
    found = count_routing(ids, weights, n_experts=64, follows=follows)
    for layer in range(n_layers):
        np.testing.assert_array_equal(found.activations[layer], np.bincount(ids[:, layer].ravel(), minlength=64))
        shares = weights[:, layer].astype(np.float64)
        shares /= shares.sum(axis=1, keepdims=True)
        expected = np.bincount(ids[:, layer].ravel(), shares.ravel(), minlength=64)
        np.testing.assert_allclose(found.share_sums[layer], expected, rtol=1e-11)
    assert (found.assignments == n_tokens * k).all()
    assert (found.pairs == follows.sum()).all()
    some = slice(int(traces.offsets[3]), int(traces.offsets[5]))
    check(ids[some], weights[some], n_experts=[64] * n_layers, follows=follows[some])


def big(n=LARGE[0]):
    ids = np.broadcast_to(np.arange(4, dtype=np.int16), (n, *LARGE[1:]))
    return ids, np.broadcast_to(np.float32(0.5), ids.shape)


def test_progress():
    seen = []
    call(*good(), progress=lambda done, total: seen.append((done, total, threading.get_ident())))()
    assert seen
    assert seen[-1][:2] == (1800, 1800)
    assert {thread for *_, thread in seen} == {threading.get_ident()}
    assert [done for done, *_ in seen] == sorted(done for done, *_ in seen)


def test_an_error_in_the_callback_ends_the_call():
    def callback(done, total):
        assert done < total, "the call ended before it was followed"
        raise RuntimeError("from the callback")

    with pytest.raises(RuntimeError, match="from the callback"):
        call(*big(LARGE[0] << 5), progress=callback)()
