"""How a command ends: one line what, one line what now, and the documented exit code."""

from __future__ import annotations

import sys

from transfer.errors import TransferError


def fail(error: TransferError) -> int:
    """One line what, one line what now; the exit code."""
    print(f"transfer: {printable(error.message)}", file=sys.stderr)
    hint = error.hint or error.advice
    if hint:
        print(f"  -> {printable(hint)}", file=sys.stderr)
    return error.exit_code


def printable(text: str) -> str:
    """Text from anywhere, safe for a terminal. A byte of a path that is not UTF-8 is shown as that byte."""
    codes = ((c, ord(c) & 0xFF if "\udc80" <= c <= "\udcff" else ord(c)) for c in text)
    return "".join(c if c.isprintable() else f"\\x{code:02x}" for c, code in codes)
