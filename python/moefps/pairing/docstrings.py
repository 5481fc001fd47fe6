"""Where the docstrings of a Python source are."""

from __future__ import annotations

import ast
import re
import warnings

__all__ = ["clip_spans", "docstring_spans", "looks_like_python"]

Span = tuple[int, int]

# What ends a line for Python; str.splitlines knows more, which are ordinary characters in a source.
_LINE_END = re.compile(r"\r\n|\r|\n")
# Stands before what some editors write. Python skips it in a file, and stumbles over it in a text.
_BYTE_ORDER_MARK = "\ufeff"


def docstring_spans(source: str) -> list[Span] | None:
    r"""Find every statement that is nothing but a string literal.

    That is more than what Python keeps as ``__doc__``: a literal that follows an import inside a function counts, too.
    f-strings and bytes do not.

    Parameters
    ----------
    source : str
        Python source. Lines may end in ``\n``, ``\r\n`` or ``\r``; a byte order mark may stand before the first.

    Returns
    -------
    list of (int, int) or None
        Half-open spans in characters, prefix and quotes included, in order; None where the source does not parse.

    Examples
    --------
    >>> source = 'def f():\n    import math\n    r"doc"\n    return math.pi\n'
    >>> [source[start:end] for start, end in docstring_spans(source)]
    ['r"doc"']
    >>> docstring_spans("    return 1\n") is None
    True
    """
    tree = _parse(source)
    if tree is None:
        return None
    # The parser does not see the mark.
    first = len(source) - len(source.removeprefix(_BYTE_ORDER_MARK))
    starts = [first, *(match.end() for match in _LINE_END.finditer(source))]
    lines = [source[start:end] for start, end in zip(starts, [*starts[1:], len(source)], strict=True)]
    spans = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            literal = node.value
            assert literal.end_lineno is not None  # noqa: S101 (a parsed node has its end)
            assert literal.end_col_offset is not None  # noqa: S101
            start = starts[literal.lineno - 1] + _characters(lines[literal.lineno - 1], literal.col_offset)
            end = starts[literal.end_lineno - 1] + _characters(lines[literal.end_lineno - 1], literal.end_col_offset)
            spans.append((start, end))
    return sorted(spans)


def looks_like_python(source: str) -> bool:
    """Tell a Python source from other text that happens to parse, such as JSON: it defines or imports something.

    Examples
    --------
    >>> looks_like_python("def f(): ..."), looks_like_python('"ok"'), looks_like_python("a cat")
    (True, False, False)
    """
    tree = _parse(source)
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
    return tree is not None and any(isinstance(node, kinds) for node in tree.body)


def clip_spans(spans: list[Span], start: int, end: int) -> list[Span]:
    """Give the parts of spans that lie in a piece of the text, counted from where the piece begins.

    Examples
    --------
    >>> clip_spans([(0, 3), (5, 9)], 2, 7)
    [(0, 1), (3, 5)]
    """
    clipped = [(max(a, start) - start, min(b, end) - start) for a, b in spans]
    return [(a, b) for a, b in clipped if a < b]


def _parse(source: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            # An invalid escape in somebody's string is none of our user's business.
            warnings.simplefilter("ignore")
            return ast.parse(source.removeprefix(_BYTE_ORDER_MARK))
    # What the parser raises for text that is no source, depending on its version.
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _characters(line: str, n_bytes: int) -> int:
    """Turn an offset of the parser, in bytes of utf-8, into characters."""
    return len(line.encode("utf-8")[:n_bytes].decode("utf-8"))
