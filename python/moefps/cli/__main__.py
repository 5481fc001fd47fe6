"""Run the command with ``python -m moefps.cli``."""

from __future__ import annotations

from moefps.cli import main

if __name__ == "__main__":
    main(prog_name="moefps")
