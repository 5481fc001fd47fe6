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
        alone = torch.stack(seen, dim=1).numpy()
        np.testing.assert_allclose(logits[start : start + n], alone, rtol=0, atol=1e-5)
        chosen = np.sort(np.argpartition(-alone, 3, axis=2)[:, :, :4], axis=2)
        assert (np.sort(dumps[1].expert_ids[start : start + n], axis=2) == chosen).all()
        start += n
    assert start == dumps[1].n_tokens


def test_batches_do_not_matter(model, dumps, file):
    for dump, condition in zip(dumps, CONDITIONS, strict=True):
        alone = moefps.capture(model, pairs=file, condition=condition, logits=True, batch_tokens=1)
        assert alone.tokens.equals(dump.tokens)
        assert (alone.expert_ids == dump.expert_ids).all()
        for name in ("router_logits", "expert_weights"):
            np.testing.assert_allclose(alone.stored(name), dump.stored(name), rtol=0, atol=1e-5)


def test_tokens_in_memory_hidden_states_and_columns(model, file):
    tokens = read_pair_tokens(file)
    dump = moefps.capture(
        model, pairs=tokens, condition="assisted", hidden_states=[5, 0], samples={"domain": ["a", "b"]}
    )
    assert dump.hidden_states.shape == (dump.n_tokens, 2, 128)
    assert dump.samples["domain"].to_list() == ["a", "b"]
    # Of the tokens alone, in the order of the tokens: the second task, whose rows come after the first one's.
    row, mask = tokens[1].assisted_aligned_ids, tokens[1].mask("assisted")
    with torch.no_grad():
        states = model.model(
            torch.tensor(row)[None],
            attention_mask=torch.tensor(mask[None].astype(int)),
            position_ids=torch.arange(len(row))[None],
            output_hidden_states=True,
        ).hidden_states
    found = dump.hidden_states[-int(mask.sum()) :, 1]
    np.testing.assert_allclose(found, states[1][0, mask].numpy(), rtol=0, atol=1e-4)


class Killed(BaseException):
    """As a signal ends a process: nothing of ours catches it."""


def test_resumed(tmp_path, model, file, monkeypatch):
    """A capture that was killed goes on to the same dump, and not with the other condition or another file."""
    arguments = {"pairs": file, "batch_tokens": 1, "output": tmp_path / "d"}
    whole = moefps.capture(model, **{**arguments, "output": None}, condition="assisted")
    from moefps.recording import running

    plain, calls = running.pad_batch, []

    def stops(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise Killed
        return plain(*args, **kwargs)

    monkeypatch.setattr(running, "pad_batch", stops)
    with pytest.raises(Killed):
        moefps.capture(model, **arguments, condition="assisted")
    refused(moefps.DumpError, lambda: moefps.capture(model, **arguments, condition="agentic", resume=True), "condition")
    other = PairTokens(read_pair_tokens(file).tasks, "0" * 64, "other.json")
    again = {**arguments, "pairs": other, "condition": "assisted", "resume": True}
    refused(moefps.DumpError, lambda: moefps.capture(model, **again), "sha256")
    dump = moefps.capture(model, **arguments, condition="assisted", resume=True)
    assert dump.manifest.state == "complete"
    assert dump.samples.equals(whole.samples)
    assert dump.tokens.equals(whole.tokens)
    for name in ("expert_ids", "expert_weights"):
        assert (dump.stored(name) == whole.stored(name)).all()
    assert dump.manifest.extra["pairs"] == whole.manifest.extra["pairs"]


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

    small = small_qwen()
    word = "task own/0 has token id .* align with the model's own tokenizer"
    refused(ArgumentError, lambda: moefps.capture(small, pairs=file, condition="agentic"), word)
    padded = {**SIX, "assisted_aligned_ids": [300, 300, 7, 8, 9, 10]}
    tokens = PairTokens((check_task_tokens(padded, "p"),), "0" * 64, "p")
    word = "task t has the pad id 300; accepted: below 300, the model's vocabulary; align with another pad token"
    refused(ArgumentError, lambda: moefps.capture(small, pairs=tokens, condition="assisted"), word)
    assert moefps.capture(small, pairs=tokens, condition="agentic").n_tokens == 6


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


CARRIES = "gaps, which are neutral for attention only, and .* carries what stood at one position on to the next"


@pytest.mark.parametrize(
    ("name", "word"),
    [
        *(
            (name, CARRIES)
            for name in (
                *("jamba", "nemotron_h", "granitemoehybrid", "qwen3_next", "lfm2_moe", "kimi_linear"),
                *("bailing_hybrid", "minimax", "deepseek_v4"),
            )
        ),
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
