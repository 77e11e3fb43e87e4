"""One stream of `docker save`, read once from front to back."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType

from transfer.engines.base import BlobStream, ResolvedImage
from transfer.engines.members import Forward, Member, follow, members, whole_member
from transfer.engines.savefile import Layer, SavedImages, packed_as
from transfer.engines.tree import Tree, image_of, walk
from transfer.errors import NotFound
from transfer.model import Descriptor, Digest, Image
from transfer.streams import MAX_DOCUMENT, Readable, sha256

KEPT_MAX = 64 << 20
"""Documents of one archive that are kept in memory, together (bytes)."""


@dataclass
class SaveStream:
    """One pass over what a daemon saves. Blobs are handed out as they come; what they belong to is known at the end."""

    where: str
    documents: dict[Digest, bytes] = field(default_factory=dict)
    digest_of: dict[str, Digest] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    heads: dict[str, bytes] = field(default_factory=dict)
    manifest: bytes | None = None
    index: bytes | None = None
    kept: int = 0
    _sizes: Mapping[Digest, int] = field(default_factory=dict)
    _held: SavedImages | None = None

    def read(self, stream: Readable, known: Mapping[str, Digest] = MappingProxyType({})) -> Iterator[BlobStream]:
        """Layers as streams of unknown digest, documents as streams of known digest. Layers whose member is `known` are passed over."""
        for entry, data in members(Forward(stream, self.where)):
            if entry.link is not None:
                self.links[entry.name] = entry.link
            elif entry.name in ("manifest.json", "index.json"):
                whole = whole_member(entry, data, self.where)
                self.manifest, self.index = (
                    (whole, self.index) if entry.name == "manifest.json" else (self.manifest, whole)
                )
            elif entry.name in known:
                self.digest_of[entry.name] = known[entry.name]
                self.heads[entry.name] = data.read(6) if entry.size else b""
            elif entry.name.startswith("blobs/") or entry.name.endswith((".json", ".tar")):
                yield from self._blob(entry, data)

    def _blob(self, entry: Member, data: Readable) -> Iterator[BlobStream]:
        head = data.read(6) if entry.size else b""
        small = entry.size <= min(MAX_DOCUMENT, KEPT_MAX - self.kept)
        if head.lstrip()[:1] == b"{" and small and not entry.name.endswith(".tar"):
            self.kept += entry.size
            whole = head + whole_member(entry, data, self.where)
            digest = sha256(whole)
            self.documents[digest] = whole
            self.digest_of[entry.name] = digest
            yield BlobStream(True, partial(tail, whole), digest, len(whole))
        else:
            self.heads[entry.name] = head
            noted = partial(self.digest_of.__setitem__, entry.name)
            yield BlobStream(False, lambda start: Rejoined(head, data), None, entry.size, on_digest=noted)

    def images(
        self, found: Sequence[ResolvedImage], documents: dict[Digest, bytes], sizes: Mapping[Digest, int]
    ) -> list[Image]:
        """The images asked for. Makes manifests where the archive has none, and adds them to `documents`."""
        self._sizes = sizes
        if self._held is None:
            self._held = SavedImages(self.manifest, self.index, self, self.where)
        return [self._image(each, self._held, documents) for each in found]

    def _image(self, found: ResolvedImage, held: SavedImages, documents: dict[Digest, bytes]) -> Image:
        for each in held.images:
            if each.root is None:
                if each.error and found.id == each.id:
                    raise each.error
                continue
            tree = self._tree(each.root, held, found)
            if tree and (each.root.digest == found.id or any(c.digest == found.id for c in tree.configs)):
                documents |= held.made
                wrong = [d for d in tree.layers if self._sizes.get(d.digest) != d.size]
                if wrong:
                    raise NotFound(
                        f"{', '.join(found.names) or found.id}: the engine did not give layer {wrong[0].digest} whole"
                    )
                return image_of(found.names, each.root, tree)
        raise NotFound(
            f"{', '.join(found.names) or found.id}: the engine did not give this image",
            hint="it may have been removed or retagged meanwhile; run again",
        )

    def _tree(self, root: Descriptor, held: SavedImages, found: ResolvedImage) -> Tree | None:
        """What it reaches; None if it is not here, or has nothing for the platform that is wanted."""
        with contextlib.suppress(NotFound):
            return walk(root, held.document, found.platform)
        return None

    # as Members

    def _digest(self, name: str) -> Digest:
        found = self.digest_of.get(follow(name, self.links, self.where))
        if found is None:
            raise NotFound(f"{self.where}: {name!r:.100} is not in the archive")
        return found

    def small(self, name: str) -> bytes:
        digest = self._digest(name)
        if digest not in self.documents:
            raise NotFound(f"{self.where}: {name!r:.100} is not a document")
        return self.documents[digest]

    def layer(self, name: str) -> Layer:
        digest = self._digest(name)
        head = self.heads.get(follow(name, self.links, self.where), b"")
        size = self._sizes.get(digest, len(self.documents.get(digest, b"")))
        return Layer(digest, size, packed_as(head))


class Rejoined:
    """A Readable whose first bytes were taken already."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._head, self._rest = head, rest

    def read(self, size: int, /) -> bytes:
        if self._head:
            out, self._head = self._head, b""
            return out
        return self._rest.read(size)


def tail(data: bytes, start: int) -> io.BytesIO:
    """What is in memory, from `start` on."""
    return io.BytesIO(data[start:] if start else data)
