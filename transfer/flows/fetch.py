"""Take a bundle that lies elsewhere: file by file, each checked by its name, the index last; what is here already is not taken again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from transfer.bundle.header import HEADER_MAX, parse_index, parse_manifest
from transfer.bundle.reader import Bundle
from transfer.errors import CutOff, Damaged, FormatError, NoSpace
from transfer.events import Advanced, Done, Observer, Planned
from transfer.flows.offers import Offer
from transfer.model import Addressed, blob_path
from transfer.ship.base import PART
from transfer.ship.folder import FolderDepot
from transfer.ship.media import room
from transfer.ship.throttled import Pacer
from transfer.streams import MAX_DOCUMENT, read_small, sha256

INDEX, LAYOUT = "index.json", "oci-layout"
CUTS_MAX = 10
"""So often a file is gone on with after a cut, without a byte of progress."""


class Files(Protocol):
    """Where the bundle lies."""

    @property
    def where(self) -> str: ...

    def read(self, name: str, offset: int = 0) -> Iterator[bytes]:
        """A file's bytes from an offset. NotFound, LinkError, CutOff."""
        ...


def fetch(source: Files, offer: Offer, into: Path, observer: Observer, pacer: Pacer) -> int:
    """The bundle of an offer into a folder of its name below `into`; bytes that were taken. Damaged if it is not what the offer says."""
    return _Fetch(source, offer, into, observer, pacer).run()


def small(source: Files, name: str, most: int) -> bytes:
    """A small file. FormatError if it is larger than `most` bytes."""
    out = bytearray()
    for block in source.read(name):
        out += block
        if len(out) > most:
            raise FormatError(f"{source.where}/{name} is larger than {most} bytes")
    return bytes(out)


class _Fetch:
    def __init__(self, source: Files, offer: Offer, into: Path, observer: Observer, pacer: Pacer) -> None:
        self._source, self._offer, self._observer, self._pacer = source, offer, observer, pacer
        self._sink = FolderDepot(into)
        self._folder, self._into = into / offer.folder, into
        self._taken = 0

    def run(self) -> int:
        name = self._offer.folder
        free, _, _ = room(self._into)
        index = small(self._source, f"{name}/{INDEX}", MAX_DOCUMENT)
        manifest = parse_index(index, f"{self._source.where}/{name}/{INDEX}")
        if manifest.digest != self._offer.digest:
            raise Damaged(
                f"{self._source.where}/{name} is not the bundle that was offered", hint="run the same command again"
            )
        self._observer(Planned("ship", self._offer.size))
        self._document(manifest)
        config, _, _ = parse_manifest(
            read_small(self._folder / blob_path(manifest.digest), HEADER_MAX), f"{self._source.where}/{name}: manifest"
        )
        self._document(config)
        bundle = Bundle(self._folder, index=index)
        files = [*bundle.header.catalog, *bundle.header.packs]
        names = [f"{name}/{blob_path(each.digest)}" for each in files]
        held = sum(
            min(found.size, each.size) for found, each in zip(self._sink.stat(names), files, strict=True) if found
        )
        needed = sum(each.size for each in files) - held
        if needed > free:
            raise NoSpace(f"{self._into}: {needed} bytes are needed and {free} are free", hint="free some space there")
        for each in files:
            self._blob(each)
        for rest, data in ((LAYOUT, small(self._source, f"{name}/{LAYOUT}", 4096)), (INDEX, index)):
            self._sink.append(f"{name}/{rest}", data, 0)
            self._sink.finish(f"{name}/{rest}", sha256(data), len(data))
        self._observer(Done("ship"))
        self._sink.close()
        return self._taken

    def _document(self, blob: Addressed) -> None:
        """The manifest or the header. FormatError for one that is too large to be read."""
        if blob.size > HEADER_MAX:
            raise FormatError(f"{self._source.where}/{self._offer.folder}: a document of {blob.size} bytes")
        self._blob(blob)

    def _blob(self, blob: Addressed) -> None:
        name = f"{self._offer.folder}/{blob_path(blob.digest)}"
        held = self._sink.stat([name])[0]
        if held and held.finished:
            if not self._sink.check(name, blob.digest, blob.size):
                self._observer(Advanced("ship", blob.size))
                return
            self._sink.discard(name)
            held = None
        for again in (False, True):
            self._grow(name, blob, held.size if held else 0)
            try:
                self._sink.finish(name, blob.digest, blob.size)
                return
            except Damaged:
                self._sink.discard(name)
                held = None
                if again:
                    raise

    def _grow(self, name: str, blob: Addressed, start: int) -> None:
        """All bytes of a file behind those that are here. A line that breaks is tried again as long as something comes."""
        at, cuts = min(start, blob.size) // PART * PART, 0
        while at < blob.size:
            before = at
            try:
                for block in self._source.read(name, at):
                    self._pacer.take(len(block))
                    data = block[: blob.size - at]
                    self._sink.append(name, data, at)
                    at += len(data)
                    self._taken += len(data)
                    self._observer(Advanced("ship", len(data)))
                    if at >= blob.size:
                        break
                if at < blob.size:
                    raise CutOff(f"{self._source.where}/{name} ends after {at} of {blob.size} bytes")
            except CutOff:
                cuts = 0 if at > before else cuts + 1
                if cuts >= CUTS_MAX:
                    raise
        if not blob.size:
            self._sink.append(name, b"", 0)
