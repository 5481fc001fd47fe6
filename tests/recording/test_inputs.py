"""What `moefps.capture` takes: texts, chats, processor outputs, models by name, models with code of their own."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import moefps
from moefps.recording.collecting import Block
from moefps.recording.routers import find_routers
from moefps.recording.transfer import SampleRows, Transfer
from recording.conftest import build_qwen
from recording.families import BY_NAME
from recording.test_named_routers import GATES, REMOTE, glacier

__all__ = ["glacier"]

DEMO = Path(__file__).parents[2] / "models" / "demo-moe"
TEXTS = ["def area(r):\n    return 3.14 * r * r\n", "Der Zug nach Ulm fährt um acht.", "Yes."]


def plain(model, router, **inputs):
    """What one router gives in one forward, without moefps."""
    seen = []
    handle = router.module.register_forward_hook(lambda _m, _a, output: seen.append(output))
    with torch.no_grad():
        model(**inputs)
    handle.remove()
    return seen


@pytest.mark.parametrize("name", ["qwen3_vl_moe", "glm4v_moe"])
def test_images_are_placeholders_among_the_tokens(name):
    family = BY_NAME[name]
    model, inputs = family.build(), family.image_inputs()
    text = family.tokens(5, 6)
    dump = moefps.capture(model, [text.tolist(), inputs])
    assert dump.samples["n_tokens"].to_list() == [6, 11]
    assert dump.sample(1).tokens["token_id"].to_list() == inputs["input_ids"][0].tolist()
    (output,) = plain(model, find_routers(model)[0], **inputs)
    np.testing.assert_array_equal(dump.sample(1).expert_ids[:, 0], output[2])


def test_text_and_vision_gates_share_a_samples_tokens():
    family = BY_NAME["ernie4_5_vl_moe"]
    model, inputs = family.build(), family.image_inputs()
    dump = moefps.capture(model, [family.tokens(5, 6).tolist(), inputs])
    text, mixed = dump.sample(0).expert_ids, dump.sample(1).expert_ids
    is_image = inputs["moe_mm_token_type_ids"][0].bool().numpy()
    for layer in dump.layers:
        if "vision" in layer.path:
            assert (text[:, layer.index] == -1).all()
            assert (mixed[is_image, layer.index] >= 0).all()
            assert (mixed[~is_image, layer.index] == -1).all()
        else:
            assert (text[:, layer.index] >= 0).all()
            assert (mixed[is_image, layer.index] == -1).all()
            assert (mixed[~is_image, layer.index] >= 0).all()


def test_patches_of_a_vision_tower_are_rows_of_their_own():
    family = BY_NAME["dots3_note"]
    model, inputs = family.build(), family.image_inputs()
    dump = moefps.capture(model, [inputs, family.tokens(5, 6).tolist()])
    assert dump.samples["n_tokens"].to_list() == [11 + 16, 6]
    stack = np.array(dump.sample(0).tokens["stack"].to_list())
    assert (stack == "vision").sum() == 16
    for layer in dump.layers:
        ids = dump.sample(0).expert_ids[:, layer.index, : layer.top_k]
        assert ((ids >= 0).all(axis=1) == ((stack == "vision") == (layer.stack == "vision"))).all()
    # A patch is no token of the vocabulary.
    assert dump.sample(0).tokens["token_id"].is_null().to_list() == (stack == "vision").tolist()


def test_a_processors_output_without_a_batch(qwen):
    flat = {"input_ids": [5, 6, 7, 8], "position_ids": [3, 4, 5, 6]}
    dump = moefps.capture(qwen, [flat])
    whole = {name: torch.tensor([numbers]) for name, numbers in flat.items()}
    np.testing.assert_array_equal(dump.expert_weights, moefps.capture(qwen, [whole]).expert_weights)


def test_a_decoder_is_fed_its_start_token_alone():
    family = BY_NAME["switch_transformers"]
    dump = moefps.capture(family.build(), [family.tokens(0, 5).tolist()])
    assert dump.tokens["stack"].to_list() == ["encoder"] * 5 + ["decoder"]
    assert dump.tokens["position"].to_list() == [0, 1, 2, 3, 4, 0]


def test_texts_and_chats_go_through_the_models_own_tokenizer():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    dump = moefps.capture(str(DEMO), TEXTS, device="cpu", dtype="float32")
    for text, sample in zip(TEXTS, dump, strict=True):
        assert sample.tokens["token_id"].to_list() == tokenizer(text)["input_ids"]
    assert dump.samples["text"].to_list() == TEXTS
    assert dump.manifest.model["type"] == "qwen3_moe"
    messages = [[{"role": "user", "content": "Was kostet das?"}], "Hello"]
    dump = moefps.capture(str(DEMO), messages, chat=True, device="cpu")
    expected = tokenizer.apply_chat_template(messages[0], tokenize=True, return_dict=False)
    assert dump.sample(0).tokens["token_id"].to_list() == expected
    with pytest.raises(moefps.ArgumentError, match="chat=True"):
        moefps.capture(str(DEMO), messages, device="cpu")


def test_generation_keeps_the_whole_completion():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = (
        AutoTokenizer.from_pretrained(DEMO),
        AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32),
    )
    dump = moefps.capture(model, TEXTS, tokenizer=tokenizer, generate=8)
    for text, sample in zip(TEXTS, dump, strict=True):
        prompt = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            ids = model.generate(**prompt, max_new_tokens=8, do_sample=False)[0].tolist()
        tokens = sample.tokens
        assert [*tokens["token_id"].to_list(), tokens["next_token_id"][-1]] == ids


@pytest.mark.parametrize(
    ("name", "message"),
    [("no/such/model", "cannot be loaded"), (str(DEMO.parent), "cannot be loaded")],
)
def test_models_that_are_not_there(name, message, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(moefps.ArgumentError, match=message):
        moefps.capture(name, [[1, 2]])


def test_a_model_with_code_of_its_own(glacier, tmp_path):
    # The folder's name is that of the module which transformers makes of the code, and keeps.
    folder = tmp_path / "saved" / REMOTE.name
    glacier.save_pretrained(folder)
    for file in REMOTE.glob("*.py"):
        shutil.copy(file, folder)
    samples = [[3, 4, 5, 6], [7, 8]]
    with pytest.raises(moefps.ArgumentError, match="trust_remote_code=True"):
        moefps.capture(str(folder), samples, device="cpu")
    with pytest.raises(moefps.CaptureError, match="RouterSpec"):
        moefps.capture(str(folder), samples, device="cpu", trust_remote_code=True)
    dump = moefps.capture(
        str(folder), samples, device="cpu", trust_remote_code=True, routers=[f"{GATES},scoring=softmax"]
    )
    assert [layer.path for layer in dump.layers] == ["stages.1.mlp.gate", "stages.3.mlp.gate"]
    assert all(layer.extra == {"derived_ids": True} for layer in dump.layers)
    assert dump.expert_ids.shape == (6, 2, 2)
    dump.check_values()


class Kept:
    """Takes what a `DumpWriter` is given."""

    def __init__(self):
        self.samples = {}
        self.done = np.zeros(100, dtype=np.bool_)

    def write(self, sample, **arrays):
        self.samples[sample] = arrays


def test_layers_on_several_devices_are_put_together():
    """Two devices give two blocks, with every other layer each; one device gives one."""
    from moefps.io.dump import DumpHeader, LayerInfo
    from moefps.recording.batching import pad_batch
    from moefps.recording.collecting import Collector
    from moefps.recording.encoding import encode_samples

    model = build_qwen(num_hidden_layers=4)
    encoded = encode_samples([[1, 2, 3], [4, 5, 6, 7, 8], [9]], None, vocabulary=97)
    batch = pad_batch(range(3), encoded, pad_id=0)
    routers = find_routers(model)
    with torch.no_grad(), Collector(routers, kind="probs", keep_logits=True) as collector:
        collector.begin()
        model(**batch.inputs)
        (block,) = collector.finish(batch)
    layers = tuple(
        LayerInfo(index=i, path=router.path, layer=i, n_experts=8, top_k=2) for i, router in enumerate(routers)
    )
    header = DumpHeader(
        layers=layers,
        arrays={
            "expert_ids": np.dtype(np.int16),
            "expert_weights": np.dtype(np.float32),
            "router_logits": np.dtype(np.float32),
            "fingerprints": np.dtype(np.float32),
        },
        fingerprint_kind="probs",
    )
    parts = [
        Block(
            None,
            some,
            block.ids[:, some],
            block.weights[:, some],
            block.logits[:, some],
            block.fingerprints[:, some],
        )
        for some in ((0, 2), (1, 3))
    ]

    rows = [SampleRows(sample.input_ids.numpy(), np.arange(sample.n_rows), {}) for sample in encoded]
    kept = []
    for blocks in ([block], parts):
        writer = Kept()
        transfer = Transfer(writer, header, lambda _: None)
        transfer.send(batch, blocks, rows)
        transfer.close()
        kept.append(writer.samples)
    whole, together = kept
    assert sorted(whole) == [0, 1, 2]
    for i in range(3):
        for name in ("expert_ids", "expert_weights", "router_logits", "fingerprint", "token_ids"):
            np.testing.assert_array_equal(whole[i][name], together[i][name])
