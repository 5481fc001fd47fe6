"""Texts from every kind of file, with the columns beside them, and one clear line for what is wrong."""

from __future__ import annotations

import io
import json
import sys

import polars as pl
import pytest

import moefps
from moefps.io.texts import RESERVED_COLUMNS, read_texts
from support import refused

ROWS = [
    {"text": "1 + 1 =", "domain": "math", "level": 1},
    {"text": "def f():\n    pass", "domain": "code", "level": 2},
]


def jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.fixture
def write(tmp_path):
    """Write a file and give its path."""

    def to_file(name, content):
        path = tmp_path / name
        if isinstance(content, pl.DataFrame):
            content.write_parquet(path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return to_file


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.jsonl", jsonl(ROWS)),
        ("t.ndjson", jsonl(ROWS) + "\n  \n"),
        ("t.JSONL", "\ufeff" + jsonl(ROWS).replace("\n", "\r\n")),
        ("t.csv", 'text,domain,level\n1 + 1 =,math,1\n"def f():\n    pass",code,2\n'),
        ("t.parquet", pl.DataFrame(ROWS)),
        ("t.parquet", pl.DataFrame(ROWS).with_columns(pl.col("text", "domain").cast(pl.Categorical))),
    ],
)
def test_every_kind_of_file_gives_the_same(name, content, write):
    read = read_texts(write(name, content))
    assert read.texts == [row["text"] for row in ROWS]
    assert len(read) == 2
    assert read.columns.rows(named=True) == ROWS
    assert read.columns.schema == {"text": pl.String, "domain": pl.String, "level": pl.Int64}


def test_a_line_each(write):
    # Characters that Python takes for the end of a line, and that are part of a text.
    content = "one\u2028still one\r\n two\x0b \nthree"
    assert read_texts(write("t.txt", content)).texts == ["one\u2028still one", " two\x0b ", "three"]
    assert read_texts(write("t.txt", "one\n")).columns.to_dict(as_series=False) == {"text": ["one"]}


def test_another_field_holds_the_text(write):
    path = write("t.jsonl", jsonl([{"prompt": "a", "text": 1}, {"prompt": "b", "text": 2}]))
    read = read_texts(path, text_field="prompt")
    assert read.texts == ["a", "b"]
    assert read.columns["text"].to_list() == [1, 2]


@pytest.mark.parametrize(
    ("given", "texts"),
    [("one\ntwo\n", ["one", "two"]), (jsonl(ROWS[:1]), ["1 + 1 ="]), ("{not json\n", ["{not json"])],
)
def test_standard_input(given, texts, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
    read = read_texts("-")
    assert read.texts == texts
    assert read.source == "stdin"


def test_columns_keep_what_the_file_says(write):
    rows = [
        {"text": "a", "score": 1, "tags": ["x", {"y": None}], "ok": True, "nothing": None},
        {"text": "b", "score": 0.5, "late": "é"},
    ]
    columns = read_texts(write("t.jsonl", jsonl(rows))).columns
    assert columns.rows(named=True) == [
        {"text": "a", "score": 1.0, "tags": '["x", {"y": null}]', "ok": True, "nothing": None, "late": None},
        {"text": "b", "score": 0.5, "tags": None, "ok": None, "nothing": None, "late": "é"},
    ]


def test_a_csv_has_numbers_only_where_they_are_written_as_numbers(write):
    content = "text,n,x,id,version,none\n12,1,0.5,007,1.10,\n13,-2,1.25,008,1.2,\n"
    read = read_texts(write("t.csv", content))
    assert read.texts == ["12", "13"]
    assert read.columns.rows() == [(12, 1, 0.5, "007", "1.10", None), (13, -2, 1.25, "008", "1.2", None)]


def test_a_long_text_in_a_csv(write):
    text = "x" * 300_000
    assert read_texts(write("t.csv", f"text\n{text}\n")).texts == [text]


CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


def test_conversations(write):
    path = write("t.jsonl", jsonl([{"messages": CHAT}, {"messages": "Hello"}]))
    refused(
        moefps.DataError, lambda: read_texts(path, chat=True), "messages is a list or an object in line 1 and a string"
    )
    path = write("t.jsonl", jsonl([{"messages": CHAT, "text": "no", "id": 1}]))
    read = read_texts(path, chat=True)
    assert read.texts == [CHAT]
    assert json.loads(read.columns["messages"][0]) == CHAT
    assert read_texts(path, chat=True, text_field="text").texts == [[{"role": "user", "content": "no"}]]
    assert read_texts(write("t.txt", "Hi\n"), chat=True).texts == [[{"role": "user", "content": "Hi"}]]


def test_conversations_in_a_parquet_have_no_made_up_keys(write):
    turns = [CHAT, [{"role": "user", "content": "Hi", "name": "ann"}]]
    path = write("t.parquet", pl.DataFrame({"messages": turns}, strict=False))
    assert read_texts(path, chat=True).texts == turns


def test_structures_are_kept(write):
    image = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
    assert read_texts(write("t.jsonl", jsonl([{"messages": image}])), chat=True).texts == [image]


BAD = {
    "suffix": ("t.md", "a", moefps.ArgumentError, r"the suffix is .md; accepted: .txt, .jsonl"),
    "no suffix": ("t", "a", moefps.ArgumentError, "the suffix is missing"),
    "compressed": ("t.jsonl.gz", "a", moefps.ArgumentError, "zcat"),
    "empty file": ("t.txt", "", moefps.FileError, "the file is empty"),
    "empty csv": ("t.csv", "\n", moefps.FileError, "the file is empty"),
    "no row": ("t.csv", "text\n", moefps.FileError, "holds no text"),
    "no object": ("t.jsonl", "\n\n", moefps.FileError, "holds no text"),
    "empty line": ("t.txt", "a\n\nb\n", moefps.DataError, "line 2: text is empty; accepted: a text"),
    "empty text": ("t.jsonl", jsonl([{"text": "a"}, {"text": ""}]), moefps.DataError, "line 2: text is empty"),
    "null text": ("t.jsonl", jsonl([{"text": None}]), moefps.DataError, "line 1: text is missing"),
    "a row without it": ("t.jsonl", jsonl([{"text": "a"}, {"id": 1}]), moefps.DataError, "line 2: text is missing"),
    "empty cell": ("t.csv", "text,id\na,1\n,2\n", moefps.DataError, "line 3: text is missing"),
    "null in a parquet": ("t.parquet", pl.DataFrame({"text": ["a", None]}), moefps.DataError, "row 2: text is missing"),
    "a number": ("t.jsonl", jsonl([{"text": 5}]), moefps.DataError, "line 1: text is a number; accepted: a string"),
    "numbers in a parquet": ("t.parquet", pl.DataFrame({"text": [5]}), moefps.DataError, "row 1: text is a number"),
    "a list": ("t.jsonl", jsonl([{"text": [1]}]), moefps.DataError, "line 1: text is a list, which --chat takes"),
    "no such field": (
        "t.jsonl",
        jsonl([{"prompt": "a", "id": 1}]),
        moefps.ArgumentError,
        "has no field text, found prompt, id; --text-field",
    ),
    "no such field in a csv": ("t.csv", "a,b\n1,2\n", moefps.ArgumentError, "has no field text, found a, b"),
    "no such field in a parquet": ("t.parquet", pl.DataFrame({"a": [1]}), moefps.ArgumentError, "found a;"),
    "not utf-8": ("t.txt", b"a\nb\xff\n", moefps.FileError, "is not utf-8: byte 0xff in line 2"),
    "utf-16": ("t.jsonl", jsonl(ROWS).encode("utf-16"), moefps.FileError, "is not utf-8"),
    "broken json": ("t.jsonl", '{"text": "a"}\n{"text": "b"\n', moefps.FileError, "line 2 is not JSON: .*at column"),
    "deep json": ("t.jsonl", "[" * 200_000, moefps.FileError, "line 1 is not JSON"),
    "no object a line": ("t.jsonl", '"a"\n', moefps.DataError, "line 1 is a string; accepted: a JSON object a line"),
    "a gap": ("t.jsonl", '{"text": "a"}\n\n{"text": "b"}\n', moefps.DataError, "line 2 is empty"),
    "half a pair": ("t.jsonl", '{"text": "\\ud800"}\n', moefps.DataError, "line 1: text holds half of a surrogate"),
    "two kinds": (
        "t.jsonl",
        jsonl([{"text": "a", "id": 1}, {"text": "b", "id": "x"}]),
        moefps.DataError,
        "the field id is a number in line 1 and a string in line 2; accepted: one kind",
    ),
    "a huge number": ("t.jsonl", '{"text": "a", "id": 9223372036854775808}', moefps.DataError, "id has 19 digits"),
    "ragged": ("t.csv", "text,id\na\n", moefps.FileError, "line 2 has 1 columns, expected 2"),
    "a column twice": ("t.csv", "text,text\na,b\n", moefps.FileError, "the column 'text' twice"),
    "an open quote": ("t.csv", 'text\n"a\n', moefps.FileError, "is not a .csv"),
    "not a parquet": ("t.parquet", "text\na\n", moefps.FileError, "is not a .parquet"),
    "a name of ours": ("t.csv", "text,n_tokens\na,1\n", moefps.ArgumentError, "has a field n_tokens"),
}


@pytest.mark.parametrize("case", BAD)
def test_one_clear_line(case, write):
    name, content, error, words = BAD[case]
    path = write(name, content)
    refused(error, lambda: read_texts(path), words, name.replace(".", r"\."))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"messages": []}], "line 1: messages is an empty list"),
        ([{"messages": ["Hi"]}], "line 1: message 1 of messages has no role"),
        ([{"messages": [CHAT[0], {"content": "Hi"}]}], "line 1: message 2 of messages has no role"),
        ([{"messages": [{"role": "user"}]}], "line 1: message 1 of messages has no content"),
        ([{"messages": {"role": "user", "content": "Hi"}}], "line 1: messages is an object"),
    ],
)
def test_conversations_that_are_none(rows, words, write):
    path = write("t.jsonl", jsonl(rows))
    refused(moefps.DataError, lambda: read_texts(path, chat=True), words)


def test_files_that_are_none(tmp_path):
    (tmp_path / "t.txt").mkdir()
    refused(moefps.FileError, lambda: read_texts(tmp_path / "t.txt"), "is a folder")
    refused(moefps.FileError, lambda: read_texts(tmp_path / "no.txt"), "no such file")
    refused(moefps.ArgumentError, lambda: read_texts(tmp_path / "no.md"), "the suffix is .md")


def test_a_txt_has_no_fields(write):
    path = write("t.txt", "a\n")
    refused(moefps.ArgumentError, lambda: read_texts(path, text_field="text"), "no fields")


def test_names_of_ours_are_those_of_a_dump():
    assert set(RESERVED_COLUMNS) == {"sample", "token_start", "n_tokens"}
