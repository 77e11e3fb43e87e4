"""Images in memory: the engine of the conformance suite and of whoever wants to try something."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from transfer.engines.base import (
    Content,
    Found,
    Landed,
    Listed,
    Offer,
    SinkTraits,
    SourceTraits,
    Status,
    Tree,
    image_of,
    no_matter,
    offers,
    walk,
)
from transfer.errors import NotFound
from transfer.model import Descriptor, Digest, Image, Platform


@dataclass
class MemoryImages:
    """Blobs by digest and roots by name."""

    blobs: dict[Digest, bytes] = field(default_factory=dict)
    roots: dict[str, Descriptor] = field(default_factory=dict)

    def tree(self, root: Descriptor, platform: Platform | None = None) -> Tree:
        return walk(root, lambda each: self.blobs.get(each.digest), platform)


class MemorySource:
    """Images to read from memory."""

    traits = SourceTraits(random_access=True, keeps_digest=True)
    where = "memory"

    def __init__(self, held: MemoryImages) -> None:
        self._held = held

    def names(self) -> list[Listed]:
        out = []
        for name, root in self._held.roots.items():
            layers = self._held.tree(root).layers
            out.append(Listed((name,), root.digest, sum(layer.size for layer in layers), 0, len(layers)))
        return out

    def resolve(self, reference: str, platform: Platform | None) -> Found:
        hits = [(name, root) for name, root in self._held.roots.items() if reference in (name, str(root.digest))]
        if not hits:
            raise NotFound(f"no image {reference!r} in memory")
        names, root = tuple(name for name, _ in hits), hits[0][1]
        layers = tuple((each.digest, each.size) for each in self._held.tree(root, platform).layers)
        return Found(names, root.digest, sum(size for _, size in layers), layers, root, platform)

    def read(self, found: Sequence[Found]) -> Iterator[Offer]:
        trees = [self._held.tree(each.root, each.platform) for each in found if each.root]
        yield from offers(trees, self._open)

    def _open(self, descriptor: Descriptor) -> io.BytesIO:
        if descriptor.digest not in self._held.blobs:
            raise NotFound(f"memory: {descriptor.digest} is not there")
        return io.BytesIO(self._held.blobs[descriptor.digest])

    def images(
        self, found: Sequence[Found], documents: dict[Digest, bytes], sizes: Mapping[Digest, int]
    ) -> list[Image]:
        return [
            image_of(each.names, each.root, self._held.tree(each.root, each.platform)) for each in found if each.root
        ]

    def close(self) -> None:
        """Nothing to let go of."""


class MemorySink:
    """Images to be held in memory."""

    traits = SinkTraits(keeps_digest=True)
    where = "memory"
    platform: Platform | None = None

    def __init__(self, held: MemoryImages) -> None:
        self._held = held

    def taken(
        self, image: Image, names: Sequence[str], content: Content, beside: Collection[Digest]
    ) -> dict[str, Digest]:
        roots = self._held.roots
        return {n: roots[n].digest for n in names if n in roots and roots[n].digest not in {image.root.digest, *beside}}

    def lacking(self, image: Image, content: Content) -> list[Descriptor] | None:
        missing = [layer for layer in image.layers if layer.digest not in self._held.blobs]
        return missing if missing or image.root.digest not in self._held.blobs else None

    def land(
        self, image: Image, names: Sequence[str], content: Content, settled: Callable[[], None] = no_matter
    ) -> Landed:
        missing = self.lacking(image, content)
        fresh = {layer.digest: b"".join(content.open(layer)) for layer in missing or ()}
        documents = {digest: content.document(digest) for digest in image.documents}
        self._held.blobs.update(fresh | documents)
        self._held.roots.update(dict.fromkeys(names, image.root))
        present = len(image.layers) - len(fresh)
        status: Status = "present" if missing is None else "imported"
        return Landed(image, status, image.root.digest, tuple(names), len(fresh), present)

    def close(self, *, failed: bool) -> None:
        """Nothing to publish."""
