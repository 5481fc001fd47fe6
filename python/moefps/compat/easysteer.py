"""The calls that people know from EasySteer's ``hidden_states``, on models of transformers instead of vLLM engines.

A script changes its import and hands over a model's path (or a model of transformers, and ``tokenizer=``) where it had
a vLLM ``LLM``:

>>> from moefps.compat import easysteer as hs
>>> hs.print_moe_router_logits_summary({})
📊 Captured 0 MoE layers:

Logits are what the routers computed, for the tokens of the texts alone: padding is never in them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moefps.compat._vllm_calls import CompletionOutput, RequestOutput, as_tensor, capture_for, logits_by_layer
from moefps.errors import ArgumentError, CaptureWarning, ShapeError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "CompletionOutput",
    "MoERouterLogitsCapture",
    "MoERouterLogitsCaptureV1",
    "RequestOutput",
    "analyze_expert_usage",
    "get_all_hidden_states",
    "get_moe_router_logits",
    "get_moe_router_logits_generate",
    "print_moe_router_logits_summary",
]


class MoERouterLogitsCapture:
    """The same calls as methods of an object that keeps nothing."""

    def get_router_logits(
        self, model: Any, texts: Sequence[Any], split_by_samples: bool = False, **options: Any
    ) -> tuple[Any, list[RequestOutput]]:
        """Capture router logits; see `get_moe_router_logits`."""
        return get_moe_router_logits(model, texts, split_by_samples, **options)


MoERouterLogitsCaptureV1 = MoERouterLogitsCapture


def get_moe_router_logits(
    model: Any, texts: Sequence[Any], split_by_samples: bool = False, *, tokenizer: Any = None, **options: Any
) -> tuple[Any, list[RequestOutput]]:
    """Capture the raw logits of all routers for some texts.

    Parameters
    ----------
    model : str or PreTrainedModel
        A folder or hub name, or a model of transformers.
    texts : list of str
        The texts; or lists of token ids.
    split_by_samples : bool
        True gives a dict for each text instead of one for all.
    tokenizer : tokenizer, optional
        Needed for texts where `model` is an object.
    **options
        ``dtype``, ``device``, ``device_map``, ``tp_plan``, ``revision``, ``trust_remote_code`` for a model by name;
        ``batch_tokens``, ``max_length``, ``chat``, ``layers``, ``routers``, ``progress``; all as in `moefps.capture`.

    Returns
    -------
    router_logits : dict of int to Tensor [T, E], or list of them
        On the CPU, keyed by the model's own layer numbers. Where two routers share a number (the stacks of an
        encoder-decoder), all keys are module paths.
    outputs : list of RequestOutput
        The tokens of each text.

    Raises
    ------
    ArgumentError
        The model is a vLLM engine, or an option exists in vLLM alone.
    MoefpsError
        As `moefps.capture`.
    """
    dump, outputs = capture_for(model, texts, tokenizer, options, generate=0, logits=True)
    return logits_by_layer(dump, split_by_samples=split_by_samples), outputs


def get_moe_router_logits_generate(
    model: Any,
    prompts: Sequence[Any],
    max_tokens: int = 1,
    split_by_samples: bool = False,
    *,
    tokenizer: Any = None,
    **options: Any,
) -> tuple[Any, list[RequestOutput]]:
    """Generate, and capture the raw logits of all routers for prompts and new tokens.

    Every position that the model was fed is there once: the prompt and all new tokens but the last.

    Parameters
    ----------
    model : str or PreTrainedModel
        A folder or hub name, or a model of transformers.
    prompts : list of str
        The prompts; or lists of token ids.
    max_tokens : int
        Most new tokens a prompt, at least 1.
    split_by_samples : bool
        True gives a dict for each prompt instead of one for all.
    tokenizer : tokenizer, optional
        Needed for texts where `model` is an object.
    **options
        As for `get_moe_router_logits`; and ``temperature``, ``top_p``, ``top_k``, ``min_p``, ``repetition_penalty``,
        ``seed``. Greedy where no temperature is given, or 0.

    Returns
    -------
    router_logits : dict of int to Tensor [T, E], or list of them
        As `get_moe_router_logits`.
    outputs : list of RequestOutput
        With the new tokens.

    Raises
    ------
    ArgumentError
        The model is a vLLM engine, an option exists in vLLM alone, or `max_tokens` is below 1.
    MoefpsError
        As `moefps.capture`.
    """
    if max_tokens is True or max_tokens < 1:
        raise ArgumentError(f"max_tokens: found {max_tokens!r}; accepted: at least 1")
    dump, outputs = capture_for(model, prompts, tokenizer, options, generate=max_tokens, logits=True)
    return logits_by_layer(dump, split_by_samples=split_by_samples), outputs


def get_all_hidden_states(
    model: Any, texts: Sequence[Any], *, tokenizer: Any = None, **options: Any
) -> tuple[list[list[Tensor]], list[RequestOutput]]:
    """Capture the output of every layer for some texts; the model need not be a Mixture-of-Experts.

    Parameters
    ----------
    model, texts, tokenizer, **options
        As for `get_moe_router_logits`.

    Returns
    -------
    hidden_states : list of lists of Tensor [n, d]
        ``hidden_states[sample][layer]``, on the CPU; of an encoder-decoder, the layers of the decoder.
    outputs : list of RequestOutput
        The tokens of each text.

    Raises
    ------
    ArgumentError
        The model is a vLLM engine, or an option exists in vLLM alone.
    MoefpsError
        As `moefps.capture`.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the model has no MoE layer", category=CaptureWarning)
        dump, outputs = capture_for(model, texts, tokenizer, options, generate=0, logits=False)
    states = []
    for sample in dump:
        rows = as_tensor(sample.hidden_states, dump)
        if dump.tokens is not None and "stack" in dump.tokens.columns and sample.tokens is not None:
            rows = rows[(sample.tokens["stack"] == "decoder").to_numpy()]
        states.append([rows[:, layer].clone() for layer in range(rows.shape[1])])
    return states, outputs


def print_moe_router_logits_summary(router_logits: Mapping[Any, Tensor]) -> None:
    """Print a line a layer: its tokens, its experts, and how its logits are kept.

    Parameters
    ----------
    router_logits : dict of int to Tensor [T, E]
        As `get_moe_router_logits` gives them, not split by samples.

    Examples
    --------
    >>> import torch
    >>> print_moe_router_logits_summary({0: torch.zeros(8, 8, dtype=torch.bfloat16)})
    📊 Captured 1 MoE layers:
      Layer  0: 8 tokens × 8 experts, dtype torch.bfloat16, device cpu
    """  # noqa: RUF002 (the sign is what is printed)
    _check_not_split(router_logits)
    print(f"📊 Captured {len(router_logits)} MoE layers:")  # noqa: T201
    for layer in sorted(router_logits, key=lambda key: (isinstance(key, str), key)):
        logits = router_logits[layer]
        print(  # noqa: T201
            f"  Layer {layer:>2}: {logits.shape[0]} tokens × {logits.shape[1]} experts, "  # noqa: RUF001
            f"dtype {logits.dtype}, device {logits.device}"
        )


def analyze_expert_usage(
    router_logits: Mapping[Any, Tensor],
    top_k: int = 2,
    token_range: tuple[int | None, int | None] | None = None,
    normalize: bool = False,
) -> dict[str, Any]:
    """Count how often each expert is among the `top_k` largest logits.

    That is what the model chose only where its router takes the largest logits and nothing else; many add a bias. What
    it really chose is in a dump of `moefps.capture`.

    Parameters
    ----------
    router_logits : dict of int to Tensor [T, E]
        As `get_moe_router_logits` gives them, not split by samples.
    top_k : int
        Experts that a token chooses.
    token_range : (start, stop), optional
        Only these rows; None at either end for no limit.
    normalize : bool
        True divides the counts by the number of tokens: a layer's then sum to `top_k`.

    Returns
    -------
    dict
        ``expert_selection``: layer to ids, int64 [T, k], from the largest logit down (ties go to the lowest id);
        ``expert_weights``: layer to their softmax over all experts, float32 [T, k]; ``expert_usage_counts``: layer to
        a list of E counts; ``load_balance``: layer to std(counts) / mean(counts), with ddof=1, 0 at balance (NaN for
        one expert or no token); ``num_tokens_analyzed``: the number of tokens, of a layer where they differ.

    Raises
    ------
    ArgumentError
        `top_k` does not fit the experts, or the logits are split by samples.
    ShapeError
        Logits are not [T, E].

    Examples
    --------
    >>> import torch
    >>> usage = analyze_expert_usage({3: torch.tensor([[3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0, 3.0]])}, top_k=1)
    >>> usage["expert_usage_counts"], usage["num_tokens_analyzed"]
    ({3: [1, 0, 0, 1]}, 2)
    >>> round(usage["load_balance"][3], 4)
    1.1547
    """
    _check_not_split(router_logits)
    found: dict[str, dict[Any, Any]] = {
        name: {} for name in ("expert_selection", "expert_weights", "expert_usage_counts", "load_balance")
    }
    n_tokens = {}
    for layer, logits in router_logits.items():
        if logits.ndim != 2:
            raise ShapeError(f"router_logits[{layer!r}]: shape {tuple(logits.shape)}; accepted: [T, E]")
        n_experts = logits.shape[1]
        if not 1 <= top_k <= n_experts:
            raise ArgumentError(f"top_k: found {top_k}; accepted: 1 to {n_experts}, the experts of layer {layer}")
        chosen = logits[slice(*token_range)] if token_range is not None else logits
        probabilities = chosen.float().softmax(dim=-1)
        # Sorted stably, as torch.topk promises nothing about ties.
        ids = chosen.float().sort(dim=-1, descending=True, stable=True).indices[:, :top_k]
        counts = ids.flatten().bincount(minlength=n_experts)
        found["expert_selection"][layer] = ids
        found["expert_weights"][layer] = probabilities.gather(1, ids)
        n_tokens[layer] = len(chosen)
        spread = counts.double().std(unbiased=True) if n_experts > 1 else counts.double()[0] * float("nan")
        found["load_balance"][layer] = float(spread / counts.double().mean())
        shares = (counts.double() / len(chosen)).tolist() if normalize else counts.tolist()
        found["expert_usage_counts"][layer] = shares
    different = set(n_tokens.values())
    return {**found, "num_tokens_analyzed": n_tokens if len(different) > 1 else next(iter(different), 0)}


def _check_not_split(router_logits: Any) -> None:
    if not isinstance(router_logits, Mapping):
        raise ArgumentError(
            f"router_logits: found {type(router_logits).__name__}; accepted: a dict of layers, as without "
            "split_by_samples, or one entry of the list"
        )
