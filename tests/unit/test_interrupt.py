"""Long calls can be followed and stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import moefps
from moefps.kernels import count_routing

pytestmark = pytest.mark.alone
X = np.random.default_rng(0).dirichlet(np.ones(16), (300, 4))
D = moefps.wasserstein_matrix(X)
IDS = np.broadcast_to(np.arange(4, dtype=np.int16), (20_000, 2, 4))
CALLS = {
    "matrix": lambda **how: moefps.wasserstein_matrix(X, **how),
    "matrix_float64": lambda **how: moefps.wasserstein_matrix(X, dtype="float64", **how),
    "cross": lambda **how: moefps.wasserstein_cross(X, X, **how),
    "fps": lambda **how: moefps.fps(D, 50, **how),
    "fps_stopped": lambda **how: moefps.fps(D, 50, stop_radius=30.0, **how),
    "select": lambda **how: moefps.select(X, 50, **how),
    "select_from": lambda **how: moefps.select(X, 50, start=0, **how),
    "select_unpruned": lambda **how: moefps.select(X, 50, prune=False, **how),
    "select_stopped": lambda **how: moefps.select(X, None, stop_radius=10.0, **how),
    "mean_distances": lambda **how: moefps.mean_distances(X, **how),
    "typicality": lambda **how: moefps.typicality(X, **how),
    "evaluate_selection": lambda **how: moefps.evaluate_selection(X, [0, 1], n_random=20, **how),
    "count_routing": lambda **how: count_routing(IDS, n_experts=4, **how),
}


@pytest.mark.parametrize("name", CALLS)
def test_progress_goes_up_and_ends_at_the_total(name):
    seen: list[tuple[int, int]] = []
    CALLS[name](progress=lambda done, total: seen.append((done, total)))
    assert seen
    assert all(isinstance(n, int) for pair in seen for n in pair)
    done = [d for d, _ in seen]
    assert done == sorted(done)
    assert all(0 <= d <= t for d, t in seen)
    assert seen[-1][0] == seen[-1][1] > 0


@pytest.mark.parametrize("name", CALLS)
def test_progress_comes_from_the_calling_thread(name):
    threads = set()
    CALLS[name](progress=lambda done, total: threads.add(threading.get_ident()))
    assert threads == {threading.get_ident()}


@pytest.mark.parametrize("name", CALLS)
def test_an_error_in_the_callback_ends_the_call(name):
    def callback(done, total):
        raise RuntimeError("from the callback")

    with pytest.raises(RuntimeError, match="from the callback"):
        CALLS[name](progress=callback)


def test_an_error_in_the_callback_leaves_no_file(tmp_path):
    def callback(done, total):
        assert done < total, "the call ended before it was followed"
        raise RuntimeError("from the callback")

    big = np.broadcast_to(X[:1], (8000, 4, 16))
    with pytest.raises(RuntimeError):
        moefps.wasserstein_matrix(big, out=tmp_path / "D.npy", progress=callback)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", CALLS)
def test_a_callback_may_call_us(name):
    """Nothing is locked while the callback runs."""
    found = []

    def callback(done, total):
        if not found:
            found.append(moefps.wasserstein_matrix(X[:3]))

    CALLS[name](progress=callback)
    np.testing.assert_array_equal(found[0], D[:3, :3])


def test_the_bar_goes_to_stderr():
    code = (
        "import numpy, moefps; X = numpy.full((50, 1, 4), 0.25); moefps.wasserstein_matrix(X, progress=True); "
        "moefps.select(X, 1, progress=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


# Ten seconds of work or so; every sample is the same memory, so the input costs nothing.
LONG = """
import json, os, signal, sys, threading, time
import numpy as np
import moefps

rng = np.random.default_rng(0)
X = np.broadcast_to(rng.dirichlet(np.ones({n_experts}), {n_layers}), ({n}, {n_layers}, {n_experts}))
moefps.wasserstein_matrix(X[:2])
sent, steps = [], [time.perf_counter()]

def interrupt():
    time.sleep({after})
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt, daemon=True).start()
try:
    {call}
except KeyboardInterrupt:
    stopped = time.perf_counter()
    step = max(np.diff([*steps, stopped]).tolist())
    print(json.dumps({{"late": stopped - sent[0], "step": step, "calls": len(steps)}}))
else:
    print(json.dumps({{"late": None}}))
"""


# On Windows, os.kill with SIGINT ends the process at once.
unix = pytest.mark.skipif(sys.platform == "win32", reason="needs Unix signals")


def interrupted(call, after=1.0, n=20_000, n_layers=8, n_experts=256):
    """How late the call ended, and the longest time between two steps of its progress, in seconds.

    The goal is a fifth of a second on a quiet machine. A busy one gets some more, and three tries.
    """
    script = LONG.format(call=call, after=after, n=n, n_layers=n_layers, n_experts=n_experts)
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["late"] is not None, "the call ended before it was interrupted"
        if found["late"] < 0.4 and found["step"] < 1.0:
            return found
    pytest.fail(f"three times too late: {found}")


FOLLOW = "progress=lambda done, total: steps.append(time.perf_counter())"


@unix
@pytest.mark.slow
@pytest.mark.parametrize(
    "call",
    [
        f"moefps.wasserstein_matrix(X, {FOLLOW})",
        f"moefps.wasserstein_matrix(X[:12000], dtype='float64', {FOLLOW})",
        f"moefps.wasserstein_cross(X, X, {FOLLOW})",
        f"moefps.mean_distances(np.broadcast_to(X[:1], (60000, 8, 256)), {FOLLOW})",
        f"moefps.kernels.count_routing(np.broadcast_to(np.int16(1), (4000000, 96, 8)), n_experts=9, {FOLLOW})",
        # Equal samples would all be covered by the first pick.
        f"moefps.select(rng.dirichlet(np.ones(16), (20000, 8)), 20000, prune=False, {FOLLOW})",
    ],
    ids=["matrix", "matrix_float64", "cross", "mean_distances", "count_routing", "select"],
)
def test_ctrl_c(call):
    found = interrupted(call, after=0.4 if "mean" in call else 1.0)
    assert found["calls"] >= 2


@unix
@pytest.mark.slow
def test_ctrl_c_leaves_no_file(tmp_path):
    interrupted(f"moefps.wasserstein_matrix(X, out={str(tmp_path / 'D.npy')!r}, {FOLLOW})")
    assert list(tmp_path.iterdir()) == []


@unix
@pytest.mark.slow
def test_ctrl_c_early():
    """While the features are made."""
    interrupted(f"moefps.wasserstein_matrix(X, {FOLLOW})", after=0.02)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs Unix timers")
def test_other_signals_are_handled_meanwhile():
    """A Python handler runs while the kernel works, and the call goes on."""
    seen = []
    old = signal.signal(signal.SIGALRM, lambda *_: seen.append(time.perf_counter()))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        big = np.broadcast_to(X[:1], (6000, 4, 16))
        for _ in range(20):
            assert not moefps.wasserstein_matrix(big, condensed=True).any()
            if len(seen) >= 3:
                break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert len(seen) >= 3
