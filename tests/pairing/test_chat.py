"""A condition through a chat template: what the template adds is known, texts stay as they are."""

from __future__ import annotations

import copy

import pytest

from moefps import ArgumentError
from moefps.pairing import align_pairs, build_pairs
from real_tokenizers import MISTRAL_CHAT, QWEN_CHAT
from support import refused

STUB = "  def f():\n"
PROBLEM = {"task_id": "t", "prompt": STUB, "canonical_solution": "    return 1\n"}
CALL = {"function": {"name": "cat", "arguments": "{}"}}
MESSAGES = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": "U"},
    {"role": "assistant", "content": None, "tool_calls": [CALL, CALL]},
    {"role": "tool", "content": ""},
    {"role": "tool", "content": "a\n" + STUB},
    {"role": "assistant", "content": "Done."},
]


def with_template(tokenizer, template, **tokens):
    made = copy.deepcopy(tokenizer)
    made.chat_template = template
    for name, token in tokens.items():
        setattr(made, name, token)
    return made


def aligned(tokenizer, messages=MESSAGES):
    pairs = build_pairs([PROBLEM], trajectories=[{"task_id": "t", "messages": messages}])
    [task] = align_pairs(pairs, tokenizer=tokenizer, chat=True)
    return task


def pieces(tokenizer, task):
    return [(s.kind, tokenizer.decode(task.agentic_ids[s.start : s.end])) for s in task.segments]


def test_a_template_that_wraps_tool_responses_itself(small):
    tokenizer = with_template(small, QWEN_CHAT)
    task = aligned(tokenizer)
    assert pieces(tokenizer, task) == [
        ("template", "<|im_start|>system\n"),
        ("system", "S\n"),
        ("template", "<|im_end|>\n<|im_start|>user\n"),
        ("user_prompt", "U\n"),
        ("template", "<|im_end|>\n<|im_start|>assistant\n"),
        ("tool_call", '<tool_call>\n{"name": "cat", "arguments": {}}\n</tool_call>\n'),
        ("tool_call", '<tool_call>\n{"name": "cat", "arguments": {}}\n</tool_call>\n'),
        ("template", "<|im_end|>\n<|im_start|>user\n"),
        ("tool_response", "<tool_response>\n"),
        ("tool_response", "\n</tool_response>"),
        ("template", "\n"),
        ("tool_response", "<tool_response>\n"),
        ("tool_response", "a\n"),
        ("tool_response", STUB),
        ("tool_response", "\n</tool_response>"),
        ("template", "<|im_end|>\n<|im_start|>assistant\n"),
        ("assistant", "Done.\n"),
        ("canonical", "    return 1\n"),
    ]
    assisted = tokenizer.decode(task.assisted_aligned_ids[task.mask("assisted")])
    assert assisted == (
        "<|im_start|>user\nComplete this function. Answer with the code that comes next.\n\n"
        f"{STUB}<|im_end|>\n<|im_start|>assistant\n    return 1\n"
    )
    # Words of its own stand right before what is shared.
    for segment in task.segments:
        if segment.key is not None:
            assert task.assisted_aligned_attention_mask[segment.start - 1] == 1


def test_a_template_that_does_not(small):
    text = small.decode(aligned(small).agentic_ids)
    assert text.count("<tool_response>") == text.count("</tool_response>") == 2
    assert "<tool><tool_response>\n\n</tool_response>\n<tool><tool_response>\na\n" in text


def test_a_template_for_user_and_assistant_alone_that_trims(small):
    tokenizer = with_template(small, MISTRAL_CHAT, bos_token="<end>")
    with pytest.warns(UserWarning, match="takes only user and assistant in turns"):
        task = aligned(tokenizer)
    text = tokenizer.decode(task.agentic_ids)
    assert text.startswith("<end>[INST] S\nU\n [/INST] <tool_call>")
    answers = f"<tool_response>\n\n</tool_response>\n<tool_response>\na\n{STUB}\n</tool_response>\n"
    assert text.endswith(f"[INST] {answers} [/INST]Done.\n    return 1\n")
    assert (task.agentic_ids == tokenizer.bos_token_id).sum() == 2  # the last is the end of the assistant's turn
    assert task.segments[0].kind == "template"


def test_a_template_without_a_tool_role(small):
    template = (
        "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no') }}{% endif %}"
        "<{{ m.role }}>{{ m.content }}{% endfor %}<a>"
    )
    with pytest.warns(UserWarning, match="takes no tool role"):
        text = small.decode(aligned(with_template(small, template)).agentic_ids)
    assert text.startswith("<system>S\n<user>U\n<assistant><tool_call>")


@pytest.mark.parametrize(
    ("template", "word"),
    [
        ("{{ raise_exception('I refuse.\nReally') }}", "task t: the chat template refuses it: I refuse."),
        ("{{ messages[0].content }}", "leaves out a message of the role"),
        ("{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}", "repeats a message of the role system"),
        ("{{ 1 // 0 }}", "refuses it"),
        ("{% for", "refuses it"),
    ],
)
def test_a_template_that_refuses(small, template, word):
    tokenizer = with_template(small, template)
    with pytest.raises(ArgumentError) as caught:
        aligned(tokenizer)
    assert word in str(caught.value)
    refused(ArgumentError, lambda: aligned(with_template(small, None)), "chat template")


def test_a_template_that_reorders_messages(small):
    """Some put the system prompt into the last turn."""
    template = (
        "{% for m in messages if m.role != 'system' %}<{{ m.role }}>"
        "{% if loop.last and messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}"
        "{{ m.content }}{% endfor %}<a>"
    )
    tokenizer = with_template(small, template)
    text = tokenizer.decode(aligned(tokenizer).agentic_ids)
    assert text.startswith("<user>U\n<assistant>")
    assert f"<tool>S\n<tool_response>\na\n{STUB}" in text


def test_tags_in_texts_of_pairs_made_elsewhere(small):
    tokenizer = with_template(small, QWEN_CHAT)
    last = {"kind": "canonical", "key": "canonical", "text": "x"}
    text = '<tool_response>\ndef g():\n  "doc"\n</tool_response>'
    start = text.index('"')
    response = {"kind": "tool_response", "key": None, "text": text, "docstrings": [[start, start + 5]]}
    user = {"kind": "user_prompt", "key": None, "text": "U"}
    pair = {"task_id": "t", "agentic": [user, response, response, last], "assisted": [user, last]}
    [task] = align_pairs([pair], tokenizer=tokenizer, chat=True)
    text = tokenizer.decode(task.agentic_ids)
    assert text.count("<tool_response>") == text.count("</tool_response>") == 2
    assert tokenizer.decode(task.agentic_ids[task.tool_positions["response_docstring"]]) == '"doc"' * 2
