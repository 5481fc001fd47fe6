"""Base against fine-tuned checkpoints: what training has moved is seen, layer by layer, and nothing else."""

from __future__ import annotations

import polars as pl
import pytest
import torch

import moefps
from recording.conftest import build_qwen

DOMAINS = {"low": (3, 40), "high": (50, 90)}


@pytest.fixture(scope="module")
def texts():
    """Texts of two domains, which have no token in common."""
    generator = torch.Generator().manual_seed(0)
    return pl.DataFrame(
        [
            {"id": f"{domain}-{i}", "domain": domain, "ids": torch.randint(*span, (12,), generator=generator).tolist()}
            for domain, span in DOMAINS.items()
            for i in range(8)
        ]
    )


def tuned(texts, *, trained):
    """Fine-tune on one domain, nothing but the parameters with `trained` in their names."""
    model = build_qwen().train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained in name)
    ids = torch.tensor(texts.filter(texts["domain"] == "low")["ids"].to_list())
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(5):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def captured(model, texts):
    return moefps.capture(model, texts["ids"].to_list(), samples=texts.select("id", "domain"))


@pytest.fixture(scope="module")
def base(texts):
    return captured(build_qwen(), texts)


def means(found, group):
    rows = found.layer_metrics.filter(found.layer_metrics["group"] == group)
    return rows.select("tv", "jaccard").rows()


def test_a_checkpoint_differs_from_where_training_began(base, texts):
    found = moefps.compare(base, captured(tuned(texts, trained="layers.1."), texts), by="domain", n_resamples=200)
    assert set(found.layer_metrics["group"]) == {"all", *DOMAINS}
    for group, n_tokens in (("all", 192), ("low", 96), ("high", 96)):
        before, inside, after = means(found, group)
        # The router of layer 1 and all that comes later see other things; layer 0 does not.
        assert before == (0, 1)
        assert min(inside[0], after[0]) > 0.01
        assert max(inside[1], after[1]) < 1
        assert found.summary[f"count_{group}"] == n_tokens
    rows = found.layer_metrics.filter(found.layer_metrics["layer"] > 0)
    assert (rows["tv_lo"] <= rows["tv"]).all()
    assert (rows["tv_lo"] > 0).all()


@pytest.mark.parametrize("trained", ["layers.2.mlp.experts", "lm_head"])
def test_what_comes_after_the_routers_moves_nothing(trained, base, texts):
    model = tuned(texts, trained=trained)
    weights, before = model.state_dict(), build_qwen().state_dict()
    assert any(not torch.equal(weights[name], before[name]) for name in weights), "it was trained"
    found = moefps.compare(base, captured(model, texts), by="domain", n_resamples=0)
    assert set(found.layer_metrics.select("tv", "js", "jaccard").rows()) == {(0, 0, 1)}
    assert found.top_experts_global["delta_u"].abs().max() == 0


def test_a_checkpoint_against_itself(base, texts):
    again = captured(build_qwen(), texts)
    found = moefps.compare(base, again, by="domain", n_resamples=200)
    assert set(found.layer_metrics.select("tv", "tv_lo", "tv_hi", "jaccard").rows()) == {(0, 0, 0, 1)}
