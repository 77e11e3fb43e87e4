"""receive: the other end of ship. It is started for every connection, so it loads little."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from transfer.bundle.receipt import site_name
from transfer.errors import UsageError
from transfer.flows import receiving, stores
from transfer.ship.receive import Receiver, StdioChannel, sound_inbox


@dataclass(frozen=True, slots=True)
class Rules:
    """What whoever set up the receiver allows: with an inbox nothing of it is for the sender to say."""

    inbox: Path | None
    allow_import: bool
    import_to: str
    allow_move: bool
    site: str
    most: int


def receive(stdio: bool, rules: Rules, store: Path | None, no_store: bool) -> None:
    """Serve one sender on standard input and output."""
    if not stdio:
        raise UsageError(
            "receive is started by ship, over SSH",
            hint='authorized_keys: restrict,command="transfer receive --stdio --inbox /srv/inbox" ssh-ed25519 ...',
        )
    inbox = rules.inbox
    if inbox is None and (rules.allow_import or rules.import_to or rules.allow_move or rules.site or rules.most):
        raise UsageError("these options are for a receiver with an inbox", hint="add --inbox DIR")
    if (rules.import_to or rules.allow_move) and not rules.allow_import:
        raise UsageError("--import-to and --allow-move say how to import", hint="add --allow-import")
    if inbox is not None:
        inbox = sound_inbox(inbox, site_name(rules.site) if rules.site else "")
    channel = StdioChannel(os.dup(0), os.dup(1))
    os.dup2(2, 1)  # nothing but messages may come between
    held = stores.choose_store(store, no_store).store
    same = ("--no-store",) if no_store else ("--store", str(store.absolute())) if store else ()
    landing = receiving.Landing(rules.import_to, rules.allow_move, free=inbox is None, store=same)
    may_import = rules.allow_import or inbox is None
    Receiver(
        channel,
        inbox=inbox,
        supply=(lambda path, digest, size: receiving.supply(held, path, digest, size)) if held else None,
        import_=(lambda folder, options, tell: receiving.run_import(folder, options, tell, landing))
        if may_import
        else None,
        most=rules.most,
    ).run()
