"""What a sink asks of a bundle while it takes an image: documents, and layers as they are rebuilt."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator

from transfer.bundle.reader import Bundle
from transfer.bundle.rebuild import BlobReader
from transfer.events import Advanced, Observer
from transfer.flows.vouching import vouch
from transfer.model import OCI_LAYER, Descriptor, Digest, Image
from transfer.streams import BLOCK, IterReader, verified
from transfer.work import Pool, prefetch

APART = 16 << 20
"""Chunks kept for a layer that is rebuilt for itself (bytes): the import goes on beside it."""


class BundleContent:
    """What sinks ask for, from a bundle. Counts what it hands out."""

    def __init__(
        self,
        bundle: Bundle,
        observer: Observer,
        *,
        threaded: bool = False,
        hashed: bool = True,
        rebuilding: BlobReader | None = None,
    ) -> None:
        """`rebuilding` has the layers that are to be sent, in their order; any other is rebuilt for itself. Without `hashed` the sink checks them."""
        self._bundle, self._observer, self._threaded = bundle, observer, threaded
        self._hashed, self._rebuilding = hashed, rebuilding
        self._lock, self._rechecking = threading.Lock(), threading.Lock()
        self._sound: set[Digest] = set()
        self.bytes_unpacked = 0

    def document(self, digest: Digest) -> bytes:
        return self._bundle.document(digest)

    def plain(self, layer: Descriptor, diff_id: Digest) -> Descriptor:
        recipes = self._bundle.catalog().recipes
        recipe = recipes.get(layer.digest)
        if recipe is None or recipe.plain is None or recipe.plain != diff_id:
            return layer
        return Descriptor(OCI_LAYER, diff_id, recipes[diff_id].size)

    def vouch(self, image: Image) -> None:
        """FormatError if the header does not say of the image what its documents say, or a layer has no recipe of its size."""
        vouch(self._bundle, image)

    def forgo(self, digests: Iterable[Digest]) -> None:
        """Whoever was to have these layers failed."""
        if self._rebuilding:
            self._rebuilding.forgo(digests)

    def recheck(self, digests: Iterable[Digest]) -> None:
        """Look whether these layers' chunks are what their names say, which is left out on their way. Damaged names the frame that is wrong."""
        with self._rechecking:
            for digest in [each for each in digests if each not in self._sound]:
                stream = self._apart(digest, checked=True)
                while stream.read(BLOCK):
                    pass
                self._sound.add(digest)

    def open(self, descriptor: Descriptor, start: int = 0) -> Iterator[bytes]:
        """Rebuilt by one thread, hashed and handed over by another, if it is hashed here."""
        rebuilding = self._rebuilding
        planned = rebuilding is not None and descriptor.digest in rebuilding
        stream = (rebuilding.open if rebuilding and planned else self._apart)(descriptor.digest)
        parts = prefetch(iter(lambda: stream.read(1 << 30), b""), 8, threaded=self._threaded and self._hashed)
        with contextlib.closing(parts):  # type: ignore[type-var]
            where = f"layer {descriptor.digest}"
            for block in verified(_Parts(parts), descriptor.digest, descriptor.size, where, hashed=self._hashed):
                passed = min(start, len(block))
                start -= passed
                with self._lock:
                    self.bytes_unpacked += len(block)
                    self._observer(Advanced("import", len(block)))
                if passed < len(block):
                    yield block[passed:] if passed else block

    def _apart(self, digest: Digest, *, checked: bool = False) -> IterReader:
        """A layer for itself, with little memory: one that is not in the plan, or once more."""
        pool = Pool(0, "apart")
        return BlobReader(self._bundle, [digest], pool=pool, jobs=1, budget=APART, checked=checked).open(digest)


class _Parts:
    """A Readable over blocks as they come."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts

    def read(self, size: int, /) -> bytes:
        return next(self._parts, b"")
