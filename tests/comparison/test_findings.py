"""Findings say what the numbers say: which dump, which way, how many, and no more than the intervals bear."""

from __future__ import annotations

import html

import pytest

from moefps.comparison.findings import describe


def summary(**changes):
    """A study of two layers in which nothing stands out."""
    slopes = {"tv_slope": 0.001, "tv_slope_lo": -0.01, "tv_slope_hi": 0.012}
    slopes |= dict.fromkeys(("jaccard_slope", "jaccard_slope_lo", "jaccard_slope_hi"))
    near = {"distance_min": 1, "distance_max": 2, "count": 9, "tv": 0.1, "jaccard": 0.8}
    return {
        "a": "runs/agentic.dump",
        "b": "runs/assisted.dump",
        "condition_a": "agentic",
        "condition_b": "assisted",
        "n_tasks": 20,
        "n_layers": 2,
        "n_experts": 8,
        "top_k": 2,
        "count_all": 500,
        "count_canonical": 300,
        "by": None,
        "has_weights": True,
        "intervals": "95 %, 100 resamples of tasks",
        "top_tv_layers": [{"layer": 1, "tv": 0.2, "tv_lo": 0.1, "tv_hi": 0.3}],
        "low_jaccard_layers": [{"layer": 0, "jaccard": 0.6, "jaccard_lo": 0.5, "jaccard_hi": 0.7}],
        "top_tv_groups": None,
        "usage_beyond_chance": {"n_layers": 0, "n_layers_tested": 2},
        "tool_response_tv": {
            "all": 0.1,
            "docstring": 0.08,
            "non_docstring": 0.1,
            "ratio": 1.25,
            "difference": 0.02,
            "difference_lo": -0.01,
            "difference_hi": 0.05,
        },
        "top_r_layers": [{"layer": 0, "r": -0.8, "r_lo": -0.9, "r_hi": -0.6, "p": 0.01, "q": 0.02}],
        "n_layers_tested": 2,
        "n_layers_significant": 0,
        "n_layers_beyond_tasks": 0,
        "distance_trend": {
            "from": near,
            "to": {**near, "distance_min": 513, "distance_max": None, "tv": 0.2},
            **slopes,
        },
        "one_sided": {"tool_schema": "a", "tool_call": "b", "user_prompt": "a and b", "canonical": None},
        "left_out": {"a": [f"T/{i}" for i in range(40)], "b": []},
        "tasks_without_response": ["T/41"],
        **changes,
    }


def said(changes):
    """The sentences that are not there without `changes`."""
    before = set(describe(summary()).splitlines())
    return "\n".join(line for line in describe(summary(**changes)).splitlines() if line not in before)


def test_a_study_in_which_nothing_stands_out():
    text = describe(summary())
    assert "Mean TV is 0.1000 at distance 1-2 and 0.2000 at 513 and more; those are of other tasks, as only" in text
    assert "index is 0.8000 at distance 1-2 and 0.8000 at 513 and more; no task has tokens at several" in text
    assert "the shifts of experts in the tool's answer and in the solution surely go together (q < 0.05)." in text
    assert "does not say that the tool's answer is the cause" in text
    lines = text.splitlines()
    for sentence in (
        "agentic (a in the tables) is `runs/agentic.dump`; assisted (b in the tables) is `runs/assisted.dump`.",
        "20 tasks, 500 tokens that both have, 2 layers of 8 experts, top-2. Intervals: 95 %, 100 resamples of tasks.",
        "The use of experts differs in none of 2 layers by more than the choice of tasks would make it.",
        "Docstrings and the rest do not differ surely: 0.0200, 95 % -0.0100 to 0.0500.",
        "Only agentic has tokens in tool_schema: nothing is compared there (count 0).",
        "Only assisted has tokens in tool_call: nothing is compared there (count 0).",
        "Nothing is compared in user_prompt: no token of these is in both dumps and in both conditions.",
        "No token at all is in canonical.",
        f"Tasks of agentic without a partner, left out: {', '.join(f'T/{i}' for i in range(20))} and 20 more.",
        "1 task without a tool response, left out of the distances.",
    ):
        assert sentence in lines, sentence


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"usage_beyond_chance": {"n_layers": 1, "n_layers_tested": 2}},
            "choice of tasks would make it in 1 of 2 layers",
        ),
        ({"n_layers_significant": 2}, "each other (q < 0.05). In none of these does the interval of r leave 0 out"),
        ({"n_layers_significant": 2, "n_layers_beyond_tasks": 1}, "In 1 of these the interval of r leaves 0 out"),
        ({"n_layers_significant": 2, "n_layers_beyond_tasks": 2}, "In all of these the interval of r leaves 0 out"),
        ({"has_weights": False}, "only the sets of chosen experts are compared"),
        (
            {"by": "domain", "top_tv_groups": [{"group": "law", "tv": 0.3, "tv_lo": 0.2, "tv_hi": 0.4}]},
            "By `domain`, mean TV over layers, the largest first: law (0.3000, 95 % 0.2000 to 0.4000).",
        ),
    ],
)
def test_what_stands_out_is_said(changes, sentence):
    assert sentence in said(changes)


@pytest.mark.parametrize(
    ("lo", "hi", "where", "way"),
    [
        (0.01, 0.03, "outside docstrings (outside to inside, 1.25 to 1)", "rises"),
        (-0.03, -0.01, "inside docstrings (outside to inside, 1.25 to 1)", "falls"),
        (None, None, None, None),
    ],
)
def test_a_direction_is_that_of_the_interval(lo, hi, where, way):
    base = summary()
    value = -0.02 if hi is not None and hi < 0 else 0.02
    response = base["tool_response_tv"] | {"difference": value, "difference_lo": lo, "difference_hi": hi}
    trend = base["distance_trend"] | {"tv_slope": value, "tv_slope_lo": lo, "tv_slope_hi": hi}
    found = said({"tool_response_tv": response, "distance_trend": trend})
    if where is None:
        assert "The difference is 0.0200; there is no interval to tell whether that is more than chance." in found
        assert "Within tasks it goes by +0.0200 with every doubling of the distance; there is no interval" in found
        return
    assert f"Routing differs more {where}: the difference is {value:.4f}, 95 % {lo:.4f} to {hi:.4f}." in found
    assert f"Within tasks it {way}: {value:+.4f} with every doubling of the distance" in found


def test_what_is_ranked_may_not_differ():
    layers = [{"layer": i, "tv": 0.2, "tv_lo": 0.1, "tv_hi": 0.3} for i in range(2)]
    groups = [{"group": name, "tv": 0.2, "tv_lo": lo, "tv_hi": 0.3} for name, lo in (("law", None), ("code", 0.1))]
    assert "0.3000). Layers whose intervals overlap may not differ." in said({"top_tv_layers": layers})
    of_groups = {"by": "domain", "top_tv_groups": groups}
    assert "Groups whose intervals overlap, or that have none, may not differ." in said(of_groups)
    unsure = {"by": "domain", "top_tv_groups": [{**row, "tv_lo": None} for row in groups]}
    assert "There are no intervals to tell whether they differ." in said(unsure)
    alike = {"by": "domain", "top_tv_groups": [{**row, "tv": 0.0} for row in groups]}
    assert "By `domain`, mean" not in said(alike)


def test_correlations_that_nothing_was_tested_of():
    row = {"layer": 0, "r": -0.8, "r_lo": None, "r_hi": None, "p": None, "q": None}
    assert "(r -0.8000). There is neither p nor interval to tell" in said({"top_r_layers": [row], "n_layers_tested": 0})


def test_names_are_text_whatever_they_are():
    markdown = pytest.importorskip("markdown_it", reason="the extra of reports is not installed")
    names = ["**bold** _it_", "__init__", "a`b", "[x](y)", "<b>", "two\nlines", "# head", r"back\slash"]
    changes = {f"count_{name}": 3 for name in names}
    changes |= {"a": "runs/a`b", "b": "runs/_b_", "condition_a": None, "condition_b": None, "by": "part`s"}
    page = markdown.MarkdownIt().render(describe(summary(**changes)))
    for name in names:
        assert html.escape(" ".join(name.split())) in page, name
    assert "<h1>a`b against _b_: how the same tokens are routed</h1>" in page
    assert "<code>runs/a`b</code>" in page
    assert not any(tag in page for tag in ("<em>", "<strong>", "<a ", "<b>"))
