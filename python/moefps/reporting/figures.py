"""The figures of a comparison, of routing metrics and of a selection."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from moefps._progress import progress_callback
from moefps.comparison import Comparison
from moefps.errors import ArgumentError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import polars as pl

    from moefps._typing import Progress
    from moefps.metrics import RoutingMetrics
    from moefps.reporting.charts.figure import Figure

__all__ = ["check_extra", "comparison_charts", "draw_figures", "left_out_figures", "metric_charts", "selection_charts"]

LEAKAGE = "tool_expert_leakage_layerXX"
"""What figures of layers are called where none is drawn."""


def check_extra(*, otherwise: str = "") -> None:
    """Check that altair and vl-convert are installed, without importing them.

    Parameters
    ----------
    otherwise : str
        What else can be done, to be added to the message.

    Raises
    ------
    MissingExtraError
        One of them is not.
    """
    missing = [name for name in ("altair", "vl_convert") if not _is_there(name)]
    if missing:
        names = " and ".join(name.replace("_", "-") for name in missing)
        raise MissingExtraError(f"figures need {names}: pip install 'moefps[report]'{otherwise}")


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def comparison_charts(found: Comparison) -> dict[str, Figure]:
    """Make the charts of a comparison, from its tables alone.

    Parameters
    ----------
    found : Comparison
        As `moefps.compare` gives it, or read back from a folder.

    Returns
    -------
    dict of str to Figure
        By name. A chart that would show nothing is not there: `left_out_figures` says why.

    Raises
    ------
    ArgumentError
        `found` is no comparison.
    MissingExtraError
        altair is not installed.
    """
    return _plan(found)[0]


def left_out_figures(found: Comparison) -> dict[str, str]:
    """Say which figures a comparison does not have, and why.

    Parameters
    ----------
    found : Comparison
        As `moefps.compare` gives it, or read back from a folder.

    Returns
    -------
    dict of str to str
        Reasons, by name.
    """
    return _plan(found, draw=False)[1]


def draw_figures(found: Comparison, *, svg: bool = False, progress: Progress = False) -> dict[str, bytes]:
    """Draw the figures of a comparison.

    Parameters
    ----------
    found : Comparison
        As `moefps.compare` gives it, or read back from a folder.
    svg : bool
        True draws each as SVG, too.
    progress : bool or callable
        True shows a bar on stderr; a callable gets ``(done, total)``.

    Returns
    -------
    dict of str to bytes
        Files by name, such as ``tv_curve.png``: two pixels for one of the chart.

    Raises
    ------
    MissingExtraError
        altair or vl-convert is not installed.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> import moefps
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> base, tuned = (
    ...     moefps.write_dump(folder / name, expert_ids=ids, offsets=[0, 1, 2], n_experts=4)
    ...     for name, ids in {"base": [[[0, 1]], [[2, 3]]], "tuned": [[[0, 1]], [[2, 0]]]}.items()
    ... )
    >>> list(draw_figures(moefps.compare(base, tuned)))
    ['usage_delta_heatmap.png', 'B1_jaccard.png']
    """
    check_extra()
    from moefps.reporting.drawing import draw_png, draw_svg

    charts = comparison_charts(found)
    files: dict[str, bytes] = {}
    with progress_callback(progress, "drawing") as advance:
        for place, (name, figure) in enumerate(charts.items()):
            if advance is not None:
                advance(place, len(charts))
            drawn = draw_svg(figure.spec())
            files[f"{name}.png"] = draw_png(drawn)
            if svg:
                files[f"{name}.svg"] = drawn.encode()
        if advance is not None:
            advance(len(charts), len(charts))
    return files


def metric_charts(metrics: RoutingMetrics) -> dict[str, Figure]:
    """Make the charts of routing metrics.

    Parameters
    ----------
    metrics : RoutingMetrics
        As `moefps.routing_metrics` gives them.

    Returns
    -------
    dict of str to Figure
        ``expert_load``, ``metrics_over_layers`` (those with a target; where there is no target, those that tell most)
        and ``unused_experts``; without those that would show nothing.

    Raises
    ------
    MissingExtraError
        altair is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import moefps
    >>> load = np.array([[[0.5, 0.4, 0.1], [1.0, 0.0, 0.0]]])
    >>> list(metric_charts(moefps.routing_metrics(load)))
    ['expert_load', 'metrics_over_layers', 'unused_experts']
    """
    check_extra()
    from moefps.reporting.charts.of_metrics import draw_load, draw_over_layers, draw_unused

    return _by_name(make(metrics) for make in (draw_load, draw_over_layers, draw_unused))


def selection_charts(picks: pl.DataFrame) -> dict[str, Figure]:
    """Make the charts of a selection.

    Parameters
    ----------
    picks : polars.DataFrame
        A row a pick: ``rank`` (from 1), ``index``, ``radius``, ``cluster_size``, and whatever else is known of the
        samples.

    Returns
    -------
    dict of str to Figure
        ``covering_radius``, ``cluster_sizes`` and, where a column tells kinds of samples apart, ``picks_by_label``.

    Raises
    ------
    MissingExtraError
        altair is not installed.

    Examples
    --------
    >>> import polars as pl
    >>> picks = pl.DataFrame({"rank": [1, 2], "index": [7, 3], "radius": [2.0, 1.0], "cluster_size": [6, 4]})
    >>> list(selection_charts(picks))
    ['covering_radius', 'cluster_sizes']
    """
    check_extra()
    from moefps.reporting.charts.of_selection import draw_clusters, draw_labels, draw_radius

    return _by_name(make(picks) for make in (draw_radius, draw_clusters, draw_labels)) if picks.height else {}


def _by_name(figures: Iterable[Figure | None]) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures if figure is not None}


def _plan(found: Comparison, *, draw: bool = True) -> tuple[dict[str, Figure], dict[str, str]]:
    """Give the figures that there are, and the reasons for those that there are not."""
    if not isinstance(found, Comparison):
        raise ArgumentError(f"found: got a {type(found).__name__}; accepted: a Comparison")
    check_extra()
    from moefps.reporting.charts.curves import CURVES, draw_curves, draw_panels
    from moefps.reporting.charts.distance import draw_distance, why_no_distance
    from moefps.reporting.charts.leakage import draw_leakage, leakage_layers, why_no_leakage
    from moefps.reporting.charts.levels import LEVELS, draw_levels
    from moefps.reporting.charts.study import Study
    from moefps.reporting.charts.usage import draw_usage

    study = Study(found)
    charts: dict[str, Figure] = {}
    reasons: dict[str, str] = {}

    def add(name: str, reason: str | None, make: Any, *arguments: Any) -> None:
        if reason is not None:
            reasons[name] = reason
        elif draw:
            charts[name] = make(name, study, *arguments)

    def add_curve(name: str) -> None:
        make = draw_panels if name == "A1_tv_curves" else draw_curves
        add(name, study.why_not(CURVES[name].measure, CURVES[name].groups), make)

    for name in ("tv_curve", "tv_tool_vs_canonical", "tv_tool_response_split"):
        add_curve(name)
    add("usage_delta_heatmap", None if found.expert_usage.height else "no token is compared", draw_usage)
    layers = leakage_layers(study)
    for layer in layers:
        add(f"tool_expert_leakage_layer{layer:02d}", None, draw_leakage, layer)
    if not layers:
        reasons[LEAKAGE] = why_no_leakage(study)
    add_curve("A1_tv_curves")
    add_curve("B1_jaccard")
    for name, (_, levels) in LEVELS.items():
        add(name, study.why_not(f"{levels[0].measure}_diff"), draw_levels)
    add_curve("js_curve")
    add("leakage_vs_distance", why_no_distance(study), draw_distance)
    return charts, reasons
