"""Vocabulary specialisation: how much the tokens of one token id choose the same experts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from moefps.errors import DumpError
from moefps.kernels import VocabularyCounts, count_vocabulary
from moefps.metrics.arguments import check_layers
from moefps.metrics.dump_rows import layer_sizes, said_of_the_dump
from moefps.metrics.families.segments import NO_TOKEN_ID
from moefps.metrics.reduction import layer_view

if TYPE_CHECKING:
    import numpy.typing as npt

    from moefps._typing import IndexArray, Progress
    from moefps.io import Dump

__all__ = ["VocabularySpecialization", "token_ids_of", "vocabulary_columns", "vocabulary_specialization"]


@dataclass(frozen=True, eq=False)
class VocabularySpecialization:
    """The vocabulary of a dump's experts.

    Attributes
    ----------
    layers : polars.DataFrame
        A row a layer: ``layer``, ``vocabulary_specialization`` (the mean of ``mean`` over experts), ``token_ids`` (how
        many are counted), ``tokens`` (with a filled slot), ``tokens_counted``, ``tokens_without_id``, ``tokens_rare``
        (the rest: their token id has too few tokens), and ``reason`` (why there is no value).
    experts : polars.DataFrame
        A row an expert: ``layer``, ``expert``, ``max`` and ``mean`` of the shares N_{x,e} / N_x of its top token ids,
        and ``reason``.
    top : polars.DataFrame
        A row an expert and top token id that chooses it: ``layer``, ``expert``, ``rank`` (from 1), ``token_id``,
        ``count`` (N_{x,e}), ``total`` (N_x), ``share``.
    table : polars.DataFrame or None
        If it was asked for, a row for each N_{x,e} that is not 0: ``layer``, ``token_id``, ``expert``, ``count``,
        ``total``, ``share``.
    """

    layers: pl.DataFrame
    experts: pl.DataFrame
    top: pl.DataFrame
    table: pl.DataFrame | None = None


def vocabulary_specialization(
    dump: Dump,
    *,
    min_count: int = 10,
    top: int = 10,
    layers: Sequence[int] | int | None = None,
    table: bool = False,
    n_threads: int | None = None,
    progress: Progress = False,
) -> VocabularySpecialization:
    """Say how much the experts of a dump are for single token ids.

    The share of the tokens of id x that choose expert e is N_{x,e} / N_x, of tokens with a filled slot in the layer;
    token ids with fewer than `min_count` of those are left out of the layer, and so are tokens without an id. For each
    expert, `max` is the largest share and `mean` the mean over the `top` token ids with the largest shares, ties to the
    lowest id; where fewer are counted in the layer, over those. A share of 0 is one: an expert that no token chooses
    has 0.

    Parameters
    ----------
    dump : Dump
        The dump; its ids are read in order, and nothing of them is loaded whole.
    min_count : int
        How many tokens a token id must have in a layer.
    top : int
        How many token ids the mean is of.
    layers : sequence of int, optional
        Which layers, 0..L-1; all when not given.
    table : bool
        Whether to give all shares that are not 0: a row for each, 28 bytes. Of a large trace they are many; choose
        layers then.
    n_threads : int, optional
        All cores by default. The result does not depend on it.
    progress : bool or callable
        True shows a bar; a callable gets ``(done, total)``.

    Returns
    -------
    VocabularySpecialization

    Raises
    ------
    ArgumentError
        `min_count`, `top`, `layers` or `n_threads` is not accepted.
    DataError
        An id is no expert's; the message names the file and the row. Or a token id is below 0.
    DumpError
        The dump holds no token ids, or has no layers.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> from moefps.io.dump import write_dump
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "dump"
    >>> ids, words = np.array([[[0, 1]], [[0, 2]], [[0, 1]], [[0, 2]]]), {"token_id": [5, 7, 5, 7]}
    >>> dump = write_dump(path, expert_ids=ids, offsets=[0, 4], n_experts=4, tokens=words)
    >>> found = vocabulary_specialization(dump, min_count=2)
    >>> found.experts.select("expert", "max", "mean").rows()
    [(0, 1.0, 1.0), (1, 1.0, 0.5), (2, 1.0, 0.5), (3, 0.0, 0.0)]
    """
    chosen = check_layers(dump, layers)
    token_ids = token_ids_of(dump)
    if token_ids is None:
        raise DumpError(f"{dump.path}: holds no token ids; accepted: a dump whose tokens.parquet has a column token_id")
    view, back = layer_view(chosen)
    infos = [dump.layers[i] for i in range(dump.n_layers)[view]]
    with said_of_the_dump(dump, arrays=("expert_ids",)):
        counts = count_vocabulary(
            dump.expert_ids[:, view],
            token_ids,
            **layer_sizes(infos),
            min_count=min_count,
            top=top,
            entries=table,
            n_threads=n_threads,
            progress=progress,
        )
    return _tabulate(counts, chosen, back)


def vocabulary_columns(found: VocabularySpecialization) -> pl.DataFrame:
    """Give what the vocabulary metric of the registry is made of.

    Returns
    -------
    polars.DataFrame
        A row a layer: ``layer``, ``vocabulary_token_ids``, ``vocabulary_mean``.
    """
    return found.layers.select(
        "layer",
        pl.col("token_ids").alias("vocabulary_token_ids"),
        pl.col("vocabulary_specialization").alias("vocabulary_mean"),
    )


def token_ids_of(dump: Dump) -> npt.NDArray[np.int64] | None:
    """Give the id of each token, -1 for none; None where the dump holds no token ids.

    Raises
    ------
    DumpError
        They are not integers.
    """
    tokens = dump.tokens
    if tokens is None or "token_id" not in tokens.columns:
        return None
    column = tokens["token_id"]
    if not column.dtype.is_integer() and column.null_count() < len(column):
        raise DumpError(f"{dump.path}: the column token_id of tokens.parquet is {column.dtype}; accepted: integers")
    return column.cast(pl.Int64).fill_null(-1).to_numpy()


def _tabulate(counts: VocabularyCounts, layers: IndexArray, back: IndexArray) -> VocabularySpecialization:
    """Lay counts out; `back` says where those of each layer are."""
    n_ids, n_experts = counts.n_token_ids[back], counts.n_experts[back]
    at, expert = np.nonzero(np.arange(int(n_experts.max())) < n_experts[:, np.newaxis])
    place = back[at]
    ids, n, total = (a[place, expert] for a in (counts.top_token_ids, counts.top_counts, counts.top_totals))
    share = np.divide(n, total, out=np.zeros(n.shape), where=total > 0)
    some = pl.col("_token_ids") > 0
    reason = pl.when(~some).then(pl.lit(NO_TOKEN_ID[1])).alias("reason")
    # Token ids that do not choose the expert have a share of 0.
    mean = share.sum(axis=1) / np.clip(n_ids[at], 1, share.shape[1])
    experts = pl.DataFrame(
        {"layer": layers[at], "expert": expert, "max": share[:, 0], "mean": mean, "_token_ids": n_ids[at]}
    ).select(
        "layer", "expert", pl.when(some).then("max").alias("max"), pl.when(some).then("mean").alias("mean"), reason
    )
    value = experts.group_by("layer", maintain_order=True).agg(vocabulary_specialization=pl.col("mean").mean())
    frame = pl.DataFrame(
        {
            "layer": layers,
            "vocabulary_specialization": value["vocabulary_specialization"],
            "token_ids": n_ids,
            "tokens": counts.tokens[back],
            "tokens_counted": counts.tokens_counted[back],
            "tokens_without_id": counts.tokens_without_id[back],
            "_token_ids": n_ids,
        }
    ).with_columns(tokens_rare=pl.col("tokens") - pl.col("tokens_counted") - pl.col("tokens_without_id"))
    row, rank = np.nonzero(ids >= 0)
    top = pl.DataFrame(
        {
            "layer": layers[at[row]],
            "expert": expert[row],
            "rank": rank + 1,
            "token_id": ids[row, rank],
            "count": n[row, rank],
            "total": total[row, rank],
            "share": share[row, rank],
        }
    )
    return VocabularySpecialization(
        frame.with_columns(reason).drop("_token_ids"), experts, top, _table(counts, layers, back)
    )


def _table(counts: VocabularyCounts, layers: IndexArray, back: IndexArray) -> pl.DataFrame | None:
    if counts.entries is None:
        return None
    frame = pl.DataFrame(counts.entries).with_columns(share=pl.col("count") / pl.col("total"))
    if np.array_equal(back, np.arange(len(counts.tokens))) and np.array_equal(layers, back):
        return frame
    numbers = pl.DataFrame({"layer": back.astype(np.int32), "_number": layers.astype(np.int32)})
    # In the order in which the layers were asked for.
    frame = numbers.join(frame, on="layer", how="inner", maintain_order="left_right")
    return frame.drop("layer").rename({"_number": "layer"})
