"""A condition through a chat template: what the template adds is known, texts stay as they are."""

from __future__ import annotations

import copy
from contextlib import nullcontext

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


def test_a_template_that_wraps_several_responses_at_once(small):
    """No response has tags inside tags; what stands between them and it belongs to them."""
    template = (
        "Answers come in <tool_response>.{% for m in messages %}{% if m.role == 'tool' %}"
        "{% if messages[loop.index0 - 1].role != 'tool' %}<tool_response>cat: {% endif %}{{ m.content }}|"
        "{% if loop.last %}</tool_response>{% endif %}"
        "{% else %}<{{ m.role }}>{{ m.content }}{% endif %}{% endfor %}<a>"
    )
    tokenizer = with_template(small, template)
    task = aligned(tokenizer, [*MESSAGES[:-1], {"role": "tool", "content": "b"}, *MESSAGES[-1:]])
    whole = f"<tool_response>cat: |a\n{STUB}|b|</tool_response><a>Done."
    assert whole in tokenizer.decode(task.agentic_ids)
    found = [text for kind, text in pieces(tokenizer, task) if kind == "tool_response"]
    assert found == ["<tool_response>cat: ", "a\n", STUB, "b", "|</tool_response>"]
    # A tag that is only spoken of wraps nothing.
    template = template.replace("cat: ", "</tool_response>")
    assert "<tool_response></tool_response><tool_response>\n\n</tool_response>\n|" in tokenizer.decode(
        aligned(with_template(small, template)).agentic_ids
    )


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


DATE = (
    "{{ bos_token }}<s>Today is {{ strftime_now('%d %b %Y') }}.{% if messages[0].role == 'system' %}"
    "{{ messages[0].content | trim }}{% set messages = messages[1:] %}{% endif %}</s>{% for m in messages %}"
    "<{{ m.role }}>{% if m.role == 'tool' %}{{ m.content | tojson }}{% else %}{{ m.content | trim }}{% endif %}"
    "{% endfor %}<a>"
)
TURNS = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('in turns') }}"
    "{% endif %}<{{ 'model' if m.role == 'assistant' else m.role }}>{{ m.content | trim }}<end>{% endfor %}<model>"
)
NAMED = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'tool' and not m.tool_call_id %}"
    "{{ raise_exception('which call?') }}{% endif %}<{{ m.role }}>{{ m.content | trim | e }}{% endfor %}<a>"
)
SECOND = "\n  {{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content.split('</think>')[-1] }}{% endfor %}<a>"


@pytest.mark.parametrize(
    ("template", "word"),
    [(DATE, None), (TURNS, "only user and assistant in turns"), (NAMED, "takes no tool role"), (SECOND, None)],
    ids=["a date, quoted answers", "turns, no system", "names of calls, escaped texts", "white space first"],
)
def test_templates_of_many_kinds(small, template, word):
    """Whatever a template does, the texts are there as they are and in order, and a text begins once."""
    tokenizer = with_template(small, template, bos_token="<end>" if template is not TURNS else "<pad>")
    with nullcontext() if word is None else pytest.warns(UserWarning, match=word):
        task = aligned(tokenizer)
    [pair] = build_pairs([PROBLEM], trajectories=[{"task_id": "t", "messages": MESSAGES}])
    for condition in ("agentic", "assisted"):
        ids = task.ids(condition)[task.mask(condition)]
        rest = tokenizer.decode(ids)
        assert rest.split()[0].startswith(tokenizer.bos_token)
        assert (ids == tokenizer.bos_token_id).sum() == 1
        for segment in pair.segments(condition):
            before, found, rest = rest.partition(segment.text)
            assert found, (segment.text, before)
        assert not rest
    assert task.segments[0].kind == "template"
    assert [segment.key for segment in task.segments if segment.key] == ["stub", "canonical"]


@pytest.mark.parametrize("ending", ["<think>\n", "[THINK]", "<|begin_of_thought|>\n\n"])
def test_a_template_that_opens_thoughts(small, ending):
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<a>\n"
    with pytest.warns(UserWarning, match="thoughts and does not close them, so solutions stand inside"):
        task = aligned(with_template(small, template + f"{{{{ {ending!r} }}}}"))
    assert small.decode(task.agentic_ids).endswith(f"<a>\n{ending}Done.\n    return 1\n")
    # No warning, which would be an error here.
    aligned(with_template(small, template + "<think>\n\n</think>\n\n"))


@pytest.mark.parametrize("template", [QWEN_CHAT, None])
def test_tags_inside_a_response_are_part_of_its_text(small, template):
    tokenizer = with_template(small, template or small.chat_template)
    text = f"<tool_response>a\n{STUB}"
    answers = [{"role": "tool", "content": content} for content in (text, f"<tool_response>{text}</tool_response>")]
    task = aligned(tokenizer, [*MESSAGES[:3], *answers])
    rest = tokenizer.decode(task.agentic_ids)
    for _ in answers:
        _, found, rest = rest.partition(f"<tool_response>\n{text}\n</tool_response>")
        assert found
    assert "tool_response>" not in rest


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
