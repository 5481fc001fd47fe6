"""A problem and trajectories of it, for the tests of building."""

from __future__ import annotations

STUB = 'def f(x):\n    """Doc."""\n'
BODY = "    return x\n"
PROBLEM = {"task_id": "t", "prompt": STUB, "canonical_solution": BODY}


def run(*messages, **row):
    """A trajectory of the problem."""
    return {"task_id": "t", "messages": [{"role": "user", "content": "Go."}, *messages], **row}


def tool(content):
    return {"role": "tool", "content": content}
