"""Tokenizers and pairs for the tests of pairing."""

from __future__ import annotations

import copy
import gzip
import json
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
DEMO = TESTS.parent / "models" / "demo-moe"
HUMANEVAL = TESTS.parent.parent / "shared" / "data" / "humaneval" / "HumanEval.jsonl.gz"


@pytest.fixture(scope="session")
def own():
    """The folder of small problems and trajectories."""
    return TESTS / "data" / "pairs"


@pytest.fixture(scope="session")
def humaneval():
    """HumanEval's own file, where the machine has it."""
    if not HUMANEVAL.is_file():
        pytest.skip("HumanEval is not beside the checkout")
    return HUMANEVAL


@pytest.fixture(scope="session")
def problems(humaneval):
    """HumanEval's rows."""
    with gzip.open(humaneval, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="session")
def small():
    """A small byte-level tokenizer with a chat template, and no token that begins a text."""
    pytest.importorskip("transformers", reason="aligning needs transformers, which is not installed")
    from small_model import small_tokenizer

    return small_tokenizer()


@pytest.fixture(scope="session")
def small_with_begin(small):
    """The same with a token that begins a text."""
    tokenizer = copy.deepcopy(small)
    tokenizer.bos_token = "<end>"
    return tokenizer


@pytest.fixture(scope="session")
def tokenizer(request):
    """A real tokenizer by its name: qwen, mistral, or that of the model in the repository."""
    transformers = pytest.importorskip("transformers", reason="aligning needs transformers, which is not installed")
    if request.param == "demo":
        if not DEMO.is_dir():
            pytest.skip("models/demo-moe is not beside the tests")
        return transformers.AutoTokenizer.from_pretrained(DEMO)
    import real_tokenizers

    return getattr(real_tokenizers, request.param)()


def encoder(tokenizer):
    """How the reference asks a tokenizer: one text, (id, start, end) for every token."""

    @cache
    def encode(text):
        found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return [(token, *span) for token, span in zip(found["input_ids"], found["offset_mapping"], strict=True)]

    return encode


def pytest_collection_modifyitems(items):
    """Mark the tests that read real data."""
    for item in items:
        if {"humaneval", "problems"} & set(getattr(item, "fixturenames", ())) and "pairing" in str(item.path):
            item.add_marker("real_data")
