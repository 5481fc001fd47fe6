"""How focused experts are on domains: from a dump, or from an array of activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from moefps.errors import ArgumentError, DumpError
from moefps.io import Dump, take_source
from moefps.io.dump.scoring import has_full_probabilities
from moefps.kernels import (
    Activation,
    ActivationSums,
    check_activations,
    check_threshold,
    count_routing,
    sum_activations,
    sum_dense_activations,
)
from moefps.metrics.arguments import check_layers
from moefps.metrics.batch import as_numpy, check_sizes, is_tensor
from moefps.metrics.dump_rows import layer_sizes, said_of_the_dump
from moefps.metrics.focus.activity import Activity, DenseActivity, DumpActivity
from moefps.metrics.focus.domains import Domains, domains_of_dump, domains_of_labels
from moefps.metrics.focus.reading import read_summary
from moefps.metrics.focus.result import ExpertFocus
from moefps.metrics.focus.tables import Missing, build_tables

if TYPE_CHECKING:
    from moefps._typing import IndexArray, PathLike, Progress

__all__ = ["expert_focus"]

_MOST_ROWS = 1 << 24
"""Rows of the table of domains, at most."""
_MOST_PAIRS = 1 << 27
"""Counters of pairs of experts, at most: 1 GB."""


def expert_focus(
    source: Dump | PathLike | npt.ArrayLike,
    by: str | npt.ArrayLike = "domain",
    *,
    threshold: float = 0.1,
    activation: Activation = "weights",
    balanced: bool = False,
    layers: Sequence[int] | None = None,
    together: bool = False,
    n_bins: int = 100,
    highest: float = 1.0,
    n_threads: int | None = None,
    progress: Progress = False,
) -> ExpertFocus:
    """Tell how focused each expert is on one domain: the expert focus degree.

    An activation of an expert on a token counts if it is larger than `threshold`. With total[i, d] the sum of those of
    expert i on tokens of domain d, P[i, d] = 100 · total[i, d] / Σ_d total[i, d], and the focus degree of i is the
    largest P[i, d]. Experts without any counted activation have none.

    Parameters
    ----------
    source : Dump, path, or array-like of float [T, E]
        A dump or its folder; or the activations of one layer's experts on T tokens, from 0 on, where a 0 is none.
    by : str or array-like
        The domains: a column of a dump's samples or tokens; or a label for each sample, or for each token. Text,
        integers, or true and false.
    threshold : float, default 0.1
        Activations count above it. From 0 on, and below 1 for renormalized and probs; 0.01 to 0.3 are mostly of use.
        Weights are compared in their own precision, in which 0.1 is not above 0.1.
    activation : {"weights", "renormalized", "probs"}
        What the activation of an expert on a token is: the weight w that the router returned; w divided by its sum over
        the token's slots; or the share in the router's full distribution, which every expert has on every token.
    balanced : bool
        True sums layers up, and reads them, by the balanced focus degree: the totals are divided by the tokens of their
        domain first, so that domains count alike, whatever their size. The table of experts has both.
    layers : sequence of int, optional
        Which layers, 0..L-1; all when not given.
    together : bool
        True also counts which experts are chosen together in each domain; see `ExpertFocus.together`.
    n_bins, highest : int, float
        Bins of the histogram of activations, from 0 to `highest`; see `ExpertFocus.activation_histogram`.
    n_threads : int, optional
        All cores when not given.
    progress : bool or callable
        True shows a bar; a callable gets ``(done, total)``.

    Returns
    -------
    ExpertFocus

    Raises
    ------
    ArgumentError
        There is no such column, or one domain only; or another argument is not accepted.
    ShapeError, DtypeError
        The labels or activations have another shape, or are made of something else.
    DataError
        A sample or token has no domain; or a value of the trace is not accepted.
    DumpError
        The dump does not hold what the activations are made of.

    Notes
    -----
    The chance level, ``100 · max_d T_d / T`` of T_d tokens (100 / D for the balanced one), is what an expert has that
    does not look at domains, on ever more tokens; on few tokens it has more. How much more is simulated for each number
    of counted activations: ``luck``, which is a lower limit too, as tokens of a text are more alike than drawn ones,
    and activations are not all of one size. With up to 5 domains, no expert can be in the band from 0 to 20.

    Examples
    --------
    Activations of one expert that add up to 45.2, 12.8 and 18.6 in three domains:

    >>> import numpy as np
    >>> import moefps
    >>> activations = np.array([[30.0], [15.2], [12.8], [18.6]])
    >>> focus = moefps.expert_focus(activations, ["code", "code", "law", "maths"])
    >>> focus.domains["percent"].round(1).to_list()
    [59.0, 16.7, 24.3]
    >>> round(focus.experts["focus_degree"][0], 1), focus.experts["domain"][0], focus.experts["band"][0]
    (59.0, 'code', 'medium')
    """
    how = {"threshold": threshold, "n_bins": n_bins, "highest": highest, "n_threads": n_threads, "progress": progress}
    source = take_source(source, "source", "activations [T, E]")
    if isinstance(source, Dump):
        return _of_dump(source, by, activation, layers, how, balanced=balanced, together=together)
    return _of_array(source, by, activation, layers, how, balanced=balanced, together=together)


def _of_dump(
    dump: Dump,
    by: str | npt.ArrayLike,
    activation: Activation,
    layers: Sequence[int] | None,
    how: dict[str, Any],
    *,
    balanced: bool,
    together: bool,
) -> ExpertFocus:
    chosen = np.sort(check_layers(dump, layers))
    check_threshold(how["threshold"], None if activation == "weights" else 1.0)
    missing = _missing_layers(dump, activation, chosen)
    domains = domains_of_dump(dump, by)
    summed = [layer for layer in chosen.tolist() if layer not in missing]
    _check_size(dump, domains, summed, together=together)
    numbers = "router_logits" if activation == "probs" else "expert_weights"
    with said_of_the_dump(dump, arrays=("expert_ids", numbers)):
        sums = sum_activations(
            dump.expert_ids,
            None if activation == "probs" else dump.expert_weights,
            dump.stored("router_logits") if activation == "probs" else None,
            **layer_sizes(dump.layers),
            signed_weights=[layer.signed_weights for layer in dump.layers],
            scoring=[layer.scoring for layer in dump.layers],
            activation=activation,
            layers=summed,
            groups=domains.codes,
            n_groups=len(domains.values),
            **how,
        )
    pairs = _count_pairs(dump, domains, sums.layers, how["n_threads"]) if together else None
    about = {
        "source": str(dump.path),
        "n_samples": dump.n_samples,
        "n_tokens": dump.n_tokens,
        "activation": activation,
        "top_k": [dump.layers[layer].top_k for layer in summed],
    }
    return _result(sums, domains, DumpActivity(dump, activation), about, pairs, missing, balanced=balanced)


def _of_array(
    activations: Any,
    labels: Any,
    activation: Activation,
    layers: Sequence[int] | None,
    how: dict[str, Any],
    *,
    balanced: bool,
    together: bool,
) -> ExpertFocus:
    found = check_activations(as_numpy("activations", activations) if is_tensor(activations) else activations)
    if activation != "weights":
        raise ArgumentError(f"activation: {activation!r}, for an array, which is taken as it is; accepted: a dump")
    if layers is not None or together:
        name = "layers" if layers is not None else "together"
        raise ArgumentError(f"{name}: given for an array, which is one layer's activations; accepted: a dump")
    check_sizes("activations", found)
    domains = domains_of_labels(labels, len(found))
    sums = sum_dense_activations(found, groups=domains.codes, n_groups=len(domains.values), **how)
    about = {"source": "activations", "n_samples": None, "n_tokens": len(found), "activation": "as given"}
    return _result(sums, domains, DenseActivity(found), about, None, {}, balanced=balanced)


def _result(
    sums: ActivationSums,
    domains: Domains,
    activity: Activity,
    about: dict[str, Any],
    pairs: IndexArray | None,
    missing: dict[int, Missing],
    *,
    balanced: bool,
) -> ExpertFocus:
    tables = build_tables(sums, domains, balanced=balanced, missing=missing)
    n_domains = len(domains.values)
    about = {
        **about,
        "by": domains.name,
        "domains": domains.values.to_list(),
        "n_domains": n_domains,
        "threshold": sums.threshold,
        "balanced": bool(balanced),
    }
    reading = read_summary(
        tables.summary.row(0, named=True),
        n_domains=n_domains,
        threshold=sums.threshold,
        activation=about["activation"],
        balanced=bool(balanced),
    )
    return ExpertFocus(
        tables.domains,
        tables.experts,
        tables.layers,
        tables.summary,
        tables.tokens,
        pairs,
        sums,
        about,
        reading,
        domains,
        activity,
    )


def _missing_layers(dump: Dump, activation: Activation, chosen: IndexArray) -> dict[int, Missing]:
    """Say which of the chosen layers have no activations of the kind, if any has."""
    if activation not in ("weights", "renormalized", "probs"):
        raise ArgumentError(f"activation: {activation!r}; accepted: 'weights', 'renormalized', 'probs'")
    name = "router_logits" if activation == "probs" else "expert_weights"
    if name not in dump.arrays:
        others = {"expert_weights": "weights, renormalized", "router_logits": "probs"}
        there = ", ".join(kind for array, kind in others.items() if array in dump.arrays)
        raise DumpError(
            f"{dump.path}: holds no {name}, which activation={activation!r} needs; accepted: {there or 'another dump'}"
        )
    if activation != "probs":
        return {}
    missing = {}
    for number in chosen.tolist():
        layer = dump.layers[number]
        if not has_full_probabilities(layer.scoring):
            reason = f"the scoring {layer.scoring!r} tells no full distribution"
            missing[number] = Missing(layer.n_experts - layer.passive_experts, reason)
    if len(missing) == len(chosen):
        raise DumpError(
            f"{dump.path}: in layer {chosen[0]}, {missing[int(chosen[0])].reason}, which activation='probs' needs; "
            "accepted: weights, renormalized"
        )
    return missing


def _check_size(dump: Dump, domains: Domains, layers: list[int], *, together: bool) -> None:
    """Refuse so many domains that their tables would fill the memory."""
    n_domains = len(domains.values)
    widths = [dump.layers[layer].n_experts for layer in layers]
    n_rows = n_domains * sum(widths)
    if n_rows > _MOST_ROWS:
        raise ArgumentError(
            f"by: {domains.name!r} has {n_domains:,} values, which makes {n_rows:,} rows; accepted: up to "
            f"{_MOST_ROWS:,}, or fewer layers"
        )
    n_pairs = n_domains * len(layers) * max(widths) ** 2
    if together and n_pairs > _MOST_PAIRS:
        raise ArgumentError(
            f"together: {n_pairs:,} pairs of experts by layer and domain; accepted: up to {_MOST_PAIRS:,}, or fewer "
            "layers"
        )


def _count_pairs(dump: Dump, domains: Domains, layers: IndexArray, n_threads: int | None) -> IndexArray:
    """Count the tokens of each domain that chose both of two experts, [D, L, E, E]."""
    width = max(dump.layers[layer].n_experts - dump.layers[layer].passive_experts for layer in layers.tolist())
    pairs = np.zeros((len(domains.values), len(layers), width, width), dtype=np.int64)
    # Layers beside each other are a view of the array; a choice of others would be a copy of it.
    for run in np.split(np.arange(len(layers)), np.flatnonzero(np.diff(layers) > 1) + 1):
        first, stop = int(layers[run[0]]), int(layers[run[-1]]) + 1
        counts = count_routing(
            dump.expert_ids[:, first:stop],
            **layer_sizes(dump.layers[first:stop]),
            groups=domains.codes,
            n_groups=len(domains.values),
            coactivation="groups",
            n_threads=n_threads,
        )
        if counts.coactivation is not None:
            size = counts.coactivation.shape[-1]
            pairs[:, run, :size, :size] = counts.coactivation
    return pairs
