"""Results as Markdown, between two marks of a page."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .timing import ratios

BEGIN = "<!-- results: begin (written by `make bench`) -->"
END = "<!-- results: end -->"

Result = dict[str, Any]


def insert(text: str, page: Path) -> None:
    """Replace what stands between the marks of `page`."""
    before, found, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, found_end, after = rest.partition(END)
    if not found or not found_end:
        raise SystemExit(f"error: {page.name}: found no {BEGIN} … {END}; accepted: a page that has both marks")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", encoding="utf-8")


def markdown(results: Result) -> str:
    """Write the whole text between the marks."""
    parts = [_machine(results["machine"])]
    if results["quick"]:
        parts.append("**A trial run on small data: the times mean nothing.**\n")
    matrix, select = results.get("matrix", {}), results.get("select", {})
    parts += [_unequal(matrix), _unequal(select), _summary(matrix, select)]
    if matrix:
        parts += [_matrix(matrix), _bound(matrix)]
    if select:
        parts += [_select(select), _other_selections(select)]
    if matrix and select:
        parts.append(_passes(matrix, select))
    if "metrics" in results:
        parts += [_unequal(results["metrics"]), _trace_metrics(results["metrics"])]
    if "compare" in results:
        parts += [_unequal(results["compare"]), _comparison(results["compare"])]
    if "precision" in results:
        parts.append(_precision(results["precision"]))
    if results["rust"]:
        parts.append(_rust(results["rust"]))
    return "\n".join(part for part in parts if part)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Make a Markdown table; columns of numbers are set to the right."""
    cells = [list(row) for row in rows]
    numbers = [all(row[i][:1].isdigit() or not row[i] for row in cells) for i in range(len(head))]
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join("---:" if right else "---" for right in numbers) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """Write three digits that count, and no exponent: 0.0123, 4.56, 78,900."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    digits = max(0, 2 - int(f"{abs(value):.2e}".split("e")[1]))
    return f"{value:.{digits}f}"


def _times(slower: Result, faster: Result) -> str:
    """Say how many times as long: the median, and the span over the rounds."""
    if slower is faster:
        return "1"
    found = ratios(slower["seconds"], faster["seconds"])
    span = f" ({number(found['low'])} to {number(found['high'])})" if len(slower["seconds"]) > 1 else ""
    return number(found["median"]) + span


def _median(result: Result) -> float:
    return statistics.median(result["seconds"])


def _threads(n: str) -> str:
    return f"{n} thread{'s' * (n != '1')}"


def _shape(case: Result) -> str:
    return " x ".join(f"{size:,}" for size in case["shape"])


def _label(result: Result, full_runs: int) -> str:
    """Give the name, with what was done less of."""
    runs = len(result["seconds"])
    notes = [result["part"]] if result.get("part") else []
    notes += [f"{runs} run{'s' * (runs > 1)}"] if runs < full_runs else []
    return result["name"] + (f" [{', '.join(notes)}]" if notes else "")


def _machine(machine: Result) -> str:
    packages = ", ".join(f"{name} {version or '(not installed)'}" for name, version in machine["packages"].items())
    memory = f", {machine['memory_gib']} GiB" if machine["memory_gib"] else ""
    rust = f", rustc {machine['rustc']}" if machine["rustc"] else ""
    load = "" if machine["load"] is None else f" Load average before: {machine['load']:.1f}."
    return (
        f"Measured {machine['date']} on {machine['cpu']}, {machine['cores']} cores{memory}; {machine['system']}; "
        f"instruction set used: {machine['simd'][-1]}.{load}\n\n"
        f"Python {machine['python']}{rust}; {packages}.\n"
    )


def _unequal(by_threads: Result) -> str:
    found = {n: worker["unequal"] for n, worker in by_threads.items() if worker["unequal"]}
    return f"**The threads were not equal: wanted, found {found}.**\n" if found else ""


# What the page begins with.
HEADLINES = {
    ("torch.pdist(p=1)", "float32"),
    ("numba, written for this", "float32"),
    ("scipy pdist(cityblock)", "float64"),
    ("scipy.stats.wasserstein_distance, looped", "float64"),
}


def _summary(matrix: Result, select: Result) -> str:
    """Say in a few lines how things compare on the largest number of threads."""
    lines = []
    for n, found in list(matrix.items())[-1:]:
        contenders = found["result"]["contenders"]
        lines += [
            f"- {c['name']} takes {_times(c, contenders[0])} times as long as the `float32` matrix, {_threads(n)}"
            for c in contenders
            if (c["name"], c["dtype"]) in HEADLINES
        ]
    for n, found in list(select.items())[-1:]:
        case = found["result"][0]
        for start in ("0", "medoid"):
            pruned, plain = _pruned_and_not(case, start)
            what = f"`select` of {case['n_select']} {case['data']}, start {start}"
            lines.append(f"- {what}, takes {_times(plain, pruned)} times as long without its bounds, {_threads(n)}")
    return "\n".join(lines) + "\n" if lines else ""


def _matrix(by_threads: Result) -> str:
    shape = next(iter(by_threads.values()))["result"]["shape"]
    text = [f"## Matrix: {shape[0]:,} samples, {shape[1]} layers, {shape[2]} experts\n"]
    head = ["way", "dtype", "threads", "seconds", "times moefps `float32`", "times moefps `float64`", "error / d"]
    for n, found in by_threads.items():
        contenders = found["result"]["contenders"]
        single, double = contenders[:2]
        rows = []
        for c in contenders:
            error = f"{c['error']:.1e}" if "error" in c else ""
            times = [_times(c, single), _times(c, double)]
            label = _label(c, len(single["seconds"]))
            rows.append([label, c["dtype"], str(c["threads"]), number(_median(c)), *times, error])
        text += [f"### Matrix on {_threads(n)}\n", table(head, rows)]
    return "\n".join(text)


KINDS = {
    "max_u32": "maximum and sum of 32-bit integers, what `float32` does",
    "f64": "difference, absolute value and sum of float64, what `float64` does",
    "f32": "difference, absolute value and sum of float32, what others do",
}


def _rates(found: Result) -> dict[tuple[str, str], float]:
    return {(row["kind"], row["place"]): row["median"] for row in found["result"]["ceiling"]}


def _bound(by_threads: Result) -> str:
    text = ["## Elements a second, and the machine's bound\n"]
    for n, found in by_threads.items():
        result, rates = found["result"], _rates(found)
        if rates:
            head = [
                f"bound on {_threads(n)}, 10⁹ elements a second",
                "in registers",
                "from the L1 cache",
                "from memory",
            ]
            places = ("registers", "l1", "memory")
            rows = [[words, *(number(rates[kind, p] / 1e9) for p in places)] for kind, words in KINDS.items()]
            text.append(table(head, rows))
        head = [
            f"matrix on {_threads(n)}",
            "10⁹ elements a second",
            "of the bound in registers",
            "of the bound from L1",
        ]
        text.append(table(head, _shares(result, rates)))
    return "\n".join(text)


def _shares(result: Result, rates: dict[tuple[str, str], float]) -> Iterator[list[str]]:
    for c in result["contenders"]:
        rate = result["elements"] / _median(c)
        kind = "f64" if c["dtype"] == "float64" else "max_u32" if c.get("ours") else "f32"
        shares = [f"{100 * rate / rates[kind, at]:.2g} %" if rates else "" for at in ("registers", "l1")]
        yield [c["name"] if c.get("ours") else f"{c['name']}, {c['dtype']}", number(rate / 1e9), *shares]


def _select(by_threads: Result) -> str:
    cases = {n: found["result"][0] for n, found in by_threads.items()}
    main = next(iter(cases.values()))
    head = ["way", "dtype", "start"]
    for n in cases:
        head += [f"seconds, {_threads(n)}", "times `prune=True`"]
    rows = []
    for i, c in enumerate(main["contenders"]):
        cells = [_label(c, len(main["contenders"][0]["seconds"])), c["dtype"], c["start"] or "0"]
        for case in cases.values():
            timed = case["contenders"][i]
            cells += [number(_median(timed)), _times_pruned(timed, case["contenders"])]
        rows.append([*cells, _same(case["contenders"][i] for case in cases.values())])
    title = f"## Selection: {main['n_select']} of {main['data']} ({_shape(main)})\n\n"
    return title + table([*head, "same picks"], rows)


def _times_pruned(c: Result, contenders: Sequence[Result]) -> str:
    wanted = (c["start"] or "0", c["dtype"] if "prune" in c else "float32")
    return _times(c, next(p for p in contenders if p.get("prune") and (p["start"], p["dtype"]) == wanted))


def _same(contenders: Iterable[Result]) -> str:
    found = [c.get("same") for c in contenders]
    return "other distance" if None in found else "yes" if all(found) else "**no**"


def _pruned_and_not(case: Result, start: str) -> list[Result]:
    """Find our two ways in the default dtype, from the same start."""
    wanted = [(start, "float32", prune) for prune in (True, False)]
    by_way = {(c["start"], c["dtype"], c.get("prune")): c for c in case["contenders"]}
    return [by_way[way] for way in wanted]


def _other_selections(by_threads: Result) -> str:
    all_cases = {n: found["result"] for n, found in by_threads.items()}
    head = ["data", "samples", "ground", "start"]
    for n in all_cases:
        head += [f"seconds, {_threads(n)}", "`prune=False` takes times"]
    rows = []
    first = next(iter(all_cases.values()))
    for i, case in enumerate(first):
        for start in ("0", "medoid"):
            cells = [case["data"], f"{case['shape'][0]:,}", case["ground"], start]
            both: list[Result] = []
            for cases in all_cases.values():
                pruned, plain = _pruned_and_not(cases[i], start)
                cells += [number(_median(pruned)), _times(plain, pruned)]
                both += [pruned, plain]
            rows.append([*cells, _same(both)])
    return "## Selection: what the bounds bring on other data\n\n" + table([*head, "same picks"], rows)


def _passes(matrix: Result, select: Result) -> str:
    """Hold selection without bounds, a pass over all features for each pick, against the memory."""
    rows = []
    for n, found in select.items():
        rates = _rates(matrix[n])
        for case in found["result"]:
            _, plain = _pruned_and_not(case, "0")
            rate = case["elements"] / _median(plain)
            share = f"{100 * rate / rates['max_u32', 'memory']:.2g} %" if rates else ""
            mebibytes = case["elements"] / case["n_select"] * 4 / 2**20
            rows.append([f"{case['data']}, {case['ground']}", n, f"{mebibytes:,.0f}", number(rate / 1e9), share])
    head = ["`select(prune=False)`", "threads", "features, MiB", "10⁹ elements a second", "of the bound from memory"]
    return "## Selection without bounds, and the machine's memory\n\n" + table(head, rows)


def _trace_metrics(by_threads: Result) -> str:
    """Real traces beside a plain loop, and a large dump against the clock."""
    real, large = [], []
    for n, found in by_threads.items():
        result = found["result"]
        ours, *others = result["real"]["contenders"]
        data = f"{result['real']['data']} ({_shape(result['real'])})"
        real += [[data, c["name"], str(c["threads"]), number(_median(c)), _times(c, ours)] for c in (ours, *others)]
        for c in result["generated"]["contenders"]:
            rate = result["generated"]["assignments"] / _median(c)
            memory = f"{c['anonymous_bytes'] / 1e9:.2f}"
            large.append([c["name"], n, number(_median(c)), number(rate / 1e6), memory])
    size = next(iter(by_threads.values()))["result"]["generated"]
    text = "## Routing metrics\n\n"
    text += table(["data", "way", "threads", "seconds", "times `moefps.routing_metrics`"], real)
    text += f"\nA generated dump of {size['assignments']:,} assignments ({_shape(size)}), mapped from disk:\n\n"
    head = ["what", "threads", "seconds", "10⁶ assignments a second", "anonymous memory, GB"]
    return text + table(head, large)


def _comparison(by_threads: Result) -> str:
    """Two conditions compared, beside the sums alone in other ways."""
    rows = []
    for n, found in by_threads.items():
        whole, kernel, *others = found["result"]["contenders"]
        for c in (whole, kernel, *others):
            memory = f"{c['anonymous_bytes'] / 1e9:.2f}" if "anonymous_bytes" in c else ""
            difference = f"{c['difference']:.1g}" if "difference" in c else ""
            label = _label(c, len(whole["seconds"]))
            times = _times(c, whole), _times(c, kernel)
            rows.append([label, n, number(_median(c)), *times, memory, difference])
    case = next(iter(by_threads.values()))["result"]
    n_tokens, n_layers, top_k = case["shape"]
    text = (
        f"## Comparison of two conditions\n\n{n_tokens * n_layers:,} pairs of choices ({n_tokens:,} tokens in "
        f"{n_layers} layers, top-{top_k}) of {case['tasks']} tasks in {case['groups']} groups, mapped from disk. "
        f"`moefps.compare` reads the file of pairs, joins, sums and makes all tables, with {case['resamples']:,} "
        f"resamples of tasks; the others are handed the joined rows, and only sum:\n\n"
    )
    head = [
        "way",
        "threads",
        "seconds",
        "times `moefps.compare`",
        "times its kernel",
        "anonymous memory, GB",
        "largest difference of a mean",
    ]
    return text + table(head, rows)


def _precision(rows: Sequence[Result]) -> str:
    head = ["data", "ground", "`float32`", "`float64`"]
    cells = [[r["data"], r["ground"], f"{r['float32']:.2g}", f"{r['float64']:.2g}"] for r in rows]
    return "## Precision: the largest error as a share of what is allowed\n\n" + table(head, cells)


def _rust(rows: Sequence[Result]) -> str:
    cells = []
    for r in rows:
        rate = r["elements_per_second"]
        throughput = number(rate / 1e9) if rate else ""
        cells.append([r["group"], r["what"], r["simd"], str(r["threads"]), number(r["seconds"] * 1e3), throughput])
    head = ["group", "what", "instruction set", "threads", "milliseconds", "10⁹ elements a second"]
    return "## Kernels alone (criterion)\n\n" + table(head, cells)
