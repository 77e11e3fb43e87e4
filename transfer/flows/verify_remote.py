"""Verify a bundle on another host: hashed over there when it can be, read back when not."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from transfer.bundle import header as head
from transfer.errors import Damaged, FormatError, MissingPart, NotFound
from transfer.events import Advanced, Done, Observer, Planned
from transfer.flows.remote import Connector
from transfer.flows.ship import INDEX
from transfer.flows.verify import GONE, Damage
from transfer.model import Digest, blob_path
from transfer.ship.address import Address
from transfer.ship.base import Depot
from transfer.streams import MAX_DOCUMENT, sha256


@dataclass(frozen=True, slots=True)
class FarChecked:
    """What was looked at (bytes). `by`: receiver or sftp. `missing` files are not there, `damage` ones are wrong."""

    where: str
    digest: Digest
    by: str
    files: int
    bytes_checked: int
    damage: tuple[Damage, ...]
    missing: tuple[Damage, ...]
    seconds: float


def bundle_at(address: Address) -> tuple[Address, str]:
    """The folder a bundle lies in, and its name there."""
    folder, _, name = address.folder.rstrip("/").rpartition("/")
    rooted = "/" if address.folder.startswith("/") and not folder else folder
    return replace(address, folder=rooted), name


def check(reach: Connector, name: str, observer: Observer) -> FarChecked:
    """Every file of the bundle `name` in the folder that `reach` leads to. NotFound if there is no finished bundle."""
    started = time.monotonic()
    where = f"{reach.way.address.place}/{name}"
    depot = reach.depot()
    try:
        index = _read(depot, f"{name}/{INDEX}", MAX_DOCUMENT, where)
        manifest = head.parse_index(index, f"{where}/{INDEX}")
        data = _document(depot, name, manifest.digest, where)
        config, catalogs, packs = head.parse_manifest(data, f"{where}: manifest")
        header = head.parse_header(_document(depot, name, config.digest, where), f"{where}: header")
        head.agreed(header, catalogs, packs, where)
        blobs = [*header.catalog, *header.packs]
        observer(Planned("verify", sum(blob.size for blob in blobs)))
        found = []
        held = depot.stat([f"{name}/{blob.path}" for blob in blobs])
        for number, (blob, there) in enumerate(zip(blobs, held, strict=True)):
            fault = GONE
            if there and there.finished:
                fault = depot.check(f"{name}/{blob.path}", blob.digest, blob.size)
            if fault:
                packed = number >= len(header.catalog)
                users = header.users(header.frames_in(blob)) if packed else tuple(i.label for i in header.images)
                found.append(Damage(blob.path, None, fault, users))
            observer(Advanced("verify", blob.size))
        observer(Done("verify"))
    finally:
        depot.close()
    return FarChecked(
        where,
        manifest.digest,
        reach.spoken,
        len(blobs) + 3,
        sum(blob.size for blob in blobs),
        tuple(each for each in found if each.why != GONE),
        tuple(each for each in found if each.why == GONE),
        time.monotonic() - started,
    )


def _read(depot: Depot, name: str, limit: int, where: str) -> bytes:
    """A small file. FormatError if it is larger than the limit."""
    out = bytearray()
    try:
        for block in depot.read(name):
            out += block
            if len(out) > limit:
                raise FormatError(f"{where}: {name} is larger than the {limit} bytes that are accepted")
    except NotFound as error:
        raise NotFound(
            f"{where} is not a finished bundle: {error.message}",
            hint="check the path; or ship the bundle again: it resumes",
        ) from error
    return bytes(out)


def _document(depot: Depot, name: str, digest: Digest, where: str) -> bytes:
    path = blob_path(digest)
    try:
        data = _read(depot, f"{name}/{path}", head.HEADER_MAX, where)
    except NotFound as error:
        raise MissingPart(
            f"{where}/{path} is missing", hint="ship the bundle again: only missing and damaged files are sent"
        ) from error
    if sha256(data) != digest:
        raise Damaged(
            f"{where}/{path}: its content does not match its digest",
            hint="ship the bundle again: only missing and damaged files are sent",
        )
    return data
