"""`build_pairs`: what stands in both conditions of a problem, and what becomes of the others."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moefps import DataError, FileError
from moefps.pairing import build_pairs, read_pairs
from pairing.own_trajectories import BODY, PROBLEM, STUB, run, tool
from support import refused


def texts(segments, kind=None):
    return [(segment.key, segment.text) for segment in segments if kind in {None, segment.kind}]


def whole(segments):
    return "".join(segment.text for segment in segments)


def test_the_template():
    [pair] = build_pairs([PROBLEM], template=True)
    kinds = [segment.kind for segment in pair.agentic]
    tool_response = ["tool_response"] * 3
    assert kinds == ["system", "tool_schema", "user_prompt", "assistant", "tool_call", *tool_response, "canonical"]
    assert texts(pair.agentic, "tool_response") == [
        (None, "<tool_response>\n"),
        ("stub", STUB),
        (None, "\n</tool_response>\n"),
    ]
    assert [(segment.kind, segment.key) for segment in pair.assisted] == [
        ("user_prompt", None),
        ("user_prompt", "stub"),
        ("canonical", "canonical"),
    ]
    assert whole(pair.assisted).endswith(STUB + BODY)
    assert pair.agentic[-1].text == pair.assisted[-1].text == BODY
    for segment in (pair.agentic[6], pair.assisted[1]):
        assert [segment.text[a:b] for a, b in segment.docstrings] == ['"""Doc."""']
    assert pair.agentic[-1].docstrings == ()
    assert pair.agentic[0].docstrings is None


@given(
    before=st.text("ab\n\t é", max_size=5),
    after=st.lists(st.sampled_from([STUB, "x", "\n", "世"]), max_size=4),
    later=st.lists(st.sampled_from([STUB, STUB + STUB, "", "no"]), max_size=2),
)
def test_the_first_verbatim_stub_of_the_first_response_that_shows_it(before, after, later):
    content = before + STUB + "".join(after)
    [pair] = build_pairs([PROBLEM], trajectories=[run(tool("nothing"), tool(content), *map(tool, later))])
    keyed = [i for i, segment in enumerate(pair.agentic) if segment.key == "stub"]
    assert len(keyed) == 1
    assert pair.agentic[keyed[0]].text == STUB
    responses = "".join(f"<tool_response>\n{text}\n</tool_response>\n" for text in ["nothing", content, *later])
    assert whole(pair.agentic) == "Go.\n" + responses + BODY
    first = len("Go.\n<tool_response>\nnothing\n</tool_response>\n<tool_response>\n" + before)
    assert len(whole(pair.agentic[: keyed[0]])) == first
    assert all(segment.text for segment in pair.agentic)


def test_a_listing_with_numbers_is_compared_on_the_solution_only():
    numbered = "".join(f"{i}: {line}\n" for i, line in enumerate(STUB.splitlines(), start=1))
    built = build_pairs([PROBLEM], trajectories=[run(tool(numbered), {"role": "assistant", "content": STUB})])
    assert built.canonical_only == ("t",)
    assert [segment.key for segment in built[0].agentic if segment.key] == ["canonical"]
    assert [segment.key for segment in built[0].assisted] == [None, None, "canonical"]


@pytest.mark.parametrize("line_end", ["\r\n", "\n"])
@pytest.mark.parametrize("doc", ['"d"', "'''d\n\te'''", 'r"""\\d “世😀”"""', 'u"d"'])
@pytest.mark.parametrize("indent", ["\t", "    "])
def test_the_stub_as_it_is(line_end, doc, indent):
    stub = f"def f():\n{indent}import os\n{indent}{doc}\n".replace("\n", line_end)
    problem = {"task_id": "t", "prompt": stub, "canonical_solution": f'{indent}"own"{line_end}{indent}return 1'}
    [pair] = build_pairs([problem], trajectories=[run(tool(f"[é]\r\n{stub}\r\nbash-$"))])
    for segment in (next(s for s in pair.agentic if s.key == "stub"), pair.assisted[1]):
        assert segment.text == stub
        assert [segment.text[a:b] for a, b in segment.docstrings] == [doc.replace("\n", line_end)]
    assert [pair.agentic[-1].text[a:b] for a, b in pair.agentic[-1].docstrings] == ['"own"']


def test_a_stub_that_does_not_parse_has_no_docstring():
    [pair] = build_pairs([{**PROBLEM, "prompt": 'def f(:\n    "no"\n'}], template=True)
    assert pair.assisted[1].docstrings == ()


def test_docstrings_of_other_python_in_a_response():
    other = 'def g():\n    "Other."\n'
    [pair] = build_pairs([PROBLEM], trajectories=[run(tool(other + STUB + "    pass\n"), tool('"json"'), tool(other))])
    found = [
        segment.text[a:b]
        for segment in pair.agentic
        if segment.kind == "tool_response"
        for a, b in segment.docstrings or ()
    ]
    assert found == ['"Other."', '"""Doc."""', '"Other."']


def test_responses_are_wrapped_once():
    once = ["<tool_response>\nA\n</tool_response>", "<tool_response>A</tool_response>\n", "A"]
    for content in once:
        [pair] = build_pairs([PROBLEM], trajectories=[run(tool(content))])
        assert whole(s for s in pair.agentic if s.kind == "tool_response") == "<tool_response>\nA\n</tool_response>\n"
    # Several answers in one message are several responses, and an empty one is one.
    for content in (once[0] + once[0], once[1] + " \r\n" + once[0] + "\n"):
        [pair] = build_pairs([PROBLEM], trajectories=[run(tool(""), tool(content))])
        response = whole(s for s in pair.agentic if s.kind == "tool_response")
        assert response == "<tool_response>\n\n</tool_response>\n" + "<tool_response>\nA\n</tool_response>\n" * 2
    # Tags inside a text are part of it.
    for content in (
        "see <tool_response>A</tool_response>",
        "<tool_response>A",
        "A</tool_response>",
        "</tool_response>",
    ):
        [pair] = build_pairs([PROBLEM], trajectories=[run(tool(content))])
        response = whole(s for s in pair.agentic if s.kind == "tool_response")
        assert response == f"<tool_response>\n{content}\n</tool_response>\n"


@pytest.mark.parametrize("stub", [STUB, "\n\n" + STUB, STUB.replace("\n", "\r\n"), "def f(): ..."])
@pytest.mark.parametrize("line_break", ["", "\n", "\r\n"])
def test_a_stub_right_beside_the_tags(stub, line_break):
    """A line break may be the stub's own or go with the tags; the stub is found, and stays as it is."""
    problem = {**PROBLEM, "prompt": stub}
    answer = f"<tool_response>{line_break}{stub}{line_break}</tool_response>"
    for content in (answer, "<tool_response>no</tool_response>\n" + answer):
        built = build_pairs([problem], trajectories=[run(tool(content))])
        assert not built.canonical_only
        response = [s for s in built[0].agentic if s.kind == "tool_response"][-3:]
        assert texts(response) == [(None, "<tool_response>\n"), ("stub", stub), (None, "\n</tool_response>\n")]


def test_calls_schema_and_parts():
    call = {"type": "function", "function": {"name": "cat", "arguments": '{"path":  "a"}'}}
    messages = [
        {"role": "developer", "content": "S"},
        {"role": "user", "content": [{"type": "text", "text": "U"}, {"type": "text", "text": "2\n"}]},
        {"role": "assistant", "content": None, "tool_calls": [call, {"function": {"name": "ls"}}]},
        {"role": "function", "content": None},
        {"role": "assistant", "content": "A", "function_call": {"name": "x", "arguments": {"é": 1}}},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "y", "arguments": "not json"}}]},
    ]
    tools = [{"type": "function", "function": {"name": "cat"}}]
    [pair] = build_pairs([PROBLEM], trajectories=[{"task_id": "t", "messages": messages, "tools": tools}])
    assert [(segment.kind, segment.text) for segment in pair.agentic[:-1]] == [
        ("system", "S\n"),
        ("tool_schema", '<tools>\n{"type": "function", "function": {"name": "cat"}}\n</tools>\n'),
        ("user_prompt", "U2\n"),
        ("tool_call", '<tool_call>\n{"name": "cat", "arguments": {"path":  "a"}}\n</tool_call>\n'),
        ("tool_call", '<tool_call>\n{"name": "ls", "arguments": {}}\n</tool_call>\n'),
        ("tool_response", "<tool_response>\n"),
        ("tool_response", "\n</tool_response>\n"),
        ("assistant", "A\n"),
        ("tool_call", '<tool_call>\n{"name": "x", "arguments": {"é": 1}}\n</tool_call>\n'),
        ("tool_call", '<tool_call>\n{"name": "y", "arguments": "not json"}\n</tool_call>\n'),
    ]
    [pair] = build_pairs([PROBLEM], trajectories=[{"task_id": "t", "messages": messages[1:], "tools": tools}])
    assert [segment.kind for segment in pair.agentic[:2]] == ["tool_schema", "user_prompt"]


def test_what_an_assistant_thought_and_refused():
    thought = {"type": "thinking", "thinking": "Hm."}
    messages = [
        {"role": "assistant", "content": "A", "reasoning_content": "Hm.", "reasoning": "Hm."},
        {"role": "assistant", "content": [thought, {"type": "text", "text": "B"}, {"type": "refusal", "refusal": "C"}]},
        {"role": "assistant", "content": [thought]},
        {"role": "assistant", "content": None, "refusal": "D"},
        {"role": "tool", "content": [{"type": "text", "text": "e\n"}, {"type": "text", "text": STUB}, "f"]},
    ]
    [pair] = build_pairs([PROBLEM], trajectories=[{"task_id": "t", "messages": messages}])
    said = [("A\n", None), ("BC\n", None), ("D\n", None), ("<tool_response>\n", None), ("e\n", None)]
    said += [(STUB, "stub"), ("f", None), ("\n</tool_response>\n", None), (BODY, "canonical")]
    assert [(segment.text, segment.key) for segment in pair.agentic] == said


def test_only_a_response_shows_the_stub():
    """Elsewhere it is ordinary text: in a system prompt, in words of the user and the assistant, in a call."""
    call = {"function": {"name": "write", "arguments": {"text": STUB}}}
    messages = [
        {"role": "system", "content": STUB},
        {"role": "user", "content": [STUB, STUB]},
        {"role": "assistant", "content": STUB, "tool_calls": [call]},
    ]
    built = build_pairs([PROBLEM], trajectories=[{"task_id": "t", "messages": messages}])
    assert built.canonical_only == ("t",)
    assert [s.key for side in ("agentic", "assisted") for s in built[0].segments(side) if s.key] == ["canonical"] * 2
    assert [s.text for s in built[0].agentic if s.kind == "system"] == [STUB]
    # A response without a call before it is one all the same; what comes after the last one stays before the solution.
    messages += [tool(f"{STUB[:-1]} # no\n{STUB}"), {"role": "user", "content": "and?"}]
    messages += [{"role": "assistant", "content": "So."}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    built = build_pairs([PROBLEM], trajectories=[{"task_id": "t", "messages": messages}])
    assert not built.canonical_only
    kinds = [segment.kind for segment in built[0].agentic]
    tail = ["tool_response"] * 4 + ["user_prompt", "assistant", "tool_call", "canonical"]
    assert kinds == ["system", "user_prompt", "assistant", "tool_call", *tail]
    assert built[0].agentic[5].text == STUB[:-1] + " # no\n"


@pytest.mark.parametrize(
    "listing",
    [
        "".join(f"{number}:{line}\n" for number, line in enumerate(STUB.splitlines(), 1)),
        "".join(f"     {number}\t{line}\n" for number, line in enumerate(STUB.splitlines(), 1)),
        STUB.replace("\n", "\r\n"),
        STUB.replace("    ", "\t"),
        STUB.rstrip(),
        json.dumps(STUB),
    ],
)
def test_a_listing_that_is_not_verbatim(listing):
    built = build_pairs([PROBLEM], trajectories=[run(tool(f"[File]\n{listing}"))])
    assert built.canonical_only == ("t",)
    assert whole(built[0].assisted).endswith(STUB + BODY)
    assert [s.key for s in built[0].assisted] == [None, None, "canonical"]


def test_what_ships(own):
    """All three kinds of file at once; who is left out is named, and why."""
    files = [own / name for name in ("openai.jsonl", "own_1.traj", "taubench.json")]
    built = build_pairs(own / "problems.jsonl", trajectories=files)
    assert [pair.task_id for pair in built] == ["own/0", "own/1", "2"]
    assert built.canonical_only == ("2",)
    assert set(built.left_out) == {"own/3", "own/4", "own/5"}
    assert built.left_out["own/3"] == "has no trajectory"
    assert built.left_out["own/4"] == "has no canonical_solution"
    assert built.left_out["own/5"].endswith("openai.jsonl, line 2 (task own/5): the role of message 2 is 'robot'")
    assert [reason for name, reason in built.unused.items() if "own/9" in name] == ["no problem has its task, own/9"]
    assert [name.split(", ")[1:] for name in built.unused if "taubench" in name] == [["entry 0 (task 2", "trial 1)"]]
    documents = [s.text[a:b] for s in built[0].agentic if s.kind == "tool_response" for a, b in s.docstrings or ()]
    area = '"""Give the area of a rectangle."""'
    assert documents == [area, '"""Another docstring."""', area, area]
    assert [s.text for s in built[0].agentic if s.kind == "tool_response"][:2] == [
        "<tool_response>\n",
        "\n</tool_response>\n",
    ]


def test_written_and_read_again(tmp_path, own):
    out = tmp_path / "pairs.jsonl"
    built = build_pairs(own / "problems.jsonl", template=True, output=out)
    found, name = read_pairs(out)
    assert name == str(out)
    assert tuple(found) == built.pairs
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert set(rows[0]) == {"task_id", "agentic", "assisted"}
    assert rows[0]["assisted"][0].keys() == {"kind", "key", "text"}
    assert rows[0]["assisted"][1]["docstrings"] == [[29, 64]]
    before = out.read_bytes()
    refused(FileError, lambda: build_pairs(own / "problems.jsonl", template=True, output=out), "exists", "--overwrite")
    refused(
        DataError, lambda: build_pairs([{**PROBLEM, "prompt": ""}], template=True, output=out, overwrite=True), "t "
    )
    assert out.read_bytes() == before
    build_pairs([PROBLEM], template=True, output=out, overwrite=True)
    assert len(out.read_text().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.jsonl"]


def test_compressed_or_not(tmp_path):
    line = json.dumps(PROBLEM) + "\n\n"
    (tmp_path / "p.jsonl").write_text(line)
    (tmp_path / "p.jsonl.gz").write_bytes(gzip.compress(line.encode()))
    (tmp_path / "r.jsonl.gz").write_bytes(gzip.compress(json.dumps(run(tool(STUB))).encode()))
    plain = build_pairs(tmp_path / "p.jsonl", template=True)
    packed = build_pairs(str(tmp_path / "p.jsonl.gz"), template=True)
    assert plain.pairs == packed.pairs
    assert build_pairs(tmp_path / "p.jsonl", trajectories=tmp_path / "r.jsonl.gz").canonical_only == ()


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gz"])
def test_files_as_editors_write_them(tmp_path, pack):
    """A byte order mark, lines ending in two characters, empty ones, no line break at the end; numbers as names."""
    problems = [{**PROBLEM, "task_id": 7}, {**PROBLEM, "task_id": "é 世"}]
    rows = [{**run(tool(STUB)), "task_id": "7"}, {**run(tool(STUB)), "task_id": "é 世"}]

    def lines(rows):
        return pack(b"\xef\xbb\xbf\r\n" + b"\r\n \r\n".join(json.dumps(row).encode() for row in rows))

    (tmp_path / "p").write_bytes(lines(problems))
    (tmp_path / "r").write_bytes(lines(rows))
    (tmp_path / "7.traj").write_bytes(pack(b"\xef\xbb\xbf" + json.dumps({"history": rows[0]["messages"]}).encode()))
    (tmp_path / "t").write_bytes(
        pack(json.dumps([{"task_id": 7, "trial": 0, "traj": rows[0]["messages"]}], indent=1).encode())
    )
    for names, built_of in ((["r"], ["7", "é 世"]), (["7.traj"], ["7"]), (["t"], ["7"])):
        built = build_pairs(tmp_path / "p", trajectories=[tmp_path / name for name in names])
        assert [pair.task_id for pair in built] == built_of
        assert not built.canonical_only
    (tmp_path / "p").write_bytes(lines([*problems, {**PROBLEM, "task_id": "7"}]))
    refused(DataError, lambda: build_pairs(tmp_path / "p", template=True), "line 6: task 7 is there twice")


def test_the_lowest_trial():
    def trial(number, text):
        return {"task_id": 7, "trial": number, "traj": [{"role": "user", "content": text}]}

    rows = [trial(2, "c"), trial(0, "a"), trial(1, "b"), {"task_id": 7, "trial": "x", "traj": []}]
    built = build_pairs([{**PROBLEM, "task_id": "7"}], trajectories=rows[:3])
    assert built[0].agentic[0].text == "a\n"
    assert len(built.unused) == 2
    built = build_pairs([{**PROBLEM, "task_id": 7}], trajectories=rows[3:] + rows[:1])
    assert built[0].agentic[0].text == "c\n"
    assert built.unused == {"trajectories[0]": "the trial of task 7 is no number"}
