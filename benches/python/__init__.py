"""moefps beside other libraries: ``python -m benches.python``, run from the root of the repository."""

from __future__ import annotations
