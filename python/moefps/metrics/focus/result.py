"""The result of a focus analysis."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from moefps.errors import ArgumentError
from moefps.metrics.focus.degree import BAND_EDGES, BANDS

if TYPE_CHECKING:
    from moefps._typing import IndexArray
    from moefps.kernels import ActivationSums
    from moefps.metrics.focus.activity import Activity
    from moefps.metrics.focus.domains import Domains

__all__ = ["ExpertFocus"]


@dataclass(frozen=True, eq=False)
class ExpertFocus:
    """How focused experts are on domains, as `moefps.expert_focus` gives it.

    An activation of an expert on a token counts if it is above the threshold. Per expert i, P[i, d] is the share in
    percent of its counted activation that is on tokens of domain d, and the focus degree the largest of them. Values
    that are not defined are null, with the reason.

    Attributes
    ----------
    domains : polars.DataFrame
        A row a layer, expert and domain: ``layer``, ``expert``, ``domain``, ``count`` (activations that count),
        ``mean_activation``, ``max_activation``, ``total_activation`` (of those), ``percent`` (P). If the result is
        balanced, also ``balanced_percent``: P of totals that were divided by the domain's tokens first.
    experts : polars.DataFrame
        A row a layer and expert: ``layer``, ``expert``, ``n_activations``, ``n_counted``, ``focus_degree``, ``domain``
        (where it is; of equals, the first), ``second_domain``, ``second_percent``, ``focus_entropy`` (1 for all in one
        domain, 0 for the same in each), ``band``, ``chance`` (the share of the largest domain in the tokens),
        ``luck`` (what an expert with as many counted activations that does not look at domains has on average, by
        simulation), ``balanced_focus_degree``, ``balanced_domain``, ``balanced_band``, ``balanced_chance`` (100 / D),
        ``balanced_luck``, ``reason``.
    layers : polars.DataFrame
        A row a layer: ``layer``, ``n_experts``, ``n_with_value``, ``n_null``; of the focus degree (the balanced one if
        the result is balanced) ``mean``, ``std`` (ddof=0), ``min``, ``median``, ``max``; experts by band:
        ``scattered``, ``light``, ``medium``, ``high``, ``extreme``; ``chance`` and ``luck``, means over experts;
        ``activations`` and how many of them ``counted``; ``median_counted`` of an expert; ``tokens``, ``left_out`` and
        ``n_domains`` with tokens; ``share_counted``; ``reason``.
    summary : polars.DataFrame
        One row over all layers, with the same columns; ``n_layers`` have an expert with a value.
    tokens : polars.DataFrame
        A row a layer and domain: ``tokens`` with a filled slot; ``left_out``, of those, without activations, as their
        weights sum to 0.
    coactivation : ndarray of int64 [D, L, E, E] or None
        Tokens of each domain that chose both experts; on the diagonal, the one. None where `together` was not asked
        for.
    sums : ActivationSums
        What all is made of; its first axis is the domains. It has only the layers that have activations.
    about : dict
        What was measured, and how.
    reading : str
        What the numbers say, in one sentence.
    """

    domains: pl.DataFrame
    experts: pl.DataFrame
    layers: pl.DataFrame
    summary: pl.DataFrame
    tokens: pl.DataFrame
    coactivation: IndexArray | None
    sums: ActivationSums
    about: dict[str, Any]
    reading: str
    _labels: Domains
    _activity: Activity

    def __repr__(self) -> str:
        mean = self.summary["mean"][0]
        said = "none" if mean is None else f"{mean:.1f} %"
        return f"ExpertFocus({self.layers.height} layers, {self.about['n_domains']} domains, mean focus degree {said})"

    @property
    def bands(self) -> pl.DataFrame:
        """Experts of all layers by band: ``band``, ``low``, ``high``, ``n_experts``, ``share``."""
        counts = [int(self.summary[band][0]) for band in BANDS]
        total = sum(counts)
        return pl.DataFrame(
            {
                "band": BANDS,
                "low": BAND_EDGES[:-1],
                "high": BAND_EDGES[1:],
                "n_experts": counts,
                "share": [count / total if total else None for count in counts],
            },
            schema_overrides={"share": pl.Float64},
        )

    def activation_histogram(self, layer: int | None = None, expert: int | None = None) -> pl.DataFrame:
        """Give how activations are distributed, counted or not.

        Parameters
        ----------
        layer, expert : int, optional
            Only these.

        Returns
        -------
        polars.DataFrame
            A row a layer, expert and bin: ``layer``, ``expert``, ``low``, ``high``, ``count``. A bin owns its lower
            edge, the last one its upper edge, too. The first row of an expert, without ``low``, is what is negative;
            the last one, without ``high``, what is above the bins.

        Raises
        ------
        ArgumentError
            There is no such layer or expert.
        """
        place, experts = self._pairs(layer, expert)
        sums = self.sums
        n_bins = sums.histogram.shape[2]
        edges = np.arange(n_bins + 1) * (sums.highest / n_bins)
        rows = [sums.below[place, experts, None], sums.histogram[place, experts], sums.above[place, experts, None]]
        counts = np.concatenate(rows, axis=1)
        lows, highs = [None, *edges.tolist()], [*edges.tolist(), None]
        return pl.DataFrame(
            {
                "layer": np.repeat(sums.layers[place], n_bins + 2),
                "expert": np.repeat(experts, n_bins + 2),
                "low": lows * len(place),
                "high": highs * len(place),
                "count": counts.ravel(),
            },
            schema_overrides={"low": pl.Float64, "high": pl.Float64},
        )

    def together(
        self, domain: Any = None, layer: int | None = None, *, n: int | None = 10, min_tokens: int = 10
    ) -> pl.DataFrame:
        """Give the experts that work together inside a domain: most of the one's tokens go to the other, too.

        Parameters
        ----------
        domain, layer : optional
            Only this domain, only this layer.
        n : int or None
            How many pairs; None for all.
        min_tokens : int, default 10
            Only experts with so many tokens in the domain: of few, most shares are luck.

        Returns
        -------
        polars.DataFrame
            A row an ordered pair, the strongest first: ``layer``, ``domain``, ``expert``, ``other``, ``tokens`` (that
            chose both, N_ij), ``share`` (N_ij / N_i), ``chance`` ((k-1) / (E-1)).

        Raises
        ------
        ArgumentError
            The result was made without ``together=True``; or there is no such domain or layer.
        """
        if self.coactivation is None:
            raise ArgumentError("together: pairs of experts were not counted; accepted: expert_focus(together=True)")
        which = range(len(self._labels.values)) if domain is None else [self._domain(domain)]
        places = range(len(self.sums.layers)) if layer is None else [self._place(layer)]
        frames = [self._pairs_of(d, place, min_tokens) for d in which for place in places]
        found = pl.concat(frames).sort(
            ["share", "tokens", "layer", "expert", "other"], descending=[True, True, False, False, False]
        )
        return found if n is None else found.head(n)

    def tokens_of(self, expert: int, layer: int = 0, *, n: int | None = None) -> pl.DataFrame:
        """Give the tokens that an expert was active on, above the threshold; the arrays are read again.

        Parameters
        ----------
        expert, layer : int
            Which expert.
        n : int, optional
            Only so many, the most active first; all when not given.

        Returns
        -------
        polars.DataFrame
            A row a token, the most active first: ``token`` (its row in the trace), ``sample``, ``position`` and the
            columns of the dump's table of tokens, ``domain``, ``activation``.

        Raises
        ------
        ArgumentError
            There is no such expert or layer.
        """
        place, experts = self._pairs(layer, expert)
        rows, activations = self._activity.find(int(self.sums.layers[place[0]]), int(experts[0]), self.sums.threshold)
        order = np.lexsort((rows, -activations))[:n]
        chosen = rows[order]
        return self._activity.describe(chosen).with_columns(
            self._labels.values.gather(self._labels.codes[chosen]).alias("domain"),
            pl.Series("activation", activations[order]),
        )

    def _pairs(self, layer: int | None, expert: int | None) -> tuple[IndexArray, IndexArray]:
        """Give the places and experts that are meant."""
        places = np.arange(len(self.sums.layers)) if layer is None else np.array([self._place(layer)])
        if expert is None:
            sizes = self.sums.n_experts[places]
            return np.repeat(places, sizes), np.concatenate([np.arange(size) for size in sizes])
        number = _integer("expert", expert)
        least = int(self.sums.n_experts[places].min())
        if not 0 <= number < least:
            raise ArgumentError(f"expert: {number}; accepted: 0 to {least - 1}")
        return places, np.full(len(places), number)

    def _place(self, layer: int) -> int:
        found = np.flatnonzero(self.sums.layers == _integer("layer", layer))
        if not len(found):
            there = ", ".join(str(number) for number in self.sums.layers.tolist())
            raise ArgumentError(f"layer: {layer}; accepted, as they have activations: {there}")
        return int(found[0])

    def _domain(self, domain: Any) -> int:
        values = self._labels.values.to_list()
        if domain not in values:
            raise ArgumentError(f"domain: {domain!r}; accepted: {', '.join(repr(value) for value in values)}")
        return values.index(domain)

    def _pairs_of(self, domain: int, place: int, min_tokens: int) -> pl.DataFrame:
        size = int(self.sums.n_experts[place])
        if self.coactivation is None:
            raise ArgumentError("together: pairs of experts were not counted")
        tokens = self.coactivation[domain, place, :size, :size]
        own = np.diagonal(tokens)
        one, other = np.nonzero((own >= max(1, min_tokens))[:, np.newaxis] & ~np.eye(size, dtype=np.bool_))
        top_k = self.about["top_k"][place]
        return pl.DataFrame(
            {
                "layer": np.full(len(one), self.sums.layers[place]),
                "domain": self._labels.values.gather(np.full(len(one), domain)),
                "expert": one,
                "other": other,
                "tokens": tokens[one, other],
                "share": tokens[one, other] / own[one],
                "chance": np.full(len(one), (top_k - 1) / (size - 1) if size > 1 else np.nan),
            }
        )


def _integer(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise ArgumentError(f"{name}: {value!r}; accepted: an integer") from None
