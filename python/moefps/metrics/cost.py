"""What a model costs: parameters and floating-point operations a token, dense against active.

Source of the formulas: two operations for every number of a matrix that a token is multiplied by, as in Kaplan et al.,
"Scaling Laws for Neural Language Models" (arXiv:2001.08361, section 2.1), where a layer of experts counts with the
experts that a token chooses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from moefps.errors import ArgumentError, MissingExtraError

if TYPE_CHECKING:
    from moefps.recording.parameters import ExpertLayer, ModelParameters, Stack
    from moefps.recording.specs import RouterSpec

__all__ = ["FLOP_PARTS", "LayerCost", "ModelCost", "StackCost", "model_cost"]

FLOP_PARTS = ("experts", "shared", "router", "attention", "context", "dense", "head")
"""What operations are spent on: ``attention`` are its matrices, ``context`` is what grows with the context."""


@dataclass(frozen=True)
class LayerCost:
    """The experts of one router.

    Attributes
    ----------
    path : str
        Module path of the router, as in a dump.
    layer : int
        The model's own layer number.
    stack : str or None
        ``encoder``, ``decoder`` or ``vision``; None where the model has one stack.
    n_experts : int
        Experts that compute, E.
    passive_experts : int
        Experts that do nothing, which the router can choose too.
    top_k : int
        Slots of a token, k.
    parameters : int
        Parameters of all experts; 0 where they are tied to those of a layer before.
    active_parameters : int
        Parameters of those that a token uses: k of them, or k · E / (E + passive) where some are passive.
    flops_per_expert : int
        Operations of one token in one expert.
    is_text : bool
        False for experts that text never reaches, which count among the model's parameters only.
    """

    path: str
    layer: int
    stack: str | None
    n_experts: int
    passive_experts: int
    top_k: int
    parameters: int
    active_parameters: int
    flops_per_expert: int
    is_text: bool

    @property
    def experts_per_token(self) -> float:
        """Experts that compute for a token, if the router chose all of its experts equally often."""
        return self.top_k * self.n_experts / (self.n_experts + self.passive_experts)

    @property
    def flops(self) -> float:
        """Operations of a token in the experts that it uses."""
        return self.experts_per_token * self.flops_per_expert if self.is_text else 0.0


@dataclass(frozen=True)
class StackCost:
    """A token's way through one stack of layers.

    Attributes
    ----------
    name : str or None
        ``encoder``, ``decoder`` or a module path; None where the model has one stack.
    path : str
        Its module path.
    active_parameters : int
        Parameters that a token uses, embeddings included.
    flops : dict of str to float
        Operations of a token, by `FLOP_PARTS`.
    """

    name: str | None
    path: str
    active_parameters: int
    flops: Mapping[str, float] = field(hash=False)

    @property
    def flops_per_token(self) -> float:
        """Operations of a token."""
        return sum(self.flops.values())


@dataclass(frozen=True)
class ModelCost:
    """Parameters of a model, and operations that it spends on a token of text.

    A model with an encoder and a decoder has a token in each: its numbers are the sums over `stacks`.

    Attributes
    ----------
    source, model_type : str
        What was given, and its family.
    context : int
        Positions that are there for attention to look at, the token's own among them.
    total_parameters : int
        All parameters; tied ones count once.
    active_parameters : int
        Those that a token of text uses: all but the experts that it does not choose, `tower_parameters` and
        `unused_parameters`.
    expert_parameters : int
        Routed experts.
    shared_parameters, router_parameters, attention_parameters, dense_parameters : int
        Shared experts; routers; all that mixes tokens; and what is none of the others, such as dense MLPs and norms.
    embedding_parameters, head_parameters : int
        Tables that are looked up, and the matrix of predictions: 0 where it is tied to the table.
    tower_parameters : int
        What text does not reach, such as a vision tower, its experts left out.
    unused_parameters : int
        Rows that transformers keeps for passive experts and nothing reads.
    flops : dict of str to float
        Operations of a token, by `FLOP_PARTS`.
    layers : tuple of LayerCost
        One for each router, in the order in which they run.
    stacks : tuple of StackCost
        An encoder before its decoder.
    notes : tuple of str
        What the numbers rest on, for this model.
    """

    source: str
    model_type: str
    context: int
    total_parameters: int
    active_parameters: int
    expert_parameters: int
    shared_parameters: int
    router_parameters: int
    attention_parameters: int
    dense_parameters: int
    embedding_parameters: int
    head_parameters: int
    tower_parameters: int
    unused_parameters: int
    flops: Mapping[str, float] = field(hash=False)
    layers: tuple[LayerCost, ...]
    stacks: tuple[StackCost, ...]
    notes: tuple[str, ...]

    @property
    def active_matmul_parameters(self) -> float:
        """Numbers in matrices that a token is multiplied by: no embeddings, and the head also where it is tied."""
        return (self.flops_per_token - self.flops["context"]) / 2

    @property
    def flops_per_token(self) -> float:
        """Operations of a token."""
        return sum(self.flops.values())

    @property
    def dense_flops_per_token(self) -> float:
        """Operations of a token if every expert computed for it."""
        experts = sum(layer.n_experts * layer.flops_per_expert for layer in self.layers if layer.is_text)
        return self.flops_per_token - self.flops["experts"] + experts

    @property
    def expert_flop_share(self) -> float:
        """Share of a token's operations that is spent in routed experts."""
        return self.flops["experts"] / self.flops_per_token

    @property
    def parameter_ratio(self) -> float:
        """Parameters of the model for each that a token uses, those that nothing reads left out."""
        return (self.total_parameters - self.unused_parameters) / self.active_parameters

    @property
    def flop_ratio(self) -> float:
        """Operations if every expert computed, for each that is spent."""
        return self.dense_flops_per_token / self.flops_per_token

    def layer_table(self) -> pl.DataFrame:
        """Give the experts as a table, a row for each router."""
        names = [name for name in LayerCost.__dataclass_fields__ if name != "is_text"]
        columns: dict[str, list[Any]] = {
            "index": list(range(len(self.layers))),
            **{name: [getattr(layer, name) for layer in self.layers] for name in names},
            "experts_per_token": [layer.experts_per_token for layer in self.layers],
            "flops": [layer.flops for layer in self.layers],
            "is_text": [layer.is_text for layer in self.layers],
        }
        return pl.DataFrame(columns, schema_overrides={"stack": pl.String})


def model_cost(
    model: Any,
    *,
    context: int = 4096,
    top_k: int | None = None,
    routers: Sequence[RouterSpec | str] = (),
) -> ModelCost:
    """Count a model's parameters, and the operations that it spends on a token of text.

    The model is read, not run: the parameters that stand beside a router once for each expert are experts, and a token
    uses k of them. A matrix costs two operations for each of its numbers, a multiplication and an addition; embeddings
    are looked up and cost nothing. What activations are multiplied by each other is counted for attention alone:
    2 · positions · heads · (key size + value size), which is 4 · context · heads · head size in the plain case.

    Parameters
    ----------
    model : PreTrainedModel, PreTrainedConfig, path or str
        A model of transformers; its configuration; a folder with a config.json, or such a file; or the name of a family
        (``"mixtral"``), whose default configuration is taken. Nothing is downloaded and no weights are loaded: from a
        configuration, the model is built on torch's meta device.
    context : int, default 4096
        Positions that are there for attention to look at, the token's own among them. Fewer count where a sliding
        window, a chunk or an indexer lets a token see fewer. A recurrent layer costs the same for any context: 4
        operations for each number of its state, 6 with the delta rule.
    top_k : int, optional
        Experts a token, instead of what the model chooses.
    routers : sequence of RouterSpec or str
        Routers that moefps does not find by itself, for a model with code of its own.

    Returns
    -------
    ModelCost

    Raises
    ------
    ArgumentError
        There is no such model, transformers cannot build it, it has no MoE layer, or `context` or `top_k` does not fit.
    FileError
        The file is missing or is no JSON.
    CaptureError
        The model has experts, and nothing says what routes to them.
    MissingExtraError
        torch or transformers is not installed.

    Examples
    --------
    >>> cost = model_cost("mixtral")
    >>> print(f"{cost.total_parameters / 1e9:.1f} B, {cost.active_parameters / 1e9:.1f} B active")
    46.7 B, 12.9 B active
    """
    _check_count("context", context)
    if top_k is not None:
        _check_count("top_k", top_k)
    check_cost_extra()
    from moefps.recording.parameters import read_parameters

    found = read_parameters(model, routers=routers)
    if not found.layers:
        raise ArgumentError(f"{found.source}: has no MoE layer, so no experts to count")
    layers = tuple(_layer_cost(layer, top_k) for layer in found.layers)
    stacks = tuple(_stack_cost(stack, layers, found, context) for stack in found.stacks)
    return _put_together(found, layers, stacks, context, top_k)


def check_cost_extra() -> None:
    """Raise `MissingExtraError`, which says what to install, where torch or transformers is missing."""
    from moefps.recording import check_extra

    try:
        check_extra()
    except MissingExtraError as error:
        raise MissingExtraError(str(error).replace("capture needs", "the cost of a model needs", 1)) from error


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ArgumentError(f"{name}: {value!r}; accepted: a whole number from 1 on")


def _layer_cost(layer: ExpertLayer, top_k: int | None) -> LayerCost:
    """Count what a token uses of a layer's experts."""
    active = layer.n_experts - layer.passive_experts
    k = layer.top_k if top_k is None else top_k
    if k is None:
        raise ArgumentError(f"top_k: {layer.path} does not say how many experts it chooses; accepted: a number of them")
    if k > layer.n_experts:
        raise ArgumentError(f"top_k: {k}, but {layer.path} has {layer.n_experts} experts; accepted: at most that")
    return LayerCost(
        path=layer.path,
        layer=layer.layer,
        stack=layer.stack,
        n_experts=active,
        passive_experts=layer.passive_experts,
        top_k=k,
        parameters=active * layer.expert.parameters,
        active_parameters=round(k * active / layer.n_experts * layer.expert.parameters),
        flops_per_expert=2 * layer.expert.multiplied,
        is_text=layer.is_text,
    )


def _stack_cost(stack: Stack, layers: Sequence[LayerCost], found: ModelParameters, context: int) -> StackCost:
    """Follow a token through a stack."""
    own = [layer for layer in layers if layer.is_text and found.stack_of(layer.path) is stack]
    flops = {name: 2.0 * stack.parts[name].multiplied if name in stack.parts else 0.0 for name in FLOP_PARTS}
    flops["experts"] = sum(layer.flops for layer in own)
    flops["context"] = float(sum(mixer.flops(context) for mixer in stack.mixers))
    fixed = sum(size.parameters for size in stack.parts.values())
    return StackCost(stack.name, stack.path, fixed + sum(layer.active_parameters for layer in own), flops)


def _put_together(
    found: ModelParameters,
    layers: tuple[LayerCost, ...],
    stacks: tuple[StackCost, ...],
    context: int,
    top_k: int | None,
) -> ModelCost:
    """Add up the stacks."""

    def part(name: str) -> int:
        return sum(stack.parts[name].parameters for stack in found.stacks)

    return ModelCost(
        source=found.source,
        model_type=found.model_type,
        context=context,
        total_parameters=found.total,
        active_parameters=sum(stack.active_parameters for stack in stacks),
        expert_parameters=sum(layer.parameters for layer in layers),
        shared_parameters=part("shared"),
        router_parameters=part("router"),
        attention_parameters=part("attention"),
        dense_parameters=part("dense"),
        embedding_parameters=part("embedding"),
        head_parameters=part("head"),
        tower_parameters=found.towers,
        unused_parameters=sum(layer.unused for layer in found.layers),
        flops={name: sum(stack.flops[name] for stack in stacks) for name in FLOP_PARTS},
        layers=layers,
        stacks=stacks,
        notes=tuple(_notes(found, layers, context, top_k)),
    )


def _notes(found: ModelParameters, layers: Sequence[LayerCost], context: int, top_k: int | None) -> list[str]:
    """Say what the numbers rest on, where a model is not plain."""
    notes = []
    own = sorted({layer.top_k for layer in found.layers if layer.top_k is not None})
    if top_k is not None and own != [top_k]:
        theirs = f"the model's own top-{', top-'.join(map(str, own))}" if own else "what the model does not say"
        notes.append(f"top-{top_k} instead of {theirs}")
    mixers = [mixer for stack in found.stacks for mixer in stack.mixers]
    if len(found.stacks) > 1:
        names = ", ".join(str(stack.name) for stack in found.stacks)
        notes.append(f"a token in each of the stacks ({names}): their sums")
    if any(layer.passive_experts for layer in layers):
        notes.append("passive experts cost nothing; a token uses the share of its slots that equal chances give")
    if any(layer.unused for layer in found.layers):
        notes.append("rows of passive experts that transformers keeps and nothing reads are in the total")
    if found.towers or not all(layer.is_text for layer in layers):
        notes.append("what text does not reach (images, sound) is in the total, and is not active")
    limited = sum(mixer.kind == "attention" and mixer.positions(context) < context for mixer in mixers)
    if limited:
        of_all = f"in {limited} of {len(mixers)} layers of attention"
        notes.append(f"{of_all}, a token sees fewer than {context:,} positions")
    recurrent = sum(mixer.kind == "recurrent" for mixer in mixers)
    if recurrent:
        notes.append(f"{recurrent} of {len(mixers)} layers of attention are recurrent: the same cost for any context")
    unknown = [mixer.path for mixer in mixers if mixer.kind == "unknown"]
    if unknown:
        notes.append(f"{unknown[0]}: what it multiplies beside its matrices is not known, and not counted")
    return notes
