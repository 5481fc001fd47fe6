"""Random traces: what is written comes back, and fingerprints are what their definitions say."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from moefps.io.dump import DumpHeader, DumpWriter, LayerInfo, open_dump, write_dump
from reference.trace import fingerprint, windows

SCORINGS = ["softmax", "sigmoid", "softmax_topk", "sqrt_softplus", "hash", "probabilities"]


@st.composite
def traces(draw):
    """Arrays of a small trace with layers of different sizes, empty slots, zero weights and masked experts."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_layers, top_k = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    lengths = draw(st.lists(st.integers(0, 7), min_size=1, max_size=5))
    n_experts = [draw(st.integers(1, 6)) for _ in range(n_layers)]
    scoring = [draw(st.sampled_from(SCORINGS)) for _ in range(n_layers)]
    n_tokens, widest = sum(lengths), max(n_experts)
    ids = np.stack([rng.integers(0, n, (n_tokens, top_k)) for n in n_experts], axis=1).astype(np.int16)
    ids[rng.random(ids.shape) < draw(st.sampled_from([0.0, 0.3, 0.9]))] = -1
    weights = rng.random(ids.shape).astype(draw(st.sampled_from([np.float16, np.float32])))
    weights[rng.random(ids.shape) < draw(st.sampled_from([0.0, 0.4]))] = 0
    logits = (rng.normal(size=(n_tokens, n_layers, widest)) * draw(st.sampled_from([1, 40]))).astype(np.float32)
    for layer, (n, rule) in enumerate(zip(n_experts, scoring, strict=True)):
        if rule == "probabilities":
            logits[:, layer, :n] = rng.dirichlet(np.ones(n), size=n_tokens)
        elif n > 1 and draw(st.booleans()):
            logits[:, layer, 0] = -np.inf
    return ids, weights, logits, lengths, n_experts, scoring


def layer_infos(n_experts, scoring, top_k):
    return tuple(
        LayerInfo(index=i, path=f"l{i}", layer=i, n_experts=n, top_k=top_k, scoring=rule)
        for i, (n, rule) in enumerate(zip(n_experts, scoring, strict=True))
    )


def write(folder, trace):
    ids, weights, logits, lengths, n_experts, scoring = trace
    return write_dump(
        Path(folder) / "dump",
        expert_ids=ids,
        expert_weights=weights,
        router_logits=logits,
        offsets=np.cumsum([0, *lengths]),
        layers=layer_infos(n_experts, scoring, ids.shape[2]),
    )


@given(
    trace=traces(),
    kind=st.sampled_from(["counts", "weights", "probs"]),
    window=st.none() | st.integers(1, 5),
    stride=st.integers(1, 5),
)
def test_fingerprints_equal_the_reference(trace, kind, window, stride):
    ids, weights, logits, lengths, n_experts, scoring = trace
    with tempfile.TemporaryDirectory() as folder:
        dump = write(folder, trace)
        found = dump.fingerprint_set(kind, window=window, stride=None if window is None else stride, drop_empty=True)
        row = 0
        starts = np.cumsum([0, *lengths])
        for sample, n_tokens in enumerate(lengths):
            for first, stop in windows(n_tokens, window, stride):
                rows = slice(starts[sample] + first, starts[sample] + stop)
                expected, left_out = fingerprint(kind, ids[rows], weights[rows], logits[rows], n_experts, scoring)
                if np.isnan(expected).any():
                    continue
                assert found.rows.row(row)[:3] == (sample, first, stop - first)
                np.testing.assert_allclose(found.array[row], expected, rtol=1e-6, atol=1e-7)
                np.testing.assert_array_equal(found.n_left_out[row], left_out)
                row += 1
        assert row == len(found.array)
        np.testing.assert_allclose(found.array.sum(axis=2, dtype=np.float64), 1, atol=1e-5)


@given(trace=traces())
def test_what_is_written_comes_back(trace):
    ids, weights, logits, lengths, n_experts, _ = trace
    with tempfile.TemporaryDirectory() as folder:
        write(folder, trace)
        dump = open_dump(Path(folder) / "dump")
        dump.check_values()
        starts = np.cumsum([0, *lengths])
        for sample in dump:
            rows = slice(starts[sample.index], starts[sample.index + 1])
            np.testing.assert_array_equal(sample.expert_ids, ids[rows])
            np.testing.assert_array_equal(sample.expert_weights, weights[rows])
            np.testing.assert_array_equal(sample.router_logits, logits[rows])
        for layer, view in dump.router_logits().items():
            assert view.shape == (len(ids), n_experts[layer])


@settings(max_examples=15)
@given(trace=traces(), data=st.data())
def test_a_run_in_parts_writes_the_same_files(trace, data):
    """Any order, any room to spare, stopped and gone on with anywhere: the arrays of one `write_dump`."""
    ids, weights, logits, lengths, n_experts, scoring = trace
    header = DumpHeader(
        layers=layer_infos(n_experts, scoring, ids.shape[2]),
        arrays={"expert_ids": ids.dtype, "expert_weights": weights.dtype, "router_logits": logits.dtype},
    )
    starts = np.cumsum([0, *lengths])
    spare = data.draw(st.lists(st.integers(0, 3), min_size=len(lengths), max_size=len(lengths)))
    order = data.draw(st.permutations(range(len(lengths))))
    stops = data.draw(st.sets(st.integers(0, len(lengths))))
    with tempfile.TemporaryDirectory() as folder:
        options = {"capacities": np.add(lengths, spare), "sync_seconds": 100.0}
        writer = DumpWriter(Path(folder) / "parts", header, **options)
        for number, sample in enumerate(order):
            if number in stops:
                writer.close()
                writer = DumpWriter(Path(folder) / "parts", header, resume=True, **options)
                assert np.flatnonzero(writer.done).tolist() == sorted(order[:number])
            rows = slice(starts[sample], starts[sample + 1])
            writer.write(sample, expert_ids=ids[rows], expert_weights=weights[rows], router_logits=logits[rows])
        writer.finish()
        write(folder, trace)
        for name in header.arrays:
            parts, whole = (Path(folder) / which / f"{name}.npy" for which in ("parts", "dump"))
            assert parts.read_bytes() == whole.read_bytes()
