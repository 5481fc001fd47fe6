"""Two conditions on the same coordinates: what is fed to a model of a file of aligned tokens."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from torch import nn

from moefps.errors import ArgumentError
from moefps.io.dump.user_tables import check_sample_columns
from moefps.io.pair_tokens import CONDITIONS, PairTokens, TaskTokens, read_pair_tokens
from moefps.recording.encoding import Encoded
from moefps.recording.neutrality import gap_reason

if TYPE_CHECKING:
    import polars as pl

    from moefps._typing import PathLike

__all__ = ["OWN", "Aligned", "encode_aligned", "read_aligned"]

OWN = "own"
"""Label of what only the assisted condition has."""


@dataclass(frozen=True, eq=False)
class Aligned:
    """A file of aligned tokens, and the condition of it that is run.

    Attributes
    ----------
    tokens : PairTokens
        All tasks.
    condition : {"agentic", "assisted"}
        Which one.
    segment_names : tuple of str
        What the numbers in the tokens' column ``segment`` stand for: kinds of segment, and `OWN`.
    """

    tokens: PairTokens
    condition: str
    segment_names: tuple[str, ...]

    def sample_columns(self, samples: pl.DataFrame | Mapping[str, Any] | None) -> pl.DataFrame:
        """Put the tasks' names before the user's own columns."""
        import polars as pl

        given = check_sample_columns(samples, len(self.tokens))
        if given is not None and "task_id" in given.columns:
            raise ArgumentError("samples: the column 'task_id' is one that pairs make; accepted: other names")
        names = pl.DataFrame({"task_id": [task.task_id for task in self.tokens]})
        return names if given is None else names.hstack(given)


def read_aligned(pairs: PathLike | PairTokens, condition: str | None) -> Aligned:
    """Read a file of aligned tokens for one of its conditions.

    Raises
    ------
    ArgumentError
        The condition is missing, or none of the two.
    DataError, FileError
        As `moefps.io.pair_tokens.read_pair_tokens`.
    """
    if condition not in CONDITIONS:
        raise ArgumentError(f"condition: got {condition!r}; accepted: {', '.join(CONDITIONS)}")
    if not isinstance(pairs, PairTokens | str | os.PathLike):
        raise ArgumentError(f"pairs: got a {type(pairs).__name__}; accepted: a file of aligned tokens")
    tokens = pairs if isinstance(pairs, PairTokens) else read_pair_tokens(pairs)
    kinds = sorted({segment.kind for task in tokens for segment in task.segments})
    return Aligned(tokens, condition, (*kinds, OWN) if OWN not in kinds else tuple(kinds))


def encode_aligned(aligned: Aligned, model: nn.Module, vocabulary: int | None) -> list[Encoded]:
    """Turn the tasks into what a model is fed: whole rows, and masks that say which positions are tokens.

    Parameters
    ----------
    aligned : Aligned
        The tasks, and which condition.
    model : nn.Module
        The model; it must let a position be told, and a gap make no difference.
    vocabulary : int or None
        Rows of the model's embedding; token ids must be below.

    Raises
    ------
    ArgumentError
        The model cannot run the condition, or has no such token; says why.
    """
    _check_model(model, aligned.condition)
    encoded = []
    for task in aligned.tokens:
        ids = task.ids(aligned.condition)
        if vocabulary is not None and int(ids.max()) >= vocabulary:
            _refuse_ids(task, aligned.condition, vocabulary)
        encoded.append(
            Encoded(
                torch.from_numpy(ids.copy()),
                mask=torch.from_numpy(task.mask(aligned.condition)),
                labels={"segment": _segments(task, aligned)},
            )
        )
    return encoded


def _refuse_ids(task: TaskTokens, condition: str, vocabulary: int) -> NoReturn:
    """Say which token id the model has not, and what to do about it."""
    ids = task.ids(condition)
    strange = ids[task.mask(condition) & (ids >= vocabulary)]
    if len(strange):
        found, way = f"token id {int(strange[0])}", "align with the model's own tokenizer"
    else:
        found, way = f"the pad id {int(ids.max())}", "align with another pad token (--pad-token)"
    raise ArgumentError(
        f"pairs: task {task.task_id} has {found}; accepted: below {vocabulary:,}, the model's vocabulary; {way}"
    )


def _check_model(model: Any, condition: str) -> None:
    """Refuse a model in which a shared token would not stand at the same place in both conditions."""
    parameters = inspect.signature(model.forward).parameters
    takes_positions = "position_ids" in parameters or any(
        parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()
    )
    is_pair = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
    if is_pair or not takes_positions:
        what = "is an encoder-decoder" if is_pair else "takes no position ids"
        raise ArgumentError(f"pairs: the model {what}; accepted: a decoder that can be told where its tokens stand")
    reason = gap_reason(model) if condition == "assisted" else None
    if reason is not None:
        raise ArgumentError(
            f"condition: the assisted one has gaps, which are neutral for attention only, and {reason}; accepted: "
            f"models whose layers are all attention"
        )


def _segments(task: TaskTokens, aligned: Aligned) -> np.ndarray[Any, np.dtype[Any]]:
    """Name the segment of every position, by number."""
    number = {name: i for i, name in enumerate(aligned.segment_names)}
    names = np.empty(task.n_positions, dtype=np.uint8)
    for segment in task.segments:
        is_own = aligned.condition == "assisted" and segment.key is None
        names[segment.start : segment.end] = number[OWN if is_own else segment.kind]
    return names
