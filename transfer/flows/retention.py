"""Forgetting old bundles of a store in two steps, where a sender may still build on them."""

from __future__ import annotations

import time
from dataclasses import dataclass

from transfer.flows.site import all_confirmed, last_receipt
from transfer.model import Digest
from transfer.sites.leaving import Leaving, read_leaving, write_leaving
from transfer.store import upkeep
from transfer.store.entry import Role
from transfer.store.store import Store


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What a prune did, and the bundles that go later: when the sender knows that they are leaving."""

    pruned: upkeep.Pruned
    leaving: tuple[Digest, ...]


def forget(store: Store, keep_last: int, *, dry_run: bool = False, at_once: bool = False) -> Forgotten:
    """Prune. A bundle that the last receipt names only begins to leave, unless `at_once`: see sites/leaving.py."""
    now = time.time()
    with store.removing() if not dry_run else store.reading():
        confirmed = all_confirmed(store)
        plan = upkeep.prune(store, keep_last, confirmed, dry_run=True)
        held = {each.digest for each in store.entries() if each.role is Role.HELD}
        told = set(last_receipt(store).bundles)
        noted = Leaving() if at_once else read_leaving(store.root)
        going = {each for each in (*plan.removed, *plan.suppliers) if each in held}
        listed = {each for each in going if each.hex in told or each in noted.bundles}
        stay = set() if at_once else listed - noted.due(now)
        if not dry_run and not at_once:
            # noted before anything goes: a receipt that is made meanwhile names none of them
            write_leaving(store.root, noted.with_new(stay, now, last_receipt(store).serial + 1))
        done = upkeep.prune(store, keep_last, confirmed | stay, dry_run=dry_run)
        if not dry_run:
            write_leaving(store.root, read_leaving(store.root).without({*done.removed, *(going - stay)}))
        return Forgotten(done, tuple(sorted(stay)))


def acknowledge(store: Store, serial: int) -> None:
    """The sender has accepted this receipt, and no bundle on its way builds on what it does not name."""
    with store.adding():
        noted = read_leaving(store.root)
        if serial > noted.seen and serial <= last_receipt(store).serial:
            write_leaving(store.root, noted.acknowledged(serial))
