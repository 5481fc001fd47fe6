"""What the expert focus degree refuses, in one line each."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import moefps
from metrics.focus_dumps import write
from support import refused

REFUSED = {
    "no such column": ({"by": "task"}, moefps.ArgumentError, "by: .*has no column 'task'; accepted: sample, domain"),
    "one value": ({"by": ["a"] * 6}, moefps.ArgumentError, "by: labels have the one value 'a'"),
    "as many as neither": ({"by": ["a", "b"]}, moefps.ShapeError, "by: 2 labels; accepted: one for each of 6 samples"),
    "an empty label": ({"by": ["a", "b", None, "a", "b", "a"]}, moefps.DataError, "1 labels are empty, first at 2"),
    "floats": ({"by": np.arange(6.0)}, moefps.DtypeError, "by: labels of Float64"),
    "several kinds": ({"by": ["a", 1, "b", "a", "a", "a"]}, moefps.DtypeError, "labels of several kinds"),
    "two dimensions": ({"by": np.zeros((6, 2), int)}, moefps.ShapeError, r"labels of shape \(6, 2\)"),
    "threshold": ({"threshold": -0.1}, moefps.ArgumentError, "threshold: -0.1"),
    "threshold of shares": ({"threshold": 1, "activation": "renormalized"}, moefps.ArgumentError, "threshold: 1"),
    "activation": ({"activation": "counts"}, moefps.ArgumentError, "activation: 'counts'"),
    "layer": ({"layers": [2]}, moefps.ArgumentError, "layers: 2; accepted"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path, case):
    how, error, words = REFUSED[case]
    dump = write(tmp_path / "a.dump")
    refused(error, lambda: moefps.expert_focus(dump, **how), words)


def test_refused_of_dumps(tmp_path):
    plain = write(tmp_path / "a.dump", router_logits=None, expert_weights=None)
    refused(moefps.DumpError, lambda: moefps.expert_focus(plain), "holds no expert_weights, .*accepted: another dump")
    other = write(tmp_path / "b.dump", scoring=["other", "other"])
    refused(moefps.DumpError, lambda: moefps.expert_focus(other, activation="probs"), "layer 0, the scoring 'other'")
    gaps = write(tmp_path / "c.dump", tokens={"segment": [None, "a", "b"] + ["a"] * 34})
    refused(
        moefps.DataError,
        lambda: moefps.expert_focus(gaps, "segment"),
        r"by: column 'segment' is empty at 1 of 37 tokens, first at token row 0 \(sample 0\)",
    )
    path = tmp_path / "b.dump" / "expert_weights.npy"
    weights = np.load(path)
    weights[np.asarray(other.expert_ids) >= 0] = np.nan
    np.save(path, weights)
    refused(moefps.DataError, lambda: moefps.expert_focus(tmp_path / "b.dump"), r"b\.dump/expert_weights\.npy: row 0")


def test_refused_of_arrays():
    activations = np.full((4, 2), 0.5)
    labels = ["a", "b", "a", "b"]
    for how in ({"activation": "probs"}, {"layers": [0]}, {"together": True}):
        call = functools.partial(moefps.expert_focus, activations, labels, **how)
        refused(moefps.ArgumentError, call, f"{next(iter(how))}: ")
    refused(moefps.ArgumentError, lambda: moefps.expert_focus(activations), "by: 'domain' names a column of a dump")
    refused(moefps.ShapeError, lambda: moefps.expert_focus(activations, labels[:3]), "by: 3 labels; accepted: .* 4 tok")
    refused(moefps.ShapeError, lambda: moefps.expert_focus(activations[0], labels), r"activations: shape \(2,\)")
    found = moefps.expert_focus(activations, labels)
    refused(moefps.ArgumentError, found.together, "together: .*expert_focus\\(together=True\\)")
    refused(moefps.ArgumentError, lambda: found.tokens_of(2), "expert: 2; accepted: 0 to 1")
    refused(moefps.ArgumentError, lambda: found.tokens_of(0, 1), "layer: 1; accepted, .*: 0")
    assert found.tokens_of(1)["domain"].to_list() == labels
