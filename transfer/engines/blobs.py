"""Places whose blobs have digests: a source writes four methods, a target four, and is an ImageSource or an ImageSink by that."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial

from transfer.engines.base import (
    ALONE,
    BlobStream,
    Content,
    ImportedImage,
    Listed,
    ResolvedImage,
    SinkTraits,
    SourceTraits,
    Status,
    Turn,
)
from transfer.engines.index import Broken
from transfer.engines.tree import Tree, image_of, walk
from transfer.errors import FormatError, NotFound, TransferError
from transfer.model import Descriptor, Digest, Image, Platform
from transfer.streams import Effort, Readable, read_document

Suits = Callable[[Descriptor], bool]
Root = tuple[Descriptor, tuple[str, ...]]
"""A manifest or index, and its names."""


class BlobSource(ABC):
    """A place in which any blob can be opened at any time.

    What a place writes: `roots`, `root`, `open`, `close`. What follows: listing, walking, reading in order, images.
    """

    traits = SourceTraits(random_access=True, keeps_digest=True, ranges=True)

    def __init__(self, where: str) -> None:
        self.where = where
        self._documents: dict[Digest, bytes | None] = {}
        self._trees: dict[tuple[Digest, str, int, Platform | None], Tree] = {}
        self._effort = Effort(where)

    @abstractmethod
    def roots(self, pattern: str = "") -> tuple[Sequence[Root], Sequence[Broken]]:
        """All images, each once; with a pattern at least those that match. And those that are named and cannot be had."""

    @abstractmethod
    def root(self, reference: str, suits: Suits) -> Root:
        """The root that a name, a digest or its beginning means, of several the one that `suits`. NotFound says what is there instead."""

    @abstractmethod
    def open(self, blob: Descriptor, start: int = 0) -> Readable:
        """A blob's bytes from `start` on, unchecked. NotFound if it is not there."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what is open."""

    def document(self, descriptor: Descriptor) -> bytes | None:
        """A document's bytes, checked and kept; None if it is not there."""
        if descriptor.digest not in self._documents:
            self._documents[descriptor.digest] = self._read_document(descriptor)
        return self._documents[descriptor.digest]

    def _read_document(self, descriptor: Descriptor) -> bytes | None:
        try:
            stream = self.open(descriptor)
        except NotFound:
            return None
        return read_document(stream, descriptor, self.where)

    def _tree(self, root: Descriptor, platform: Platform | None) -> Tree:
        key = (root.digest, root.media_type, root.size, platform)
        if key not in self._trees:
            self._trees[key] = walk(root, lambda each: self._effort.spent(self.document(each)), platform)
        return self._trees[key]

    def names(self, pattern: str = "") -> list[Listed]:
        out = []
        effort = Effort(self.where)
        roots, broken = self.roots(pattern)
        for root, names in roots:
            try:
                layers = walk(root, lambda each: effort.spent(self.document(each))).layers
            except TransferError:
                layers = []  # it is listed all the same: whoever asks for it is told what is wrong
            out.append(Listed(names, root.digest, sum(each.size for each in layers), 0, len(layers)))
        return out + [Listed(each.names, each.id, 0, 0, 0) for each in broken]

    def resolve(self, reference: str, platform: Platform | None) -> ResolvedImage:
        root, names = self.root(reference, partial(self._suits, platform))
        tree = self._tree(root, platform)
        if root.is_index and not tree.manifests:
            why = "an index of which no manifest is here" if tree.absent else "an index that lists no manifest"
            raise FormatError(
                f"{self.where}: {reference or root.digest.short} is {why}: it holds no image",
                hint="pull or build the image again, and save it again",
            )
        layers = tuple((each.digest, each.size) for each in tree.layers)
        return ResolvedImage(names, root.digest, sum(size for _, size in layers), layers, root, platform)

    def platforms(self, image: ResolvedImage) -> list[Platform]:
        """What of the image is here, but for what is said of it."""
        tree = self._tree(image.root, None) if image.root else Tree()
        known = [each.descriptor.platform or each.platform for each in tree.manifests]
        return [each for each in known if each.os != "unknown"]

    def _suits(self, platform: Platform | None, root: Descriptor) -> bool:
        """Whether a root has anything for the platform that is wanted."""
        with contextlib.suppress(TransferError):
            found = self._tree(root, platform)
            return platform is None or any(platform.rank(each.platform) for each in found.manifests)
        return False

    def read(self, images: Sequence[ResolvedImage]) -> Iterator[BlobStream]:
        yield from self._streams(images)

    def _streams(self, images: Sequence[ResolvedImage]) -> Iterator[BlobStream]:
        """Each image's documents, then its layers, every blob once."""
        seen: set[Digest] = set()
        for image in images:
            if image.root is None:
                continue
            tree = self._tree(image.root, image.platform)
            for is_document, descriptors in ((True, tree.documents), (False, tree.layers)):
                for each in descriptors:
                    if each.digest not in seen:
                        seen.add(each.digest)
                        yield BlobStream(is_document, partial(self.open, each), each.digest, each.size, each.media_type)

    def images(
        self, found: Sequence[ResolvedImage], documents: dict[Digest, bytes], sizes: Mapping[Digest, int]
    ) -> list[Image]:
        return [image_of(each.names, each.root, self._tree(each.root, each.platform)) for each in found if each.root]


class BlobSink(ABC):
    """A place that takes blobs by their digests, and names for roots.

    What a place writes: `has`, `put_blob`, `tag`, `named`. What follows: which layers are missing, the order, what is counted.
    """

    traits = SinkTraits(keeps_digest=True, artifacts=True, indexes=True)
    platform: Platform | None = None

    def __init__(self, where: str) -> None:
        self.where = where
        self._together: dict[str, set[Digest]] = {}

    @abstractmethod
    def has(self, blob: Descriptor) -> bool:
        """Whether the blob is there, and is what its digest says."""

    @abstractmethod
    def put_blob(self, blob: Descriptor, data: Iterator[bytes]) -> None:
        """Take a blob, all of it or nothing: `data` fails before its last block if it is not what the digest says."""

    @abstractmethod
    def tag(self, image: Image, names: Sequence[str], content: Content) -> None:
        """Make an image visible whose blobs are all there, under these names, or without one."""

    @abstractmethod
    def named(self, name: str) -> Collection[Digest]:
        """The roots that have a name now."""

    def is_listed(self, root: Descriptor) -> bool:
        """Whether the root is visible, so that its image is there already."""
        return self.has(root)

    def taken(
        self, image: Image, names: Sequence[str], content: Content, beside: Collection[Digest]
    ) -> dict[str, Digest]:
        """What several images of one import share as a name stays with all of them, as an index.json may have it."""
        for name in names:
            self._together.setdefault(name, set()).update(beside)
        mine = {image.root.digest, *beside}
        held = {name: [each for each in self.named(name) if each not in mine] for name in names}
        return {name: others[-1] for name, others in held.items() if others}

    def missing(self, image: Image, content: Content) -> list[Descriptor] | None:
        lacking = [layer for layer in image.layers if not self.has(layer)]
        if lacking:
            return lacking
        whole = all(self.has(Descriptor("", each, len(content.document(each)))) for each in image.documents)
        return None if whole and self.is_listed(image.root) else []

    def put(self, image: Image, names: Sequence[str], content: Content, turn: Turn = ALONE) -> ImportedImage:
        missing = self.missing(image, content)
        for layer in missing or ():
            self.put_blob(layer, content.open(layer))
        for digest in reversed(image.documents):  # whoever reads along never meets a manifest whose blobs are not there
            data = content.document(digest)
            document = Descriptor("", digest, len(data))
            if not self.has(document):
                self.put_blob(document, iter([data]))
        self.tag(image, names, content)
        sent = len(missing or ())
        status: Status = "present" if missing is None else "imported"
        return ImportedImage(image, status, image.root.digest, tuple(names), sent, len(image.layers) - sent)

    def close(self, *, failed: bool) -> None:  # noqa: B027 - most have nothing to do here
        """Every image was visible as it came."""
