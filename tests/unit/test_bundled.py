"""The data set that comes with moefps: whole, small, without texts, and what `moefps demo` says of it holds."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import moefps
from moefps.errors import MoefpsError
from moefps.io.bundled import BUNDLED_FILES, bundled_fingerprints
from support import refused

FOLDER = Path(moefps.__file__).resolve().parent / "data" / "demo"
MODEL = Path(__file__).resolve().parents[2] / "models" / "demo-moe"
DOMAINS = ["python", "c", "manual", "german", "french", "dictionary", "maths", "dialogue"]


@pytest.fixture(scope="module")
def bundled():
    return bundled_fingerprints()


def test_the_files_are_these_and_small():
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(BUNDLED_FILES)
    assert sum(path.stat().st_size for path in FOLDER.parent.rglob("*")) <= 1_000_000
    # Nothing in the header asks for a pickle, and nothing follows the data.
    array = np.load(FOLDER / "fingerprints.npy", allow_pickle=False)
    assert (array.dtype, array.shape) == (np.dtype("<f4"), (320, 6, 16))
    assert (FOLDER / "fingerprints.npy").stat().st_size == 128 + array.nbytes


def test_rows_are_shares(bundled):
    X = np.asarray(bundled.array, dtype=np.float64)
    assert (X > 0).all()
    np.testing.assert_allclose(X.sum(axis=2), 1, atol=1e-6)
    assert len(np.unique(X.reshape(len(X), -1), axis=0)) == len(X)
    assert not bundled.array.flags.writeable


def test_samples_are_described(bundled):
    assert list(dict.fromkeys(bundled.domains.tolist())) == DOMAINS
    assert set(Counter(bundled.domains.tolist()).values()) == {40}
    assert len(set(bundled.ids.tolist())) == len(bundled.groups) == len(bundled.array) == 320
    assert (bundled.n_tokens.min(), bundled.n_tokens.max()) == (128, 194)
    assert bundled.kind == bundled.source["kind"] == "probs"
    assert bundled.source["n_tokens"] == bundled.n_tokens.sum() == 60_725
    assert (bundled.source["n_samples"], bundled.source["n_layers"], bundled.source["n_experts"]) == (320, 6, 16)
    assert set(bundled.source["tool_versions"]) == {"moefps", "torch", "transformers"}


def test_it_holds_no_texts_and_no_paths_of_a_machine():
    with (FOLDER / "samples.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["sample", "id", "domain", "group", "n_tokens"]
    # Names of documents, none of them a sentence.
    assert all(re.fullmatch(r"[\w./:+-]+#\d+", row["id"]) for row in rows)
    assert all(re.fullmatch(r"[\w./:+-]+", row["group"]) for row in rows)
    assert not re.search(r'"/|home|\\\\', (FOLDER / "source.json").read_text(encoding="utf-8"))


def test_it_was_captured_from_the_model_in_the_repository(bundled):
    if not MODEL.is_dir():
        pytest.skip("models/demo-moe is not beside the tests")
    assert bundled.source["model"]["id"] == "models/demo-moe"
    assert len(bundled.source["model"]["sha256"]) == 3
    for name, digest in bundled.source["model"]["sha256"].items():
        assert hashlib.sha256((MODEL / name).read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize("ground", ["index", "discrete"])
def test_domains_are_told_apart_by_the_nearest_sample(ground, bundled):
    distances = moefps.wasserstein_matrix(bundled.array, ground=ground, dtype="float64")
    for names in (bundled.ids, bundled.groups):
        others = np.where(names[:, None] == names[None, :], np.inf, distances)
        accuracy = (bundled.domains[others.argmin(axis=1)] == bundled.domains).mean()
        assert accuracy >= 0.95, names[0]


def first_of_each(labels, order):
    """Picks until every label was seen, counted the slow way."""
    seen = set()
    for n_picked, index in enumerate(order, start=1):
        seen.add(str(labels[index]))
        if len(seen) == len(DOMAINS):
            return n_picked
    raise AssertionError(seen)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_selection_covers_the_domains_in_as_few_picks_as_can_be(dtype, bundled):
    picks = moefps.select(bundled.array, 8, dtype=dtype).indices
    assert first_of_each(bundled.domains, picks) == 8
    rng = np.random.default_rng(7)
    at_random = [first_of_each(bundled.domains, rng.permutation(320)) for _ in range(1000)]
    assert np.quantile(at_random, 0.025) > 8


def test_with_most_first_picks_selection_is_sooner_than_most_random_orders(bundled):
    distances = moefps.wasserstein_matrix(bundled.array)
    found = [first_of_each(bundled.domains, moefps.fps(distances, 320, start=i).indices) for i in range(0, 320, 5)]
    rng = np.random.default_rng(7)
    at_random = [first_of_each(bundled.domains, rng.permutation(320)) for _ in range(1000)]
    assert np.mean(found) < 0.6 * np.mean(at_random)
    assert np.quantile(found, 0.975) < np.quantile(at_random, 0.75)


def shorter_table(folder):
    path = folder / "samples.csv"
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")


def truncated(folder):
    path = folder / "fingerprints.npy"
    path.write_bytes(path.read_bytes()[:-1])


DAMAGE = {
    "missing": (lambda folder: (folder / "samples.csv").unlink(), "samples.csv: cannot be read"),
    "no numbers": (lambda folder: (folder / "fingerprints.npy").unlink(), "fingerprints.npy"),
    "truncated": (truncated, "fingerprints.npy"),
    "a row too few": (shorter_table, "319 rows, expected one for each of 320"),
    "no column": (lambda folder: (folder / "samples.csv").write_text("id\n1\n"), "damaged.*domain"),
    "not json": (lambda folder: (folder / "source.json").write_text("{"), "damaged"),
    "a list": (lambda folder: (folder / "source.json").write_text(json.dumps([])), "damaged"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_installation_is_said_in_one_line(what, tmp_path, monkeypatch):
    damage, message = DAMAGE[what]
    shutil.copytree(FOLDER, tmp_path / "demo")
    monkeypatch.setattr("moefps.io.bundled._FOLDER", tmp_path / "demo")
    assert len(bundled_fingerprints().array) == 320
    damage(tmp_path / "demo")
    refused(MoefpsError, bundled_fingerprints, message)
