"""Threads and forks."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import moefps

pytestmark = pytest.mark.alone
X = np.random.default_rng(0).dirichlet(np.ones(16), (200, 4))


def test_two_threads_at_once():
    expected = moefps.wasserstein_matrix(X)
    picks = moefps.select(X, 20).indices

    def work(i):
        if i % 2:
            return np.array_equal(moefps.select(X, 20, n_threads=1 + i % 3).indices, picks)
        return np.array_equal(moefps.wasserstein_matrix(X, n_threads=1 + i % 3), expected)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(40)))


def test_other_threads_run_meanwhile():
    """The interpreter is free while the kernel works."""
    big = np.broadcast_to(X[:1], (8000, 4, 16))
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    ticker = threading.Thread(target=tick)
    ticker.start()
    try:
        begin = time.perf_counter()
        moefps.wasserstein_matrix(big, n_threads=1)
        end = time.perf_counter()
    finally:
        stop.set()
        ticker.join()
    inside = [t for t in ticks if begin < t < end]
    gaps = np.diff([begin, *inside, end])
    # What matters is that no gap is as long as the call itself.
    assert gaps.max() < max(0.1, 0.5 * (end - begin))


def test_a_call_from_another_thread_than_the_main_one():
    found = []
    worker = threading.Thread(target=lambda: found.append(moefps.wasserstein_matrix(X[:20])))
    worker.start()
    worker.join(30)
    np.testing.assert_array_equal(found[0], moefps.wasserstein_matrix(X[:20]))


FORK = """
import multiprocessing, warnings
import numpy as np
import moefps

X = np.random.default_rng(0).dirichlet(np.ones(16), (200, 4))
expected = moefps.wasserstein_matrix(X)
picks = moefps.select(X, 20, n_threads=2).indices

def child(queue):
    queue.put(bool(np.array_equal(moefps.wasserstein_matrix(X), expected)
                   and np.array_equal(moefps.select(X, 20, n_threads=2).indices, picks)))

warnings.simplefilter("ignore", DeprecationWarning)
context = multiprocessing.get_context("fork")
queue = context.Queue()
process = context.Process(target=child, args=(queue,))
process.start()
try:
    print(queue.get(timeout=20))
finally:
    process.kill()
"""


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork")
def test_a_fork_after_a_call():
    """The child has none of its parent's threads, and must not wait for them."""
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "True"
