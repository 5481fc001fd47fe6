"""RoutingAnalyzer: any cut into batches, shards and layouts gives what one pass over everything gives."""

from __future__ import annotations

import pickle
import tracemalloc

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import moefps
from moefps.errors import ArgumentError, DataError, DtypeError, ShapeError
from moefps.kernels import count_routing, find_neighbours, sum_logits
from moefps.metrics import double, find_metric, metrics_from_counts, routing_metrics
from moefps.metrics.analyzer import RoutingAnalyzer
from reference.counts import COUNTS, SUMS, counts
from support import refused

WHOLE = {"dead_experts", "underused_experts", "num_active_experts", "total_expert_activations", "maxvio"}


def values_of(found, without=("maxvio_batch",)):
    frame = found.layers if hasattr(found, "layers") else found
    return {row[:2]: row[2] for row in frame.select("layer", "metric", "value").rows() if row[1] not in without}


def assert_same(found, expected, without=("maxvio_batch",)):
    found, expected = values_of(found, without), values_of(expected, without)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if value is None or key[1] in WHOLE:
            assert found[key] == value, key
        else:
            assert found[key] == pytest.approx(value, rel=1e-12, abs=1e-12), key


def batches_of(seed, n_experts, top_k, n_batches=4, dtype=np.float32):
    """Batches [B, S, k] with masks, empty slots and weights that sum to 0."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n_batches):
        shape = int(rng.integers(1, 4)), int(rng.integers(1, 6))
        ids = rng.random((*shape, n_experts)).argsort(axis=-1)[..., :top_k]
        ids[rng.random(ids.shape) < 0.15] = -1
        weights = rng.choice([0, 0.25, 0.5, 1 / 3, 1e-3], ids.shape).astype(dtype)
        found.append({"ids": ids, "weights": weights, "mask": rng.random(shape) < 0.8})
    return found


def flatten(batches):
    """All valid tokens, and whether each is the neighbour of the one before."""
    ids = np.concatenate([b["ids"][b["mask"]] for b in batches])
    weights = np.concatenate([b["weights"][b["mask"]] for b in batches])
    where = []
    for i, batch in enumerate(batches):
        where += [(i, int(row), int(position)) for row, position in np.argwhere(batch["mask"])]
    follows = [False] * len(where)
    for t in range(1, len(where)):
        follows[t] = where[t][:2] == where[t - 1][:2] and where[t][2] == where[t - 1][2] + 1
    return ids.astype(np.int16), weights, np.array(follows, dtype=bool)


def cut_up(batches, n_experts, cut):
    """The same tokens in batches, in two shards, and at once; and what the kernel counts of them."""
    batched, first, second, at_once = (RoutingAnalyzer(n_experts, capacity_factor=1.5) for _ in range(4))
    for i, batch in enumerate(batches):
        batched.update(**batch)
        (first if i < cut else second).analyze_routing_step(**batch)
    ids, weights, follows = flatten(batches)
    at_once.update(ids, weights, offsets=[*np.flatnonzero(~follows), len(ids)])
    counted = count_routing(ids[:, None], weights[:, None], n_experts=n_experts, follows=follows)
    return batched, first + second, sum([second, first]), at_once, counted


@given(
    seed=st.integers(0, 2**32 - 1),
    n_experts=st.integers(1, 7),
    top_k=st.integers(1, 4),
    cut=st.integers(0, 4),
    dtype=st.sampled_from([np.float16, np.float32]),
)
def test_batches_shards_and_one_pass_agree(seed, n_experts, top_k, cut, dtype):
    batches = batches_of(seed, n_experts, min(top_k, n_experts), dtype=dtype)
    *analyzers, counted = cut_up(batches, n_experts, cut)
    for analyzer in analyzers:
        for name in (*COUNTS, *SUMS):
            found, expected = getattr(analyzer._layers[0].counts, name), getattr(counted, name)
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12 * (name in SUMS), err_msg=name)


@pytest.mark.parametrize(("seed", "n_experts", "top_k"), [(0, 7, 3), (1, 1, 1)])
def test_their_metrics_agree(seed, n_experts, top_k):
    batched, merged, summed, at_once, counted = cut_up(batches_of(seed, n_experts, top_k), n_experts, 2)
    one_pass = metrics_from_counts(counted, capacity_factor=1.5)
    for analyzer in (batched, merged, at_once):
        assert_same(analyzer.result(), one_pass)
    for analyzer in (merged, summed):
        assert_same(analyzer.result(), batched.result(), without=())


@given(
    seed=st.integers(0, 2**32 - 1),
    n_experts=st.integers(1, 7),
    top_k=st.integers(1, 4),
    passive=st.integers(0, 2),
    cells=st.sampled_from([1, 16, 1 << 20]),
)
def test_weights_in_float64_are_not_rounded(seed, n_experts, top_k, passive, cells):
    top_k, passive = min(top_k, n_experts), min(passive, n_experts - 1)
    batches = batches_of(seed, n_experts, top_k, dtype=np.float64)
    analyzer = RoutingAnalyzer(n_experts, passive_experts=passive, signed_weights=True)
    before = double.CELLS
    double.CELLS = cells
    try:
        for batch in batches:
            batch["weights"] *= np.random.default_rng(seed).choice([1, 1, -1], batch["weights"].shape)
            analyzer.update(**batch)
    finally:
        double.CELLS = before
    ids, weights, follows = flatten(batches)
    found = analyzer._layers[0].counts
    expected = counts(ids[:, None], weights[:, None], n_experts=[n_experts], passive=[passive], follows=follows)
    for name in (*COUNTS, *SUMS):
        np.testing.assert_allclose(getattr(found, name), expected[name][0], atol=1e-9, rtol=0, err_msg=name)


def test_layers_of_all_kinds_equal_those_of_a_dump(tmp_path):
    """Different experts and slots, passive experts, a layer without a filled slot."""
    rng = np.random.default_rng(5)
    experts, top_k, passive = (6, 4, 5), (3, 1, 2), (0, 1, 0)
    lengths = (4, 1, 7)
    ids = np.full((12, 3, 3), -1, dtype=np.int16)
    weights = np.zeros(ids.shape, dtype=np.float32)
    for layer in (0, 1):
        k = top_k[layer]
        ids[:, layer, :k] = rng.random((12, experts[layer])).argsort(axis=1)[:, :k]
        weights[:, layer, :k] = rng.random((12, k))
    infos = [
        moefps.io.dump.LayerInfo(
            index=i, path=f"l.{i}", layer=i, n_experts=e, top_k=k, passive_experts=p, scoring="softmax"
        )
        for i, (e, k, p) in enumerate(zip(experts, top_k, passive, strict=True))
    ]
    offsets = np.cumsum([0, *lengths])
    dump = moefps.write_dump(tmp_path / "dump", expert_ids=ids, expert_weights=weights, offsets=offsets, layers=infos)
    analyzer = RoutingAnalyzer(experts, passive_experts=passive)
    for layer, k in enumerate(top_k):
        analyzer.update(ids[:, layer, :k], weights[:, layer, :k], layer=layer, offsets=offsets)
    without = ("maxvio_batch", "routing_type")
    assert_same(analyzer.result(), routing_metrics(dump), without)
    found, expected = analyzer.result(), routing_metrics(dump)
    assert found.experts.equals(expected.experts)
    assert found.coactivation().equals(expected.coactivation())


def test_by_hand():
    analyzer = RoutingAnalyzer(4)
    analyzer.update([[[0, 1], [0, 2]], [[3, 0], [1, 2]]])
    # Counts 3, 2, 2, 1: mean 2. Second batch alone: 0, 0, 0, 2, mean 1/2.
    assert analyzer.get_aggregated_metrics()["maxvio"] == 0.5
    analyzer.update([[3], [3]], layer=2)
    analyzer.update([[1], [0]], layer=2)
    found = analyzer.result(["maxvio", "maxvio_batch", "top_k_overlap"])
    values = values_of(found, without=())
    # Counts 1, 1, 0, 2, mean 1; batches: (2 - 1/2) / (1/2) = 3 and (1 - 1/2) / (1/2) = 1.
    assert values[2, "maxvio"] == 1.0
    assert values[2, "maxvio_batch"] == 2.0
    # A sequence does not go on in the next update: pairs 3-3 and 1-0 only.
    assert values[2, "top_k_overlap"] == 0.5
    assert values[0, "top_k_overlap"] == 0.25
    flat = analyzer.get_aggregated_metrics()
    assert flat["maxvio"] == 0.75
    assert (flat["maxvio/min"], flat["maxvio/max"]) == (0.5, 1.0)
    assert flat["routing_confidence"] is None


def test_a_hole_in_the_mask_parts_neighbours():
    analyzer = RoutingAnalyzer(3)
    analyzer.update([[[0], [0], [0]]], mask=[[1, 0, 1]])
    row = analyzer.result(["top_k_overlap"]).layers.row(0, named=True)
    assert row["value"] is None
    assert row["reason"]


def test_domains():
    rng = np.random.default_rng(1)
    ids = rng.random((4, 3, 5)).argsort(axis=-1)[..., :2]
    names = np.array(["code", "maths", "code", "prose"])
    whole, by_token, mixed = RoutingAnalyzer(5), RoutingAnalyzer(5), RoutingAnalyzer(5)
    whole.update(ids, domains=names)
    by_token.update(ids, domains=np.repeat(names[:, None], 3, axis=1))
    mixed.update(ids[1:], domains=pl.Series(names[1:].tolist()))
    mixed.update(ids[0], domains="code")
    table = whole.result().domains
    assert table["group"].unique().sort().to_list() == ["code", "maths", "prose"]
    for row in table.iter_rows(named=True):
        tokens = ids[names == row["group"]].reshape(-1, 2)
        assert row["tokens"] == (tokens == row["expert"]).any(axis=1).sum()
        assert row["domain_specialization"] == row["tokens"] / len(tokens)
    assert by_token.result().domains.equals(table)
    assert mixed.result().domains.equals(table)
    grouped = whole.result(by_domain=True).layers.filter(pl.col("group") == "code")
    alone = RoutingAnalyzer(5)
    alone.update(ids[names == "code"])
    of_alone = alone.result()
    for metric, value in grouped.select("metric", "value").rows():
        if value is not None and find_metric(metric).level != "domain":
            assert value == of_alone.value(metric), metric
    refused(ArgumentError, lambda: alone.result(by_domain=True), "by_domain")


def test_domains_change_inside_a_sequence():
    analyzer = RoutingAnalyzer(3)
    analyzer.update([[0], [0], [0], [1]], domains=["a", "a", "b", "b"])
    assert analyzer.result().value("top_k_overlap") == pytest.approx(2 / 3)
    grouped = analyzer.result(by_domain=True)
    assert (grouped.value("top_k_overlap", group="a"), grouped.value("top_k_overlap", group="b")) == (1.0, 0.0)


def test_merged_layers_are_those_of_either():
    one, other = RoutingAnalyzer(3), RoutingAnalyzer(3)
    one.update([[0]], layer=4)
    other.update([[1]], layer=1, domains=[7])
    assert (one + other).result().layers["layer"].unique().to_list() == [1, 4]
    assert pickle.loads(pickle.dumps(one + other)).get_aggregated_metrics() == (other + one).get_aggregated_metrics()


def test_memory_does_not_grow():
    analyzer = RoutingAnalyzer(16)
    ids = np.random.default_rng(0).random((64, 32, 16)).argsort(axis=-1)[..., :4]
    weights = np.full(ids.shape, 0.25, dtype=np.float32)
    for _ in range(3):
        analyzer.update(ids, weights)
    size = len(pickle.dumps(analyzer))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(20):
        analyzer.update(ids, weights)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    # Twenty batches, and less than one of them is kept.
    assert grown < ids.nbytes
    assert abs(len(pickle.dumps(analyzer)) - size) < 64


IDS = np.array([[[0, 1], [2, 3]], [[1, 0], [3, 2]]])
BAD = [
    ({"ids": IDS + 1}, DataError, r"ids: 4 at \[0, 1, 1\]; accepted: 0 to 3 or -1"),
    ({"ids": IDS - 2}, DataError, "ids: -2 at"),
    ({"ids": IDS.astype(float)}, DtypeError, "ids: dtype float64"),
    ({"ids": IDS > 0}, DtypeError, "ids: dtype bool"),
    ({"ids": IDS[0, 0]}, ShapeError, "ids: shape"),
    ({"ids": np.zeros((2, 2, 5), dtype=int)}, ShapeError, "ids: 5 slots a token; accepted: at most 4"),
    ({"ids": [[0], [1, 2]]}, ShapeError, "ids: rows of different lengths"),
    ({"weights": np.full(IDS.shape, np.nan)}, DataError, r"weights: nan at \[0, 0, 0\]"),
    ({"weights": np.full(IDS.shape, np.inf, dtype=np.float32)}, DataError, "weights: inf at"),
    ({"weights": np.full(IDS.shape, -1.0)}, DataError, "weights: -1.0 at"),
    ({"weights": np.ones((2, 2))}, ShapeError, "weights: shape"),
    ({"weights": np.ones(IDS.shape, dtype=int)}, DtypeError, "weights: dtype int64"),
    ({"logits": np.ones((2, 2, 5))}, ShapeError, "logits: shape"),
    ({"mask": np.ones(2, dtype=bool)}, ShapeError, "mask: shape"),
    ({"mask": np.full((2, 2), 2)}, DataError, "mask: 2; accepted: 0 and 1"),
    ({"mask": np.ones((2, 2))}, DtypeError, "mask: dtype float64"),
    ({"offsets": [0, 4]}, ArgumentError, "offsets: given with ids"),
    ({"ids": IDS[0], "mask": [True, True]}, ArgumentError, "mask: given with ids"),
    ({"ids": IDS[0], "offsets": [0, 3]}, ShapeError, "offsets: end at 3; accepted: 2"),
    ({"ids": IDS[0], "offsets": [1, 2]}, ArgumentError, "offsets"),
    ({"ids": IDS[0], "offsets": [0.0, 2.0]}, DtypeError, "offsets"),
    ({"domains": ["a", "b", "c"]}, ShapeError, "domains: shape"),
    ({"domains": ["a", None]}, DtypeError, "domains: dtype object"),
    ({"domains": [0.5, 1.5]}, DtypeError, "domains: dtype float64"),
    ({"layer": -1}, ArgumentError, "layer: -1; accepted: an integer from 0 on"),
    ({"layer": "0"}, ArgumentError, "layer: '0'"),
    ({"layer": True}, ArgumentError, "layer: True"),
]


@pytest.mark.parametrize(("change", "error", "words"), BAD, ids=[words for _, _, words in BAD])
def test_bad_input_is_refused_and_changes_nothing(change, error, words):
    analyzer = RoutingAnalyzer(4)
    analyzer.update(IDS)
    before = analyzer.get_aggregated_metrics()
    refused(error, lambda: analyzer.update(**({"ids": IDS} | change)), words)
    assert analyzer.get_aggregated_metrics() == before


def test_updates_of_one_layer_are_alike():
    analyzer = RoutingAnalyzer(4)
    analyzer.update(IDS, np.ones(IDS.shape), domains="a")
    refused(ArgumentError, lambda: analyzer.update(IDS, domains="a"), "weights: given for some updates of layer 0")
    refused(ArgumentError, lambda: analyzer.update(IDS, np.ones(IDS.shape)), "domains: given for some")
    refused(ArgumentError, lambda: analyzer.update(IDS, np.ones(IDS.shape), domains=1), "domains: strings and integers")
    refused(ArgumentError, lambda: analyzer.update(IDS[..., :1]), "ids: 2 and 1 slots a token in layer 0")
    analyzer.update(IDS[..., :1], layer=1)
    # Nothing but padding has no domain.
    analyzer.update(IDS, np.ones(IDS.shape), domains="a", mask=np.zeros((2, 2), dtype=bool))


def test_weights_of_any_size_that_adds_up():
    """The largest of float32 are added up in float64; what float64 does not hold is refused, not warned about."""
    for weights in (np.full(IDS.shape, 3e38, np.float32), np.full(IDS.shape, 1e99), np.full(IDS.shape, 1e-320)):
        analyzer = RoutingAnalyzer(4)
        for _ in range(2):
            analyzer.update(IDS, weights)
        assert analyzer.result().value("gate_weight_cv") == pytest.approx(0, abs=1e-12)
    huge = np.ones(IDS.shape)
    huge[..., -1] = 1e101
    refused(DataError, lambda: RoutingAnalyzer(4).update(IDS, huge), r"weights: 1e\+101 at .*; accepted: .* 1e\+100")
    refused(ArgumentError, lambda: analyzer.result(3), "metrics: 3; accepted: a name, several")


def test_other_settings_are_refused():
    one = RoutingAnalyzer(4)
    for other in (RoutingAnalyzer(5), RoutingAnalyzer(4, capacity_factor=2), RoutingAnalyzer(4, signed_weights=True)):
        refused(ArgumentError, lambda other=other: one + other, "accepted: the same settings")
    idle, signed = RoutingAnalyzer(4, passive_experts=1), RoutingAnalyzer(4, signed_weights=True)
    refused(ArgumentError, lambda: one + idle, "analyzers: passive_experts 0 and 1; accepted")
    refused(ArgumentError, lambda: one + signed, "analyzers: signed_weights False and True; accepted")
    assert RoutingAnalyzer(4, capacity_factor=np.float32(1.25))._capacity_factor == 1.25
    with pytest.raises(TypeError):
        one + 1
    for arguments in ((0,), (2.5,), ("4",), ([],), (True,), ([4, 0],)):
        refused(ArgumentError, lambda a=arguments: RoutingAnalyzer(*a), "n_experts")
    for factor in (0, -1, float("nan"), "1", True):
        refused(ArgumentError, lambda f=factor: RoutingAnalyzer(4, capacity_factor=f), "capacity_factor")
    refused(ArgumentError, lambda: RoutingAnalyzer(4, passive_experts=4), "passive_experts")
    refused(ArgumentError, lambda: RoutingAnalyzer([4, 4], passive_experts=[1]), "one number of layers")
    refused(ArgumentError, lambda: RoutingAnalyzer([4, 4]).update(IDS, layer=2), "accepted: an integer from 0 to 1")


def test_before_the_first_update():
    analyzer = RoutingAnalyzer(4)
    assert analyzer.get_aggregated_metrics() == {}
    refused(DataError, analyzer.result, "there was no update")
    analyzer.update(np.zeros((0, 2), dtype=int))
    assert analyzer.get_aggregated_metrics()["total_expert_activations"] in {0.0, None}
    analyzer.reset()
    assert analyzer.get_aggregated_metrics() == {}


@given(
    seed=st.integers(0, 2**32 - 1),
    scoring=st.sampled_from(["softmax", "sigmoid", "sqrt_softplus"]),
    passive=st.integers(0, 1),
)
def test_logits(seed, scoring, passive):
    """In float32 as the kernel sums them, in float64 the same."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(9, 5)).astype(np.float32)
    logits[rng.random(logits.shape) < 0.1] = -np.inf
    ids = logits.argsort(axis=1)[:, :-3:-1].copy()
    ids[rng.random(ids.shape) < 0.1] = -1
    single, wide = (RoutingAnalyzer(5, passive_experts=passive) for _ in range(2))
    for rows in (slice(4), slice(4, 9)):
        single.update(ids[rows], logits=logits[rows], scoring=scoring)
        wide.update(ids[rows], logits=logits[rows].astype(np.float64), scoring=scoring)
    sums = sum_logits(
        ids.astype(np.int16)[:, None], logits[:, None], n_experts=5, passive_experts=passive, scoring=scoring
    )
    counted = count_routing(
        ids.astype(np.int16)[:, None], n_experts=5, passive_experts=passive, follows=find_neighbours([0, 4, 9])
    )
    assert_same(single.result(), metrics_from_counts(counted, logit_sums=sums))
    assert_same(wide.result(), single.result())
    refused(ArgumentError, lambda: single.update(ids), "logits: given for some")
    other = "sigmoid" if scoring != "sigmoid" else "softmax"
    refused(ArgumentError, lambda: single.update(ids, logits=logits, scoring=other), "scoring: ")


def test_bad_logits_are_refused():
    for dtype in (np.float32, np.float64):
        for bad in (np.nan, np.inf):
            logits = np.zeros((2, 2, 4), dtype=dtype)
            logits[1, 0, 2] = bad
            refused(DataError, lambda x=logits: RoutingAnalyzer(4).update(IDS, logits=x), "logits")
    refused(ArgumentError, lambda: RoutingAnalyzer(4).update(IDS, logits=np.zeros((2, 2, 4)), scoring="x"), "scoring")
