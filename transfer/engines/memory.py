"""Images in memory: the engine of the conformance suite and of whoever wants to try something."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from transfer.engines.base import Content
from transfer.engines.blobs import BlobSink, BlobSource, Root, Suits
from transfer.engines.index import Broken
from transfer.errors import NotFound
from transfer.model import Descriptor, Digest, Image


@dataclass
class MemoryImages:
    """Blobs by digest and roots by name."""

    blobs: dict[Digest, bytes] = field(default_factory=dict)
    roots: dict[str, Descriptor] = field(default_factory=dict)


class MemorySource(BlobSource):
    """Images to read from memory."""

    def __init__(self, held: MemoryImages) -> None:
        super().__init__("memory")
        self._held = held

    def _names(self, digest: Digest) -> tuple[str, ...]:
        return tuple(name for name, root in self._held.roots.items() if root.digest == digest)

    def roots(self, pattern: str = "") -> tuple[Sequence[Root], Sequence[Broken]]:
        unique = {root.digest: root for root in self._held.roots.values()}
        return [(root, self._names(digest)) for digest, root in unique.items()], ()

    def root(self, reference: str, suits: Suits) -> Root:
        for name, root in self._held.roots.items():
            if reference in (name, str(root.digest)):
                return root, (name,) if reference == name else self._names(root.digest)
        raise NotFound(f"no image {reference!r} in memory")

    def open(self, blob: Descriptor, start: int = 0) -> io.BytesIO:
        if blob.digest not in self._held.blobs:
            raise NotFound(f"memory: {blob.digest} is not there")
        return io.BytesIO(self._held.blobs[blob.digest][start:])

    def close(self) -> None:
        """Nothing to let go of."""


class MemorySink(BlobSink):
    """Images to be held in memory."""

    def __init__(self, held: MemoryImages) -> None:
        super().__init__("memory")
        self._held = held

    def has(self, blob: Descriptor) -> bool:
        return blob.digest in self._held.blobs

    def put_blob(self, blob: Descriptor, data: Iterator[bytes]) -> None:
        self._held.blobs[blob.digest] = b"".join(data)

    def tag(self, image: Image, names: Sequence[str], content: Content) -> None:
        self._held.roots.update(dict.fromkeys(names, image.root))

    def named(self, name: str) -> Collection[Digest]:
        return [self._held.roots[name].digest] if name in self._held.roots else []
