"""This program in a process of its own."""

from __future__ import annotations

from transfer.engines.program import own_module


def command(*words: str) -> list[str]:
    """The command line that runs this program with these words."""
    return own_module("transfer", *words)
