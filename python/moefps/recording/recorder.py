"""`capture`: a model, texts, and what its routers chose, into a dump."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moefps.errors import ArgumentError, FileError, MissingExtraError
from moefps.io.atomic import check_destination
from moefps.io.dump.folders import destination
from moefps.io.dump.manifest import KINDS

if TYPE_CHECKING:
    import polars as pl

    from moefps._typing import PathLike, Progress
    from moefps.io.dump import Dump
    from moefps.io.pair_tokens import PairTokens
    from moefps.recording.specs import RouterSpec

__all__ = ["capture", "check_extra"]


def capture(
    model: Any,
    texts: Sequence[Any] | None = None,
    *,
    tokenizer: Any = None,
    pairs: PathLike | PairTokens | None = None,
    condition: str | None = None,
    output: PathLike | None = None,
    samples: pl.DataFrame | Mapping[str, Any] | None = None,
    decoder_texts: Sequence[Any] | None = None,
    kind: str | None = None,
    logits: bool = False,
    hidden_states: Sequence[int] | None = None,
    router_vectors: bool = False,
    layers: Sequence[int] | None = None,
    routers: Sequence[RouterSpec | str] = (),
    generate: int = 0,
    sampling: Mapping[str, Any] | None = None,
    seed: int | None = None,
    chat: bool = False,
    batch_tokens: int = 8192,
    max_length: int | None = None,
    dtype: str = "auto",
    device: str | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    tp_plan: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = False,
) -> Dump:
    """Record the routing of a Mixture-of-Experts model over samples, into a dump.

    Which experts each token went to, and with which weights, is taken from the model as it ran: ids are never computed
    a second time. Samples are run in batches of like length, padded on the right; padding is never written, and the
    dump has the samples in the order given.

    Parameters
    ----------
    model : PreTrainedModel, str or path
        A model of transformers, or the folder or hub name to load one from. It is left as it was found.
    texts : sequence
        A text, a sequence of token ids, a list of chat messages (with `chat`), or a processor's output with batch size
        1 (a mapping with images and the like) for each of N samples. Not given with `pairs`.
    tokenizer : tokenizer, optional
        Needed for texts where `model` is not a name.
    pairs : path or PairTokens, optional
        Instead of texts: the file of aligned tokens that `moefps.align_pairs` writes, a task a sample. Tokens stand at
        their aligned coordinates, which are the column ``position`` of the tokens; the column ``segment`` says what
        stands there, ``own`` for what only the assisted condition has. The samples get a column ``task_id``, and the
        manifest says which file and which condition it was.
    condition : {"agentic", "assisted"}, optional
        Which condition of the pairs.
    output : path, optional
        The dump's folder. When not given, a temporary one that is removed with the object that is returned.
    samples : polars.DataFrame or mapping, optional
        Columns of your own to keep, a row a sample.
    decoder_texts : sequence, optional
        For an encoder-decoder: what its decoder reads after the start token; only the start token when not given.
    kind : {"probs", "weights", "counts"}, optional
        Fingerprints that are added up on the way: ``probs`` (the mean of the routers' full distributions; the default
        where the model has them), else ``weights``.
    logits : bool
        True keeps the router logits of every token, [T, L, E].
    hidden_states : sequence of int, optional
        The model's own numbers of layers whose output to keep, [T, L', d].
    router_vectors : bool
        True keeps the routers' weight rows, [L, E, d].
    layers : sequence of int, optional
        Which MoE layers, counted from 0; all when not given.
    routers : sequence of RouterSpec or str
        Routers that moefps does not know by itself.
    generate : int
        New tokens to generate after each prompt; 0 only reads. Every position that the model was fed is recorded: the
        prompt and all new tokens but the last.
    sampling : mapping, optional
        Arguments of transformers' ``generate``, such as ``temperature``; greedy when not given.
    seed : int, optional
        For sampling.
    chat : bool
        True applies the tokenizer's chat template.
    batch_tokens : int
        Most positions of a batch, padding and tokens to generate included; a longer sample is run by itself.
    max_length : int, optional
        Most tokens of a text; the rest is cut off, and counted in the column ``n_cut`` of the samples.
    dtype, device, device_map, tp_plan, revision, trust_remote_code
        How to load a model given by name; see `transformers.PreTrainedModel.from_pretrained`.
    resume : bool
        True goes on with a capture that was interrupted; everything else must be as it was.
    overwrite : bool
        True replaces a dump that exists.
    progress : bool or callable
        True shows a bar on stderr; a callable is given (done, total) rows.

    Returns
    -------
    Dump

    Raises
    ------
    ArgumentError
        An argument or a sample is not accepted.
    CaptureError
        A router was not called, or gave what does not fit the batch.
    DumpError, FileError
        The dump cannot be written, or resumed.

    Warns
    -----
    CaptureWarning
        The model has no MoE layer (the dump has no layers then), or texts were cut.

    Examples
    --------
    >>> import moefps
    >>> from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM
    >>> config = Qwen3MoeConfig(
    ...     vocab_size=100,
    ...     hidden_size=16,
    ...     intermediate_size=16,
    ...     moe_intermediate_size=8,
    ...     num_hidden_layers=2,
    ...     num_attention_heads=2,
    ...     num_key_value_heads=2,
    ...     head_dim=8,
    ...     num_experts=8,
    ...     num_experts_per_tok=2,
    ... )
    >>> dump = moefps.capture(Qwen3MoeForCausalLM(config), [[1, 2, 3], [4, 5]])
    >>> dump.n_samples, dump.n_tokens, dump.expert_ids.shape
    (2, 5, (5, 2, 2))
    """
    check_extra()
    from moefps.recording.aligned import read_aligned
    from moefps.recording.loading import load_model
    from moefps.recording.planning import make_plan, sample_table
    from moefps.recording.running import run_plan

    _check_arguments(kind, generate, sampling, seed, output, resume=resume, overwrite=overwrite)
    given = {"texts": texts, "decoder_texts": decoder_texts, "max_length": max_length, "generate": generate or None}
    _check_pairs(pairs, condition, {**given, "chat": chat or None})
    aligned = None if pairs is None else read_aligned(pairs, condition)
    if aligned is not None:
        samples = aligned.sample_columns(samples)
    texts = () if texts is None else texts
    if output is not None:
        _check_output(output, resume=resume, overwrite=overwrite)
    if isinstance(model, str | os.PathLike):
        model = os.fspath(model)
        tokenizer = tokenizer or _tokenizer_for(model, texts, revision=revision, trust_remote_code=trust_remote_code)
        model = load_model(
            model,
            dtype=dtype,
            device=device,
            device_map=device_map,
            tp_plan=tp_plan,
            revision=revision,
            trust_remote_code=trust_remote_code,
        )
    elif any(choice is not None for choice in (device, device_map, tp_plan, revision)) or dtype != "auto":
        raise ArgumentError("dtype, device, device_map, tp_plan and revision: only for a model given by name")
    plan = make_plan(
        model,
        texts,
        tokenizer,
        decoder_texts=decoder_texts,
        kind=kind,
        logits=logits,
        hidden_states=hidden_states,
        router_vectors=router_vectors,
        layers=layers,
        routers=routers,
        generate=generate,
        sampling=sampling,
        seed=seed,
        chat=chat,
        batch_tokens=batch_tokens,
        max_length=max_length,
        aligned=aligned,
    )
    table = sample_table(samples, texts, plan.encoded, cut=max_length is not None)
    if output is not None:
        return run_plan(plan, Path(output), table, resume=resume, overwrite=overwrite, progress=progress)
    folder = Path(tempfile.mkdtemp(prefix="moefps-"))
    try:
        dump = run_plan(plan, folder / "dump", table, resume=False, overwrite=False, progress=progress)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(dump, shutil.rmtree, folder, ignore_errors=True)
    return dump


def check_extra() -> None:
    """Raise `MissingExtraError`, which says what to install, where torch or transformers is missing."""
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"capture needs {error.name}, which is not installed; run: pip install 'moefps[capture]'"
        ) from error


def _check_arguments(
    kind: str | None,
    generate: int,
    sampling: Mapping[str, Any] | None,
    seed: int | None,
    output: PathLike | None,
    *,
    resume: bool,
    overwrite: bool,
) -> None:
    if kind is not None and kind not in KINDS:
        raise ArgumentError(f"kind: got {kind!r}; accepted: {', '.join(KINDS)}")
    if isinstance(generate, bool) or generate < 0:
        raise ArgumentError(f"generate: got {generate}; accepted: the number of new tokens, 0 for none")
    if sampling is not None and not generate:
        raise ArgumentError("sampling: only for generate=N")
    if seed is not None and sampling is None:
        raise ArgumentError("seed: only for sampling=...; nothing else is drawn at random")
    if resume and output is None:
        raise ArgumentError("resume: needs output=, the dump to go on with")
    if resume and overwrite:
        raise ArgumentError("resume and overwrite: one goes on with a dump, the other replaces it; choose one")


def _check_pairs(pairs: Any, condition: str | None, given: Mapping[str, Any]) -> None:
    """Refuse what does not go with pairs, and a condition without them."""
    if pairs is None:
        if condition is not None:
            raise ArgumentError("condition: only for pairs=, a file of aligned tokens")
        if given["texts"] is None:
            raise ArgumentError("texts: got none; accepted: texts, or pairs=, a file of aligned tokens")
        return
    clash = next((name for name, value in given.items() if value is not None), None)
    if clash is not None:
        raise ArgumentError(f"{clash}: not with pairs, whose tokens are fed as they are; leave one of the two out")


def _check_output(output: PathLike, *, resume: bool, overwrite: bool) -> None:
    """Refuse before a model is loaded what the writer would refuse after it has run."""
    place = destination(output, "output")
    if not place.is_there:
        # A folder is made where a file could be.
        check_destination(output)
    if place.manifest is None or overwrite:
        return
    if place.manifest.state == "complete":
        way = "it is complete, so there is nothing to resume" if resume else "pass --overwrite to replace it"
        raise FileError(f"{os.fspath(output)}: exists already, {way}")
    if not resume:
        raise FileError(f"{os.fspath(output)}: a capture was interrupted here; pass --resume to go on, or --overwrite")


def _tokenizer_for(model: str, texts: Any, *, revision: str | None, trust_remote_code: bool) -> Any:
    """Load the model's own tokenizer where a sample needs one."""
    from moefps.recording.loading import load_tokenizer

    is_text = isinstance(texts, Sequence) and any(
        isinstance(text, str) or (isinstance(text, Sequence) and any(isinstance(turn, Mapping) for turn in text))
        for text in texts
    )
    return load_tokenizer(model, revision=revision, trust_remote_code=trust_remote_code) if is_text else None
