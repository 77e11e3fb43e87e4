"""Ship into a spool that something else empties, such as a data diode: nothing is asked of the other side, nothing is looked up later."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from transfer.bundle import recovery as rec
from transfer.bundle.medium import AGAIN
from transfer.bundle.reader import Bundle
from transfer.errors import MissingPart, NotFound, TransferError
from transfer.events import Observer
from transfer.flows import parity
from transfer.flows.gather import bundles_in
from transfer.flows.ship import File, Shipment, Shipped, files_of, in_memory
from transfer.ship.base import Depot
from transfer.ship.folder import FolderDepot
from transfer.ship.throttled import Bucket, Throttled

PREFIX = "spool:"


def fill(bundle: Bundle, place: Path, share: int, limit: int, observer: Observer) -> Shipped:
    """All files, each under its name when it is whole: what tells of the bundle first, and once more at the end. NotFound for no folder.

    A file that was taken away meanwhile is written again by the next run: there is no answer that it arrived.
    """
    if not place.is_dir():
        raise NotFound(f"{place} is not there", hint="name the folder that the link takes files from")
    made = parity.make(bundle, share, observer) if share else None
    bucket = Bucket(limit) if limit else None

    def connect() -> Depot:
        depot: Depot = FolderDepot(place)
        return Throttled(depot, bucket) if bucket else depot

    shipment = Shipment(
        list(_in_order(bundle, made)), bundle.folder.resolve().name, connect, observer, 1, str(place), one_way=True
    )
    return shipment.run(bundle.manifest.digest)


def _in_order(bundle: Bundle, made: rec.Recovery | None) -> Iterator[File]:
    """First what tells of it, then the packs, then what tells of it again."""
    packs = {blob.path for blob in bundle.header.packs}
    files = files_of(bundle)
    first = [file for file in files if file.name not in packs]
    if made:
        first.insert(-1, in_memory(rec.NAME, made.encode()))
    yield from first
    yield from (file for file in files if file.name in packs)
    for part in (part for group in made.groups for part in group.recovery) if made else ():
        yield File(part.path, part.digest, part.size, bundle.folder / part.path)
    for file in first:
        yield replace(file, name=f"{AGAIN}/{file.name}")


def arrived(place: Path) -> list[Path]:
    """The bundles that have come, oldest first: one that builds on another comes after it. NotFound if there is no such folder."""
    if not place.is_dir():
        raise NotFound(f"{place} is not there", hint="name the folder in which the link leaves files")
    begun = {each for each in place.iterdir() if (each / "blobs").is_dir() or (each / AGAIN).is_dir()}
    return sorted(begun | set(bundles_in(place)), key=_created)


def has_come(folder: Path) -> None:
    """MissingPart if not even what tells of a bundle has come whole."""
    places = [folder, folder / AGAIN]
    for each in places:
        with contextlib.suppress(TransferError, OSError):
            Bundle(each, places=places)
            return
    raise MissingPart(
        f"{folder}: what tells of this bundle has not come whole yet", hint="run again when more has arrived"
    )


def _created(folder: Path) -> tuple[int, str]:
    for each in (folder, folder / AGAIN):
        with contextlib.suppress(TransferError):
            return Bundle(each, places=[folder, folder / AGAIN]).header.created, folder.name
    return 0, folder.name
