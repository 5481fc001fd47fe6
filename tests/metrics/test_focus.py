"""The expert focus degree against the plain definition, worked examples, and chance."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moefps
from metrics.focus_dumps import DOMAINS, write
from moefps.metrics.focus import BANDS, compute_degrees
from moefps.metrics.focus.reading import read_summary
from reference.focus import focus as plain_focus
from reference.focus import sums, token_activations

COLUMNS = ["layer", "expert", "domain", "count", "mean_activation", "max_activation", "total_activation", "percent"]


@pytest.fixture
def dump(tmp_path):
    return write(tmp_path / "a.dump")


def of_token(dump, column="domain"):
    """The domain of each token."""
    if column in dump.samples.columns:
        return np.repeat(dump.samples[column].to_numpy(), np.diff(dump.token_starts))
    return dump.tokens[column].to_numpy()


def nearly(found, expected):
    if expected is None:
        assert found is None
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)
    else:
        assert found == expected


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    activation=st.sampled_from(["weights", "renormalized", "probs"]),
    threshold=st.sampled_from([0.0, 0.1, 0.3, 0.59]),
    column=st.sampled_from(["domain", "segment"]),
    drop=st.sampled_from([0, 0.1, 0.8]),
    k=st.integers(1, 4),
    chosen=st.sampled_from([None, [1], [1, 0]]),
)
def test_tables_are_what_the_definitions_say(seed, activation, threshold, column, drop, k, chosen):
    with tempfile.TemporaryDirectory() as folder:
        dump = write(Path(folder) / "a.dump", seed, k=k, drop=drop)
        labels = of_token(dump, column)
        found = moefps.expert_focus(
            dump, column, threshold=threshold, activation=activation, layers=chosen, balanced=True
        )
        names = sorted(set(labels) | set(dump.samples[column] if column == "domain" else []))
        groups = [names.index(label) for label in labels]
        numbers = dump.stored("router_logits" if activation == "probs" else "expert_weights")
        expected_layers = sorted(chosen or [0, 1])
        assert found.layers["layer"].to_list() == expected_layers
        for layer in expected_layers:
            info = dump.layers[layer]
            real = info.n_experts - info.passive_experts
            tokens = [
                token_activations(
                    dump.expert_ids[t, layer],
                    numbers[t, layer],
                    activation=activation,
                    n_experts=info.n_experts,
                    passive=info.passive_experts,
                )
                for t in range(dump.n_tokens)
            ]
            at = float(np.float32(threshold)) if activation == "weights" else threshold
            check_layer(found, layer, sums(tokens, groups, len(names), n_experts=real, threshold=at), names)


def check_layer(found, layer, expected, names):
    """Compare all rows of a layer with the plain sums."""
    n_tokens = expected["tokens"] - expected["left_out"]
    rows = found.domains.filter(layer=layer)
    assert rows.columns == [*COLUMNS, "balanced_percent"]
    experts = found.experts.filter(layer=layer)
    degrees = []
    for expert in range(expected["counts"].shape[1]):
        total, count = expected["totals"][:, expert], expected["counts"][:, expert]
        there = [plain_focus(total * (n_tokens > 0)), plain_focus(total, n_tokens)]
        row = experts.row(expert, named=True)
        assert row["n_activations"] == expected["activations"][:, expert].sum()
        assert row["n_counted"] == count.sum()
        assert (row["reason"] is None) == (count.sum() > 0) == (there[0] is not None)
        plain, balanced = (
            one or dict.fromkeys(("degree", "domain", "band", "entropy", "second_percent")) for one in there
        )
        nearly(row["focus_degree"], plain["degree"])
        nearly(row["balanced_focus_degree"], balanced["degree"])
        if count.sum():
            degrees.append(balanced["degree"])
            here = [d for d in range(len(names)) if n_tokens[d]]
            best = max(plain["percent"])
            assert plain["percent"][names.index(row["domain"])] == pytest.approx(best)
            nearly(row["second_percent"], plain_second(plain["percent"], here))
            nearly(row["focus_entropy"], plain_entropy(plain["percent"], here))
            nearly(row["chance"], 100.0 * n_tokens.max() / n_tokens.sum())
            nearly(row["balanced_chance"], 100.0 / len(here))
            assert row["band"] == BANDS[min(int(row["focus_degree"] // 20), 4)]
            assert row["luck"] >= row["chance"] - 3
        for d, name in enumerate(names):
            of_domain = rows.filter(expert=expert, domain=name).row(0, named=True)
            assert of_domain["count"] == count[d]
            nearly(of_domain["total_activation"], float(total[d]))
            nearly(of_domain["mean_activation"], float(total[d] / count[d]) if count[d] else None)
            nearly(of_domain["max_activation"], float(expected["maxima"][d, expert]) if count[d] else None)
            nearly(of_domain["percent"], plain["percent"][d] if count.sum() else None)
            nearly(of_domain["balanced_percent"], balanced["percent"][d] if count.sum() else None)
    row = found.layers.filter(layer=layer).row(0, named=True)
    assert row["n_with_value"] == len(degrees) == row["n_experts"] - row["n_null"]
    nearly(row["mean"], float(np.mean(degrees)) if degrees else None)
    nearly(row["std"], float(np.std(degrees)) if degrees else None)
    assert [row[band] for band in BANDS] == np.histogram(degrees, [0, 20, 40, 60, 80, 100])[0].tolist()
    assert (row["activations"], row["counted"]) == (expected["activations"].sum(), expected["counts"].sum())
    assert (row["tokens"], row["left_out"]) == (expected["tokens"].sum(), expected["left_out"].sum())


def plain_second(percent, here):
    return sorted((percent[d] for d in here), reverse=True)[1] if len(here) > 1 else None


def plain_entropy(percent, here):
    if len(here) < 2:
        return None
    return float(1 + sum(p / 100 * np.log(p / 100) for p in percent if p > 0) / np.log(len(here)))


def test_worked_example():
    """Totals of 45.2, 12.8 and 18.6 are 59.0 %, 16.7 % and 24.3 %."""
    found = moefps.expert_focus([[30.0], [15.2], [12.8], [18.6], [0.1]], ["a", "a", "b", "c", "c"])
    assert found.domains.columns == COLUMNS
    assert found.domains["total_activation"].to_list() == pytest.approx([45.2, 12.8, 18.6])
    assert found.domains["percent"].round(1).to_list() == [59.0, 16.7, 24.3]
    row = found.experts.row(0, named=True)
    assert (round(row["focus_degree"], 1), row["domain"], row["band"]) == (59.0, "a", "medium")
    assert (row["second_domain"], round(row["second_percent"], 1), row["chance"]) == ("c", 24.3, 40.0)
    # By tokens: 22.6, 12.8 and 9.3 each.
    assert row["balanced_focus_degree"] == pytest.approx(100 * 22.6 / 44.7)
    assert row["balanced_chance"] == pytest.approx(100 / 3)
    assert found.reading.startswith("medium focus: experts give 59.0 % of their activation to one of 3 domains")


def test_bands_and_ties():
    """A band owns its lower edge, 100 is in the last; of equal domains, the first."""
    totals = np.array([[1, 4, 0], [2, 3, 0], [3, 2, 0], [4, 1, 0], [5, 0, 0], [1, 1, 1], [0, 0, 0]], dtype=float)
    found = compute_degrees(totals)
    assert [BANDS[band] if band >= 0 else None for band in found.band] == [
        "extreme", "high", "high", "extreme", "extreme", "light", None,
    ]  # fmt: skip
    assert found.domain.tolist() == [1, 1, 0, 0, 0, 0, -1]
    assert found.entropy[5] == pytest.approx(0, abs=1e-12)
    assert found.entropy[4] == 1
    assert np.isnan(found.degree[6])
    assert compute_degrees(np.full(5, 1.0)).band == 1
    alone = compute_degrees(np.array([[2.0, 0.0]]), np.array([[True, False]]))
    assert (alone.degree[0], alone.second_domain[0], np.isnan(alone.entropy[0])) == (100, -1, True)


@pytest.mark.parametrize("activation", ["weights", "renormalized", "probs"])
def test_tokens_of_an_expert(dump, activation):
    found = moefps.expert_focus(dump, threshold=0.04, activation=activation)
    for row in found.experts.iter_rows(named=True):
        tokens = found.tokens_of(row["expert"], row["layer"])
        assert tokens.height == row["n_counted"]
        assert tokens["activation"].to_list() == sorted(tokens["activation"], reverse=True)
        expected = found.domains.filter(layer=row["layer"], expert=row["expert"])
        for domain, total in expected.select("domain", "total_activation").iter_rows():
            assert tokens.filter(domain=domain)["activation"].sum() == pytest.approx(total)
    assert tokens.columns == ["token", "sample", "position", "segment", "domain", "activation"]
    assert found.tokens_of(0, n=2).equals(found.tokens_of(0).head(2))


def test_experts_that_work_together(dump):
    found = moefps.expert_focus(dump, "segment", layers=[1], together=True)
    labels = of_token(dump, "segment")
    pairs = found.together(n=None, min_tokens=1)
    for row in pairs.iter_rows(named=True):
        chosen = [set(dump.expert_ids[t, 1].tolist()) for t in range(dump.n_tokens) if labels[t] == row["domain"]]
        own = [ids for ids in chosen if row["expert"] in ids]
        both = sum(row["other"] in ids for ids in own)
        assert (row["tokens"], row["share"]) == (both, both / len(own))
        assert row["chance"] == pytest.approx(2 / 3)
    assert pairs["share"].to_list() == sorted(pairs["share"], reverse=True)
    assert set(found.together("answer", 1)["domain"]) == {"answer"}
    sparse = moefps.expert_focus(dump, "segment", layers=[0, 1], together=True).coactivation
    np.testing.assert_array_equal(sparse[:, 1, :4, :4], found.coactivation[:, 0])


def test_histogram_of_activations(dump):
    found = moefps.expert_focus(dump, n_bins=4, highest=0.5)
    table = found.activation_histogram(1)
    assert table.filter(expert=2)["low"].to_list() == [None, 0.0, 0.125, 0.25, 0.375, 0.5]
    totals = table.group_by("expert", maintain_order=True).agg(pl.col("count").sum())["count"]
    assert totals.to_list() == found.experts.filter(layer=1)["n_activations"].to_list()
    assert (
        table.filter(pl.col("high").is_null())["count"].sum()
        == (dump.expert_weights[:, 1] > 0.5)[dump.expert_ids[:, 1] >= 0].sum()
    )
    assert found.activation_histogram(expert=0).height == 2 * 6


def test_domains_in_every_form(dump):
    found = moefps.expert_focus(dump)
    by_sample = dump.samples["domain"].to_list()
    for by in (by_sample, np.array(by_sample), pl.Series(by_sample, dtype=pl.Categorical), of_token(dump)):
        assert moefps.expert_focus(dump.path, by).domains.equals(found.domains)
    numbers = moefps.expert_focus(dump, [DOMAINS.index(name) for name in by_sample])
    assert numbers.domains["domain"].dtype == pl.Int64
    assert sorted(numbers.experts["focus_degree"].drop_nulls()) == pytest.approx(
        sorted(found.experts["focus_degree"].drop_nulls())
    )


def test_nulls_have_reasons(tmp_path):
    layers = ("softmax", "other")
    dump = write(tmp_path / "a.dump", passive=(0, 0), scoring=layers)
    found = moefps.expert_focus(dump, activation="probs", threshold=0.9)
    experts = found.experts
    assert set(experts.filter(layer=1)["reason"]) == {"the scoring 'other' tells no full distribution"}
    assert experts.filter(layer=1)["n_activations"].null_count() == 4
    row = found.layers.row(1, named=True)
    assert (row["mean"], row["activations"], row["tokens"]) == (None, None, None)
    assert "tells no full" in row["reason"]
    assert set(found.domains["layer"]) == {0}
    none = experts.filter(pl.col("layer") == 0, pl.col("n_counted") == 0)
    assert set(none["reason"]) == {"no activation above the threshold 0.9"}
    assert none["focus_degree"].null_count() == none.height > 0
    ids = np.array(dump.expert_ids)
    ids[ids == 3] = -1
    found = moefps.expert_focus(write(tmp_path / "b.dump", passive=(0, 0), expert_ids=ids))
    assert found.experts.filter(expert=3)["reason"].to_list() == ["no activation"] * 2
    nothing = moefps.expert_focus(dump, threshold=7)
    assert nothing.reading.startswith("no focus: no expert has an activation above 7; 0.0 % of activations")
    assert nothing.summary["mean"][0] is None
    assert nothing.bands["share"].to_list() == [None] * 5


def test_a_domain_without_tokens_counts_for_nothing(tmp_path):
    dump = write(tmp_path / "a.dump", lengths=(20, 20, 0), drop=0)
    found = moefps.expert_focus(dump)
    assert found.about["n_domains"] == 3
    assert set(found.layers["n_domains"]) == {2}
    assert set(found.experts["balanced_chance"]) == {50.0}
    assert set(found.domains.filter(domain="law")["count"]) == {0}


@pytest.mark.parametrize("k", [1, 2])
def test_experts_that_do_not_look_at_domains_are_at_chance(tmp_path, k):
    rng = np.random.default_rng(k)
    n_tokens, n_experts = 40_000, 8
    labels = rng.choice(["a", "b", "c"], n_tokens, p=[0.5, 0.3, 0.2])
    ids = rng.random((n_tokens, n_experts)).argsort(axis=1)[:, :k].astype(np.int16)
    weights = np.ones(ids.shape, dtype=np.float32)
    dump = moefps.write_dump(
        tmp_path / "a.dump",
        expert_ids=ids[:, np.newaxis],
        expert_weights=weights[:, np.newaxis],
        offsets=[0, n_tokens],
        n_experts=n_experts,
        tokens={"kind": labels},
    )
    found = moefps.expert_focus(dump, "kind")
    row = found.summary.row(0, named=True)
    # The share of some 5,000 activations or more has a standard error below 0.8 points.
    assert abs(row["mean"] - row["chance"]) < 0.8
    assert row["chance"] == pytest.approx(50, abs=1)
    assert abs(found.experts["balanced_focus_degree"].mean() - 100 / 3) < 1.5
    few = moefps.expert_focus(dump, np.where(np.arange(n_tokens) < 64, labels, "rest"), layers=[0])
    assert few.summary["mean"][0] > 99
    small = moefps.write_dump(
        tmp_path / "b.dump",
        expert_ids=ids[:80, np.newaxis],
        expert_weights=weights[:80, np.newaxis],
        offsets=[0, 80],
        n_experts=n_experts,
        tokens={"kind": labels[:80]},
    )
    row = moefps.expert_focus(small, "kind").summary.row(0, named=True)
    # Some 10 to 20 activations of each of 8 experts: well above chance, and where luck says.
    assert row["luck"] > row["chance"] + 2
    assert abs(row["mean"] - row["luck"]) < 3 * 14 / np.sqrt(8)
    assert (
        "by luck alone, so that little of it is focus" in moefps.expert_focus(small, "kind").reading
        or row["mean"] - row["luck"] >= 5
    )


def test_readings():
    row = {"mean": 19.96, "chance": 25.0, "luck": 25.4, "n_experts": 8, "n_null": 0, "share_counted": 1.0}
    how = {"n_domains": 4, "threshold": 0.1, "activation": "probs", "balanced": True}
    assert read_summary(row, **how) == (
        "no focus beyond chance (the band is called scattered): experts give 20.0 % of their activation, domains "
        "weighed alike, to one of 4 domains on "
        "average, 5.0 points below the chance level of 25.0 %; 100.0 % of activations (probabilities) are above 0.1"
    )
    row |= {"mean": 100.0, "luck": 97.0, "median_counted": 3.0, "n_null": 3}
    assert read_summary(row, **how).startswith("extreme focus: ")
    assert "3 of 8 experts have no counted activation; as few activations as count here (3 of an expert" in (
        read_summary(row, **how)
    )
    assert "would give 97.0 % by luck alone, so that little of it is focus" in read_summary(row, **how)
    assert "only 1.0 points above" in read_summary(row | {"mean": 26.0, "luck": 25.0}, **how)
    assert "which is the chance level of 25.0 %" in read_summary(row | {"mean": 25.01, "luck": 25.0}, **how)
    # One domain has nearly all tokens.
    for mean, luck in ((90.0, 95.0), (95.04, 95.0), (95.0, 98.0)):
        said = read_summary(row | {"mean": mean, "chance": 95.0, "luck": luck}, **how)
        assert said.startswith("no focus beyond chance (the band is called extreme): experts give ")
        assert "is focus" not in said


def test_real_traces(traces, tmp_path):
    """The tables of the ESFT traces are what numpy adds up from them."""
    weights = traces.weights.astype(np.float32)
    dump = moefps.write_dump(
        tmp_path / "esft.dump",
        expert_ids=traces.experts.astype(np.int16),
        expert_weights=weights,
        offsets=traces.offsets,
        n_experts=64,
        samples={"task": traces.tasks},
    )
    found = moefps.expert_focus(dump, "task", threshold=0.2)
    names = sorted(set(traces.tasks.tolist()))
    codes = np.repeat([names.index(task) for task in traces.tasks], np.diff(traces.offsets))
    for layer in (0, 25):
        where = codes[:, np.newaxis] * 64 + traces.experts[:, layer]
        counted = weights[:, layer] > 0.2
        totals = np.bincount(where[counted], weights[:, layer][counted].astype(float), minlength=256).reshape(4, 64)
        rows = found.domains.filter(layer=layer)
        np.testing.assert_allclose(rows["total_activation"].to_numpy().reshape(64, 4), totals.T, rtol=1e-9)
        whole = totals.sum(axis=0)
        expected = np.divide(100 * totals.max(axis=0), whole, out=np.full(64, np.nan), where=whole > 0)
        degrees = found.experts.filter(layer=layer)["focus_degree"]
        np.testing.assert_allclose(degrees.to_numpy(), expected, rtol=1e-9)
        assert degrees.null_count() == (whole == 0).sum()
    assert found.summary["n_with_value"][0] == 26 * 64 - found.summary["n_null"][0]
    assert found.summary["mean"][0] > found.summary["luck"][0]
