"""Archive files: docker-archive (what `docker save` writes, old and new) and oci-archive. Source and sink."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import os
import re
import zlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from transfer.engines.base import (
    REMAKE,
    Content,
    Found,
    Landed,
    Offer,
    SinkTraits,
    SourceTraits,
    no_matter,
    offers,
    platform_image,
)
from transfer.engines.ocilayout import LAYOUT, REF_NAME, Broken, RootedSource, Roots, name_annotations
from transfer.engines.savefile import (
    KEPT_MAX,
    NO_ARCHIVE,
    NOT_READ,
    Entry,
    Forward,
    ForwardFile,
    Layer,
    SavedImages,
    follow,
    members,
    named_digest,
    packed_as,
    whole_member,
)
from transfer.errors import Damaged, FormatError, NotFound, TransferError, UsageError, from_os_error
from transfer.model import OCI_INDEX, Descriptor, Digest, Image, Platform, Reference, blob_path, is_name
from transfer.streams import (
    BLOCK,
    MAX_DOCUMENT,
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

MAX_RATIO, ALLOWED = 3000, 1 << 30
"""A compressed archive may grow to so many times its size, and by so many bytes more (zeros shrink far more than that in zstd, xz, bzip2)."""
HOLD_ONE, HOLD_ALL = 32 << 20, 64 << 20
"""Layers of a compressed archive that come before their turn are kept in memory up to this size (bytes), one and all together."""
AGAIN_MAX = 8
"""So often a compressed archive is read anew for documents that were not kept."""
PASSES_MAX = 4
"""So often it is read for layers that are too large to be kept and stand out of order."""
WINDOW_LOG_MAX, WIDE_MAX = 27, 256 << 20
"""zstd windows up to 2^27 are no matter; with a larger one (`zstd --long=28` to 31) so many bytes are read: memory goes with them."""
_GZIP, _BZIP2, _XZ, _ZSTD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"
_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")


def open_archive(path: Path) -> Archive:
    """A docker-archive or oci-archive, plain or compressed; which of them is seen from its content. The path may be a link."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder, and no archive", hint=f"--from oci:{path} reads an OCI layout")
    file = open_plain(path, follow=True)
    if packed_as(_start(file)) or _SKIPPABLE.match(_start(file)):
        file.close()
        return StreamedArchive(path)
    return ArchiveSource(path, file)


def _start(file: BinaryIO) -> bytes:
    return os.pread(file.fileno(), 6, 0)


class Archive(RootedSource, ABC):
    """What plain and compressed archives have in common: their images, found out of their lists."""

    def __init__(self, path: Path, where: str) -> None:
        self._path = path
        self._at: dict[str, Entry] = {}
        self._links: dict[str, str] = {}
        lists = self._look(where)
        if "manifest.json" not in lists and "index.json" not in lists:
            raise FormatError(f"{where}: neither manifest.json nor index.json in it", hint=NO_ARCHIVE)
        self._saved = SavedImages(lists.get("manifest.json"), lists.get("index.json"), self, where)
        images = self._saved.images
        entries = [
            Descriptor(each.root.media_type, each.root.digest, each.root.size, each.root.platform, {REF_NAME: name})
            for each in images
            if each.root
            for name in each.names or ("",)
        ]
        broken = [Broken(each.names, each.id, each.error) for each in images if each.error]
        super().__init__(where, Roots(entries, where, broken), self._open_blob)

    @abstractmethod
    def _look(self, where: str) -> dict[str, bytes]:
        """Go through all members once; the lists that are there, manifest.json and index.json. Of each the last counts, as for tar."""

    def _take(self, entry: Entry, where: str) -> None:
        """Note a member. One that stands there again has to be the same again, but for the lists."""
        if entry.link is not None:
            self._links[entry.name] = entry.link
            self._at.pop(entry.name, None)
            return
        self._links.pop(entry.name, None)
        before = self._at.get(entry.name)
        if before and entry.name not in LISTS and not self._is_same(before, entry):
            raise FormatError(f"{where}: {entry.name!r:.100} stands there twice, with other content", hint=REMAKE)
        self._at[entry.name] = entry

    @abstractmethod
    def _is_same(self, one: Entry, other: Entry) -> bool:
        """Whether two members have the same content."""

    def _find(self, name: str) -> Entry:
        found = self._at.get(follow(name, self._links, str(self._path)))
        if found is None:
            raise NotFound(
                f"{self._path}: {name!r:.100} is not in the archive", hint="it was not saved whole; save it again"
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
                f"{self.where}: {descriptor.digest} has {len(data)} bytes where its descriptor says {descriptor.size}"
            )
        return data

    def _member_of(self, descriptor: Descriptor) -> Entry:
        """Where a layer lies. Damaged if its size is another than its descriptor's."""
        name = self._saved.paths.get(descriptor.digest) or blob_path(descriptor.digest)
        entry = self._find(name)
        if entry.size != descriptor.size:
            raise Damaged(f"{self._path}: {name} has {entry.size} bytes where its descriptor says {descriptor.size}")
        return entry

    def _open_blob(self, descriptor: Descriptor) -> Readable:
        """A document that was read. What else there is to open, each kind of archive knows."""
        known = self._documents.get(descriptor.digest)
        if known is None:
            raise NotFound(f"{self.where}: {descriptor.digest} is not there")
        return io.BytesIO(known)


LISTS = frozenset({"manifest.json", "index.json", "repositories", "oci-layout", "version"})
"""Members that `tar -r` may have written anew: the last one counts."""


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

    def _is_same(self, one: Entry, other: Entry) -> bool:
        return one.size == other.size and self._hash(one) == self._hash(other)

    def _slice(self, entry: Entry) -> SliceReader:
        return SliceReader(self._file.fileno(), entry.at, entry.size, str(self._path))

    def _hash(self, entry: Entry) -> Digest:
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

    def _open_blob(self, descriptor: Descriptor) -> Readable:
        if self._documents.get(descriptor.digest) is not None:
            return super()._open_blob(descriptor)
        return self._slice(self._member_of(descriptor))

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the first pass learned of a member beside its size: the sha256 of its bytes, and how they begin."""

    digest: Digest
    head: bytes


class StreamedArchive(Archive):
    """A compressed archive: read from front to back, once to see what is in it, then for its layers.

    Layers are handed out in the order of the images, as everywhere, so that a bundle has the same bytes whatever form the images came in.
    One that stands before its turn is kept if it is small; for a large one the archive is read once more.
    """

    traits = SourceTraits(random_access=False, keeps_digest=True)

    def __init__(self, path: Path) -> None:
        self._seen: dict[int, _Seen] = {}
        self._kept: dict[str, bytes] = {}
        self._again = 0
        super().__init__(path, f"the compressed archive {path}")

    def _look(self, where: str) -> dict[str, bytes]:
        kept = 0
        lists: dict[str, bytes] = {}
        with contextlib.closing(_Inflated(self._path)) as stream:
            for entry, data in members(Forward(stream, where)):
                if entry.link is None:
                    small = entry.size <= min(MAX_DOCUMENT, KEPT_MAX - kept)
                    whole = self._hashed(entry, data, keep=small or entry.name in ("manifest.json", "index.json"))
                    if entry.name in ("manifest.json", "index.json"):
                        lists[entry.name] = whole_member(entry, io.BytesIO(whole), where)
                    elif (small and whole.lstrip()[:1] in (b"{", b"[")) or 0 < len(whole) <= SMALL:
                        kept += len(whole)
                        self._kept[entry.name] = whole
                self._take(entry, where)
        for name in ("manifest.json", "index.json"):
            if self._links.get(name):
                lists[name] = self.small(name)
        return lists

    def _hashed(self, entry: Entry, data: Readable, *, keep: bool) -> bytes:
        """A member's bytes, if they are to be kept and few; its digest and beginning are noted."""
        hasher = hashlib.sha256()
        held, head = bytearray(), b""
        while block := data.read(BLOCK):
            hasher.update(block)
            head = (head + block)[:6] if len(head) < 6 else head
            if keep and entry.size <= MAX_DOCUMENT:
                held += block
        self._seen[entry.at] = _Seen(Digest("sha256:" + hasher.hexdigest()), head)
        return bytes(held)

    def _is_same(self, one: Entry, other: Entry) -> bool:
        return one.size == other.size and self._seen[one.at].digest == self._seen[other.at].digest

    def small(self, name: str) -> bytes:
        entry = self._find(name)
        if entry.name not in self._kept:
            self._fetch(entry)
        return self._kept[entry.name]

    def _fetch(self, wanted: Entry) -> None:
        """Read the archive once more for a document that was not kept."""
        self._again += 1
        if self._again > AGAIN_MAX:
            raise FormatError(
                f"{self._path}: too many and too large documents", hint="decompress it, and name the plain archive"
            )
        with contextlib.closing(_Inflated(self._path)) as stream:
            for entry, data in members(Forward(stream, str(self._path))):
                if entry.at == wanted.at:
                    self._kept[wanted.name] = whole_member(entry, data, str(self._path))
                    return
        raise NotFound(f"{self._path}: {wanted.name!r:.100} is not in the archive any more")

    def layer(self, name: str) -> Layer:
        entry = self._find(name)
        seen = self._seen[entry.at]
        named = named_digest(follow(name, self._links, str(self._path)))
        return Layer(named or seen.digest, entry.size, packed_as(seen.head))

    def read(self, found: Sequence[Found]) -> Iterator[Offer]:
        trees = [self._tree(each.root, each.platform) for each in found if each.root]
        layers = []
        for offer in offers(trees, self._open_blob):
            if offer.document:
                yield offer
            elif offer.digest is not None and offer.size is not None:
                layers.append(Descriptor("", offer.digest, offer.size))
        yield from self._layers(layers)

    def _layers(self, wanted: list[Descriptor]) -> Iterator[Offer]:
        """These layers in this order, in as few passes as their places allow. What cannot be had is told where it is asked for."""
        todo: deque[tuple[Descriptor, Entry]] = deque()
        for each in wanted:
            try:
                todo.append((each, self._member_of(each)))
            except TransferError as error:
                yield Offer(False, partial(_raise, error), each.digest, each.size)
        held: dict[int, bytes] = {}
        for _ in range(PASSES_MAX):
            if not todo:
                return
            with contextlib.closing(_Inflated(self._path)) as stream:
                before = len(todo)
                later = {entry.at for _, entry in todo}
                for entry, data in members(Forward(stream, self.where)):
                    yield from self._held(todo, held)
                    if not todo:
                        return
                    layer, place = todo[0]
                    if entry.at == place.at:
                        todo.popleft()
                        yield Offer(False, partial(_same, data), layer.digest, entry.size)
                    elif entry.at in later and entry.at not in held and self._fits(entry, held):
                        held[entry.at] = b"".join(iter(partial(data.read, BLOCK), b""))
                yield from self._held(todo, held)
                if len(todo) == before:
                    raise Damaged(f"{self._path}: it has changed while it was read", hint="run the same command again")
        for layer, entry in todo:
            why = (
                f"{self._path}: large layers stand in an order for which it would be read more than {PASSES_MAX} times"
            )
            refused = FormatError(why, hint="decompress it, and name the plain archive")
            yield Offer(False, partial(_raise, refused), layer.digest, entry.size)

    @staticmethod
    def _fits(entry: Entry, held: dict[int, bytes]) -> bool:
        return entry.size <= HOLD_ONE and entry.size + sum(map(len, held.values())) <= HOLD_ALL

    @staticmethod
    def _held(todo: deque[tuple[Descriptor, Entry]], held: dict[int, bytes]) -> Iterator[Offer]:
        """Those of the next layers that were kept."""
        while todo and todo[0][1].at in held:
            layer, entry = todo.popleft()
            yield Offer(False, partial(io.BytesIO, held[entry.at]), layer.digest, entry.size)
            if all(each.at != entry.at for _, each in todo):
                del held[entry.at]


SMALL = 64 << 10
"""A member up to this size (bytes) may be a document whatever it begins with: artifacts have configs of every kind."""


def _raise(error: TransferError) -> Readable:
    raise error


def _same(stream: Readable) -> Readable:
    return stream


class _Inflated:
    """A compressed file's content, bounded: one level, limited growth, FormatError for what does not decompress."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._raw = open_plain(path, follow=True)
        self._stream, self._wide = _decompressor(self._raw)
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
        if self._out > ALLOWED + MAX_RATIO * max(1, self._raw.tell()):
            raise FormatError(
                f"{self._path}: grows more than {MAX_RATIO} times; refused as a decompression bomb", hint=_UNPACK
            )
        if self._wide and self._out > WIDE_MAX:
            raise FormatError(f"{self._path}: packed with a window of more than 128 MiB (zstd --long)", hint=_UNPACK)
        return data

    def close(self) -> None:
        self._stream.close()
        self._raw.close()


_UNPACK = "if it is what you want, decompress it yourself (zstd -d --long=31, xz -d, bzip2 -d, gunzip) and name the plain archive"


def _decompressor(raw: BinaryIO) -> tuple[BinaryIO, bool]:
    """The content, and whether it is zstd with a window that takes much memory."""
    start = _start(raw)
    if start.startswith(_GZIP):
        return cast(BinaryIO, gzip.GzipFile(fileobj=raw)), False
    if start.startswith(_BZIP2):
        return cast(BinaryIO, bz2.BZ2File(raw)), False
    if start.startswith(_XZ):
        return cast(BinaryIO, lzma.LZMAFile(raw)), False
    from pyzstd import DParameter, ZstdFile

    wide = _window_log(raw) > WINDOW_LOG_MAX
    return cast(
        BinaryIO, ZstdFile(raw, level_or_option={DParameter.windowLogMax: 31 if wide else WINDOW_LOG_MAX})
    ), wide


def _window_log(raw: BinaryIO) -> int:
    """Of the first frame that is not skipped (RFC 8878, 3.1.1.1.2): more than its window's log2 by less than one; 0 if it has none."""
    at = 0
    for _ in range(64):
        head = os.pread(raw.fileno(), 14, at)
        if not _SKIPPABLE.match(head):
            single = len(head) > 5 and head[4] & 0x20
            return 0 if single or len(head) < 6 or head[:4] != _ZSTD else 10 + (head[5] >> 3) + bool(head[5] & 7)
        at += 8 + int.from_bytes(head[4:8], "little")
    return 0


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
        layers = [blob_path(layer.digest) for layer in chosen.layers]
        return {"Config": blob_path(chosen.config.digest), "RepoTags": tags or None, "Layers": layers}

    def _put(self, digest: Digest, size: int, data: Iterator[bytes]) -> None:
        self._member(blob_path(digest), size, data)
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
