"""Counts and sums of two traces, added up to those of both together."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any, TypeVar

import numpy as np

from moefps.errors import ArgumentError, ShapeError

Result = TypeVar("Result")


def add_up(
    word: str, ours: Result, theirs: Result, *, layout: Collection[str], largest: Collection[str] = ()
) -> Result:
    """Add up two frozen dataclasses of arrays, field by field.

    Parameters
    ----------
    word : str
        What they are called in messages.
    ours, theirs : dataclass
        Of one class.
    layout : collection of str
        Fields that must be the same in both, and are kept.
    largest : collection of str
        Fields of which the larger is taken; all others are summed, where both have them.

    Raises
    ------
    ArgumentError
        Only one of the two has a field, or the layouts differ.
    ShapeError
        Arrays of a field differ in shape.
    """
    merged: dict[str, Any] = {}
    fields: Any = dataclasses.fields(ours)  # type: ignore[arg-type]
    for name in (field.name for field in fields):
        a, b = getattr(ours, name), getattr(theirs, name)
        if (a is None) != (b is None):
            raise ArgumentError(f"{word}: only one of the two has {name}; accepted: {word} of the same kind")
        if np.shape(a) != np.shape(b):
            raise ShapeError(
                f"{word}: {name} of shapes {np.shape(a)} and {np.shape(b)}; accepted: {word} of one layout"
            )
        if name in layout:
            if np.any(np.asarray(a) != np.asarray(b)):
                found = f"{np.asarray(a).tolist()} and {np.asarray(b).tolist()}"
                raise ArgumentError(f"{word}: {name} {found}; accepted: {word} of one layout")
            merged[name] = a
        elif a is None:
            merged[name] = None
        else:
            merged[name] = np.maximum(a, b) if name in largest else a + b
    return type(ours)(**merged)
