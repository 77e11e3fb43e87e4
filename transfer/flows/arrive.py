"""A bundle that has arrived somewhere, into the engine and the store: from a folder, the media of a set, or all that a spool holds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from transfer.bundle.library import BundleList
from transfer.bundle.reader import Bundle
from transfer.errors import (
    Damaged,
    MissingPart,
    SomeImagesFailed,
    TransferError,
    UsageError,
    from_os_error,
    one_failure,
)
from transfer.events import Noted, Observer
from transfer.flows import history, spool
from transfer.flows import import_bundle as importing
from transfer.flows import site as site_flow
from transfer.flows.import_bundle import Arrival, Target
from transfer.flows.naming import Named, Rename
from transfer.flows.reassemble import Reassembly, reassembled
from transfer.flows.select import by_digest, choose, retagging
from transfer.folders import inner_folder
from transfer.model import Digest, Image
from transfer.sites import arrived
from transfer.store.store import Store

DONE = ".done"


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What is to be imported, and how. `name`: what the one image is to be called, as --to says it.

    `in_turn`: nobody looks: a bundle of a sync that comes after a newer one moves no names back.
    """

    target: Target
    patterns: tuple[str, ...] = ()
    retag: tuple[str, ...] = ()
    stage: bool = False
    repair: tuple[Path, ...] = ()
    name: str = ""
    in_turn: bool = False


@dataclass(frozen=True, slots=True)
class Staged:
    """A delta that is kept until the bundles have come that it waits for."""

    folder: Path
    digest: Digest
    waits: tuple[Digest, ...]


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What an import would do."""

    named: tuple[Named, ...]
    missing: tuple[int, int, int]
    """Packs that are not here, of how many, and their bytes."""


def arrive(
    places: Sequence[Path], request: ImportRequest, shelf: BundleList, choice: site_flow.StoreChoice, observer: Observer
) -> Arrival | Staged:
    """One bundle, from wherever it lies. What came of it is noted in the store's history; so is a refusal."""
    try:
        if request.in_turn:
            request = _in_turn(places[0], request, choice.store, observer)
        with reassembled(places, shelf, choice, observer) as found:
            found.repair(request.repair)
            chosen = choose(found.bundle.images, request.patterns)
            found.complete(chosen)
            try:
                arrival = _arrive(found, request, shelf, choice, observer)
            except MissingPart:
                if not request.stage or not found.bundle.is_delta:
                    raise
                gone = found.bundle.missing_packs()
                if gone:
                    path = found.bundle.path_of(gone[0])
                    raise MissingPart(
                        f"{path} is missing or has the wrong size", hint="copy it from the original bundle"
                    ) from None
                return _stage(found.bundle, choice, observer)
            found.settle()
            _note(choice, places[0], found.bundle, arrival)
            if choice.store and choice.store.root.is_dir() and not own_failure(arrival):
                arrived.remember(choice.store.root, places[0].absolute().name)
            return arrival
    except TransferError as error:
        if not isinstance(error, MissingPart | UsageError) and choice.store and choice.store.root.is_dir():
            told = history.Event(history.now(), "refused", where=str(places[0]), slug=error.slug, message=error.message)
            history.note(choice.store.root, told)
        raise


def _note(choice: site_flow.StoreChoice, place: Path, bundle: Bundle, arrival: Arrival) -> None:
    if choice.store is None or not choice.store.root.is_dir():
        return
    landed = [each for each in arrival.loaded.landed if each.status == "imported"]
    if not landed and not arrival.loaded.failed:
        return
    failed = f"{len(arrival.loaded.failed)} failed" if arrival.loaded.failed else ""
    packed = sum(each.size for each in bundle.header.packs)
    told = history.Event(
        history.now(), "imported", "", str(bundle.manifest.digest), 0, len(landed), packed, "", str(place), "", failed
    )
    history.note(choice.store.root, told)


def foresee(
    places: Sequence[Path], request: ImportRequest, shelf: BundleList, choice: site_flow.StoreChoice, observer: Observer
) -> Foreseen:
    """The images and the names they would get. Nothing is changed."""
    with reassembled(places, shelf, choice, observer) as found:
        found.repair(request.repair)
        named, rename = _naming(choose(found.bundle.images, request.patterns), request)
        images = importing.foresee(found.bundle, named, rename, request.target, observer)
        gone = found.bundle.missing_packs()
        return Foreseen(tuple(images), (len(gone), len(found.bundle.header.packs), sum(blob.size for blob in gone)))


def _naming(chosen: Sequence[Image], request: ImportRequest) -> tuple[list[Image], Rename]:
    """The images, those renamed that are meant by a digest or by --to, and what becomes of the others' names."""
    if request.name:
        if len(chosen) != 1:
            raise UsageError(
                f"--to names one image ({request.name!r:.100}), but {len(chosen)} images are chosen",
                hint="name the image after the bundle; or leave the name out of --to and use --retag OLD=NEW",
            )
        return [replace(chosen[0], names=(request.name,))], retagging(())
    images, rules = by_digest(request.retag, chosen)
    return images, retagging(rules, images)


def _arrive(
    found: Reassembly, request: ImportRequest, shelf: BundleList, choice: site_flow.StoreChoice, observer: Observer
) -> Arrival:
    """Import; where damage was met and there are recovery files, make the packs anew and go on."""

    def once() -> Arrival:
        chosen, rename = _naming(choose(found.bundle.images, request.patterns), request)
        return importing.import_bundle(
            found.bundle, chosen, rename, request.target, shelf=shelf, choice=choice, observer=observer
        )

    def mended() -> bool:
        """Whether what was met is not met again: a bundle in the store that gave false chunks gives none any more, or packs were made anew."""
        false = choice.store.marks.disowned_now if choice.store else set()
        for digest in sorted(false):
            observer(
                Noted(
                    f"bundle {digest.short} in the store has chunks that do not match their names; that bundle is not used"
                )
            )
        again = bool(false)
        false.clear()
        return again or found.mend()

    try:
        arrival = once()
        spoiled = any(isinstance(each.error, Damaged) for each in arrival.loaded.failed)
        return once() if spoiled and mended() else arrival
    except Damaged:
        if not mended():
            raise
        return once()


def _stage(opened: Bundle, choice: site_flow.StoreChoice, observer: Observer) -> Staged:
    site_flow.need_store(choice)
    adopted, failed = importing.stage(opened, choice, observer)
    if failed or adopted is None:
        raise failed or UsageError("there is no store to keep it in", hint="name one with --store DIR")
    return Staged(opened.folder, opened.manifest.digest, tuple(opened.header.prerequisites.bundles))


def store_failure(arrival: Arrival) -> TransferError | None:
    """That the store could not take the bundle, though the images are in place."""
    if arrival.store_error is None:
        return None
    return type(arrival.store_error)(
        f"the images are in place, but the store could not take the bundle: {arrival.store_error.message}",
        hint=arrival.store_error.hint or "run the same command again, or go without: --no-store",
    )


def own_failure(arrival: Arrival) -> TransferError | None:
    """What is to be told of the bundle itself: the store's failure, or that some images did not make it."""
    failed = arrival.loaded.failed
    if not failed:
        return store_failure(arrival)
    lost = f", and the store could not take the bundle: {arrival.store_error.message}" if arrival.store_error else ""
    return SomeImagesFailed(
        f"{len(failed)} of {len(failed) + len(arrival.loaded.landed)} images could not be imported{lost}",
        hint="the other images are in place; run the same command again for the rest",
    )


def failures(arrival: Arrival) -> TransferError | None:
    """What is to be told of an arrival when all is done: of the bundle itself, else of those that were staged and came along."""
    own = own_failure(arrival)
    failed = sum(len(each.failed) for each in arrival.completed)
    if own or not failed:
        return own
    return SomeImagesFailed(
        f"{failed} of the images of staged bundles could not be imported",
        hint="the images of this bundle are in place; the messages above say what to do about the staged ones",
    )


@dataclass(frozen=True, slots=True)
class Came:
    """What became of one folder of a spool or a medium."""

    folder: Path
    arrival: Arrival | Staged | None = None
    error: TransferError | None = None

    @property
    def is_done(self) -> bool:
        """Whether its folder is needed no more: the bundle is in place, or the store keeps it until it can be."""
        return not (self.error or (isinstance(self.arrival, Arrival) and own_failure(self.arrival)))

    def failure(self) -> TransferError | None:
        """What is to be told of it: of the bundle, of its images, or of staged bundles that came along."""
        return self.error or (failures(self.arrival) if isinstance(self.arrival, Arrival) else None)


def arrive_all(
    folders: Sequence[Path],
    request: ImportRequest,
    seeds: Sequence[Path],
    choice: site_flow.StoreChoice,
    observer: Observer,
) -> list[Came]:
    """Each bundle in turn. What is wrong with one is that one's, and the others are tried; an older one of a sync moves no names back."""
    out = []
    for folder in folders:
        try:
            spool.has_come(folder)
            own = replace(request, in_turn=True)
            arrival = arrive([folder], own, site_flow.library(seeds, choice.store), choice, observer)
            error = store_failure(arrival) if isinstance(arrival, Arrival) else None
            out.append(Came(folder, arrival, error))
            if error:
                observer(Noted(f"{folder.name}: {error.message}"))
        except Exception as unknown:  # noqa: BLE001 - whatever it is, it is this bundle's, and the others are tried
            error = one_failure(unknown, str(folder))
            observer(Noted(f"{folder.name}: {error.message}"))
            out.append(Came(folder, error=error))
    return out


def _in_turn(folder: Path, request: ImportRequest, store: Store | None, observer: Observer) -> ImportRequest:
    """The request; names stay where they are for a bundle that comes after a newer one of the same sync."""
    last = arrived.overtaken_by(store.root, folder.absolute().name) if store else 0
    if not last:
        return request
    observer(
        Noted(
            f"{folder.name} is older than bundle {last}, which came before: names that other images have are not moved"
        )
    )
    return replace(request, target=replace(request.target, late=True))


def put_away(place: Path, came: Sequence[Came], how: str) -> None:
    """What is done with folders of a spool that were imported: "leave" them, "move" them into .done, or "remove" them.

    The spool may belong to another user, who is not trusted with where folders go: no link of his is followed.
    """
    done = [each for each in came if each.is_done]
    if how == "leave" or not done:
        return
    failed: TransferError | None = None
    with inner_folder(place, DONE) as (outer, inner):
        for each in done:
            name = each.folder.name
            try:
                if os.path.lexists(place / DONE / name):
                    shutil.rmtree(name, dir_fd=inner)
                os.rename(name, name, src_dir_fd=outer, dst_dir_fd=inner)
                if how == "remove":
                    shutil.rmtree(name, dir_fd=inner)
            except OSError as error:
                failed = from_os_error(error, f"moving {each.folder} into {place / DONE}")
    if failed:
        raise failed
