"""What the numbers of a focus analysis say, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moefps.metrics.focus.degree import BANDS

__all__ = ["read_summary"]

_CLOSE = 5.0
"""Points around a level that are said to be few."""
_MUCH = 1.0
"""Points by which luck exceeds the chance level that are worth saying."""


def read_summary(
    summary: Mapping[str, Any], *, n_domains: int, threshold: float, activation: str, balanced: bool
) -> str:
    """Say what focus degrees tell, beside the chance level.

    Parameters
    ----------
    summary : mapping
        A row of `ExpertFocus.summary`.
    n_domains : int
        How many domains there are.
    threshold, activation, balanced
        How it was measured.

    Returns
    -------
    str
        One sentence, without a final stop.

    Examples
    --------
    >>> row = {"mean": 59.0, "chance": 50.0, "luck": 50.4, "n_experts": 4, "n_null": 1, "share_counted": 0.5}
    >>> read_summary(row, n_domains=3, threshold=0.1, activation="weights", balanced=False)
    'medium focus: experts give 59.0 % of their activation to one of 3 domains on average, 9.0 points above the chance
    level of 50.0 %; 1 of 4 experts has no counted activation; 50.0 % of activations (weights) are above 0.1'
    """
    what = {"weights": "weights", "renormalized": "renormalized weights", "probs": "probabilities"}.get(
        activation, activation
    )
    share = summary["share_counted"]
    passed = "" if share is None else f"; {100 * share:.1f} % of activations ({what}) are above {threshold:g}"
    mean, chance = summary["mean"], summary["chance"]
    if mean is None:
        return f"no focus: no expert has an activation above {threshold:g}{passed}"
    band = BANDS[min(int(mean // 20), len(BANDS) - 1)]
    weighed = ", domains weighed alike," if balanced else ""
    given = f"{mean:.1f} % of their activation{weighed} to one of {n_domains} domains on average"
    # A band is a name for a number: where domains are uneven, the highest of them may be less than chance gives.
    is_focus = round(mean, 1) > round(chance, 1)
    word = f"{band} focus" if is_focus else f"no focus beyond chance (the band is called {band})"
    parts = [f"{word}: experts give {given}, {_beside(mean, chance)}"]
    n_null, n_experts = summary["n_null"], summary["n_experts"]
    if n_null:
        has = "has" if n_null == 1 else "have"
        parts.append(f"{n_null:,} of {n_experts:,} experts {has} no counted activation")
    if summary["luck"] - chance >= _MUCH:
        so = ", so that little of it is focus" if is_focus and mean - summary["luck"] < _CLOSE else ""
        parts.append(
            f"as few activations as count here ({summary['median_counted']:,.0f} of an expert in the median) would "
            f"give {summary['luck']:.1f} % by luck alone{so}"
        )
    return "; ".join(parts) + passed


def _beside(mean: float, chance: float) -> str:
    gap = round(mean, 1) - round(chance, 1)
    if gap == 0:
        return f"which is the chance level of {chance:.1f} %"
    direction = "above" if gap > 0 else "below"
    only = "only " if abs(gap) < _CLOSE else ""
    return f"{only}{abs(gap):.1f} points {direction} the chance level of {chance:.1f} %"
