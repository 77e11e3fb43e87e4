"""Ship into a spool that something else empties, such as a data diode: nothing is asked of the other side, nothing is looked up later."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from transfer.bundle.medium import AGAIN
from transfer.bundle.reader import Bundle
from transfer.errors import FormatError, MissingPart, NotFound, TransferError
from transfer.events import Observer
from transfer.flows import recovery
from transfer.flows.reassemble import bundles_in
from transfer.flows.ship import Shipment, Shipped, name_of
from transfer.model import Digest
from transfer.ship.arrival import mark_arrival
from transfer.ship.base import Depot
from transfer.ship.folder import FolderDepot
from transfer.ship.throttled import Pacer, Throttled, TokenBucket
from transfer.sites.arrived import series
from transfer.streams import parse_object, read_small


def fill(
    bundle: Bundle, place: Path, share: int, limit: int, observer: Observer, pacer: Pacer | None = None
) -> Shipped:
    """All files, each under its name when it is whole: what tells of the bundle first, and once more at the end. NotFound for no folder.

    A file that was taken away meanwhile is written again by the next run: there is no answer that it arrived.
    """
    if not place.is_dir():
        raise NotFound(f"{place} does not exist", hint="name the folder that the link takes files from")
    made = recovery.make(bundle, share, observer) if share else None
    bucket = pacer or (TokenBucket(limit) if limit else None)

    def connect() -> Depot:
        depot: Depot = FolderDepot(place)
        return Throttled(depot, bucket) if bucket else depot

    telling, shared = recovery.dealt(bundle, made)
    once_more = [replace(file, name=f"{AGAIN}/{file.name}") for file in telling]
    files = [*telling, *shared, *once_more]
    shipment = Shipment(files, name_of(bundle), connect, observer, 1, str(place), one_way=True)
    done = shipment.run(bundle.manifest.digest)
    mark_arrival(place)
    return done


def arrived(place: Path) -> list[Path]:
    """The bundles that have come, oldest first: one that builds on another comes after it. NotFound if there is no such folder."""
    if not place.is_dir():
        raise NotFound(f"{place} does not exist", hint="name the folder in which the link leaves files")
    begun = {each for each in place.iterdir() if (each / "blobs").is_dir() or (each / AGAIN).is_dir()}
    return in_order(sorted(begun | set(bundles_in(place))))


def in_order(folders: Sequence[Path]) -> list[Path]:
    """Bundle folders: what builds on another comes after it, and what a sync made comes in the order in which it was made."""
    plain = [each for each in folders if not each.name.startswith(".")]  # such as AppleDouble files and .done
    made = {each: _created(each) for each in plain}
    first: dict[str, int] = {}
    for each in plain:
        series = _series(each.name)[0]
        first[series] = min(first.get(series, made[each]), made[each])
    ordered = sorted(plain, key=lambda each: (first[_series(each.name)[0]], *_series(each.name), made[each]))
    return _in_order({folder: _says(folder) for folder in ordered})


def _series(name: str) -> tuple[str, int]:
    """The sync that made a bundle, and its number there; of others the name, and 0."""
    return series(name) or (name, 0)


def _in_order(found: Mapping[Path, tuple[Digest, frozenset[Digest]] | None]) -> list[Path]:
    """What builds on nothing that is to come, first; of several that do so, in the order given."""
    left = dict(found)
    out: list[Path] = []
    while left:
        coming = {said[0] for said in left.values() if said}
        ready = [folder for folder, said in left.items() if not (said and said[1] & coming)] or [next(iter(left))]
        out += ready
        for folder in ready:
            del left[folder]
    return out


def _says(folder: Path) -> tuple[Digest, frozenset[Digest]] | None:
    """A bundle's digest, and the bundles it says it builds on; None if what tells of it has not come whole. Nothing else of it is kept."""
    bundle = _opened(folder)
    if bundle is None:
        return None
    digest = bundle.manifest.digest
    return digest, frozenset(bundle.header.prerequisites.bundles) - {digest}


def has_come(folder: Path) -> None:
    """MissingPart if not even what tells of a bundle has come whole; FormatError if it has, and is refused."""
    if _opened(folder) is None:
        _refused(folder)
        raise MissingPart(
            f"{folder}: the index of this bundle has not arrived completely yet",
            hint="run the same command again when more has arrived",
        )


def _refused(folder: Path) -> None:
    """FormatError if one copy of what tells of a bundle is whole, so that no further file can make it right."""
    for each in (folder, folder / AGAIN):
        try:
            parse_object(read_small(each / "index.json"), "index.json")
            parse_object(read_small(each / "oci-layout"), "oci-layout")
        except (TransferError, OSError):
            continue  # cut off where the link is writing
        try:
            Bundle(each, places=[folder, folder / AGAIN])
        except FormatError:
            raise
        except (TransferError, OSError):
            continue


def _created(folder: Path) -> int:
    bundle = _opened(folder)
    return bundle.header.created if bundle else 0


def _opened(folder: Path) -> Bundle | None:
    """The bundle by what tells of it, from either copy; None if that has not come whole."""
    places = [folder, folder / AGAIN]
    for each in places:
        with contextlib.suppress(TransferError, OSError):
            return Bundle(each, places=places)
    return None
