"""Run all comparisons, and write them into `docs/benchmarks.md`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from . import bound, criterion, machine, report, threads
from .data import ROOT
from .timing import say

PAGE = ROOT / "docs" / "benchmarks.md"
RESULTS = ROOT / "benches" / "results"
SECTIONS = ("matrix", "select", "metrics", "compare", "precision")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benches.python", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, to try the benchmarks themselves")
    parser.add_argument("--only", choices=SECTIONS, help="one section alone")
    parser.add_argument(
        "--threads",
        type=int,
        nargs="+",
        help="numbers of threads to run everything with (default: 1 and 2; with --quick 2)",
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--ceiling", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help="where the results go, as JSON (default: benches/results/)")
    options = parser.parse_args(arguments)
    most = min(2, os.cpu_count() or 1)
    options.threads = options.threads or ([most] if options.quick else sorted({1, most}))
    return options


def work(options: argparse.Namespace) -> None:
    """Do one section with one number of threads, in the process that has them."""
    (n_threads,) = options.threads
    found: dict[str, Any] = {}
    if options.worker == "matrix":
        from . import matrix

        found["result"] = matrix.main(n_threads, quick=options.quick, ceiling_program=options.ceiling)
    elif options.worker == "select":
        from . import picking

        found["result"] = picking.main(n_threads, quick=options.quick)
    elif options.worker == "metrics":
        from . import trace_metrics

        found["result"] = trace_metrics.main(n_threads, quick=options.quick)
    elif options.worker == "compare":
        from . import comparing

        found["result"] = comparing.main(n_threads, quick=options.quick)
    else:
        from . import precision

        found["result"] = precision.main(quick=options.quick)
    found["unequal"] = threads.unequal(n_threads)
    options.output.write_text(json.dumps(found), encoding="utf-8")


def start_worker(section: str, n_threads: int, options: argparse.Namespace, program: Path | None) -> dict[str, Any]:
    """Run :func:`work` in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "result.json"
        command = [sys.executable, "-m", "benches.python", "--worker", section, "--threads", str(n_threads)]
        command += ["--output", str(output)]
        command += ["--quick"] * options.quick
        command += ["--ceiling", str(program)] if program else []
        subprocess.run(command, cwd=ROOT, env=threads.environment(n_threads), check=True)
        found: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
        return found


def main() -> None:
    """Run what was asked for."""
    options = parse()
    if options.worker:
        work(options)
        return
    results: dict[str, Any] = {"machine": machine.describe(), "quick": options.quick, "rust": criterion.results()}
    sections = [options.only] if options.only else SECTIONS
    program = bound.build() if "matrix" in sections else None
    if "precision" in sections:
        results["precision"] = start_worker("precision", max(options.threads), options, None)["result"]
    for section in sections:
        if section == "precision":
            continue
        results[section] = {n: start_worker(section, n, options, program) for n in options.threads}
    # As read back from a file: the keys are strings.
    results = json.loads(json.dumps(results))
    output = options.output or RESULTS / ("quick.json" if options.quick else "latest.json")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    text = report.markdown(results)
    if options.quick or options.only:
        print(text)
    else:
        report.insert(text, PAGE)
        say(f"written: {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
