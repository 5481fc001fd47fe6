"""Farthest point sampling with the manners of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from moefps._typing import Ground, Start
from moefps.errors import ArgumentError
from moefps.kernels import check_fingerprints, wasserstein_cross
from moefps.selection.sampling import select


class FarthestPointSampler:
    """Selects samples by farthest point sampling, as an estimator.

    The names are those of ``skmatter.sample_selection.FPS``, so that one can stand in for the other; the distance is
    the Wasserstein distance of fingerprints.

    Parameters
    ----------
    n_to_select : int, float or None
        Samples to select; a float in (0, 1] is a share of all, None is half of them.
    ground : {"index", "values", "discrete"} or array [E] or [L, E]
        As for `moefps.select`.
    initialize : {"medoid", "farthest", "random"} or int or sequence of int
        The first pick or picks, `start` of `moefps.select`.
    random_state : int, optional
        Makes ``initialize="random"`` repeatable.

    Attributes
    ----------
    selected_idx_ : int64 array [M]
        The picks in order.
    hausdorff_at_select_ : float64 array [N]
        How far each pick was from all picks before it; infinite for the first, and for samples that are not picked.
    hausdorff_ : float64 array [N]
        How far each sample is from its nearest pick.
    selection_ : Selection
        Everything else.

    Examples
    --------
    >>> import numpy as np
    >>> import moefps
    >>> X = np.array([[[1.0, 0.0, 0.0]], [[0.9, 0.1, 0.0]], [[0.0, 0.0, 1.0]], [[0.0, 1.0, 0.0]]])
    >>> sampler = moefps.FarthestPointSampler(n_to_select=3, initialize=0).fit(X)
    >>> sampler.selected_idx_
    array([0, 2, 3])
    >>> sampler.hausdorff_at_select_[sampler.selected_idx_]
    array([inf,  2.,  1.])
    """

    def __init__(
        self,
        n_to_select: int | float | None = None,
        *,
        ground: Ground = "index",
        initialize: Start = "medoid",
        random_state: int | None = None,
    ) -> None:
        self.n_to_select = n_to_select
        self.ground = ground
        self.initialize = initialize
        self.random_state = random_state

    def fit(self, X: npt.ArrayLike, y: object = None) -> FarthestPointSampler:
        """Select from fingerprints.

        Parameters
        ----------
        X : array [N, L, E]
            Fingerprints, as for `moefps.select`.
        y : object
            Ignored; here because estimators have it.

        Returns
        -------
        FarthestPointSampler
            Itself.
        """
        count = self._count(len(check_fingerprints("X", X)))
        start, ground = self.initialize, self.ground
        selection = select(X, count, ground=ground, start=start, seed=self.random_state)
        picked_at = np.concatenate([[np.inf], selection.radii[:-1]])
        if not isinstance(start, str) and np.ndim(start) == 1:
            # Starts are picked because they were given, not because they were farthest.
            given = np.asarray(X)[selection.indices[: np.size(start)]]
            between = wasserstein_cross(given, given, ground=ground).astype(np.float64)
            for i in range(1, len(given)):
                picked_at[i] = between[i, :i].min()
        self.selection_ = selection
        self.selected_idx_ = selection.indices
        self.hausdorff_at_select_ = np.full(len(selection.distances), np.inf)
        self.hausdorff_at_select_[selection.indices] = picked_at
        self.hausdorff_ = selection.distances
        return self

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name, as scikit-learn asks for them."""
        return {name: getattr(self, name) for name in ("n_to_select", "ground", "initialize", "random_state")}

    def set_params(self, **params: Any) -> FarthestPointSampler:
        """Set parameters by name."""
        for name, value in params.items():
            if name not in self.get_params():
                raise ArgumentError(f"{name}: no such parameter; accepted: {', '.join(self.get_params())}")
            setattr(self, name, value)
        return self

    def _count(self, n: int) -> int:
        wanted = self.n_to_select
        if wanted is None:
            return max(1, n // 2)
        if isinstance(wanted, float):
            if not 0 < wanted <= 1:
                raise ArgumentError(f"n_to_select: {wanted}; accepted: an integer, a share in (0, 1], or None")
            return max(1, int(n * wanted))
        return wanted
