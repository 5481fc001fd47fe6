"""The two tidy tables that every metric is computed from: a row a layer, and a row an expert."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from moefps.metrics.overlap import overlap_columns
from moefps.metrics.sums import BY_EXPERT, BY_LAYER, Sums

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["MetricTables", "build_tables"]

_WHOLE = frozenset(name for name in (*BY_LAYER, *BY_EXPERT) if not name.endswith("_sum"))
"""Columns that hold counts."""


@dataclass(frozen=True, eq=False)
class MetricTables:
    """What metrics are computed from.

    Attributes
    ----------
    layers : polars.DataFrame
        A row a key. Columns: the keys, `n_experts` (E), `top_k` (k), `capacity_factor`, those of
        `moefps.metrics.sums.BY_LAYER`, ``overlap_pairs``, ``overlap_mean``, ``overlap_std``, ``overlap_max``,
        ``chance_any_common`` and ``chance_jaccard``. Null where something was not counted.
    experts : polars.DataFrame
        A row a key and expert. Columns: the keys, ``expert``, those of `moefps.metrics.sums.BY_EXPERT`.
    keys : tuple of str
        ``layer``, and before it ``group`` or ``resample`` where there are several.
    missing : mapping of str to str
        Of what metrics may need (`moefps.metrics.metric.NEEDS`), what is not there, and why. A column ``no_`` + need
        of `layers` gives a reason for single layers.
    """

    layers: pl.DataFrame
    experts: pl.DataFrame
    keys: tuple[str, ...]
    missing: Mapping[str, str] = field(default_factory=dict)

    def with_columns(self, columns: pl.DataFrame) -> MetricTables:
        """Give the tables with more columns by layer, joined by the keys that both have."""
        on = [key for key in self.keys if key in columns.columns]
        new = [name for name in columns.columns if name not in on]
        layers = self.layers.drop(new, strict=False).join(columns, on=on, how="left", maintain_order="left")
        return replace(self, layers=layers)


def build_tables(
    sums: Sums,
    keys: Mapping[str, Sequence[Any] | pl.Series] | None = None,
    *,
    capacity_factor: float = 1.25,
    missing: Mapping[str, str] | None = None,
    chances: bool = True,
) -> MetricTables:
    """Lay sums out as tables.

    Parameters
    ----------
    sums : Sums
        Of C cells.
    keys : mapping of str to sequence of C values, optional
        What tells the cells apart; nothing for one cell.
    capacity_factor : float
        For the capacity metrics.
    missing : mapping of str to str, optional
        What is not there, and why.
    chances : bool
        Whether to add what chance levels need.

    Returns
    -------
    MetricTables
    """
    n_layers = len(sums.layers)
    outer = {
        name: values if isinstance(values, pl.Series) else pl.Series(values) for name, values in (keys or {}).items()
    }
    n_cells = sums.n_cells
    cell = np.repeat(np.arange(n_cells), n_layers)
    layers: dict[str, Any] = {name: values[cell] for name, values in outer.items()}
    layers["layer"] = np.tile(sums.layers, n_cells)
    layers["n_experts"] = np.tile(sums.n_experts, n_cells)
    top_k = sums.top_k
    layers["top_k"] = (
        pl.repeat(None, n_cells * n_layers, dtype=pl.Int64, eager=True) if top_k is None else np.tile(top_k, n_cells)
    )
    layers["capacity_factor"] = np.full(n_cells * n_layers, float(capacity_factor))
    for name in BY_LAYER:
        layers[name] = _column(name, sums.by_layer.get(name), n_cells * n_layers)
    layers |= overlap_columns(sums.coactivation, sums.n_experts, n_cells)
    frame = pl.DataFrame(layers)
    if chances:
        frame = frame.with_columns(*_chance_columns(sums, n_cells))
    at_layer, at_expert = np.nonzero(np.arange(int(sums.n_experts.max(initial=0))) < sums.n_experts[:, np.newaxis])
    n_rows = n_cells * len(at_layer)
    cell = np.repeat(np.arange(n_cells), len(at_layer))
    experts: dict[str, Any] = {name: values[cell] for name, values in outer.items()}
    experts["layer"] = np.tile(sums.layers[at_layer], n_cells)
    experts["expert"] = np.tile(at_expert, n_cells)
    for name in BY_EXPERT:
        array = sums.by_expert.get(name)
        experts[name] = _column(name, None if array is None else array[:, at_layer, at_expert], n_rows)
    return MetricTables(frame, pl.DataFrame(experts), (*outer, "layer"), dict(missing or {}))


def _column(name: str, array: npt.NDArray[Any] | None, n_rows: int) -> pl.Series:
    if array is None:
        return pl.repeat(None, n_rows, dtype=pl.Int64 if name in _WHOLE else pl.Float64, eager=True)
    column = pl.Series(name, np.ascontiguousarray(array).reshape(-1))
    # A layer of which something cannot be known has NaN in the kernels' sums.
    return column.fill_nan(None) if column.dtype.is_float() else column


def _chance_columns(sums: Sums, n_cells: int) -> list[pl.Series]:
    found = (
        [(None, None)] * len(sums.layers)
        if sums.top_k is None
        else [hypergeometric(int(n), int(k)) for n, k in zip(sums.n_experts, sums.top_k, strict=True)]
    )
    return [
        pl.Series(name, [pair[i] for pair in found] * n_cells, dtype=pl.Float64)
        for i, name in enumerate(("chance_any_common", "chance_jaccard"))
    ]


@lru_cache(maxsize=1024)
def hypergeometric(n_experts: int, top_k: int) -> tuple[float | None, float | None]:
    """Say how two independent uniform choices of k of E experts meet.

    Parameters
    ----------
    n_experts, top_k : int
        E and k.

    Returns
    -------
    tuple of float or None
        The chance that they have an expert in common, ``1 - C(E-k, k) / C(E, k)``, and their mean Jaccard index,
        ``Σ_o h(o) o / (2k - o)`` with h the hypergeometric distribution; None where k is more than E, or 0.

    Examples
    --------
    >>> hypergeometric(4, 2)
    (0.8333333333333334, 0.38888888888888884)
    """
    if not 1 <= top_k <= n_experts:
        return None, None
    everything = math.comb(n_experts, top_k)
    apart = math.comb(n_experts - top_k, top_k)
    jaccard = 0.0
    for common in range(max(0, 2 * top_k - n_experts), top_k + 1):
        ways = math.comb(top_k, common) * math.comb(n_experts - top_k, top_k - common)
        jaccard += ways / everything * common / (2 * top_k - common)
    return 1 - apart / everything, jaccard
