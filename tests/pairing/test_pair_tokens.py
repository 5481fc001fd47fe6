"""The file of aligned tokens: what it must satisfy is checked on reading, and the task is named."""

from __future__ import annotations

import copy
import hashlib
import json

import numpy as np
import pytest

from moefps import DataError, FileError
from moefps.io.pair_tokens import parse_pair_tokens, read_pair_tokens, serialise_pair_tokens
from support import refused

TASK = {
    "task_id": "HumanEval/7",
    "agentic_ids": [1, 10, 11, 12, 13, 14, 15, 16],
    "assisted_aligned_ids": [0, 0, 1, 12, 13, 0, 15, 16],
    "assisted_aligned_attention_mask": [0, 0, 1, 1, 1, 0, 1, 1],
    "canonical_positions": [6, 7],
    "canonical_non_ws_positions": [7],
    "tool_positions": {
        "schema": [1],
        "call": [2],
        "response": [3, 4, 5],
        "response_docstring": [4],
        "response_non_docstring": [3, 5],
    },
    "segments": [
        ["template", None, 0, 1],
        ["tool_schema", None, 1, 2],
        ["tool_call", None, 2, 3],
        ["tool_response", "stub", 3, 5],
        ["tool_response", None, 5, 6],
        ["canonical", "canonical", 6, 8],
    ],
}


def changed(**changes):
    """The task with other values; a name with a dot is of something inside, None takes a key away."""
    task = copy.deepcopy(TASK)
    for name, value in changes.items():
        part, _, inner = name.partition("__")
        target, key = (task[part], inner) if inner else (task, part)
        key = int(key) if isinstance(target, list) else key
        if value is None:
            del target[key]
        else:
            target[key] = value
    return task


def read(*tasks):
    return parse_pair_tokens(json.dumps(tasks).encode(), "p.json")


def test_a_file_as_it_must_be(tmp_path):
    path = tmp_path / "p.json"
    path.write_text(json.dumps([{**TASK, "more": [1.5]}]))
    found = read_pair_tokens(path)
    [task] = found
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.source == str(path)
    assert task.n_positions == 8
    assert task.is_shared.tolist() == [False, False, False, True, True, False, True, True]
    assert task.mask("assisted").tolist() == [False, False, True, True, True, False, True, True]
    assert task.mask("agentic").all()
    assert np.array_equal(task.ids("agentic"), TASK["agentic_ids"])
    assert np.array_equal(task.ids("assisted"), TASK["assisted_aligned_ids"])
    assert json.loads(serialise_pair_tokens(found.tasks)) == [TASK]
    assert serialise_pair_tokens(read(TASK).tasks) == serialise_pair_tokens(found.tasks)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"agentic_ids": []}, "has no token"),
        ({"agentic_ids": None}, "has no agentic_ids"),
        ({"agentic_ids": "12"}, 'agentic_ids is "12"'),
        ({"agentic_ids__3": 1.0}, r"agentic_ids\[3\] is 1.0"),
        ({"agentic_ids__3": True}, r"agentic_ids\[3\] is true"),
        ({"agentic_ids__3": -1}, r"agentic_ids\[3\] is -1"),
        ({"agentic_ids__3": 1 << 31}, r"agentic_ids\[3\] is 2147483648"),
        ({"assisted_aligned_ids__7": None}, "assisted_aligned_ids has 7 entries; accepted: 8"),
        ({"assisted_aligned_attention_mask__7": 2}, r"attention_mask\[7\] is 2"),
        ({"assisted_aligned_attention_mask__4": 0}, "no token at position 4, in the segment stub"),
        ({"assisted_aligned_ids__6": 3}, "ids differ at position 6, in the segment canonical: 15 and 3"),
        ({"canonical_positions": []}, "canonical_positions is empty"),
        ({"canonical_positions__1": 8}, r"canonical_positions\[1\] is 8"),
        ({"canonical_positions__1": 6}, r"canonical_positions\[1\] is not larger"),
        ({"canonical_positions__0": 5}, "canonical_positions has 5, which is in no canonical segment"),
        ({"canonical_non_ws_positions__0": 5}, "non_ws_positions has 5, and canonical_positions has not"),
        ({"tool_positions": []}, "tool_positions is a list of 0"),
        ({"tool_positions__call": None}, "tool_positions has no call"),
        ({"tool_positions__call": [1]}, "tool_positions.call has 1, which is in no tool_call segment"),
        ({"tool_positions__schema": [0]}, "tool_positions.schema has 0"),
        ({"tool_positions__response": [3, 4]}, "response_docstring and response_non_docstring together"),
        ({"tool_positions__response_docstring": [3, 4]}, "every position of it in one of the two"),
        ({"segments": {}}, "segments is an object of 0"),
        ({"segments": []}, "segments end at 0 of 8 positions"),
        ({"segments__1": ["tool_schema", None, 1, 1]}, r"segments\[1\] is 1 to 1"),
        ({"segments__1": ["tool_schema", None, 2, 3]}, r"segments\[1\] is 2 to 3, expected a start of 1"),
        ({"segments__5": ["canonical", "canonical", 6, 9]}, r"segments\[5\] is 6 to 9"),
        ({"segments__5": ["canonical", "", 6, 8]}, r'segments\[5\] has kind "canonical" and key ""'),
        ({"segments__5": None}, "segments end at 6 of 8"),
        ({"segments__5": ["canonical", "canonical", 6]}, r"segments\[5\] is a list of 3"),
        ({"segments__5": ["canonical", "canonical", 6, True]}, "is 6 to true"),
    ],
)
def test_what_is_wrong_is_named(changes, word):
    other = {**copy.deepcopy(TASK), "task_id": "fine"}
    refused(DataError, lambda: read(other, changed(**changes)), r"^p\.json: task HumanEval/7: ", word)


@pytest.mark.parametrize(
    ("content", "error", "word"),
    [
        (b"", FileError, "is not JSON"),
        (b"[", FileError, "is not JSON"),
        (b"\xff", FileError, "byte 0 is not utf-8"),
        (b'[{"a": 1, "a": 2}]', FileError, "the key 'a' is there twice"),
        (b"[" * 100_000, FileError, "is nested too deeply|is not JSON"),
        (b"{}", DataError, "is an object of 0; accepted: an array"),
        (b"[]", DataError, "holds no task"),
        (b"[3]", DataError, "entry 0 is 3"),
        (b'[{"task_id": 3}]', DataError, "entry 0: task_id is 3"),
        (b'[{"task_id": ""}]', DataError, 'task_id is ""; accepted: a text on one line'),
        (b'[{"task_id": "a\\nb"}]', DataError, "entry 0: task_id is "),
        (b"\xef\xbb\xbf[]", DataError, "holds no task"),
        (b'[{"task_id": "t", "agentic_ids": [NaN]}]', DataError, "has no assisted_aligned_ids"),
        (json.dumps([TASK, TASK]).encode(), DataError, "task HumanEval/7 is there twice"),
    ],
)
def test_a_file_that_is_something_else(tmp_path, content, error, word):
    path = tmp_path / "p.json"
    path.write_bytes(content)
    refused(error, lambda: read_pair_tokens(path), "p.json: ", word)


def test_a_file_that_is_not_there(tmp_path):
    refused(FileError, lambda: read_pair_tokens(tmp_path / "no.json"), "no.json: cannot be read: no such file")
    refused(FileError, lambda: read_pair_tokens(tmp_path), "is a folder")
