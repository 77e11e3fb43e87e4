"""A containerd's content folder, read as root: blobs under their digests, none of which is believed before it is hashed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from transfer.errors import Damaged, TransferError
from transfer.model import Descriptor, Digest, blob_path
from transfer.streams import Readable, open_plain, read_small, sha256

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
