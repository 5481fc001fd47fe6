"""Building and aligning pairs, slow and obvious: one character, one token, one position after the other."""

from __future__ import annotations

import ast
import io
import tokenize
import warnings

SKIPPED = {tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT}


def docstrings(source: str) -> list[tuple[int, int]]:
    """Statements that are string literals and nothing else, by the tokens of the source; none where it is no source."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(source)
    except SyntaxError:
        return []
    lines = source.replace("\r\n", "\n").split("\n")
    statement: list[tokenize.TokenInfo] = []
    found = []
    for token in tokenize.generate_tokens(io.StringIO(source.replace("\r\n", "\n")).readline):
        if token.type in SKIPPED:
            continue
        ends = token.type in {tokenize.NEWLINE, tokenize.ENDMARKER} or token.string == ";"
        if not ends:
            statement.append(token)
            continue
        if statement and all(part.type == tokenize.STRING for part in statement):
            is_text = all("b" not in part.string[: part.string.find(part.string[-1])].lower() for part in statement)
            is_plain = all("f" not in part.string[: part.string.find(part.string[-1])].lower() for part in statement)
            if is_text and is_plain:
                found.append((place(source, lines, statement[0].start), place(source, lines, statement[-1].end)))
        statement = []
    return found


def place(source: str, lines: list[str], at: tuple[int, int]) -> int:
    """Where a line and column are in the source, whose lines may end in two characters."""
    n = 0
    for line in lines[: at[0] - 1]:
        n += len(line)
        n += 2 if source[n : n + 2] == "\r\n" else 1
    return n + at[1]


def align(pair, encode, pad, begin=None):
    """Lay one pair out.

    ``encode`` gives (id, start, end) for every token of a text. None where the assisted condition's own words do not
    fit, or the keys come in another order.
    """
    tokens = agentic_tokens(pair["agentic"], encode, begin)
    laid = lay(pair["assisted"], encode, [key for _, _, key, _, _ in tokens], pad, begin)
    if laid is None:
        return None
    response = [i for i, (_, kind, _, _, _) in enumerate(tokens) if kind == "tool_response"]
    canonical = [i for i, (_, kind, _, _, _) in enumerate(tokens) if kind == "canonical"]
    return {
        "task_id": pair["task_id"],
        "agentic_ids": [token for token, _, _, _, _ in tokens],
        "assisted_aligned_ids": laid[0],
        "assisted_aligned_attention_mask": laid[1],
        "canonical_positions": canonical,
        "canonical_non_ws_positions": [i for i in canonical if tokens[i][3].strip()],
        "tool_positions": {
            "schema": [i for i, (_, kind, _, _, _) in enumerate(tokens) if kind == "tool_schema"],
            "call": [i for i, (_, kind, _, _, _) in enumerate(tokens) if kind == "tool_call"],
            "response": response,
            "response_docstring": [i for i in response if tokens[i][4]],
            "response_non_docstring": [i for i in response if not tokens[i][4]],
        },
        "segments": segments(pair["agentic"], encode, begin),
    }


def agentic_tokens(agentic, encode, begin):
    """(id, kind, key, text, whether in a docstring) of every token."""
    tokens = [] if begin is None else [(begin, "template", None, "", False)]
    for segment in agentic:
        marked = {i for start, end in segment.get("docstrings", []) for i in range(start, end)}
        for token, start, end in encode(segment["text"]):
            is_doc = any(i in marked for i in range(start, end))
            tokens.append((token, segment["kind"], segment["key"], segment["text"][start:end], is_doc))
    return tokens


def segments(agentic, encode, begin):
    """[kind, key, start, end] of every segment that has a token."""
    found = [] if begin is None else [["template", None, 0, 1]]
    at = len(found)
    for segment in agentic:
        n = len(encode(segment["text"]))
        if n:
            found.append([segment["kind"], segment["key"], at, at + n])
        at += n
    return found


def lay(assisted, encode, keys, pad, begin):
    """The assisted condition's ids and mask, where ``keys`` says which places are shared."""
    ids, mask = [pad] * len(keys), [0] * len(keys)
    own = [] if begin is None else [begin]
    at = 0
    for segment in assisted:
        tokens = [token for token, _, _ in encode(segment["text"])]
        if segment["key"] is None:
            own += tokens
            continue
        if not tokens:
            continue
        there = [i for i, key in enumerate(keys) if key == segment["key"]]
        if there[0] < at or there[0] - at < len(own):
            return None
        for i, token in zip([*range(there[0] - len(own), there[0]), *there], own + tokens, strict=True):
            ids[i], mask[i] = token, 1
        own, at = [], there[-1] + 1
    return ids, mask


def check(task) -> None:
    """Everything that a task of the file must satisfy."""
    n = len(task["agentic_ids"])
    assert n == len(task["assisted_aligned_ids"]) == len(task["assisted_aligned_attention_mask"])
    at = 0
    for _, key, start, end in task["segments"]:
        assert start == at < end
        at = end
        for i in range(start, end):
            if key is not None:
                assert task["assisted_aligned_attention_mask"][i] == 1
                assert task["agentic_ids"][i] == task["assisted_aligned_ids"][i]
    assert at == n
    assert task["canonical_positions"]
    assert all(0 <= i < n for i in task["canonical_positions"])
    assert set(task["canonical_non_ws_positions"]) <= set(task["canonical_positions"])
    tool = task["tool_positions"]
    assert sorted(tool["response_docstring"] + tool["response_non_docstring"]) == tool["response"]
