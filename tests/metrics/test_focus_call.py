"""The function of the expert focus degree that people have, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

import moefps
from metrics.focus_dumps import write
from moefps.compat.focus import calculate_expert_focus_degree
from support import refused


def test_the_call_that_people_have():
    stats = {"e0": {d: {"total_activation": x} for d, x in zip("abc", (45.2, 12.8, 18.6), strict=True)}}
    found = calculate_expert_focus_degree(stats)
    percent = found["expert_focus_details"]["e0"]["domain_percentages"]
    assert {d: round(x, 1) for d, x in percent.items()} == {"a": 59.0, "b": 16.7, "c": 24.3}
    assert found["average_focus_degree"] == found["focus_degrees"][0] == pytest.approx(59.0, abs=0.01)
    stats |= {1: {"a": {"total_activation": 0}}, 2: {"d": {"total_activation": 3, "count": 9}}}
    found = calculate_expert_focus_degree(stats)
    assert found["expert_focus_details"][1]["focus_percentage"] is None
    assert found["expert_focus_details"][2]["most_focused_domain"] == "d"
    assert found["std_focus_degree"] == pytest.approx(np.std(found["focus_degrees"]))
    assert found["band_counts"] == {"scattered": 0, "light": 0, "medium": 1, "high": 0, "extreme": 1}
    nothing = calculate_expert_focus_degree({0: {"a": {"total_activation": 0}}})
    assert (nothing["average_focus_degree"], nothing["focus_degrees"]) == (None, [])
    alone = calculate_expert_focus_degree({0: {"a": {"total_activation": 2}}})
    assert (alone["focus_degrees"], alone["focus_entropy"]) == ([100.0], {0: None})


def test_the_call_that_people_have_says_the_same(tmp_path):
    dump = write(tmp_path / "a.dump")
    found = moefps.expert_focus(dump, balanced=True, layers=[0])
    stats = {}
    for row in found.domains.iter_rows(named=True):
        stats.setdefault(row["expert"], {})[row["domain"]] = {"total_activation": row["total_activation"]}
    tokens = dict(found.tokens.select("domain", "tokens").iter_rows())
    for name, how in {"focus_degree": {}, "balanced_focus_degree": {"domain_tokens": tokens}}.items():
        degrees = calculate_expert_focus_degree(stats, **how)["focus_degrees"]
        assert degrees == pytest.approx(found.experts[name].drop_nulls().to_list(), rel=1e-12)


@pytest.mark.parametrize(
    ("stats", "how", "words"),
    [
        ({}, {}, "no expert"),
        ([1], {}, "list"),
        ({0: {}}, {}, "expert 0 has no domains"),
        ({0: {"a": {"count": 1}}}, {}, "expert 0, domain 'a' has no total_activation"),
        ({0: {"a": {"total_activation": -1}}}, {}, "is -1; accepted"),
        ({0: {"a": {"total_activation": "x"}}}, {}, "is 'x'; accepted"),
        ({0: {"a": {"total_activation": 1}}}, {"domain_tokens": {}}, "domain_tokens: has no domain 'a'"),
        ({0: {"a": {"total_activation": 1}}}, {"domain_tokens": {"a": 0}}, "has 0; accepted"),
    ],
)
def test_what_the_call_refuses(stats, how, words):
    refused((moefps.ArgumentError, moefps.DataError), lambda: calculate_expert_focus_degree(stats, **how), words)
