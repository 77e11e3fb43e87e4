"""receive: the other end of ship. It is started for every connection, so it loads little."""

from __future__ import annotations

import os
from pathlib import Path

from transfer.cli.options import ReceiverRules
from transfer.errors import UsageError
from transfer.flows import remote_import
from transfer.flows import site as site_flow
from transfer.flows.receiving import giving, taking
from transfer.ship.receive import Receiver, StdioChannel, sound_inbox
from transfer.sites.receipt import site_name


def receive(stdio: bool, rules: ReceiverRules, store: Path | None, no_store: bool) -> None:
    """Serve one sender on standard input and output."""
    if not stdio:
        raise UsageError(
            "`receive` is started by `transfer ship` over SSH, not by hand",
            hint='authorized_keys: restrict,command="transfer receive --stdio --inbox /srv/inbox" ssh-ed25519 ...',
        )
    _sound(rules)
    place = rules.inbox or rules.outbox
    if place is not None:
        place = sound_inbox(place, site_name(rules.site) if rules.site else "")
    channel = StdioChannel(os.dup(0), os.dup(1))
    os.dup2(2, 1)  # nothing but messages may come between
    held = site_flow.choose_store(store, no_store).store
    same = ("--no-store",) if no_store else ("--store", str(store.absolute())) if store else ()
    if rules.outbox:
        assert place
        duties = giving(held, place, rules.site)
    else:
        free = rules.inbox is None
        landing = remote_import.Landing(rules.import_to, rules.allow_move, free, rules.discard, same)
        may_import = rules.allow_import or rules.inbox is None
        duties = taking(held, landing if may_import else None, keep=rules.keep, inbox=place)
    Receiver(channel, inbox=place, duties=duties, most=rules.most, outbox=rules.outbox is not None).run()


def _sound(rules: ReceiverRules) -> None:
    """UsageError for options that contradict each other."""
    if rules.inbox and rules.outbox:
        raise UsageError("--inbox and --outbox cannot be used together", hint="give each key one of them")
    if rules.outbox and not rules.site:
        raise UsageError("--outbox needs --site", hint="name the site that takes bundles with this key")
    if rules.inbox is None and (rules.allow_import or rules.import_to or rules.allow_move or rules.most or rules.keep):
        raise UsageError("these options need --inbox", hint="add --inbox DIR")
    if rules.inbox is None and rules.outbox is None and rules.site:
        raise UsageError("--site needs --inbox or --outbox", hint="add --inbox DIR")
    if (rules.import_to or rules.allow_move or rules.discard) and not rules.allow_import:
        raise UsageError(
            "--import-to, --allow-move and --discard-imported need --allow-import", hint="add --allow-import"
        )
