"""Damage repaired from afar: the list of files that are wrong, and a small bundle with just those."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transfer.bundle.assembly import supplied_by
from transfer.bundle.base import Base, outside_names
from transfer.bundle.header import OCI_LAYOUT, Blob, parse_index
from transfer.bundle.library import Shelf
from transfer.bundle.reader import Bundle
from transfer.bundle.store import Store
from transfer.errors import FormatError, MissingPart, NotFound, UsageError, from_os_error
from transfer.flows.check import Checked
from transfer.model import Digest
from transfer.streams import copy_verified, parse_object, publish, read_small
from transfer.work import Pool

REQUEST_MAX = 16 << 20


@dataclass(frozen=True, slots=True)
class Request:
    """Which files of which bundle are wanted again."""

    bundle: Digest
    blobs: tuple[Digest, ...]

    def encode(self) -> bytes:
        value = {
            "format": "transfer.request",
            "version": 1,
            "bundle": str(self.bundle),
            "blobs": [str(each) for each in self.blobs],
        }
        return json.dumps(value, indent=1).encode() + b"\n"


def parse_request(data: bytes, where: str) -> Request:
    """FormatError for anything else."""
    value = parse_object(data, where, REQUEST_MAX)
    blobs = value.get("blobs")
    if value.get("format") != "transfer.request" or value.get("version") != 1 or not isinstance(blobs, list):
        raise FormatError(
            f"{where}: not a request of version 1", hint="`transfer verify BUNDLE --request FILE` makes one"
        )
    return Request(Digest.parse(value.get("bundle"), where), tuple(Digest.parse(each, where) for each in blobs))


def request_of(folder: Path) -> Request:
    """For a bundle that cannot be opened: what every answer brings, its manifest, header, catalogs and index."""
    data = read_small(folder / "index.json")
    return Request(parse_index(data, f"{folder}/index.json").digest, ())


def request_for(checked: Checked) -> Request:
    """The files a check found wrong or missing."""
    hexes = dict.fromkeys(Path(each.file).name for each in (*checked.damage, *checked.missing) if "blobs/" in each.file)
    return Request(checked.digest, tuple(Digest.parse(f"sha256:{each}") for each in hexes))


@dataclass(frozen=True, slots=True)
class Answered:
    """A small bundle: the files asked for, and what makes them a bundle."""

    folder: Path
    digest: Digest
    files: int
    size: int


def answer(request: Request, folder: Path, library: Shelf) -> Answered:
    """Write the files that were asked for, each checked, and the index last. Copied over the damaged bundle they mend it."""
    bundle = library.bundle(request.bundle)
    if bundle is None:
        raise NotFound(
            f"bundle {request.bundle.short} is not here",
            hint="name its folder with --seed; or export the same images again with the same options",
        )
    listed = {blob.digest: blob for blob in (*bundle.header.catalog, *bundle.header.packs)}
    unknown = [each for each in request.blobs if each not in listed]
    if unknown:
        raise UsageError(
            f"bundle {request.bundle.short} has no file {unknown[0].short}", hint="the request is for another bundle"
        )
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty", hint="name a new folder")
    wanted = [listed[each] for each in dict.fromkeys(request.blobs)]
    catalogs = [blob for blob in bundle.header.catalog if blob not in wanted]
    try:
        (folder / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        for blob in (*wanted, *catalogs):
            _copy(bundle, blob, folder)
        for each in (bundle.config, bundle.manifest):
            publish(folder / "blobs" / "sha256" / each.digest.hex, read_small(bundle.path_of(each), each.size))
        publish(folder / "oci-layout", OCI_LAYOUT)
        publish(folder / "index.json", bundle.index)
    except OSError as error:
        raise from_os_error(error, f"writing {folder}") from error
    return Answered(folder, request.bundle, len(wanted), sum(blob.size for blob in wanted))


def _copy(bundle: Bundle, blob: Blob, folder: Path) -> None:
    source = bundle.path_of(blob)
    try:
        copy_verified(source, folder / blob.path, blob.digest, blob.size)
    except NotFound as error:
        raise MissingPart(
            f"{source} is not here any more",
            hint="name a folder that has the whole bundle with --seed, or export the same images again",
        ) from error


@dataclass(frozen=True, slots=True)
class Against:
    """Whether a place has what a delta builds on: how many chunks it needs, how many are not there, who would supply those."""

    needed: int
    missing: int
    suppliers: tuple[Digest, ...]
    words: str


def against(bundle: Bundle, place: Store | Sequence[Bundle]) -> Against:
    """What of the bundle's prerequisites a store holds, or a site that has confirmed these bundles."""
    needed = outside_names(bundle)
    if isinstance(place, Store):
        there = set(place.locate(needed))
        have = {entry.digest for entry in place.entries()}
    else:
        with Pool(0, "against") as pool:
            base = Base(place, pool=pool, jobs=1) if place else None
        there = {name for name in needed if base and name in base}
        have = {each.manifest.digest for each in place}
    missing = needed - there
    named = [Digest.parse(text) for text in bundle.header.prerequisites["bundles"]]
    absent = tuple(digest for digest in named if digest not in have) if missing else ()
    return Against(len(needed), len(missing), absent, supplied_by(bundle, absent or named) if missing else "")
