"""The trace that the worked examples of the registry are about.

Four tokens of one sequence, each with two of four experts; the weights are the router's probabilities as they are, and
the logits one more than their logarithms. Tokens 0 and 2 are of one domain, tokens 1 and 3 of another.

===== ======= ============= ======================== ==========================
token slots   weights w     shares ŵ                 probabilities p
===== ======= ============= ======================== ==========================
0     0, 1    0.6, 0.2      0.75, 0.25               0.6, 0.2, 0.1, 0.1
1     0, 2    0.4, 0.4      0.5, 0.5                 0.4, 0.1, 0.4, 0.1
2     0, 1    0.6, 0.2      0.75, 0.25               0.6, 0.2, 0.1, 0.1
3     0, 2    0.2, 0.6      0.25, 0.75               0.2, 0.1, 0.6, 0.1
===== ======= ============= ======================== ==========================

So c = 4, 2, 2, 0 with A = 8, m = 2, q = 1/2, 1/4, 1/4, 0; Σŵ = 2.25, 0.5, 1.25, 0 with r = 0.5625, 0.125, 0.3125, 0;
Σw = 1.8, 0.4, 1.0, 0; the mean weight of a choice a = 0.45, 0.2, 0.5, 0; the mean of p is 0.45, 0.15, 0.3, 0.1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["EXAMPLE", "ExampleTrace"]


class ExampleTrace(NamedTuple):
    """A trace of one layer."""

    expert_ids: npt.NDArray[np.int16]
    """[4, 1, 2]"""
    expert_weights: npt.NDArray[np.float32]
    """[4, 1, 2]"""
    router_logits: npt.NDArray[Any]
    """[4, 1, 4], of a softmax router"""
    offsets: tuple[int, ...]
    domains: tuple[str, ...]
    """Of each token."""


_PROBS = np.array([[0.6, 0.2, 0.1, 0.1], [0.4, 0.1, 0.4, 0.1], [0.6, 0.2, 0.1, 0.1], [0.2, 0.1, 0.6, 0.1]])
_IDS = np.array([[0, 1], [0, 2], [0, 1], [0, 2]], dtype=np.int16)

EXAMPLE = ExampleTrace(
    _IDS[:, np.newaxis],
    np.take_along_axis(_PROBS, _IDS.astype(np.int64), axis=1)[:, np.newaxis].astype(np.float32),
    (1 + np.log(_PROBS))[:, np.newaxis].astype(np.float32),
    (0, 4),
    ("code", "law", "code", "law"),
)
