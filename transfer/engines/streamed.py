"""Compressed archives: read from front to back, as often as their order demands, within bounds."""

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
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from transfer.engines.archived import Archive
from transfer.engines.base import (
    BlobStream,
    ResolvedImage,
    SourceTraits,
)
from transfer.engines.members import Forward, Member, follow, members, whole_member
from transfer.engines.savefile import Layer, named_digest, packed_as
from transfer.engines.savestream import KEPT_MAX, tail
from transfer.errors import Damaged, FormatError, NotFound, TransferError, from_os_error
from transfer.model import Descriptor, Digest
from transfer.streams import (
    BLOCK,
    MAX_DOCUMENT,
    Readable,
    open_plain,
)

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
SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")


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

    def _hashed(self, entry: Member, data: Readable, *, keep: bool) -> bytes:
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

    def _is_same(self, one: Member, other: Member) -> bool:
        return one.size == other.size and self._seen[one.at].digest == self._seen[other.at].digest

    def small(self, name: str) -> bytes:
        entry = self._find(name)
        if entry.name not in self._kept:
            self._fetch(entry)
        return self._kept[entry.name]

    def _fetch(self, wanted: Member) -> None:
        """Read the archive once more for a document that was not kept."""
        self._again += 1
        if self._again > AGAIN_MAX:
            raise FormatError(
                f"{self._path}: the archive has too many large documents",
                hint="decompress it and name the decompressed file",
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

    def read(self, images: Sequence[ResolvedImage]) -> Iterator[BlobStream]:
        layers = []
        for each in self._streams(images):
            if each.is_document:
                yield each
            elif each.descriptor is not None:
                layers.append(each.descriptor)
        yield from self._layers(layers)

    def close(self) -> None:
        """Each pass closes what it opened."""

    def _layers(self, wanted: list[Descriptor]) -> Iterator[BlobStream]:
        """These layers in this order, in as few passes as their places allow. What cannot be had is told where it is asked for."""
        todo: deque[tuple[Descriptor, Member]] = deque()
        for each in wanted:
            try:
                todo.append((each, self._member_of(each)))
            except TransferError as error:
                yield BlobStream(False, partial(_raise, error), each.digest, each.size)
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
                        yield BlobStream(False, partial(_same, data), layer.digest, entry.size)
                    elif entry.at in later and entry.at not in held and self._fits(entry, held):
                        held[entry.at] = b"".join(iter(partial(data.read, BLOCK), b""))
                yield from self._held(todo, held)
                if len(todo) == before:
                    raise Damaged(
                        f"{self._path}: the file changed while it was read", hint="run the same command again"
                    )
        for layer, entry in todo:
            why = (
                f"{self._path}: large layers stand in an order for which it would be read more than {PASSES_MAX} times"
            )
            refused = FormatError(why, hint="decompress it and name the decompressed file")
            yield BlobStream(False, partial(_raise, refused), layer.digest, entry.size)

    @staticmethod
    def _fits(entry: Member, held: dict[int, bytes]) -> bool:
        return entry.size <= HOLD_ONE and entry.size + sum(map(len, held.values())) <= HOLD_ALL

    @staticmethod
    def _held(todo: deque[tuple[Descriptor, Member]], held: dict[int, bytes]) -> Iterator[BlobStream]:
        """Those of the next layers that were kept."""
        while todo and todo[0][1].at in held:
            layer, entry = todo.popleft()
            yield BlobStream(False, partial(tail, held[entry.at]), layer.digest, entry.size)
            if all(each.at != entry.at for _, each in todo):
                del held[entry.at]


SMALL = 64 << 10
"""A member up to this size (bytes) may be a document whatever it begins with: artifacts have configs of every kind."""


def _raise(error: TransferError, start: int) -> Readable:
    raise error


def _same(stream: Readable, start: int) -> Readable:
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
                f"{self._path}: does not decompress: {error}", hint="the file is damaged or incomplete; get it again"
            ) from error
        self._out += len(data)
        if self._out > ALLOWED + MAX_RATIO * max(1, self._raw.tell()):
            raise FormatError(
                f"{self._path}: grows more than {MAX_RATIO} times when decompressed; refused as a decompression bomb",
                hint=_UNPACK,
            )
        if self._wide and self._out > WIDE_MAX:
            raise FormatError(f"{self._path}: packed with a window of more than 128 MiB (zstd --long)", hint=_UNPACK)
        return data

    def close(self) -> None:
        self._stream.close()
        self._raw.close()


_UNPACK = "if this is intended, decompress it yourself (zstd -d --long=31, xz -d, bzip2 -d, gunzip) and name the decompressed file"


def _decompressor(raw: BinaryIO) -> tuple[BinaryIO, bool]:
    """The content, and whether it is zstd with a window that takes much memory."""
    start = start_of(raw)
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
        if not SKIPPABLE.match(head):
            single = len(head) > 5 and head[4] & 0x20
            return 0 if single or len(head) < 6 or head[:4] != _ZSTD else 10 + (head[5] >> 3) + bool(head[5] & 7)
        at += 8 + int.from_bytes(head[4:8], "little")
    return 0


def start_of(file: BinaryIO) -> bytes:
    """How a file begins."""
    return os.pread(file.fileno(), 6, 0)
