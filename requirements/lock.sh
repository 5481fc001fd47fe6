#!/usr/bin/env bash
# Pins every *.in file, with all that it brings, into the *.txt beside it. Needs `uv` on the PATH.
set -euo pipefail
cd "$(dirname "$0")"

pins=$(mktemp)
trap 'rm -f "$pins"' EXIT
compile() { uv pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate "$@"; }

# One resolution for all files first, so that no two of them ask for different versions.
compile "$@" dev.in bench.in --output-file "$pins"
for source in *.in; do
    target="${source%.in}.txt"
    { echo "# Made by requirements/lock.sh from $source; change that file, not this one."
      compile "$source" --constraint "$pins"; } > "$target"
done
