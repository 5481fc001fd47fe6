"""What this machine could do at best: runs `benches/rust/ceiling`, which measures it."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

from .data import ROOT

MANIFEST = ROOT / "rust" / "moefps-core" / "Cargo.toml"


def build() -> Path | None:
    """Compile the program if need be, and return where it is; None without cargo."""
    if shutil.which("cargo") is None:
        return None
    command = ["cargo", "bench", "--no-run", "--locked", "--bench", "ceiling", "--message-format", "json"]
    done = subprocess.run([*command, "--manifest-path", str(MANIFEST)], stdout=subprocess.PIPE, check=True, text=True)
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == "ceiling":
            return Path(message["executable"])
    return None


class Ceiling:
    """Runs the program once a round and keeps what it says."""

    def __init__(self, program: str, n_threads: int, milliseconds: int) -> None:
        self._command = [program, "--threads", str(n_threads), "--milliseconds", str(milliseconds)]
        self._found: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._simd = ""

    def measure(self) -> None:
        """One more round."""
        environment = {name: value for name, value in os.environ.items() if name != "MOEFPS_SIMD"}
        output = subprocess.run(self._command, env=environment, capture_output=True, check=True, text=True).stdout
        for line in output.splitlines():
            row = json.loads(line)
            self._simd = row["simd"]
            self._found[row["kind"], row["place"]].append(row["elements_per_second"])

    def results(self) -> list[dict[str, Any]]:
        """Return the medians, with all that they are the medians of."""
        return [
            {"kind": kind, "place": place, "simd": self._simd, "median": statistics.median(rates), "rates": rates}
            for (kind, place), rates in self._found.items()
        ]
