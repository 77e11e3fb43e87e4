"""What plain and compressed archives have in common: their images, found out of their lists."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from transfer.engines.blobs import BlobSource, Root, Suits
from transfer.engines.index import REF_NAME, Broken, Roots
from transfer.engines.members import NO_ARCHIVE, Member, follow
from transfer.engines.savefile import Layer, SavedImages
from transfer.engines.savestream import tail
from transfer.engines.tree import REMAKE
from transfer.errors import Damaged, FormatError, NotFound
from transfer.model import Descriptor, blob_path
from transfer.streams import (
    Readable,
)


class Archive(BlobSource):
    """What plain and compressed archives have in common: their images, found out of their lists."""

    def __init__(self, path: Path, where: str) -> None:
        super().__init__(where)
        self._path = path
        self._at: dict[str, Member] = {}
        self._links: dict[str, str] = {}
        lists = self._look(where)
        if "manifest.json" not in lists and "index.json" not in lists:
            raise FormatError(f"{where}: the archive has neither manifest.json nor index.json", hint=NO_ARCHIVE)
        self._saved = SavedImages(lists.get("manifest.json"), lists.get("index.json"), self, where)
        images = self._saved.images
        entries = [
            Descriptor(each.root.media_type, each.root.digest, each.root.size, each.root.platform, {REF_NAME: name})
            for each in images
            if each.root
            for name in each.names or ("",)
        ]
        broken = [Broken(each.names, each.id, each.error) for each in images if each.error]
        self._roots = Roots(entries, where, broken)

    def roots(self, pattern: str = "") -> tuple[Sequence[Root], Sequence[Broken]]:
        return self._roots.all()

    def root(self, reference: str, suits: Suits) -> Root:
        return self._roots.pick(reference, suits)

    @abstractmethod
    def _look(self, where: str) -> dict[str, bytes]:
        """Go through all members once; the lists that are there, manifest.json and index.json. Of each the last counts, as for tar."""

    def _take(self, entry: Member, where: str) -> None:
        """Note a member. One that stands there again has to be the same again, but for the lists."""
        if entry.link is not None:
            self._links[entry.name] = entry.link
            self._at.pop(entry.name, None)
            return
        self._links.pop(entry.name, None)
        before = self._at.get(entry.name)
        if before and entry.name not in LISTS and not self._is_same(before, entry):
            raise FormatError(
                f"{where}: {entry.name!r:.100} is in the archive twice, with different content", hint=REMAKE
            )
        self._at[entry.name] = entry

    @abstractmethod
    def _is_same(self, one: Member, other: Member) -> bool:
        """Whether two members have the same content."""

    def _find(self, name: str) -> Member:
        found = self._at.get(follow(name, self._links, str(self._path)))
        if found is None:
            raise NotFound(
                f"{self._path}: {name!r:.100} is not in the archive",
                hint="the archive is incomplete; save the image again",
            )
        return found

    @abstractmethod
    def small(self, name: str) -> bytes:
        """A small member's bytes, at most a document's."""

    @abstractmethod
    def layer(self, name: str) -> Layer:
        """What a member that is a layer is: its digests, sizes and compression."""

    def _read_document(self, descriptor: Descriptor) -> bytes | None:
        data = self._saved.document(descriptor)
        if data is not None and len(data) != descriptor.size:
            raise Damaged(
                f"{self.where}: {descriptor.digest} has {len(data)} bytes, but its descriptor says {descriptor.size}"
            )
        return data

    def _member_of(self, descriptor: Descriptor) -> Member:
        """Where a layer lies. Damaged if its size is another than its descriptor's."""
        name = self._saved.paths.get(descriptor.digest) or blob_path(descriptor.digest)
        entry = self._find(name)
        if entry.size != descriptor.size:
            raise Damaged(f"{self._path}: {name} has {entry.size} bytes, but its descriptor says {descriptor.size}")
        return entry

    def open(self, blob: Descriptor, start: int = 0) -> Readable:
        """A document that was read. What else there is to open, each kind of archive knows."""
        known = self._documents.get(blob.digest)
        if known is None:
            raise NotFound(f"{self.where}: {blob.digest} is not there")
        return tail(known, start)


LISTS = frozenset({"manifest.json", "index.json", "repositories", "oci-layout", "version"})
"""Members that `tar -r` may have written anew: the last one counts."""
