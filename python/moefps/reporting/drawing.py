"""Charts to PNG and SVG: vl-convert runs Vega inside the process, with its own font and without the network."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

from moefps.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["draw_png", "draw_svg", "vegalite_version"]

_DOTS_PER_INCH = 144
"""Two pixels of an image for one of a chart, which are 72 an inch; the image says so to whoever prints it."""
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def draw_svg(spec: dict[str, Any]) -> str:
    """Draw a Vega-Lite specification as SVG.

    Parameters
    ----------
    spec : dict
        As `moefps.reporting.charts.figure.Figure.spec` gives it.
    """
    import altair as alt
    import vl_convert

    version = vegalite_version(alt.SCHEMA_VERSION, vl_convert.get_vegalite_versions())
    # The data is inline; no address is allowed, so that nothing can ever be asked of a network.
    drawn: str = vl_convert.vegalite_to_svg(spec, vl_version=version, allowed_base_urls=[])
    return drawn


def vegalite_version(written: str, known: Sequence[str]) -> str:
    """Choose the version of Vega-Lite that draws what altair writes.

    Parameters
    ----------
    written : str
        Altair's, such as ``v6.4.1``.
    known : sequence of str
        What vl-convert has, such as ``6.4``.

    Raises
    ------
    MissingExtraError
        None of the same major version is there.

    Examples
    --------
    >>> vegalite_version("v6.4.1", ["5.21", "6.1", "6.4"]), vegalite_version("v6.5.0", ["5.21", "6.1", "6.4"])
    ('6.4', '6.4')
    """
    major, minor = written.removeprefix("v").split(".")[:2]
    same = [version for version in known if version.split(".")[0] == major]
    if not same:
        raise MissingExtraError(
            f"figures: altair writes Vega-Lite {major}.{minor}, vl-convert draws {', '.join(known)}: "
            "pip install --upgrade 'moefps[report]'"
        )
    exact = f"{major}.{minor}"
    return exact if exact in same else max(same, key=lambda version: int(version.split(".")[1]))


def draw_png(svg: str) -> bytes:
    """Draw an SVG as PNG, and pack it tighter than vl-convert does, which is made for speed."""
    import vl_convert

    drawn: bytes = vl_convert.svg_to_png(svg, ppi=_DOTS_PER_INCH)
    return _repacked(drawn)


def _repacked(png: bytes) -> bytes:
    """Compress the pixels again; all else stays as it is."""
    chunks = list(_chunks(png))
    pixels = zlib.decompress(b"".join(data for kind, data in chunks if kind == b"IDAT"))
    packed = [(b"IDAT", zlib.compress(pixels, 6))]
    first = next(place for place, (kind, _) in enumerate(chunks) if kind == b"IDAT")
    others = [chunk for chunk in chunks if chunk[0] != b"IDAT"]
    parts = [_SIGNATURE]
    for kind, data in [*others[:first], *packed, *others[first:]]:
        parts += [struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(kind + data))]
    return b"".join(parts)


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Give kind and data of every chunk of a PNG (W3C, "Portable Network Graphics", section 5.3)."""
    at = len(_SIGNATURE)
    while at < len(png):
        (size,) = struct.unpack_from(">I", png, at)
        yield png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        at += 12 + size
