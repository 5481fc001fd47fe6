"""The process `moefps`, also ``python -m moefps.cli``."""

from __future__ import annotations

import io
import os
import sys

from moefps.cli import main

# Ended by Ctrl-C or SIGTERM.
_INTERRUPTED = {130, 143}


def run() -> None:
    """Run the command and end the process with its exit code."""
    # A character that the terminal's encoding lacks is no reason to stop; programs read UTF-8.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        main(prog_name="moefps")
    except SystemExit as end:
        if end.code in _INTERRUPTED:
            # Unfinished files are gone by now; taking the interpreter apart would only keep the prompt waiting.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(end.code))
        raise


if __name__ == "__main__":
    run()
