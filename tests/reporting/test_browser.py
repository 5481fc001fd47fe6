"""Reports in a real browser: what is drawn, sorted, filtered, saved and printed, and that nothing leaves the page.

The browser is the machine's own Chromium or Chrome, or the program that ``MOEFPS_BROWSER`` names.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import moefps
from reporting.pages import HOSTILE, MORE_HOSTILE, ODD, compare_pairs, hostile_dump

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed, which drives the browser")

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PLACES = ("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",)
DRAWN = "html[data-charts=drawn]"
# Tells what the page may not do, before any of its scripts runs.
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.blockedURI));
"""


def find_browser():
    wanted = os.environ.get("MOEFPS_BROWSER")
    if wanted:
        return shutil.which(wanted)
    return next(filter(None, map(shutil.which, (*PROGRAMS, *PLACES))), None)


class Opened:
    """A page in the browser, and all that it did."""

    def __init__(self, browser, path, **settings):
        self.path, self.said, self.asked = path, [], []
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
        self.context.set_default_timeout(20_000)
        self.page = self.context.new_page()
        self.page.add_init_script(WATCH)
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: (self.said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector(DRAWN, state="attached")

    def table(self, title):
        return self.page.locator("section.table", has=self.page.get_by_role("heading", name=title, exact=True))

    def violations(self):
        return self.page.evaluate("window.violations")


@pytest.fixture(scope="module")
def browser():
    program = find_browser()
    if program is None:
        pytest.skip("there is no browser: install chromium, or name one in MOEFPS_BROWSER")
    with playwright.sync_playwright() as driver:
        # Without a sandbox of its own the browser runs as root too, as it must in containers.
        opened = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory, browser):
    """A comparison with a long table; and of hostile names another, and metrics with intervals and picks."""
    folder = tmp_path_factory.mktemp("pages")
    found = compare_pairs(folder)
    rng = np.random.default_rng(1)
    n = 48 * 128
    usage = {name: rng.random(n) for name in ("u_a", "u_b", "delta_u", "delta_u_lo", "delta_u_hi")}
    place = {"layer": np.repeat(np.arange(48), 128), "expert": np.tile(np.arange(128), 48)}
    found = dataclasses.replace(found, expert_usage=pl.DataFrame({**place, **usage}))
    base, tuned = (hostile_dump(folder, name) for name in (f"base {ODD}", f"tuned {ODD}"))
    sources = {
        "comparison": found,
        "hostile": moefps.compare(base, tuned, by="part", n_resamples=0),
        "hostile-dump": base,
    }
    made = {
        name: moefps.write_report(
            source,
            folder / f"{name}.html",
            n_select=3 if "dump" in name else None,
            title=f"{HOSTILE} {MORE_HOSTILE}" if "hostile" in name else None,
        )
        for name, source in sources.items()
    }
    made["found"] = found
    return made


@pytest.fixture(scope="module")
def comparison(browser, pages):
    opened = Opened(browser, pages["comparison"])
    yield opened
    opened.context.close()


@pytest.mark.parametrize("name", ["comparison", "hostile", "hostile-dump"])
def test_all_is_drawn_and_nothing_leaves_the_page(browser, pages, name):
    opened = Opened(browser, pages[name], offline=True, color_scheme="dark")
    page = opened.page
    assert opened.said == []
    assert opened.asked == [pages[name].as_uri()]
    assert opened.violations() == []
    figures = page.locator("figure")
    assert figures.count() > 0
    for place in range(figures.count()):
        figure = figures.nth(place)
        marks = figure.locator(
            "svg.marks [role=graphics-symbol], svg.marks .mark-symbol path, svg.marks .mark-rect path"
        )
        assert marks.count() > 0, figure.get_attribute("aria-label")
    # Every table shows rows, and its numbers are where the columns say.
    for place in range(page.locator("section.table").count()):
        assert page.locator("section.table").nth(place).locator("tbody tr").count() > 0
    if "hostile" in name:
        assert page.title() == f"{HOSTILE} {MORE_HOSTILE}"
        assert page.locator("img, svg:not(.marks):not(.vega-embed svg)").count() == 0
        assert page.evaluate(f"document.body.textContent.includes({HOSTILE!r})")
    opened.context.close()


def test_the_page_forbids_itself_the_network_and_other_scripts(browser, pages):
    opened = Opened(browser, pages["hostile-dump"])
    refused, begun = [], len(opened.asked)
    opened.page.on("requestfailed", lambda request: refused.append((request.url, request.failure)))
    done = opened.page.evaluate("""async () => {
        const fetched = await fetch("https://example.org/").then(() => "fetched", () => "refused");
        const image = document.createElement("img");
        image.src = "https://example.org/x.png";
        document.body.append(image);
        const script = document.createElement("script");
        script.textContent = "window.ran = true";
        document.body.append(script);
        await new Promise((next) => setTimeout(next, 50));
        return [fetched, window.ran === undefined];
    }""")
    assert done == ["refused", True]
    assert sorted(opened.violations()) == ["https://example.org/", "https://example.org/x.png", "inline"]
    # What is asked for is refused before it gets anywhere.
    assert [url for url, _ in refused] == opened.asked[begun:]
    assert {failure for _, failure in refused} <= {"csp"}
    opened.context.close()


def column(table, name, value="text"):
    """The cells of a column, as they stand: their own text, not the interval's below."""
    heads = table.locator("thead th button").all_inner_texts()
    place = heads.index(name) + 1
    read = {"text": "c => c.firstChild ? c.firstChild.textContent : ''", "exact": "c => c.title"}[value]
    return table.locator(f"tbody td:nth-child({place})").evaluate_all(f"cells => cells.map({read})")


def numbers(texts):
    return [None if text == "" else float(text.replace("\N{MINUS SIGN}", "-").replace(",", "")) for text in texts]


def test_tables_sort_by_click_and_by_key(comparison, pages):
    frame = pages["found"].layer_metrics
    table = comparison.table("How alike the routing of a token is, by layer and group")
    head = table.locator("thead th", has=comparison.page.get_by_role("button", name="jaccard", exact=True))
    first = column(table, "group")
    assert first == frame["group"].to_list()
    assert head.get_attribute("aria-sort") == "none"
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    # By their values, not their texts; without a value last, and of equals the first stays first.
    up = frame.sort("jaccard", nulls_last=True, maintain_order=True)
    assert frame["jaccard"].null_count() > 0
    assert column(table, "group") == up["group"].to_list()
    assert numbers(column(table, "jaccard", "exact")) == up["jaccard"].to_list()
    head.get_by_role("button").focus()
    comparison.page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    down = frame.sort("jaccard", descending=True, nulls_last=True, maintain_order=True)
    assert numbers(column(table, "jaccard", "exact")) == down["jaccard"].to_list()
    assert numbers(column(table, "layer")) == down["layer"].to_list()
    comparison.page.keyboard.press("Space")
    assert head.get_attribute("aria-sort") == "none"
    assert column(table, "group") == first
    # Another column takes over; whole numbers sort as numbers.
    table.get_by_role("button", name="count", exact=True).click()
    assert numbers(column(table, "count")) == sorted(frame["count"].to_list())
    assert [*table.locator("thead th").evaluate_all("h => h.map(x => x.getAttribute('aria-sort'))")].count("none") == 9


def test_tables_are_filtered_and_saved(comparison, pages):
    frame = pages["found"].layer_metrics
    table = comparison.table("How sure each condition's routing is, by layer and group")
    table.get_by_role("searchbox").fill("CANONICAL layer:1")
    assert column(table, "group") == ["canonical", "canonical_non_ws"]
    assert table.locator("output").inner_text() == f"2 rows of {frame.height} that the filter leaves"
    with comparison.page.expect_download() as download:
        table.get_by_role("button", name="Save as CSV").click()
    assert download.value.suggested_filename == "layer_metrics.csv"
    wanted = frame.filter(layer=1).filter(pl.col("group").str.starts_with("canonical"))
    assert_frame_equal(read_csv(download.value, frame), wanted, check_exact=True)
    table.get_by_role("searchbox").fill("no such group")
    assert table.locator("tbody tr").count() == 0
    table.get_by_role("searchbox").fill("")
    with comparison.page.expect_download() as download:
        table.get_by_role("button", name="Save as CSV").click()
    assert_frame_equal(read_csv(download.value, frame), frame, check_exact=True)


def read_csv(download, like):
    return pl.read_csv(download.path(), schema=like.schema)


def test_a_long_table_is_shown_in_part_and_whole(comparison, pages):
    table = comparison.table("The usage of every expert")
    assert table.locator("output").inner_text() == "first 50 of 6,144 rows"
    assert table.locator("tbody tr").count() == 50
    table.get_by_role("button", name="delta_u", exact=True).click()
    smallest = pages["found"].expert_usage["delta_u"].sort()[:50].to_list()
    assert numbers(column(table, "delta_u", "exact")) == smallest
    table.get_by_role("button", name="Show all 6,144 rows").click()
    assert table.locator("tbody tr").count() == 6144
    assert not table.get_by_role("button", name="Show all").is_visible()
    # Milliseconds; well below one second where nothing else runs.
    spent = table.evaluate("""table => {
        const button = [...table.querySelectorAll("th button")].find((one) => one.textContent === "u_a");
        const start = performance.now();
        button.click();
        table.offsetHeight;
        return performance.now() - start;
    }""")
    assert spent < 10_000
    least = table.locator("tbody tr").first.locator("td").nth(2).get_attribute("title")
    assert float(least) == pages["found"].expert_usage["u_a"].min()


def test_charts_answer_to_the_mouse(comparison):
    page = comparison.page
    figure = page.locator("figure", has=page.locator("[data-name=tv_curve]"))
    figure.scroll_into_view_if_needed()
    figure.locator("svg.marks .mark-symbol path").first.hover(force=True)
    tooltip = page.locator("#vg-tooltip-element.visible")
    tooltip.wait_for()
    assert re.search(r"layer\s*0", tooltip.inner_text())
    looks = "svg => [...svg.querySelectorAll('.mark-line path, .mark-symbol path')].map(p => p.outerHTML).join('')"
    before = figure.locator("svg.marks").evaluate(looks)
    figure.locator("svg.marks .role-legend-entry .role-legend-symbol path, svg.marks .role-legend-symbol path").nth(
        1
    ).click()
    page.wait_for_timeout(100)
    assert figure.locator("svg.marks").evaluate(looks) != before
    # The menu saves, and offers nothing that would open an address.
    figure.locator("details summary").click()
    assert figure.locator(".vega-actions a").all_inner_texts() == ["Save as SVG", "Save as PNG"]
    with page.expect_download() as download:
        figure.get_by_text("Save as PNG").click()
    assert download.value.suggested_filename == "tv_curve.png"
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")
    assert comparison.said == []
    assert comparison.violations() == []


def test_it_fits_a_phone_and_paper(browser, pages):
    opened = Opened(browser, pages["comparison"], viewport={"width": 400, "height": 800})
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 400
    printed = opened.page.pdf(prefer_css_page_size=True)
    assert printed.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) > 8
    opened.page.emulate_media(media="print")
    assert not opened.page.get_by_role("button", name="Save as CSV").first.is_visible()
    assert opened.table("The usage of every expert").locator("output").inner_text() == "first 50 of 6,144 rows"
    opened.context.close()
