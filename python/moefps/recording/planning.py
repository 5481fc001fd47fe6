"""What is decided before a model runs: which routers, which tokens, which batches."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from moefps.errors import ArgumentError, CaptureWarning
from moefps.io.dump.user_tables import check_sample_columns
from moefps.recording.aligned import Aligned, encode_aligned
from moefps.recording.batching import DECODER, ENCODER, VISION, plan_batches
from moefps.recording.collecting import HiddenTap
from moefps.recording.encoding import Encoded, encode_samples
from moefps.recording.generating import check_sampling
from moefps.recording.routers import Router, find_routers, neutral_length, one_by_one_reason
from moefps.recording.scoring import has_full_probabilities
from moefps.recording.specs import RouterSpec
from moefps.recording.state import hidden_taps, plain_module, weights_digest

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Plan", "make_plan", "sample_table"]


@dataclass(frozen=True)
class Plan:
    """All that is decided before the model runs."""

    model: Any
    tokenizer: Any
    routers: list[Router]
    taps: list[HiddenTap]
    encoded: list[Encoded]
    batches: list[list[int]]
    kind: str | None
    keep_logits: bool
    keep_vectors: bool
    n_new: int
    sampling: Mapping[str, Any]
    seed: int | None
    pad_id: int
    settings: Mapping[str, Any]
    reason_alone: str | None
    aligned: Aligned | None = None

    @property
    def encoder_stack(self) -> str | None:
        """Name of the stack that reads the texts; None where it is the only one."""
        return ENCODER if self.encoded[0].decoder_ids is not None else None

    @property
    def stacks(self) -> tuple[str, ...]:
        """Names of the stacks, where there are several."""
        if self.encoder_stack is not None:
            return (ENCODER, DECODER)
        return (DECODER, VISION) if any(router.stack == VISION for router in self.routers) else ()


def make_plan(
    model: Any,
    texts: Sequence[Any],
    tokenizer: Any,
    *,
    decoder_texts: Sequence[Any] | None,
    kind: str | None,
    logits: bool,
    hidden_states: Sequence[int] | None,
    router_vectors: bool,
    layers: Sequence[int] | None,
    routers: Sequence[RouterSpec | str],
    generate: int,
    sampling: Mapping[str, Any] | None,
    seed: int | None,
    chat: bool,
    batch_tokens: int,
    max_length: int | None,
    aligned: Aligned | None = None,
) -> Plan:
    """Decide everything; arguments and errors as `capture`."""
    inner = plain_module(model)
    specs = [RouterSpec.parse(spec) if isinstance(spec, str) else spec for spec in routers]
    found = _choose_layers(find_routers(inner, specs), layers)
    if aligned is not None:
        encoded = encode_aligned(aligned, inner, vocabulary_size(inner))
        _warn_of_long_texts(inner, encoded, 0, "")
    else:
        encoded = _encode(
            inner, texts, tokenizer, found, decoder_texts, chat=chat, generate=generate, max_length=max_length
        )
    reason_alone = one_by_one_reason(inner)
    return Plan(
        model=model,
        tokenizer=tokenizer,
        routers=found,
        taps=hidden_taps(inner, hidden_states or ()),
        encoded=encoded,
        batches=_batches(
            encoded, generate, batch_tokens, is_alone=reason_alone is not None, neutral_up_to=neutral_length(inner)
        ),
        kind=_choose_kind(kind, found),
        keep_logits=logits,
        keep_vectors=router_vectors,
        n_new=generate,
        sampling=check_sampling(sampling, inner) if generate else {},
        seed=seed,
        pad_id=_pad_id(inner, tokenizer),
        settings={
            "batch_tokens": batch_tokens,
            "max_length": max_length,
            "generate": generate,
            "sampling": None if sampling is None else json.dumps(dict(sampling), sort_keys=True, default=str),
            "seed": seed,
            "weights": weights_digest(inner),
            "texts": _digest(encoded),
        },
        reason_alone=reason_alone,
        aligned=aligned,
    )


def _choose_layers(routers: list[Router], layers: Sequence[int] | None) -> list[Router]:
    if layers is None or not routers:
        return routers
    wrong = [layer for layer in layers if not 0 <= layer < len(routers)]
    if wrong or not layers:
        raise ArgumentError(
            f"layers: got {wrong[0] if wrong else 'none'}; accepted: 0 to {len(routers) - 1}, the model's MoE layers"
        )
    return [routers[i] for i in sorted(set(layers))]


def _choose_kind(kind: str | None, routers: Sequence[Router]) -> str | None:
    """Take the kind asked for, or the best that every layer has."""
    without = [router.path for router in routers if not has_full_probabilities(router.scoring)]
    if not routers:
        return None
    if kind == "probs" and without:
        raise ArgumentError(
            f"kind: 'probs' needs full distributions, and {without[0]} has none; accepted: weights, counts"
        )
    return kind or ("weights" if without else "probs")


def _encode(
    model: Any,
    texts: Sequence[Any],
    tokenizer: Any,
    routers: Sequence[Router],
    decoder_texts: Sequence[Any] | None,
    *,
    chat: bool,
    generate: int,
    max_length: int | None,
) -> list[Encoded]:
    has_decoder = getattr(model.config, "is_encoder_decoder", False) or any(
        router.stack == DECODER for router in routers
    )
    start = getattr(model.config, "decoder_start_token_id", None)
    if start is None and has_decoder:
        start = getattr(getattr(model, "generation_config", None), "decoder_start_token_id", None)
    encoded = encode_samples(
        texts,
        tokenizer,
        vocabulary=vocabulary_size(model),
        has_decoder=has_decoder,
        decoder_start=start if has_decoder else None,
        decoder_texts=decoder_texts,
        chat=chat,
        answer=generate > 0,
        max_length=max_length,
    )
    n_cut = sum(sample.n_cut > 0 for sample in encoded)
    if n_cut:
        warnings.warn(f"max_length={max_length} cut {n_cut:,} of {len(encoded):,} texts", CaptureWarning, stacklevel=3)
    _warn_of_long_texts(model, encoded, max(0, generate - 1), "; max_length= (--max-length) cuts them")
    vision = next((router for router in routers if router.stack == VISION), None)
    if vision is None:
        return encoded
    return [_with_patches(sample, vision) for sample in encoded]


def vocabulary_size(model: Any) -> int | None:
    """Count the tokens that a model has an embedding for; None where it does not say."""
    try:
        return int(model.get_input_embeddings().num_embeddings)
    except (NotImplementedError, AttributeError):
        return None


def _warn_of_long_texts(model: Any, encoded: Sequence[Encoded], n_more: int, way: str) -> None:
    """Say where a model is fed more positions than it was made for: it may go on, and routes at random."""
    try:
        limit = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    # Configurations that differ from layer to layer, or have several texts, do not say it in one number.
    except (AttributeError, RuntimeError, ValueError):
        return
    n_long = sum(len(sample.input_ids) + n_more > limit for sample in encoded) if isinstance(limit, int) else 0
    if n_long:
        warnings.warn(
            f"{n_long:,} of {len(encoded):,} texts have more tokens than the {limit:,} positions of the model{way}",
            CaptureWarning,
            stacklevel=4,
        )


def _with_patches(sample: Encoded, router: Router) -> Encoded:
    patches = None if sample.inputs is None else router.patches(sample.inputs)
    return replace(sample, n_patches=0 if patches is None else sum(patches))


def _pad_id(model: Any, tokenizer: Any) -> int:
    for holder in (tokenizer, model.config, getattr(model, "generation_config", None)):
        pad_id = getattr(holder, "pad_token_id", None)
        if isinstance(pad_id, int) and pad_id >= 0:
            return pad_id
    return 0


def _batches(
    encoded: Sequence[Encoded], n_new: int, batch_tokens: int, *, is_alone: bool, neutral_up_to: int | None
) -> list[list[int]]:
    """Plan the batches over all samples."""
    # While generating, the decoder of a pair has no padding on the left to line prompts of different lengths up.
    alone = [
        is_alone or sample.inputs is not None or (n_new > 0 and sample.decoder_ids is not None) for sample in encoded
    ]
    lengths = [sample.n_positions + n_new for sample in encoded]
    return plan_batches(lengths, batch_tokens, alone=alone, neutral_up_to=neutral_up_to)


def _digest(encoded: Sequence[Encoded]) -> str:
    """Sum up what the model is fed, which a resumed capture must agree with."""
    digest = hashlib.sha256()
    for sample in encoded:
        for tensor in (sample.input_ids, sample.mask, sample.decoder_ids, *(sample.inputs or {}).values()):
            if isinstance(tensor, Tensor):
                digest.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def sample_table(
    samples: pl.DataFrame | Mapping[str, Any] | None, texts: Sequence[Any], encoded: Sequence[Encoded], *, cut: bool
) -> pl.DataFrame | None:
    """Put the user's columns, the texts and what was cut into one table."""
    import polars as pl

    given = check_sample_columns(samples, len(encoded))
    table = pl.DataFrame() if given is None else given
    columns = {}
    if cut and "n_cut" in table.columns:
        raise ArgumentError("samples: the column 'n_cut' is one that max_length makes; accepted: other names")
    if "text" not in table.columns and len(texts) and all(isinstance(text, str) for text in texts):
        columns["text"] = pl.Series("text", list(texts), dtype=pl.String)
    if cut:
        columns["n_cut"] = pl.Series("n_cut", [sample.n_cut for sample in encoded], dtype=pl.Int64)
    table = table.with_columns(**columns) if table.width else pl.DataFrame(columns)
    return table if table.width else None
