"""Two conditions of one problem: as the end of an agent's trajectory, and as a user's prompt.

`build_pairs` makes the texts, `align_pairs` their tokens on the same coordinates. `moefps.capture` and the comparison
go on from there, with what `moefps.io.pair_tokens` reads.
"""

from __future__ import annotations

from moefps.io.pair_tokens import PairTokens, TaskTokens, read_pair_tokens
from moefps.pairing.aligning import align_pairs
from moefps.pairing.building import Pairs, build_pairs
from moefps.pairing.encoding import load_tokenizer
from moefps.pairing.pair_files import Pair, Segment, read_pairs

__all__ = [
    "Pair",
    "PairTokens",
    "Pairs",
    "Segment",
    "TaskTokens",
    "align_pairs",
    "build_pairs",
    "load_tokenizer",
    "read_pair_tokens",
    "read_pairs",
]
