"""Archive files: docker-archive (what `docker save` writes, old and new) and oci-archive. Source and sink."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import os
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from transfer.engines.base import (
    Content,
    Found,
    Landed,
    Listed,
    Offer,
    SinkTraits,
    SourceTraits,
    diff_ids,
    no_matter,
    platform_image,
)
from transfer.engines.ocilayout import LAYOUT, REF_NAME, RootedSource, Roots, name_annotations
from transfer.engines.savefile import ForwardFile, Saved, SaveStream, follow, made_manifest, members, parse_saved
from transfer.errors import Damaged, FormatError, NotFound, TransferError, UsageError, from_os_error
from transfer.model import OCI_INDEX, OCI_MANIFEST, Descriptor, Digest, Image, Platform, Reference, is_name
from transfer.streams import (
    MAX_DOCUMENT,
    Readable,
    SliceReader,
    begin,
    blocks,
    canonical_json,
    open_plain,
    sha256,
    sweep,
    sync_folder,
    write_all,
)
from transfer.tarfmt import make_header, padding

MAX_RATIO = 3000
"""A compressed archive that grows more than this is refused (deflate cannot exceed 1032:1)."""
_PACKED = _GZIP, _BZIP2, _XZ, _ZSTD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"


def open_archive(path: Path) -> ArchiveSource | StreamedArchive:
    """A docker-archive or oci-archive, plain or compressed; which of them is seen from its content."""
    file = open_plain(path)
    start = os.pread(file.fileno(), 6, 0)
    if start.startswith(_PACKED):
        file.close()
        return StreamedArchive(path)
    return ArchiveSource(path, file)


class ArchiveSource(RootedSource):
    """A plain archive file: its members are found once, then read wherever they are."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        where = f"the archive {path}"
        self._path, self._file = path, file
        self._at: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        self._made: dict[Digest, bytes] = {}
        self._paths: dict[Digest, str] = {}
        source = ForwardFile(file.fileno(), where)
        for entry, _ in members(source):
            if entry.link:
                self._links[entry.name] = entry.link
            else:
                self._at[entry.name] = (source.at, entry.size)
        super().__init__(where, self._roots_of(where), self._open_blob)

    def _roots_of(self, where: str) -> Roots:
        if "index.json" in self._at:
            return Roots.parse(self._small("index.json"), f"{where}: index.json")
        if "manifest.json" not in self._at:
            raise FormatError(
                f"{where}: neither manifest.json nor index.json in it",
                hint="docker-archive: and oci-archive: read what docker save, podman save or skopeo write",
            )
        self.traits = SourceTraits(random_access=True, keeps_digest=False)
        return Roots([root for saved in self._saved() for root in self._old_roots(saved, where)], where)

    def _saved(self) -> list[Saved]:
        return parse_saved(self._small("manifest.json"), f"{self._path}: manifest.json")

    def _old_roots(self, saved: Saved, where: str) -> list[Descriptor]:
        config = self._small(saved.config)
        self._paths[sha256(config)] = saved.config
        ids = diff_ids(config, where)
        if len(ids) != len(saved.layers):
            raise FormatError(f"{where}: {len(saved.layers)} layers where the config names {len(ids)}")
        layers = [self._layer(name, each) for name, each in zip(saved.layers, ids, strict=True)]
        data = made_manifest(config, layers, where)
        root = Descriptor(OCI_MANIFEST, sha256(data), len(data))
        self._made[root.digest] = data
        return [
            Descriptor(root.media_type, root.digest, root.size, None, {REF_NAME: tag} if tag else {})
            for tag in saved.tags or ("",)
        ]

    def _layer(self, name: str, diff_id: Digest) -> tuple[Digest, int]:
        """A plain layer's digest is its diffID; a compressed one's must be found by reading it."""
        offset, size = self._find(name)
        stream = SliceReader(self._file.fileno(), offset, size, str(self._path))
        digest = diff_id
        if stream.read(6).startswith(_PACKED):
            hasher = hashlib.sha256()
            for block in blocks(SliceReader(self._file.fileno(), offset, size, str(self._path))):
                hasher.update(block)
            digest = Digest("sha256:" + hasher.hexdigest())
        self._paths.setdefault(digest, name)
        return digest, size

    def _find(self, name: str) -> tuple[int, int]:
        found = self._at.get(follow(name, self._links, str(self._path)))
        if found is None:
            raise NotFound(f"{self._path}: {name!r:.100} is not in the archive")
        return found

    def _small(self, name: str) -> bytes:
        offset, size = self._find(name)
        if size > MAX_DOCUMENT:
            raise FormatError(f"{self._path}: {name} has {size} bytes (limit {MAX_DOCUMENT})")
        stream = SliceReader(self._file.fileno(), offset, size, str(self._path))
        return b"".join(iter(lambda: stream.read(1 << 20), b""))

    def _open_blob(self, descriptor: Descriptor) -> Readable:
        made = self._made.get(descriptor.digest)
        if made is not None:
            return io.BytesIO(made)
        name = self._paths.get(descriptor.digest) or f"blobs/{descriptor.digest.algorithm}/{descriptor.digest.hex}"
        offset, size = self._find(name)
        if size != descriptor.size:
            raise Damaged(f"{self._path}: {name} has {size} bytes where its descriptor says {descriptor.size}")
        return SliceReader(self._file.fileno(), offset, size, str(self._path))

    def close(self) -> None:
        self._file.close()


class StreamedArchive:
    """A compressed archive: read from front to back, once to see what is in it and once for its blobs."""

    traits = SourceTraits(random_access=False, keeps_digest=False)

    def __init__(self, path: Path) -> None:
        self.where = f"the compressed archive {path}"
        self._path = path
        self._stream = SaveStream(self.where)
        self._contents: SaveStream | None = None

    def _look(self) -> SaveStream:
        """The first pass: documents, tags, and nothing of the layers."""
        if self._contents is None:
            self._contents = SaveStream(self.where)
            with contextlib.closing(_Inflated(self._path)) as stream:
                for _ in self._contents.read(stream):
                    pass
        return self._contents

    def _roots(self) -> list[tuple[tuple[str, ...], Digest, int]]:
        held = self._look()
        if held.index:
            roots = Roots.parse(held.index, f"{self.where}: index.json")
            return [(roots.names_of(root.digest), root.digest, 0) for root in roots.unique()]
        saved = parse_saved(held.manifest or b"[]", f"{self.where}: manifest.json")
        return [
            (each.tags, held.digest_of[follow(each.config, held.links, self.where)], len(each.layers))
            for each in saved
            if follow(each.config, held.links, self.where) in held.digest_of
        ]

    def names(self) -> list[Listed]:
        return [Listed(names, digest, 0, 0, layers) for names, digest, layers in self._roots()]

    def resolve(self, reference: str, platform: Platform | None) -> Found:
        entries = [
            Descriptor(OCI_MANIFEST, digest, 0, None, {REF_NAME: name})
            for names, digest, _ in self._roots()
            for name in names or ("",)
        ]
        root, names = Roots(entries, self.where).pick(reference)
        return Found(names, root.digest, self._path.stat().st_size, (), None, platform)

    def read(self, found: Sequence[Found]) -> Iterator[Offer]:
        self._stream = SaveStream(self.where)
        with contextlib.closing(_Inflated(self._path)) as stream:
            yield from self._stream.read(stream)

    def images(
        self, found: Sequence[Found], documents: dict[Digest, bytes], sizes: Mapping[Digest, int]
    ) -> list[Image]:
        return self._stream.images(found, documents, sizes)

    def close(self) -> None:
        """Nothing is kept open."""


class _Inflated:
    """A compressed file's content, bounded: one level, limited growth, FormatError for what does not decompress."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._raw = open_plain(path)
        self._stream = _decompressor(self._raw, os.pread(self._raw.fileno(), 6, 0))
        self._out = 0

    def read(self, size: int, /) -> bytes:
        from pyzstd import ZstdError

        try:
            data = self._stream.read(size)
        except OSError as error:
            if error.errno:
                raise from_os_error(error, f"reading {self._path}") from error
            raise Damaged(f"{self._path}: does not decompress: {error}") from error
        except (EOFError, lzma.LZMAError, zlib.error, ValueError, ZstdError) as error:
            raise Damaged(
                f"{self._path}: does not decompress: {error}", hint="it is damaged or not whole; get it again"
            ) from error
        self._out += len(data)
        if self._out > 64 << 20 and self._out > MAX_RATIO * max(1, self._raw.tell()):
            raise FormatError(f"{self._path}: grows more than {MAX_RATIO} times; refused as a decompression bomb")
        return data

    def close(self) -> None:
        self._stream.close()
        self._raw.close()


def _decompressor(raw: BinaryIO, start: bytes) -> BinaryIO:
    if start.startswith(_GZIP):
        return cast(BinaryIO, gzip.GzipFile(fileobj=raw))
    if start.startswith(_BZIP2):
        return cast(BinaryIO, bz2.BZ2File(raw))
    if start.startswith(_XZ):
        return cast(BinaryIO, lzma.LZMAFile(raw))
    from pyzstd import DParameter, ZstdFile

    return cast(BinaryIO, ZstdFile(raw, level_or_option={DParameter.windowLogMax: 27}))


class ArchiveSink:
    """One archive file, written front to back under a temporary name and published when every image is in.

    `docker=True` writes both layouts at once (manifest.json and index.json), as Docker does since 25: every engine reads one.
    """

    traits = SinkTraits(keeps_digest=True)

    def __init__(self, path: Path, *, docker: bool, platform: Platform | None = None) -> None:
        self.where = f"the archive {path}"
        self._path, self._docker, self._platform = path, docker, platform or Platform("linux", "amd64")
        if not path.name or path.is_symlink() or (path.exists() and not path.is_file()):
            raise UsageError(f"{path} is not a plain file", hint="name a new file for the archive")
        sweep(path.parent, path.name)
        try:
            self._fd, self._temporary = begin(path)
        except OSError as error:
            raise from_os_error(error, f"writing {path}") from error
        self.platform = self._platform if docker else None
        self._written: set[Digest] = set()
        self._entries: list[dict[str, object]] = []
        self._saved: list[dict[str, object]] = []

    def taken(
        self, image: Image, names: Sequence[str], content: Content, beside: Collection[Digest]
    ) -> dict[str, Digest]:
        return {}

    def lacking(self, image: Image, content: Content) -> list[Descriptor] | None:
        return [layer for layer in image.layers if layer.digest not in self._written]

    def land(
        self, image: Image, names: Sequence[str], content: Content, settled: Callable[[], None] = no_matter
    ) -> Landed:
        saved = self._saved_entry(image, names, content) if self._docker else None
        missing = self.lacking(image, content) or []
        for layer in missing:
            self._put(layer.digest, layer.size, content.open(layer))
        for digest in image.documents:
            if digest not in self._written:
                data = content.document(digest)
                self._put(digest, len(data), iter([data]))
        for name in names:
            self._entries.append({**image.root.as_json(), "annotations": name_annotations(name)})
        if not names:
            self._entries.append(image.root.as_json())
        if saved:
            self._saved.append(saved)
        return Landed(
            image, "imported", image.root.digest, tuple(names), len(missing), len(image.layers) - len(missing)
        )

    def _saved_entry(self, image: Image, names: Sequence[str], content: Content) -> dict[str, object]:
        """The manifest.json entry: one platform, tags only where Docker would take them."""
        own = image.platforms[0] if len(image.platforms) == 1 else self._platform
        chosen = platform_image(image, content.document, own)
        tags = [Reference.parse(name).familiar for name in names if is_name(name)]
        layers = [_blob_name(layer.digest) for layer in chosen.layers]
        return {"Config": _blob_name(chosen.config.digest), "RepoTags": tags or None, "Layers": layers}

    def _put(self, digest: Digest, size: int, data: Iterator[bytes]) -> None:
        self._member(_blob_name(digest), size, data)
        self._written.add(digest)

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


def _blob_name(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"
