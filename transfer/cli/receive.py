"""receive: the other end of ship. It is started for every connection, so it loads little."""

from __future__ import annotations

import os
from pathlib import Path

from transfer.errors import UsageError
from transfer.flows import receiving, stores
from transfer.ship.receive import Receiver, StdioChannel


def receive(stdio: bool, inbox: Path | None, allow_import: bool, store: Path | None, no_store: bool) -> None:
    """Serve one sender on standard input and output."""
    if not stdio:
        raise UsageError("receive is started by ship, over SSH", hint="transfer receive --stdio [--inbox DIR]")
    channel = StdioChannel(os.dup(0), os.dup(1))
    os.dup2(2, 1)  # nothing but messages may come between
    choice = stores.choose_store(store, no_store)
    held = choice.store
    may_import = allow_import or inbox is None
    Receiver(
        channel,
        inbox=inbox,
        supply=(lambda path, digest, size: receiving.supply(held, path, digest, size)) if held else None,
        import_=receiving.run_import if may_import else None,
    ).run()
