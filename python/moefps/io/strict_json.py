"""JSON read strictly, and written so that it can be read again."""

from __future__ import annotations

import json
import math
from typing import Any

__all__ = ["first_difference", "parse", "plain", "serialise", "show", "show_text", "unique_keys"]

MOST_DIGITS = 40
MOST_DEPTH = 64
_MOST_SHOWN = 60


def parse(data: bytes) -> Any:
    """Read JSON that has no key twice, no NaN or infinity, no number past reason and no bottomless nesting.

    Parameters
    ----------
    data : bytes
        The text, in UTF-8.

    Raises
    ------
    ValueError
        The text is not such JSON; the message says why in a few words.
    """
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=unique_keys,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_int,
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _check_depth(value)
    return value


def serialise(value: Any, *, indent: int | None = 2) -> bytes:
    """Write JSON that `parse` reads back to an equal value.

    Raises
    ------
    ValueError
        Something in it has no place in JSON; the message says what.
    """
    try:
        text = json.dumps(value, indent=indent, allow_nan=False)
    except RecursionError:
        raise ValueError("nested too deeply, or holds itself") from None
    except (TypeError, ValueError) as error:
        raise ValueError(str(error).splitlines()[0][:120]) from None
    return text.encode("ascii") + b"\n"


def plain(value: Any) -> Any:
    """Give the value as it comes back from a file: tuples as lists, keys as text.

    Raises
    ------
    ValueError
        Something in it has no place in JSON.

    Examples
    --------
    >>> plain({"layers": (1, 2)})
    {'layers': [1, 2]}
    """
    return parse(serialise(value, indent=None))


def first_difference(before: Any, now: Any, name: str = "") -> str | None:
    """Say where two JSON values differ first, in words; None where they are equal. A missing key counts as null.

    Examples
    --------
    >>> first_difference({"plan": {"batch": 8}}, {"plan": {"batch": 4}})
    'plan.batch was 8 and is now 4'
    """
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [*before, *(key for key in now if key not in before)]
        pairs = [(f"{name}.{key}" if name else str(key), before.get(key), now.get(key)) for key in keys]
    elif isinstance(before, list) and isinstance(now, list):
        if len(before) != len(now):
            return f"{name} had {len(before)} entries and now has {len(now)}"
        pairs = [(f"{name}[{i}]", a, b) for i, (a, b) in enumerate(zip(before, now, strict=True))]
    elif before == now and type(before) is type(now):
        return None
    else:
        return f"{name} was {show_text(json.dumps(before))} and is now {show_text(json.dumps(now))}"
    found = (first_difference(a, b, inner) for inner, a, b in pairs)
    return next((difference for difference in found if difference is not None), None)


def show(value: Any) -> str:
    """Show a JSON value in a few characters.

    Examples
    --------
    >>> show({"a": 1}), show(None), show("text")
    ('an object of 1', 'null', '"text"')
    """
    if isinstance(value, dict | list | tuple):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value):,}"
    try:
        return show_text(json.dumps(value))
    except (TypeError, ValueError):
        return f"a {type(value).__name__}"


def show_text(text: str) -> str:
    """Show a text on one line, its end left out where it is long."""
    text = " ".join(text.split())
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 3] + "..."


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its keys and values, as `json.loads` takes it; ValueError where a key is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"the key {twice[:40]!r} is there twice")
    return found


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is no number in JSON")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _int(text: str) -> int:
    # Turning digits into a number takes time that grows with the square of their count.
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number has {len(text):,} digits")
    return int(text)


def _check_depth(value: Any) -> None:
    """Refuse what could not be written again, or compared, within Python's own limit of depth."""
    level = [value]
    for _ in range(MOST_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise ValueError(f"nested more than {MOST_DEPTH} deep")
