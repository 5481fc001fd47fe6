"""Finding the routers of a model.

transformers says of every family which class its router is (the recorder of ``router_logits``), and that is followed.
The exceptions that `moefps.recording.readings` lists are known beside it. Releases before 5.23 do not say it of all
families: there, what stands beside the experts is taken, and the ids are read as the experts get them. Experts without
any router are never passed over in silence. Users can name routers themselves (`RouterSpec`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from moefps.errors import ArgumentError, CaptureError
from moefps.recording.named import named_form
from moefps.recording.neutrality import neutral_length, one_by_one_reason
from moefps.recording.readings import Emit, Form, Reading, Site, attach_beside_experts, exception_for
from moefps.recording.scoring import scoring_of
from moefps.recording.specs import RouterSpec
from moefps.recording.vectors import router_vectors

__all__ = ["Reading", "Router", "RouterSpec", "find_routers", "neutral_length", "one_by_one_reason", "router_vectors"]

# What torch and its wrappers put into a module path; the model's own path is the same without it.
WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
# A router's class, or the end of its path; and a part that its path must have.
Declared: TypeAlias = tuple[type[nn.Module] | None, str, str]
Found: TypeAlias = tuple[Site, Form, int | None]
# What nearly all routers of transformers are called, and nothing else is.
ROUTER_CLASS = re.compile(r"Top[Kk12](Router|Gating)$")
NAME_IT = "; name it with RouterSpec, on the command line --router, or use a newer release of transformers"
LAYER = re.compile(r"(?:^|\.)(?:layers|blocks?|h)\.(\d+)(?=\.|$)")


@dataclass(frozen=True, eq=False)
class Router:
    """A router of a model.

    Attributes
    ----------
    path : str
        Its module path, which names it in a dump.
    module : nn.Module
        The module itself.
    layer : int
        The model's own layer number. Several routers can have one: attention and MLP of jetmoe, encoder and decoder.
    stack : str or None
        ``encoder``, ``decoder`` or ``vision`` (a vision tower, whose rows are patches); None where the model has one
        stack of layers.
    scoring : str
        How logits become scores (see `full_probabilities`).
    signed_weights : bool
        Weights may be negative.
    passive_experts : int
        How many of the last experts do nothing.
    routing_type : str
        ``token_choice``.
    derived : bool
        The ids are the top-k of the logits, as the model does not hand them out.
    n_experts, top_k : int or None
        As far as the module's attributes tell before anything has run; a first `Reading` always tells.
    """

    path: str
    module: nn.Module = field(repr=False)
    layer: int
    stack: str | None
    scoring: str
    signed_weights: bool
    passive_experts: int
    routing_type: str
    derived: bool
    n_experts: int | None
    top_k: int | None
    site: Site = field(repr=False)
    form: Form = field(repr=False)

    def attach(self, emit: Emit) -> list[RemovableHandle]:
        """Register the hooks that this router needs.

        Parameters
        ----------
        emit : callable
            Called with a `Reading` once for every call of the router, in the middle of the model's forward. With
            gradient checkpointing and gradients on, the second forward calls it again.

        Returns
        -------
        list of RemovableHandle
            Each is removed by its ``remove()``.
        """
        return self.form.attach(self.site, emit)

    def covers(self, inputs: Mapping[str, Any]) -> Tensor | None:
        """Tell which token positions the rows of a forward over `inputs` are.

        Returns
        -------
        Tensor or None, bool, shape [B, S]
            None is every position. Text and vision experts of ERNIE 4.5 VL share out the positions between them.
        """
        return None if self.form.covers is None else self.form.covers(self.site, inputs)

    def patches(self, inputs: Mapping[str, Any]) -> list[int] | None:
        """Tell how many rows each sample has in a forward over `inputs`, where they are patches of a vision tower.

        Returns
        -------
        list of int, or None
            None for all routers but those of the stack ``vision``.
        """
        return None if self.form.patches is None else self.form.patches(inputs)


def find_routers(model: nn.Module, named: Sequence[RouterSpec] = ()) -> list[Router]:
    """Find every router of a model.

    Parameters
    ----------
    model : nn.Module
        A model of transformers, or one that contains some; also one with code of its own, where `named` says what its
        routers are or it declares them as those of transformers do.
    named : sequence of RouterSpec
        Routers that the caller names. They come before what is known of the same modules.

    Returns
    -------
    list of Router
        In the order of the model's modules, which is the order in which they run, an encoder before its decoder. Empty
        for a model without experts.

    Raises
    ------
    ArgumentError
        `model` is no module, or a name matches none.
    CaptureError
        The model has experts, and nothing says what routes to them.

    Examples
    --------
    >>> find_routers(nn.Linear(2, 2))
    []
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"model: {type(model).__name__}; accepted: a torch module")
    declared = _declared(model)
    unmatched = {spec.target for spec in named}
    found: list[Found] = []
    sites = list(_sites(model))
    for site in sites:
        spec = next((spec for spec in named if spec.matches(site.path, site.module)), None)
        if spec is not None:
            unmatched.discard(spec.target)
            found.append((site, named_form(spec, site.module), spec.layer_number(site.path)))
        elif _is_router(site, declared):
            # jamba's routers were plain linear maps once.
            usual = Form(attach_beside_experts) if type(site.module) is nn.Linear else Form()
            found.append((site, exception_for(site.module) or usual, None))
    if unmatched:
        raise ArgumentError(
            f"router {sorted(unmatched)[0]!r} matches no module of {type(model).__name__}; accepted: a module path, "
            "with * for one part and ** for any number, or a class name"
        )
    if not named:
        found = _with_undeclared(sites, found)
    both = _has_two_stacks(model, [site.path for site, _, _ in found])
    routers = [_router(site, form, layer, position, both) for position, (site, form, layer) in enumerate(found)]
    return _in_order(routers)


def _sites(model: nn.Module) -> Iterator[Site]:
    """Go through all modules, with the paths and the blocks around them that they have without wrappers."""
    for path, module in model.named_modules():
        # What is wrapped comes next, under the same path.
        if any(name in WRAPPERS for name, _ in module.named_children()):
            continue
        parts = path.split(".")
        around = list(parts)
        while around and around[-1] in WRAPPERS:
            around.pop()
        parent = model.get_submodule(".".join(around[:-1]))
        yield Site(".".join(part for part in parts if part not in WRAPPERS), module, parent)


def _declared(model: nn.Module) -> list[Declared]:
    """Collect what the model and the models in it declare."""
    found: list[Declared] = []
    for module in model.modules():
        recorders = (getattr(type(module), "_can_record_outputs", None) or {}).get("router_logits", ())
        for recorder in recorders if isinstance(recorders, (list, tuple)) else (recorders,):
            if isinstance(recorder, type):
                found.append((recorder, "", ""))
            elif isinstance(recorder, str):
                found.append((None, recorder, ""))
            else:
                found.append((recorder.target_class, recorder.class_name or "", recorder.layer_name or ""))
    return found


def _is_router(site: Site, declared: Sequence[Declared]) -> bool:
    """Tell whether a module is a router that is known by its class, or declared and no block around one."""
    if exception_for(site.module) is not None:
        return True
    is_declared = any(
        ((cls is not None and isinstance(site.module, cls)) or (end and site.path.endswith(end)))
        and (not part or f".{part.strip('.')}." in f".{site.path}.")
        for cls, end, part in declared
    )
    return is_declared and not any(name.split(".")[-1] == "experts" for name, _ in site.module.named_modules())


def _with_undeclared(sites: Sequence[Site], found: Sequence[Found]) -> list[Found]:
    """Add the routers of experts that nothing declares a router for.

    Raises
    ------
    CaptureError
        There is no router beside some experts, or one without experts.
    """
    forms = {site.path: (site, form, layer) for site, form, layer in found}
    known = list(forms)
    for site in sites:
        block, _, name = site.path.rpartition(".")
        # The routers of jetmoe's attention are inside their experts.
        if name != "experts" or any(path.startswith(f"{block}.") for path in known):
            continue
        beside = {f"{block}.{gate}" for gate in ("gate", "router")}
        gates = [other for other in sites if other.path in beside]
        if len(gates) != 1 or not type(site.module).__module__.startswith("transformers.models."):
            raise CaptureError(f"{site.path}: nothing says which module routes to these experts{NAME_IT}")
        forms[gates[0].path] = gates[0], Form(attach_beside_experts), None
    for site in sites:
        if site.path not in forms and ROUTER_CLASS.search(type(site.module).__name__):
            raise CaptureError(f"{site.path}: nothing says what {type(site.module).__name__} returns{NAME_IT}")
    return [forms[site.path] for site in sites if site.path in forms]


def _router(site: Site, form: Form, layer: int | None, position: int, both: bool) -> Router:
    """Put together what is known of a router before anything has run."""
    if layer is None:
        match = LAYER.search(site.path) or re.search(r"(?:^|\.)(\d+)(?=\.|$)", site.path)
        layer = position if match is None else int(match.group(1))
    return Router(
        path=site.path,
        module=site.module,
        layer=layer,
        stack=_stack(site, form, both),
        scoring=form.scoring or scoring_of(site.module, site.parent),
        signed_weights=form.signed_weights,
        passive_experts=0 if form.passive_experts is None else form.passive_experts(site) or 0,
        routing_type="token_choice",
        derived=form.derived,
        n_experts=_n_experts(site) if form.n_experts is None else form.n_experts(site),
        top_k=_number(site.module, "top_k") if form.top_k is None else form.top_k(site),
        site=site,
        form=form,
    )


def _in_order(routers: Sequence[Router]) -> list[Router]:
    """Put the router of a layer's attention before that of its MLP; jetmoe registers them the other way round."""
    layers = itertools.groupby(routers, lambda router: (router.stack, router.layer))
    return [router for _, layer in layers for router in sorted(layer, key=lambda r: "attention" not in r.path)]


def _stack(site: Site, form: Form, both: bool) -> str | None:
    """Tell the stack of layers that a router stands in."""
    if form.patches is not None:
        return "vision"
    names = [part for part in site.path.split(".") if part in {"encoder", "decoder"}]
    return names[0] if both and names else None


def _has_two_stacks(model: nn.Module, paths: Sequence[str]) -> bool:
    """Tell whether a model has an encoder and a decoder."""
    stacks = {part for path in paths for part in path.split(".")} & {"encoder", "decoder"}
    return len(stacks) == 2 or getattr(getattr(model, "config", None), "is_encoder_decoder", False) is True


def _number(module: nn.Module, name: str) -> int | None:
    """Read a whole number that a module may have."""
    value = getattr(module, name, None)
    return value if isinstance(value, int) else None


def _n_experts(site: Site) -> int | None:
    """Read the number of experts from a router, or from the only linear map in it."""
    found = _number(site.module, "num_experts")
    if found is None:
        linear = [child for child in site.module.modules() if isinstance(child, nn.Linear)]
        found = linear[0].out_features if len(linear) == 1 else None
    return found
