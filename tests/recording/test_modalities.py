"""Images: rows that are some of the positions, or none of them."""

from __future__ import annotations

import pytest
import torch

from moefps.errors import CaptureError
from moefps.recording.routers import find_routers
from recording.executed import Watch, record
from recording.families import BY_NAME, IMAGE
from support import refused

LENGTHS = (7, 11, 4)


@torch.no_grad()
def test_text_and_vision_experts_share_out_the_positions() -> None:
    """Each of the two routers of a layer of ERNIE 4.5 VL sees its positions, and runs experts of its own."""
    family = BY_NAME["ernie4_5_vl_moe"]
    model, inputs = family.build(), family.image_inputs(n_samples=2)
    blocks = {f"model.language_model.layers.{i}.mlp" for i in (1, 2)}
    parts = {f"{block}.{kind}_moe" for block in blocks for kind in ("text", "vision")}
    watch = Watch()
    with watch.on(model, {path: path for path in (*blocks, *(f"{part}.experts" for part in parts))}):
        found = record(model, inputs)
    for block in blocks:
        logits = torch.full_like(watch.calls[block][0][2][1], torch.nan)
        seen = []
        for router in find_routers(model):
            if router.path.startswith(block):
                (reading,) = found[router.path]
                covered = router.covers(inputs)
                assert covered.sum() == len(reading.ids)
                logits[covered.flatten()] = reading.logits
                seen.append(covered)
                given = watch.calls[router.path.removesuffix("gate") + "experts"][0][0]
                assert torch.equal(given[1], reading.ids)
                assert router.patches(inputs) is None
        assert torch.equal(seen[0], ~seen[1])
        # transformers lays out the logits of both as it lays out the tokens.
        assert torch.equal(logits, watch.calls[block][0][2][1])
    assert found["model.language_model.layers.1.mlp.vision_moe.gate"][0].ids.shape == (4 + 2, 2)
    text = family.inputs(LENGTHS)
    routers = find_routers(model)
    assert routers[0].covers(text) is None
    assert not routers[1].covers(text).any()
    assert not routers[1].covers({"inputs_embeds": torch.zeros(2, 3, 4)}).any()
    refused(CaptureError, lambda: routers[1].covers({}), "inputs_embeds")
    nothing = {"moe_mm_token_type_ids": torch.zeros(2, 3, dtype=torch.int64)}
    assert routers[0].covers(nothing) is None
    assert not routers[1].covers(nothing).any()


@torch.no_grad()
def test_routers_of_a_vision_tower_see_patches() -> None:
    family = BY_NAME["dots3_note"]
    model, inputs = family.build(), family.image_inputs()
    routers = find_routers(model)
    towers = [router for router in routers if router.stack == "vision"]
    watch = Watch()
    with watch.on(model, {router.path: router.path.removesuffix("gate") + "experts" for router in towers}):
        found = record(model, inputs)
    assert [router.layer for router in towers] == [1, 2]
    for router in towers:
        (reading,) = found[router.path]
        assert router.patches(inputs) == [len(reading.ids)] == [16]
        assert torch.equal(watch.calls[router.path][0][0][1], reading.ids)
        assert router.patches(family.inputs(LENGTHS)) == [0, 0, 0]
    n_tokens = inputs["input_ids"].shape[1]
    assert all(len(found[router.path][0].ids) == n_tokens for router in routers if router.stack is None)
    two = {"input_ids": torch.zeros(2, 3), "image_grid_thw": inputs["image_grid_thw"].repeat(2, 1)}
    refused(CaptureError, lambda: towers[0].patches(two), "2 samples with images")
    assert {router.patches(inputs) is None for router in routers if router.stack is None} == {True}


@pytest.mark.parametrize("name", ["qwen3_vl_moe", "glm4v_moe"])
def test_images_are_tokens_to_other_families(name: str) -> None:
    family = BY_NAME[name]
    inputs = family.image_inputs()
    for (reading,) in record(family.build(), inputs).values():
        assert len(reading.ids) == inputs["input_ids"].shape[1]
    assert (inputs["input_ids"] == IMAGE).sum() == 4
