"""What was measured, and on what."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from moefps.kernels import simd_levels

PACKAGES = ("moefps", "numpy", "scipy", "scikit-learn", "torch", "numba", "llvmlite", "skmatter", "fpsample")


def describe() -> dict[str, Any]:
    """Processor, system, versions, date, and how busy the machine was before it all began."""
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _cpu(),
        "cores": os.cpu_count() or 1,
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}, {platform.machine()}",
        "simd": list(simd_levels()),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "rustc": _rustc(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _cpu() -> str:
    """Give the model, with the numbers that tell generations apart where a virtual machine hides the name."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return platform.processor() or platform.machine()
    fields = dict(re.findall(r"^([^\t:]+?)\s*: (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE))
    name = fields.get("model name") or platform.machine()
    if "cpu family" not in fields:
        return name
    return f"{name} (family {fields['cpu family']}, model {fields.get('model', '?')})"


def _memory_gib() -> int | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    except (AttributeError, ValueError, OSError):
        return None


def _rustc() -> str | None:
    if shutil.which("rustc") is None:
        return None
    words = subprocess.run(["rustc", "--version"], capture_output=True, check=True, text=True).stdout.split()
    return words[1]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
