"""Aligning with tokenizers of every kind: a space before texts, bytes, other letters, no white space."""

from __future__ import annotations

import copy
import json

import pytest

from moefps import ArgumentError, DataError
from moefps.pairing import align_pairs, build_pairs
from pairing.conftest import encoder
from pairing.test_aligning import pair_of, segment, written
from real_tokenizers import sentencepiece
from reference import pairing as reference
from support import refused

STUB = 'DEF É(x):\n\t"Doc é e\u0301 ﬁ 世😀 \u00a0";\r\n\u2003\n'
DOC = [STUB.index('"'), STUB.rindex('"') + 1]
BODY = "    RETURN \u200b x  \n \n"


def shared(stub=STUB, body=BODY, between=" \n"):
    """A pair with texts that tokenizers do something about, and one of white space alone."""
    sides = []
    for before, kind in (("Sys tem " * 40, "tool_response"), ("Ins ", "user_prompt")):
        texts = [segment("system", None, before), segment(kind, "stub", stub, [DOC] if stub == STUB else [])]
        sides.append([*texts, segment(kind, "blank", between), segment("canonical", "canonical", body)])
    return pair_of(*sides)


def as_the_reference(tmp_path, tokenizer, *pairs):
    """Align, and compare with the reference."""
    align_pairs(pairs, tokenizer=tokenizer, output=tmp_path / "p.json")
    found = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    for task, pair in zip(found, pairs, strict=True):
        begin = tokenizer.bos_token_id
        assert task == reference.align(pair, encoder(tokenizer), tokenizer.pad_token_id, begin)
        reference.check(task)
    return found


NORMALIZERS = {
    "lowercase": [("Lowercase",)],
    "composed": [("NFC",)],
    "decomposed": [("NFD",)],
    "compatible": [("NFKC",)],
    "accents stripped": [("NFD",), ("StripAccents",)],
    "ends stripped": [("Strip",)],
    "a letter removed": [("Replace", "x", "")],
    "a space before": [("Prepend", " ")],
}


@pytest.mark.parametrize("name", NORMALIZERS)
def test_normalizers_that_change_the_text(tmp_path, small, name):
    """Ids are of the changed text, the same in both conditions; what a token is, is by its characters in the text."""
    from tokenizers import normalizers

    steps = [getattr(normalizers, step)(*given) for step, *given in NORMALIZERS[name]]
    tokenizer = copy.deepcopy(small)
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(steps)
    [task] = as_the_reference(tmp_path, tokenizer, shared())
    # A text that nothing is left of has no segment.
    keys = [key for _, key, _, _ in task["segments"] if key]
    assert keys == (["stub", "canonical"] if name == "ends stripped" else ["stub", "blank", "canonical"])
    assert task["tool_positions"]["response_docstring"]
    if name == "ends stripped":
        refused(
            DataError, lambda: align_pairs([shared(body=" \n")], tokenizer=tokenizer), "canonical_positions is empty"
        )


def test_sentencepiece_with_bytes_and_a_space_before(tmp_path, problems):
    tokenizer = sentencepiece()
    rows = [{**problem, "prompt": problem["prompt"] + "    # 😀 ꙮ\n"} for problem in problems[::8]]
    *_, last = as_the_reference(tmp_path, tokenizer, *map(written, build_pairs(rows, template=True)), shared())
    ids = [last["agentic_ids"][i] for i in last["tool_positions"]["response_docstring"]]
    assert tokenizer.decode(ids).strip().startswith(STUB[slice(*DOC)])
    blank = set(last["canonical_positions"]) - set(last["canonical_non_ws_positions"])
    assert {tokenizer.convert_ids_to_tokens(last["agentic_ids"][i]) for i in blank} == {"▁▁▁▁", "▁▁", "▁", "<0x0A>"}


def test_a_tokenizer_that_leaves_white_space_out(small):
    """It belongs to the token that it stands before, and makes none of them blank or a docstring."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["[UNK]", "[PAD]", "def", "doc", "e", "return", "x", "(", ")", ":", '"', ";", "sys", "##tem", "tem", "ins"]
    model = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    model.normalizer, model.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, pad_token="[PAD]")
    [task] = align_pairs([shared()], tokenizer=tokenizer)
    assert [segment.key for segment in task.segments if segment.key] == ["stub", "canonical"]
    doc = tokenizer.convert_ids_to_tokens(task.agentic_ids[task.tool_positions["response_docstring"]])
    assert doc == ['"', "doc", "e", "e", "[UNK]", "[UNK]", "[UNK]", '"']
    assert task.canonical_non_ws_positions.tolist() == task.canonical_positions.tolist()


def test_settings_of_a_tokenizer_that_cut_and_pad(tmp_path, small):
    """They are for batches of training; here all of a text is tokenised, and nothing else."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = copy.deepcopy(small)
    tokenizer.model_max_length = 8
    backend = tokenizer.backend_tokenizer
    backend.enable_truncation(8)
    backend.enable_padding(length=64)
    backend.post_processor = TemplateProcessing(single="<end> $A <end>", special_tokens=[("<end>", 1)])
    expected = align_pairs([shared()], tokenizer=small)
    assert align_pairs([shared()], tokenizer=tokenizer).sha256 == expected.sha256
    tokenizer.bos_token = "<end>"
    [task] = as_the_reference(tmp_path, tokenizer, shared())
    assert task["agentic_ids"] == [1, *expected[0].agentic_ids]


def test_a_tokenizer_that_drops_merges_at_random(small):
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    made = json.loads(small.backend_tokenizer.to_str())
    made["model"]["dropout"] = 0.5
    random = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(made)), pad_token="<pad>")
    pair = shared("def add(a, b):\n    return a + b\n" * 9)
    refused(ArgumentError, lambda: align_pairs([pair], tokenizer=random), "task t: .* the text of stub other ids")
