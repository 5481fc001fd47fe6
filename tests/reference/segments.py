"""Windows, caches and vocabularies, token by token and window by window, straight from the definitions."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction


def sets_of_experts(ids, n_experts):
    """The experts that each row of a layer uses: those of filled slots that are not passive."""
    return [{int(e) for e in row if 0 <= e < n_experts} for row in ids]


def sequences(used, follows):
    """Tokens that follow each other, each with a filled slot."""
    found, open_sequence = [], []
    for experts, goes_on in zip(used, follows, strict=True):
        if open_sequence and not (goes_on and experts):
            found.append(open_sequence)
            open_sequence = []
        if experts:
            open_sequence.append(experts)
    return [*found, open_sequence] if open_sequence else found


def windows(found, m):
    return [sequence[p : p + m] for sequence in found for p in range(len(sequence) - m + 1)]


def frequencies(found, m, expert):
    """f: in how many tokens of each window an expert is active."""
    return [sum(expert in experts for experts in window) for window in windows(found, m)]


def best_performance(f, m, k, n_windows):
    """SRP, its lowest α, and the size ratio, of a list of all f; None where there is nothing to predict."""  # noqa: RUF002
    if not sum(f):
        return None
    best = None
    for alpha in range(1, m + 1):
        chosen = [x for x in f if x >= alpha]
        f1 = Fraction(2 * sum(chosen), m * len(chosen) + sum(f))
        if best is None or f1 > best[0]:
            best = f1, alpha, Fraction(len(chosen), k * n_windows)
    return best


def cache_hits(found, size, m):
    """Hits and activations of a cache of some experts, which is emptied before each sequence."""
    hits = activations = 0
    for sequence in found:
        cache = set()
        for t, experts in enumerate(sequence):
            ahead = sequence[t + 1 : t + 1 + m]
            uses = {e: sum(e in other for other in ahead) for e in experts | cache}
            hits += len(experts & cache)
            activations += len(experts)
            for loaded in sorted(experts - cache, key=lambda e: (-uses[e], e)):
                if len(cache) == size:
                    others = cache - experts
                    if not others:
                        continue
                    cache.remove(min(others, key=lambda e: (uses[e], -e)))
                cache.add(loaded)
    return hits, activations


def vocabulary(used, token_ids, n_experts, min_count, top):
    """Everything that a layer's vocabulary says."""
    tokens = defaultdict(list)
    for x, experts in zip(token_ids, used, strict=True):
        if experts:
            tokens[int(x)].append(experts)
    n_tokens = sum(map(len, tokens.values()))
    without_id = len(tokens.pop(-1, []))
    tokens = {x: tokens[x] for x in sorted(tokens) if len(tokens[x]) >= min_count}
    table = [
        (x, e, n, len(those))
        for x, those in tokens.items()
        for e in range(n_experts)
        if (n := sum(e in experts for experts in those))
    ]
    lists, mean, largest = [], [], []
    for expert in range(n_experts):
        shares = [(Fraction(n, total), x, n, total) for x, e, n, total in table if e == expert]
        shares.sort(key=lambda share: (-share[0], share[1]))
        lists.append([share[1:] for share in shares[:top]])
        # Token ids that never choose the expert count, too: their share is 0.
        n_top = min(top, len(tokens))
        mean.append(float(sum((share[0] for share in shares[:top]), Fraction(0)) / n_top) if n_top else None)
        largest.append(float(shares[0][0]) if shares else 0.0 if tokens else None)
    counted = sum(map(len, tokens.values()))
    return {
        "tokens": n_tokens,
        "tokens_without_id": without_id,
        "tokens_counted": counted,
        "n_token_ids": len(tokens),
        "table": table,
        "lists": lists,
        "mean": mean,
        "max": largest,
    }
