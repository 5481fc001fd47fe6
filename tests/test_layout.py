"""What import-linter cannot see: who touches the compiled module, and what `import moefps` brings with it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import moefps

PACKAGE = Path(moefps.__file__).resolve().parent
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def imports_core(tree: ast.AST) -> bool:
    """Whether a module imports ``moefps._core``, in whatever way it is written."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module or ''}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # importlib.import_module("moefps._core") and its like
            names = [node.value] if " " not in node.value else []
        if any("_core" in name.split(".") for name in names):
            return True
    return False


@pytest.mark.parametrize("module", [name for name in MODULES if not name.startswith("kernels/")])
def test_only_kernels_import_the_compiled_module(module: str) -> None:
    tree = ast.parse((PACKAGE / module).read_text(encoding="utf-8"))
    assert not imports_core(tree), f"{module} imports moefps._core; call moefps.kernels"


@pytest.mark.parametrize(
    "source",
    [
        "import moefps._core",
        "from moefps import _core",
        "from moefps._core import matrix",
        "from . import _core",
        "from .._core import matrix",
        "importlib.import_module('moefps._core')",
    ],
)
def test_every_way_to_import_it_is_seen(source: str) -> None:
    assert imports_core(ast.parse(source))


def test_kernels_do_import_it() -> None:
    kernels = [name for name in MODULES if name.startswith("kernels/")]
    assert any(imports_core(ast.parse((PACKAGE / name).read_text(encoding="utf-8"))) for name in kernels)


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("kernels/")])
def test_kernels_take_nothing_else_from_the_package(module: str) -> None:
    """``moefps`` hands out what is above the kernels, too, and import-linter does not look at this edge."""
    for node in ast.walk(ast.parse((PACKAGE / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "moefps":
            assert [alias.name for alias in node.names] == ["_core"], f"{module}, line {node.lineno}"
        if isinstance(node, ast.Import):
            assert "moefps" not in [alias.name for alias in node.names], f"{module}, line {node.lineno}"


def test_the_package_holds_no_tests() -> None:
    assert (PACKAGE / "py.typed").is_file()
    assert not [name for name in MODULES if "test" in Path(name).name]
