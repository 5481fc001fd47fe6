"""Sums over full distributions: bad input by name, worked examples, real logits, and calls that are followed."""

from __future__ import annotations

import dataclasses
import math
import threading
from pathlib import Path

import numpy as np
import pytest

import moefps
from moefps.io.dump.scoring import full_probabilities
from moefps.kernels import LogitSums, sum_logits
from reference.logits import COUNTS, SUMS, logit_sums
from support import refused

DEMO = Path(__file__).resolve().parent.parent / "data" / "dumps" / "demo-moe"
SCORINGS = ("softmax", "softmax_topk", "sigmoid", "sqrt_softplus", "hash", "probabilities", "other")


def good(n=300, n_layers=3, n_experts=6, k=2):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(n, n_layers, n_experts)).astype(np.float32)
    return np.argpartition(-logits, k, axis=2)[:, :, :k].astype(np.int16), logits


def call(ids, logits, **how):
    return lambda: sum_logits(ids, logits, **{"n_experts": 6, "scoring": "softmax", **how})


def same(a, b):
    for field in dataclasses.fields(LogitSums):
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name), err_msg=field.name)


def check(ids, logits, scoring, n_experts):
    found = sum_logits(ids, logits, n_experts=n_experts, scoring=scoring)
    n_layers = ids.shape[1]
    expected = logit_sums(ids, logits, n_experts=[n_experts] * n_layers, scoring=[scoring] * n_layers)
    for name in COUNTS:
        np.testing.assert_array_equal(getattr(found, name), expected[name][0], err_msg=name)
    for name in SUMS:
        np.testing.assert_allclose(getattr(found, name), expected[name][0], rtol=1e-12, atol=1e-12, err_msg=name)
    return found


def test_by_hand():
    """Two tokens of three experts, p = ½, ⅛, ⅜ and ⅛, ⅛, ¾; the first chose expert 0, the second expert 1."""
    p = np.array([[[4, 1, 3]], [[1, 1, 6]]]) / 8
    ids = np.array([[[0]], [[1]]], dtype=np.int16)
    found = sum_logits(ids, np.log(p).astype(np.float32), n_experts=3, scoring="softmax")
    assert found.n_experts.tolist() == [3]
    assert found.tokens.tolist() == found.z_tokens.tolist() == found.top1_margin_tokens.tolist() == [2]
    np.testing.assert_allclose(found.prob_sums, [[5 / 8, 2 / 8, 9 / 8]], rtol=1e-7)
    entropy = -(p * np.log(p)).sum()
    np.testing.assert_allclose(found.entropy_sums, [entropy], rtol=1e-7)
    np.testing.assert_allclose(found.selection_margin_sums, [(4 - 3) / 8 + (1 - 6) / 8], rtol=1e-7)
    np.testing.assert_allclose(found.top1_margin_sums, [(4 - 3) / 8 + (6 - 1) / 8], rtol=1e-7)
    np.testing.assert_allclose(found.z_sums, [0], atol=1e-12)
    # The same numbers twice as large: ln Σ 8p = ln 8.
    found = sum_logits(ids, np.log(8 * p).astype(np.float32), n_experts=3, scoring="softmax")
    np.testing.assert_allclose(found.z_sums, [2 * math.log(8) ** 2], rtol=1e-7)


@pytest.mark.parametrize(
    ("scoring", "expected"),
    [("softmax", [3 / 4, 1 / 4]), ("sigmoid", [0.75 / 1.25, 0.5 / 1.25]), ("sqrt_softplus", [2 / 3, 1 / 3])],
)
def test_scorings_by_hand(scoring, expected):
    """ln 3 and 0: exponentials 3 and 1, sigmoids ¾ and ½, softplus ln 4 = 2 ln 2 and ln 2."""
    logits = np.log(np.array([[[3, 1]]], dtype=np.float32))
    if scoring == "sqrt_softplus":
        # Softplus 4 ln 2 and ln 2.
        logits = np.log(np.array([[[15, 1]]], dtype=np.float32))
    found = sum_logits(np.zeros((1, 1, 1), dtype=np.int16), logits, n_experts=2, scoring=scoring)
    np.testing.assert_allclose(found.prob_sums, [expected], rtol=1e-7)


def test_passive_experts_are_no_experts():
    logits = np.log(np.array([[[2, 1, 1]], [[2, 1, 1]]], dtype=np.float32))
    ids = np.array([[[0, 2]], [[2, -1]]], dtype=np.int16)
    found = sum_logits(ids, logits, n_experts=3, passive_experts=1, scoring="softmax")
    assert found.tokens.tolist() == [1]
    np.testing.assert_allclose(found.prob_sums, [[2 / 3, 1 / 3]], rtol=1e-7)
    np.testing.assert_allclose(found.z_sums, [math.log(4) ** 2], rtol=1e-7)
    np.testing.assert_allclose(found.selection_margin_sums, [1 / 3], rtol=1e-7)
    # However large what the passive one has is.
    logits[0, 0, 2] = 20_000
    found = sum_logits(ids, logits, n_experts=3, passive_experts=1, scoring="softmax")
    np.testing.assert_allclose(found.prob_sums, [[2 / 3, 1 / 3]], rtol=1e-7)
    np.testing.assert_allclose(found.z_sums, [20_000.0**2])


def test_extremes():
    """One expert has all, all have the same, some or all are masked, and logits as large as they get."""
    ids = np.zeros((1, 1, 1), dtype=np.int16)

    def sums(*row, scoring="softmax", dtype=np.float32):
        return sum_logits(ids, np.array([[row]], dtype=dtype), n_experts=len(row), scoring=scoring)

    assert sums(1e38, -1e38, 0).entropy_sums.tolist() == [0.0]
    assert sums(1e38, -1e38, 0).top1_margin_sums.tolist() == [1.0]
    np.testing.assert_allclose(sums(7, 7, 7, 7).entropy_sums, [math.log(4)], rtol=1e-15)
    assert sums(7, 7, 7, 7).selection_margin_sums.tolist() == [0.0]
    masked = sums(-np.inf, 3, 3)
    np.testing.assert_allclose(masked.prob_sums, [[0, 0.5, 0.5]], rtol=1e-15)
    assert masked.selection_margin_sums.tolist() == [-0.5]
    for scoring in ("softmax", "sigmoid", "sqrt_softplus"):
        none = sums(-np.inf, -np.inf, scoring=scoring)
        assert none.tokens.tolist() == none.z_tokens.tolist() == none.selection_margin_tokens.tolist() == [0]
        assert none.tokens_without_probs.tolist() == [1]
        assert none.entropy_sums.tolist() == none.z_sums.tolist() == [0.0]
    one = sums(3)
    assert one.top1_margin_tokens.tolist() == one.selection_margin_tokens.tolist() == [0]
    assert one.prob_sums.tolist() == [[1.0]]
    # Down to the smallest numbers that there are, sigmoids have a sum.
    np.testing.assert_allclose(sums(-740, -741, scoring="sigmoid").prob_sums.sum(), 1, rtol=1e-12)
    halves = sums(65504, -65504, dtype=np.float16)
    assert halves.z_sums.tolist() == [65504.0**2]


def test_layers_without_a_distribution():
    ids, logits = good()
    logits[:, 1] = np.nan
    logits[:, 2] = full_probabilities(logits[:, 2], "softmax")
    found = call(ids, logits, scoring=["sigmoid", "other", "probabilities"])()
    assert found.scoring == ("sigmoid", "other", "probabilities")
    assert found.tokens.tolist() == [300, 0, 300]
    assert found.z_tokens.tolist() == [300, 0, 0]
    assert found.z_sums[1:].tolist() == [0.0, 0.0]
    assert not found.prob_sums[1].any()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(("value", "found"), [(np.nan, "NaN"), (np.inf, "is inf")])
@pytest.mark.parametrize("n_threads", [1, 8])
def test_logits_that_are_not_accepted(value, found, dtype, n_threads):
    ids, logits = good()
    logits = logits.astype(dtype)
    logits[137, 1, 4] = logits[200:] = value
    words = ("router_logits", "row 137", "layer 1", "expert 4", found, "accepted", "minus infinity for a masked expert")
    refused(moefps.DataError, call(ids, logits, n_threads=n_threads), *words)
    # Passive experts' logits are checked, those of tokens that the layer did not see are not.
    refused(moefps.DataError, call(ids, logits, passive_experts=2, n_threads=n_threads), *words)
    ids[137, 1] = ids[200:] = -1
    assert call(ids, logits, n_threads=n_threads)().tokens.tolist() == [200, 199, 200]


def test_probabilities_that_are_none():
    ids, logits = good()
    shares = full_probabilities(logits, "softmax").astype(np.float32)
    call(ids, shares, scoring="probabilities")()
    for value, words in (
        (-0.25, ("expert 4", r"is -0\.25", "probabilities")),
        (-np.inf, ("expert 4", "is -inf", "probabilities")),
        (0.5, ("sums to 1", "sum to 1")),
    ):
        wrong = shares.copy()
        wrong[137, 1, 4] = value
        refused(moefps.DataError, call(ids, wrong, scoring="probabilities"), "row 137", "layer 1", *words)
    # As much off as rounding makes them, they are divided by their sum.
    rounded = shares.astype(np.float16)
    found = call(ids, rounded, scoring="probabilities")()
    np.testing.assert_allclose(found.prob_sums.sum(axis=1), 300, rtol=1e-12)


@pytest.mark.parametrize("value", [6, -2, 32767])
def test_ids_out_of_range(value):
    ids, logits = good()
    ids[137, 1, 1] = value
    words = ("expert_ids", "row 137", "layer 1", "slot 1", str(value), "0 to 5", "-1")
    refused(moefps.DataError, call(ids, logits), *words)
    ids, logits = good()
    refused(moefps.DataError, call(ids, logits, top_k=[2, 1, 2]), "row 0", "layer 1", "slot 1", "1 slots")


def test_arguments():
    ids, logits = good()
    refused(moefps.DtypeError, call(ids.astype(np.int64), logits), "expert_ids", "i8", "int16")
    refused(moefps.DtypeError, call(ids, logits.astype(np.float64)), "router_logits", "f8", "float16, float32")
    refused(moefps.DtypeError, call(ids, logits.tolist()), "router_logits", "list")
    refused(moefps.ShapeError, call(ids, logits[1:]), "router_logits", "299", "300")
    refused(moefps.ShapeError, call(ids, logits[..., :5]), "router_logits", r"\(300, 3, 5\)", "6 experts")
    refused(moefps.ShapeError, call(ids, logits[0]), "router_logits")
    refused(moefps.ArgumentError, call(ids, logits, passive_experts=6), "passive_experts", "fewer")
    refused(moefps.ArgumentError, call(ids, logits, scoring="softmix"), "scoring", "softmix", "softmax_topk")
    refused(moefps.ShapeError, call(ids, logits, scoring=["softmax"]), "scoring", "1 of them", "3 layers")
    refused(moefps.ArgumentError, call(ids, logits, n_groups=2), "n_groups")
    refused(moefps.DataError, call(ids, logits, groups=np.full(300, 3), n_groups=2), "groups", "row 0", "3")
    refused(moefps.ArgumentError, call(ids, logits, n_threads=0), "n_threads")


def test_merging_wants_one_layout():
    ids, logits = good()
    one = call(ids, logits)()
    refused(moefps.ArgumentError, lambda: one + call(ids, logits, scoring="sigmoid")(), "scoring", "sigmoid")
    refused(moefps.ArgumentError, lambda: one + call(ids, logits, passive_experts=1)(), "n_experts", r"\[5, 5, 5\]")
    grouped = call(ids, logits, groups=np.zeros(300, dtype=int))()
    refused(moefps.ShapeError, lambda: one + grouped, "tokens", r"\(3,\)", r"\(1, 3\)")
    with pytest.raises(TypeError):
        one + 1


def test_nothing_to_sum():
    ids, logits = good()
    found = call(ids[:0], logits[:0])()
    assert found.prob_sums.shape == (3, 6)
    assert not found.tokens.any()
    assert call(ids[:0], logits[:0], groups=[], n_groups=2)().prob_sums.shape == (2, 3, 6)


def test_instruction_sets_and_threads_change_nothing(monkeypatch):
    """Several chunks and parts of chunks, and rows that are no whole vectors."""
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 5, (30_000, 3, 67)).astype(np.float16)
    ids = rng.integers(-1, 66, (*logits.shape[:2], 3)).astype(np.int16)
    how = {"n_experts": [67, 66, 67], "scoring": ["softmax", "sigmoid", "sqrt_softplus"], "passive_experts": [0, 1, 3]}
    one = sum_logits(ids, logits, n_threads=1, **how)
    same(sum_logits(ids, logits, n_threads=8, **how), one)
    for level in moefps.simd_levels():
        monkeypatch.setenv("MOEFPS_SIMD", level)
        same(sum_logits(ids, logits, n_threads=2, **how), one)


def test_a_few_layers_of_a_mapped_trace(tmp_path):
    ids, logits = good()
    for name, array in (("ids", ids), ("logits", logits)):
        np.save(tmp_path / f"{name}.npy", array)
    mapped = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("ids", "logits")]
    same(call(*mapped)(), call(ids, logits)())
    view = slice(0, 3, 2)
    same(call(*(array[:, view] for array in mapped))(), call(ids[:, view].copy(), logits[:, view].copy())())


@pytest.mark.parametrize("scoring", ["softmax", "sigmoid", "sqrt_softplus"])
def test_real_logits(scoring):
    """A captured model's: all sums by the plain reference, mean probabilities as fingerprints have them."""
    pytest.importorskip("polars")
    dump = moefps.open_dump(DEMO)
    ids, logits = np.asarray(dump.expert_ids), np.asarray(dump.stored("router_logits"))
    found = check(ids, logits, scoring, dump.n_experts)
    assert (found.tokens == dump.n_tokens).all()
    shares = full_probabilities(logits, scoring)
    np.testing.assert_allclose(found.prob_sums, shares.sum(axis=0), rtol=1e-12)
    # The largest logits are chosen, whatever they are turned into.
    assert (found.selection_margin_sums > 0).all()
    halves = check(ids, logits.astype(np.float16), scoring, dump.n_experts)
    np.testing.assert_allclose(halves.entropy_sums, found.entropy_sums, rtol=1e-2)
    by_sample = sum_logits(
        ids,
        logits,
        n_experts=dump.n_experts,
        scoring=scoring,
        groups=np.repeat(np.arange(dump.n_samples), np.diff(dump.token_starts)),
    )
    if scoring == "softmax":
        expected = by_sample.prob_sums / by_sample.tokens[..., np.newaxis]
        np.testing.assert_allclose(dump.fingerprints("probs"), expected, rtol=1e-6, atol=1e-7)


def test_progress():
    seen = []
    call(*good(), progress=lambda done, total: seen.append((done, total, threading.get_ident())))()
    assert seen[-1][:2] == (5400, 5400)
    assert {thread for *_, thread in seen} == {threading.get_ident()}


def test_an_error_in_the_callback_ends_the_call():
    def callback(done, total):
        assert done < total, "the call ended before it was followed"
        raise RuntimeError("from the callback")

    logits = np.broadcast_to(np.float32(0.5), (1 << 24, 2, 8))
    ids = np.broadcast_to(np.int16(3), (1 << 24, 2, 1))
    with pytest.raises(RuntimeError, match="from the callback"):
        sum_logits(ids, logits, n_experts=8, scoring="softmax", progress=callback)
