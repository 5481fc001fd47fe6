"""Vocabulary specialisation of dumps: what the definitions say, and what is left out."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moefps
from moefps.io.dump import LayerInfo
from moefps.metrics.vocabulary import vocabulary_specialization
from reference import segments as plain
from support import refused


def dump_of(path, ids, words, **how):
    return moefps.write_dump(path / "dump", expert_ids=ids, offsets=[0, len(ids)], tokens={"token_id": words}, **how)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), min_count=st.sampled_from([1, 3, 10]), top=st.sampled_from([1, 3, 10]))
def test_values_are_what_the_definitions_say(tmp_path_factory, seed, min_count, top):
    rng = np.random.default_rng(seed)
    n_tokens, n_layers, k = int(rng.integers(0, 200)), int(rng.integers(1, 4)), int(rng.integers(1, 4))
    experts = rng.integers(k, k + 6, n_layers)
    ids = np.stack([rng.random((n_tokens, n)).argsort(axis=1)[:, :k] for n in experts], axis=1).astype(np.int16)
    ids[rng.random(ids.shape) < rng.choice([0, 0.5])] = -1
    words = rng.integers(-1, rng.choice([1, 6, 40]), n_tokens)
    dump = dump_of(tmp_path_factory.mktemp("words"), ids, words, n_experts=experts.tolist())
    found = vocabulary_specialization(dump, min_count=min_count, top=top, table=True)
    tables, tops = [], []
    for layer, n in enumerate(experts.tolist()):
        want = plain.vocabulary(plain.sets_of_experts(ids[:, layer], n), words, n, min_count, top)
        own = found.experts.filter(pl.col("layer") == layer)
        assert own["expert"].to_list() == list(range(n))
        for name in ("mean", "max"):
            for value, expected in zip(own[name], want[name], strict=True):
                assert value == (None if expected is None else pytest.approx(expected, abs=1e-12)), name
        row = found.layers.row(layer, named=True)
        assert row["token_ids"] == want["n_token_ids"]
        assert [row[name] for name in ("tokens", "tokens_without_id", "tokens_counted")] == [
            want[name] for name in ("tokens", "tokens_without_id", "tokens_counted")
        ]
        assert row["tokens"] == row["tokens_without_id"] + row["tokens_counted"] + row["tokens_rare"]
        if want["n_token_ids"]:
            assert row["vocabulary_specialization"] == pytest.approx(np.mean(want["mean"]), abs=1e-12)
            assert row["reason"] is None
        else:
            assert row["vocabulary_specialization"] is None
            assert row["reason"] == "no token id has as many tokens as are asked for"
        tables += [(layer, *entry) for entry in want["table"]]
        tops += [(layer, e, rank + 1, *entry) for e in range(n) for rank, entry in enumerate(want["lists"][e])]
    assert found.table.drop("share").rows() == tables
    assert found.top.drop("share").rows() == tops
    for frame in (found.table, found.top):
        assert frame.filter(pl.col("share") != pl.col("count") / pl.col("total")).is_empty()


def test_by_hand(tmp_path):
    """Token id 5 chooses expert 0 in three tokens of four, token id 7 in one of two, 9 is rare, and 8 never does."""
    ids = np.array([0, 0, 0, 1, 0, 1, 0, 2, 2, 1]).reshape(-1, 1, 1)
    dump = dump_of(tmp_path, ids, [5, 5, 5, 5, 7, 7, 9, 8, 8, None], n_experts=4)
    found = vocabulary_specialization(dump, min_count=2, top=2, table=True)
    assert found.experts.rows() == [
        (0, 0, 0.75, 0.625, None),
        (0, 1, 0.5, 0.375, None),
        (0, 2, 1.0, 0.5, None),
        (0, 3, 0.0, 0.0, None),
    ]
    assert found.layers.row(0, named=True) == {
        "layer": 0,
        "vocabulary_specialization": 0.375,
        "token_ids": 3,
        "tokens": 10,
        "tokens_counted": 8,
        "tokens_without_id": 1,
        "tokens_rare": 1,
        "reason": None,
    }
    assert found.top.select("expert", "rank", "token_id", "count", "total", "share").rows() == [
        (0, 1, 5, 3, 4, 0.75),
        (0, 2, 7, 1, 2, 0.5),
        (1, 1, 7, 1, 2, 0.5),
        (1, 2, 5, 1, 4, 0.25),
        (2, 1, 8, 2, 2, 1.0),
    ]
    assert found.table.height == 5


def test_layers(tmp_path):
    rng = np.random.default_rng(2)
    ids = rng.integers(0, 5, (300, 4, 2)).astype(np.int16)
    sizes = enumerate(zip([5, 5, 6, 5], [0, 0, 0, 2], strict=True))
    infos = [LayerInfo(i, f"layers.{i}", i, n_experts=n, top_k=2, passive_experts=idle) for i, (n, idle) in sizes]
    dump = dump_of(tmp_path, ids, rng.integers(0, 9, 300), layers=infos)
    whole = vocabulary_specialization(dump, table=True)
    some = vocabulary_specialization(dump, layers=[3, 1], table=True)
    for name in ("layers", "experts", "top", "table"):
        expected = pl.concat([getattr(whole, name).filter(pl.col("layer") == layer) for layer in (3, 1)])
        assert getattr(some, name).select(expected.columns).equals(expected), name
    assert whole.experts.group_by("layer", maintain_order=True).len().rows() == [(0, 5), (1, 5), (2, 6), (3, 3)]
    assert vocabulary_specialization(dump).table is None


def test_a_dump_without_token_ids(tmp_path):
    ids = np.zeros((3, 1, 1), dtype=np.int16)
    bare = moefps.write_dump(tmp_path / "bare", expert_ids=ids, offsets=[0, 3], n_experts=2)
    refused(moefps.DumpError, lambda: vocabulary_specialization(bare), "token ids", "token_id")
    named = moefps.write_dump(
        tmp_path / "named", expert_ids=ids, offsets=[0, 3], n_experts=2, tokens={"token_id": ["a", "b", "c"]}
    )
    refused(moefps.DumpError, lambda: vocabulary_specialization(named), "token_id", "String", "integers")
    none = dump_of(tmp_path, ids, pl.Series([None] * 3, dtype=pl.Int32), n_experts=2)
    assert vocabulary_specialization(none).layers["tokens_without_id"].to_list() == [3]


def test_arguments(tmp_path):
    dump = dump_of(tmp_path, np.zeros((3, 1, 1), dtype=np.int16), [1, 2, -4], n_experts=2)
    refused(moefps.ArgumentError, lambda: vocabulary_specialization(dump, min_count=0), "min_count", "from 1")
    refused(moefps.ArgumentError, lambda: vocabulary_specialization(dump, top=0), "top", "1 to 1000")
    refused(moefps.ArgumentError, lambda: vocabulary_specialization(dump, layers=[1]), "layers", "0 to 0")
    refused(moefps.DataError, lambda: vocabulary_specialization(dump), "token_ids", "row 2", "-4")
