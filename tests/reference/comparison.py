"""Two dumps compared token by token, task by task, resample by resample, straight from the definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.stats

from reference.agreement import token

GROUPS = (
    *("all", "canonical", "canonical_non_ws", "tool_schema", "tool_call", "tool_response"),
    *("tool_response_docstring", "tool_response_non_docstring", "user_prompt"),
)
BINS = ((1, 2), (3, 4), (5, 8), (9, 16), (17, 32), (33, 64), (65, 128), (129, 256), (257, 512), (513, math.inf))


def group_positions(record) -> dict[str, set[int]]:
    """Which positions of a task are in each group."""
    tool = record["tool_positions"]
    return {
        "all": set(range(len(record["agentic_ids"]))),
        "canonical": set(record["canonical_positions"]),
        "canonical_non_ws": set(record["canonical_non_ws_positions"]),
        **{f"tool_{part}": set(tool[part]) for part in tool},
        "user_prompt": {
            p for kind, _, start, end in record["segments"] if kind == "user_prompt" for p in range(start, end)
        },
    }


def shared_positions(record) -> set[int]:
    return {p for _, key, start, end in record["segments"] if key is not None for p in range(start, end)}


def distance(record, position) -> int | None:
    ends = [end for kind, _, _, end in record["segments"] if kind == "tool_response" and end <= position]
    return position - (max(ends) - 1) if ends else None


def routed(dump, n_experts) -> dict[tuple[str, int], list[Any]]:
    """What each token of a dump chose in each layer, by task and position; None where nothing is to be compared."""
    found = {}
    tasks = dump.samples["task_id"].to_list()
    for sample, start, length in dump.samples.select("sample", "token_start", "n_tokens").rows():
        for row in range(start, start + length):
            position = dump.tokens["position"][row]
            chosen = [
                token(dump.expert_ids[row, layer], dump.expert_weights[row, layer], n)
                for layer, n in enumerate(n_experts)
            ]
            found[tasks[sample], position] = [
                one if one["set"] and one["shares"] is not None else None for one in chosen
            ]
    return found


def measures(a, b, k) -> dict[str, float]:
    """Everything that is said of one pair of tokens."""
    union, common = a["set"] | b["set"], a["set"] & b["set"]
    p, q = ({e: one["shares"].get(e, 0.0) for e in union} for one in (a, b))
    middle = {e: (p[e] + q[e]) / 2 for e in union}
    row = {
        "tv": sum(abs(p[e] - q[e]) for e in union) / 2,
        "js": sum(of[e] * math.log2(of[e] / middle[e]) / 2 for of in (p, q) for e in union if of[e] > 0),
        "jaccard": len(common) / len(union),
        "intersection": len(common),
        "intersection_share": len(common) / k,
        "top1_match": float(a["ranked"][0] == b["ranked"][0]),
        "top5_match": len(set(a["ranked"][:5]) & set(b["ranked"][:5])) / min(5, k),
    }
    for side, of in (("a", p), ("b", q)):
        entropy = -sum(x * math.log(x) for x in of.values() if x > 0)
        largest, second = sorted([0.0, *of.values()], reverse=True)[:2]
        row |= {f"entropy_{side}": entropy, f"neff_{side}": math.exp(entropy)}
        row[f"margin_{side}"] = largest - second if k > 1 else math.nan
    for name in ("entropy", "neff", "margin"):
        row[f"{name}_diff"] = row[f"{name}_a"] - row[f"{name}_b"]
    return row


class Reference:
    """The tables of two dumps that belong to the records of a pairs file."""

    def __init__(self, a, b, records, *, n_experts, top_k, taken, exchanged) -> None:
        self.a, self.b = routed(a, n_experts), routed(b, n_experts)
        in_both = {name for name, _ in self.a} & {name for name, _ in self.b}
        by_name = {record["task_id"]: record for record in records}
        self.tasks = [by_name[name] for name in a.samples["task_id"].to_list() if name in in_both and name in by_name]
        self.n_experts, self.top_k = n_experts, top_k
        self.draws = [[n for n, times in enumerate(row) for _ in range(int(times))] for row in taken]
        self.exchanged = exchanged
        self.groups = [group_positions(record) for record in self.tasks]

    def pairs(self, task, group, layer, positions=None):
        """Both tokens at every position of a task and group that is compared in a layer."""
        record = self.tasks[task]
        wanted = self.groups[task][group] & shared_positions(record) if positions is None else positions
        for position in sorted(wanted):
            ours, theirs = (side.get((record["task_id"], position)) for side in (self.a, self.b))
            if ours is not None and theirs is not None and ours[layer] is not None and theirs[layer] is not None:
                yield position, ours[layer], theirs[layer]

    def layer_row(self, group, layer) -> dict[str, Any]:
        by_task = [
            [measures(x, y, self.top_k[layer]) for _, x, y in self.pairs(task, group, layer)]
            for task in range(len(self.tasks))
        ]
        row: dict[str, Any] = {"count": sum(map(len, by_task))}
        names = next((rows[0].keys() for rows in by_task if rows), ())
        for name in names:
            values = [[one[name] for one in rows] for rows in by_task]
            row[name] = mean([x for rows in values for x in rows])
            row |= ends(name, self.interval_of_mean(values, limits(name, self.top_k[layer])))
        return row

    def interval_of_mean(self, values, limits) -> tuple[float, float]:
        """Of the mean of all values of all tasks."""
        resampled = [mean([x for n in drawn for x in values[n]]) for drawn in self.draws]
        without = [mean([x for other in values if other is not rows for x in other]) for rows in values if rows]
        return interval(mean([x for rows in values for x in rows]), resampled, without, limits)

    def usage(self, group, layer, weighted=False) -> list[np.ndarray]:
        """Assignments (or shares of weights) of every task [N, E], over the tokens that are compared."""
        found = [np.zeros((len(self.tasks), self.n_experts[layer])) for _ in "ab"]
        for task in range(len(self.tasks)):
            for _, *both in self.pairs(task, group, layer):
                for of, one in zip(found, both, strict=True):
                    for expert, share in one["shares"].items():
                        of[task, expert] += share if weighted else one["slots"].count(expert)
        return found

    def joint_row(self, group, layer) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for suffix in ("", "_weighted"):
            a, b = self.usage(group, layer, weighted=bool(suffix))
            u, v = a.sum(axis=0) / a.sum(), b.sum(axis=0) / b.sum()
            for side, of in (("a", u), ("b", v)):
                row[f"usage_entropy_{side}{suffix}"] = -sum(x * math.log(x) for x in of if x > 0)
                row[f"top1_share_{side}{suffix}"] = max(of)
                row[f"top5_share_{side}{suffix}"] = sum(sorted(of)[-5:])
            row[f"usage_tv{suffix}"] = abs(u - v).sum() / 2
            row[f"usage_js{suffix}"] = divergence(u, v)
            swapped = []
            for half in self.exchanged:
                one, other = (
                    sum(y[n] if half[n] else x[n] for n in range(len(self.tasks))) for x, y in ((a, b), (b, a))
                )
                swapped.append((one / one.sum(), other / other.sum()))
            row[f"usage_tv_null{suffix}"] = mean([abs(x - y).sum() / 2 for x, y in swapped])
            by_chance = [divergence(x, y) for x, y in swapped]
            row |= ends(f"usage_js{suffix}", self.interval_of_divergence(a, b, by_chance))
        return row

    def interval_of_divergence(self, a, b, by_chance) -> tuple[float, float]:
        """The divergences J with (estimate - J)² ≤ t² (slope J + always), tried one by one at the ends."""
        used = [n for n in range(len(a)) if a[n].sum() + b[n].sum() > 0]
        if len(used) < 2:
            return (math.nan, math.nan)
        js = divergence(shares(a), shares(b))
        if js == 0:
            return (0.0, 1.0 if any(by_chance) else 0.0)
        squares = 0.0
        for n in used:
            others = [m for m in range(len(a)) if m != n]
            change = js - divergence(shares(a[others]), shares(b[others]))
            squares += (len(used) - 1) / len(used) * change**2
        weights = [(a[n].sum() + b[n].sum()) / (a.sum() + b.sum()) for n in range(len(a))]
        leaks = [sum(-w if half[n] else w for n, w in enumerate(weights)) ** 2 for half in self.exchanged]
        estimate = (js - mean(by_chance)) / max(1 - mean(leaks), 0.5)
        t = scipy.stats.t.ppf(0.975, len(used) - 1)
        always = mean([(x - mean(by_chance)) ** 2 for x in by_chance])
        roots = np.roots([1, -2 * estimate - t**2 * squares / js, estimate**2 - t**2 * always]).real
        return tuple(float(np.clip(root, 0, 1)) for root in sorted(roots))

    def n_side(self, side, group, layer) -> int:
        """Tokens of the agentic (a) or assisted (b) dump in a group, with a filled slot."""
        tokens = self.a if side == "a" else self.b
        total = 0
        for record, groups in zip(self.tasks, self.groups, strict=True):
            wanted = groups[group] if side == "a" else groups[group] & shared_positions(record)
            at = [tokens.get((record["task_id"], position)) for position in wanted]
            total += sum(one is not None and one[layer] is not None for one in at)
        return total

    def delta(self, group, layer, drawn=None) -> np.ndarray:
        drawn = list(range(len(self.tasks))) if drawn is None else drawn
        a, b = self.usage(group, layer)
        return shares(a[drawn]) - shares(b[drawn])

    def leakage(self, layer) -> dict[str, Any]:
        x, y = (self.delta(group, layer) for group in ("tool_response_non_docstring", "canonical_non_ws"))
        dx, dy = x - x.mean(), y - y.mean()
        constant = max(abs(dx)) < 1e-15 or max(abs(dy)) < 1e-15
        r = math.nan if constant else (dx @ dy) / math.sqrt((dx @ dx) * (dy @ dy))
        return {"r": r, "slope": np.polyfit(x, y, 1)[0]}

    def expert_row(self, layer, expert) -> dict[str, Any]:
        a, b = self.usage("all", layer)
        delta = self.delta("all", layer)[expert]
        resampled = [self.delta("all", layer, drawn)[expert] for drawn in self.draws]
        without = [self.delta("all", layer, [m for m in range(len(a)) if m != n])[expert] for n in range(len(a))]
        # Tasks that do not use the expert differently say nothing of how a difference varies.
        n_tasks = sum(a[:, expert] != b[:, expert])
        found = interval(delta, resampled, without, limits=(-1, 1), n_tasks=n_tasks)
        return {"u_a": shares(a)[expert], "u_b": shares(b)[expert], "delta_u": delta, **ends("delta_u", found)}

    def distance_row(self, first, last) -> dict[str, Any]:
        counted, by_task = set(), []
        for task, record in enumerate(self.tasks):
            at = {p: distance(record, p) for p in self.groups[task]["canonical_non_ws"] & shared_positions(record)}
            wanted = {p for p, far in at.items() if far is not None and first <= far <= last}
            rows = []
            for layer, k in enumerate(self.top_k):
                for position, x, y in self.pairs(task, "canonical_non_ws", layer, wanted):
                    counted.add((task, position))
                    rows.append(measures(x, y, k))
            by_task.append(rows)
        row: dict[str, Any] = {"count": len(counted), "tv": None, "jaccard": None}
        if counted:
            for name in ("tv", "jaccard"):
                values = [[one[name] for one in rows] for rows in by_task]
                row[name] = mean([x for rows in values for x in rows])
                row |= ends(name, self.interval_of_mean(values, (0, 1)))
        return row


def mean(values) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def shares(of_tasks) -> np.ndarray:
    total = of_tasks.sum(axis=0)
    return total / total.sum() if total.sum() else np.full(len(total), np.nan)


def divergence(u, v) -> float:
    if np.isnan(u).any() or np.isnan(v).any():
        return math.nan
    middle = (u + v) / 2
    return sum(x * math.log2(x / m) / 2 for of in (u, v) for x, m in zip(of, middle, strict=True) if x > 0)


def limits(name, k) -> tuple[float, float]:
    """What a mean can be."""
    if name.endswith("_diff"):
        most = {"entropy_diff": math.log(k), "neff_diff": k - 1, "margin_diff": 1}[name]
        return (-most, most)
    if name.startswith("neff"):
        return (1, k)
    return (0, {"intersection": k, "entropy_a": math.log(k), "entropy_b": math.log(k)}.get(name, 1))


def interval(estimate, resampled, without, limits=(-math.inf, math.inf), n_tasks=None) -> tuple[float, float]:
    """Percentiles, as wide as ±t standard errors by the jackknife or wider.

    NaN where fewer than two tasks have a token, or most resamples have none.
    """
    there = [x for x in resampled if not math.isnan(x)]
    n_tasks = len(without) if n_tasks is None else n_tasks
    if n_tasks < 2 or 2 * len(there) < len(resampled):
        return (math.nan, math.nan)
    lo, hi = np.quantile(there, [0.025, 0.975])
    error = math.sqrt((len(without) - 1) / len(without) * sum((x - estimate) ** 2 for x in without))
    half = scipy.stats.t.ppf(0.975, n_tasks - 1) * error
    if hi > lo:
        stretch = max(1, 2 * half / (hi - lo))
        lo, hi = estimate + stretch * (lo - estimate), estimate + stretch * (hi - estimate)
    else:
        lo, hi = estimate - half, estimate + half
    return (float(max(lo, min(limits[0], estimate))), float(min(hi, max(limits[1], estimate))))


def ends(name, interval) -> dict[str, float]:
    return {f"{name}_lo": interval[0], f"{name}_hi": interval[1]}
