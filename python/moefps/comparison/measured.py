"""What was read of two dumps, before there are tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from moefps._typing import Float64Array
    from moefps.comparison.distances import DistanceSums
    from moefps.comparison.joint import LayerUsage, Resamples
    from moefps.comparison.matching import Match
    from moefps.comparison.measures import TokenSums
    from moefps.comparison.reduction import Units
    from moefps.kernels import RoutingCounts

__all__ = ["Measured"]


@dataclass(frozen=True, eq=False)
class Measured:
    """All that was read of two dumps.

    Attributes
    ----------
    match : Match
        Which tokens are compared.
    units : Units
        What is resampled.
    wanted : tuple of str
        The groups that the tables of layers have.
    n_resamples, seed : int
        Of the bootstrap and the test.
    draws : Resamples or None
        The random draws; None where there are no intervals.
    tokens : TokenSums
        Sums of measures of tokens.
    usage : list of LayerUsage [L]
        Usage of experts.
    sides : list of RoutingCounts or None
        What each dump has by class; None where that is what is compared.
    compared : ndarray of bool [P]
        Which pairs are compared in at least one layer.
    distances : DistanceSums
        Sums by distance.
    """

    match: Match
    units: Units
    wanted: tuple[str, ...]
    n_resamples: int
    seed: int
    draws: Resamples | None
    tokens: TokenSums
    usage: list[LayerUsage]
    sides: list[RoutingCounts | None]
    compared: npt.NDArray[np.bool_]
    distances: DistanceSums

    @property
    def taken(self) -> Float64Array | None:
        """How often each unit is in each resample."""
        return None if self.draws is None else self.draws.taken

    @property
    def n_experts(self) -> list[int]:
        """Experts of each layer, without passive ones, [L]."""
        return [info.n_experts - info.passive_experts for info in self.match.a.dump.layers]
