"""The manifest of a dump: what is read, what is kept and what is refused."""

from __future__ import annotations

import json

import pytest

from moefps.errors import DumpError
from moefps.io.dump import open_dump, read_manifest
from moefps.io.dump.manifest_json import parse_manifest, serialise_manifest
from support import refused
from unit.dump_edits import edit_manifest, write_small_dump


@pytest.fixture
def path(tmp_path):
    return write_small_dump(tmp_path / "dump")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "is not JSON"),
        (b"\xff{}", "byte 0 is not UTF-8"),
        (b"[]", "the whole is a list of 0, expected an object"),
        (b'{"format": "zarr"}', 'accepted: "format": "moefps-dump"'),
        (b'{"format": "moefps-dump", "format": 1}', "the key 'format' is there twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' + b"[" * 80 + b"]" * 80 + b"}", "nested more than 64 deep"),
        (b'{"a": NaN}', "NaN is no number in JSON"),
        (b'{"a": 1e999}', "the number 1e999 is too large"),
        (b'{"a": 1' + b"0" * 10_000 + b"}", "a number has 10,001 digits"),
    ],
)
def test_manifests_that_are_none(path, text, words):
    (path / "manifest.json").write_bytes(text)
    refused(DumpError, lambda: open_dump(path), r"manifest\.json", words)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("version", 2, "version is 2; accepted: 1"),
        ("version", True, "version is true; accepted: an integer"),
        ("state", "done", 'state is "done"; accepted: writing, complete'),
        ("n_samples", -1, "n_samples is -1; accepted: an integer of 0"),
        ("n_samples", 4.0, "n_samples is 4.0; accepted: an integer"),
        ("n_tokens", None, "n_tokens is null"),
        ("n_tokens", 2**60, "n_tokens is 1152921504606846976; accepted"),
        ("top_k", "2", 'top_k is "2"'),
        ("top_k", 1, "top_k is 1, but a layer has 2"),
        ("layers", {}, "layers is an object of 0; accepted: a list"),
        ("layers", [3], r"layers\[0\] is 3, expected an object"),
        ("arrays", "expert_ids", 'arrays is "expert_ids"; accepted: a list'),
        ("arrays", ["expert_ids", "../secret"], r'arrays\[1\] is "../secret"; accepted: expert_ids'),
        ("arrays", ["expert_ids", None], r"arrays\[1\] is null"),
        ("arrays", ["expert_ids", ["expert_ids"]], r"arrays\[1\] is a list of 1"),
        ("arrays", ["expert_weights"], "arrays does not list expert_ids"),
        ("arrays", ["expert_ids", "expert_ids"], "accepted: each array once"),
        ("fingerprint_kind", "mean", 'fingerprint_kind is "mean"; accepted: probs, weights, counts'),
        ("fingerprint_kind", None, "fingerprint_kind is null"),
        ("hidden_layers", [1, "2"], "hidden_layers is a list of 2; accepted: a list of integers"),
        ("model", [], "model is a list of 0; accepted: an object"),
        ("created", 3, "created is 3; accepted: text"),
        ("tool_versions", {"torch": 2}, "tool_versions is an object of 1; accepted: an object of texts"),
    ],
)
def test_fields_of_the_manifest(path, key, value, words):
    edit_manifest(path, lambda found: found.update({key: value}))
    refused(DumpError, lambda: open_dump(path), r"manifest\.json", words)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("index", 1, r"layers\[0\]\.index is 1, expected 0"),
        ("path", "", r'layers\[0\]\.path is ""'),
        ("path", "layers.1", "two layers have the path 'layers.1'"),
        ("layer", -1, r"layers\[0\]\.layer is -1"),
        ("n_experts", 0, "n_experts is 0; accepted: an integer of 1 to 32,767"),
        ("n_experts", 40_000, "n_experts is 40000"),
        ("top_k", 0, "top_k is 0"),
        ("passive_experts", 8, "passive_experts is 8; accepted: an integer of 0 to 7"),
        ("scoring", "tanh", 'scoring is "tanh"; accepted: softmax'),
        ("routing_type", 1, "routing_type is 1; accepted: token_choice, expert_choice"),
        ("signed_weights", 1, "signed_weights is 1; accepted: true, false"),
        ("stack", "middle", 'stack is "middle"; accepted: encoder, decoder, vision'),
    ],
)
def test_fields_of_a_layer(path, key, value, words):
    edit_manifest(path, lambda found: found["layers"][0].update({key: value}))
    refused(DumpError, lambda: open_dump(path), r"manifest\.json", words)


@pytest.mark.parametrize("key", ["version", "state", "n_samples", "n_tokens", "top_k", "layers"])
def test_keys_that_a_manifest_must_have(path, key):
    edit_manifest(path, lambda found: found.pop(key))
    refused(DumpError, lambda: open_dump(path), f"{key} is missing")


def test_keys_that_it_may_leave_out(path):
    def edit(found):
        for key in ("arrays", "model", "created", "tool_versions"):
            del found[key]
        for layer in found["layers"]:
            del layer["passive_experts"], layer["routing_type"], layer["signed_weights"]

    edit_manifest(path, edit)
    dump = open_dump(path)
    assert dump.manifest.arrays is None
    assert dump.arrays == ("expert_ids", "expert_weights", "router_logits", "fingerprints")
    assert dump.layers[0].passive_experts == 0


def test_unknown_keys_are_kept_and_written_back(path):
    def edit(found):
        found["pairs"] = {"with": "other", "rows": [1, [2.5, None]]}
        found["layers"][1]["note"] = "\ud800 é"

    edit_manifest(path, edit)
    manifest = read_manifest(path)
    assert manifest.extra == {"pairs": {"with": "other", "rows": [1, [2.5, None]]}}
    assert manifest.layers[1].extra == {"note": "\ud800 é"}
    assert parse_manifest(serialise_manifest(manifest)) == manifest
    assert json.loads(serialise_manifest(manifest)) == json.loads((path / "manifest.json").read_text())


def test_a_half_written_dump(path):
    edit_manifest(path, lambda found: found.update(state="writing"))
    refused(DumpError, lambda: open_dump(path), "half-written, 0 of 4 samples", "moefps capture .* --resume")
