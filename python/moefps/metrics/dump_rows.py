"""Layers and rows of dumps, as the kernels are told of them, and what the kernels say of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypedDict

from moefps.errors import DataError

if TYPE_CHECKING:
    from moefps.io import Dump
    from moefps.io.dump import LayerInfo

__all__ = ["LayerSizes", "layer_sizes", "said_of_the_dump"]


class LayerSizes(TypedDict):
    """The sizes of layers, a number for each."""

    n_experts: list[int]
    passive_experts: list[int]
    top_k: list[int]


def layer_sizes(layers: Iterable[LayerInfo]) -> LayerSizes:
    """Give the sizes of layers under the names of the kernels' arguments."""
    infos = list(layers)
    return {
        "n_experts": [info.n_experts for info in infos],
        "passive_experts": [info.passive_experts for info in infos],
        "top_k": [info.top_k for info in infos],
    }


@contextmanager
def said_of_the_dump(*dumps: Dump, arrays: tuple[str, ...]) -> Iterator[None]:
    """Let what a kernel finds wrong in some of the dumps' arrays say in which file it is, and in which row.

    Raises
    ------
    DataError
        What went wrong in the block.
    """
    try:
        yield
    except DataError as error:
        for dump in dumps:
            # Their own checks name the file and the sample.
            dump.check_values([name for name in arrays if name in dump.arrays])
        raise DataError(f"{', '.join(str(dump.path) for dump in dumps)}: {error}") from None
