"""What the tests of reports share: a dump, and the command in this process."""

from __future__ import annotations

import inspect
from pathlib import Path

from click.testing import CliRunner

from moefps.cli import main

DUMP = Path(__file__).resolve().parents[1] / "data" / "dumps" / "demo-moe"
# Before click 8.2 the two streams were mixed unless one said otherwise.
_SEPARATE = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}


def moefps_command(*arguments, code=0):
    """Run the command in this process."""
    result = CliRunner(**_SEPARATE).invoke(main, [str(argument) for argument in arguments], prog_name="moefps")
    assert result.exit_code == code, (result.stdout, result.stderr)
    return result
