"""How the small model in ``models/demo-moe`` is made: its text, tokenizer, training and evaluation."""

from __future__ import annotations
