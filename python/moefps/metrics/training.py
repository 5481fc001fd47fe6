"""Routing metrics while a model trains: a callback for transformers' Trainer."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moefps.errors import ArgumentError, MissingExtraError
from moefps.kernels import check_count
from moefps.metrics.arguments import check_factor
from moefps.metrics.listener import Listener
from moefps.metrics.registry import find_metric

if TYPE_CHECKING:
    from moefps.metrics.analyzer import RoutingAnalyzer
    from moefps.recording import RouterSpec

try:
    from transformers import TrainerCallback
except ImportError:
    # The module can be looked at without it; making a callback says what is missing.
    TrainerCallback = object

__all__ = ["RoutingCallback"]

DEFAULT = ("load_balancing_coefficient", "maxvio", "expert_utilization_rate", "token_choice_entropy")
AGGREGATES = ("mean", "min", "max", "std")
# What the routers of a forward tell.
KNOWN = frozenset({"trace", "weights", "logits", "neighbours", "pairs", "batches"})


class RoutingCallback(TrainerCallback):  # type: ignore[misc]
    """Log routing metrics every n steps of a transformers Trainer.

    Hooks are on the model only during a step that is logged. Padding is left out, by the batch's ``attention_mask``;
    sequences that are packed into one row are told apart by its ``position_ids``. With gradient accumulation a step
    has several batches, and all count; with gradient checkpointing a batch counts once. With several processes, the
    batches of all of them count. Routers of a vision tower are left out.

    Parameters
    ----------
    metrics : sequence of str
        Names of metrics of `moefps.list_metrics` that are one number a layer.
    every : int
        Steps from one log to the next.
    aggregates : sequence of {"mean", "min", "max", "std"}
        What is logged of the layers: the mean as ``routing/NAME``, others as ``routing/NAME/max``.
    by_layer : bool
        True logs each layer, too, as ``routing/NAME/layer_3``, by the model's own numbers. Where layers share a number
        (the stacks of an encoder-decoder), the stack comes before: ``decoder_layer_3``.
    evaluate : bool
        True does the same with all batches of an evaluation during training, as ``eval_routing/NAME``.
    prefix : str
        What comes before each name.
    routers : sequence of RouterSpec
        Routers that moefps does not find by itself.
    capacity_factor : float
        For the capacity metrics.

    Raises
    ------
    ArgumentError
        An unknown metric, or one that takes more than the routers of a batch; something else that is not accepted.
    MissingExtraError
        transformers is not installed.

    Examples
    --------
    >>> callback = RoutingCallback(("load_balancing_coefficient", "gini_coefficient"), every=100)

    It is handed over as any other: ``Trainer(model, ..., callbacks=[callback])``.
    """

    def __init__(
        self,
        metrics: Sequence[str] = DEFAULT,
        every: int = 50,
        *,
        aggregates: Sequence[str] = ("mean",),
        by_layer: bool = False,
        evaluate: bool = False,
        prefix: str = "routing/",
        routers: Sequence[RouterSpec] = (),
        capacity_factor: float = 1.25,
    ) -> None:
        if TrainerCallback is object:
            raise MissingExtraError("RoutingCallback needs transformers: pip install 'moefps[capture]'")
        lists = (("metrics", metrics, "names"), ("aggregates", aggregates, "names"), ("routers", routers, "RouterSpec"))
        for name, given, of in lists:
            if isinstance(given, str) or not isinstance(given, Sequence):
                raise ArgumentError(f"{name}: {given!r}; accepted: a sequence of {of}")
        check_factor(capacity_factor)
        found = [find_metric(name) for name in metrics]
        for metric in found:
            beyond = [need for need in metric.needs if need not in KNOWN]
            if beyond or not metric.is_scalar:
                what = f"needs {beyond[0]}" if beyond else "is not one number a layer"
                raise ArgumentError(f"metrics: {metric.name!r} {what}; accepted: what the routers of a batch tell")
        self.every = check_count("every", every, "an integer >= 1")
        if self.every < 1:
            raise ArgumentError(f"every: {every!r}; accepted: an integer >= 1")
        unknown = [name for name in aggregates if name not in AGGREGATES]
        if unknown:
            raise ArgumentError(f"aggregates: {unknown[0]!r}; accepted: {', '.join(AGGREGATES)}")
        self.metrics = tuple(dict.fromkeys(metric.name for metric in found))
        self.aggregates = tuple(aggregates)
        self.by_layer = by_layer
        self.evaluate = evaluate
        self.prefix = prefix
        needs_logits = any("logits" in metric.needs for metric in found)
        self._listener = Listener(tuple(routers), needs_logits=needs_logits, capacity_factor=capacity_factor)
        self._trainer: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Refuse what hides the routers."""
        self._listener.detach()
        if getattr(args, "torch_compile", False):
            raise ArgumentError(
                "torch_compile: True, and a compiled model runs no hooks that come later; accepted: False"
            )
        if getattr(args, "n_gpu", 0) > 1:
            raise ArgumentError(f"n_gpu: {args.n_gpu} in one process; accepted: one, as torchrun starts them")
        self._trainer = _calling_trainer(state)

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Attach hooks for a step that is logged."""
        self._listener.detach()
        if (state.global_step + 1) % self.every == 0:
            self._listener.attach(model, training=True)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Log, and take the hooks away."""
        if self._listener.is_attached:
            self._log(state, control, self.prefix)
        self._await_evaluation(control, model)

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Attach hooks where an evaluation comes."""
        self._await_evaluation(control, model)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log an evaluation."""
        if self._listener.is_attached:
            self._log(state, control, f"eval_{self.prefix}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the model as it was found."""
        self._listener.detach()
        self._trainer = None

    def _await_evaluation(self, control: Any, model: Any) -> None:
        if self.evaluate and control.should_evaluate and not self._listener.is_attached:
            self._listener.attach(model, training=False)

    def _log(self, state: Any, control: Any, prefix: str) -> None:
        analyzer = _of_all_processes(self._listener.take())
        values = self._values(analyzer, prefix)
        if self._trainer is None:
            # A loop that is not the Trainer's, with its state alone.
            state.log_history.append({**values, "step": state.global_step})
            return
        # The event of a log takes back that the losses are to be logged.
        is_due = control.should_log
        self._trainer.log(values)
        control.should_log = is_due

    def _values(self, analyzer: RoutingAnalyzer, prefix: str) -> dict[str, float]:
        """Give what is logged; a metric that has no value in any layer is left out."""
        result = analyzer.result(self.metrics)
        found: dict[str, float] = {}
        for row in result.summary.iter_rows(named=True):
            for aggregate in self.aggregates:
                if row[aggregate] is not None:
                    name = row["metric"] if aggregate == "mean" else f"{row['metric']}/{aggregate}"
                    found[f"{prefix}{name}"] = float(row[aggregate])
        if self.by_layer:
            names = self._listener.layer_names()
            for row in result.layers.iter_rows(named=True):
                if row["value"] is not None:
                    found[f"{prefix}{row['metric']}/{names[row['layer']]}"] = float(row["value"])
        return found


def _of_all_processes(analyzer: RoutingAnalyzer) -> RoutingAnalyzer:
    """Add up what the processes of a run have seen."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return analyzer
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, analyzer)
    total: RoutingAnalyzer = sum(parts[1:], parts[0])
    return total


def _calling_trainer(state: Any) -> Any:
    """Find the Trainer whose event this is, None where there is none.

    Events are handed everything but the Trainer, and only its `log` reaches the integrations, which come before other
    callbacks: so it is looked for among the callers.
    """
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if getattr(caller, "state", None) is state and hasattr(caller, "callback_handler") and hasattr(caller, "log"):
            return caller
        frame = frame.f_back
    return None
