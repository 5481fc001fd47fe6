"""Manual pages: from their source to plain text, well enough to learn a language from."""

from __future__ import annotations

import re

# Sections that say the same on every page; a model would learn them by heart, and splits would share them.
_BOILERPLATE = re.compile(
    r"COLOPHON|KOLOPHON|TRANSLATION|TRADUCTION|ÜBERSETZUNG|COPYRIGHT|LIZENZ|LICEN[CS]E|REPORTING BUGS|FEHLER MELDEN"
    r"|SIGNALER DES BOGUES|SIGNALER DES ANOMALIES|FEHLERBERICHTE",
    re.IGNORECASE,
)
_GLYPHS = {
    "aq": "'", "cq": "'", "oq": "`", "dq": '"', "lq": '"', "rq": '"', "em": "\u2014", "en": "\u2013", "bu": "\u2022",
    "co": "©", "ha": "^", "ti": "~", "rs": "\\", "ga": "`", "mu": "\u00d7", "<=": "<=", ">=": ">=", "->": "->",
    "Fo": "«", "Fc": "»", "+-": "±", "mc": "µ", "de": "°", "rg": "®", "tm": "™", "bv": "|", "or": "|", "sl": "/",
    "mi": "-", "lB": "[", "rB": "]",
}  # fmt: skip
_GLYPH = re.compile(r"\\[(*](..)|\\\*?\[([^\]]*)\]")
_FONT = re.compile(r"\\f(?:\(..|\[[^\]]*\]|.)|\\s[+-]?\d|\\[&,/^|c:%]|\\[hvmM](?:'[^']*'|\[[^\]]*\])")
_ARGUMENT = re.compile(r'"((?:[^"]|"")*)"|(\S+)')
_ALTERNATING = {"BR", "RB", "BI", "IB", "RI", "IR", "SB", "OP"}
_PARAGRAPH = {"PP", "P", "LP", "TP", "TQ", "sp", "HP"}


def _glyph(match: re.Match[str]) -> str:
    return _GLYPHS.get(match[1] or match[2] or "", "")


def _unescape(text: str) -> str:
    text = _FONT.sub("", text.replace("\\\\", "\\e"))
    text = _GLYPH.sub(_glyph, text)
    return text.replace("\\-", "-").replace("\\ ", " ").replace("\\~", " ").replace("\\0", " ").replace("\\e", "\\")


def _arguments(rest: str) -> list[str]:
    found = _ARGUMENT.findall(rest.replace("\\ ", "\0"))
    return [_unescape((quoted or bare).replace("\0", " ")) for quoted, bare in found]


def _request(name: str, rest: str) -> str | None:
    """Text that a macro stands for; None where it only lays out."""
    arguments = _arguments(rest)
    if name in _PARAGRAPH:
        return ""
    if name == "IP":
        return "\n" + arguments[0] if arguments else ""
    if name in _ALTERNATING:
        return "".join(arguments)
    if name in {"B", "I", "SM", "R"}:
        return " ".join(arguments)
    if name in {"UR", "MT"}:
        return f"<{arguments[0]}>" if arguments else None
    return None


def plain_text(source: str) -> str:
    """Plain text of a manual page written with the ``man`` macros; empty for links and for other macro packages.

    Parameters
    ----------
    source
        The page in roff.

    Returns
    -------
    text
        Headings, paragraphs and examples, without tables, fonts and sections that every page repeats.
    """
    if source.startswith(".so ") or "\n.Dd" in source or ".TH " not in source:
        return ""
    lines: list[str] = []
    skipping = table = False
    for line in source.splitlines():
        request = re.match(r"[.'][ \t]*([A-Za-z]+)?(.*)", line)
        name, rest = (request[1] or "", request[2].split('\\"')[0]) if request else ("", line)
        if name in {"SH", "SS"}:
            heading = " ".join(_arguments(rest))
            skipping = bool(_BOILERPLATE.search(heading)) if name == "SH" else skipping
            if not skipping:
                lines.append("\n" + heading)
        elif name in {"TS", "TE"}:
            table = name == "TS"
        elif not (skipping or table):
            text = _request(name, rest) if request else _unescape(line)
            if text is not None:
                lines.append(text)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
