"""Fingerprints of dumps: by hand, of windows, without anything to go by, and of the real traces."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest

from conftest import DATA
from moefps.errors import ArgumentError, DataError, DumpError
from moefps.io.dump import LayerInfo, open_dump, write_dump
from reference.trace import windows
from support import refused

# Two samples of two tokens; layer 0 has 4 experts, layer 1 has 3.
IDS = np.array([[[0, 1], [2, 0]], [[1, -1], [2, 1]], [[3, 2], [-1, -1]], [[3, 3], [0, 1]]])
WEIGHTS = np.array([[[3, 1], [1, 1]], [[5, 9], [0, 0]], [[1, 1], [7, 7]], [[0.25, 0.75], [0.5, 0]]], dtype=np.float32)
LOGITS = np.log(
    np.array(
        [
            [[1, 1, 1, 1], [2, 1, 1, 9]],
            [[1, 3, 1, 1], [1, 1, 2, 9]],
            [[1, 1, 1, 1], [9, 9, 9, 9]],
            [[1, 2, 1, 4], [1, 1, 2, 9]],
        ],
        dtype=np.float32,
    )
)


def write(tmp_path, **changes):
    given = {"expert_ids": IDS, "expert_weights": WEIGHTS, "router_logits": LOGITS, "offsets": [0, 2, 4]}
    options = {"n_experts": [4, 3], "scoring": "softmax", "samples": {"task": ["law", "intent"]}}
    return write_dump(tmp_path / "dump", overwrite=True, **{**given, **options, **changes})


def test_by_hand(tmp_path):
    dump = write(tmp_path)
    counts = dump.fingerprints("counts")
    assert counts.dtype == np.float32
    np.testing.assert_allclose(counts[0], [[1 / 3, 2 / 3, 0, 0], [1 / 4, 1 / 4, 2 / 4, 0]], rtol=1e-6)
    np.testing.assert_allclose(counts[1], [[0, 0, 1 / 4, 3 / 4], [1 / 2, 1 / 2, 0, 0]], rtol=1e-6)
    # Token 1 of layer 1 has weights that sum to 0: two assignments, but no mean.
    found = dump.fingerprint_set("weights")
    np.testing.assert_allclose(found.array[0], [[3 / 8, 5 / 8, 0, 0], [1 / 2, 0, 1 / 2, 0]], rtol=1e-6)
    np.testing.assert_allclose(found.array[1], [[0, 0, 1 / 4, 3 / 4], [1, 0, 0, 0]], rtol=1e-6)
    assert found.n_left_out.tolist() == [[0, 1], [0, 0]]
    assert (found.kind, found.layers, found.n_dropped) == ("weights", (0, 1), 0)
    assert found.rows.to_dicts() == [
        {"sample": 0, "window_start": 0, "n_tokens": 2, "task": "law"},
        {"sample": 1, "window_start": 0, "n_tokens": 2, "task": "intent"},
    ]
    # A token without a filled slot counts nowhere, whatever its logits are.
    probs = dump.fingerprints("probs")
    np.testing.assert_allclose(probs[1, 0], np.mean([[0.25] * 4, [1 / 8, 2 / 8, 1 / 8, 4 / 8]], axis=0), rtol=1e-6)
    np.testing.assert_allclose(probs[1, 1], [1 / 4, 1 / 4, 2 / 4, 0], rtol=1e-6)


def test_which_kind_it_is(tmp_path):
    assert write(tmp_path).fingerprint_kind() == "weights"
    assert write(tmp_path).fingerprint_kind("counts") == "counts"
    bare = write(tmp_path, expert_weights=None, router_logits=None)
    refused(DumpError, bare.fingerprints, "of kind weights: the dump holds no expert_weights; accepted: counts$")
    refused(DumpError, lambda: bare.fingerprints("probs"), "holds no router_logits; accepted: counts$")
    refused(ArgumentError, lambda: bare.fingerprints("mean"), "kind: 'mean'; accepted: probs, weights, counts")
    other = write(tmp_path, scoring=None)
    refused(DumpError, lambda: other.fingerprints("probs"), r"layer 0 \(layers.0\) has the scoring 'other'")


def test_only_chosen_layers_need_a_distribution(tmp_path):
    layers = [
        LayerInfo(index=i, path=f"l{i}", layer=i, n_experts=n, top_k=2, scoring=scoring)
        for i, (n, scoring) in enumerate([(4, "other"), (3, "sigmoid")])
    ]
    dump = write(tmp_path, layers=layers, n_experts=None, scoring=None)
    refused(DumpError, lambda: dump.fingerprints("probs"), r"cannot compute .* layer 0 \(l0\) has the scoring 'other'")
    assert dump.fingerprints("probs", layers=[1]).shape == (2, 1, 4)


def test_fingerprints_that_the_dump_holds(tmp_path):
    held = np.array([[[0.5, 0.5, 0, 0], [1, 0, 0, 0]], [[0, 0, 0, 1], [0, 0, 1, 0]]], dtype=np.float32)
    dump = write(tmp_path, fingerprints=held, fingerprint_kind="probs")
    assert dump.fingerprint_kind() == "probs"
    np.testing.assert_array_equal(dump.fingerprints(), held)
    np.testing.assert_array_equal(dump.fingerprints("probs", layers=[1]), held[:, 1:])
    assert dump.fingerprint_set().n_left_out is None
    # Windows are of the trace, and so are other kinds.
    assert dump.fingerprints(window=2).shape == (2, 2, 4)
    assert not np.array_equal(dump.fingerprints(window=2), held)
    np.testing.assert_allclose(dump.fingerprints("counts")[0, 0], [1 / 3, 2 / 3, 0, 0], rtol=1e-6)
    held[1, 1] = 0
    dump = write(tmp_path, fingerprints=held, fingerprint_kind="probs")
    refused(DataError, dump.fingerprints, r"sample 1 has no .* in layer 1 \(layers.1\)")
    np.testing.assert_array_equal(dump.fingerprints(drop_empty=True), held[:1])
    without = write(tmp_path, fingerprints=held, fingerprint_kind="probs", router_logits=None)
    refused(DumpError, lambda: without.fingerprints(window=2), "cannot compute .* the dump holds no router_logits")


def test_samples_without_a_fingerprint(tmp_path):
    dump = write(tmp_path, offsets=[0, 2, 2, 3, 4], samples={"task": list("abcd")})
    words = r"dump: sample 1 has no filled slot in layer 0 \(layers.0\), so it has no fingerprint; .*drop_empty=True"
    for kind in ("counts", "weights", "probs"):
        refused(DataError, lambda kind=kind: dump.fingerprints(kind), words)
        found = dump.fingerprint_set(kind, drop_empty=True)
        assert found.rows["task"].to_list() == ["a", "d"]
        assert found.array.shape == (2, 2, 4)
        assert found.n_dropped == 2
    assert len(dump.fingerprints("counts", layers=[0], drop_empty=True)) == 3
    # Slots, but weights of 0.
    zero = write(tmp_path, offsets=[0, 1, 2, 3, 4], samples=None)
    refused(DataError, zero.fingerprints, r"sample 1 has no token with weights that have a sum in layer 1")
    assert len(zero.fingerprints("weights", drop_empty=True)) == 2
    assert len(zero.fingerprints("counts", drop_empty=True)) == 3


def test_a_layer_that_no_sample_has_routing_in(tmp_path):
    ids = np.array([[[0, 1], [-1, -1]], [[1, 2], [-1, -1]]])
    dump = write_dump(tmp_path / "dump", expert_ids=ids, offsets=[0, 1, 2], n_experts=4)
    refused(DataError, lambda: dump.fingerprints("counts"), r"sample 0 has no filled slot in layer 1 .*--layers")
    assert dump.fingerprints("counts", layers=[0]).shape == (2, 1, 4)


def test_windows(tmp_path):
    dump = write(tmp_path, offsets=[0, 3, 4])
    found = dump.fingerprint_set("counts", window=2, stride=1, layers=[0])
    assert found.rows.to_dicts() == [
        {"sample": 0, "window_start": 0, "n_tokens": 2, "task": "law"},
        {"sample": 0, "window_start": 1, "n_tokens": 2, "task": "law"},
        # Shorter than a window: all of it.
        {"sample": 1, "window_start": 0, "n_tokens": 1, "task": "intent"},
    ]
    np.testing.assert_allclose(found.array[1, 0], [0, 1 / 3, 1 / 3, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(found.array[2, 0], [0, 0, 0, 1], rtol=1e-6)
    one_by_one = dump.fingerprint_set("counts", window=1, layers=[0])
    assert one_by_one.rows["window_start"].to_list() == [0, 1, 2, 0]
    refused(DataError, lambda: dump.fingerprints("counts", window=1), "sample 0 from token 2 to 3 has no filled slot")
    clash = write(tmp_path, samples={"window_start": [7, 8]}).fingerprint_set(window=2, layers=[0])
    assert clash.rows.columns == ["sample", "window_start", "n_tokens", "window_start_of_sample"]


@pytest.mark.parametrize("window", [0, -1, 2.5, True, "2"])
def test_windows_that_are_refused(tmp_path, window):
    dump = write(tmp_path)
    refused(ArgumentError, lambda: dump.fingerprints(window=window), "window: ")
    refused(ArgumentError, lambda: dump.fingerprints(window=2, stride=window), "stride: ")
    refused(ArgumentError, lambda: dump.fingerprints(stride=2), "stride: given without window")


@pytest.mark.parametrize("layers", [[2], [-1], [0, 0], [], [0.5], "ab"])
def test_layers_that_are_refused(tmp_path, layers):
    refused(ArgumentError, lambda: write(tmp_path).fingerprints(layers=layers), "layers: ")


def test_layers_in_another_order(tmp_path):
    dump = write(tmp_path)
    np.testing.assert_array_equal(dump.fingerprints(layers=[1, 0]), dump.fingerprints()[:, ::-1])


def test_probabilities_have_to_be_some(tmp_path):
    shares = np.exp(LOGITS.astype(np.float64))
    shares[:, 1, 3] = 0
    shares /= shares.sum(axis=2, keepdims=True)
    dump = write(tmp_path, router_logits=shares, dtype="float16", scoring="probabilities")
    found = dump.fingerprints("probs")
    np.testing.assert_allclose(found, write(tmp_path).fingerprints("probs"), atol=1e-3)
    np.testing.assert_allclose(found.sum(axis=2), 1, atol=1e-6)
    dump = write(tmp_path, router_logits=shares, dtype="float32", scoring="probabilities", n_experts=[4, 4])
    assert dump.fingerprints("probs").shape == (2, 2, 4)
    shares[2, 0, 0] = 0.5
    dump = write(tmp_path, router_logits=shares, dtype="float32", scoring="probabilities")
    refused(DataError, lambda: dump.fingerprints("probs"), "router_logits.npy: row 2, layer 0: sums to 1.25; accepted")


def test_signed_weights_that_give_no_distribution(tmp_path):
    weights = WEIGHTS.copy()
    weights[3, 0] = [-0.5, 1.5]
    ids = IDS.copy()
    ids[3, 0] = [1, 2]
    dump = write(tmp_path, expert_ids=ids, expert_weights=weights, signed_weights=True)
    words = "sample 1 has the share -0.25 for expert 1 of layer 0, whose weights are signed; accepted: kind counts"
    refused(DataError, dump.fingerprints, words)
    assert dump.fingerprints("counts").shape == (2, 2, 4)


def test_pieces_and_groups_change_nothing(tmp_path, monkeypatch):
    """Whatever is read and summed at a time, also where a sample is parted."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(0, 30, 40)
    n_tokens = int(lengths.sum())
    ids = rng.integers(-1, 6, (n_tokens, 2, 3))
    dump = write_dump(
        tmp_path / "dump",
        expert_ids=ids,
        expert_weights=rng.integers(0, 3, ids.shape).astype(np.float32),
        router_logits=rng.normal(size=(n_tokens, 2, 6)).astype(np.float32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        n_experts=6,
        scoring="sigmoid",
    )
    options = [{}, {"window": 4, "stride": 3}, {"layers": [1]}]
    kinds = ("counts", "weights", "probs")
    before = [dump.fingerprint_set(kind, drop_empty=True, **more) for kind in kinds for more in options]
    for entries, cells in ((1, 1), (50, 1 << 20), (1 << 20, 30)):
        monkeypatch.setattr("moefps.io.dump.fingerprinting._ENTRIES", entries)
        monkeypatch.setattr("moefps.io.dump.fingerprinting._CELLS", cells)
        after = [dump.fingerprint_set(kind, drop_empty=True, **more) for kind in kinds for more in options]
        for a, b in zip(before, after, strict=True):
            np.testing.assert_allclose(a.array, b.array, rtol=1e-6)
            np.testing.assert_array_equal(a.n_left_out, b.n_left_out)
            assert a.rows.equals(b.rows)


def test_progress(tmp_path):
    calls = []
    write(tmp_path).fingerprints("counts", progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (4, 4)


def write_esft(traces, path):
    with np.load(DATA / "esft" / "esft_traces.npz") as arrays:
        return write_dump(
            path,
            expert_ids=arrays["expert_ids"],
            expert_weights=arrays["weights"],
            offsets=arrays["offsets"],
            n_experts=64,
            scoring="softmax",
            samples={"task": arrays["task"]},
        )


@pytest.fixture(scope="module")
def esft_dump(traces, tmp_path_factory):
    return write_esft(traces, tmp_path_factory.mktemp("esft") / "dump")


def test_real_traces_have_the_authors_numbers(traces, esft_dump):
    """Shares of assignments and summed gate weights per token, to the four decimals that were published."""
    lengths = np.diff(esft_dump.token_starts)
    assert int((esft_dump.expert_weights == 0).sum()) == 99
    counts = esft_dump.fingerprints("counts")
    tasks = esft_dump.samples["task"].to_numpy()
    for task in np.unique(tasks):
        published = json.loads((DATA / "esft" / f"summary_{task}.json").read_text())
        mine = tasks == task
        shares = (counts[mine] * lengths[mine, None, None]).sum(axis=0, dtype=np.float64) / lengths[mine].sum()
        gates = np.zeros((26, 64))
        for sample in np.flatnonzero(mine):
            view = esft_dump.sample(sample)
            for layer in range(26):
                gates[layer] += np.bincount(
                    view.expert_ids[:, layer].ravel(), view.expert_weights[:, layer].ravel(), minlength=64
                )
        gates /= lengths[mine].sum()
        for found, key in ((shares, "token_scores"), (gates, "gate_scores")):
            wanted = [[published[key][str(layer + 1)][str(e)] for e in range(64)] for layer in range(26)]
            np.testing.assert_allclose(found, wanted, rtol=0, atol=5.1e-5, err_msg=f"{task} {key}")


def test_real_fingerprints(traces, esft, esft_windows, esft_dump):
    np.testing.assert_allclose(esft_dump.fingerprints("weights"), esft, rtol=0, atol=1e-7)
    found = esft_dump.fingerprint_set("weights", window=32, stride=8)
    np.testing.assert_allclose(found.array, esft_windows, rtol=0, atol=1e-7)
    assert found.n_left_out.sum() == 0
    spans = [
        (sample, start)
        for sample, n_tokens in enumerate(np.diff(esft_dump.token_starts))
        for start, _ in windows(n_tokens, 32, 8)
    ]
    assert found.rows.select("sample", "window_start").rows() == spans
    np.testing.assert_allclose(found.array.sum(axis=2, dtype=np.float64), 1, atol=1e-6)


def test_real_fingerprints_take_little_memory(traces, esft_dump):
    """A hundred megabytes beside the result, for a trace whose slots alone are 5.2 million."""
    dump = open_dump(esft_dump.path)
    tracemalloc.start()
    dump.fingerprints("weights")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150e6
