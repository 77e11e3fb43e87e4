"""One run for a site that takes what another side offers: over SSH, from a folder, or from a web server."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from transfer.engines.transports import locate
from transfer.errors import NotNow, TransferError
from transfer.flows import roads
from transfer.flows import site as site_flow
from transfer.flows.arrive import ImportRequest, arrive_all
from transfer.flows.fetch import Files, fetch, small
from transfer.flows.import_bundle import Arrival, Target
from transfer.flows.offers import FILE, FILE_MAX, Offer, offers, parse_offers, sound_offers
from transfer.flows.remote import Connector
from transfer.flows.site_run import Outcome, SiteRun
from transfer.flows.spool import in_order
from transfer.folders import own_folder
from transfer.ship.folder import FolderDepot
from transfer.ship.gate import opens
from transfer.ship.https import WebFiles
from transfer.sites.site_file import Road
from transfer.store.entry import Role
from transfer.streams import publish


class Offering(Protocol):
    """The other side, as long as a run takes."""

    @property
    def files(self) -> Files: ...

    def offers(self) -> list[Offer]: ...

    def give(self, receipt: bytes) -> None:
        """Tell what this site has now, where that can be told."""
        ...


class Pull(SiteRun):
    """Take what is offered and not here, import it, and say so."""

    def _steps(self) -> Outcome:
        if not self._open():
            raise NotNow(f"the window is shut{opens(self._site.window, self._clock())}")
        with contextlib.ExitStack() as stack:
            road, other, offered = self._reached(stack)
            choice = site_flow.StoreChoice(self._store, True)
            if self._store.root.is_dir():
                other.give(site_flow.receipt(self._store, self._site.name, keep_name=True).encode())
            wanted = self._wanted(offered)
            self._ledger.put(contact=self._clock(), waiting="")
            taken, landed = 0, 0
            failed: TransferError | None = None
            for offer in wanted:
                try:
                    taken += self._fetch(offer, other, road)
                    landed += self._import(road, choice)
                except TransferError as error:
                    if roads.is_not_now(error):
                        raise
                    self._ledger.say(f"{offer.folder}: {error.message}")
                    failed = failed or error  # it is this bundle's: the others are tried
            if wanted:
                other.give(site_flow.receipt(self._store, self._site.name, keep_name=True).encode())
        counted = {**self.state.bytes, road.kind: self.state.bytes.get(road.kind, 0) + taken}
        self._ledger.put(bytes=counted, confirmed=self._clock() if landed else self.state.confirmed)
        if failed:
            raise failed
        waiting = [each.digest.short for each in self._store.entries() if each.role is Role.STAGED and not each.begun]
        text = f"{landed} bundle{'s' * (landed != 1)} taken and imported" if landed else "up to date"
        if waiting:
            text = f"bundle {', '.join(waiting[:3])} waits for others that it depends on"
        self._ledger.put(
            up_to_date=not waiting,
            behind=(self.state.behind or self._clock()) if waiting else 0.0,
            waiting=text if waiting else "",
        )
        self._after("imported")
        return Outcome(self._site.name, "shipped" if waiting else "up-to-date", text, size=taken)

    def _fetch(self, offer: Offer, other: Offering, road: Road) -> int:
        """One bundle, whole; bytes that were taken."""
        place = self._store.root / "in" / self._site.name
        own_folder(self._store.root, "in", f"in/{self._site.name}", private=True)
        taken = fetch(other.files, offer, place, self._observer, self._gate(road))
        where = other.files.where
        self._ledger.note("fetched", where=where, bundle=str(offer.digest), size=offer.size, road=road.kind)
        self._after("fetched")
        return taken

    def _reached(self, stack: contextlib.ExitStack) -> tuple[Road, Offering, list[Offer]]:
        """The first road that is there, the other side, and what it offers. NotNow if none is."""
        reasons = []
        for road in self._site.roads:
            with contextlib.ExitStack() as trial:
                try:
                    other = trial.enter_context(self._opened(road))
                    offered = other.offers()
                except TransferError as error:
                    if not roads.is_not_now(error):
                        raise
                    reasons.append(error.message)
                    continue
                stack.push(trial.pop_all())
                return road, other, offered
        raise NotNow("; ".join(reasons))

    def _opened(self, road: Road) -> contextlib.AbstractContextManager[Offering]:
        if road.kind == "ssh":
            return _over_ssh(road, self)
        return _from_web(road) if road.kind == "https" else _from_folder(road, self._site.name)

    def connector(self, road: Road) -> Connector:
        return roads.connector(road, self._gate(road), self._observer)

    def _wanted(self, offered: list[Offer]) -> list[Offer]:
        """What is offered and not imported here, or not all of it, in the order of the names."""
        known = [each for each in self._store.entries() if each.role in (Role.HELD, Role.STAGED) and not each.begun]
        held = {each.digest for each in known}
        found = [each for each in offered if each.digest not in held]
        if found:
            self._ledger.put(up_to_date=False, behind=self.state.behind or self._clock())
        return found

    def _import(self, road: Road, choice: site_flow.StoreChoice) -> int:
        """All that has come; how many bundles are in place. The first failure is raised when all have been tried."""
        place = self._store.root / "in" / self._site.name
        folders = in_order([each for each in place.iterdir() if (each / "index.json").is_file()])
        target = Target(locate(road.import_to), jobs=self._options.jobs)
        request = ImportRequest(target, retag=road.retag, stage=True)
        came = arrive_all(folders, request, (), choice, self._observer)
        for each in came:
            if each.is_done:
                shutil.rmtree(each.folder)
        failed = [error for each in came if (error := each.failure())]
        if failed:
            raise failed[0]
        return sum(isinstance(each.arrival, Arrival) for each in came)


@contextlib.contextmanager
def _over_ssh(road: Road, run: Pull) -> Iterator[Offering]:
    depot = run.connector(road).receiver()

    class OverSsh:
        files = depot

        def offers(self) -> list[Offer]:
            listed = [{"folder": a, "digest": b, "bytes": c} for a, b, c in depot.offers()]
            return sound_offers(listed, depot.where)

        def give(self, receipt: bytes) -> None:
            if "accept" in depot.features:
                depot.accept(receipt)

    try:
        yield OverSsh()
    finally:
        depot.close()


@contextlib.contextmanager
def _from_folder(road: Road, site: str) -> Iterator[Offering]:
    place = Path(road.to)
    if not place.is_dir():
        raise NotNow(f"{place} does not exist")

    class FromFolder:
        files = FolderDepot(place)

        def offers(self) -> list[Offer]:
            return offers(place)

        def give(self, receipt: bytes) -> None:
            with contextlib.suppress(TransferError, OSError):  # it may be read-only
                (place / "receipts").mkdir(exist_ok=True)
                publish(place / "receipts" / f"{site}.json", receipt)

    yield FromFolder()


@contextlib.contextmanager
def _from_web(road: Road) -> Iterator[Offering]:
    web = WebFiles(road.to)

    class FromWeb:
        files = web

        def offers(self) -> list[Offer]:
            return parse_offers(small(web, FILE, FILE_MAX), f"{web.where}/{FILE}")

        def give(self, receipt: bytes) -> None:
            return

    try:
        yield FromWeb()
    finally:
        web.close()
