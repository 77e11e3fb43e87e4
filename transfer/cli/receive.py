"""receive: the other end of ship. It is started for every connection, so it loads little."""

from __future__ import annotations

import os
from pathlib import Path

from transfer.cli.options import ReceiverRules
from transfer.errors import UsageError
from transfer.flows import remote_import
from transfer.flows import site as site_flow
from transfer.ship.receive import Receiver, StdioChannel, sound_inbox
from transfer.sites.receipt import site_name


def receive(stdio: bool, rules: ReceiverRules, store: Path | None, no_store: bool) -> None:
    """Serve one sender on standard input and output."""
    if not stdio:
        raise UsageError(
            "`receive` is started by `transfer ship` over SSH, not by hand",
            hint='authorized_keys: restrict,command="transfer receive --stdio --inbox /srv/inbox" ssh-ed25519 ...',
        )
    inbox = rules.inbox
    if inbox is None and (rules.allow_import or rules.import_to or rules.allow_move or rules.site or rules.most):
        raise UsageError("these options need --inbox", hint="add --inbox DIR")
    if (rules.import_to or rules.allow_move) and not rules.allow_import:
        raise UsageError("--import-to and --allow-move need --allow-import", hint="add --allow-import")
    if inbox is not None:
        inbox = sound_inbox(inbox, site_name(rules.site) if rules.site else "")
    channel = StdioChannel(os.dup(0), os.dup(1))
    os.dup2(2, 1)  # nothing but messages may come between
    held = site_flow.choose_store(store, no_store).store
    same = ("--no-store",) if no_store else ("--store", str(store.absolute())) if store else ()
    landing = remote_import.Landing(rules.import_to, rules.allow_move, free=inbox is None, store=same)
    may_import = rules.allow_import or inbox is None
    Receiver(
        channel,
        inbox=inbox,
        supply=(lambda path, digest, size: remote_import.supply(held, path, digest, size)) if held else None,
        import_=(lambda folder, options, tell: remote_import.run_import(folder, options, tell, landing))
        if may_import
        else None,
        most=rules.most,
    ).run()
