"""One run of a site's sync: look at what is, do what is lacking, and note how far it came. Killed anywhere, the next run goes on.

The steps are those of `sync_plan`; each ends with the state published, and each can be done again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from transfer.bundle.library import BundleList
from transfer.bundle.reader import Bundle
from transfer.errors import Damaged, MissingPart, NotNow, RolledBack, TransferError, UsageError
from transfer.events import Advanced, Event, Observer, silent
from transfer.flows import export as exporting
from transfer.flows import roads
from transfer.flows import site as site_flow
from transfer.flows.ledger import flights_of_all
from transfer.flows.site_run import MediumWanted, Outcome, SiteRun
from transfer.flows.sync_plan import Facts, Step, plan, with_flights
from transfer.flows.verify import check
from transfer.flows.want import Wanted, look_up, satisfied
from transfer.folders import own_folder
from transfer.model import Digest, familiar
from transfer.ship.gate import opens
from transfer.sites.arrived import folder_name
from transfer.sites.site_file import Road
from transfer.sites.sync_state import Flight
from transfer.store.entry import Role
from transfer.store.upkeep import prune
from transfer.streams import publish

PROGRESS_SECONDS = 5.0
"""So often the bytes of a shipment are written down for `status`."""
STEPS_MAX = 50


class Sync(SiteRun):
    """One run for a site that is sent to."""

    _asked: frozenset[int] = frozenset()
    _left_out: frozenset[str] = frozenset()
    _deferred: TransferError | None = None

    @property
    def _out(self) -> Path:
        return self._store.root / "out" / self._site.name

    def foresee(self) -> tuple[Step, Wanted, Facts]:
        """What a run would do first. Nothing is written, and no road is tried."""
        roads.sound(self._site)
        self._ledger.look()
        wanted = look_up(self._site.picks, self._observer)
        wanted.source.close()
        facts = Facts(wanted.names, self._ledger.have(wanted.names), self._open(), self._answering())
        return plan(self.state, facts), wanted, facts

    # the run

    def _steps(self) -> Outcome:
        self._ledger.take_receipts()
        self._ledger.settle()
        self._after("receipts")
        wanted = look_up(self._site.picks, self._observer)
        try:
            self._ledger.put(
                want=dict(wanted.names),
                missing=tuple(each.label for each in wanted.missing),
                waiting="",
            )
            for _ in range(STEPS_MAX):
                want = {name: digest for name, digest in wanted.names.items() if name not in self._left_out}
                have = self._ledger.have(want)
                coming = with_flights(have, self.state.flights) if self._site.delta.one_way else have
                there = satisfied(want, coming)
                behind = 0.0 if there else self.state.behind or self._clock()
                if (self.state.up_to_date, self.state.behind) != (there, behind):
                    self._ledger.put(up_to_date=there, behind=behind)
                step = plan(self.state, Facts(want, have, self._open(), self._answering(), self._asked))
                ended = self._do(step, wanted, want)
                self._after(step)
                if ended:
                    return ended
            raise MissingPart(f"{self._site.name}: the run came to no end", hint="report this as a bug")
        finally:
            wanted.source.close()

    def _do(self, step: Step, wanted: Wanted, want: Mapping[str, str]) -> Outcome | None:
        if step in (Step.UP_TO_DATE, Step.AWAIT):
            self._tidy()
            if self._deferred:
                raise self._deferred
            if self._options.full:
                why = "nothing is lacking" if step is Step.UP_TO_DATE else "all that is lacking is on its way"
                self._ledger.say(f"--full has no effect: {why}")
            latest = max(self.state.flights, key=lambda each: each.serial, default=None)
            waits = f"bundle {latest.serial} is on its way by {latest.road}; its receipt has not come" if latest else ""
            self._ledger.put(waiting=waits if step is Step.AWAIT else "")
            what = "shipped" if step is Step.AWAIT else "up-to-date"
            return Outcome(self._site.name, what, waits or "up to date", serial=self.state.serial)
        if step is Step.SHUT:
            raise NotNow(f"the window is shut{opens(self._site.window, self._clock())}")
        if step is Step.DROP:
            self._drop()
        elif step is Step.BEGIN:
            serial = self.state.serial + 1
            flight = Flight(serial, folder_name(self._site.name, serial), want=dict(want), since=self._clock())
            self._ledger.put(serial=serial, under_way=flight)
        elif step is Step.EXPORT:
            self._export(wanted, want)
        elif step is Step.SHIP:
            self._ship()
        else:
            self._land()
        return None

    def _answering(self) -> frozenset[str]:
        return frozenset(road.kind for road in self._site.roads if road.answers)

    # making a bundle

    def _drop(self) -> None:
        made = self.state.under_way
        self._ledger.put(under_way=None)
        if made:
            shutil.rmtree(self._out / made.folder, ignore_errors=True)

    def _export(self, wanted: Wanted, want: Mapping[str, str]) -> None:
        made = self.state.under_way
        assert made
        own_folder(self._store.root, "out", f"out/{self._site.name}", private=True)
        folder = self._out / made.folder
        base, why = self._base()
        digests = tuple(sorted(str(each.manifest.digest) for each in base))
        if (folder / "index.json").exists() and (digests != made.base or dict(made.want) != dict(want)):
            # finished by a run that was killed before it could note so, and since then not wanted
            shutil.rmtree(folder)
        made = replace(made, want=dict(want), base=digests, full_because=why)
        self._ledger.put(under_way=made)
        done = self._exported(wanted, folder, base)
        fresh = not done.already and not done.bytes_reused
        choice = site_flow.StoreChoice(self._store, True)
        site_flow.sent(choice, folder, done.digest, base, [self._site.name], self._observer, fresh=fresh)
        if made.digest and made.digest != str(done.digest) and made.road:
            self._ledger.say(f"bundle {made.serial} was lost while it was sent, and cannot be made again as it was")
            self._drop()  # its number is not used for other content
            return
        names = {familiar(name) for image in done.images for name in image.names}
        self._left_out |= made.want.keys() - names
        if self._left_out:
            self._ledger.put(missing=tuple(sorted({*self.state.missing, *self._left_out})))
            made = replace(made, want={name: digest for name, digest in made.want.items() if name in names})
            if satisfied(made.want, self._ledger.have(made.want)):
                self._drop()  # only what could not be exported was lacking
                return
        made = replace(made, stage="exported", digest=str(done.digest), size=done.bytes_folder)
        full = (
            {"fulls": {**self.state.fulls, why: self.state.fulls.get(why, 0) + 1}, "full_at": self._clock()}
            if why
            else {}
        )
        self._ledger.put(under_way=made, **full)
        self._ledger.note("exported", made, images=len(made.want), message=f"a full bundle: {why}" if why else "")

    def _exported(self, wanted: Wanted, folder: Path, base: Sequence[Bundle]) -> exporting.Exported:
        """The bundle; one that a killed run finished, and that is not this one, is made again."""

        def export() -> exporting.Exported:
            return exporting.export(
                wanted.source,
                wanted.images,
                folder,
                level=self._site.delta.level,
                jobs=self._options.jobs,
                observer=self._observer,
                base=base,
                gzip=self._site.delta.gzip,
                strict=not all(pick.skip for pick in self._site.picks),
            )

        if not (folder / "index.json").exists():
            return export()
        try:
            return export()
        except (UsageError, Damaged, MissingPart):
            shutil.rmtree(folder)
            return export()

    def _base(self) -> tuple[list[Bundle], str]:
        """The bundles to build on, and why there are none."""
        if self._options.full or not self._site.delta.confirmed:
            return [], "asked"
        every = self._site.delta.full_every
        if every and self.state.full_at and self._clock() - self.state.full_at > every:
            return [], "age"
        shelf = BundleList((), [self._store])
        wanted = set(self._ledger.sites.known(self._site.name).confirmed)
        if self._site.delta.one_way:
            wanted |= {Digest(each.digest) for each in self.state.flights}
        if not wanted:
            return [], "base-unknown" if self.state.fulls else "first"
        found = []
        for digest in [entry.digest for entry in self._store.entries() if entry.digest in wanted]:
            bundle = shelf.bundle(digest)
            try:
                if bundle:
                    bundle.catalog()
                    found.append(bundle)
            except TransferError as error:
                self._ledger.say(f"bundle {digest.short} is not built on: {error.message}")
        return found, "" if found else "base-unknown"

    # sending it

    def _ship(self) -> None:
        made = self.state.under_way
        assert made
        if not (self._out / made.folder / "index.json").exists():
            self._ledger.say(f"the folder of bundle {made.serial} is gone: the bundle is made again")
            self._ledger.put(under_way=replace(made, stage="exporting"))
            return
        road = self._road()
        if made.stage != "shipping" or (made.road, made.to) != (road.kind, road.to):
            made = replace(made, stage="shipping", road=road.kind, to=road.to, sent=0)
            self._ledger.put(under_way=made, contact=self._clock())
        gate = self._gate(road)
        try:
            with Bundle(self._out / made.folder, library=BundleList((), [self._store])) as bundle:
                sent = roads.send(bundle, road, gate, self._counting(made))
        except (MissingPart, Damaged) as error:
            if check(self._out / made.folder, deep=False, jobs=0, observer=silent).sound:
                raise
            self._ledger.say(f"bundle {made.serial} was damaged here, and is made again: {error.message}")
            shutil.rmtree(self._out / made.folder)
            self._ledger.put(under_way=replace(made, stage="exporting"))
            return
        counted = {**self.state.bytes, road.kind: self.state.bytes.get(road.kind, 0) + sent.sent}
        if sent.left:
            self._ledger.put(bytes=counted)
            self._ledger.note(
                "shipped",
                made,
                road=road.kind,
                where=", ".join(sent.media),
                message=f"{sent.left} bytes are still to come",
            )
            self._ledger.alarms.event("medium-wanted", serial=made.serial)
            raise MediumWanted(f"{sent.left} bytes of bundle {made.serial} are still to come: insert the next medium")
        made = replace(made, stage="shipped", shipped=self._clock(), sent=made.size)
        with self._store.adding():
            self._ledger.sites.note(self._site.name, Digest(made.digest), "shipped")
        self._ledger.put(
            under_way=None, flights=(*self.state.flights, made), bytes=counted, contact=self._clock(), waiting=""
        )
        self._ledger.note("shipped", made, road=road.kind, where=", ".join(sent.media) or road.to)
        if sent.media:
            self._ledger.alarms.event("medium-done", serial=made.serial, media=list(sent.media))

    def _road(self) -> Road:
        """The first that is there. NotNow if none is."""
        reasons: dict[str, str] = {}
        since = max(self.state.confirmed, self.state.behind)
        for road in self._site.roads:
            if road.after and self._clock() - since < road.after:
                continue
            why = roads.away(road, self._gate(road), self._observer)
            if not why:
                return road
            if road.kind == "medium":
                self._ledger.alarms.event("medium-wanted", serial=self.state.serial)
            reasons[why] = roads.CURES[road.kind]
        hint = "; ".join(dict.fromkeys(reasons.values()))
        raise NotNow(
            "; ".join(reasons) or "no road is to be used yet", hint=hint and f"{hint}. The next run tries again"
        )

    def _counting(self, made: Flight) -> Observer:
        """Writes down how far a shipment is, for `status`."""
        sent, told = 0, time.monotonic()

        def hear(event: Event) -> None:
            nonlocal sent, told
            if isinstance(event, Advanced) and event.stage in ("ship", "media"):
                sent += event.count
                if time.monotonic() - told > PROGRESS_SECONDS:
                    told = time.monotonic()
                    self._ledger.put(under_way=replace(made, sent=min(sent, made.size)), contact=self._clock())
            self._observer(event)

        return hear

    def _land(self) -> None:
        """Import over there what has come, if that is done from here, and take the receipt. A failure is raised when all else is done."""
        roads_there = [road for road in self._site.roads if road.answers]
        kinds = {road.kind for road in roads_there}
        for flight in [each for each in self.state.flights if each.road in kinds and each.serial not in self._asked]:
            road = next((each for each in roads_there if each.to == flight.to), roads_there[0])
            self._asked |= {flight.serial}
            try:
                if road.import_ and not flight.imported:
                    self._import_there(flight, road)
                self._take_receipt(road)
            except TransferError as error:
                if roads.is_not_now(error) or isinstance(error, RolledBack):
                    raise
                self._ledger.say(f"bundle {flight.serial}: {error.message}")
                self._deferred = self._deferred or error
            self._ledger.put(contact=self._clock())
        for flight in [each for each in self.state.flights if each.imported]:
            # over there it is in place; only that it can be built on was not confirmed
            self._ledger.write(self._ledger.arrived(replace(self.state, flights=self._without(flight)), flight))

    def _import_there(self, flight: Flight, road: Road) -> None:
        """Have it imported. One that builds on what is not there any more is made again, from what the site says it has."""
        try:
            roads.import_there(flight.folder, road, self._gate(road), self._observer)
        except TransferError as error:
            if roads.is_not_now(error):
                raise
            self._take_receipt(road)
            if flight.serial not in {each.serial for each in self.state.flights}:
                return  # it was imported before, by a run that was killed
            confirmed = {str(each) for each in self._ledger.sites.known(self._site.name).confirmed}
            if error.exit_code != MissingPart.exit_code or set(flight.base) <= confirmed:
                raise
            self._ledger.say(f"bundle {flight.serial} builds on what the site has lost: its content is sent again")
            self._ledger.note("lost", flight)
            self._ledger.put(flights=self._without(flight))
            return
        landed = replace(flight, imported=True)
        self._ledger.put(flights=tuple(landed if each == flight else each for each in self.state.flights))
        self._ledger.note("imported", flight, road=road.kind, where=road.to)

    def _take_receipt(self, road: Road) -> None:
        data = roads.receipt_there(self._site.name, self.state.acked, road, self._gate(road), self._observer)
        if data is None:
            return
        try:
            self._ledger.accept(data, road.to)
        except RolledBack as error:
            place = self._store.root / "receipts" / "in"
            own_folder(self._store.root, "receipts", "receipts/in", private=True)
            path = place / f"{self._site.name}.json.refused"
            publish(path, data)
            raise RolledBack(
                error.message,
                hint=f"if the store there was replaced by a new one: transfer receipt accept --restarted {path}",
            ) from error
        self._ledger.settle()

    def _without(self, flight: Flight) -> tuple[Flight, ...]:
        return tuple(each for each in self.state.flights if each.serial != flight.serial)

    # afterwards

    def _tidy(self) -> None:
        """What is not needed any more: old bundles here and over there, where that is allowed, and folders of bundles that have arrived."""
        busy = {each.folder for each in self.state.unconfirmed}
        done = sorted(each.name for each in self._out.iterdir() if each.name not in busy) if self._out.is_dir() else []
        gone = done[: max(0, len(done) - self._site.keep.out)]
        if not gone:
            return
        needed = site_flow.all_confirmed(self._store) | flights_of_all(self._store)
        try:
            prune(self._store, self._site.keep.here, needed, roles={Role.SENT})
        except TransferError as error:
            raise type(error)(
                f"{self._site.name} is up to date, but old bundles could not be removed from this store: {error.message}",
                hint=error.hint or "run: transfer store check",
            ) from error
        answering = [road for road in self._site.roads if road.answers]
        if self._site.keep.there and answering and self._open():
            road = answering[0]
            try:
                if roads.prune_there(self._site.keep.there, road, self._gate(road), self._observer):
                    self._take_receipt(road)
            except TransferError as error:
                if not roads.is_not_now(error):
                    raise
        for name in gone:
            shutil.rmtree(self._out / name)
