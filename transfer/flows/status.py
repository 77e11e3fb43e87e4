"""How every sync stands, read from files alone: no lock is taken, and a run may be under way."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from transfer.errors import TransferError
from transfer.flows import history
from transfer.flows.alarm import is_stale
from transfer.flows.ship import size
from transfer.flows.site import last_receipt
from transfer.sites.site_file import SiteFile, listed, load
from transfer.sites.sync_state import SyncState, SyncStates
from transfer.store.entry import Role
from transfer.store.store import Store

MEDIUM = "no medium"


@dataclass(frozen=True, slots=True)
class SiteStatus:
    """One site. `word`: where it stands; `detail`: what to know; `hint`: what to do now ("" for nothing). `bad`: people should look at it."""

    name: str
    word: str
    detail: str
    hint: str
    bad: bool
    stale: bool
    state: SyncState
    site: SiteFile | None = None
    error: TransferError | None = None


@dataclass(frozen=True, slots=True)
class Receiving:
    """What this site gets from others: bundles that are held, that wait for what they build on (by what), and the last events."""

    held: int
    staged: Mapping[str, tuple[str, ...]]
    receipt: int
    events: tuple[history.Event, ...] = field(default=())


def statuses(store: Path, only: str = "", clock: Callable[[], float] = time.time) -> list[SiteStatus]:
    """Every site that has a file or a state, or the one that is named. NotFound if that has neither."""
    states = SyncStates(store)
    names = [only] if only else sorted({*listed(), *states.names()})
    return [_status(name, states, clock(), known=bool(only)) for name in names]


def _status(name: str, states: SyncStates, now: float, *, known: bool) -> SiteStatus:
    site: SiteFile | None = None
    state = SyncState(name)
    try:
        state = states.get(name)
        site = load(name)
    except TransferError as error:
        if known and error.slug == "not-found" and state == SyncState(name):
            raise
        word = "no site file" if error.slug == "not-found" else "unreadable"
        hint = (
            f"write it, or forget the site: transfer site rm {name}"
            if word == "no site file"
            else error.hint or error.advice
        )
        return SiteStatus(name, word, error.message, hint, True, False, state, None, error)
    stale = is_stale(state, site, now)
    word, detail, hint = _words(state, site, now)
    return SiteStatus(name, word, detail, hint, stale or bool(state.failure), stale, state, site)


def _words(state: SyncState, site: SiteFile, now: float) -> tuple[str, str, str]:
    made = state.under_way
    if state.failure:
        often = (
            f"{state.failure.count} times since {moment(state.failure.since)}"
            if state.failure.count > 1
            else moment(state.failure.since)
        )
        what = "a setting is wrong" if state.failure.slug == "usage" else state.failure.slug
        return "failing", f"{what}, {often}: {state.failure.message}", state.failure.hint
    if not state.attempt:
        return "never run", "no run was begun yet", f"run: transfer sync {site.name}"
    if made and made.stage == "shipping":
        share = f" ({100 * made.sent // made.size} %)" if made.size else ""
        seconds = max(1.0, now - made.since)
        pace = f", {size(int(made.sent / seconds))}/s" if made.sent and now - state.contact < 60 else ""
        where = f"; {state.waiting}" if state.waiting else ""
        return (
            "a medium wanted" if made.road == "medium" and state.waiting else "shipping",
            f"{size(made.sent)} of {size(made.size)}{share}{pace}, since {moment(made.since)}{where}",
            "",
        )
    if state.up_to_date and site.pulls:
        return "up to date", f"nothing new is offered; last import {moment(state.confirmed)}", ""
    if state.up_to_date:
        when = f", confirmed {moment(state.confirmed)}" if state.confirmed else ""
        return "up to date", f"bundle {state.confirmed_serial}{when}, {len(state.want)} images", ""
    if state.waiting.startswith(MEDIUM):
        return "a medium wanted", state.waiting, "insert a medium"
    if state.flights and not made:
        return "on its way", state.waiting or "a receipt is awaited", ""
    return "waiting", state.waiting or "behind", ""


def receiving(store: Store) -> Receiving | None:
    """What came in here; None if nothing ever did."""
    held, staged = 0, {}
    with contextlib.suppress(TransferError):
        for entry in store.entries():
            held += entry.role is Role.HELD
            if entry.role is Role.STAGED:
                bundle = store.bundle(entry.digest)
                waits = bundle.header.prerequisites.bundles if bundle else ()
                staged[entry.digest.short] = tuple(each.short for each in waits if store.entry(each) is None)
    events = [each for each in history.read(store.root) if each.what in ("imported", "refused") and not each.road]
    serial = 0
    with contextlib.suppress(TransferError):
        serial = last_receipt(store).serial
    if not held and not staged and not events:
        return None
    return Receiving(held, staged, serial, tuple(events[-5:]))


def moment(when: float) -> str:
    """A time of this host, as people write it."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(when)) if when else "never"
