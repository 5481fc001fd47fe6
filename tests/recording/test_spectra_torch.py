"""Tensors of torch in SPECTRAAnalyzer and RoutingAnalyzer: the original's own arithmetic, and the same counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from moefps.compat.spectra import SPECTRAAnalyzer
from moefps.errors import DataError, DtypeError
from moefps.metrics.analyzer import RoutingAnalyzer
from reference import spectra as plain
from support import refused

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def make_step(seed=0, n_experts=6, top_k=2, shape=(2, 7), width=24, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    n_tokens = shape[0] * shape[1]
    lead = shape if seed % 2 else (n_tokens,)
    return {
        "routing_logits": torch.randn(*lead, n_experts, width, generator=generator) + shift,
        "expression_logits": torch.randn(*lead, n_experts, width, generator=generator),
        "selected_experts": torch.rand(n_tokens, n_experts, generator=generator).topk(top_k).indices,
        "routing_weights": torch.rand(n_tokens, top_k, generator=generator).softmax(-1),
        "speciality_penalty": torch.tensor(0.25),
        "cosine_similarities": torch.rand(*shape, n_experts, generator=generator) * 2 - 1,
        "expression_loss": torch.tensor(0.5, requires_grad=True),
    }


def close(found, expected):
    """As the original is to be met: relative 1e-4 or absolute 1e-5."""
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(close, found, expected))
    if isinstance(expected, str) or (not math.isfinite(expected) and not math.isnan(expected)):
        return found == expected
    if math.isnan(expected):
        return math.isnan(found)
    return abs(found - expected) <= max(1e-5, 1e-4 * abs(expected))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("seed", "n_experts", "top_k", "shape"), [(0, 6, 2, (2, 7)), (1, 16, 4, (1, 9)), (2, 3, 3, (1, 1))]
)
def test_tensors_give_what_arrays_give(device, seed, n_experts, top_k, shape):
    step = make_step(seed, n_experts, top_k, shape)
    outputs = {e: torch.randn(e + 1, 4) for e in range(3)}
    there = {
        name: value.to(device, copy=True).requires_grad_(value.is_floating_point()) for name, value in step.items()
    }
    found = SPECTRAAnalyzer(n_experts).analyze_routing_step(
        **there, expert_outputs={e: output.to(device) for e, output in outputs.items()}
    )
    arrays = {name: value.detach().numpy() for name, value in step.items()}
    of_arrays = SPECTRAAnalyzer(n_experts).analyze_routing_step(
        **arrays, expert_outputs={e: output.numpy() for e, output in outputs.items()}
    )
    expected = plain.step(
        *(arrays[name] for name in ("routing_logits", "expression_logits", "selected_experts", "routing_weights")),
        arrays["cosine_similarities"],
        n_experts=n_experts,
        penalty=0.25,
        loss=0.5,
        outputs={e: output.numpy() for e, output in outputs.items()},
    )
    assert set(found) == set(of_arrays) == set(expected)
    for key, value in expected.items():
        assert close(found[key], value), key
        assert close(of_arrays[key], value), key


def test_where_rounding_decides_it_decides_as_in_torch():
    """Vectors that are nearly one and the same: the smallest eigenvalue is noise."""
    step = make_step(n_experts=8, width=8, shift=300.0)
    means = step["routing_logits"].mean(dim=0)
    rows = torch.nn.functional.normalize(means, dim=-1)
    eigenvalues = torch.linalg.eigvalsh(rows @ rows.T)
    expected = (eigenvalues.max() / eigenvalues.min()).item() if eigenvalues.min() > 1e-8 else math.inf
    found = SPECTRAAnalyzer(8).analyze_routing_step(**step)
    assert found["gram_condition_number"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_widened(dtype):
    step = make_step()
    halves = {name: value.to(dtype) if value.is_floating_point() else value for name, value in step.items()}
    wide = {name: value.float() if value.is_floating_point() else value for name, value in halves.items()}
    found = SPECTRAAnalyzer(6).analyze_routing_step(**halves)
    assert found == SPECTRAAnalyzer(6).analyze_routing_step(**wide)


def test_bad_tensors_are_refused():
    step = make_step()
    analyzer = SPECTRAAnalyzer(6)
    for name, value, error in (
        ("routing_logits", step["routing_logits"].to(torch.complex64), DtypeError),
        ("expression_logits", step["expression_logits"] * math.nan, DataError),
        ("selected_experts", step["selected_experts"] - 1, DataError),
        ("routing_weights", step["routing_weights"] - 1, DataError),
    ):
        refused(error, lambda n=name, v=value: analyzer.analyze_routing_step(**(step | {n: v})), name)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_the_analyzer_takes_tensors(device, dtype):
    generator = torch.Generator().manual_seed(0)
    ids = torch.rand(3, 5, 8, generator=generator).topk(3).indices
    weights = torch.rand(3, 5, 3, generator=generator).to(dtype)
    mask = torch.rand(3, 5, generator=generator) < 0.8
    ids[0, 0, 1] = -1
    tensors, arrays = RoutingAnalyzer(8), RoutingAnalyzer(8)
    tensors.update(ids.to(device), weights.to(device, copy=True).requires_grad_(), mask=mask.to(device).long())
    # bfloat16 has no array; all of its values are float32.
    plain_weights = (weights.float() if dtype == torch.bfloat16 else weights).numpy()
    arrays.update(ids.numpy(), plain_weights, mask=mask.numpy())
    flat = RoutingAnalyzer(8)
    flat.update(ids.view(-1, 3).int().to(device), weights.view(-1, 3).to(device), offsets=torch.tensor([0, 5, 10, 15]))
    for name, value in vars(arrays._layers[0].counts).items():
        np.testing.assert_array_equal(getattr(tensors._layers[0].counts, name), value, err_msg=name)
    assert int(flat._layers[0].counts.tokens[0]) == 15
    refused(DtypeError, lambda: tensors.update(ids.float()), "ids: dtype float32")
    refused(DataError, lambda: tensors.update(ids + 1), "ids: 8 at")
