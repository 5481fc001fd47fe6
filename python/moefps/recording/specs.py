"""Routers that users name themselves: where they stand, and which output is what."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moefps.errors import ArgumentError
from moefps.io.dump.manifest import SCORINGS

if TYPE_CHECKING:
    from torch import nn

__all__ = ["OUTPUTS", "RouterSpec"]

OUTPUTS = ("logits", "weights", "ids")


@dataclass(frozen=True)
class RouterSpec:
    """A router that moefps does not find by itself, for example in a model with code of its own.

    Parameters
    ----------
    target : str
        A class name, or a module path in which ``*`` stands for one part and ``**`` for any number of parts, as in
        ``model.layers.*.block_sparse_moe.gate``.
    logits, weights, ids : int, optional
        Which output is what, counted from 0; a module that returns a single tensor has it at 0. None of the three
        given: ``(logits, weights, ids)``, as nearly every router returns.
    scoring : str, optional
        How logits become scores: softmax, sigmoid, softmax_topk, sqrt_softplus, probabilities, hash or other. Told by
        the module's own code where that can be read.
    top_k : int, optional
        Needed where there is no output of ids, and only there: the ids are then the `top_k` largest logits, and the
        dump says that they are derived.
    layer : str, optional
        A regular expression for the module path; its first group is the layer number.

    Raises
    ------
    ArgumentError
        The parts do not fit together.

    Examples
    --------
    >>> RouterSpec.parse("model.layers.*.moe.gate:logits=0,top_k=2,scoring=softmax").top_k
    2
    """

    target: str
    logits: int | None = None
    weights: int | None = None
    ids: int | None = None
    scoring: str | None = None
    top_k: int | None = None
    layer: str | None = None

    def __post_init__(self) -> None:
        if not self.target:
            raise ArgumentError("router: the target is empty; accepted: a module path, with * for a part, or a class")
        if self.scoring is not None and self.scoring not in SCORINGS:
            raise ArgumentError(f"scoring={self.scoring!r} is not known; accepted: {', '.join(SCORINGS)}")
        if self.logits is self.weights is self.ids is None and self.top_k is None:
            for index, name in enumerate(OUTPUTS):
                object.__setattr__(self, name, index)
        for name in OUTPUTS:
            index = getattr(self, name)
            if index is not None and index < 0:
                raise ArgumentError(f"router {self.target!r}: {name}={index}; accepted: an output's number, from 0")
        self._check_parts()

    def _check_parts(self) -> None:
        """Raise where something is missing, or said twice."""
        who = f"router {self.target!r}"
        if self.ids is None and (self.logits is None or self.top_k is None or self.top_k < 1):
            raise ArgumentError(f"{who}: no output of ids; then logits= and top_k= (at least 1) must be given")
        if self.ids is not None and self.top_k is not None:
            raise ArgumentError(f"{who}: ids={self.ids} and top_k={self.top_k}; accepted: one of them")
        if self.weights is None and self.logits is None:
            raise ArgumentError(f"{who}: no output of weights; then logits= must be given")
        if self.layer is not None:
            try:
                groups = re.compile(self.layer).groups
            except re.error as error:
                raise ArgumentError(f"{who}: layer={self.layer!r} is no regular expression: {error}") from None
            if groups < 1:
                raise ArgumentError(f"{who}: layer={self.layer!r} has no group; the first one is the layer number")

    @classmethod
    def parse(cls, text: str) -> RouterSpec:
        """Read a router from one word of a command line: ``target:key=value,key=value``.

        Raises
        ------
        ArgumentError
            A key is not known, or a value is not what it must be.

        Examples
        --------
        >>> RouterSpec.parse("MyRouter:scoring=sigmoid").ids
        2
        """
        target, _, rest = text.partition(":")
        found: dict[str, Any] = {}
        for part in filter(None, rest.split(",")):
            key, equals, value = part.partition("=")
            if not equals or key not in (*OUTPUTS, "scoring", "top_k", "layer"):
                raise ArgumentError(
                    f"router {text!r}: {part!r}; accepted: logits=, weights=, ids=, scoring=, top_k=, layer="
                )
            if key in {"scoring", "layer"}:
                found[key] = value
            elif value.isdecimal():
                found[key] = int(value)
            else:
                raise ArgumentError(f"router {text!r}: {part!r}; accepted: a whole number")
        return cls(target, **found)

    def matches(self, path: str, module: nn.Module) -> bool:
        """Tell whether a module is meant."""
        return type(module).__name__ == self.target or self._pattern().fullmatch(path) is not None

    def layer_number(self, path: str) -> int | None:
        """Read the layer number from a module path, by this router's own expression.

        Raises
        ------
        ArgumentError
            It does not match, or its first group is no number.
        """
        if self.layer is None:
            return None
        match = re.search(self.layer, path)
        if match is None or not (match.group(1) or "").isdecimal():
            raise ArgumentError(f"router {self.target!r}: layer={self.layer!r} finds no number in {path!r}")
        return int(match.group(1))

    def _pattern(self) -> re.Pattern[str]:
        """Turn the target into a regular expression for paths."""
        words = {"**": ".*", "*": r"[^.]+"}
        parts = re.split(r"(\*\*|\*)", self.target)
        return re.compile("".join(words.get(part) or re.escape(part) for part in parts))
