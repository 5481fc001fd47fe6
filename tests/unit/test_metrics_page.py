"""The page of metrics says what the registry says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "metrics_page.py"

pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="the scripts are not beside these tests")


def test_the_page_is_as_the_registry():
    spec = importlib.util.spec_from_file_location("metrics_page", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = module.PAGE.read_text(encoding="utf-8")
    assert page == module.page_with_tables(page), "run `python scripts/metrics_page.py`"
