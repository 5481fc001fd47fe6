"""Segment metrics of dumps: what the definitions say, worked examples, and reasons where there is no value."""

from __future__ import annotations

from itertools import chain

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moefps
from moefps.io.dump import LayerInfo
from moefps.kernels import count_segments, count_vocabulary, find_neighbours
from moefps.metrics.evaluation import evaluate
from moefps.metrics.examples import EXAMPLE
from moefps.metrics.families.segments import METRICS
from moefps.metrics.segments import segment_columns, segment_metrics, tabulate_segments
from moefps.metrics.sums import sums_of_counts
from moefps.metrics.tables import build_tables
from moefps.metrics.vocabulary import vocabulary_columns, vocabulary_specialization
from reference import segments as plain
from support import refused

SCORES = ("segment_routing_best_performance", "alpha", "segment_size_ratio")


def dump_of(path, ids, offsets, **how):
    return moefps.write_dump(path / "dump", expert_ids=ids, offsets=offsets, **how)


@pytest.fixture
def example(tmp_path):
    tokens = {"token_id": [5, 7, 5, 7]}
    return dump_of(tmp_path, EXAMPLE.expert_ids, list(EXAMPLE.offsets), n_experts=4, tokens=tokens)


def test_the_examples_of_the_registry(example):
    """Each ends in its value, as what the registry computes from the columns that are made for it."""
    segments = segment_metrics(example, window=2)
    words = vocabulary_specialization(example, min_count=2)
    tables = build_tables(sums_of_counts(moefps.kernels.count_routing(EXAMPLE.expert_ids, n_experts=4)))
    for columns in (segment_columns(segments.counts, [0]), vocabulary_columns(words)):
        tables = tables.with_columns(columns)
    found = evaluate(tables, METRICS)
    assert found["reason"].to_list() == [None] * 4
    for metric, value in zip(METRICS, found["value"], strict=True):
        assert round(value, 4) == float(metric.example.rsplit("= ", 1)[-1]), metric.name


def test_why_the_registry_has_no_value(tmp_path):
    ids = np.array([[[0], [-1]], [[1], [-1]]])
    dump = dump_of(tmp_path, ids, [0, 2], n_experts=2, tokens={"token_id": [1, None]})
    tables = build_tables(sums_of_counts(moefps.kernels.count_routing(ids.astype(np.int16), n_experts=2)))
    for columns in (
        segment_columns(segment_metrics(dump).counts, [0, 1]),
        vocabulary_columns(vocabulary_specialization(dump)),
    ):
        tables = tables.with_columns(columns)
    found = evaluate(tables, METRICS)
    no_window, no_word = "no sequence is as long as a window", "no token id has as many tokens as are asked for"
    no_token = "no token has a filled slot in this layer"
    assert found["reason"].to_list() == [no_window, no_window, None, no_word, no_window, no_window, no_token, no_word]
    assert found["value"].to_list() == [None, None, 0.0, None, None, None, None, None]


def test_the_lowest_alpha_of_equals():
    # f of expert 0 is 2 and of expert 1 is 1 in the only window: alone, either alpha gives 2·2/(2 + 2), 2·1/(2 + 1).
    ids = np.array([[[0, 1]], [[0, -1]]], dtype=np.int16)
    found = tabulate_segments(count_segments(ids, n_experts=3, follows=[False, True], window=2))
    assert found.experts.select(SCORES).rows() == [(1.0, 1, 0.5), (2 / 3, 1, 0.5), (None, None, None)]
    assert found.experts["reason"].to_list() == [None, None, "the expert is active in no window"]
    # Pooled: F1(1) = 2·3/(2·2 + 3), F1(2) = 2·2/(2 + 3).
    assert found.layers.select(SCORES).row(0) == (6 / 7, 1, 1.0)


def test_only_what_was_counted():
    ids = np.zeros((3, 1, 1), dtype=np.int16)
    how = {"n_experts": 2, "follows": [False, True, True], "window": 2}
    caches = tabulate_segments(count_segments(ids, histograms=False, **how))
    assert caches.layers["segment_cache_hit_rate"].to_list() == [2 / 3]
    assert caches.layers.select("alpha", "reason").row(0) == (None, "windows were not counted by expert")
    assert caches.experts["reason"].unique().to_list() == ["windows were not counted by expert"]
    windows = tabulate_segments(count_segments(ids, rho=None, **how))
    assert windows.layers.select("segment_cache_hit_rate", "cache_size", "cache_reason").row(0) == (
        None,
        None,
        "no caches were followed",
    )
    assert windows.layers["alpha"].to_list() == [1]


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), window=st.sampled_from([1, 2, 3, 7]), stays=st.sampled_from([0, 3]))
def test_values_are_what_the_definitions_say(seed, window, stays):
    rng = np.random.default_rng(seed)
    n_tokens, n, k = int(rng.integers(0, 60)), int(rng.integers(1, 9)), int(rng.integers(1, 4))
    scores = rng.random((n_tokens, n)) + stays * rng.random((1, n))
    ids = np.full((n_tokens, 1, k), -1, dtype=np.int16)
    ids[:, 0, : min(n, k)] = scores.argsort(axis=1)[:, :k]
    ids[rng.random(ids.shape) < rng.choice([0, 0.3])] = -1
    follows = rng.random(n_tokens) < 0.9
    found = tabulate_segments(count_segments(ids, n_experts=n, follows=follows, window=window, rho=1))
    sequences = plain.sequences(plain.sets_of_experts(ids[:, 0], n), follows)
    n_windows = len(plain.windows(sequences, window))
    f = [plain.frequencies(sequences, window, e) for e in range(n)]
    for row, values in [
        *zip(found.experts.select(SCORES).rows(), f, strict=True),
        (found.layers.select(SCORES).row(0), list(chain(*f))),
    ]:
        best = plain.best_performance(values, window, k, n_windows)
        if best is None:
            assert row == (None, None, None)
        else:
            assert row == pytest.approx([float(part) for part in best], abs=1e-12)
    hits, activations = plain.cache_hits(sequences, min(k, n), window)
    rate = found.layers["segment_cache_hit_rate"][0]
    assert rate == (hits / activations if activations else None)


def test_neighbours_of_a_dump(tmp_path):
    """Rows of one sample and stack, one position apart."""
    ids = np.zeros((8, 1, 1), dtype=np.int16)
    tokens = {"position": [0, 1, 3, 4, 0, 1, 2, 3], "stack": ["encoder"] * 6 + ["decoder"] * 2}
    dump = dump_of(tmp_path, ids, [0, 4, 8], n_experts=1, tokens=tokens)
    found = segment_metrics(dump, window=2)
    assert found.layers.select("windows", "hits", "activations").row(0) == (4, 4, 8)


def test_layers_and_passive_experts(tmp_path):
    rng = np.random.default_rng(4)
    ids = rng.random((80, 5, 6)).argsort(axis=2)[:, :, :2].astype(np.int16)
    ids[:, 3] %= 3
    sizes = enumerate(zip([6, 6, 6, 3, 6], [0, 0, 2, 0, 0], strict=True))
    infos = [LayerInfo(i, f"layers.{i}", i, n_experts=n, top_k=2, passive_experts=idle) for i, (n, idle) in sizes]
    dump = dump_of(tmp_path, ids, [0, 30, 80], layers=infos)
    whole = segment_metrics(dump, window=4)
    assert whole.experts.group_by("layer", maintain_order=True).len().rows() == [(0, 6), (1, 6), (2, 4), (3, 3), (4, 6)]
    some = segment_metrics(dump, window=4, layers=[3, 0, 2])
    for name in ("layers", "experts"):
        expected = pl.concat([getattr(whole, name).filter(pl.col("layer") == layer) for layer in (3, 0, 2)])
        assert getattr(some, name).equals(expected), name
    assert some.layers["cache_size"].to_list() == [3, 4, 4]
    half = [
        count_segments(ids[p][:, [3]], n_experts=3, follows=find_neighbours([0, n]), window=4)
        for p, n in ((slice(30), 30), (slice(30, 80), 50))
    ]
    assert tabulate_segments(half[0] + half[1], [3]).layers.equals(some.layers.head(1))


def test_arguments(tmp_path, example):
    refused(moefps.ArgumentError, lambda: segment_metrics(example, window=0), "window", "1 to 4096")
    refused(moefps.ArgumentError, lambda: segment_metrics(example, rho=-1), "rho", "> 0")
    refused(moefps.ArgumentError, lambda: segment_metrics(example, layers=[1]), "layers", "0 to 0")


def test_a_wrong_id_is_of_a_file(tmp_path):
    dump = dump_of(tmp_path, np.zeros((40, 2, 1), dtype=np.int16), [0, 40], n_experts=3)
    array = np.lib.format.open_memmap(dump.path / "expert_ids.npy", mode="r+")
    array[7, 1, 0] = 3
    array.flush()
    refused(moefps.DataError, lambda: segment_metrics(moefps.open_dump(dump.path)), "expert_ids", "row 7", "3")


def test_real_traces(traces):
    """Layer by layer, as the definitions have it; consistency beyond that of independent choices."""
    stop = int(traces.offsets[3])
    ids, follows = traces.experts[:stop].astype(np.int16), find_neighbours(traces.offsets[:4])
    found = tabulate_segments(count_segments(ids, n_experts=64, follows=follows))
    shuffled = np.random.default_rng(0).permutation(ids)
    chance = tabulate_segments(count_segments(shuffled, n_experts=64, follows=follows))
    for name in ("segment_routing_best_performance", "segment_cache_hit_rate"):
        assert found.layers[name].mean() > chance.layers[name].mean() + 0.02
    sequences = plain.sequences(plain.sets_of_experts(ids[:, 25], 64), follows)
    f = [plain.frequencies(sequences, 16, e) for e in range(64)]
    expected = plain.best_performance(list(chain(*f)), 16, 6, len(plain.windows(sequences, 16)))
    assert found.layers.select(SCORES).row(25) == pytest.approx([float(part) for part in expected], abs=1e-12)
    assert found.layers.select("hits", "activations").row(25) == plain.cache_hits(sequences, 12, 16)
    assert count_vocabulary(ids, np.full(stop, -1), n_experts=64).n_token_ids.tolist() == [0] * 26
