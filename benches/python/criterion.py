"""What `cargo bench` has measured, read from the files that criterion leaves."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from .data import ROOT

# Older results may be of other code.
NEWEST_SECONDS = 3600


def results() -> list[dict[str, Any]]:
    """Every benchmark of the last hour, in the order in which they ran."""
    folder = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "criterion"
    files = sorted(folder.glob("*/*/*/new/estimates.json"), key=lambda path: path.stat().st_mtime)
    return [_read(path) for path in files if time.time() - path.stat().st_mtime < NEWEST_SECONDS]


def _read(path: Path) -> dict[str, Any]:
    benchmark = json.loads(path.with_name("benchmark.json").read_text(encoding="utf-8"))
    median = json.loads(path.read_text(encoding="utf-8"))["median"]
    simd, threads = benchmark["value_str"].split(" x ")
    seconds = median["point_estimate"] / 1e9
    elements = (benchmark["throughput"] or {}).get("Elements")
    return {
        "group": benchmark["group_id"],
        "what": benchmark["function_id"],
        "simd": simd,
        "threads": int(threads),
        "seconds": seconds,
        "elements_per_second": elements / seconds if elements else None,
    }
