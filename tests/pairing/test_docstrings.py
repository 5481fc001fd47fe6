"""Docstrings of a source: every statement that is nothing but a string literal, wherever it stands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moefps.pairing.docstrings import clip_spans, docstring_spans, looks_like_python
from reference.pairing import docstrings

QUOTED = [
    '"one"', "'one'", '"""one"""', "'''one'''", 'r"a\\d"', "R'''a\\d'''", 'u"one"', 'U"""one"""', '"a" "b"',
    "'a' \\\n '''b'''", '"\\""', '"""“Grüß”, 世界 😀"""', '"""two\nlines\n    and more"""', '"""\u2028 \x0c \x0b"""',
    '""', "''''''", '"""\t"""', '"# no comment"', '"def f(): pass"', '"tab\\there"',
]  # fmt: skip
OTHERS = [
    "pass", "import math", "x = 1", 'x = "no"', 'f"no {1}"', 'b"no"', "rb'no'", 'x("no")', '"no".strip()', '"a" f"{1}"',
    "...", "1", "# “no”", '"%s" % 1', "x = '''no\n'''", "del x", '["no"]', '"no",', "-1  # 😀",
]  # fmt: skip


@st.composite
def sources(draw):
    """A source put together of statements, and where its docstrings are."""
    end = draw(st.sampled_from(["\n", "\r\n"]))
    indent = draw(st.sampled_from(["    ", "\t", " "]))
    text, spans = "", []
    for _ in range(draw(st.integers(1, 3))):
        text += f"def f(a=('é', '😀')):{end}"
        for _ in range(draw(st.integers(1, 4))):
            is_doc = draw(st.booleans())
            statement = draw(st.sampled_from(QUOTED if is_doc else OTHERS)).replace("\n", end)
            text += indent
            if is_doc:
                spans.append((len(text), len(text) + len(statement)))
            # What ends in a comment can be followed by nothing else.
            tails = ["", "  # why"] if "#" in statement else ["", "  # why", ";"]
            text += statement + draw(st.sampled_from(tails)) + end
        text += f"{indent}return 0{end}"
    return text, spans


@given(sources())
def test_finds_what_was_put_there(made):
    source, spans = made
    assert docstring_spans(source) == spans


@given(sources())
def test_finds_what_the_tokens_of_the_source_say(made):
    source = made[0].replace("\u2028 \x0c \x0b", "")
    if "\r\n" not in source:
        assert docstring_spans(source) == docstrings(source)


@pytest.mark.parametrize(
    "source",
    [
        "    return 1\n",
        "def f(:",
        "x = '''open",
        "a\0b",
        "(" * 5000,
        "\ufeff\ufeff'doc'",
        "x\ufeff = 1",
        "'doc'\\\n",
        "'\ud800",
        "def f():\n  1\n\t2",
        "0777",
    ],
)
def test_what_does_not_parse_has_none(source):
    assert docstring_spans(source) is None
    assert not looks_like_python(source)


def test_of_a_module_a_class_and_a_function_with_an_import():
    source = (
        '"""M."""\nclass C:\n    "C."\n    def f(self):\n        import math\n        \'F.\'\n        return "no"\n'
    )
    assert [source[a:b] for a, b in docstring_spans(source)] == ['"""M."""', '"C."', "'F.'"]


def test_parenthesised_and_one_liners():
    source = 'def f(): "a"; ("b"); return "c"\r"d"\r'
    assert [source[a:b] for a, b in docstring_spans(source)] == ['"a"', '"b"', '"d"']


# What a source can be made of, and the docstrings in it.
SHAPES = {
    "a mark before the file": ("\ufeffimport a\n'é'\n", ["'é'"]),
    "the mark on the line of the docstring": ("\ufeff'é'; '😀'\r\n'b'", ["'é'", "'😀'", "'b'"]),
    "form feeds": ("\x0cdef f():\n\x0c    'a' \x0c\n    x = 1\n\x0c\n    'b'\n", ["'a'", "'b'"]),
    "ends of lines for others": ("def f():\n    'a\x0b\x1c\x85\u2028b'\n    'c'\n", ["'a\x0b\x1c\x85\u2028b'", "'c'"]),
    "lone carriage returns": ("def f():\r    '''a\rb'''\r    'a' \\\r  'b'\r", ["'''a\rb'''", "'a' \\\r  'b'"]),
    "all ends of lines at once": ("if 1:\r\n '''a\rb\r\nc\nd'''\r 'e'\n", ["'''a\rb\r\nc\nd'''", "'e'"]),
    "continued lines": ("if 1:\r\n 'a' \\\r\n  r'b'\r\n x = \\\r\n  'no'\r\n", ["'a' \\\r\n  r'b'"]),
    "concatenated over lines": ("('a'\n 'b')\n((('c')))\n", ["'a'\n 'b'", "'c'"]),
    "astral names and combining marks": ("def \U0001d4bb(): '😀é'; '世e\u0301'\n", ["'😀é'", "'世e\u0301'"]),
    "functions in classes in functions": (
        "@d('no')\nasync def f(a: 'no' = 'no'):\n\tdef g():\n\t\tclass C:\n\t\t\tx: 'no'\n\t\t\t'C'\n\t\t'g'\n\t'f'\n",
        ["'C'", "'g'", "'f'"],
    ),
    "every block": (
        "if 1: 'a'\nelse: 'b'\ntry: 'c'\nexcept E: 'd'\nfinally: 'e'\nwith x: 'f'\nmatch x:\n case 1: 'g'\n",
        [f"'{letter}'" for letter in "abcdefg"],
    ),
    "every prefix": (
        "".join(f"{prefix}'a'\n" for prefix in ["", "r", "R", "u", "U", "b", "Rb", "bR", "f", "Fr", "rF"]),
        ["'a'", "r'a'", "R'a'", "u'a'", "U'a'"],
    ),
    "what only looks like one": (
        "'a'.b\n'a'[0]\n'a' if x else 'b'\n'a' + 'b'\n('a',)\n(x := 'a')\nlambda: 'a'\nassert 'a'\n'a' f'b'\n",
        [],
    ),
    "a declared encoding": ("# -*- coding: latin-1 -*-\n'é'\n", ["'é'"]),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_of_source(name):
    source, expected = SHAPES[name]
    assert [source[a:b] for a, b in docstring_spans(source)] == expected


def test_no_warning_of_somebody_elses_escapes():
    assert docstring_spans('"\\d"') == [(0, 4)]


def test_json_and_prose_are_no_python():
    assert not any(
        looks_like_python(text) for text in ['"ok"', '{"a": "b"}', "a.py b.py", "", "# def f(): ...", "x = 1"]
    )
    assert all(
        looks_like_python(text) for text in ["import a", "from a import b", "class C: ...", "async def f(): ..."]
    )


def test_clips_to_a_piece():
    assert clip_spans([(0, 2), (4, 6), (8, 9)], 1, 5) == [(0, 1), (3, 4)]
    assert clip_spans([(0, 2)], 2, 5) == []


def test_humaneval(problems):
    n = 0
    for problem in problems:
        whole = problem["prompt"] + problem["canonical_solution"]
        assert docstring_spans(problem["prompt"]) == docstrings(problem["prompt"]), problem["task_id"]
        assert docstring_spans(whole) == docstrings(whole), problem["task_id"]
        n += bool(docstring_spans(problem["prompt"]))
    assert n == 164


def test_humaneval_115_has_its_docstring_after_an_import(problems):
    prompt = problems[115]["prompt"]
    assert problems[115]["task_id"] == "HumanEval/115"
    [(start, end)] = docstring_spans(prompt)
    assert prompt[:start].endswith("    import math\n    ")
    assert prompt[start:end].startswith('"""\n    You are given')
    assert prompt[start:end].endswith('"""')
