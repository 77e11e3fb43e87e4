"""mirrors: how an engine is told to pull from a registry of this program."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transfer.cli.exits import printable
from transfer.errors import UsageError
from transfer.flows.mirrors import ENGINES, mirror, write


def mirrors(engine: str, url: str, ca: str, hosts: Sequence[str], do_write: bool, root: Path) -> None:
    """Print what goes where; or put it there, and say what is to be done then."""
    if engine not in ENGINES:
        raise UsageError(f"{engine!r:.60} is not an engine", hint=f"use one of {', '.join(ENGINES)}")
    files = ENGINES[engine](mirror(url, ca), hosts or ["docker.io"], root)
    for file in files:
        if not do_write:
            print(f"# {printable(str(file.path))}")
            print(file.text)
            continue
        kept = write(file)
        print(
            f"{printable(str(file.path))} is written" + (f"; the file before is {printable(str(kept))}" if kept else "")
        )
    for then in dict.fromkeys(file.then for file in files if file.then):
        print(f"  -> then: {then}")
