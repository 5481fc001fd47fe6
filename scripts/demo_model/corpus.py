"""Gathers the text: fetches packages, reads documents, drops copies, and splits by document."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import zlib
from collections.abc import Iterable
from pathlib import Path

import click

from demo_model import jsonl
from demo_model.sources import DOMAINS, Document, Domain

CHARACTERS_PER_DOMAIN = 6_000_000
SHINGLE_WORDS = 10
MOST_KNOWN_WHEN_KEPT = 0.3  # share of a document's shingles that documents before it have
MOST_KNOWN_WHEN_HELD_OUT = 0.1  # share of a held-out document's shingles that training documents have
FEWEST_CHARACTERS = 300


def _hash(text: str) -> float:
    """Map a text to a number in [0, 1) that depends on it alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def _shingles(text: str) -> set[int]:
    """Take about a quarter of the text's runs of ten words, as numbers."""
    words = re.findall(r"\w+", text.lower())
    count = max(1, len(words) - SHINGLE_WORDS + 1)
    hashes = (zlib.crc32(" ".join(words[i : i + SHINGLE_WORDS]).encode()) for i in range(count))
    return {value for value in hashes if value % 4 == 0}


def _known(shingles: set[int], seen: set[int]) -> float:
    return len(shingles & seen) / len(shingles) if shingles else 0.0


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 - no shell
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise click.ClickException(f"{' '.join(command[:2])}: {reason} (apt-get update may help)")


def fetch(package: str, folder: Path) -> tuple[Path, str]:
    """Download a Debian package and unpack it, without installing it.

    Returns
    -------
    root, version
        The folder with its files, and the package's version.
    """
    archives = folder / "archives"
    archives.mkdir(parents=True, exist_ok=True)
    apt, dpkg = shutil.which("apt-get"), shutil.which("dpkg-deb")
    if not apt or not dpkg:
        raise click.ClickException("apt-get and dpkg-deb not found: run this step on Debian 12 or in its container")
    if not list(archives.glob(f"{package}_*.deb")):
        _run([apt, "download", "-q", package], archives)
    archive = next(archives.glob(f"{package}_*.deb"))
    root = folder / package
    if not root.exists():
        _run([dpkg, "-x", str(archive), str(root)], folder)
    return root, archive.name.split("_")[1].replace("%3a", ":")


def _read(domain: Domain, work: Path, data: Path) -> tuple[list[Document], dict[str, str]]:
    if domain.file:
        path = data / domain.file
        if not path.exists():
            raise click.ClickException(f"{path}: not found; {domain.licence} has it (see --data in --help)")
        return list(domain.read(path)), {}
    fetched = {package: fetch(package, work / "packages") for package in domain.packages}
    documents = [document for root, _ in fetched.values() for document in domain.read(root)]
    return documents, {package: version for package, (_, version) in fetched.items()}


def _without_copies(documents: Iterable[Document], seen: set[int]) -> list[tuple[Document, set[int]]]:
    """Drop documents that repeat others; in an order that depends on their ids alone, up to the domain's share."""
    kept, characters = [], 0
    for document in sorted(documents, key=lambda document: _hash(document.id)):
        shingles = _shingles(document.text)
        if len(document.text) < FEWEST_CHARACTERS or _known(shingles, seen) > MOST_KNOWN_WHEN_KEPT:
            continue
        seen |= shingles
        kept.append((document, shingles))
        characters += len(document.text)
        if characters > CHARACTERS_PER_DOMAIN:
            break
    return kept


def gather(work: Path, data: Path) -> dict[str, dict[str, object]]:
    """Write ``corpus/<domain>.jsonl`` (id, group, split, text) and ``corpus.json``, which says what is in them."""
    (work / "corpus").mkdir(parents=True, exist_ok=True)
    seen: set[int] = set()
    kept: dict[str, list[tuple[Document, set[int]]]] = {}
    packages = {}
    for domain in DOMAINS:
        documents, packages[domain.name] = _read(domain, work, data)
        kept[domain.name] = _without_copies(documents, seen)
        click.echo(f"{domain.name:<12}{len(documents):>7} documents, {len(kept[domain.name]):>6} kept")
    in_training: set[int] = set()
    for domain in DOMAINS:
        for document, shingles in kept[domain.name]:
            if _hash(f"split:{document.group}") >= domain.held_out:
                in_training |= shingles
    report: dict[str, dict[str, object]] = {}
    for domain in DOMAINS:
        rows = []
        for document, shingles in kept[domain.name]:
            held_out = _hash(f"split:{document.group}") < domain.held_out
            if held_out and _known(shingles, in_training) > MOST_KNOWN_WHEN_HELD_OUT:
                continue
            rows.append({"id": document.id, "group": document.group, "split": "held-out" if held_out else "train",
                         "text": document.text, "messages": document.messages})  # fmt: skip
        jsonl.write(work / "corpus" / f"{domain.name}.jsonl", rows)
        report[domain.name] = {"licence": domain.licence, "packages": packages[domain.name], "file": domain.file}
        for split in ("train", "held-out"):
            texts = [str(row["text"]) for row in rows if row["split"] == split]
            report[domain.name][split] = {"documents": len(texts), "characters": sum(map(len, texts))}
    (work / "corpus.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    return report
