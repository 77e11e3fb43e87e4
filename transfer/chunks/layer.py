"""A layer's tar, read strictly and as a stream: what is frame (headers, padding) and what is file content.

Nothing here can fail: what is not a tar as we know it is content too, from the first odd byte on, so that whatever comes
in comes out again byte for byte. Misreading costs only compression.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from transfer.chunks.name import CHUNK_MAX
from transfer.errors import FormatError
from transfer.streams import LAYER_BLOCK, Readable
from transfer.tarfmt import MAX_EXTENSION, RECORD, ZERO, padding, parse_header, parse_pax, pax_size

_SKELETON_PIECE = 1 << 20
_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL = b"LKxg"
_EXTENSIONS = frozenset(b"LKxg")


class Piece(NamedTuple):
    """Skeleton bytes, then content: `data` is `size` bytes' worth of file `path` from `offset` on.

    Files up to CHUNK_MAX come in one piece; of an unreadable rest the size is unknown (-1). `data` may be a view of a
    block that others share: whoever keeps it longer than a moment takes a copy.
    """

    skeleton: bytes
    path: bytes
    size: int
    offset: int
    data: bytes | memoryview


class _Input:
    """Exact-size takes over a block stream."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._block = b""
        self._at = 0

    def take(self, size: int) -> bytes:
        """`size` bytes, fewer only at the end of the stream."""
        at = self._at
        out = self._block[at : at + size]
        self._at = at + len(out)
        if len(out) == size:
            return out
        parts = [out]
        missing = size - len(out)
        while missing:
            self._block = self._stream.read(LAYER_BLOCK)
            if not self._block:
                self._at = 0
                break
            out = self._block[:missing]
            self._at = len(out)
            missing -= len(out)
            parts.append(out)
        return b"".join(parts)

    def view(self, size: int) -> bytes | memoryview:
        """`take`, without a copy where the bytes lie together."""
        at = self._at
        if at + size <= len(self._block):
            self._at = at + size
            return memoryview(self._block)[at : at + size]
        return self.take(size)

    def some(self, size: int) -> bytes | memoryview:
        """Between 1 and `size` bytes, without a copy; b"" at the end."""
        if self._at >= len(self._block):
            self._block, self._at = self._stream.read(LAYER_BLOCK), 0
        out = memoryview(self._block)[self._at : self._at + size]
        self._at += len(out)
        return out


def split(stream: Readable) -> Iterator[Piece]:
    """The layer as pieces, in order. The concatenation of skeletons and data is exactly the stream."""
    source = _Input(stream)
    skeleton = bytearray()
    path, size = b"", None
    while True:
        record = source.take(RECORD)
        member = parse_header(record) if len(record) == RECORD else None
        if member is None:
            if record == ZERO:
                skeleton += record
                if len(skeleton) >= _SKELETON_PIECE:
                    yield Piece(bytes(skeleton), b"", 0, 0, b"")
                    skeleton.clear()
                continue
            yield from _opaque(bytes(skeleton), record, source)
            return
        skeleton += record
        if member.kind in (_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL) and member.size <= MAX_EXTENSION:
            data = source.take(member.size + padding(member.size))
            skeleton += data
            try:
                if member.kind == _PAX:
                    records = parse_pax(data[: member.size])
                    path, size = records.get(b"path", path), pax_size(records)
            except FormatError:
                size = None
            if member.kind == _LONG_NAME:
                path = data[: member.size].rstrip(b"\0")
        else:
            length = member.size if size is None or member.kind in b"123456" else size
            if length:
                if length <= CHUNK_MAX:
                    yield Piece(bytes(skeleton), path or member.name, length, 0, source.view(length))
                else:
                    yield from _content(bytes(skeleton), path or member.name, length, source)
                skeleton.clear()
                skeleton += source.take(padding(length))
            path, size = b"", None
        if len(skeleton) >= _SKELETON_PIECE:
            yield Piece(bytes(skeleton), b"", 0, 0, b"")
            skeleton.clear()


def _content(skeleton: bytes, path: bytes, size: int, source: _Input) -> Iterator[Piece]:
    """A big file's bytes. If it is cut off by the end of the stream it just ends."""
    offset = 0
    while offset < size and (data := source.some(min(LAYER_BLOCK, size - offset))):
        yield Piece(skeleton, path, size, offset, data)
        skeleton = b""
        offset += len(data)


def _opaque(skeleton: bytes, first: bytes, source: _Input) -> Iterator[Piece]:
    """Everything from here to the end, as content of no known file."""
    yield Piece(skeleton, b"", -1, 0, first)
    offset = len(first)
    while data := source.some(LAYER_BLOCK):
        yield Piece(b"", b"", -1, offset, data)
        offset += len(data)


def last_path(skeleton: bytes) -> bytes:
    """What the last header of a stretch names: it ends with that header, and begins with the padding of the file before.

    Headers were checked when the stretch was made; a name misread costs only compression.
    """
    path, at, end = b"", len(skeleton) % RECORD, len(skeleton)
    while at < end - RECORD:
        kind = skeleton[at + 156]
        if kind not in _EXTENSIONS:
            path = b""
            at += RECORD
            continue
        member = parse_header(skeleton[at : at + RECORD])
        at += RECORD
        if member is None:
            continue
        data = skeleton[at : at + member.size]
        at += member.size + padding(member.size)
        if kind == _LONG_NAME:
            path = data.rstrip(b"\0")
        elif kind == _PAX:
            with contextlib.suppress(FormatError):
                path = parse_pax(data).get(b"path", path)
    if path or at + RECORD != end:
        return path
    name = skeleton[at : at + 100].partition(b"\0")[0]
    if skeleton[at + 345] and skeleton[at + 257 : at + 263] == b"ustar\0":
        name = skeleton[at + 345 : at + 500].partition(b"\0")[0] + b"/" + name
    return name


def raw(stream: Readable) -> Iterator[Piece]:
    """A blob that is not to be taken apart (a compressed layer): all of it content."""
    offset = 0
    while data := stream.read(LAYER_BLOCK):
        yield Piece(b"", b"", -1, offset, data)
        offset += len(data)
