"""Numbers and names in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["counted", "listed"]


def counted(number: int, noun: str) -> str:
    """Write a number with its noun, in the plural where it must be.

    Examples
    --------
    >>> counted(1, "layer"), counted(1200, "token")
    ('1 layer', '1,200 tokens')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def listed(names: Iterable[str], most: int = 8) -> str:
    """Write names in a row; of many the first, and how many more there are.

    Examples
    --------
    >>> listed("abc", 2), listed("abcd", 2)
    ('a, b, c', 'a, b and 2 more')
    """
    every = list(names)
    if len(every) <= most + 1:
        return ", ".join(every)
    return f"{', '.join(every[:most])} and {len(every) - most:,} more"
