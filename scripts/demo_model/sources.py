"""Where the text comes from: eight domains, their sources and licences, and how each is cut into documents."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from demo_model import jsonl, roff


@dataclass(frozen=True)
class Document:
    """One text of a domain, and the group that must stay on one side of the split with it."""

    id: str
    group: str
    text: str
    messages: tuple[tuple[str, str], ...] = ()  # role, content


@dataclass(frozen=True)
class Domain:
    """A kind of text: Debian packages or files that hold it, its licence, and what reads its documents."""

    name: str
    licence: str
    read: Callable[[Path], Iterator[Document]]
    packages: tuple[str, ...] = ()
    file: str | None = None
    held_out: float = 0.08


def _files(root: Path, pattern: str) -> list[Path]:
    """Files below a folder, in order, without links: those are second names, or lead out of the package."""
    return sorted(path for path in root.rglob(pattern) if path.is_file() and not path.is_symlink())


def _decode(path: Path) -> str:
    data = gzip.decompress(path.read_bytes()) if path.suffix in {".gz", ".dz"} else path.read_bytes()
    return data.decode("utf-8", errors="replace")


def _python(root: Path) -> Iterator[Document]:
    """Yield modules of the standard library, without tables of code pages and the copy of the manual."""
    for path in _files(root, "*.py"):
        if {"encodings", "pydoc_data", "test", "tests", "lib2to3"} & set(path.parts):
            continue
        text = re.sub(r"\A(?:[ \t]*#[^\n]*\n|[ \t]*\n)+", "", _decode(path))
        name = str(path.relative_to(root))
        yield Document(name, f"python:{name}", text)


def _c(root: Path) -> Iterator[Document]:
    """Yield C headers without comments that speak of a licence."""
    for path in _files(root, "*.h"):
        text = re.sub(
            r"/\*(?:(?!\*/).)*?(?:copyright|licen[sc]e|spdx|warranty)(?:(?!\*/).)*\*/",
            "",
            _decode(path),
            flags=re.IGNORECASE | re.DOTALL,
        )
        name = str(path.relative_to(root))
        yield Document(name, f"c:{path.name}", text.strip())


def _manual(root: Path) -> Iterator[Document]:
    """Yield manual pages. A page and its translations are one group: none is learnt in German and tested in French."""
    for path in _files(root, "*.[1-8]*.gz"):
        if "man" in path.parts:
            yield Document(str(path.relative_to(root)), f"man:{path.name}", roff.plain_text(_decode(path)))


def _dictionary(root: Path) -> Iterator[Document]:
    """Yield some 2,000 characters of entries each."""
    text = _decode(_files(root, "*.dict.dz")[0])
    text = text[text.index("\nA \\") :]
    text = re.sub(
        r"\n[ ]+\[(?:1913 Webster|PJC|WordNet[^\]]*|Webster 1913 Suppl\.|Century Dict[^\]]*)[^\]]*\]", "", text
    )
    entries: list[str] = []
    number = 0
    for entry in re.split(r"\n\n(?=\S)", text):
        entries.append(entry.strip())
        if sum(map(len, entries)) >= 2000:
            yield Document(f"gcide:{number}", f"gcide:{number}", "\n\n".join(entries))
            entries, number = [], number + 1


def _maths(path: Path) -> Iterator[Document]:
    """Yield word problems with worked answers, without the calculator's marks in <<...>>."""
    for number, row in enumerate(jsonl.read(path)):
        answer = re.sub(r"<<[^>]*>>", "", row["answer"]).replace("####", "Answer:")
        messages = (("user", row["question"]), ("assistant", answer))
        yield Document(f"gsm8k:{number}", f"gsm8k:{number}", f"{row['question']}\n\n{answer}", messages)


def _dialogue(path: Path) -> Iterator[Document]:
    """Yield what customer and agent said; the trials of a task, which start from the same request, are one group."""
    for row in json.loads(path.read_text(encoding="utf-8")):
        messages = tuple(
            (message["role"], message["content"].strip())
            for message in row["traj"]
            if message["role"] in {"user", "assistant"} and message["content"]
        )
        names = {"user": "Customer", "assistant": "Agent"}
        text = "\n\n".join(f"{names[role]}: {content}" for role, content in messages)
        yield Document(f"airline:{row['task_id']}:{row['trial']}", f"airline:{row['task_id']}", text, messages)


DOMAINS = (
    Domain("python", "PSF-2.0", _python, packages=("libpython3.11-minimal", "libpython3.11-stdlib"), held_out=0.12),
    Domain(
        "c",
        "GPL-2.0 with Linux-syscall-note, LGPL-2.0 and 2.1-or-later, PSF-2.0",
        _c,
        packages=("linux-libc-dev", "libc6-dev", "libglib2.0-dev", "libgtk-3-dev", "libpython3.11-dev"),
    ),
    Domain("manual", "GPL-2.0-or-later, BSD and others, by page", _manual, packages=("manpages", "manpages-dev")),
    Domain("german", "GPL-3.0-or-later, by page", _manual, packages=("manpages-de", "manpages-de-dev")),
    Domain("french", "GPL-3.0-or-later, by page", _manual, packages=("manpages-fr", "manpages-fr-dev")),
    Domain("dictionary", "GPL-2.0-or-later (Webster 1913 itself is in the public domain)", _dictionary,
           packages=("dict-gcide",)),
    Domain("maths", "MIT (openai/grade-school-math)", _maths, file="gsm8k/train.jsonl"),
    Domain("dialogue", "MIT (sierra-research/tau-bench)", _dialogue, file="taubench/taubench_gpt-4o-airline.json",
           held_out=0.25),
)  # fmt: skip
NAMES = tuple(domain.name for domain in DOMAINS)
