"""The trained model in the repository: capturing from it again gives what was captured and kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import moefps
from reference.gram import gram_metrics

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "demo-moe"
TEXTS = ROOT / "tests" / "data" / "texts.jsonl"
KEPT = ROOT / "tests" / "data" / "dumps" / "demo-moe"
# Float32 sums in another order: logits go up to 5, and the nearest two around a choice are 7e-5 apart.
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def kept():
    return moefps.open_dump(KEPT)


@pytest.fixture(scope="module")
def texts():
    with TEXTS.open(encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="module")
def captured(texts):
    if not MODEL.is_dir():
        pytest.skip("models/demo-moe is not beside the tests")
    rows = [row["text"] for row in texts]
    return moefps.capture(
        str(MODEL), rows, dtype="float32", device="cpu", kind="probs", logits=True, router_vectors=True
    )


def test_the_kept_dump_is_sound_and_small(kept):
    kept.check_values()
    assert sum(path.stat().st_size for path in KEPT.iterdir()) < 300_000
    assert (kept.n_samples, kept.n_layers, kept.n_experts, kept.top_k) == (8, 6, 16, 4)
    assert kept.manifest.model["id"] == "models/demo-moe"
    assert kept.samples["domain"].n_unique() == 8


def test_ids_of_the_kept_dump_are_the_largest_logits(kept):
    """True of this family, whose router takes the top 4 of a softmax and divides by their sum."""
    for layer, (number, logits) in enumerate(kept.router_logits().items()):
        assert number == layer
        ids = np.argsort(-logits, axis=1)[:, :4]
        np.testing.assert_array_equal(kept.expert_ids[:, layer], ids)
        shares = np.exp(np.take_along_axis(logits, ids, axis=1).astype(np.float64))
        weights = shares / shares.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(kept.expert_weights[:, layer], weights, atol=1e-6)


def test_capturing_again_gives_the_same(kept, captured, texts):
    """Among other texts and so in other batches, too."""
    found = {row["id"]: i for i, row in enumerate(texts)}
    logits, kept_logits = captured.router_logits(), kept.router_logits()
    for i, name in enumerate(kept.samples["id"].to_list()):
        j = found[name]
        ours, theirs = (
            slice(dump.token_starts[at], dump.token_starts[at + 1]) for dump, at in ((kept, i), (captured, j))
        )
        np.testing.assert_array_equal(captured.expert_ids[theirs], kept.expert_ids[ours], err_msg=name)
        np.testing.assert_allclose(captured.expert_weights[theirs], kept.expert_weights[ours], atol=TOLERANCE)
        for layer in kept_logits:
            np.testing.assert_allclose(logits[layer][theirs], kept_logits[layer][ours], atol=TOLERANCE)
        np.testing.assert_allclose(captured.fingerprints()[j], kept.fingerprints()[i], atol=1e-5)


def test_new_texts_are_nearest_to_their_domain(captured, texts):
    """The bundled fingerprints tell the domains of texts that were written for these tests."""
    from moefps.io.bundled import bundled_fingerprints

    bundled = bundled_fingerprints()
    nearest = moefps.wasserstein_cross(captured.fingerprints("probs"), bundled.array).argmin(axis=1)
    right = bundled.domains[nearest] == np.array([row["domain"] for row in texts])
    assert right.mean() >= 0.85


def test_metrics_of_the_captured_routers(captured):
    """Vectors and logits of the real routers, through the dump, against the plain definitions."""
    found = moefps.routing_metrics(captured, segments=True, vocabulary=True)
    for layer in range(captured.n_layers):
        for name, value in gram_metrics(captured.router_vectors[layer]).items():
            if value is not None:
                assert found.value(name, layer=layer) == pytest.approx(value, rel=1e-6, abs=1e-9), (name, layer)
    without = found.summary.filter(found.summary["mean"].is_null())["metric"].to_list()
    assert sorted(without) == ["expert_output_diversity", "expert_routing_expression_alignment", "maxvio_batch"]
    logits = captured.router_logits()[0].astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    entropy = -(p * np.log(p)).sum(axis=1).mean()
    assert found.value("routing_entropy", layer=0) == pytest.approx(entropy, rel=1e-9)
