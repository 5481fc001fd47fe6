"""One self-contained HTML page: everything is in it, and nothing that it holds may ask for anything else."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import resources
from typing import TYPE_CHECKING, Any

from moefps._version import __version__
from moefps.reporting.drawing import vegalite_version
from moefps.reporting.tables import MOST_ROWS, column_settings, table_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from moefps.reporting.content import Content
    from moefps.reporting.tables import PageTable

__all__ = ["render_page"]

_MOST_NARROW = 8
"""Columns that fit on paper upright."""
_SNIPPET = "window.vegaEmbed = vegaEmbed;"
"""What of the bundle the page uses."""
_SCRIPTS = ("tables.js", "charts.js")


def render_page(content: Content, *, title: str | None = None) -> bytes:
    """Make the page.

    Parameters
    ----------
    content : Content
        What it says. All of it is text from data, and is escaped.
    title : str, optional
        Another title.

    Returns
    -------
    bytes
        HTML in UTF-8.
    """
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    filled = [table for table in content.tables if table.frame.height]
    scripts = [_vega_bundle()] if content.figures else []
    scripts += [_read(name) for name in _SCRIPTS]
    html = environment.from_string(_read("page.html")).render(
        title=content.title if title is None else title,
        content=content,
        findings=Markup(_from_markdown(content.markdown)),  # noqa: S704 (made of escaped text, without raw HTML)
        charts=[
            {"figure": figure, "id": f"chart-{place}", "spec": _island(_spec(figure))}
            for place, figure in enumerate(content.figures.values(), 1)
        ],
        tables=_tables(filled),
        empty=[table.title for table in content.tables if not table.frame.height],
        values={name: _island(table_values(frame)) for name, frame in _frames(filled).items()},
        most_rows=MOST_ROWS,
        style=Markup(_read("page.css")),  # noqa: S704 (ours)
        scripts=[Markup(script) for script in scripts],  # noqa: S704 (ours, and vega's)
        policy=_policy(scripts),
        version=__version__,
        written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )
    return html.encode("utf-8", "replace")


def _tables(tables: Sequence[PageTable]) -> list[dict[str, Any]]:
    found = []
    for place, table in enumerate(tables, 1):
        settings = column_settings(table)
        # What paper it is printed on.
        paper = (
            "wide" if len(settings) > _MOST_NARROW or any(column["kind"] == "text" for column in settings) else "narrow"
        )
        found.append(
            {"table": table, "id": f"table-{place}", "columns": settings, "settings": _island(settings), "paper": paper}
        )
    return found


def _frames(tables: Sequence[PageTable]) -> dict[str, Any]:
    """Give every frame once: several tables may show columns of one."""
    return {table.name: table.frame for table in tables}


def _spec(figure: Any) -> Mapping[str, Any]:
    spec: Mapping[str, Any] = figure.spec(titled=False)
    return spec


def _from_markdown(text: str) -> str:
    """Make HTML of findings; names in them can be anything, so neither HTML nor links are let through."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).disable(
        ["link", "image", "autolink", "html_inline", "html_block"]
    )
    tokens = parser.parse(text)
    for token in tokens:
        if token.type in {"heading_open", "heading_close"}:
            # The page has a heading above these.
            token.tag = f"h{min(6, int(token.tag[1]) + 1)}"
    rendered: str = parser.renderer.render(tokens, parser.options, {})
    return rendered


def _island(content: Any) -> Any:
    """Write data for a script element: no character in it can end the element, or begin another."""
    from markupsafe import Markup

    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)  # noqa: S704 (escaped just now)


def _policy(scripts: Sequence[str]) -> str:
    """Allow the scripts of the page by their hashes, inline styles, images that are in the page, and nothing else."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


@functools.cache
def _vega_bundle() -> str:
    """Give Vega, Vega-Lite and Vega-Embed, as vl-convert carries them, in the version that altair writes for."""
    import altair as alt
    import vl_convert

    version = vegalite_version(alt.SCHEMA_VERSION, vl_convert.get_vegalite_versions())
    bundle: str = vl_convert.javascript_bundle(_SNIPPET, version)
    # A browser counts these as the end of the element, or the beginning of another, even inside a string.
    return bundle.replace("\r\n", "\n").replace("</script", r"<\/script").replace("<!--", r"<\!--")


@functools.cache
def _read(name: str) -> str:
    return resources.files("moefps.reporting").joinpath("data", name).read_text(encoding="utf-8").strip() + "\n"
