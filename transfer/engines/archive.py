"""Archive files: docker-archive (what `docker save` writes, old and new) and oci-archive. Source and sink."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from transfer.engines.archived import Archive
from transfer.engines.base import (
    Content,
    ImageSink,
    ImageSource,
    SinkOptions,
    SourceOptions,
)
from transfer.engines.blobs import BlobSink
from transfer.engines.index import LAYOUT, name_annotations
from transfer.engines.members import ForwardFile, Member, follow, members, whole_member
from transfer.engines.savefile import NOT_READ, Layer, named_digest, packed_as
from transfer.engines.streamed import SKIPPABLE, StreamedArchive, start_of
from transfer.engines.tree import PlatformImage, platform_image
from transfer.errors import TransferError, UsageError, from_os_error
from transfer.model import OCI_INDEX, Descriptor, Digest, Image, Platform, Reference, blob_path, is_name
from transfer.streams import (
    Readable,
    SliceReader,
    begin,
    blocks,
    canonical_json,
    open_plain,
    sweep,
    sync_folder,
    write_all,
)
from transfer.tarfmt import make_header, padding


def open_source(place: str, options: SourceOptions) -> ImageSource:
    """The archive in this file, whichever kind it is."""
    return open_archive(Path(place))


def open_docker_sink(place: str, options: SinkOptions) -> ImageSink:
    """A new docker-archive."""
    return ArchiveSink(Path(place), docker=True, platform=options.platform)


def open_oci_sink(place: str, options: SinkOptions) -> ImageSink:
    """A new oci-archive."""
    return ArchiveSink(Path(place), docker=False, platform=options.platform)


def open_archive(path: Path) -> Archive:
    """A docker-archive or oci-archive, plain or compressed; which of them is seen from its content. The path may be a link."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder, not an archive", hint=f"to read an OCI layout, use --from oci:{path}")
    file = open_plain(path, follow=True)
    if packed_as(start_of(file)) or SKIPPABLE.match(start_of(file)):
        file.close()
        return StreamedArchive(path)
    return ArchiveSource(path, file)


class ArchiveSource(Archive):
    """A plain archive file: its members are found once, then read wherever they are."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._file = file
        try:
            super().__init__(path, f"the archive {path}")
        except BaseException:
            file.close()
            raise

    def _look(self, where: str) -> dict[str, bytes]:
        for entry, _ in members(ForwardFile(self._file.fileno(), where)):
            self._take(entry, where)
        return {name: self.small(name) for name in ("manifest.json", "index.json") if self._has(name)}

    def _has(self, name: str) -> bool:
        return name in self._at or bool(self._links.get(name))

    def _is_same(self, one: Member, other: Member) -> bool:
        return one.size == other.size and self._hash(one) == self._hash(other)

    def _slice(self, entry: Member) -> SliceReader:
        return SliceReader(self._file.fileno(), entry.at, entry.size, str(self._path))

    def _hash(self, entry: Member) -> Digest:
        hasher = hashlib.sha256()
        for block in blocks(self._slice(entry)):
            hasher.update(block)
        return Digest("sha256:" + hasher.hexdigest())

    def small(self, name: str) -> bytes:
        entry = self._find(name)
        return whole_member(entry, self._slice(entry), str(self._path))

    def layer(self, name: str) -> Layer:
        """A plain layer's digest is its diffID; a compressed one's must be found by reading it, unless its name says it."""
        entry = self._find(name)
        packed = packed_as(self._slice(entry).read(6))
        named = named_digest(follow(name, self._links, str(self._path)))
        return Layer(named or (self._hash(entry) if packed else NOT_READ), entry.size, packed)

    def open(self, blob: Descriptor, start: int = 0) -> Readable:
        if self._documents.get(blob.digest) is not None:
            return super().open(blob, start)
        entry = self._member_of(blob)
        return SliceReader(self._file.fileno(), entry.at + start, entry.size - start, str(self._path))

    def close(self) -> None:
        self._file.close()


class ArchiveSink(BlobSink):
    """One archive file, written front to back under a temporary name and published when every image is in.

    `docker=True` writes both layouts at once (manifest.json and index.json), as Docker does since 25: every engine reads one.
    """

    def __init__(self, path: Path, *, docker: bool, platform: Platform | None = None) -> None:
        super().__init__(f"the archive {path}")
        self._path, self._docker, self._platform = path, docker, platform or Platform("linux", "amd64")
        if not path.name or path.is_symlink() or (path.exists() and not path.is_file()):
            raise UsageError(f"{path} is not a regular file", hint="name a new file for the archive")
        sweep(path.parent, path.name)
        try:
            self._fd, self._temporary = begin(path)
        except OSError as error:
            raise from_os_error(error, f"writing {path}") from error
        self.platform = self._platform if docker else None
        self._written: set[Digest] = set()
        self._entries: list[dict[str, object]] = []
        self._saved: list[dict[str, object]] = []

    def named(self, name: str) -> Collection[Digest]:
        return ()  # the file is a new one

    def has(self, blob: Descriptor) -> bool:
        return blob.digest in self._written

    def is_listed(self, root: Descriptor) -> bool:
        return False

    def missing(self, image: Image, content: Content) -> list[Descriptor] | None:
        if self._docker:
            self._chosen(image, content)  # nothing is written of an image that has no part for the platform
        return super().missing(image, content)

    def put_blob(self, blob: Descriptor, data: Iterator[bytes]) -> None:
        self._member(blob_path(blob.digest), blob.size, data)
        self._written.add(blob.digest)

    def tag(self, image: Image, names: Sequence[str], content: Content) -> None:
        for name in names:
            self._entries.append({**image.root.as_json(), "annotations": name_annotations(name)})
        if not names:
            self._entries.append(image.root.as_json())
        if self._docker:
            self._saved.append(self._saved_entry(image, names, content))

    def _chosen(self, image: Image, content: Content) -> PlatformImage:
        own = image.platforms[0] if len(image.platforms) == 1 else self._platform
        return platform_image(image, content.document, own)

    def _saved_entry(self, image: Image, names: Sequence[str], content: Content) -> dict[str, object]:
        """The manifest.json entry: one platform, tags only where Docker would take them."""
        chosen = self._chosen(image, content)
        tags = [Reference.parse(name).familiar for name in names if is_name(name)]
        layers = [blob_path(layer.digest) for layer in chosen.layers]
        return {"Config": blob_path(chosen.config.digest), "RepoTags": tags or None, "Layers": layers}

    def _member(self, name: str, size: int, data: Iterator[bytes]) -> None:
        """Write a member; if that fails, take back what was written of it, so that the archive stays one for other images."""
        start = os.lseek(self._fd, 0, os.SEEK_CUR)
        try:
            write_all(self._fd, make_header(name, size))
            for block in data:
                write_all(self._fd, block)
            write_all(self._fd, bytes(padding(size)))
        except (OSError, TransferError) as error:
            os.ftruncate(self._fd, start)
            os.lseek(self._fd, start, os.SEEK_SET)
            if isinstance(error, TransferError):
                raise
            raise from_os_error(error, f"writing {self._path}") from error

    def close(self, *, failed: bool) -> None:
        try:
            if not failed:
                self._finish()
        except OSError as error:
            raise from_os_error(error, f"writing {self._path}") from error
        finally:
            os.close(self._fd)
            with contextlib.suppress(OSError):
                self._temporary.unlink()

    def _finish(self) -> None:
        index = canonical_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": self._entries})
        files = {"index.json": index, "oci-layout": LAYOUT}
        if self._docker:
            files["manifest.json"] = canonical_json(self._saved)
        for name, data in sorted(files.items()):
            self._member(name, len(data), iter([data]))
        write_all(self._fd, bytes(1024))
        os.fsync(self._fd)
        os.replace(self._temporary, self._path)
        sync_folder(self._path.parent)
