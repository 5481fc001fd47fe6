"""Other tools' traces become dumps: the same numbers, in pieces, with what was taken for granted said."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import moefps
from moefps.io import convert_trace
from moefps.io.npz import NpzArchive
from support import refused

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
N_TOKENS, N_LAYERS, N_EXPERTS, TOP_K = 23, 3, 8, 2
OFFSETS = np.array([0, 5, 5, 16, 23])


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def ids(rng):
    return rng.permuted(np.tile(np.arange(N_EXPERTS), (N_TOKENS, N_LAYERS, 1)), axis=2)[:, :, :TOP_K].astype(np.uint8)


@pytest.fixture
def weights(rng):
    return rng.random((N_TOKENS, N_LAYERS, TOP_K)).astype(np.float32)


@pytest.fixture
def logits(rng):
    # Rounded, so that there are ties.
    return rng.normal(size=(N_TOKENS, N_LAYERS, N_EXPERTS)).round(1).astype(np.float32)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def notes(dump):
    return dump.manifest.extra["converted"]["notes"]


def share(scores, scoring):
    """The distribution of one token over all experts, as the definition has it."""
    scores = scores.astype(np.float64)
    if scoring == "probabilities":
        return scores
    if scoring in {"softmax", "softmax_topk"}:
        powers = np.exp(scores - scores.max())
    elif scoring == "sigmoid":
        powers = 1 / (1 + np.exp(-scores))
    else:
        powers = np.sqrt(np.log1p(np.exp(scores)))
    return powers / powers.sum()


def chosen_slowly(scores, top_k, scoring):
    """The largest of one token, the lowest id first where they are equal, and their weights."""
    ids = sorted(range(len(scores)), key=lambda e: (-scores[e], e))[:top_k]
    p = share(scores, scoring)[ids]
    return ids, p / p.sum() if scoring == "softmax_topk" else p


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_ids_and_weights(save, order, here, ids, weights):
    save("t.npz", ids=np.asarray(ids, order=order), gate_weights=np.asarray(weights, order=order), offsets=OFFSETS)
    dump = convert_trace("t.npz", "t.dump")
    assert np.array_equal(dump.expert_ids, ids)
    assert np.array_equal(dump.expert_weights, weights)
    assert dump.expert_ids.dtype == np.int16
    assert dump.token_starts.tolist() == OFFSETS.tolist()
    assert (dump.n_experts, dump.top_k, dump.layers[0].scoring) == (N_EXPERTS, TOP_K, "other")
    assert notes(dump) == ["8 experts a layer: the largest id + 1"]
    assert "derived" not in dump.manifest.extra
    assert sorted(path.name for path in here.iterdir()) == ["t.dump", "t.npz"]


def test_large_compressed_arrays_go_through_a_file(here, ids, weights, monkeypatch):
    monkeypatch.setattr("moefps.io.npz._IN_MEMORY", 0)
    np.savez_compressed("t.npz", expert_ids=ids, weights=weights, lengths=np.diff(OFFSETS))
    dump = convert_trace("t.npz", "t.dump", n_experts=16)
    assert np.array_equal(dump.expert_weights, weights)
    assert dump.token_starts.tolist() == OFFSETS.tolist()
    assert dump.n_experts == 16
    assert sorted(path.name for path in here.iterdir()) == ["t.dump", "t.npz"]


def test_arrays_that_are_stored_are_mapped(here, weights):
    np.savez("t.npz", weights=weights)
    array = NpzArchive("t.npz", here).open("weights")
    assert isinstance(array.base, np.memmap)
    assert not array.flags.writeable
    assert np.array_equal(array, weights)


def test_an_array_of_ids_alone(here, ids):
    np.save("ids.npy", ids.astype(np.int64))
    dump = convert_trace("ids.npy", "t.dump", offsets=[5, 18], first_layer=4, scoring="sigmoid")
    assert np.array_equal(dump.expert_ids, ids)
    assert dump.expert_weights is None
    first = dump.layers[0]
    assert (first.layer, first.path, first.scoring) == (4, "layers.4", "sigmoid")
    assert dump.token_starts.tolist() == [0, 5, 23]


def test_empty_slots_stay_empty(here, ids, weights):
    ids = ids.astype(np.int32)
    ids[3, 1, 1] = -1
    weights[3, 1, 1] = np.nan
    np.savez("t.npz", topk_ids=ids, topk_weights=weights)
    dump = convert_trace("t.npz", "t.dump")
    assert dump.expert_ids[3, 1, 1] == -1
    dump.check_values()
    assert "no offsets: all 23 tokens are one sample" in notes(dump)


@pytest.mark.parametrize("scoring", [None, "softmax", "sigmoid", "softmax_topk", "sqrt_softplus", "probabilities"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_ids_derived_from_logits(scoring, dtype, here, logits):
    if scoring == "probabilities":
        logits = np.apply_along_axis(share, 2, logits, "softmax").round(2)
    logits = logits.astype(dtype)
    np.save("logits.npy", logits)
    dump = convert_trace("logits.npy", "t.dump", top_k=3, scoring=scoring, offsets=OFFSETS)
    for token in range(N_TOKENS):
        for layer in range(N_LAYERS):
            expected, shares = chosen_slowly(logits[token, layer], 3, scoring or "softmax")
            assert dump.expert_ids[token, layer].tolist() == expected
            np.testing.assert_allclose(dump.expert_weights[token, layer], shares, rtol=1e-6)
    assert dump.manifest.extra["derived"] is True
    assert dump.layers[0].scoring == (scoring or "softmax")
    assert dump.router_logits()[2].dtype == (np.float16 if dtype == np.float16 else np.float32)
    np.testing.assert_array_equal(dump.router_logits()[2], logits[:, 2].astype(dump.router_logits()[2].dtype))
    said = any("float64 in the file" in note for note in notes(dump))
    assert said == (dtype == np.float64)
    dump.check_values()
    if scoring != "probabilities":
        # One sample has no token.
        assert dump.fingerprints("probs", drop_empty=True).shape == (3, N_LAYERS, N_EXPERTS)


def test_the_pieces_do_not_matter(here, logits, monkeypatch):
    np.save("logits.npy", logits)
    whole = convert_trace("logits.npy", "a.dump", top_k=2)
    monkeypatch.setattr("moefps.io.trace_arrays._CHUNK_NUMBERS", 50)
    seen = []
    pieces = convert_trace("logits.npy", "b.dump", top_k=2, progress=lambda done, total: seen.append(done / total))
    for name in ("expert_ids", "expert_weights"):
        assert np.array_equal(getattr(whole, name), getattr(pieces, name))
    assert seen == sorted(seen)
    assert seen[-1] == 1


def test_a_layer_an_array(here, logits):
    keys = {"model.layers.11.mlp.gate": logits[:, 2], "model.layers.3.mlp.gate": logits[:, 0, :5]}
    np.savez("t.npz", **keys, domain=np.array(["a", "b", "c", "d"]), offsets=OFFSETS)
    dump = convert_trace("t.npz", "t.dump", top_k=2)
    assert [(layer.layer, layer.path, layer.n_experts) for layer in dump.layers] == [
        (3, "model.layers.3.mlp.gate", 5),
        (11, "model.layers.11.mlp.gate", 8),
    ]
    assert dump.router_logits()[3].tolist() == logits[:, 0, :5].tolist()
    assert dump.router_logits()[11].tolist() == logits[:, 2].tolist()
    assert dump.samples["domain"].to_list() == ["a", "b", "c", "d"]
    assert dump.expert_ids[:, 0].max() < 5


@pytest.mark.parametrize("name", ["{}", "layer_{}", "layers.{}", "h.{}.gate", "Block{}"])
def test_names_of_layers(name, here, logits):
    np.savez("t.npz", **{name.format(number): logits[:, 0] for number in (10, 2)})
    assert [layer.layer for layer in convert_trace("t.npz", "t.dump", top_k=1).layers] == [2, 10]


def test_masked_experts_are_never_chosen(here):
    logits = np.full((1, 1, 4), -np.inf, dtype=np.float32)
    logits[0, 0, 2] = 1
    np.save("logits.npy", logits)
    dump = convert_trace("logits.npy", "t.dump", top_k=2)
    assert dump.expert_ids.tolist() == [[[2, -1]]]
    assert dump.expert_weights.tolist() == [[[1, 0]]]


def test_other_arrays_become_columns(here, ids, logits):
    np.savez(
        "t.npz",
        ids=ids,
        router_logits=logits,
        offsets=OFFSETS,
        n_experts=8,
        task=np.array(["law", "law", "code", "code"]),
        token_ids=np.arange(N_TOKENS),
        is_code=np.arange(N_TOKENS) > 15,
        odd=np.zeros((2, 2)),
    )
    dump = convert_trace("t.npz", "t.dump", samples=pl.DataFrame({"id": [7, 8, 9, 10]}))
    assert dump.samples.drop("sample", "token_start", "n_tokens").rows() == [
        ("law", 7),
        ("law", 8),
        ("code", 9),
        ("code", 10),
    ]
    assert dump.tokens["token_id"].to_list() == list(range(N_TOKENS))
    assert dump.tokens["is_code"].sum() == 7
    assert notes(dump) == ["left out: odd of shape (2, 2), which is no column of samples or tokens"]
    assert "derived" not in dump.manifest.extra
    assert np.array_equal(dump.router_logits()[0], logits[:, 0])


@pytest.mark.parametrize("suffix", [".npy", ".txt"])
@pytest.mark.parametrize("form", ["offsets", "lengths"])
def test_offsets_from_a_file(suffix, form, here, ids):
    np.save("ids.npy", ids)
    numbers = OFFSETS if form == "offsets" else np.diff(OFFSETS)
    if suffix == ".npy":
        np.save("o.npy", numbers)
    else:
        Path("o.txt").write_text("\n".join(map(str, numbers)))
    assert convert_trace("ids.npy", "t.dump", offsets=f"o{suffix}").token_starts.tolist() == OFFSETS.tolist()


def test_a_dump_is_replaced_only_when_asked(here, ids):
    np.save("ids.npy", ids)
    convert_trace("ids.npy", "t.dump")
    refused(moefps.FileError, lambda: convert_trace("ids.npy", "t.dump"), "t.dump: exists already, pass --overwrite")
    assert convert_trace("ids.npy", "t.dump", overwrite=True, offsets=[20, 3]).n_samples == 2
    Path("folder").mkdir()
    Path("folder/notes.txt").write_text("mine")
    refused(
        moefps.FileError, lambda: convert_trace("ids.npy", "folder", overwrite=True), "folder: is a folder with other"
    )
    refused(moefps.FileError, lambda: convert_trace("ids.npy", "no/t.dump"), "no/t.dump: the folder no does not exist")


def saved(**arrays):
    return lambda: np.savez("t.npz", **arrays)


def good_ids(dtype=np.int16):
    return np.zeros((4, 2, 2), dtype=dtype) + np.array([0, 1], dtype=dtype)


BAD = {
    "nothing known": (saved(a=np.zeros(3)), {}, "holds a; accepted: expert ids .* as expert_ids, ids"),
    "two ids": (saved(ids=good_ids(), topk_ids=good_ids()), {}, "holds both ids and topk_ids"),
    "weights alone": (saved(weights=np.zeros((4, 2, 2))), {}, "holds weights without expert ids|accepted: expert ids"),
    "weights of another shape": (
        saved(ids=good_ids(), weights=np.zeros((4, 2, 3))),
        {},
        r"weights has shape \(4, 2, 3\), expected \(4, 2, 2\) as ids",
    ),
    "logits of another T": (saved(ids=good_ids(), logits=np.zeros((5, 2, 3))), {}, r"logits has shape \(5, 2, 3\)"),
    "float ids": (saved(ids=good_ids().astype(float)), {}, "ids: dtype is float64; accepted: integers"),
    "2-D ids": (saved(ids=good_ids()[0]), {}, r"ids: is 2-D .*accepted: \[T, L, k\]"),
    "no token": (saved(ids=good_ids()[:0]), {}, r"ids has shape \(0, 2, 2\)"),
    "pickled": (saved(ids=np.array([{}], dtype=object)), {}, "pickled"),
    "negative ids": (saved(ids=good_ids() - 2), {}, "go down to -2; accepted: -1"),
    "ids past E": (saved(ids=good_ids()), {"n_experts": 1}, "expert ids go up to 1; accepted: 0 to 0"),
    "NaN weight": (
        saved(ids=good_ids(), weights=np.full((4, 2, 2), np.nan, np.float32)),
        {},
        "t.npz: expert_weights: row 0 .*nan; accepted: finite",
    ),
    "negative weight": (
        saved(ids=good_ids(), weights=np.full((4, 2, 2), -1.0, np.float32)),
        {},
        "t.npz: expert_weights: row 0 .*at least 0",
    ),
    "top_k beside ids": (saved(ids=good_ids()), {"top_k": 3}, "top_k: found 3, but t.npz has ids of 2 slots"),
    "no top_k": (saved(logits=np.zeros((4, 2, 3))), {}, "top_k: missing; t.npz has router logits"),
    "top_k too large": (saved(logits=np.zeros((4, 2, 3))), {"top_k": 4}, "top_k: found 4; accepted: 1 to 3"),
    "n_experts beside logits": (saved(logits=np.zeros((4, 2, 3))), {"top_k": 1, "n_experts": 3}, "n_experts: found 3"),
    "no such scoring": (saved(ids=good_ids()), {"scoring": "hash"}, "scoring: found 'hash'; accepted: softmax, "),
    "NaN logit": (
        saved(logits=np.full((4, 2, 3), np.nan)),
        {"top_k": 1},
        "t.npz: token 0, layer 0, expert 0 is nan; accepted: numbers",
    ),
    "negative probability": (
        saved(logits=np.full((4, 2, 3), -0.5)),
        {"top_k": 1, "scoring": "probabilities"},
        "expert 0 is -0.5; accepted: probabilities",
    ),
    "a number past float32": (saved(logits=np.full((4, 2, 3), 1e300)), {"top_k": 1}, "beyond float32"),
    "layers of different T": (saved(**{"0": np.zeros((4, 3)), "1": np.zeros((5, 3))}), {"top_k": 1}, "accepted: one T"),
    "a layer twice": (saved(**{"0": np.zeros((4, 3)), "layer_0": np.zeros((4, 3))}), {"top_k": 1}, "both of layer 0"),
    "numbered already": (saved(**{"3": np.zeros((4, 3))}), {"top_k": 1, "first_layer": 1}, "first_layer: found 1"),
    "negative layer": (saved(ids=good_ids()), {"first_layer": -1}, "first_layer: found -1; accepted: at least 0"),
    "offsets twice": (saved(ids=good_ids(), offsets=[0, 4]), {"offsets": [4]}, "offsets: given, but t.npz holds"),
    "offsets and lengths": (saved(ids=good_ids(), offsets=[0, 4], lengths=[4]), {}, "holds both offsets and lengths"),
    "offsets too short": (
        saved(ids=good_ids(), offsets=[0, 3]),
        {},
        "offsets: the offsets go from 0 to 3, expected 0 to 4",
    ),
    "offsets that fall": (saved(ids=good_ids(), offsets=[0, 3, 2, 4]), {}, "offset 2 is 2 after 3"),
    "float offsets": (saved(ids=good_ids(), offsets=[0.0, 4.0]), {}, "offsets: dtype is float64"),
    "lengths that do not add up": (saved(ids=good_ids()), {"offsets": [1, 2]}, "lengths add up to 3, expected 4"),
    "no offsets": (saved(ids=good_ids()), {"offsets": []}, "offsets: "),
    "an offsets file that is none": (
        saved(ids=good_ids()),
        {"offsets": "o.csv"},
        "o.csv: offsets have the suffix '.csv'",
    ),
    "a missing offsets file": (saved(ids=good_ids()), {"offsets": "o.txt"}, "o.txt: cannot be read: no such file"),
    "token ids of another T": (saved(ids=good_ids(), token_ids=[1, 2]), {}, "token_ids has 2 numbers, expected 4, T"),
    "columns of another N": (saved(ids=good_ids()), {"samples": pl.DataFrame({"a": [1, 2]})}, "samples: found 2 rows"),
    "not a zip": (lambda: Path("t.npz").write_bytes(b"no"), {}, "t.npz: is not a .npz that can be read"),
    "truncated": (
        lambda: (np.savez("t.npz", ids=good_ids()), Path("t.npz").write_bytes(Path("t.npz").read_bytes()[:-40])),
        {},
        "t.npz: is not a .npz",
    ),
    "an odd member": (lambda: zipfile.ZipFile("t.npz", "w").writestr("a.txt", "x"), {}, "holds 'a.txt'"),
    "an empty archive": (lambda: zipfile.ZipFile("t.npz", "w").close(), {}, "holds no array"),
}


@pytest.mark.parametrize("case", BAD)
def test_one_clear_line_and_nothing_left(case, here):
    prepare, arguments, words = BAD[case]
    prepare()
    before = sorted(here.rglob("*"))
    refused(moefps.MoefpsError, lambda: convert_trace("t.npz", "t.dump", **arguments), words)
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("place", range(0, 700, 13))
def test_damaged_archives_are_refused_or_read(place, here):
    """A byte that changes is found, or belongs to what nobody reads."""
    np.savez("t.npz", ids=good_ids(), offsets=np.array([0, 4]))
    data = bytearray(Path("t.npz").read_bytes())
    data[place % len(data)] ^= 0x55
    Path("t.npz").write_bytes(data)
    try:
        dump = convert_trace("t.npz", "t.dump")
    except moefps.MoefpsError:
        assert not Path("t.dump").exists()
    else:
        assert np.array_equal(dump.expert_ids, good_ids())


def test_other_files(here):
    Path("t.pt").write_bytes(b"")
    refused(moefps.ArgumentError, lambda: convert_trace("t.pt", "t.dump"), "the suffix is .pt; accepted: .npy, .npz")
    refused(moefps.FileError, lambda: convert_trace("no.npz", "t.dump"), "no.npz: cannot be read: no such file")
    refused(moefps.FileError, lambda: convert_trace("no.npy", "t.dump"), "no.npy: .*no such file")
    np.save("t.npy", np.zeros((4, 3)))
    refused(moefps.ShapeError, lambda: convert_trace("t.npy", "t.dump"), r"t.npy: is 2-D .*router logits \[T, L, E\]")


def test_real_traces_agree_with_their_authors(traces, tmp_path):
    """Counts and gate sums, to the four decimals that they give."""
    folder = DATA / "esft"
    dump = convert_trace(folder / "esft_traces.npz", tmp_path / "esft.dump")
    assert (dump.n_samples, dump.n_tokens, dump.n_layers, dump.n_experts, dump.top_k) == (213, 33279, 26, 64, 6)
    ids, weights, starts = dump.expert_ids, dump.expert_weights, dump.token_starts
    for task in dump.samples["task"].unique():
        rows = np.concatenate(
            [np.arange(starts[i], starts[i + 1]) for i in np.flatnonzero(dump.samples["task"] == task)]
        )
        summary = json.loads((folder / f"summary_{task}.json").read_text())
        for layer in range(26):
            counts = np.bincount(ids[rows, layer].ravel(), minlength=64) / (6 * len(rows))
            gates = np.bincount(ids[rows, layer].ravel(), weights[rows, layer].ravel(), minlength=64) / len(rows)
            for found, name in ((counts, "token_scores"), (gates, "gate_scores")):
                theirs = summary[name][str(layer + 1)]
                np.testing.assert_allclose(found, [theirs[str(e)] for e in range(64)], atol=5.1e-5, rtol=0)
    assert int((weights == 0).sum()) == 99
