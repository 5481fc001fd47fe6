"""`align_pairs`: against a slow reference, on random segments and on HumanEval with real tokenizers."""

from __future__ import annotations

import copy
import json
from contextlib import nullcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moefps import ArgumentError, DataError, FileError
from moefps.io.pair_tokens import read_pair_tokens
from moefps.pairing import align_pairs, build_pairs
from pairing.conftest import encoder
from reference import pairing as reference
from support import refused

TOKENIZERS = ["demo", "qwen", "mistral"]
KINDS = ["system", "tool_schema", "user_prompt", "assistant", "tool_call", "tool_response"]


def segment(kind, key, text, docstrings=None):
    made = {"kind": kind, "key": key, "text": text}
    return made if docstrings is None else {**made, "docstrings": docstrings}


def pair_of(agentic, assisted, task_id="t"):
    return {"task_id": task_id, "agentic": agentic, "assisted": assisted}


def written(pair):
    """A pair as its file has it."""
    sides = {
        name: [
            segment(s.kind, s.key, s.text, None if s.docstrings is None else [list(span) for span in s.docstrings])
            for s in pair.segments(name)
        ]
        for name in ("agentic", "assisted")
    }
    return {"task_id": pair.task_id, **sides}


TEXTS = st.text(st.sampled_from("ab (\n\t'\"é世😀\u00a0\r"), min_size=1, max_size=12)


@st.composite
def segments(draw, kind, key=None, text=None):
    text = draw(TEXTS) if text is None else text
    if draw(st.booleans()):
        return segment(kind, key, text)
    cuts = sorted(draw(st.sets(st.integers(0, len(text)), max_size=4)))
    return segment(kind, key, text, [list(span) for span in zip(cuts[::2], cuts[1::2], strict=False)])


@st.composite
def pairs(draw):
    """Both conditions of a task, with shared texts in one order, mostly, and words of their own between."""
    agentic, assisted = [], []
    shared = [(f"k{i}", draw(TEXTS)) for i in range(draw(st.integers(0, 2)))]
    order = shared if draw(st.integers(0, 9)) else shared[::-1]
    for side, keyed, most in ((agentic, shared, 3), (assisted, order, 1)):
        for key, text in [*keyed, ("canonical", None)]:
            for _ in range(draw(st.integers(0, most))):
                side.append(draw(segments(draw(st.sampled_from(KINDS)))))
            if text is not None:
                side.append(draw(segments(draw(st.sampled_from(KINDS)), key, text)))
    last = draw(TEXTS)
    for side in (agentic, assisted):
        side.append(segment("canonical", "canonical", last))
    return pair_of(agentic, assisted)


@given(pair=pairs(), begins=st.booleans())
@settings(max_examples=120)
def test_random_segments_as_the_reference_lays_them(tmp_path_factory, small, small_with_begin, pair, begins):
    tokenizer = small_with_begin if begins else small
    expected = reference.align(pair, encoder(tokenizer), tokenizer.pad_token_id, tokenizer.bos_token_id)
    out = tmp_path_factory.getbasetemp() / "random.json"
    if expected is None:
        refused(DataError, lambda: align_pairs([pair], tokenizer=tokenizer, output=out, overwrite=True), "task t: ")
        return
    align_pairs([pair], tokenizer=tokenizer, output=out, overwrite=True)
    [found] = json.loads(out.read_text(encoding="utf-8"))
    assert found == expected
    reference.check(found)


@pytest.mark.parametrize("tokenizer", TOKENIZERS, indirect=True)
def test_humaneval_with_real_tokenizers(tmp_path, humaneval, tokenizer):
    """All 164 problems, the template: every number as the reference has it."""
    built = build_pairs(humaneval, template=True)
    assert len(built) == 164
    assert not built.left_out
    assert not built.canonical_only
    aligned = align_pairs(built, tokenizer=tokenizer, output=tmp_path / "p.json")
    found = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    encode = encoder(tokenizer)
    for task, pair in zip(found, built, strict=True):
        assert task == reference.align(written(pair), encode, tokenizer.pad_token_id, tokenizer.bos_token_id)
        reference.check(task)
        assert [key for _, key, _, _ in task["segments"] if key] == ["stub", "canonical"]
        assert task["tool_positions"]["response_docstring"]
        if tokenizer.bos_token_id is not None:
            for ids in (task["agentic_ids"], valid_ids(task)):
                assert ids[0] == tokenizer.bos_token_id
                assert ids.count(tokenizer.bos_token_id) == 1
    assert read_pair_tokens(tmp_path / "p.json").sha256 == aligned.sha256
    docstring = tokenizer.decode(pick(found[115], found[115]["tool_positions"]["response_docstring"]))
    assert docstring.lstrip().startswith('"""\n    You are given a rectangular grid')
    assert docstring.rstrip().endswith('"""')


@pytest.mark.parametrize("tokenizer", TOKENIZERS, indirect=True)
def test_humaneval_through_chat_templates(problems, tokenizer):
    pairs = build_pairs(problems[::4], template=True)
    with helped(tokenizer):
        aligned = align_pairs(pairs, tokenizer=tokenizer, chat=True)
    for task, pair in zip(aligned, pairs, strict=True):
        agentic = tokenizer.decode(task.agentic_ids)
        assisted = tokenizer.decode(task.assisted_aligned_ids[task.mask("assisted")])
        stub, body = pair.assisted[1].text, pair.assisted[2].text
        assert agentic.count("<tool_response>") == agentic.count("</tool_response>") == 1
        assert "<tool_response>" not in assisted
        assert f"<tool_response>\n{nfc(tokenizer, stub)}\n</tool_response>" in agentic
        assert agentic.endswith(nfc(tokenizer, body))
        assert assisted.endswith(nfc(tokenizer, body))
        assert task.segments[0].kind == "template"
        begin = tokenizer.bos_token_id
        for ids in (task.agentic_ids, task.assisted_aligned_ids[task.mask("assisted")]):
            assert begin is None or (ids[0] == begin and (ids == begin).sum() == 1)


def nfc(tokenizer, text):
    """The text as it comes back from the tokenizer."""
    return tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"])


def pick(task, positions):
    return [task["agentic_ids"][i] for i in positions]


def valid_ids(task):
    pairs = zip(task["assisted_aligned_ids"], task["assisted_aligned_attention_mask"], strict=True)
    return [token for token, is_there in pairs if is_there]


@pytest.mark.parametrize("tokenizer", TOKENIZERS, indirect=True)
def test_real_trajectories_with_a_stub_put_into_a_response(tmp_path, problems, tokenizer, request):
    """The shapes of SWE-agent and tau-bench, which solve other tasks, with our stub in one of their responses."""
    data = request.getfixturevalue("humaneval").parents[1]
    traj = json.loads((data / "sweagent" / "function_calling_2.traj").read_text(encoding="utf-8"))
    runs = json.loads((data / "taubench" / "taubench_gpt-4o-airline.json").read_text(encoding="utf-8"))
    run = copy.deepcopy(next(run for run in runs if sum(turn["role"] == "tool" for turn in run["traj"]) > 2))
    stubs = {"HumanEval/0": problems[0], str(run["task_id"]): {**problems[115], "task_id": str(run["task_id"])}}
    in_traj = [turn for turn in traj["history"] if turn["role"] == "tool"][1]
    in_traj["content"] = in_traj["content"].replace("bash-$", problems[0]["prompt"] + "\r\nbash-$")
    in_run = [turn for turn in run["traj"] if turn["role"] == "tool"][2]
    in_run["content"] = problems[115]["prompt"] * 2
    (tmp_path / "HumanEval_0.traj").write_text(json.dumps(traj))
    (tmp_path / "airline.json").write_text(json.dumps([run]))
    files = [tmp_path / "HumanEval_0.traj", tmp_path / "airline.json"]
    built = build_pairs(stubs.values(), trajectories=files)
    assert not built.canonical_only
    assert not built.unused
    aligned = align_pairs(built, tokenizer=tokenizer, output=tmp_path / "p.json")
    encode = encoder(tokenizer)
    for task, pair in zip(json.loads((tmp_path / "p.json").read_text()), built, strict=True):
        assert task == reference.align(written(pair), encode, tokenizer.pad_token_id, tokenizer.bos_token_id)
        stub = next(s for s in task["segments"] if s[1] == "stub")
        shown = tokenizer.decode(pick(task, range(stub[2], stub[3])))
        assert shown == nfc(tokenizer, stubs[task["task_id"]]["prompt"])
        assert "\ufffd" not in tokenizer.decode(task["agentic_ids"])
    assert all(len(task.tool_positions["call"]) > 20 for task in aligned)
    with helped(tokenizer):
        chats = align_pairs(built, tokenizer=tokenizer, chat=True)
    for task, pair in zip(chats, built, strict=True):
        n_responses = sum(s.text == "<tool_response>\n" for s in pair.agentic)
        assert tokenizer.decode(task.agentic_ids).count("<tool_response>") == n_responses > 2


def helped(tokenizer):
    """The warning that comes where a chat template knows no tools."""
    if tokenizer.bos_token != "<s>":
        return nullcontext()
    return pytest.warns(UserWarning, match="only user and assistant in turns")


def test_what_ships(small, own):
    files = [own / name for name in ("openai.jsonl", "own_1.traj", "taubench.json")]
    aligned = align_pairs(build_pairs(own / "problems.jsonl", trajectories=files), tokenizer=small)
    assert [task.task_id for task in aligned] == ["own/0", "own/1", "2"]
    keys = [[segment.key for segment in task.segments if segment.key] for task in aligned]
    assert keys == [["stub", "canonical"], ["stub", "canonical"], ["canonical"]]
    task = aligned[1]
    doc = small.decode(task.agentic_ids[task.tool_positions["response_docstring"]])
    assert doc.strip() == "'Greet somebody: “Grüß Gott, 世界 😀”.'"
    blank = set(task.canonical_positions) - set(task.canonical_non_ws_positions)
    assert {small.decode([task.agentic_ids[i]]).strip() for i in blank} == {""}
    # Characters of several tokens are no white space, though no token of them can be decoded.
    n_bytes = len("ü".encode()) + len("ß".encode())
    assert sum("\ufffd" in small.decode([task.agentic_ids[i]]) for i in task.canonical_non_ws_positions) >= n_bytes


def test_offsets_without_their_white_space(small):
    """Some tokenizers trim their offsets; white space inside a docstring belongs to it all the same."""
    from tokenizers import processors

    trimming = copy.deepcopy(small)
    trimming.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    text = 'def f():\n    "one  two"\n'
    start = text.index('"')
    pair = pair_of(
        [segment("tool_response", "stub", text, [[start, len(text) - 1]]), segment("canonical", "c", " 1 ")],
        [segment("user_prompt", "stub", text), segment("canonical", "c", " 1 ")],
    )
    found = [align_pairs([pair], tokenizer=tokenizer)[0] for tokenizer in (small, trimming)]
    for name in ("response_docstring", "response_non_docstring"):
        assert found[0].tool_positions[name].tolist() == found[1].tool_positions[name].tolist()
    assert found[0].canonical_non_ws_positions.tolist() == found[1].canonical_non_ws_positions.tolist()


def test_too_many_words_of_its_own(small):
    last = segment("canonical", "canonical", "x")
    pair = pair_of([segment("system", None, "ab"), last], [segment("user_prompt", None, "abc"), last], "HumanEval/3")
    refused(
        DataError,
        lambda: align_pairs([pair], tokenizer=small),
        "task HumanEval/3: the assisted condition has 3 tokens of its own before canonical, and the agentic one has 2",
    )


def test_a_tokenizer_that_is_not_what_it_must_be(tmp_path, small):
    pair = pair_of(*[[segment("canonical", "canonical", "x")]] * 2)
    padless = copy.deepcopy(small)
    padless.pad_token = None
    refused(ArgumentError, lambda: align_pairs([pair], tokenizer=padless), "no pad token", "--pad-token")
    refused(ArgumentError, lambda: align_pairs([pair], tokenizer=3), "got a int", "fast tokenizer")
    refused(ArgumentError, lambda: align_pairs([pair], tokenizer=tmp_path), "tokenizer: .* cannot be loaded: ")
    refused(ArgumentError, lambda: align_pairs([pair], tokenizer=tmp_path / "no"), "tokenizer: .*no does not exist")
    chatless = copy.deepcopy(small)
    chatless.chat_template = None
    refused(ArgumentError, lambda: align_pairs([pair], tokenizer=chatless, chat=True), "chat: .* no chat template")


def test_a_tokenizer_that_splits_as_it_likes(small, monkeypatch):
    pair = pair_of([segment("system", None, "ab"), segment("canonical", "c", "xy")], [segment("canonical", "c", "xy")])
    import moefps.pairing.aligning as module

    plain, calls = module.encode_segments, []

    def moody(tokenizer, segments):
        calls.append(1)
        encoded = plain(tokenizer, segments)
        if len(calls) == 2:
            encoded[-1].ids[0] += 1
        return encoded

    monkeypatch.setattr(module, "encode_segments", moody)
    refused(ArgumentError, lambda: align_pairs([pair], tokenizer=small), "task t", "other ids", "always splits")


def test_a_solution_without_a_token(small):
    from tokenizers import normalizers

    stripping = copy.deepcopy(small)
    stripping.backend_tokenizer.normalizer = normalizers.Strip()
    pair = pair_of(*[[segment("system", "s", "a"), segment("canonical", "canonical", "\n ")]] * 2)
    refused(DataError, lambda: align_pairs([pair], tokenizer=stripping), "task t: canonical_positions is empty")


def test_the_output_is_whole_or_not_there(tmp_path, small):
    out = tmp_path / "p.json"
    last = segment("canonical", "canonical", "x")
    pair = pair_of([last], [last])
    align_pairs([pair], tokenizer=small, output=out)
    before = out.read_bytes()
    refused(FileError, lambda: align_pairs([pair], tokenizer=small, output=out), "exists")
    refused(
        FileError, lambda: align_pairs([pair], tokenizer=small, output=tmp_path / "no" / "p.json"), "does not exist"
    )
    bad = pair_of([last], [segment("user_prompt", None, "long"), last])
    refused(
        DataError, lambda: align_pairs([pair, {**bad, "task_id": "u"}], tokenizer=small, output=out, overwrite=True)
    )
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["p.json"]
