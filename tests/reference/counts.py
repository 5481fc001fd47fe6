"""What routing metrics are made of, token by token and slot by slot, straight from the definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

COUNTS = (
    "filled_slots",
    "passive_slots",
    "activations",
    "tokens_by_expert",
    "coactivation",
    "first_choices",
    "tokens_without_shares",
    "entropy_tokens",
    "pairs",
    "pairs_with_common",
    "common_experts",
    "pairs_of_same_first",
    "pairs_without_shares",
)
"""What must be exact."""
SUMS = ("weight_sums", "share_sums", "entropy_sums", "jaccard_sums", "locality_sums")
"""What may differ by rounding."""
WEIGHTED = ("first_choices", "tokens_without_shares", "entropy_tokens", "weight_sums", "share_sums", "entropy_sums")
"""What needs weights."""
PAIRED = ("pairs", "pairs_with_common", "common_experts", "jaccard_sums")
"""What needs to know which rows are neighbours."""
PAIRED_WEIGHTED = ("pairs_of_same_first", "locality_sums", "pairs_without_shares")
"""What needs both."""


def counts(ids, weights, *, n_experts, passive=None, follows=None, groups=None, n_groups=1) -> dict[str, Any]:
    """All counts and sums with a first axis of groups; coactivation by group, too."""
    n_tokens, n_layers, k = ids.shape
    real = [n - p for n, p in zip(n_experts, passive or [0] * n_layers, strict=True)]
    shapes = dict.fromkeys((*COUNTS, *SUMS), (n_groups, n_layers))
    for name in ("activations", "tokens_by_expert", "first_choices", "weight_sums", "share_sums"):
        shapes[name] += (max(real),)
    shapes["filled_slots"] += (k + 1,)
    shapes["coactivation"] += (max(real), max(real))
    found = {name: np.zeros(shape, dtype=float if name in SUMS else int) for name, shape in shapes.items()}
    for layer in range(n_layers):
        before = None
        for token in range(n_tokens):
            group = 0 if groups is None else int(groups[token])
            slots = [j for j in range(k) if 0 <= ids[token, layer, j] < real[layer]]
            found["passive_slots"][group, layer] += sum(int(ids[token, layer, j] >= real[layer]) for j in range(k))
            now = describe(ids[token, layer], None if weights is None else weights[token, layer], slots)
            add_token(found, (group, layer), now)
            neighbours = before is not None and follows is not None and follows[token]
            if neighbours and before["group"] == group and slots and before["slots"]:
                add_pair(found, (group, layer), before, now)
            before = {**now, "group": group}
    missing = [*(WEIGHTED if weights is None else ()), *(PAIRED if follows is None else ())]
    missing += PAIRED_WEIGHTED if weights is None or follows is None else ()
    return {name: None if name in missing else array for name, array in found.items()}


def describe(ids, weights, slots) -> dict[str, Any]:
    """What there is to say about one token of one layer."""
    token: dict[str, Any] = {"slots": slots, "ids": [int(ids[j]) for j in slots], "weights": None, "shares": None}
    if weights is not None:
        token["weights"] = [float(weights[j]) for j in slots]
        total = sum(token["weights"])
        if total != 0:
            token["shares"] = [w / total for w in token["weights"]]
        if slots:
            token["first"] = token["ids"][token["weights"].index(max(token["weights"]))]
    return token


def add_token(found, at, token) -> None:
    ids, shares = token["ids"], token["shares"]
    found["filled_slots"][(*at, len(ids))] += 1
    for expert in ids:
        found["activations"][(*at, expert)] += 1
    for expert in set(ids):
        found["tokens_by_expert"][(*at, expert)] += 1
        for other in set(ids):
            found["coactivation"][(*at, expert, other)] += 1
    if token["weights"] is None or not ids:
        return
    found["first_choices"][(*at, token["first"])] += 1
    for expert, weight in zip(ids, token["weights"], strict=True):
        found["weight_sums"][(*at, expert)] += weight
    if shares is None:
        found["tokens_without_shares"][at] += 1
        return
    for expert, share in zip(ids, shares, strict=True):
        found["share_sums"][(*at, expert)] += share
    if len(ids) >= 2 and min(token["weights"]) >= 0:
        found["entropy_sums"][at] += -sum(s * math.log(s) for s in shares if s > 0) / math.log(len(ids))
        found["entropy_tokens"][at] += 1


def add_pair(found, at, a, b) -> None:
    common, union = set(a["ids"]) & set(b["ids"]), set(a["ids"]) | set(b["ids"])
    found["pairs"][at] += 1
    found["pairs_with_common"][at] += bool(common)
    found["common_experts"][at] += len(common)
    found["jaccard_sums"][at] += len(common) / len(union)
    if a["weights"] is None:
        return
    found["pairs_of_same_first"][at] += a["first"] == b["first"]
    if a["shares"] is None or b["shares"] is None:
        found["pairs_without_shares"][at] += 1
        return
    apart = 0.0
    for expert in union:
        shares = [sum(s for e, s in zip(t["ids"], t["shares"], strict=True) if e == expert) for t in (a, b)]
        apart += abs(shares[0] - shares[1])
    found["locality_sums"][at] += 1 - apart / 2
