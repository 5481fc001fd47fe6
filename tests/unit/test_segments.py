"""Windows, caches and vocabularies of traces that were worked out by hand, and arguments that are not accepted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import moefps
from moefps.kernels import count_segments, count_vocabulary, find_neighbours
from support import refused


def trace(*tokens):
    """A trace of one layer; shorter tokens have empty slots."""
    k = max(map(len, tokens))
    return np.array([[[*slots, *[-1] * (k - len(slots))]] for slots in tokens], dtype=np.int16)


def segments(ids, **how):
    how.setdefault("follows", find_neighbours([0, len(ids)]))
    return count_segments(ids, **{"n_experts": 6, "window": 2, "rho": 1.0} | how)


def hits(ids, **how):
    found = segments(ids, **how)
    return int(found.hits[0]), int(found.activations[0])


def test_windows_by_hand():
    found = segments(trace([0, 1], [0, 2], [0, 1]))
    assert found.windows.tolist() == [2]
    assert found.histograms.tolist() == [[[0, 0, 2], [0, 2, 0], [0, 2, 0], [2, 0, 0], [2, 0, 0], [2, 0, 0]]]


def test_a_window_is_of_one_sequence():
    ids = trace([0], [0], [0], [0], [0])
    assert segments(ids, follows=[False, True, True, False, True]).windows.tolist() == [3]
    assert segments(ids, window=5).windows.tolist() == [1]
    assert segments(ids, window=6).windows.tolist() == [0]
    assert segments(ids, window=1, follows=[False] * 5).windows.tolist() == [5]


def test_a_token_without_a_filled_slot_parts_its_neighbours():
    assert segments(trace([0], [0], [], [0], [0])).windows.tolist() == [2]
    # Nor does a passive expert fill it.
    passive = trace([0], [0], [5], [0], [0])
    assert segments(passive, passive_experts=1).windows.tolist() == [2]
    assert hits(passive, passive_experts=1) == (2, 4)


def test_an_expert_counts_once_a_token():
    ids = trace([3, 3], [3, 1])
    assert segments(ids).histograms[0, 3].tolist() == [0, 0, 1]
    assert hits(ids) == (1, 3)


def test_the_least_used_expert_goes():
    # At token 1, expert 2 takes the place of 1, which is not used again, and not of 0, which is.
    assert hits(trace([0, 1], [2], [0], [0])) == (2, 5)
    # What it uses beyond the window is not seen: both are equal then, and the highest id goes.
    assert hits(trace([0, 1], [2], [3], [1]), window=1) == (0, 5)
    assert hits(trace([0, 1], [2], [2], [0]), window=1) == (2, 5)


def test_what_the_token_uses_stays():
    # At token 1 the cache of two holds 0 and 1; 0 is used never again, but now.
    assert hits(trace([0, 1], [0, 2], [1], [2])) == (2, 6)


def test_a_cache_starts_empty():
    ids = trace([0, 1], [0, 1], [0, 1])
    assert hits(ids) == (4, 6)
    assert hits(ids, follows=[False, True, False]) == (2, 6)


def test_a_cache_that_is_too_small_keeps_what_is_used_next():
    ids = trace([0, 1, 2, 3], [3, 1], [3])
    # Of four experts two are kept, 1 and 3; at token 2 both are there still.
    assert hits(ids, rho=0.5) == (3, 7)
    # Of one place, 3 has it.
    assert hits(ids, rho=0.25) == (2, 7)
    # Of equals, the lowest id.
    assert hits(trace([4, 2], [2, 4]), rho=0.5, window=1) == (1, 4)


@pytest.mark.parametrize(
    ("rho", "k", "size"), [(2, 2, 4), (0.5, 1, 1), (1.5, 1, 2), (2.5, 1, 3), (1.25, 2, 3), (99, 2, 6)]
)
def test_a_half_is_rounded_up_and_no_cache_holds_more_than_all(rho, k, size):
    assert segments(trace([0, 1][:k]), rho=rho).cache_sizes.tolist() == [size]


def test_without_tokens():
    found = segments(np.empty((0, 2, 3), dtype=np.int16), follows=[], n_experts=[4, 2])
    assert found.histograms.shape == (2, 4, 3)
    assert not found.histograms.any()
    assert [found.windows.tolist(), found.hits.tolist(), found.activations.tolist()] == [[0, 0]] * 3
    words = count_vocabulary(np.empty((0, 2, 3), dtype=np.int16), [], n_experts=4, entries=True)
    assert words.top_token_ids.shape == (2, 4, 10)
    assert [len(column) for column in words.entries.values()] == [0] * 5


def test_counts_of_two_layouts_do_not_add_up():
    ids = trace([0, 1], [0, 2])
    found = segments(ids)
    assert (found + found).hits.tolist() == [2]
    refused(moefps.ArgumentError, lambda: found + segments(ids, window=3), "window 2 and 3")
    refused(moefps.ArgumentError, lambda: found + segments(ids, rho=2), "cache_sizes")
    refused(moefps.ArgumentError, lambda: found + segments(ids, n_experts=7), "n_experts")
    refused(moefps.ArgumentError, lambda: found + segments(ids, rho=None), "cache_sizes")
    refused(moefps.ArgumentError, lambda: found + segments(ids, histograms=False), "histograms")
    with pytest.raises(TypeError):
        found + 1


def test_vocabulary_by_hand():
    ids = trace([0, 1], [0, 1], [1, 1], [], [2], [0], [2])
    found = count_vocabulary(ids, [7, 7, 7, 7, 7, 5, -1], n_experts=4, min_count=1, top=2, entries=True)
    assert [found.tokens[0], found.tokens_without_id[0], found.tokens_counted[0], found.n_token_ids[0]] == [6, 1, 5, 2]
    assert list(zip(*(column.tolist() for column in found.entries.values()), strict=True)) == [
        (0, 5, 0, 1, 1),
        (0, 7, 0, 2, 4),
        (0, 7, 1, 3, 4),
        (0, 7, 2, 1, 4),
    ]
    assert found.top_token_ids.tolist() == [[[5, 7], [7, -1], [7, -1], [-1, -1]]]
    assert found.top_counts.tolist() == [[[1, 2], [3, 0], [1, 0], [0, 0]]]
    assert found.top_totals.tolist() == [[[1, 4], [4, 0], [4, 0], [0, 0]]]


def test_a_rare_token_id_is_rare_in_a_layer():
    ids = np.array([[[0], [0]], [[0], [-1]], [[1], [-1]]], dtype=np.int16)
    found = count_vocabulary(ids, [4, 4, 4], n_experts=2, min_count=3)
    assert found.n_token_ids.tolist() == [1, 0]
    assert found.tokens.tolist() == [3, 1]
    assert found.tokens_counted.tolist() == [3, 0]
    assert found.entries is None


def test_the_lowest_of_equal_token_ids_is_first():
    found = count_vocabulary(trace([0], [0], [0], [1]), [9, 2, 6, 2], n_experts=2, min_count=1, top=2)
    assert found.top_token_ids[0].tolist() == [[6, 9], [2, -1]]


def both(ids, **how):
    """Calls that must refuse what is wrong with the trace."""
    how = {"n_experts": 3} | how
    return (
        lambda: count_segments(ids, follows=[False, True], **how),
        lambda: count_vocabulary(ids, [1, 2], **how),
    )


@pytest.mark.parametrize("which", [0, 1])
def test_ids(which):
    ids = trace([0, 1], [0, 2])
    refused(moefps.DataError, both(trace([0, 1], [0, 3]))[which], "row 1", "slot 1", "is 3", "0 to 2")
    refused(moefps.DataError, both(trace([0, -2], [0, 3]))[which], "row 0", "-2")
    refused(moefps.DataError, both(ids, top_k=1)[which], "row 0", "slot 1", "1 slots")
    refused(moefps.DtypeError, both(ids.astype(np.int32))[which], "expert_ids", "i4", "int16")
    refused(moefps.ShapeError, both(ids[0])[which], "expert_ids", r"\[T, L, k\]")
    refused(moefps.ArgumentError, both(ids, passive_experts=3)[which], "passive_experts", "fewer")
    refused(moefps.ArgumentError, both(ids, n_threads=0)[which], "n_threads", "0")


@pytest.mark.parametrize("n_threads", [1, 2, 8])
def test_the_first_of_many_is_named(n_threads):
    ids = np.zeros((100_000, 3, 2), dtype=np.int16)
    ids[70_000:, 0] = 9
    ids[60_001:, 1, 1] = 10
    follows = np.arange(len(ids)) % 100 > 0
    refused(
        moefps.DataError, lambda: segments(ids, follows=follows, n_threads=n_threads), "row 60001", "layer 1", "slot 1"
    )
    refused(
        moefps.DataError,
        lambda: count_vocabulary(ids, np.arange(len(ids)) % 7, n_experts=9, n_threads=n_threads),
        "row 60001",
    )


@pytest.mark.parametrize("window", [0, -1, 4097, 2.5, None, True])
def test_windows_that_are_none(window):
    refused(moefps.ArgumentError, lambda: segments(trace([0, 1]), window=window), "window", "1 to 4096")


@pytest.mark.parametrize("rho", [0, -1, float("nan"), float("inf"), "2", True])
def test_caches_that_are_none(rho):
    refused(moefps.ArgumentError, lambda: segments(trace([0, 1]), rho=rho), "rho", "a number > 0")


def test_arguments():
    ids = trace([0, 1], [0, 2])
    refused(moefps.ArgumentError, lambda: segments(ids, rho=0.2), "rho: 0.2", "layer 0", "2 slots", "at least 0.25")
    refused(moefps.ShapeError, lambda: segments(ids, follows=[True]), "follows", r"\(2,\)")
    refused(moefps.DtypeError, lambda: segments(ids, follows=[1, 1]), "follows", "bool")

    def words(token_ids=(1, 2), **how):
        return lambda: count_vocabulary(ids, token_ids, n_experts=3, **how)

    refused(moefps.ShapeError, words([1]), "token_ids", r"\(2,\)")
    refused(moefps.DtypeError, words([1.0, 2.0]), "token_ids", "float64", "integers")
    refused(moefps.DataError, words([1, -2]), "token_ids", "row 1", "-2", "-1 for no token id")
    refused(moefps.DataError, words([2**31, 1]), "token_ids", "row 0", "2147483648")
    refused(moefps.ArgumentError, words(min_count=0), "min_count: 0", "from 1")
    refused(moefps.ArgumentError, words(top=0), "top: 0", "1 to 1000")
    refused(moefps.ArgumentError, words(top=1.5), "top: 1.5", "an integer")


def test_progress():
    ids, seen = np.zeros((5000, 2, 2), dtype=np.int16), []
    segments(ids, progress=lambda *done: seen.append(done))
    assert seen[-1] == (20_000, 20_000)
    count_vocabulary(ids, np.zeros(5000, dtype=int), n_experts=1, progress=lambda *done: seen.append(done))
    assert seen[-1][0] == seen[-1][1] > 0


def test_results_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        segments(trace([0])).window = 3
