"""Rows of JSON, one a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def read(path: Path) -> list[dict[str, Any]]:
    """Read all rows. Lines end at a newline and nowhere else: texts hold other characters that `splitlines` cuts at."""
    with path.open(encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows, replacing the file."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
