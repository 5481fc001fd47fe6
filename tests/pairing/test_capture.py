"""Capturing a condition of aligned pairs: shared tokens stand at the same place in both dumps."""

from __future__ import annotations

import numpy as np
import pytest

import moefps
from moefps import ArgumentError, DataError
from moefps.io.pair_tokens import TOOL_POSITIONS, PairTokens, check_task_tokens, read_pair_tokens
from moefps.pairing import align_pairs, build_pairs
from pairing.conftest import DEMO
from support import refused

torch = pytest.importorskip("torch", reason="capture needs torch, which is not installed")
transformers = pytest.importorskip("transformers", reason="capture needs transformers, which is not installed")

CONDITIONS = ("agentic", "assisted")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Keep these small models to one thread: more only get in each other's way."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model():
    if not DEMO.is_dir():
        pytest.skip("models/demo-moe is not beside the tests")
    return transformers.AutoModelForCausalLM.from_pretrained(DEMO, dtype="float32")


@pytest.fixture(scope="module")
def file(tmp_path_factory, own):
    """Two problems, aligned with the model's own tokenizer through its chat template."""
    path = tmp_path_factory.mktemp("pairs") / "pair_tokens.json"
    files = [own / "openai.jsonl", own / "own_1.traj"]
    pairs = build_pairs(own / "problems.jsonl", trajectories=files)
    align_pairs(pairs, tokenizer=DEMO, chat=True, output=path)
    return path


@pytest.fixture(scope="module")
def dumps(model, file):
    return [moefps.capture(model, pairs=file, condition=condition, logits=True) for condition in CONDITIONS]


def test_shared_tokens_stand_at_the_same_place(dumps, file):
    tokens = read_pair_tokens(file)
    for dump, condition in zip(dumps, CONDITIONS, strict=True):
        assert dump.samples["task_id"].to_list() == ["own/0", "own/1"]
        assert dump.manifest.extra["pairs"] == {"sha256": tokens.sha256, "condition": condition}
        for i, task in enumerate(tokens):
            rows = dump.tokens.filter(dump.tokens["sample"] == i)
            valid = np.flatnonzero(task.mask(condition))
            assert rows["position"].to_list() == valid.tolist()
            assert rows["token_id"].to_list() == task.ids(condition)[valid].tolist()
    agentic, assisted = (dump.tokens for dump in dumps)
    both = agentic.join(assisted, on=["sample", "position"], suffix="_assisted")
    shared = both.filter(both["segment_assisted"].cast(str) != "own")
    assert shared["token_id"].to_list() == shared["token_id_assisted"].to_list()
    assert shared["segment"].to_list() == shared["segment_assisted"].to_list()
    assert len(shared) == sum(int(task.is_shared.sum()) for task in tokens)
    assert set(shared["segment"].unique().cast(str)) == {"tool_response", "canonical"}
    assert np.isfinite(dumps[1].fingerprints()).all()


def test_segments_are_labels(dumps, file):
    for i, task in enumerate(read_pair_tokens(file)):
        rows = dumps[0].tokens.filter(dumps[0].tokens["sample"] == i)
        kinds = np.repeat([s.kind for s in task.segments], [s.end - s.start for s in task.segments])
        assert rows["segment"].cast(str).to_list() == kinds.tolist()


def test_gaps_are_as_if_nothing_stood_there(model, dumps, file):
    """The same tokens without the gaps, told where they stand, with a causal mask of their own."""
    logits = dumps[1].stored("router_logits")
    start = 0
    for task in read_pair_tokens(file):
        places = np.flatnonzero(task.mask("assisted"))
        n = len(places)
        seen = []

        def keep(module, inputs, output, seen=seen):
            seen.append(output[0])

        hooks = [layer.mlp.gate.register_forward_hook(keep) for layer in model.model.layers]
        with torch.no_grad():
            model(
                input_ids=torch.tensor(task.assisted_aligned_ids[places])[None],
                position_ids=torch.tensor(places)[None],
                attention_mask=torch.full((n, n), -torch.inf).triu(1)[None, None],
                use_cache=False,
            )
        for hook in hooks:
            hook.remove()
        np.testing.assert_allclose(logits[start : start + n], torch.stack(seen, dim=1).numpy(), atol=2e-4)
        start += n


def test_batches_do_not_matter(model, dumps, file):
    for dump, condition in zip(dumps, CONDITIONS, strict=True):
        alone = moefps.capture(model, pairs=file, condition=condition, logits=True, batch_tokens=1)
        assert alone.tokens.equals(dump.tokens)
        np.testing.assert_allclose(alone.stored("router_logits"), dump.stored("router_logits"), atol=2e-4)


def test_tokens_in_memory_hidden_states_and_columns(model, file):
    dump = moefps.capture(
        model, pairs=read_pair_tokens(file), condition="assisted", hidden_states=[0, 5], samples={"domain": ["a", "b"]}
    )
    assert dump.hidden_states.shape == (dump.n_tokens, 2, 128)
    assert dump.samples["domain"].to_list() == ["a", "b"]


def test_resumed(tmp_path, model, file, monkeypatch):
    """A capture that stopped goes on, and not with the other condition."""
    arguments = {"pairs": file, "batch_tokens": 1, "output": tmp_path / "d"}
    from moefps.recording import running

    plain, calls = running.pad_batch, []

    def stops(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return plain(*args, **kwargs)

    monkeypatch.setattr(running, "pad_batch", stops)
    with pytest.raises(KeyboardInterrupt):
        moefps.capture(model, **arguments, condition="assisted")
    refused(moefps.DumpError, lambda: moefps.capture(model, **arguments, condition="agentic", resume=True), "condition")
    dump = moefps.capture(model, **arguments, condition="assisted", resume=True)
    assert dump.manifest.state == "complete"
    assert dump.samples["task_id"].to_list() == ["own/0", "own/1"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"texts": ["a"]}, "texts: not with pairs"),
        ({"chat": True}, "chat: not with pairs"),
        ({"generate": 3}, "generate: not with pairs"),
        ({"max_length": 3}, "max_length: not with pairs"),
        ({"decoder_texts": ["a"]}, "decoder_texts: not with pairs"),
        ({"condition": None}, "condition: got None; accepted: agentic, assisted"),
        ({"condition": "robotic"}, "condition: got 'robotic'"),
        ({"pairs": 3}, "pairs: got a int"),
        ({"samples": {"task_id": ["a", "b"]}}, "'task_id' is one that pairs make"),
        ({"pairs": None}, "condition: only for pairs"),
        ({"pairs": None, "condition": None}, "texts: got none"),
    ],
)
def test_bad_arguments(model, file, arguments, word):
    given = {"pairs": file, "condition": "agentic", **arguments}
    refused(ArgumentError, lambda: moefps.capture(model, **given), word)


def test_another_models_tokens(file):
    from small_model import small_qwen

    refused(
        ArgumentError, lambda: moefps.capture(small_qwen(), pairs=file, condition="agentic"), "task own/0 has token id"
    )


def test_a_file_that_is_wrong(tmp_path, model):
    (tmp_path / "p.json").write_text("[]")
    refused(DataError, lambda: moefps.capture(model, pairs=tmp_path / "p.json", condition="agentic"), "holds no task")


def test_rows_longer_than_the_model(model, file):
    tokens = read_pair_tokens(file)
    model.config.max_position_embeddings, before = 100, model.config.max_position_embeddings
    try:
        with pytest.warns(
            moefps.CaptureWarning, match="2 of 2 texts have more tokens than the 100 positions .* model$"
        ):
            moefps.capture(model, pairs=tokens, condition="agentic")
    finally:
        model.config.max_position_embeddings = before


SIX = {
    "task_id": "t",
    "agentic_ids": [5, 6, 7, 8, 9, 10],
    "assisted_aligned_ids": [0, 0, 7, 8, 9, 10],
    "assisted_aligned_attention_mask": [0, 0, 1, 1, 1, 1],
    "canonical_positions": [4, 5],
    "canonical_non_ws_positions": [4, 5],
    "tool_positions": {part: [] for part in TOOL_POSITIONS},
    "segments": [["system", None, 0, 4], ["canonical", "canonical", 4, 6]],
}


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("jamba", "gaps, which are neutral for attention only, and .* carries what stood at one position"),
        ("doge", "gaps, .* splits the logits"),
        ("nllb_moe", "is an encoder-decoder"),
    ],
)
def test_models_in_which_a_gap_is_not_neutral(name, word):
    from recording.families import BY_NAME

    model = BY_NAME[name].build()
    tokens = PairTokens((check_task_tokens(SIX, "p"),), "0" * 64, "p")
    refused(ArgumentError, lambda: moefps.capture(model, pairs=tokens, condition="assisted"), word)
    if name == "jamba":
        # Without gaps there is nothing to be neutral about.
        dump = moefps.capture(model, pairs=tokens, condition="agentic")
        assert dump.tokens["position"].to_list() == list(range(6))
