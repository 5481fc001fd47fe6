"""An interval for the correlation of two differences of usage, without what sampling tasks adds to it.

Both differences are measured with noise, one value an expert. Noise raises the sums of squares that r is divided by,
and, as a task gives tokens to both groups, it may raise or lower their product too. What it adds is known from how the
tasks differ, so it is taken off the three sums; their covariances are known in the same way. A correlation is inside
the interval when the three sums are near enough to some that have it. Where noise may be all there is, every one is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from moefps.comparison.jackknife import student_t
from moefps.comparison.products import product

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from moefps._typing import Float64Array

__all__ = ["Moments", "correlation_intervals", "find_moments"]

_GRID = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 61))
"""Correlations that are tried first; closer together towards -1 and 1, where intervals are short."""
_DIRECTIONS = 16
"""Ratios of the two sums of squares that are tried at a time, around the best of the last time."""
_ZOOMS = 5
_ROUNDS = 3
"""The covariance depends a little on the sums that are tried, and they on it: after three rounds neither moves."""
_PARTS = 16
_REFINEMENTS = 4


class Moments(NamedTuple):
    """What is known of two differences x and y over the experts of a layer, both scaled to Σx² = Σy² = 1.

    Attributes
    ----------
    r : float
        Σxy.
    sums : ndarray [3]
        Σx², Σy² and Σxy without what noise adds to them.
    noise : ndarray [3, 3]
        Covariance of the three sums that there is without any difference.
    linear : ndarray [4, 4]
        Covariance of Σx·dx, Σy·dx, Σx·dy and Σy·dy, where dx and dy are the noise.
    n_tasks : int
        Tasks that have tokens, in the group that has fewer.
    """

    r: float
    sums: Float64Array
    noise: Float64Array
    linear: Float64Array
    n_tasks: int


def find_moments(delta: Float64Array, influences: Sequence[Float64Array], n_tasks: int) -> Moments:
    """Find the moments that an interval is made of.

    Parameters
    ----------
    delta : ndarray [2, E]
        Two values for each expert, both of mean 0 and neither 0 for all experts.
    influences : sequence of two ndarray [N, E]
        What each task does to them, as `ratio_influences` gives it.
    n_tasks : int
        Tasks that have tokens, in the group that has fewer.
    """
    sizes = np.sqrt((delta**2).sum(axis=1))
    x, y = delta / sizes[:, np.newaxis]
    dx, dy = (of / size for of, size in zip(influences, sizes, strict=True))
    xx, yy, xy = product(dx.T, dx), product(dy.T, dy), product(dx.T, dy)
    r = float(np.clip(x @ y, -1.0, 1.0))
    # Cov(Σd_i d_j, Σd_k d_l) of noise alone, from the traces of products of its covariances (Isserlis).
    x_and_y, cross = 2 * (xy * xy).sum(), (xx * yy).sum() + (xy * xy.T).sum()
    x_and_xy, y_and_xy = 2 * (xx * xy).sum(), 2 * (yy * xy).sum()
    noise = np.array(
        [
            [2 * (xx * xx).sum(), x_and_y, x_and_xy],
            [x_and_y, 2 * (yy * yy).sum(), y_and_xy],
            [x_and_xy, y_and_xy, cross],
        ]
    )
    by_task = np.stack([(of * to).sum(axis=1) for of in (dx, dy) for to in (x, y)])
    sums = np.array([1 - np.trace(xx), 1 - np.trace(yy), r - np.trace(xy)])
    return Moments(r, sums, noise, by_task @ by_task.T, n_tasks)


def correlation_intervals(moments: Sequence[Moments]) -> Float64Array:
    """Give an interval (95 %) for the correlation of the differences that there would be over endless tasks.

    A correlation r is inside when the sums are within t² of sums (a², b², rab) for some a and b, in the metric of their
    covariance at those; t is Student's, with one degree of freedom less than there are tasks.

    Parameters
    ----------
    moments : sequence of Moments [L]
        One for each layer.

    Returns
    -------
    ndarray [L, 2]
        Lower and upper ends. [-1, 1] where a difference may be noise alone, as any correlation would do then. r itself
        may lie outside: noise draws it towards 0, or towards the correlation of the noise.

    References
    ----------
    Fieller, Some Problems in Interval Estimation, 1954 (a ratio whose denominator may be 0, by inverting a test).
    Fuller, Measurement Error Models, 1987 (sums of squares without the noise).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.normal(size=(2, 40))
    >>> truth[1] += truth[0]
    >>> truth -= truth.mean(axis=1, keepdims=True)
    >>> tasks = 0.05 * rng.normal(size=(2, 30, 40))
    >>> lo, hi = correlation_intervals([find_moments(truth + tasks.sum(axis=1), tasks, 30)])[0]
    >>> bool(lo < np.corrcoef(truth)[0, 1] < hi), bool(hi - lo < 0.4)
    (True, True)
    """
    if not moments:
        return np.empty((0, 2))
    surface = _Surface(moments)
    grid = np.concatenate([np.tile(_GRID, (len(moments), 1)), surface.best[:, np.newaxis]], axis=1)
    grid.sort(axis=1)
    inside = surface.accepts(grid)
    # What is nearest stands for an interval that is finer than the grid, or for sums that no correlation has.
    nearest = surface.best[:, np.newaxis]
    found = np.empty((len(moments), 2))
    layers = np.arange(len(moments))
    for end, sign in enumerate((1, -1)):
        ordered, hits = grid[:, ::sign], inside[:, ::sign]
        first = hits.argmax(axis=1)
        outer = ordered[layers, np.maximum(first - 1, 0)]
        inner = np.where(hits.any(axis=1), ordered[layers, first], nearest[:, 0])
        found[:, end] = surface.narrow(np.where(hits.any(axis=1), outer, inner), inner)
    return found


class _Surface:
    """How far the sums are from those that have a correlation."""

    def __init__(self, moments: Sequence[Moments]) -> None:
        self.sums, self.noise, self.linear = (
            np.stack([getattr(one, name) for one in moments]) for name in ("sums", "noise", "linear")
        )
        self.most = np.array([student_t(one.n_tasks) ** 2 for one in moments])
        # Of two vectors that are one, no other pair could be made.
        r = np.clip([one.r for one in moments], -1 + 1e-9, 1 - 1e-9)
        gram = np.ones((len(moments), 2, 2))
        gram[:, 0, 1] = gram[:, 1, 0] = r
        self.root = _square_root(gram)
        self.inverse_root = np.linalg.inv(self.root)
        size = np.sqrt(np.maximum(self.sums[:, 0], 1e-12) * np.maximum(self.sums[:, 1], 1e-12))
        positive = (self.sums[:, :2] > 0).all(axis=1)
        self.best: Float64Array = np.where(positive, np.clip(self.sums[:, 2] / size, -1.0, 1.0), np.sign(r))

    def accepts(self, rho: Float64Array) -> npt.NDArray[np.bool_]:
        """Say which correlations are inside, [L, C]."""
        size = np.maximum(self.sums[:, np.newaxis, :2], 1e-6)
        tried = np.broadcast_to(size[..., [0, 1, 1]], (*rho.shape, 3)).copy()
        tried[..., 2] = rho * np.sqrt(tried[..., 0] * tried[..., 1])
        for _ in range(_ROUNDS):
            tried, distance = self._nearest(rho, self._precision(tried))
        return np.asarray(distance <= self.most[:, np.newaxis])

    def narrow(self, outer: Float64Array, inner: Float64Array) -> Float64Array:
        """Find where what is inside begins, between a correlation that is not and one that is, [L]."""
        layers = np.arange(len(outer))
        parts = np.arange(_PARTS + 1) / _PARTS
        for _ in range(_REFINEMENTS):
            between = outer[:, np.newaxis] + (inner - outer)[:, np.newaxis] * parts
            inside = self.accepts(between)
            inside[:, -1] = True
            first = inside.argmax(axis=1)
            outer, inner = between[layers, np.maximum(first - 1, 0)], between[layers, first]
        return inner

    def _precision(self, tried: Float64Array) -> Float64Array:
        """Give the inverse covariance of the sums, were they what is tried, [L, C, 3, 3].

        The two differences are turned and scaled, as little as it takes, into two that have those sums; their noise is
        what it was.
        """
        gram = tried[..., [0, 2, 2, 1]].reshape(*tried.shape[:-1], 2, 2)
        root, inverse = self.root[:, np.newaxis], self.inverse_root[:, np.newaxis]
        turned = inverse @ _square_root(root @ gram @ root) @ inverse
        forms = np.zeros((*tried.shape[:-1], 3, 4))
        forms[..., 0, :2] = 2 * turned[..., 0, :]
        forms[..., 1, 2:] = 2 * turned[..., 1, :]
        forms[..., 2, :2] = turned[..., 1, :]
        forms[..., 2, 2:] = turned[..., 0, :]
        covariance = forms @ self.linear[:, np.newaxis] @ np.swapaxes(forms, -1, -2) + self.noise[:, np.newaxis]
        trace = np.trace(covariance, axis1=-1, axis2=-2)[..., np.newaxis, np.newaxis]
        found: Float64Array = np.linalg.inv(covariance + np.maximum(1e-13 * trace, 1e-26) * np.eye(3))
        return found

    def _nearest(self, rho: Float64Array, precision: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Give the nearest sums that have each correlation, [L, C, 3], and how far they are."""
        low, high = np.zeros(rho.shape), np.full(rho.shape, np.pi / 2)
        whole = np.einsum("li,lcij,lj->lc", self.sums, precision, self.sums)
        for _ in range(_ZOOMS):
            angle = low[..., np.newaxis] + (high - low)[..., np.newaxis] * np.linspace(0, 1, _DIRECTIONS)
            cos, sin = np.cos(angle), np.sin(angle)
            direction = np.stack([cos**2, sin**2, rho[..., np.newaxis] * cos * sin], axis=-1)
            weighted = direction @ precision
            along = np.maximum(0.0, np.einsum("lcdi,li->lcd", weighted, self.sums))
            size = (weighted * direction).sum(axis=-1)
            best = (along**2 / size).argmax(axis=-1)[..., np.newaxis]
            step = (high - low) / (_DIRECTIONS - 1)
            at = np.take_along_axis(angle, best, axis=-1)[..., 0]
            low, high = np.maximum(0.0, at - step), np.minimum(np.pi / 2, at + step)
        along, size = (np.take_along_axis(of, best, axis=-1) for of in (along, size))
        direction = np.take_along_axis(direction, best[..., np.newaxis], axis=-2)[..., 0, :]
        return along / size * direction, whole - (along**2 / size)[..., 0]


def _square_root(a: Float64Array) -> Float64Array:
    """Give the square root of positive semidefinite matrices of two rows, [..., 2, 2]."""
    determinant = np.sqrt(np.maximum(a[..., 0, 0] * a[..., 1, 1] - a[..., 0, 1] * a[..., 1, 0], 0.0))
    trace = np.sqrt(np.maximum(a[..., 0, 0] + a[..., 1, 1] + 2 * determinant, 1e-300))
    shifted = a + determinant[..., np.newaxis, np.newaxis] * np.eye(2)
    found: Float64Array = shifted / trace[..., np.newaxis, np.newaxis]
    return found
