"""Where a label fits beside its point without covering another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

__all__ = ["Box", "place_labels"]

_LETTER, _LINE, _POINT = 8.0, 14.0, 5.0
"""Sizes in pixels: of a letter, of a line, of half a point."""
_GAP = 8
_OFFSETS = ((_GAP, 0), (-_GAP, 0), (0, -13), (0, 13))
"""Right, left, above, below."""


class Box(NamedTuple):
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        """Say whether two rectangles overlap."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def holds(self, other: Box) -> bool:
        """Say whether another lies inside."""
        return (
            self.left <= other.left
            and other.right <= self.right
            and self.top <= other.top
            and other.bottom <= self.bottom
        )


def place_labels(
    points: Sequence[tuple[float, float]], labels: Mapping[int, str], frame: Box
) -> dict[tuple[int, int], list[int]]:
    """Choose a side for each label, in their order; one that fits nowhere is left out.

    Parameters
    ----------
    points : sequence of (x, y)
        All points, in pixels.
    labels : mapping of int to str
        The points that get a label, by place, the most wanted first.
    frame : Box
        What labels must not leave.

    Returns
    -------
    dict of (dx, dy) to list of int
        The points whose label is moved by so much.

    Examples
    --------
    >>> place_labels([(50, 50), (62, 50)], {0: "7", 1: "9"}, Box(0, 0, 100, 100))
    {(-8, 0): [0], (8, 0): [1]}
    """
    taken = [Box(x - _POINT, y - _POINT, x + _POINT, y + _POINT) for x, y in points]
    found: dict[tuple[int, int], list[int]] = {}
    for place, text in labels.items():
        own = taken[place]
        for offset in _OFFSETS:
            box = _box(points[place], offset, _LETTER * len(text))
            if frame.holds(box) and not any(box.meets(other) for other in taken if other is not own):
                taken.append(box)
                found.setdefault(offset, []).append(place)
                break
    return found


def _box(point: tuple[float, float], offset: tuple[int, int], width: float) -> Box:
    x, y = point[0] + offset[0], point[1] + offset[1]
    left = x if offset[0] > 0 else x - width if offset[0] < 0 else x - width / 2
    return Box(left, y - _LINE / 2, left + width, y + _LINE / 2)
