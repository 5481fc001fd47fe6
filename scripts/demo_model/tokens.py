"""The tokenizer, the texts as token ids, and the held-out samples."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from demo_model import jsonl
from demo_model.sources import NAMES

VOCABULARY = 4096
PAD, END, TURN_START, TURN_END = "<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = (PAD, END, TURN_START, TURN_END)
CHARACTERS_TO_LEARN_FROM = 1_500_000  # of each domain, so that none owns the vocabulary
CHAT = "chat"  # training only: the maths and dialogue texts once more, as the chat template writes them
CONTEXT = 1024
# Words with the space before them, single digits, runs of signs, runs of spaces: Qwen's rule, so any loader agrees.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SAMPLE_TOKENS = (128, 256)
_WINDOW = 192


def read_corpus(work: Path, domain: str, split: str) -> list[dict[str, Any]]:
    """Read one domain's rows of a split, in the corpus's order."""
    path = work / "corpus" / f"{domain}.jsonl"
    if not path.exists():
        raise click.ClickException(f"{path}: not found; run the step `corpus` first")
    return [row for row in jsonl.read(path) if row["split"] == split]


def _to_learn_from(work: Path) -> Iterator[str]:
    for domain in NAMES:
        characters = 0
        for row in read_corpus(work, domain, "train"):
            yield row["text"]
            characters += len(row["text"])
            if characters > CHARACTERS_TO_LEARN_FROM:
                break


def train_tokenizer(work: Path) -> PreTrainedTokenizerFast:
    """Learn a byte-level BPE from training text and save it in ``tokenizer/`` as transformers reads it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_to_learn_from(work), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=END,
        eos_token=END,
        additional_special_tokens=[TURN_START, TURN_END],
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(work / "tokenizer")
    return _settle(work / "tokenizer")


def _settle(folder: Path) -> PreTrainedTokenizerFast:
    """Write settings that every version of transformers from 4.48 on reads alike, with the chat template inside."""
    template = folder / "chat_template.jinja"
    template.unlink(missing_ok=True)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": PAD,
        "bos_token": END,
        "eos_token": END,
        "additional_special_tokens": [TURN_START, TURN_END],
        "add_bos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
        "padding_side": "right",
        "model_input_names": ["input_ids", "attention_mask"],
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def _as_chat(messages: list[list[str]]) -> str:
    return "".join(f"{TURN_START}{role}\n{content}{TURN_END}\n" for role, content in messages)


def encode_corpus(work: Path, tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """Write ``tokens/<domain>-<split>.npy`` (uint16): documents in a row, each after the end-of-text token."""
    (work / "tokens").mkdir(exist_ok=True)
    texts = {
        (domain, split): [row["text"] for row in read_corpus(work, domain, split)]
        for domain in NAMES
        for split in ("train", "held-out")
    }
    chats = [row["messages"] for domain in NAMES for row in read_corpus(work, domain, "train") if row["messages"]]
    texts[CHAT, "train"] = [_as_chat(messages) for messages in chats]
    counts = {}
    end = tokenizer.eos_token_id
    for (domain, split), documents in texts.items():
        encoded = tokenizer.backend_tokenizer.encode_batch(documents, add_special_tokens=False)
        ids = np.array([token for encoding in encoded for token in (end, *encoding.ids)], dtype=np.uint16)
        np.save(work / "tokens" / f"{domain}-{split}.npy", ids)
        counts[f"{domain}-{split}"] = len(ids)
    return counts


def _windows(text: str, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """Pieces of 192 tokens or, at the end, 128 and more, that begin and end with whole tokens."""
    ends = [end for _, end in tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).offsets]
    found = []
    for first in range(0, len(ends), _WINDOW):
        last = min(first + _WINDOW, len(ends)) - 1
        piece = text[ends[first - 1] if first else 0 : ends[last]].strip()
        if SAMPLE_TOKENS[0] <= len(tokenizer(piece)["input_ids"]) <= SAMPLE_TOKENS[1]:
            found.append(piece)
    return found


def held_out_samples(work: Path, tokenizer: PreTrainedTokenizerFast, *, per_domain: int) -> list[dict[str, str]]:
    """Take samples of 128 to 256 tokens, as many of each domain: the first of every document, then the second."""
    samples = []
    for domain in NAMES:
        pieces = [(row, _windows(row["text"], tokenizer)) for row in read_corpus(work, domain, "held-out")]
        in_turn = [
            {"id": f"{row['id']}#{turn}", "domain": domain, "group": row["group"], "text": found[turn]}
            for turn in range(max(len(found) for _, found in pieces))
            for row, found in pieces
            if turn < len(found)
        ]
        if len(in_turn) < per_domain:
            raise click.ClickException(f"{domain}: {len(in_turn)} held-out samples, {per_domain} asked for")
        samples += in_turn[:per_domain]
    jsonl.write(work / "heldout.jsonl", samples)
    return samples
