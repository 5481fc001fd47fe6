"""How much two traces of the same tokens agree, pair by pair and expert by expert, straight from the definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

COUNTS = ("pairs", "common_experts", "experts_a", "experts_b", "equal_sets")
"""What must be exact."""
WEIGHTED_COUNTS = ("pairs_without_shares", "pairs_of_same_first", "common_top5")
"""What must be exact, and needs weights."""
WEIGHTED_SUMS = (
    *("tv_sums", "js_sums", "entropy_sums_a", "entropy_sums_b"),
    *("neff_sums_a", "neff_sums_b", "margin_sums_a", "margin_sums_b"),
)
"""What needs weights, and may differ by rounding; as `jaccard_sums`."""
USAGE = ("activations_a", "activations_b")
SHARES = ("share_sums_a", "share_sums_b")


def choice_sums(
    ids,
    weights,
    *,
    n_experts,
    passive=None,
    layers=None,
    rows=(None, None),
    groups=None,
    n_groups=1,
    require_shares=False,
) -> dict[str, Any]:
    """All counts and sums with a first axis of groups. `ids`, `weights` and `rows` are pairs: side a, side b."""
    n_layers, k = ids[0].shape[1:]
    real = [n - p for n, p in zip(n_experts, passive or [0] * n_layers, strict=True)]
    chosen = list(range(n_layers)) if layers is None else layers
    rows = [range(len(side)) if of is None else of for side, of in zip(ids, rows, strict=True)]
    weighted = weights[0] is not None
    shape = (n_groups, len(chosen))
    found: dict[str, Any] = {name: np.zeros(shape, dtype=int) for name in (*COUNTS, *WEIGHTED_COUNTS)}
    found |= {name: np.zeros(shape) for name in ("jaccard_sums", *WEIGHTED_SUMS)}
    wide = (*shape, max(real[layer] for layer in chosen))
    found |= {name: np.zeros(wide, dtype=int) for name in USAGE} | {name: np.zeros(wide) for name in SHARES}
    for place, layer in enumerate(chosen):
        for pair, both in enumerate(zip(*rows, strict=True)):
            at = (0 if groups is None else int(groups[pair]), place)
            tokens = [
                token(side[row, layer], None if of is None else of[row, layer], real[layer])
                for side, of, row in zip(ids, weights, both, strict=True)
            ]
            add_pair(found, at, tokens, weighted, require_shares, k)
    if not weighted:
        found |= dict.fromkeys((*WEIGHTED_COUNTS, *WEIGHTED_SUMS, *SHARES))
    return found


def token(ids, weights, n_experts) -> dict[str, Any]:
    """What a token chose: its filled slots, their experts in order of rank, and the share of each expert."""
    slots = [j for j, expert in enumerate(ids) if 0 <= expert < n_experts]
    said: dict[str, Any] = {"slots": [int(ids[j]) for j in slots], "set": {int(ids[j]) for j in slots}, "shares": None}
    if weights is None:
        return said
    ranked = sorted(slots, key=lambda j: (-float(weights[j]), j))
    # Each expert once, where it ranks best.
    said["ranked"] = list(dict.fromkeys(int(ids[j]) for j in ranked))
    total = math.fsum(float(weights[j]) for j in slots)
    if total > 0 and all(weights[j] >= 0 for j in slots):
        said["shares"] = {e: sum(float(weights[j]) for j in slots if ids[j] == e) / total for e in said["set"]}
    return said


def add_pair(found, at, tokens, weighted, require_shares, k) -> None:
    a, b = tokens
    if not a["set"] or not b["set"]:
        return
    found["pairs"][at] += 1
    shared = weighted and a["shares"] is not None and b["shares"] is not None
    found["pairs_without_shares"][at] += weighted and not shared
    if require_shares and not shared:
        return
    common, union = a["set"] & b["set"], a["set"] | b["set"]
    found["common_experts"][at] += len(common)
    found["equal_sets"][at] += a["set"] == b["set"]
    found["jaccard_sums"][at] += len(common) / len(union)
    for name, one in (("a", a), ("b", b)):
        found[f"experts_{name}"][at] += len(one["set"])
        for expert in one["slots"]:
            found[f"activations_{name}"][(*at, expert)] += 1
    if weighted:
        found["pairs_of_same_first"][at] += a["ranked"][0] == b["ranked"][0]
        found["common_top5"][at] += len(set(a["ranked"][:5]) & set(b["ranked"][:5]))
    if shared:
        add_shares(found, at, tokens, union)


def add_shares(found, at, tokens, union) -> None:
    one, other = ({expert: token["shares"].get(expert, 0.0) for expert in union} for token in tokens)
    middle = {expert: (one[expert] + other[expert]) / 2 for expert in union}
    found["tv_sums"][at] += sum(abs(one[expert] - other[expert]) for expert in union) / 2
    found["js_sums"][at] += sum(
        p[expert] * math.log2(p[expert] / middle[expert]) / 2 for p in (one, other) for expert in union if p[expert] > 0
    )
    for name, p in (("a", one), ("b", other)):
        entropy = -sum(share * math.log(share) for share in p.values() if share > 0)
        largest, second = sorted([0.0, *p.values()], reverse=True)[:2]
        found[f"entropy_sums_{name}"][at] += entropy
        found[f"neff_sums_{name}"][at] += math.exp(entropy)
        found[f"margin_sums_{name}"][at] += largest - second
        for expert, share in p.items():
            found[f"share_sums_{name}"][(*at, expert)] += share
