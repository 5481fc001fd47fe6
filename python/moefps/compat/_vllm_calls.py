"""One capture for a call in the manner of vLLM: arguments checked, outputs under the names that vLLM has for them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from moefps.errors import ArgumentError, CaptureError

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

    from moefps.io.dump import Dump

__all__ = ["CompletionOutput", "RequestOutput", "as_tensor", "capture_for", "logits_by_layer"]

_LOADING = ("dtype", "device", "device_map", "tp_plan", "revision", "trust_remote_code")
_RUNNING = ("batch_tokens", "chat", "layers", "max_length", "progress", "routers")
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed")

_OF_VLLM = """
best_of block_size cpu_offload_gb distributed_executor_backend enable_chunked_prefill enable_expert_parallel enable_lora
enable_prefix_caching enable_steer_vector enforce_eager frequency_penalty gpu_memory_utilization guided_decoding
kv_cache_dtype limit_mm_per_prompt load_format logits_processors logprobs lora_request max_model_len
max_num_batched_tokens max_num_seqs mm_processor_kwargs n pipeline_parallel_size presence_penalty prompt_logprobs
quantization sampling_params steer_vector_request stop stop_token_ids swap_space task tensor_parallel_size use_tqdm
worker_cls
"""
"""Names of arguments, so that who brings one along hears where it belongs."""


@dataclass(frozen=True)
class CompletionOutput:
    """What was generated for a prompt, under the names that vLLM has for it.

    Attributes
    ----------
    index : int
        Always 0: one sequence a prompt.
    text : str
        The new tokens as text, special ones left out.
    token_ids : list of int
        The new tokens, the end token included.
    """

    index: int
    text: str
    token_ids: list[int]


@dataclass(frozen=True)
class RequestOutput:
    """What a text was to the model, under the names that vLLM has for it.

    Attributes
    ----------
    request_id : str
        The number of the text, from 0.
    prompt : str or None
        The text; None where token ids were given.
    prompt_token_ids : list of int
        Its tokens.
    outputs : list of CompletionOutput
        One where something was generated, none else.
    """

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]


def capture_for(
    model: Any, texts: Sequence[Any], tokenizer: Any, options: dict[str, Any], *, generate: int, logits: bool
) -> tuple[Dump, list[RequestOutput]]:
    """Run the model over texts, into a dump that goes when nobody needs it any more."""
    sampling, seed = _check_options(model, options, is_generating=generate > 0)
    _check_texts(texts)
    # Importing torch takes seconds, and what is wrong with the call is said before.
    from moefps.recording import capture, check_extra

    check_extra()
    from moefps.recording.loading import load_model, load_tokenizer

    loading = {name: options[name] for name in _LOADING if name in options}
    running = {name: options[name] for name in _RUNNING if name in options}
    if isinstance(model, str | os.PathLike):
        model = os.fspath(model)
        common = {name: loading[name] for name in ("revision", "trust_remote_code") if name in loading}
        is_text = any(isinstance(text, str) for text in texts)
        tokenizer = tokenizer or (load_tokenizer(model, **common) if is_text or generate else None)
        model = load_model(model, **loading)
    elif loading:
        raise ArgumentError(f"{next(iter(loading))}: is for a model given by name, and this one is loaded already")
    hidden = None if logits else range(model.config.get_text_config(decoder=True).num_hidden_layers)
    dump = capture(
        model,
        list(texts),
        tokenizer=tokenizer,
        logits=logits,
        hidden_states=hidden,
        generate=generate,
        sampling=sampling,
        seed=seed,
        **running,
    )
    return dump, _outputs(dump, texts, tokenizer, is_generating=generate > 0)


def _check_options(
    model: Any, options: dict[str, Any], *, is_generating: bool
) -> tuple[dict[str, Any] | None, int | None]:
    """Refuse what only vLLM has, and sort out how to sample."""
    if type(model).__module__.partition(".")[0] == "vllm" or hasattr(model, "llm_engine"):
        raise ArgumentError(
            f"model: is a vLLM engine ({type(model).__name__}), which moefps does not run; accepted: the model's path "
            "or hub name, or a model of transformers and its tokenizer="
        )
    known = {*_LOADING, *_RUNNING, *(_SAMPLING if is_generating else ())}
    for name in options:
        if name in _OF_VLLM.split():
            raise ArgumentError(f"{name}: exists only in vLLM; moefps runs transformers, leave it out")
        if name not in known:
            raise ArgumentError(f"{name}: is not known; accepted: {', '.join(sorted(known))}")
    temperature = options.get("temperature")
    if not is_generating or not temperature:
        unused = next((name for name in ("top_p", "top_k", "min_p", "seed") if options.get(name) is not None), None)
        if unused is not None:
            raise ArgumentError(f"{unused}: is for sampling; accepted: with a temperature above 0")
        penalty = options.get("repetition_penalty")
        return (None if penalty is None else {"do_sample": False, "repetition_penalty": penalty}), None
    sampling = {name: options[name] for name in _SAMPLING if name != "seed" and options.get(name) is not None}
    return sampling, options.get("seed")


def _check_texts(texts: Any) -> None:
    if isinstance(texts, str | bytes | Mapping) or not isinstance(texts, Sequence):
        raise ArgumentError(f"texts: found {type(texts).__name__}; accepted: a list of texts")
    for i, text in enumerate(texts):
        if isinstance(text, Mapping) and {"prompt", "multi_modal_data"} & set(text):
            raise ArgumentError(
                f"texts[{i}]: is a prompt as vLLM takes it, which exists only there; accepted: a text, token ids, or "
                "the output of a transformers processor"
            )


def _outputs(dump: Dump, texts: Sequence[Any], tokenizer: Any, *, is_generating: bool) -> list[RequestOutput]:
    """Say which tokens the model was fed, and which it made."""
    outputs = []
    for i, (sample, text) in enumerate(zip(dump, texts, strict=True)):
        rows = sample.tokens
        if rows is None:
            raise CaptureError("the capture has no table of tokens, so what was fed is not known")
        fed = _of_stack(rows, "decoder")
        made = []
        if is_generating:
            # After the last token that was given comes the first that was made.
            new_ids = fed["next_token_id"][fed.height - int(fed["generated"].sum()) - 1 :].to_list()
            words = tokenizer.decode(new_ids, skip_special_tokens=True) if tokenizer is not None else ""
            made = [CompletionOutput(0, words, new_ids)]
        given = _of_stack(rows, "encoder")
        given = fed if not given.height else given
        given = given.filter(~given["generated"]) if is_generating else given
        prompt = text if isinstance(text, str) else None
        outputs.append(RequestOutput(str(i), prompt, given["token_id"].to_list(), made))
    return outputs


def _of_stack(rows: pl.DataFrame, stack: str) -> pl.DataFrame:
    """Take the tokens of one stack; where there is only one, all."""
    return rows.filter(rows["stack"].cast(str) == stack) if "stack" in rows.columns else rows


def logits_by_layer(dump: Dump, *, split_by_samples: bool) -> Any:
    """Give logits by layer as tensors of our own, which stay when the dump goes."""
    views = dump.router_logits() if dump.layers else {}
    stacks = None
    if dump.tokens is not None and "stack" in dump.tokens.columns:
        stacks = dump.tokens["stack"].cast(str).to_numpy()
    if dump.layers:
        dump.check_values(["router_logits"])
    starts = dump.token_starts if split_by_samples else dump.token_starts[[0, -1]]
    found = []
    for start, stop in pairwise(starts.tolist()):
        of_sample = {}
        for layer, (key, view) in zip(dump.layers, views.items(), strict=True):
            rows = view[start:stop]
            if stacks is not None:
                # Beside a vision tower, the layers that read text have no stack named.
                rows = rows[stacks[start:stop] == (layer.stack or "decoder")]
            of_sample[key] = as_tensor(rows, dump)
        found.append(of_sample)
    return found if split_by_samples else found[0]


def as_tensor(array: Any, dump: Dump) -> Tensor:
    """Copy an array into a tensor, in the model's own precision where that holds every number of it."""
    import numpy as np
    import torch

    tensor = torch.from_numpy(np.array(array))
    own = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(str(dump.manifest.model.get("dtype")))
    if own is not None:
        # numpy has no bfloat16, so a dump holds it widened; routers that compute in float32 keep float32.
        narrow = tensor.to(own)
        if torch.equal(narrow.to(tensor.dtype), tensor):
            return narrow
    return tensor
