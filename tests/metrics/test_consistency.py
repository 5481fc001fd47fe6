"""Routing consistency of two dumps: values, intervals, chance, and dumps that do not belong together."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moefps
from moefps.metrics.consistency import METRICS
from reference.agreement import choice_sums
from support import refused

NAMES = [metric.name for metric in METRICS]
SUMS = dict(
    zip(
        NAMES,
        ("common_experts", "equal_sets", "pairs_of_same_first", "jaccard_sums", "tv_sums", "js_sums"),
        strict=True,
    )
)
LENGTHS = [6, 3, 0, 9, 4, 1]
DOMAINS = ["law", "code", "law", "code", "law", "math"]


def offsets(lengths):
    return np.concatenate([[0], np.cumsum(lengths, dtype=int)])


def choices(seed, n_tokens, n_layers=3, k=2, n_experts=6):
    rng = np.random.default_rng(seed)
    return rng.random((n_tokens, n_layers, n_experts)).argsort(axis=2)[:, :, :k].astype(np.int16)


def write(folder, name, ids=None, weights=None, *, lengths=LENGTHS, seed=0, **how):
    ids = choices(seed, sum(lengths)) if ids is None else ids
    if weights is None:
        weights = np.random.default_rng(seed).random(ids.shape, dtype=np.float32)
    settings = {"n_experts": 6, "tokens": {"token_id": np.arange(len(ids)) % 50}, **how}
    if lengths is LENGTHS:
        settings.setdefault("samples", {"id": [f"s{i}" for i in range(6)], "domain": DOMAINS})
    weights = None if weights is False else weights
    return moefps.write_dump(
        folder / name, expert_ids=ids, expert_weights=weights, offsets=offsets(lengths), overwrite=True, **settings
    )


@pytest.fixture
def pair(tmp_path):
    return write(tmp_path, "a.dump", seed=1), write(tmp_path, "b.dump", seed=2)


def plain(a, b, rows, layer, info):
    """What the definitions give for some tokens of a layer: a value, or None, for each metric."""
    weights = a.expert_weights, b.expert_weights
    if any(side is None for side in weights):
        weights = None, None
    how = {"n_experts": [x.n_experts for x in a.layers], "passive": [x.passive_experts for x in a.layers]}
    sums = choice_sums((a.expert_ids, b.expert_ids), weights, layers=[layer], rows=(rows, rows), **how)
    sums = {name: None if array is None else array[0, 0] for name, array in sums.items()}
    found = {}
    for name, field in SUMS.items():
        n = sums["pairs"] - (sums["pairs_without_shares"] if name in {"tv", "js"} and weights[0] is not None else 0)
        found[name] = None if sums[field] is None or not n else sums[field] / n
    if found["routing_consistency"] is not None:
        found["routing_consistency"] /= info.top_k
    return found


def mean(values):
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def close(found, expected):
    assert (found is None) == (expected is None), (found, expected)
    if found is not None:
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


def assert_is(found, a, b, groups, layers, keys=()):
    """Every table against the definitions; `groups` has the token rows of each group."""
    by_layer = {tuple(row[name] for name in (*keys, "layer", "metric")): row for row in found.layers.to_dicts()}
    assert len(by_layer) == len(groups) * len(layers) * len(NAMES)
    summary = {tuple(row[name] for name in (*keys, "metric")): row for row in found.summary.to_dicts()}
    starts = a.token_starts
    samples = {tuple(row[name] for name in (*keys, "sample")): row for row in found.samples.to_dicts()}
    for group, rows in groups.items():
        key = (group,) * len(keys)
        values = {layer: plain(a, b, rows, layer, a.layers[layer]) for layer in layers}
        for layer in layers:
            for name in NAMES:
                row = by_layer[(*key, layer, name)]
                close(row["value"], values[layer][name])
                assert (row["reason"] is None) == (row["value"] is not None)
        for name in NAMES:
            close(summary[(*key, name)]["mean"], mean([values[layer][name] for layer in layers]))
        for sample in range(a.n_samples):
            own = [row for row in rows if starts[sample] <= row < starts[sample + 1]]
            if (*key, sample) not in samples:
                assert not own
                continue
            of_sample = [plain(a, b, own, layer, a.layers[layer]) for layer in layers]
            for name in NAMES:
                close(samples[(*key, sample)][name], mean([values[name] for values in of_sample]))


@st.composite
def dumps(draw):
    """Two dumps of the same tokens, with a column of the samples and one of the tokens."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lengths = draw(st.lists(st.integers(0, 5), min_size=1, max_size=6))
    slots = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    n, n_layers, k = sum(lengths), len(slots), max(slots)
    layers = []
    for i, top_k in enumerate(slots):
        experts = draw(st.integers(top_k, top_k + 3))
        passive = draw(st.integers(0, min(1, experts - 1)))
        layers.append(moefps.io.dump.LayerInfo(i, f"l{i}", i, experts, top_k, passive))
    sides = []
    with_weights = draw(st.sampled_from([(True, True), (True, True), (False, True), (False, False)]))
    for has_weights in with_weights:
        ids = np.full((n, n_layers, k), -1, dtype=np.int16)
        for layer in layers:
            ids[:, layer.index, : layer.top_k] = choices(rng.integers(1 << 30), n, 1, layer.top_k, layer.n_experts)[
                :, 0
            ]
        ids[rng.random(ids.shape) < draw(st.sampled_from([0, 0.3]))] = -1
        weights = rng.choice([0, 0.25, 0.5, 0.75], ids.shape).astype(np.float32) if has_weights else False
        sides.append((ids, weights))
    columns = {"domain": rng.integers(0, 2, len(lengths))}, {"token_id": np.arange(n), "kind": rng.integers(0, 2, n)}
    return lengths, layers, sides, columns


@given(case=dumps(), by=st.sampled_from([None, "domain", "kind"]), ci=st.sampled_from([None, 0.9]))
@settings(max_examples=25)
def test_values_are_what_the_definitions_say(case, by, ci):
    lengths, layers, sides, (samples, tokens) = case
    kinds = pl.Series(tokens["kind"], dtype=pl.Int64)
    kinds = pl.select(pl.when(kinds == 1).then(None).otherwise(kinds + np.arange(len(kinds)) % 3)).to_series()
    tokens = {**tokens, "kind": kinds}
    with tempfile.TemporaryDirectory() as folder:
        a, b = (
            moefps.write_dump(
                Path(folder) / name,
                expert_ids=ids,
                expert_weights=None if weights is False else weights,
                offsets=offsets(lengths),
                layers=layers,
                samples=samples,
                tokens=tokens,
            )
            for name, (ids, weights) in zip("ab", sides, strict=True)
        )
        labels = {None: None, "domain": np.repeat(samples["domain"], lengths), "kind": kinds.to_numpy()}[by]
        distinct = {"domain": sorted(set(samples["domain"].tolist())), "kind": kinds.drop_nulls().unique().sort()}
        if by is not None and len(distinct[by]) < 2:
            refused(moefps.ArgumentError, lambda: moefps.routing_consistency(a, b, by=by), "by", by, "at least two")
            return
        rows = range(sum(lengths))
        groups = {None: rows} if by is None else {g: [t for t in rows if labels[t] == g] for g in distinct[by]}
        some = [layer.index for layer in layers][-2:]
        found = moefps.routing_consistency(a, b, by=by, layers=some, ci=ci, n_resamples=7)
        assert_is(found, a, b, groups, some, () if by is None else ("group",))
        mirrored = moefps.routing_consistency(b, a, by=by, layers=some, ci=ci, n_resamples=7)
        same = [name for name in found.layers.columns if name not in {"reason"}]
        assert found.layers.select(same).equals(mirrored.layers.select(same))


def test_planted_overlap(tmp_path):
    """Layer l keeps l + 1 of 4 experts: exactly so much is found."""
    ids = choices(0, 40, n_layers=4, k=8, n_experts=16)
    kept = np.arange(4)[None, :] <= np.arange(4)[:, None]
    other = np.where(kept, ids[:, :, :4], ids[:, :, 4:])
    weights = np.ones(other.shape, dtype=np.float32)
    how = {"lengths": [10] * 4, "n_experts": 16}
    a = write(tmp_path, "a", np.ascontiguousarray(ids[:, :, :4]), weights, **how)
    b = write(tmp_path, "b", other, weights, **how)
    found = moefps.routing_consistency(a, b)
    m = np.arange(1, 5)
    expected = {"routing_consistency": m / 4, "exact_match": [0, 0, 0, 1], "jaccard": m / (8 - m), "tv": 1 - m / 4}
    for name, values in expected.items():
        rows = found.layers.filter(pl.col("metric") == name)
        np.testing.assert_allclose(rows["value"], values, rtol=1e-12, atol=1e-15)
        # All tokens are alike, and so are all resamples.
        np.testing.assert_allclose(rows["lo"], values, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(rows["hi"], values, rtol=1e-12, atol=1e-15)
    assert found.value() == found.value(layer=1) + 0.125 == 0.625
    assert not found.met
    assert found.layers.filter(pl.col("metric") == NAMES[0])["met"].to_list() == [False, False, False, True]
    assert moefps.routing_consistency(a, b, layers=[3]).met


def test_a_dump_against_itself(pair):
    a, _ = pair
    found = moefps.routing_consistency(a, str(a.path))
    values = dict(found.summary.select("metric", "mean").iter_rows())
    assert values == {**dict.fromkeys(NAMES[:4], 1.0), "tv": 0.0, "js": 0.0}
    assert found.met
    assert found.about["lost_slots"] == 0
    assert (found.layers["lo"] == found.layers["value"]).all()
    # A sample without tokens has nothing to say.
    assert found.samples.filter(pl.col("sample") == 2).select(NAMES).row(0) == (None,) * 6
    assert found.samples.columns == ["sample", *NAMES, "n_tokens", "id", "domain"]


def test_chance(tmp_path):
    """Independent uniform choices come out at the chance levels, within four standard errors."""
    k, experts, n = 3, 7, 4000
    sides = [choices(seed, n, 1, k, experts) for seed in (1, 2)]
    a, b = (write(tmp_path, f"{i}", ids, lengths=[n], seed=i, n_experts=experts) for i, ids in enumerate(sides))
    rows = moefps.routing_consistency(a, b).layers.filter(pl.col("chance").is_not_null())
    assert rows["metric"].to_list() == NAMES[:4]
    for row in rows.iter_rows(named=True):
        # Of a variable between 0 and 1, p (1 - p) is the largest variance.
        error = np.sqrt(row["chance"] * (1 - row["chance"]) / n)
        assert abs(row["value"] - row["chance"]) < 4 * error, row
    # By hand: k/E, 1/C(7,3), 1/E.
    assert rows["chance"].to_list()[:3] == pytest.approx([3 / 7, 1 / 35, 1 / 7])


def test_intervals_are_percentiles_of_resampled_samples(pair):
    a, b = pair
    found = moefps.routing_consistency(a, b, ci=0.8, n_resamples=50, seed=3)
    starts = a.token_starts
    units = [s for s in range(6) if starts[s] < starts[s + 1]]
    draws = np.random.default_rng(3).multinomial(len(units), np.full(len(units), 1 / len(units)), size=50)
    means = []
    for drawn in draws:
        rows = [t for s, n in zip(units, drawn, strict=True) for _ in range(n) for t in range(starts[s], starts[s + 1])]
        means.append([plain(a, b, rows, layer, a.layers[layer]) for layer in range(3)])
    for name in NAMES:
        values = np.array([[values[name] for values in layers] for layers in means])
        lo, hi = np.quantile(values, [0.1, 0.9], axis=0)
        rows = found.layers.filter(pl.col("metric") == name)
        np.testing.assert_allclose(rows["lo"], lo, rtol=1e-9)
        np.testing.assert_allclose(rows["hi"], hi, rtol=1e-9)
        ends = found.summary.filter(pl.col("metric") == name).select("lo", "hi").row(0)
        np.testing.assert_allclose(ends, np.quantile(values.mean(axis=1), [0.1, 0.9]), rtol=1e-9)


def test_where_there_are_no_intervals(pair, tmp_path):
    found = moefps.routing_consistency(*pair, by="domain")
    math, law = (found.layers.filter(pl.col("group") == name) for name in ("math", "law"))
    assert math["lo"].null_count() == math.height
    assert set(math["reason_ci"]) == {"one sample: there is nothing to resample"}
    assert math["value"].null_count() == law["lo"].null_count() == 0
    assert set(law["reason_ci"]) == {None}
    none = moefps.routing_consistency(*pair, ci=None)
    assert set(none.layers["reason_ci"]) == set(none.summary["lo"]) == {None}
    # A layer that only one dump has routing in, and a token that has no weight.
    ids = choices(5, sum(LENGTHS))
    ids[:, 1] = -1
    weights = np.zeros(ids.shape, dtype=np.float32)
    found = moefps.routing_consistency(pair[0], write(tmp_path, "c", ids, weights))
    reasons = {(row["layer"], row["metric"]): row["reason"] for row in found.layers.to_dicts()}
    assert "no token has a filled slot in both dumps" in {reasons[1, name] for name in NAMES}
    assert "shares" in reasons[0, "tv"]
    assert reasons[0, "top1_match"] is None
    assert set(found.layers.filter(pl.col("value").is_null())["reason_ci"]) == {"there is no value"}
    assert found.summary.filter(pl.col("metric") == "tv")["n_null"].item() == 3
    nothing = np.full(ids.shape, -1, dtype=np.int16)
    empty = moefps.routing_consistency(pair[0], write(tmp_path, "d", nothing))
    assert not empty.met
    assert empty.value() is None


def test_without_weights(pair, tmp_path):
    bare = write(tmp_path, "bare", weights=False, seed=2)
    found, whole = moefps.routing_consistency(pair[0], bare), moefps.routing_consistency(*pair)
    there = pl.col("metric").is_in(["routing_consistency", "exact_match", "jaccard"])
    assert found.layers.filter(there).equals(whole.layers.filter(there))
    assert set(found.layers.filter(~there)["reason"]) == {f"{bare.path} holds no expert_weights"}
    assert found.samples["tv"].null_count() == 6


def test_many_samples(tmp_path):
    """More than are read at a time, and more than are resampled one by one, by a column of the tokens too."""
    n = 18_000
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 3, n)
    lengths[:2] = 1
    ids = choices(1, lengths.sum(), 1, 2, 4)
    other = np.where(rng.random((len(ids), 1, 1)) < 0.3, choices(2, len(ids), 1, 2, 4), ids)
    kinds = np.array(["x", "y"])[rng.integers(0, 2, len(ids))]
    how = {"lengths": lengths, "n_experts": 4, "tokens": {"token_id": np.arange(len(ids)), "kind": kinds}}
    a, b = (write(tmp_path, name, of, **how) for name, of in (("a", ids), ("b", other)))
    seen = []
    found = moefps.routing_consistency(
        a, b, n_resamples=20, n_threads=1, progress=lambda done, total: seen.append((done, total))
    )
    assert seen[-1] == (len(ids), len(ids))
    assert seen == sorted(seen)
    assert found.about["ci"]["samples_per_unit"] == 2
    common = (ids[:, 0, :, None] == other[:, 0, None, :]).any(axis=2).mean(axis=1)
    assert found.value() == pytest.approx(common.mean())
    sample = np.repeat(np.arange(n), lengths)
    expected = np.bincount(sample, common, minlength=n)[lengths > 0] / lengths[lengths > 0]
    np.testing.assert_allclose(found.samples["routing_consistency"].drop_nulls(), expected)
    again = moefps.routing_consistency(a, b, n_resamples=20, n_threads=4)
    assert found.layers.equals(again.layers)
    by_kind = moefps.routing_consistency(a, b, by="kind", n_resamples=20)
    for kind in ("x", "y"):
        assert by_kind.value(group=kind) == pytest.approx(common[kinds == kind].mean())


def test_other_tokens_are_named(pair, tmp_path):
    a, _ = pair
    compare = lambda b, **how: lambda: moefps.routing_consistency(a, b, **how)  # noqa: E731
    n = sum(LENGTHS)
    tokens = {"token_id": np.arange(n) % 50, "position": np.concatenate([np.arange(m) for m in LENGTHS])}
    changed = {**tokens, "token_id": tokens["token_id"].copy()}
    changed["token_id"][11] = 49
    words = (r"b\.dump", r"sample 3 \(id 's3'\)", "position 2", "token_id is 49", "11", "same tokens")
    refused(moefps.DumpError, compare(write(tmp_path, "b.dump", tokens=changed)), *words)
    moved = {**tokens, "position": tokens["position"] + (np.arange(n) == 11)}
    words = (r"sample 3 \(id 's3'\)", "token 2", "position is 3", "in .*a.dump 2")
    refused(moefps.DumpError, compare(write(tmp_path, "b.dump", tokens=moved)), *words)
    lengths = [6, 3, 1, 8, 4, 1]
    words = ("sample 2", "has 1 tokens", "in .*a.dump 0", "same order")
    refused(moefps.DumpError, compare(write(tmp_path, "b.dump", lengths=lengths)), *words)
    refused(moefps.DumpError, compare(write(tmp_path, "b.dump", lengths=[n])), "has 1 samples", "a.dump 6")
    stacks = [{**tokens, "stack": [word] * n} for word in ("encoder", "decoder")]
    one, other = (write(tmp_path, f"{i}", tokens=of) for i, of in enumerate(stacks))
    refused(moefps.DumpError, lambda: moefps.routing_consistency(one, other), "stack is 'decoder'", "'encoder'")


def test_other_layers_are_named(pair, tmp_path):
    a, _ = pair
    compare = lambda b, **how: lambda: moefps.routing_consistency(a, b, **how)  # noqa: E731
    fewer = write(tmp_path, "b", choices(1, sum(LENGTHS), 2))
    refused(moefps.DumpError, compare(fewer), "has 2 layers", "a.dump 3", "architecture")
    wider = write(tmp_path, "b", n_experts=[6, 7, 6])
    refused(moefps.DumpError, compare(wider), "layer 1 has 7 experts, top-2", "a.dump 6 experts, top-2")
    longer = write(tmp_path, "b", choices(1, sum(LENGTHS), 3, 3))
    refused(moefps.DumpError, compare(longer), "layer 0 has 6 experts, top-3", "top-2")
    refused(moefps.ArgumentError, compare(a, layers=[3]), "layers", "3", "0 to 2")
    refused(moefps.ArgumentError, compare(a, by="dialect"), "by", "dialect", "domain")
    refused(moefps.ArgumentError, compare(a, ci=1.5), "ci", r"1\.5")
    refused(moefps.ArgumentError, compare(a, n_resamples=0), "n_resamples", "0")
    refused(moefps.FileError, compare(tmp_path / "none"), "none")
    refused(moefps.ArgumentError, lambda: moefps.routing_consistency(a, a).value("gini"), "gini", "routing_consistency")


def test_dumps_without_token_ids(pair, tmp_path):
    bare = write(tmp_path, "bare.dump", tokens=None)
    with pytest.warns(UserWarning, match=r"bare\.dump: has no token ids, so that only the samples' lengths"):
        found = moefps.routing_consistency(pair[0], bare)
    assert not found.about["token_ids_compared"]
    other = write(tmp_path, "b", tokens=None, samples={"id": [f"t{i}" for i in range(6)]})
    refused(moefps.DumpError, lambda: moefps.routing_consistency(bare, other), "sample 0 has the id 't0'", "'s0'")


def test_values_that_are_not_accepted_are_said_with_their_file(pair, tmp_path):
    a, b = pair
    for name, value, words in (
        ("expert_weights", np.nan, ("finite",)),
        ("expert_ids", 6, ("6", "accepted")),
    ):
        file = Path(b.path) / f"{name}.npy"
        good = np.load(file)
        bad = good.copy()
        bad[11, 1, 1] = value
        np.save(file, bad)
        refused(moefps.DataError, lambda: moefps.routing_consistency(a.path, b.path), rf"b\.dump.*{name}", *words)
        np.save(file, good)
    # What only one of the dumps allows.
    weights = np.random.default_rng(0).random((sum(LENGTHS), 3, 2), dtype=np.float32)
    weights[4, 0, 0] = -0.5
    signed = write(tmp_path, "signed.dump", weights=weights, signed_weights=True)
    found = moefps.routing_consistency(a, signed)
    assert found.layers.filter(pl.col("metric") == "tv")["tokens"].to_list() == [22, 23, 23]
    file = Path(a.path) / "expert_weights.npy"
    np.save(file, weights)
    refused(moefps.DataError, lambda: moefps.routing_consistency(a.path, signed), r"a\.dump.*expert_weights", "-0.5")


def test_how_it_is_shown(pair):
    found = moefps.routing_consistency(*pair)
    assert "routing_consistency" in repr(found)
    assert "✗" in repr(found)
    assert "<table" in found._repr_html_()
    by = moefps.routing_consistency(*pair, by="sample")
    assert "routing_consistency by sample" in repr(by)
    assert set(by.tables()) == {"layers", "summary", "samples"}
    refused(moefps.ArgumentError, by.value, "group", "None")
