"""The same number of threads for everybody."""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLES = (
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def environment(n_threads: int) -> dict[str, str]:
    """Make the environment of a process in which nothing has more than `n_threads` threads.

    Most libraries look at it once, when they are imported; so each number of threads gets a process of its own.
    """
    variables = dict(os.environ)
    # moefps is to use what the machine has.
    variables.pop("MOEFPS_SIMD", None)
    variables.update(dict.fromkeys(VARIABLES, str(n_threads)))
    return variables


def pools() -> dict[str, int]:
    """Ask everything that has been imported how many threads it has."""
    found: dict[str, int] = {}
    for library in ("torch", "numba"):
        if library in sys.modules:
            found[library] = sys.modules[library].get_num_threads()
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return found
    for pool in threadpool_info():
        name = Path(pool["filepath"]).name.split(".")[0]
        found[name] = pool["num_threads"]
    return found


def unequal(n_threads: int) -> dict[str, int]:
    """Find what has another number of threads after all."""
    return {name: count for name, count in pools().items() if count != n_threads}
