"""Run the tests against a built wheel, in an empty environment and away from the checkout.

``python tests/installed.py [--kernels-only] dist/moefps-….whl [pytest's arguments]``. Needs only the standard library.

``--kernels-only`` leaves out what needs polars, for interpreters that polars has no wheel for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What the tests read beside the installed package: the settings of pytest, and the documents whose examples are run.
COPIED_FILES = ("pyproject.toml", "README.md")
COPIED_FOLDERS = ("tests", "docs")
# Capturing needs torch, which is tested in the checkout alone: its 5 GB are not installed twice.
CAPTURE_TESTS = "tests/recording"
# Whose examples need it.
CAPTURE_MODULES = ("recording", "compat", "metrics/cost.py", "metrics/training.py")
# What needs polars, which reads and writes tables, dumps and metrics.
POLARS_TESTS = ("io", "dump", "paths", "texts", "traces", "spectra", "metrics_page", "benches", "import")
KERNEL_TESTS = (
    *("tests/unit", "tests/parity", "tests/property"),
    *(f"--ignore-glob=*/test_{subject}*" for subject in POLARS_TESTS),
)
# As in the Makefile: tests beside each other, and then those that measure.
TURNS = (("--numprocesses=auto", "--maxprocesses=4", "--dist=loadfile", "-m", "not alone"), ("-m", "alone"))
WHERE = "import moefps, pathlib; print(pathlib.Path(moefps.__file__).resolve())"


def main(arguments: list[str]) -> int:
    """Install the wheel that ``arguments`` name and hand those after it to pytest."""
    kernels_only = arguments[:1] == ["--kernels-only"]
    arguments = arguments[kernels_only:]
    if not arguments or not Path(arguments[0]).is_file():
        sys.stderr.write("usage: python tests/installed.py [--kernels-only] WHEEL [pytest's arguments]\n")
        return 2
    wheel = Path(arguments[0]).resolve()
    with tempfile.TemporaryDirectory(prefix="moefps-wheel-", ignore_cleanup_errors=True) as folder:
        home = Path(folder).resolve()
        environment = clean_environment()
        binaries = make_environment(home / "venv")
        python = str(binaries / "python")
        install(python, wheel, environment, kernels_only=kernels_only)
        away = copy_tests(home / "away")
        found = subprocess.run([python, "-c", WHERE], check=True, env=environment, cwd=away, capture_output=True)
        package = Path(found.stdout.decode().strip()).parent
        if home / "venv" not in package.parents:
            sys.stderr.write(f"error: moefps was imported from {package}, not from the wheel\n")
            return 1
        without = [f"--ignore={place}" for place in (CAPTURE_TESTS, *(package / name for name in CAPTURE_MODULES))]
        what = KERNEL_TESTS if kernels_only else ("tests", str(package), *without)
        command = [str(binaries / "pytest"), "-c", "pyproject.toml", *what]
        codes = [
            subprocess.run([*command, *turn, *arguments[1:]], check=False, env=environment, cwd=away).returncode
            for turn in (((),) if kernels_only else TURNS)
        ]
        return max(codes)


def install(python: str, wheel: Path, environment: dict[str, str], *, kernels_only: bool) -> None:
    """Install the wheel and what its tests need."""
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    requirements = "kernels.txt" if kernels_only else "wheel.txt"
    subprocess.run([*pip, "-r", str(ROOT / "requirements" / requirements)], check=True, env=environment)
    subprocess.run([*pip, *(["--no-deps"] if kernels_only else []), str(wheel)], check=True, env=environment)


def clean_environment() -> dict[str, str]:
    """Drop what would let Python or pytest see the checkout or the environment that this runs in."""
    hidden = {"PYTHONPATH", "PYTHONHOME", "PYTHONUNBUFFERED", "VIRTUAL_ENV", "PYTEST_ADDOPTS"}
    return {name: value for name, value in os.environ.items() if name not in hidden}


def make_environment(folder: Path) -> Path:
    """Make an empty virtual environment and return where its programs are."""
    venv.create(folder, with_pip=True)
    return folder / ("Scripts" if os.name == "nt" else "bin")


def copy_tests(folder: Path) -> Path:
    """Copy the tests and what they read. Real data beside the checkout is found beside the copy, too."""
    folder.mkdir()
    real_data = ROOT.parent / "shared"
    if real_data.is_dir():
        (folder.parent / "shared").symlink_to(real_data, target_is_directory=True)
    for name in COPIED_FILES:
        shutil.copy2(ROOT / name, folder / name)
    for name in COPIED_FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "_build"))
    return folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
