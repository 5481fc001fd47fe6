"""`build_pairs`: trajectories, problems and pairs that are not what they must be."""

from __future__ import annotations

import json

import pytest

from moefps import ArgumentError, DataError, FileError
from moefps.pairing import align_pairs, build_pairs, read_pairs
from pairing.own_trajectories import PROBLEM, STUB, run, tool
from support import refused


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": None}, "has no list of messages"),
        ({"messages": []}, "has no message"),
        ({"messages": ["hi"]}, "message 1 is no object"),
        ({"messages": [{"content": "x"}]}, "role of message 1 is missing"),
        ({"messages": [{"role": "user", "content": 3}]}, "content of message 1 is no text"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "no text, but 'image_url'"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "message 1 holds half of a surrogate pair"),
        ({"messages": [{"role": "assistant", "tool_calls": {}}]}, "tool_calls of message 1 is no list"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]}, "no function with a name"),
        ({"messages": [{"role": "user", "content": "x"}], "tools": [1]}, "tools is no list of objects"),
        ({"messages": [{"role": "user", "content": "x"}], "tools": [{"a": float("nan")}]}, "what JSON cannot"),
    ],
)
def test_a_malformed_trajectory_is_named_and_the_others_go_on(row, reason):
    problems = [PROBLEM, {**PROBLEM, "task_id": "u"}]
    built = build_pairs(problems, trajectories=[{"task_id": "t", **row}, {**run(tool(STUB)), "task_id": "u"}])
    assert [pair.task_id for pair in built] == ["u"]
    assert reason in built.left_out["t"]
    # Another one of the same task is taken in its place.
    built = build_pairs([PROBLEM], trajectories=[{"task_id": "t", **row}, run(tool(STUB))])
    assert reason in built.unused["a trajectory of task t"]
    assert not built.left_out


def test_a_file_that_is_no_trajectory_is_named(tmp_path):
    good = tmp_path / "t.traj"
    good.write_text(json.dumps({"history": run(tool(STUB))["messages"]}))
    broken = {
        "u.traj": "{",
        "v.traj": '{"trajectory": []}',
        "a.json": "",
        "b.jsonl": '{"x": 1}\nnope\n[]\n',
        "c.json": "3",
    }
    for name, content in broken.items():
        (tmp_path / name).write_text(content)
    problems = [{**PROBLEM, "task_id": name} for name in "tuv"]
    built = build_pairs(problems, trajectories=[tmp_path / name for name in broken] + [good])
    assert [pair.task_id for pair in built] == ["t"]
    assert built.left_out["u"].endswith("u.traj: is not JSON")
    assert built.left_out["v"].endswith("v.traj: has no history, SWE-agent's list of messages")
    shown = {name.rpartition("/")[2].rpartition("\\")[2]: reason for name, reason in built.unused.items()}
    assert shown == {
        "a.json": "the file is empty",
        "b.jsonl, line 1": "has no task_id",
        "b.jsonl, line 2": "is not JSON",
        "b.jsonl, line 3": "is no object",
        "c.json, line 1": "is no object",
    }


def test_names_of_files_that_cannot_hold_a_task(tmp_path):
    names = ["HumanEval_0.traj", "HumanEval-1.traj", "a_b.traj"]
    for name in names:
        (tmp_path / name).write_text(json.dumps({"history": run(tool(STUB))["messages"]}))
    tasks = ["HumanEval/0", "HumanEval/1", "a/b", "a b"]
    built = build_pairs(
        [{**PROBLEM, "task_id": task} for task in tasks], trajectories=[tmp_path / name for name in names]
    )
    assert [pair.task_id for pair in built] == tasks[:2]
    # Two tasks have a name like that, so it is neither's.
    assert list(built.unused.values()) == ["no problem has its task, a_b"]


@pytest.mark.parametrize(
    ("call", "error", "word"),
    [
        (lambda: build_pairs([PROBLEM]), ArgumentError, "neither"),
        (lambda: build_pairs([PROBLEM], template=True, trajectories=[run()]), ArgumentError, "both"),
        (lambda: build_pairs([PROBLEM], trajectories=[]), DataError, "trajectories: got none"),
        (lambda: build_pairs([], template=True), FileError, "problems: holds no problem"),
        (lambda: build_pairs([PROBLEM, PROBLEM], template=True), DataError, "task t is there twice"),
        (lambda: build_pairs([{"prompt": "x"}], template=True), DataError, "entry 0: task_id is missing"),
        (lambda: build_pairs([{"task_id": "a\nb"}], template=True), DataError, "task_id is missing or no text"),
        (lambda: build_pairs([3], template=True), DataError, "entry 0 is no object"),
        (
            lambda: build_pairs([{"task_id": "t", "prompt": "x"}], template=True),
            DataError,
            "t has no canonical_solution",
        ),
        (lambda: build_pairs([{**PROBLEM, "prompt": 3}], template=True), DataError, "a prompt that is no text"),
        (lambda: build_pairs([{**PROBLEM, "prompt": "\ud800"}], template=True), DataError, "surrogate"),
        (lambda: build_pairs([PROBLEM], trajectories="no/such.traj"), FileError, "no/such.traj: does not exist"),
        (lambda: build_pairs("no/such.jsonl", template=True), FileError, "cannot be read"),
        (
            lambda: build_pairs(None, template=True),
            ArgumentError,
            "problems: got a NoneType; accepted: a file, or rows",
        ),
        (lambda: build_pairs([PROBLEM], template=True, output=3), ArgumentError, "output: "),
        (lambda: align_pairs(3, tokenizer="t"), ArgumentError, "pairs: got a int; accepted: a file, or pairs"),
        (
            lambda: build_pairs([PROBLEM], trajectories=[{**run(), "task_id": "u"}]),
            DataError,
            "has no trajectory; not used",
        ),
    ],
)
def test_bad_input(call, error, word):
    refused(error, call, word)


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"{", "line 1 is not JSON"), (b"\xff", "line 1 is not utf-8"), (b" \n", "is empty"), (b"\x1f\x8b\x08x", "gzip")],
)
def test_a_damaged_file_of_problems(tmp_path, content, word):
    (tmp_path / "p.jsonl").write_bytes(content)
    refused(FileError, lambda: build_pairs(tmp_path / "p.jsonl", template=True), "p.jsonl", word)
    refused(FileError, lambda: build_pairs(tmp_path, template=True), "is a folder")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"agentic": 3}, "agentic is no list"),
        ({"agentic": []}, "agentic has 0 canonical segments"),
        ({"assisted": [{"kind": "canonical", "key": "canonical", "text": "other"}]}, "'canonical' is not the same"),
        ({"agentic": [{"kind": "canonical", "key": None, "text": "c"}]}, "accepted: one, the last, with a key"),
        ({"agentic": [{"kind": "robot", "key": None, "text": "c"}]}, 'kind is "robot"'),
        ({"agentic": [{"kind": "system", "key": 3, "text": "c"}]}, "key is 3"),
        ({"agentic": [{"kind": "system", "key": None, "text": ""}]}, 'text is ""'),
        ({"agentic": [{"kind": "system", "key": None, "text": "\ud800"}]}, "surrogate"),
        ({"agentic": [{"kind": "system", "text": "a"}]}, "is no segment"),
        ({"agentic": [{"kind": "system", "key": None, "text": "a", "docstrings": [[0, 2]]}]}, "docstring 0 to 2"),
        ({"agentic": [{"kind": "system", "key": None, "text": "a", "docstrings": [0]}]}, "no list of spans"),
        ({"task_id": None}, "entry 0 is no object with a task_id"),
    ],
)
def test_pairs_that_are_not_what_they_must_be(change, word):
    last = {"kind": "canonical", "key": "canonical", "text": "c"}
    pair = {"task_id": "t", "agentic": [last], "assisted": [last]}
    assert len(read_pairs([pair])[0]) == 1
    refused(DataError, lambda: read_pairs([{**pair, **change}]), word)


def test_keys_are_in_both_conditions_and_once():
    last = {"kind": "canonical", "key": "canonical", "text": "c"}
    stub = {"kind": "user_prompt", "key": "stub", "text": "s"}
    pair = {"task_id": "t", "agentic": [stub, last], "assisted": [last]}
    refused(DataError, lambda: read_pairs([pair]), "'stub' is in one condition only")
    refused(
        DataError, lambda: read_pairs([{**pair, "agentic": [last], "assisted": [stub, last]}]), "'stub' is not the same"
    )
    refused(DataError, lambda: read_pairs([{**pair, "agentic": [stub, stub, last]}]), "'stub' twice")
    refused(DataError, lambda: read_pairs([{**pair, "agentic": [last]}] * 2), "task t is there twice")
    refused(DataError, lambda: read_pairs([]), "holds no pair")
