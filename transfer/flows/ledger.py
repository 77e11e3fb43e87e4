"""What is noted of a site's sync while it runs, and what receipts change in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from transfer.errors import Locked, NotFound, TransferError, UsageError
from transfer.events import Noted, Observer
from transfer.flows import history, roads
from transfer.flows import site as site_flow
from transfer.flows.alarm import Alarms
from transfer.flows.want import digests_of, satisfied
from transfer.folders import no_links, open_own, own_folder
from transfer.model import Digest
from transfer.sites.arrived import series
from transfer.sites.receipt import parse_receipt, site_name
from transfer.sites.site_file import SiteFile, folders, listed
from transfer.sites.states import Sites
from transfer.sites.sync_state import Flight, SyncState, SyncStates
from transfer.store.store import Store
from transfer.streams import read_small

RECEIPTS_MAX = 1000


class Ledger:
    """The state of one sync, published whenever it changes."""

    def __init__(
        self, site: SiteFile, store: Store, observer: Observer, clock: Callable[[], float] = time.time
    ) -> None:
        self.site, self.store, self.clock = site, store, clock
        self.sites = Sites(store.root)
        self.state = SyncState(site.name)
        self.alarms = Alarms(site, store.root, observer, clock)
        self._observer = observer
        self._states = SyncStates(store.root)

    def look(self) -> None:
        """The state as it is noted; FormatError if it cannot be read."""
        self.state = self._states.get(self.site.name)

    def open(self) -> None:
        """The state as it is noted; a new one where that cannot be read."""
        self.state, broken = self._states.get_or_new(self.site.name)
        if broken:
            self.say(f"the state of this sync could not be read and is made again: {broken}")
        if not self.state.serial:
            self.state = replace(self.state, serial=self._used())

    def _used(self) -> int:
        """The highest number that a bundle of this sync was given: none is used for other content, whatever became of the state."""
        name, out = self.site.name, self.store.root / "out" / self.site.name
        numbers = [event.serial for event in history.read(self.store.root) if event.site == name]
        folders = [series(each.name) for each in out.iterdir()] if out.is_dir() else []
        return max([0, *numbers, *(found[1] for found in folders if found and found[0] == name)])

    def write(self, state: SyncState) -> None:
        self.state = state
        self._states.put(state)

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        own_folder(self.store.root, "sync", private=True)
        fd = open_own(self._states.lock_path(self.site.name), 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
                return
            yield True
        finally:
            os.close(fd)

    def put(self, **changes: object) -> None:
        self.write(replace(self.state, **changes))  # type: ignore[arg-type]

    def note(self, what: str, flight: Flight | None = None, **more: object) -> None:
        bundle = {"bundle": flight.digest, "serial": flight.serial, "size": flight.size} if flight else {}
        told = {"at": round(self.clock(), 3), "what": what, "site": self.site.name, **bundle, **more}
        history.note(self.store.root, history.Event(**told))  # type: ignore[arg-type]

    def say(self, text: str) -> None:
        self._observer(Noted(text))

    # receipts

    def take_receipts(self) -> None:
        """Those that somebody left in the store, and those that media bring. A refused one is set aside and does not end the run."""
        place = self.store.root / "receipts" / "in"
        for path in sorted(place.iterdir())[:RECEIPTS_MAX] if place.is_dir() else ():
            if path.suffix in (".json", ".txt", ".slip") and not path.name.startswith("."):
                try:
                    data = read_small(path)
                    if parse_receipt(data, str(path)).site != self.site.name:
                        continue
                    self.accept(data, str(path))
                    path.unlink()
                except TransferError as error:
                    self.say(f"{path} is not accepted: {error.message}")
                    self.note("refused", slug=error.slug, message=error.message, where=str(path))
                    os.replace(path, path.with_name(f"{path.name}.refused"))
        for road in self.site.roads:
            if road.kind in ("medium", "folder"):
                for where, data in roads.receipts_on(roads.media(road)):
                    try:
                        given = parse_receipt(data, where).site
                        if given == self.site.name:
                            self.accept(data, where)
                        elif road.kind == "folder":  # that is for this site alone
                            self.say(f"{where} calls itself {given}: name its site file there {self.site.name}.toml")
                    except TransferError as error:
                        self.say(f"{where} is not accepted: {error.message}")

    def accept(self, data: bytes, where: str) -> None:
        given = parse_receipt(data, where)
        if given.site != self.site.name:
            raise NotFound(
                f"{where} calls itself {given.site}, and its file here is named {self.site.name}",
                hint=f"name the file {given.site}.toml, or run there: transfer receipt --site {self.site.name}",
            )
        if site_flow.accept(self.store, data, where, anew=False).new:
            self.note("receipt", where=where, message=f"receipt {given.serial}, {len(given.bundles)} bundles")

    def settle(self) -> None:
        """What the accepted receipts say of the bundles on their way."""
        site = self.sites.known(self.site.name)
        state, now = self.state, self.clock()
        if site.serial < state.receipt:
            self.say("the site has begun a new count of receipts: what it had before is sent again")
            state = replace(state, there={}, there_serial={}, confirmed_serial=0, acked=-1)
            state = replace(state, flights=tuple(each for each in state.flights if not each.base))
            if state.under_way and state.under_way.base:
                state = replace(state, under_way=None)
        confirmed = {str(each) for each in site.confirmed}
        left = []
        for flight in sorted(state.flights, key=lambda each: each.serial):
            if flight.digest in confirmed:
                state = self.arrived(state, flight)
            elif flight.shipped and now - flight.shipped > self.site.keep.lost_after and self.site.delta.one_way:
                state = self.arrived(state, flight)  # nobody will ever say so
            elif flight.shipped and now - flight.shipped > self.site.keep.lost_after:
                self.say(f"bundle {flight.serial} was shipped and never confirmed: its content is sent again")
                self.note("lost", flight)
            else:
                left.append(flight)
        state = replace(state, flights=tuple(left), receipt=site.serial)
        safe = all(base in confirmed for flight in state.unconfirmed for base in flight.base)
        changed = replace(state, acked=site.serial if safe else state.acked)
        if changed != self.state:
            self.write(changed)

    def arrived(self, state: SyncState, flight: Flight) -> SyncState:
        """The state with what a bundle brought. What a later one brought before stays."""
        newer = {name for name, serial in state.there_serial.items() if serial > flight.serial}
        names = {name: digest for name, digest in flight.want.items() if name not in newer}
        self.note("confirmed", flight, images=len(flight.want))
        self.alarms.event("confirmed", serial=flight.serial, bundle=flight.digest)
        return replace(
            state,
            there={**state.there, **names},
            there_serial={**state.there_serial, **dict.fromkeys(names, flight.serial)},
            confirmed=self.clock(),
            confirmed_serial=max(state.confirmed_serial, flight.serial),
        )

    def have(self, want: Mapping[str, str]) -> dict[str, frozenset[str]]:
        """What each name means at the site: by what this sync brought; else by the bundles that the site has confirmed."""
        known = {name: frozenset({digest}) for name, digest in self.state.there.items()}
        if satisfied(want, known):
            return known
        out: dict[str, frozenset[str]] = {}
        confirmed = set(self.sites.known(self.site.name).confirmed)
        for entry in self.store.entries() if confirmed else ():
            if entry.digest in confirmed and (bundle := self.store.bundle(entry.digest)):
                for image in bundle.images:
                    out |= dict.fromkeys(image.names, digests_of(image))
        return {**out, **known}


def lose(site: SiteFile, store: Store, serial: int, observer: Observer) -> None:
    """Somebody knows that a bundle is lost: its content is sent again. NotFound if no such bundle is on its way; Locked while a run is under way."""
    ledger = Ledger(site, store, observer)
    with ledger.alone() as alone:
        if not alone:
            raise Locked(f"a run for {site.name} is under way", hint="wait for it to end, then run again")
        ledger.open()
        state = ledger.state
        lost = [each for each in state.flights if each.serial == serial]
        if not lost:
            known = ", ".join(str(each.serial) for each in state.flights) or "none"
            raise NotFound(f"bundle {serial} is not on its way to {site.name}", hint=f"on their way: {known}")
        left = tuple(each for each in state.flights if each.serial != serial)
        ledger.put(flights=left, waiting=f"bundle {serial} counts as lost: the next run sends its content again")
        ledger.note("lost", lost[0])


def flights_of_all(store: Store) -> set[Digest]:
    """The bundles that are on their way to any site: what comes back about them must be understood."""
    states = SyncStates(store.root)
    found = [states.get_or_empty(name) for name in states.names()]
    return {Digest(each.digest) for state in found for each in state.unconfirmed if each.digest}


def forget_site(store: Store, name: str) -> None:
    """Remove the state of a sync, and the bundles that it has here. UsageError while the site has a file; NotFound for one that was never synced."""
    if name in listed():
        raise UsageError(f"the site {name} has a site file", hint=f"remove {folders()[0]}/{name}.toml first")
    states = SyncStates(store.root)
    if name not in states.names():
        raise NotFound(f"no sync of a site {name} is known", hint="`transfer site ls` lists all")
    out = store.root / "out" / site_name(name)
    no_links(store.root, "out", f"out/{name}")
    if out.is_dir():
        shutil.rmtree(out)
    for path in (states.lock_path(name), states.folder / f"{name}.json"):
        path.unlink(missing_ok=True)
