"""All of HumanEval in trajectories as SWE-agent and tau-bench record them, through three real tokenizers.

Those agents solve other tasks, so a stub is put into one of their tool responses; stubs are written in every way that a
source can be.
"""

from __future__ import annotations

import copy
import json
import warnings

import numpy as np
import pytest

from moefps.pairing import align_pairs, build_pairs
from reference.pairing import docstrings

TOKENIZERS = ["demo", "qwen", "mistral"]
QUOTES = ['"""', "'''", 'r"""', "R'''", 'u"""']
OPENING, CLOSING = "<tool_response>\n", "\n</tool_response>\n"


def written(stub, number):
    """The stub with its docstring in one of the quoting styles, and one of five kinds of white space and text."""
    quote, style = QUOTES[number % len(QUOTES)], number // len(QUOTES) % 5
    head, mark, rest = stub.rpartition("def ")
    old = next((old for old in ('"""', "'''") if rest.count(old) == 2), None)
    if old is not None and quote[-3:] not in rest.replace(old, ""):
        before, doc, after = rest.split(old)
        rest = before + quote + doc + quote[-3:] + after
    stub = head + mark + rest
    if style == 1:
        stub = stub.replace("    ", "\t")
    if style == 2:
        stub = stub.replace("\n", "\r\n")
    if style == 3:
        stub = "# “Grüß Gott”, 世界 😀 e\u0301\n" + stub.replace("example", "Beispiel 😀 é")
    if style == 4:
        stub += '    "second"; \'世\' \\\n      "界"\n'
    return stub


def planted(messages, stub, number):
    """A trajectory that shows the stub: once or more, in the system prompt too, beside an empty response."""
    messages = copy.deepcopy(messages)
    answers = [message for message in messages if message["role"] == "tool"]
    first = number % len(answers)
    for answer in answers[first :: 2 + number % 2]:
        text = answer["content"] or ""
        cut = number * 37 % (len(text) + 1)
        answer["content"] = text[:cut] + stub * (1 + number % 2) + text[cut:]
    if number % 3 == 0:
        answers[first - 1]["content"] = answers[first - 1]["content"] if len(answers) == 1 else ""
    if number % 4 == 0:
        messages[0]["content"] = stub + messages[0]["content"]
    return messages


@pytest.fixture(scope="module")
def shapes(humaneval, problems):
    """Problems and trajectories of all tasks: each in the shape of SWE-agent, and in that of tau-bench."""
    data = humaneval.parents[1]
    if not (data / "sweagent").is_dir() or not (data / "taubench").is_dir():
        pytest.skip("the trajectories of SWE-agent and tau-bench are not beside the checkout")
    history = json.loads((data / "sweagent" / "function_calling_1.traj").read_text(encoding="utf-8"))["history"]
    runs = json.loads((data / "taubench" / "taubench_gpt-4o-airline.json").read_text(encoding="utf-8"))
    runs = [run for run in runs if sum(turn["role"] == "tool" for turn in run["traj"]) > 1]
    runs = sorted(runs, key=lambda run: len(json.dumps(run["traj"])))[:12]
    rows = [{**problem, "prompt": written(problem["prompt"], i)} for i, problem in enumerate(problems)]
    swe = [{"task_id": row["task_id"], "messages": planted(history, row["prompt"], i)} for i, row in enumerate(rows)]
    tau = [
        {**runs[i % len(runs)], "task_id": i, "traj": planted(runs[i % len(runs)]["traj"], row["prompt"], i)}
        for i, row in enumerate(rows)
    ]
    return rows, {"swe": swe, "tau": tau}


def build(shapes, chosen):
    """Pairs, problems and runs of the tasks chosen: numbers to shapes."""
    problems, runs = shapes
    rows = [problems[i] if shape == "swe" else {**problems[i], "task_id": str(i)} for i, shape in chosen.items()]
    taken = [runs[shape][i] for i, shape in chosen.items()]
    built = build_pairs(rows, trajectories=taken)
    assert len(built) == len(rows)
    assert (built.left_out, built.unused, built.canonical_only) == ({}, {}, ())
    return built, rows, taken


def check_texts(pair, messages, row):
    """The texts of a trajectory are all there; the stub's key is at its first place in the first response with it."""
    stub = row["prompt"]
    answers = [message["content"] for message in messages if message["role"] == "tool"]
    first = next(i for i, text in enumerate(answers) if stub in text)
    wrapped = [OPENING + text + CLOSING for text in answers]
    responses = [segment for segment in pair.agentic if segment.kind == "tool_response"]
    assert "".join(segment.text for segment in responses) == "".join(wrapped)
    [at] = [i for i, segment in enumerate(responses) if segment.key == "stub"]
    start = len("".join(segment.text for segment in responses[:at]))
    assert start == len("".join(wrapped[:first]) + OPENING) + answers[first].find(stub)
    spans = docstrings(stub)
    assert spans
    for segment in (responses[at], pair.assisted[1]):
        assert segment.text == stub
        assert [tuple(span) for span in segment.docstrings] == spans
    for side in (pair.agentic, pair.assisted):
        assert side[-1].text == row["canonical_solution"]


def check_tokens(task, tokenizer, row):
    """Everything that paired.md says of a task of the file, from its lists alone."""
    agentic, assisted = np.array(task["agentic_ids"]), np.array(task["assisted_aligned_ids"])
    mask = np.array(task["assisted_aligned_attention_mask"])
    assert len(agentic) == len(assisted) == len(mask)
    assert (assisted[mask == 0] == tokenizer.pad_token_id).all()
    edges = [start for _, _, start, _ in task["segments"]] + [len(agentic)]
    assert edges == [0] + [end for _, _, _, end in task["segments"]]
    assert (np.diff(edges) > 0).all()
    kinds = np.repeat([kind for kind, *_ in task["segments"]], np.diff(edges))
    is_shared = np.repeat([key is not None for _, key, *_ in task["segments"]], np.diff(edges))
    assert (mask[is_shared] == 1).all()
    assert (agentic[is_shared] == assisted[is_shared]).all()
    assert [key for _, key, *_ in task["segments"] if key] == ["stub", "canonical"]
    # Its own words stand right before what is shared.
    for start in np.flatnonzero(np.diff(np.append(0, is_shared)) == 1):
        gap = np.flatnonzero(is_shared[:start])[-1] + 1 if is_shared[:start].any() else 0
        assert (np.diff(mask[gap:start]) >= 0).all()
    for part, kind in {"schema": "tool_schema", "call": "tool_call", "response": "tool_response"}.items():
        assert task["tool_positions"][part] == np.flatnonzero(kinds == kind).tolist()
    assert task["canonical_positions"] == np.flatnonzero(kinds == "canonical").tolist()
    stub, body = row["prompt"], row["canonical_solution"]
    for key, text, spans in (("stub", stub, docstrings(stub)), ("canonical", body, [])):
        [(start, end)] = [(start, end) for _, name, start, end in task["segments"] if name == key]
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        assert agentic[start:end].tolist() == encoded["input_ids"]
        offsets = list(enumerate(encoded["offset_mapping"], start))
        inked = [i for i, (a, b) in offsets if text[a:b].strip()]
        assert key == "stub" or task["canonical_non_ws_positions"] == inked
        inside = [i for i, (a, b) in offsets if any(a < to and since < b for since, to in spans)]
        response = task["tool_positions"]["response_docstring"]
        assert [i for i in response if start <= i < end] == inside
    parts = task["tool_positions"]["response_docstring"] + task["tool_positions"]["response_non_docstring"]
    assert sorted(parts) == task["tool_positions"]["response"]


# Every problem is in either shape, with every tokenizer; through the chat template every third, in the other shape.
PLAIN = {i: ("swe", "tau")[i % 2] for i in range(164)}
CHAT = {i: ("tau", "swe")[i % 2] for i in range(0, 164, 3)}


@pytest.mark.parametrize("chosen", [PLAIN, CHAT], ids=["plain", "chat"])
def test_texts_in_the_shape_of_real_trajectories(shapes, chosen):
    built, rows, runs = build(shapes, chosen)
    for pair, row, run in zip(built, rows, runs, strict=True):
        check_texts(pair, run.get("messages", run.get("traj")), row)


@pytest.mark.parametrize("tokenizer", TOKENIZERS, indirect=True)
@pytest.mark.parametrize("chosen", [PLAIN, CHAT], ids=["plain", "chat"])
def test_tokens_in_the_shape_of_real_trajectories(tmp_path, shapes, tokenizer, chosen):
    built, rows, _ = build(shapes, chosen)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        align_pairs(built, tokenizer=tokenizer, chat=chosen is CHAT, output=tmp_path / "p.json")
    tasks = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    assert [task["task_id"] for task in tasks] == [row["task_id"] for row in rows]
    for task, row in zip(tasks, rows, strict=True):
        check_tokens(task, tokenizer, row)
