"""A containerd's content folder, read as root: blobs under their digests, none of which is believed before it is hashed."""

from __future__ import annotations

import contextlib
import os
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from transfer.engines.base import ResolvedImage
from transfer.engines.blobs import BlobSource
from transfer.errors import Damaged, EngineError, TransferError
from transfer.model import Descriptor, Digest, Platform, blob_path
from transfer.streams import Readable, open_plain, parse_object, read_small, sha256

PLUGIN = "io.containerd.content.v1.content"
"""The folder's name in a containerd's root."""


class ContentFolder:
    """One such folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @staticmethod
    def of(places: Iterable[Path], proof: Iterable[Digest]) -> ContentFolder | None:
        """The first of these places that this process may read and that has one of the documents in `proof`, as its digest says."""
        wanted = list(proof)
        for place in places:
            found = ContentFolder(place)
            if any(found.small(digest) is not None for digest in wanted):
                return found
        return None

    def _path(self, digest: Digest) -> Path:
        return self.root / blob_path(digest)

    def size(self, digest: Digest) -> int | None:
        """How many bytes a blob has; None if it is not there. What is still on its way in is in another folder."""
        with contextlib.suppress(OSError):
            return self._path(digest).lstat().st_size
        return None

    def small(self, digest: Digest) -> bytes | None:
        """A document, checked; None if it is not there, or another."""
        with contextlib.suppress(TransferError):
            data = read_small(self._path(digest))
            if digest.algorithm == "sha256" and sha256(data) == digest:
                return data
        return None

    def open(self, blob: Descriptor, start: int = 0) -> Readable:
        """A blob's bytes from `start` on, unchecked. NotFound if it is not there."""
        file = open_plain(self._path(blob.digest))
        size = os.fstat(file.fileno()).st_size
        if size != blob.size:
            file.close()
            raise Damaged(f"{self._path(blob.digest)}: {size} bytes, but its descriptor says {blob.size}")
        file.seek(start)
        return file


class StoredSource(BlobSource):
    """Images whose blobs a containerd keeps: of an index it may have one platform, and of an image it may have thrown the layers away.

    What a place writes besides: `has` and `is_root`.
    """

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self._lacking: dict[Digest, Digest] = {}

    @abstractmethod
    def has(self, digest: Digest) -> bool:
        """Whether the blob is there."""

    @abstractmethod
    def is_root(self, digest: Digest) -> bool:
        """Whether this is what a name leads to."""

    def _read_document(self, descriptor: Descriptor) -> bytes | None:
        """A manifest in an index counts as there if all it names is: the others' documents may have come without their layers."""
        data = super()._read_document(descriptor)
        if data is None or not descriptor.is_manifest:
            return data
        lacking = self._lacking_of(data, str(descriptor.digest))
        if lacking is None:
            return data
        self._lacking[descriptor.digest] = lacking
        return data if self.is_root(descriptor.digest) else None

    def _lacking_of(self, manifest: bytes, where: str) -> Digest | None:
        """The first blob of a manifest that is not there."""
        value = parse_object(manifest, where)
        layers = value.get("layers")
        named = [value.get("config"), *(layers if isinstance(layers, list) else ())]
        digests = (Descriptor.parse(each, where).digest for each in named)
        return next((each for each in digests if not self.has(each)), None)

    def resolve(self, reference: str, platform: Platform | None) -> ResolvedImage:
        root, _ = self.root(reference, partial(self._suits, platform))
        self.whole(reference or root.digest.short, root, platform)
        return super().resolve(reference, platform)

    def whole(self, label: str, root: Descriptor, platform: Platform | None) -> None:
        """EngineError for an image whose layers were thrown away once they had been unpacked."""
        self.document(root)
        if root.digest in self._lacking:
            raise self.gone(label, self._lacking[root.digest])
        tree = self._tree(root, platform)
        lost = next((self._lacking[each] for each in tree.absent if each in self._lacking), None)
        if lost and not tree.manifests:
            raise self.gone(label, lost)

    def gone(self, label: str, digest: Digest) -> EngineError:
        """What is said of an image that has a name and not its content."""
        return self.gone_from(self.where, label, str(digest))

    @staticmethod
    def gone_from(where: str, label: str, blob: str) -> EngineError:
        return EngineError(
            f"{where}: {label} is not all there: its blob {blob} is missing; "
            "perhaps containerd was told to discard layers once they are unpacked (discard_unpacked_layers)",
            hint="pull the image again, with all its content, or export it from its registry",
        )


def docker_places(info: Mapping[str, Any]) -> list[Path]:
    """Where the content folder of a Docker with the containerd store can be, by what the daemon says of itself."""
    root = Path(str(info.get("DockerRootDir") or "/nowhere"))
    return [place / PLUGIN for place in (root / "containerd/daemon", Path("/var/lib/containerd"))]
