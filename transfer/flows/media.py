"""Ship onto media: what fits where is planned before the first byte, what was written is read back before a medium is called done."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from transfer.bundle import recovery as rec
from transfer.bundle.medium import DOCUMENT_MAX, MEDIA, MEDIUM, MediaSet, Medium, parse_media
from transfer.bundle.reader import Bundle
from transfer.bundle.sums import SUMS
from transfer.errors import Damaged, FormatError, NoSpace, NotFound, TransferError, UsageError
from transfer.events import Advanced, Done, Event, Noted, Observer, Planned
from transfer.flows import recovery
from transfer.flows.dealing import Carrier, Room, Space, groups, spread
from transfer.flows.ship import File, Shipment, in_memory, name_of, size, sums_of
from transfer.ship.base import Depot
from transfer.ship.media import MediumDepot, is_mount_point, on_own_disk, room
from transfer.streams import publish, read_small
from transfer.work import Pool, ordered_map

STAGE = "media"
PLENTY = 1 << 20
"""Bytes that are left free on a medium, for its folders."""


@dataclass(frozen=True, slots=True)
class MediaPlan:
    """What goes where. `left` are files that fit on none of these media; the loss of a `risky` one could not be made up for."""

    carriers: tuple[Carrier, ...]
    common: tuple[File, ...]
    left: tuple[File, ...]
    known: MediaSet
    risky: tuple[Path, ...]

    @property
    def left_size(self) -> int:
        return sum(file.size for file in self.left)


@dataclass(frozen=True, slots=True)
class Written:
    """What came of one medium (bytes). `number`: which of the set it is."""

    folder: Path
    number: int
    files: int
    sent: int
    there: int
    seconds: float
    set_id: str = ""


@dataclass(frozen=True, slots=True)
class MediaDone:
    """What came of a run. `failed`: media that are not to be used, and why; `full`: the ids of those that were filled.

    `left`: files and bytes that are still to come.
    """

    written: tuple[Written, ...]
    failed: tuple[tuple[Path, TransferError], ...]
    full: frozenset[str]
    left: int
    left_size: int


class ToMedia:
    """One bundle onto the media of a set."""

    def __init__(self, bundle: Bundle, share: int, anew: bool, observer: Observer, *, any_folder: bool = False) -> None:
        """`any_folder`: what is named are folders, be they media or not."""
        self._any_folder = any_folder
        self.bundle, self._share, self._anew, self._observer = bundle, share, anew, observer
        self._last: MediaSet | None = None
        self.name = name_of(bundle)

    def plan(self, folders: Sequence[Path], *, dry: bool = False) -> MediaPlan:
        """Look at the media; only with `dry` nothing at all is written. UsageError for one with another bundle of this name, NoSpace if nothing at all fits on one."""
        if len({folder.resolve() for folder in folders}) < len(folders):
            raise UsageError("the same folder is named twice", hint="name each medium once")
        depots = {folder: MediumDepot(folder) for folder in folders}
        for folder in folders:
            self._is_medium(folder)
        on_them = {folder: self._read(folder / self.name / MEDIUM) for folder in folders}
        known = self._known(on_them)
        made = self._recovery(known.share, dry) if known.share else None
        common, packs = recovery.dealt(self.bundle, made)
        group_of = groups(made)
        if self._is_closed(known, packs, on_them):
            self._observer(Noted("the last set of media is complete: starting a new set"))
            known = self._fresh()
        media = {folder: self._medium(folder, on_them[folder], known) for folder in folders}
        for medium in media.values():
            known = known.with_medium(medium)
        carriers, left, risky = spread(self._rooms(media, depots, common, packs), packs, known, group_of, made)
        return MediaPlan(tuple(carriers), tuple(common), tuple(left), known, tuple(risky))

    def _is_medium(self, folder: Path) -> None:
        """NotFound for a mount point at which nothing is mounted: what is written there fills this host's own disk, and no stick."""
        if self._any_folder or not on_own_disk(folder):
            return
        known = self._last
        with contextlib.suppress(UsageError):
            known = known or self._read(self.bundle.folder / MEDIA)
        was = any(each.mounted and each.label == str(folder.absolute()) for each in (known.media if known else ()))
        if was or is_mount_point(folder):
            raise NotFound(
                f"nothing is mounted at {folder}: it is on this host's own disk",
                hint="mount the medium, then run the same command again; use --folder if an ordinary folder is intended",
            )
        self._observer(Noted(f"{folder} is on this host's own disk: it is an ordinary folder, not a medium"))

    def _recovery(self, share: int, dry: bool) -> rec.Recovery:
        made = recovery.read_recovery(self.bundle) if dry else recovery.make(self.bundle, share, self._observer)
        return made if made and made.share == share else recovery.foreseen(self.bundle, share)

    def _read(self, path: Path) -> MediaSet | None:
        """What a list of media says; None if there is none, or none of this program's."""
        try:
            found = parse_media(read_small(path, DOCUMENT_MAX), str(path))
        except (NotFound, FormatError):
            return None
        if found.bundle != self.bundle.manifest.digest:
            raise UsageError(
                f"{path.parent} belongs to another bundle, {found.bundle.short}",
                hint="use another medium, or remove that folder",
            )
        return found

    def _fresh(self) -> MediaSet:
        return MediaSet(self.bundle.manifest.digest, os.urandom(8).hex(), self._share)

    def _known(self, on_them: dict[Path, MediaSet | None]) -> MediaSet:
        """The set this run goes on with: the one remembered here or told by a medium; a new one if there is none."""
        if self._anew:
            return self._fresh()
        known = self._last
        if known is None:
            with contextlib.suppress(UsageError):
                known = self._read(self.bundle.folder / MEDIA)
        for found in on_them.values():
            own = found and found.medium(found.this)
            if found and known is None:
                known = replace(found, this="")
            elif found and known and own and found.id == known.id:
                known = known.with_medium(own)
        if known is None:
            return self._fresh()
        if self._share and self._share != known.share:
            self._observer(
                Noted(f"the set begun with --survive-loss {known.share}% is not continued: starting a new set")
            )
            return self._fresh()
        return known

    def _is_closed(self, known: MediaSet, packs: Sequence[File], on_them: dict[Path, MediaSet | None]) -> bool:
        """Whether the set has all files, and a medium that is not of it is to be filled."""
        stranger = any(found is None or found.id != known.id for found in on_them.values())
        return bool(known.media) and stranger and {file.name for file in packs} <= known.files

    def _medium(self, folder: Path, found: MediaSet | None, known: MediaSet) -> Medium:
        mine = known.medium(found.this) if found and found.id == known.id else None
        mounted = not on_own_disk(folder)
        return (
            replace(mine, mounted=mounted) if mine else Medium(os.urandom(6).hex(), str(folder.absolute()), (), mounted)
        )

    def _rooms(
        self,
        media: Mapping[Path, Medium],
        depots: Mapping[Path, Depot],
        common: Sequence[File],
        packs: Sequence[File],
    ) -> list[Room]:
        """Each medium with its room, what it has already, and what it would need for what every medium carries."""
        out: list[Room] = []
        spaces: dict[int, Space] = {}
        names = [file.name for file in (*common, *packs)]
        for folder, medium in media.items():
            free, unit, device = room(folder)
            space = spaces.setdefault(device, Space(free, unit))
            held = dict(zip(names, depots[folder].stat([f"{self.name}/{name}" for name in names]), strict=True))
            finished = {name: each.size for name, each in held.items() if each and each.finished}
            begun = {name: each.size for name, each in held.items() if each and not each.finished}
            there = {f.name for f in packs if f.name in medium.files or finished.get(f.name) == f.size}
            each_room = Room(folder, medium, space, there, begun)
            needed = sum(space.cost(file.size) for file in common if held[file.name] is None) + PLENTY
            space.free -= needed
            space.free -= sum(each_room.cost(f) for f in packs if f.name in there and f.name not in finished)
            out.append(each_room)
            if space.free < 0 and not finished and not begun:
                raise NoSpace(
                    f"{folder}: {size(needed)} are needed for the files that every medium carries, but only {size(free)} are free",
                    hint="free some space there, or use a larger medium",
                )
        return out

    def run(self, plan: MediaPlan) -> MediaDone:
        """Write all media of the plan, side by side; each is read back before it gets its index."""
        known = plan.known
        for carrier in plan.carriers:
            known = known.with_medium(carrier.medium)
        used = [each for each in plan.carriers if each.files or not (plan.left or known.files)]
        if not used:
            raise NoSpace(
                f"{plan.carriers[0].folder}: no room for any of the {len(plan.left)} files that are not written yet",
                hint="free some space there, or insert the next medium",
            )
        written: list[Written] = []
        failed: list[tuple[Path, TransferError]] = []
        each_has = sum(file.size for file in plan.common)
        self._observer(Planned(STAGE, sum(2 * (each.size + each_has) for each in used)))
        with Pool(len(plan.carriers), "medium") as pool:
            futures = [
                (each, pool.submit(lambda each=each: self._write(each, plan, known)))  # type: ignore[misc]
                for each in used
            ]
            for carrier, future in futures:
                try:
                    written.append(future.result())
                except TransferError as error:
                    failed.append((carrier.folder, error))
                    # what it should have carried is still to come
                    known = replace(known, media=tuple(m for m in known.media if m.id != carrier.medium.id))
        self._observer(Done(STAGE))
        self._remember(known)
        lost = [file for carrier in plan.carriers for file in carrier.files if carrier.folder in dict(failed)]
        left = {file.name: file for file in (*plan.left, *lost)}
        full = frozenset(each.medium.id for each in plan.carriers if each.folder not in dict(failed))
        return MediaDone(tuple(written), tuple(failed), full, len(left), sum(file.size for file in left.values()))

    def _remember(self, known: MediaSet) -> None:
        self._last, self._anew = known, False
        try:
            publish(self.bundle.folder / MEDIA, known.encode())
        except TransferError as error:
            self._observer(Noted(f"the list of written media is stored on the media only: {error.message}"))
            self._observer(Noted("  -> name one of these media together with the next one"))

    def _write(self, carrier: Carrier, plan: MediaPlan, known: MediaSet) -> Written:
        """One medium. Of the others of this run its list says nothing: they may yet fail."""
        others, common = {each.medium.id for each in plan.carriers}, plan.common
        media = (*(each for each in plan.known.media if each.id not in others), carrier.medium)
        told = in_memory(MEDIUM, replace(known, media=media, this=carrier.medium.id).encode())
        lies = [told, *(file for file in common[:-1] if file.name != SUMS), *carrier.files]
        files = [*lies, sums_of((*lies, common[-1])), common[-1]]
        shipment = Shipment(
            files,
            self.name,
            lambda: MediumDepot(carrier.folder),
            self._hear,
            1,
            str(carrier.folder),
            checked_later=True,
            before_index=lambda depot: self._read_back(shipment, depot, files[:-1]),
        )
        done = shipment.run(self.bundle.manifest.digest)
        number = known.number(carrier.medium.id)
        return Written(carrier.folder, number, done.files, done.sent, done.there, done.seconds, known.id[:8])

    def _hear(self, event: Event) -> None:
        """What several shipments say at once, as one stage."""
        if isinstance(event, Advanced):
            self._observer(Advanced(STAGE, event.count))
        elif not isinstance(event, Planned | Done):
            self._observer(event)

    def _read_back(self, shipment: Shipment, depot: Depot, files: Sequence[File]) -> None:
        """Every file, past the cache. What is wrong is written once more, and then all is read again: a medium that lies wraps around."""
        wrong = self._wrong(shipment, depot, files)
        if wrong:
            for file, _ in wrong:
                shipment.again(depot, file)
            wrong = self._wrong(shipment, depot, files)
        if wrong:
            raise Damaged(
                f"{shipment.place}: {len(wrong)} of {len(files)} files were read back other than they were written, twice "
                f"({wrong[0][0].name}: {wrong[0][1]}): the medium is failing or counterfeit",
                hint="do not use this medium; take another one and run the same command again",
            )

    def _wrong(self, shipment: Shipment, depot: Depot, files: Sequence[File]) -> list[tuple[File, str]]:
        assert isinstance(depot, MediumDepot)
        depot.settle()

        def look(file: File) -> str:
            fault = depot.check(f"{shipment.folder}/{file.name}", file.digest, file.size)
            self._observer(Advanced(STAGE, file.size))
            return fault

        with Pool(2, "back") as pool:
            faults = list(ordered_map(look, files, pool, 3))
        return [(file, fault) for file, fault in zip(files, faults, strict=True) if fault]
