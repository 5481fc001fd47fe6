"""Checks that several test files share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

import moefps

SELECTION = ("indices", "radii", "assignment", "distances", "cluster_sizes")


def refused(error: type[Exception] | tuple[type[Exception], ...], call: Callable[[], object], *words: str) -> None:
    """The call fails with one of our errors, whose one-line message matches all ``words`` (regular expressions)."""
    with pytest.raises(error) as caught:
        call()
    assert isinstance(caught.value, moefps.MoefpsError)
    message = str(caught.value)
    assert "\n" not in message
    assert not message.endswith(".")
    for word in words:
        assert re.search(word, message), f"{word!r} is not in {message!r}"


def filled_or_refused(call: Callable[[], object], out: np.ndarray, expected: np.ndarray, word: str) -> None:
    """``out`` holds what was expected, or the call said that it would not, naming ``word``."""
    try:
        call()
    except moefps.MoefpsError as error:
        message = str(error)
    else:
        np.testing.assert_array_equal(out, expected)
        return
    assert re.search(word, message), f"{word!r} is not in {message!r}"


def same_selection(found: object, expected: object) -> None:
    """All parts of two selections are equal, to the last bit."""
    for field in SELECTION:
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field), err_msg=field)


@contextmanager
def largest_file(n_bytes: int) -> Iterator[None]:
    """Let files grow to a size only, which fails as a full disk does."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
