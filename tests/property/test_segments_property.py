"""Windows, caches and vocabularies of random traces: what the definitions say, for any layout, cut and thread count."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moefps.kernels import SegmentCounts, VocabularyCounts, count_segments, count_vocabulary, find_neighbours
from reference import segments as plain

FEW = settings(max_examples=30)


class Case(NamedTuple):
    """A trace, and the arguments that go with it."""

    ids: np.ndarray
    how: dict[str, Any]
    offsets: list[int]
    token_ids: np.ndarray

    @property
    def active(self):
        return [n - p for n, p in zip(self.how["n_experts"], self.how["passive_experts"], strict=True)]

    @property
    def follows(self):
        return find_neighbours(self.offsets)

    def __repr__(self):
        return f"Case({self.ids.shape}, {self.how}, {self.offsets})"


@st.composite
def traces(draw):
    n_tokens = draw(st.integers(0, 9) | st.integers(40, 150))
    n_layers = draw(st.integers(1, 3))
    k = draw(st.integers(1, 5))
    most = draw(st.sampled_from([1, 2, k, k + 3, 30]))
    experts = [draw(st.integers(max(1, most // 2), most)) for _ in range(n_layers)]
    passive = [draw(st.integers(0, min(2, n - 1))) for n in experts]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ids = np.full((n_tokens, n_layers, k), -1, dtype=np.int16)
    repeats, stays = draw(st.booleans()), draw(st.booleans())
    for layer, n in enumerate(experts):
        scores = (
            rng.random((n_tokens, n)) + (2 * rng.random((n_tokens // 8 + 1, n)).repeat(8, axis=0)[:n_tokens]) * stays
        )
        filled = min(n, k)
        ids[:, layer, :filled] = scores.argsort(axis=1)[:, :filled]
        if repeats:
            ids[:, layer] = rng.integers(0, n, (n_tokens, k))
    # Of slots, of tokens in a layer.
    ids[rng.random(ids.shape) < draw(st.sampled_from([0, 0.1, 0.7]))] = -1
    ids[rng.random(ids.shape[:2]) < draw(st.sampled_from([0, 0, 0.05]))] = -1
    offsets = sorted({0, n_tokens, *draw(st.lists(st.integers(0, n_tokens), max_size=4))})
    token_ids = rng.integers(-1, draw(st.sampled_from([1, 5, 60])), n_tokens) * draw(st.sampled_from([1, 30_000_000]))
    token_ids[token_ids < 0] = -1
    return Case(ids, {"n_experts": experts, "passive_experts": passive}, offsets, token_ids)


def layouts(array, kind):
    if kind == "strided":
        return np.repeat(array, 2, axis=2)[:, :, ::2]
    if kind == "fortran":
        return np.asfortranarray(array)
    return array[::-1].copy()[::-1] if kind == "reversed" else array


def same(a, b):
    for field in dataclasses.fields(SegmentCounts):
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name), err_msg=field.name)


@FEW
@given(
    case=traces(),
    kind=st.sampled_from(["c", "strided", "fortran", "reversed"]),
    window=st.integers(1, 9) | st.just(40),
    rho=st.sampled_from([0.5, 0.6, 1, 1.5, 2.0, 9]),
)
def test_segments_are_what_the_definitions_say(case, kind, window, rho):
    found = count_segments(layouts(case.ids, kind), follows=case.follows, window=window, rho=rho, **case.how)
    k = case.ids.shape[2]
    for layer, n in enumerate(case.active):
        sequences = plain.sequences(plain.sets_of_experts(case.ids[:, layer], n), case.follows)
        size = min(n, int(rho * k + 0.5))
        assert found.cache_sizes[layer] == size
        assert (found.hits[layer], found.activations[layer]) == plain.cache_hits(sequences, size, window)
        assert found.windows[layer] == len(plain.windows(sequences, window))
        expected = np.zeros((max(case.active), window + 1), dtype=np.int64)
        for e in range(n):
            for f in plain.frequencies(sequences, window, e):
                expected[e, f] += 1
        np.testing.assert_array_equal(found.histograms[layer], expected)


@FEW
@given(case=traces(), min_count=st.sampled_from([1, 2, 10]), top=st.integers(1, 4))
def test_vocabularies_are_what_the_definitions_say(case, min_count, top):
    found = count_vocabulary(case.ids, case.token_ids, min_count=min_count, top=top, entries=True, **case.how)
    table = list(zip(*(found.entries[name].tolist() for name in found.entries), strict=True))
    expected = []
    for layer, n in enumerate(case.active):
        used = plain.sets_of_experts(case.ids[:, layer], n)
        want = plain.vocabulary(used, case.token_ids, n, min_count, top)
        for name in ("tokens", "tokens_without_id", "tokens_counted", "n_token_ids"):
            assert getattr(found, name)[layer] == want[name], name
        expected += [(layer, *row) for row in want["table"]]
        for expert in range(max(case.active)):
            rows = want["lists"][expert] if expert < n else []
            rows = rows + [(-1, 0, 0)] * (top - len(rows))
            arrays = (found.top_token_ids, found.top_counts, found.top_totals)
            assert [array[layer, expert].tolist() for array in arrays] == [
                list(column) for column in zip(*rows, strict=True)
            ]
    assert table == expected


@FEW
@given(case=traces())
def test_threads_change_nothing(case):
    how = {"follows": case.follows, "window": 4, **case.how}
    one = count_segments(case.ids, n_threads=1, **how)
    words = count_vocabulary(case.ids, case.token_ids, n_threads=1, min_count=2, top=2, entries=True, **case.how)
    for n_threads in (2, 8):
        same(count_segments(case.ids, n_threads=n_threads, **how), one)
        others = count_vocabulary(
            case.ids, case.token_ids, n_threads=n_threads, min_count=2, top=2, entries=True, **case.how
        )
        for field in dataclasses.fields(VocabularyCounts):
            ours, theirs = getattr(words, field.name), getattr(others, field.name)
            np.testing.assert_equal(theirs, ours, err_msg=field.name)


@FEW
@given(case=traces(), data=st.data())
def test_pieces_add_up(case, data):
    """Cut between sequences."""
    cut = data.draw(st.sampled_from(case.offsets))
    how = {"window": 3, **case.how}
    pieces = [
        count_segments(case.ids[part], follows=case.follows[part], **how)
        for part in (slice(None, cut), slice(cut, None))
    ]
    same(pieces[0] + pieces[1], count_segments(case.ids, follows=case.follows, **how))


@FEW
@given(case=traces())
def test_what_is_not_asked_for_changes_nothing(case):
    how = {"follows": case.follows, "window": 5, **case.how}
    both = count_segments(case.ids, **how)
    windows, caches = count_segments(case.ids, rho=None, **how), count_segments(case.ids, histograms=False, **how)
    assert windows.hits is None
    assert caches.histograms is None
    same(dataclasses.replace(windows, cache_sizes=both.cache_sizes, hits=both.hits, activations=both.activations), both)
    same(dataclasses.replace(caches, histograms=both.histograms), both)


@pytest.mark.parametrize("n_layers", [1, 5])
def test_large_traces_are_cut_anywhere(n_layers):
    """More rows than a step, fewer sequences than pieces, and windows that go over both."""
    rng = np.random.default_rng(n_layers)
    n_tokens = 60_000 // n_layers
    ids = rng.random((n_tokens, n_layers, 12)).argsort(axis=2)[..., :5].astype(np.int16)
    follows = rng.random(n_tokens) > 0.0005
    how = {"n_experts": 12, "follows": follows, "window": 30, "rho": 1.5}
    one = count_segments(ids, n_threads=1, **how)
    same(count_segments(ids, n_threads=5, **how), one)
    sequences = plain.sequences(plain.sets_of_experts(ids[:4000, 0], 12), follows[:4000])
    head = count_segments(ids[:4000], **how | {"follows": follows[:4000]})
    assert (head.hits[0], head.activations[0]) == plain.cache_hits(sequences, 8, 30)
    f = plain.frequencies(sequences, 30, 3)
    assert head.histograms[0, 3].tolist() == np.bincount(f, minlength=31).tolist()
