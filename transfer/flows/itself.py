"""This program in a process of its own."""

from __future__ import annotations

import sys


def command(*words: str) -> list[str]:
    """The command line that runs this program with these words, by the Python that runs it now.

    Modules come from where they come from now, and never from the folder it is started in.
    """
    return [sys.executable, "-I" if sys.flags.isolated else "-P", "-m", "transfer", *words]
