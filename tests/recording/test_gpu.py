"""Captures on a GPU; skipped where there is none."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import moefps  # noqa: E402
from recording.conftest import build_qwen  # noqa: E402
from recording.test_process import samples  # noqa: E402

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.fixture(scope="module")
def on_cpu():
    return moefps.capture(build_qwen(), samples(), logits=True, hidden_states=[1])


def test_a_gpu_gives_what_the_cpu_gives(on_cpu):
    for batch_tokens in (60, 4096):
        dump = moefps.capture(build_qwen().cuda(), samples(), logits=True, hidden_states=[1], batch_tokens=batch_tokens)
        np.testing.assert_array_equal(dump.expert_ids, on_cpu.expert_ids)
        np.testing.assert_allclose(dump.expert_weights, on_cpu.expert_weights, atol=1e-4)
        for mine, other in zip(dump.router_logits().values(), on_cpu.router_logits().values(), strict=True):
            np.testing.assert_allclose(mine, other, atol=1e-3)
        np.testing.assert_allclose(dump.hidden_states, on_cpu.hidden_states, atol=1e-3)
        np.testing.assert_allclose(dump.fingerprints(), on_cpu.fingerprints(), atol=1e-5)


def test_bfloat16_captured_twice_is_the_same():
    model = build_qwen().to("cuda", torch.bfloat16)
    one, other = (moefps.capture(model, samples(), batch_tokens=200) for _ in range(2))
    np.testing.assert_array_equal(one.expert_ids, other.expert_ids)
    np.testing.assert_array_equal(one.expert_weights, other.expert_weights)


def test_generation():
    prompts = samples()[:6]
    there = moefps.capture(build_qwen().cuda(), prompts, generate=5)
    here = moefps.capture(build_qwen(), prompts, generate=5)
    assert there.tokens["token_id"].to_list() == here.tokens["token_id"].to_list()
    np.testing.assert_array_equal(there.expert_ids, here.expert_ids)


def test_hooks_never_wait_for_the_gpu():
    # The first batch tells the dump's sizes; what follows must not wait.
    model = build_qwen().cuda()
    from moefps.recording.batching import pad_batch
    from moefps.recording.collecting import Collector
    from moefps.recording.encoding import encode_samples
    from moefps.recording.routers import find_routers

    encoded = encode_samples(samples()[:4], None, vocabulary=97)
    batch = pad_batch(range(4), encoded, pad_id=0)
    inputs = {name: value.cuda() for name, value in batch.inputs.items()}
    with torch.no_grad(), Collector(find_routers(model), kind="probs", keep_logits=True) as collector:
        collector.begin()
        routers = [layer.mlp.gate for layer in model.model.layers]
        hidden = torch.randn(batch.inputs["input_ids"].numel(), 32, device="cuda")
        assert inputs
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for router in routers:
                router(hidden)
            blocks = collector.finish(batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert blocks[0].ids.shape[1] == 3


def test_accelerate_offload_to_the_cpu(on_cpu):
    from accelerate import cpu_offload

    model = cpu_offload(build_qwen(), execution_device=torch.device("cuda:0"))
    dump = moefps.capture(model, samples())
    np.testing.assert_array_equal(dump.expert_ids, on_cpu.expert_ids)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are not two GPUs")
def test_two_gpus_give_what_one_gives(tmp_path):
    build_qwen(num_hidden_layers=6).save_pretrained(tmp_path / "model")
    one = moefps.capture(str(tmp_path / "model"), samples(), device="cuda:0", logits=True)
    spread = {f"model.layers.{i}": i // 3 for i in range(6)}
    spread |= {"model.embed_tokens": 0, "model.norm": 1, "model.rotary_emb": 0, "lm_head": 1}
    for device_map in (spread, "auto", "balanced"):
        two = moefps.capture(str(tmp_path / "model"), samples(), device_map=device_map, logits=True)
        np.testing.assert_array_equal(two.expert_ids, one.expert_ids)
        np.testing.assert_array_equal(two.expert_weights, one.expert_weights)
        np.testing.assert_array_equal(two.fingerprints(), one.fingerprints())
