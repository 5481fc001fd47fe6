"""Any layout of the input gives the same bits, and none is silently copied."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest

import moefps
import reference
from support import filled_or_refused

pytestmark = pytest.mark.alone


def every_layout(X, folder):
    """The same numbers in memory in all the ways that numpy has."""
    n, n_layers, n_experts = X.shape
    read_only = X.copy()
    read_only.flags.writeable = False
    np.save(folder / "X.npy", X)
    np.save(folder / "F.npy", np.asfortranarray(X))
    wide = np.full((2 * n, n_layers + 3, 3 * n_experts), np.nan, dtype=X.dtype)
    wide[::2, 1:-2, ::3] = X
    raw = np.zeros(X.nbytes + 1, dtype=np.uint8)
    unaligned = raw[1:].view(X.dtype).reshape(X.shape)
    unaligned[...] = X
    return {
        "fortran": np.asfortranarray(X),
        "other_axes": X.transpose(1, 2, 0).copy().transpose(2, 0, 1),
        "strided": wide[::2, 1:-2, ::3],
        "reversed": X[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1],
        "read_only": read_only,
        "memory_mapped": np.load(folder / "X.npy", mmap_mode="r"),
        "memory_mapped_fortran": np.load(folder / "F.npy", mmap_mode="r"),
        "unaligned": unaligned,
    }


LAYOUTS = [
    "fortran",
    "other_axes",
    "strided",
    "reversed",
    "read_only",
    "memory_mapped",
    "memory_mapped_fortran",
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("source", ["float16", "float32", "float64"])
@pytest.mark.parametrize("ground", ["index", "values", "discrete"])
def test_layouts(layout, source, ground, tmp_path):
    X = reference.make("dirichlet_1", 19, 3, 11, seed=30).astype(source)
    other = every_layout(X, tmp_path)[layout]
    before = other.copy()
    for dtype in ("float32", "float64"):
        plain = moefps.wasserstein_matrix(X, ground=ground, dtype=dtype)
        np.testing.assert_array_equal(moefps.wasserstein_matrix(other, ground=ground, dtype=dtype), plain)
        np.testing.assert_array_equal(moefps.wasserstein_cross(other, X, ground=ground, dtype=dtype), plain)
        expected = moefps.select(X, 7, ground=ground, dtype=dtype)
        np.testing.assert_array_equal(moefps.select(other, 7, ground=ground, dtype=dtype).indices, expected.indices)
    np.testing.assert_array_equal(other, before)


def test_broadcast_input():
    """All strides zero: every sample and layer is the same row."""
    X = np.broadcast_to(np.full(8, 0.125, dtype=np.float32), (5, 3, 8))
    assert not moefps.wasserstein_matrix(X).any()


def test_unaligned_input(tmp_path):
    """Refused, or right."""
    X = reference.make("dirichlet_1", 6, 2, 5, seed=31).astype(np.float32)
    unaligned = every_layout(X, tmp_path)["unaligned"]
    assert not unaligned.flags.aligned
    out = np.empty((6, 6), np.float32)
    expected = moefps.wasserstein_matrix(X)
    filled_or_refused(lambda: moefps.wasserstein_matrix(unaligned, out=out), out, expected, "X.*aligned")


def test_fps_takes_any_layout(tmp_path):
    D = moefps.wasserstein_matrix(reference.make("dirichlet_1", 40, 2, 6, seed=32))
    np.save(tmp_path / "D.npy", D)
    wide = np.full((80, 120), np.nan, dtype=D.dtype)
    wide[::2, ::3] = D
    expected = moefps.fps(D, 12)
    for other in (
        np.asfortranarray(D),
        wide[::2, ::3],
        D[::-1, ::-1].copy()[::-1, ::-1],
        np.load(tmp_path / "D.npy", mmap_mode="r"),
        D.astype(np.float64),
    ):
        found = moefps.fps(other, 12)
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.radii, expected.radii)
        np.testing.assert_array_equal(found.assignment, expected.assignment)


# How much the peak of a fresh process grows by in one call, in MiB. The input is made and touched before.
GROWTH = """
import resource, sys
import numpy as np
import moefps

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

n, n_layers, n_experts = {shape}
X = np.zeros((n, n_layers, n_experts), dtype="{source}")
X[np.arange(n)[:, None], np.arange(n_layers), (np.arange(n)[:, None] * 7 + np.arange(n_layers) * 5) % n_experts] = 1
{layout}
moefps.{warm_up}
with open("/proc/self/clear_refs", "w") as refs:
    refs.write("5")
before = peak()
moefps.{call}
print(peak() - before)
"""

ELEMENTS = 150 * 64 * 2048  # 18.75 Mi numbers: 37.5 MiB as float16, 75 as float32, 150 as float64


def growth_mib(source, call, layout="", warm_up="wasserstein_matrix(np.full((2, 1, 2), 0.5))", shape=(150, 64, 2048)):
    if not sys.platform.startswith("linux"):
        pytest.skip("peak memory is read from /proc")
    script = GROWTH.format(source=source, call=call, layout=layout, warm_up=warm_up, shape=shape)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.parametrize("source", ["float16", "float32", "float64"])
@pytest.mark.parametrize("layout", ["", "X = X[:, ::-1, ::-1]", "X = np.asfortranarray(X)"], ids=["c", "reversed", "f"])
def test_the_matrix_needs_the_features_and_little_else(source, layout):
    features = 4 * ELEMENTS / 2**20
    grown = growth_mib(source, "wasserstein_matrix(X)", layout)
    assert features <= grown + 1
    assert grown <= 1.05 * features + 12


def test_the_float64_matrix_needs_its_features_and_little_else():
    features = 8 * ELEMENTS / 2**20
    assert growth_mib("float32", "wasserstein_matrix(X, dtype='float64')") <= 1.05 * features + 12


def test_a_memory_mapped_input_is_not_copied(tmp_path):
    """The pages of the file may come in; they are counted once, not twice."""
    path = str(tmp_path / "X.npy")
    layout = f"np.save({path!r}, X); del X; X = np.load({path!r}, mmap_mode='r')"
    features = 4 * ELEMENTS / 2**20
    assert growth_mib("float32", "wasserstein_matrix(X)", layout) <= 2.05 * features + 12


def test_select_needs_at_most_two_and_a_half_times_the_float32_input():
    """Counted with the input itself, as a user sees it."""
    size = 4 * ELEMENTS / 2**20
    assert growth_mib("float32", "select(X, 20, start=0)") + size <= 2.5 * size + 12
    assert growth_mib("float32", "select(X, 20)") + size <= 2.5 * size + 12


def test_a_matrix_on_disk_is_not_kept_in_memory(tmp_path):
    """9,000 x 9,000 float32 is 309 MiB; written in tiles it needs a small part of that."""
    call = f"wasserstein_matrix(X, out={str(tmp_path / 'D.npy')!r})"
    assert growth_mib("float32", call, shape=(9000, 1, 8)) <= 100


def test_fps_does_not_copy_the_matrix():
    call = "fps(D, 10)"
    layout = "D = moefps.wasserstein_matrix(X)"
    size = 4 * 5000**2 / 2**20
    assert growth_mib("float32", call, layout, shape=(5000, 1, 8)) <= 0.2 * size + 12
