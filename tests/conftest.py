"""Fixtures and settings that all tests share."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, settings

TESTS = Path(__file__).resolve().parent
DATA = TESTS.parent.parent / "shared" / "data"
CPU = Path("/proc/cpuinfo")

# The references are a package beside the tests, found from wherever the tests are run.
sys.path.insert(0, str(TESTS))

# Deterministic: the same examples on every run and machine, none kept on disk.
settings.register_profile(
    "moefps",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("moefps")


ARM = platform.machine() in {"aarch64", "arm64"}
# What an instruction set is called in MOEFPS_SIMD, and in /proc/cpuinfo.
SIMD = (
    {"scalar": set(), "neon": set()}
    if ARM
    else {"scalar": set(), "avx2": {"avx2"}, "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"}}
)


@pytest.fixture(params=SIMD)
def simd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test once for every instruction set that the CPU is known to have, found without asking moefps."""
    level: str = request.param
    flags = set(CPU.read_text(encoding="utf-8").split()) if CPU.is_file() else set()
    if not SIMD[level] <= flags:
        pytest.skip(f"this CPU is not known to have {level}")
    monkeypatch.setenv("MOEFPS_SIMD", level)
    return level


class Traces:
    """Routing of real texts: 26 layers of 64 experts, six of them for each token."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as arrays:
            self.experts = arrays["expert_ids"]
            weights = arrays["weights"].astype(np.float64)
            self.offsets = arrays["offsets"]
            self.tasks = arrays["task"]
        self.weights = weights / weights.sum(axis=2, keepdims=True)

    def fingerprint(self, start: int, stop: int) -> npt.NDArray[np.float64]:
        """Mean over tokens of the six weights divided by their sum: shape (26, 64)."""
        ids, weights = self.experts[start:stop], self.weights[start:stop]
        n_layers = ids.shape[1]
        where = np.arange(n_layers)[None, :, None] * 64 + ids
        mass = np.bincount(where.ravel(), weights.ravel(), minlength=n_layers * 64)
        return mass.reshape(n_layers, 64) / (stop - start)

    def samples(self) -> npt.NDArray[np.float64]:
        """One fingerprint a text: shape (213, 26, 64)."""
        return np.array([self.fingerprint(a, b) for a, b in zip(self.offsets[:-1], self.offsets[1:], strict=True)])

    def windows(self, length: int = 32, stride: int = 8) -> npt.NDArray[np.float32]:
        """One fingerprint a window of ``length`` tokens; the tail of a text that fills none is left out."""
        spans = [
            (t, t + length)
            for a, b in zip(self.offsets[:-1], self.offsets[1:], strict=True)
            for t in range(a, b - length + 1, stride)
        ]
        return np.array([self.fingerprint(*span) for span in spans], dtype=np.float32)


@pytest.fixture(scope="session")
def traces() -> Traces:
    """The real traces, where the machine has them."""
    path = DATA / "esft" / "esft_traces.npz"
    if not path.is_file():
        pytest.skip(f"the real traces are not there: {os.path.relpath(path, TESTS.parent)}")
    return Traces(path)


@pytest.fixture(scope="session")
def esft(traces: Traces) -> npt.NDArray[np.float64]:
    """Real fingerprints, float64 of shape (213, 26, 64)."""
    return traces.samples()


@pytest.fixture(scope="session")
def esft_windows(traces: Traces) -> npt.NDArray[np.float32]:
    """Real fingerprints of overlapping windows of 32 tokens, float32 of shape (3431, 26, 64)."""
    return traces.windows()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that read real data."""
    for item in items:
        if "traces" in getattr(item, "fixturenames", ()):
            item.add_marker("real_data")
