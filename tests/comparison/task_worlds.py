"""Tasks whose usage of experts is drawn from known shares: what a comparison sums up, without any trace."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from moefps.comparison.joint import GroupUsage

MOVED = 0.15
"""Of the assignments, those that the two conditions route apart; the others are the same in both."""
SHARED = 0.3
"""Of what varies between tasks, how much the two groups of a task share."""
SPREAD = 30.0
"""The larger, the more tasks resemble each other."""


class World(NamedTuple):
    """Many repeats of the same study.

    Attributes
    ----------
    groups : list of dict of str to GroupUsage
        The usage in ``tool`` and ``canonical``, for each repeat.
    usage : tuple of ndarray [E]
        The shares that the tokens of ``tool`` are drawn from, in both conditions.
    r : float
        The correlation of the differences of the shares; NaN where there are none.
    """

    groups: list[dict[str, GroupUsage]]
    usage: tuple[np.ndarray, np.ndarray]
    r: float


def make_world(rng, *, n_experts, n_tasks, signal, load="even", rho=0.6, n_repeats=400) -> World:
    """Draw studies of tasks of very different lengths.

    `signal` is Σ Δu² over what sampling alone makes of it: 0 for no shift, 1 for one as large as the noise.
    """
    base = np.ones(n_experts) if load == "even" else rng.lognormal(sigma=1.5, size=n_experts)
    base /= base.sum()
    first, second = rng.normal(size=(2, n_experts))
    directions = first, rho * first + np.sqrt(1 - rho**2) * second
    noise = _noise(_draw(rng, base, (base, base), n_tasks, 40))
    shifted = [_shift(base, direction, signal * of) for direction, of in zip(directions, noise, strict=True)]
    deltas = np.stack([of - base for of in shifted])
    usage = base + MOVED * (1 - SHARED) * deltas[0], base
    r = float(np.corrcoef(deltas)[0, 1]) if signal else np.nan
    drawn = _draw(rng, base, shifted, n_tasks, n_repeats)
    groups = [
        {
            name: GroupUsage((a[i], b[i]), None, n_tasks)
            for name, (a, b) in zip(("tool", "canonical"), drawn, strict=True)
        }
        for i in range(n_repeats)
    ]
    return World(groups, usage, r)


def _draw(rng, base, shifted, n_tasks, n_repeats):
    """Draw assignments of both groups, [repeats, N, E] in both conditions."""
    shape = n_repeats, n_tasks

    def vary(shares):
        drawn = rng.gamma(np.maximum(SPREAD * shares, 1e-9), size=(*shape, n_experts))
        return drawn / np.maximum(drawn.sum(axis=2, keepdims=True), 1e-300)

    n_experts = len(base)
    common, ours, theirs = (vary(base) for _ in range(3))
    found = []
    for shares, n_tokens in zip(shifted, (40, 60), strict=True):
        n = 4 * np.maximum(3, np.round(n_tokens * rng.lognormal(sigma=0.7, size=shape))).astype(int)
        moved = rng.binomial(n, MOVED)
        same = rng.multinomial(n - moved, common)
        sides = [
            same + rng.multinomial(moved, _normalised((1 - SHARED) * vary(of) + SHARED * task))
            for of, task in ((shares, ours), (base, theirs))
        ]
        found.append(tuple(side.astype(float) for side in sides))
    return found


def _normalised(shares):
    return shares / shares.sum(axis=2, keepdims=True)


def _noise(drawn):
    """Give Σ Δu² where there is no shift, of both groups."""
    for a, b in drawn:
        delta = a.sum(axis=1) / a.sum(axis=(1, 2))[:, None] - b.sum(axis=1) / b.sum(axis=(1, 2))[:, None]
        yield float((delta**2).sum(axis=1).mean())


def _shift(base, direction, wanted):
    """Tilt the shares until the difference of usage is as large as is wanted."""
    low, high = 0.0, 6.0
    for _ in range(40):
        middle = (low + high) / 2
        shares = base * np.exp(middle * direction)
        shares /= shares.sum()
        is_small = ((MOVED * (1 - SHARED) * (shares - base)) ** 2).sum() < wanted
        low, high = (middle, high) if is_small else (low, middle)
    return shares if wanted else base
