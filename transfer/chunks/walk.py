"""Files that are compressed inside, walked from their beginning: skeleton, content, and the deflate streams of a zip or a gzip file.

What is not understood is content as it is, from there to the file's end. Nothing here can fail: misreading costs only compression.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from transfer.chunks import nested
from transfer.chunks.layer import Piece
from transfer.chunks.name import CHUNK_MAX

STREAM_MAX = CHUNK_MAX
"""A stream of more plain bytes is a long one, which is handed on while it is inflated."""
PACKED_MAX = 8 << 20
"""A stream of more bytes that is no long one is none that anybody made on purpose."""
ZIP_MIN, GZIP_MIN = 64 << 10, 2 << 20
"""Smaller files are left as they are: most are changelogs of packages, at gzip's slowest level, which take more time than all else in an export."""
GROWTH = 20
"""Plain bytes for each packed one, beyond which a file takes of the room."""
_TINY = 32
"""Streams of fewer bytes are skeleton: what tells of them would be hardly less."""
_BLOCK = 1 << 14
_SKELETON_MAX = 1 << 20
_GZIP_HEADER_MAX = 4096
_TRAILER = 8
_NO_TAILS = (b"", b"")


@dataclass(slots=True)
class Stream:
    """A deflate stream: its bytes, what they hold, and its path; `before` is the skeleton in front of it.

    `tails` are what a zip may have behind it. Of a long one `packed` and `plain` are what was inflated so far; whoever takes it goes on
    with `inflater`, and puts the `tails` right at the end.
    """

    before: bytes
    path: bytes
    packed: bytes
    plain: bytes
    tails: tuple[bytes, bytes]
    inflater: Any = None

    @property
    def is_long(self) -> bool:
        return self.inflater is not None


Item: TypeAlias = Piece | Stream
Walk: TypeAlias = Callable[["File"], Iterator[Item]]


class Pieces:
    """A layer's pieces, one by one."""

    def __init__(self, pieces: Iterator[Piece]) -> None:
        self._pieces = pieces
        self._next: Piece | None = None

    def __iter__(self) -> Iterator[Piece]:
        while (piece := self._take()) is not None:
            yield piece

    def more(self) -> Piece | None:
        """The next piece of the file that goes on; None if it is over."""
        piece = self._take()
        if piece is not None and not piece.offset:
            self._next = piece
            return None
        return piece

    def _take(self) -> Piece | None:
        piece, self._next = self._next, None
        return piece or next(self._pieces, None)


class File:
    """A file's bytes, as its pieces bring them; the pieces are kept until it is sure that they are not needed. `room`: plain bytes beyond GROWTH."""

    def __init__(self, first: Piece, pieces: Pieces, room: int) -> None:
        self.path, self.skeleton = first.path, first.skeleton
        self._pieces, self._kept = pieces, [first]
        self._is_kept = True
        self._block: bytes | memoryview = first.data
        self._at = 0
        self._room = room
        self._packed = self._plain = 0
        self.has_read = len(first.data)
        self.is_broken = False

    def _more(self) -> bytes | memoryview:
        piece = self._pieces.more()
        if piece is None:
            return b""
        if self._is_kept:
            self._kept.append(piece)
        self.has_read += len(piece.data)
        return piece.data

    def peek(self, size: int) -> bytes:
        """The next bytes, fewer only at the end."""
        while len(self._block) - self._at < size and (more := self._more()):
            self._block = b"".join((self._block[self._at :], more))
            self._at = 0
        return bytes(self._block[self._at : self._at + size])

    def take(self, size: int) -> bytes:
        """So many bytes, fewer only at the end."""
        out = self.peek(size)
        self._at += len(out)
        return out

    def some(self, size: int) -> memoryview:
        """Between 1 and `size` bytes, none at the end; as many of them may be given `back`."""
        if self._at >= len(self._block):
            self._block, self._at = self._more(), 0
        out = memoryview(self._block)[self._at : self._at + size]
        self._at += len(out)
        return out

    def back(self, size: int) -> None:
        self._at -= size

    def believe(self) -> None:
        """Its pieces are not asked for any more."""
        self._is_kept = False
        self._kept.clear()

    def as_it_was(self) -> Iterator[Piece]:
        """Its pieces, as they came."""
        yield from self._kept
        while (piece := self._pieces.more()) is not None:
            yield piece

    def grow(self, packed: int, plain: int) -> bool:
        """So much was inflated. Whether it may be."""
        self._packed += packed
        self._plain += plain
        return self.excess <= self._room

    @property
    def excess(self) -> int:
        return max(0, self._plain - GROWTH * self._packed)


def walk_of(head: bytes, size: int) -> Walk | None:
    """How a file of so many bytes is walked that begins with these 4 bytes; None where it is not to be."""
    if head == nested.LOCAL:
        return _zip if size >= ZIP_MIN else None
    return _gzip if head.startswith(nested.GZIP) and size >= GZIP_MIN else None


def _zip(file: File) -> Iterator[Item]:
    skeleton, stored = bytearray(file.skeleton), b""
    while True:
        if len(skeleton) > _SKELETON_MAX:
            yield Piece(bytes(skeleton), b"", 0, 0, b"")
            skeleton.clear()
        head = file.peek(nested.RECORD_HEAD)
        entry = nested.local_header(head)
        if entry is None:
            size = nested.record_size(head)
            if not size:
                break
            if nested.is_end(head):
                stored = b""
            skeleton += file.take(size)
            continue
        header = file.take(entry.size)
        skeleton += header
        path = nested.inner_path(file.path, stored, nested.name_of(header))
        if entry.is_deflate:
            found = _inflated(file, bytes(skeleton), path)
            if isinstance(found, Stream):
                skeleton.clear()
                yield found
                if file.is_broken:
                    break
            elif found.is_sound:
                skeleton += found.taken
            else:
                yield from _rest(file, bytes(skeleton), found.taken)
                return
            skeleton += file.take(nested.descriptor_size(file.peek(nested.DESCRIPTOR_MAX), found.tails))
        elif not stored and nested.holds_zip(header, file.peek(4)):
            stored = nested.name_of(header)
        elif entry.packed is None:
            size = nested.descriptor_size(file.peek(nested.DESCRIPTOR_MAX), tails(0, 0, 0))
            if not size:
                break
            skeleton += file.take(size)
        elif entry.packed:
            yield from _content(file, bytes(skeleton), path, entry.packed)
            skeleton.clear()
    yield from _rest(file, bytes(skeleton))


def _gzip(file: File) -> Iterator[Item]:
    before = file.skeleton
    while size := nested.gzip_header_size(file.peek(_GZIP_HEADER_MAX)):
        before += file.take(size)
        found = _inflated(file, before, file.path + b"!")
        if isinstance(found, Stream):
            yield found
            before = b""
            if file.is_broken:
                break
        elif found.is_sound:
            before += found.taken
        else:
            yield from _rest(file, before, found.taken)
            return
        before += file.take(_TRAILER)
    yield from _rest(file, before)


class _Bytes(NamedTuple):
    """What was taken and is no stream to unfold: a sound one that is too small, and its tails, or else the beginning of something else."""

    taken: bytes
    is_sound: bool
    tails: tuple[bytes, bytes] = _NO_TAILS


def tails(crc: int, packed: int, plain: int) -> tuple[bytes, bytes]:
    """How a zip repeats a stream's CRC and sizes behind it: with sizes of 4 bytes, and of 8."""
    head, sizes = crc.to_bytes(4, "little"), (packed, plain)
    short, long = (head + b"".join((each & (1 << 8 * n) - 1).to_bytes(n, "little") for each in sizes) for n in (4, 8))
    return short, long


def _inflated(file: File, before: bytes, path: bytes) -> Stream | _Bytes:
    """The stream that begins here."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    packed, plain = bytearray(), bytearray()
    while not inflater.eof and len(plain) <= STREAM_MAX:
        used, more = inflate(inflater, file, _BLOCK, STREAM_MAX + 1 - len(plain))
        packed += used
        plain += more
        if not (used or more) or len(packed) > PACKED_MAX:
            return _Bytes(bytes(packed), False)
    if not file.grow(len(packed), len(plain)):
        return _Bytes(bytes(packed), False)
    if not inflater.eof:
        return Stream(before, path, bytes(packed), bytes(plain), _NO_TAILS, inflater)
    ends = tails(zlib.crc32(plain), len(packed), len(plain))
    if len(packed) < _TINY or not plain:
        return _Bytes(bytes(packed), True, ends)
    return Stream(before, path, bytes(packed), bytes(plain), ends)


def inflate(inflater: Any, file: File, size: int, room: int) -> tuple[bytes, bytes]:
    """Some packed bytes of the file, at most `size`, and what they hold, at most `room` bytes of it; nothing of either where the stream goes wrong."""
    block = file.some(size)
    try:
        plain = inflater.decompress(block, room)
    except zlib.error:
        file.back(len(block))
        return b"", b""
    left = len(inflater.unused_data if inflater.eof else inflater.unconsumed_tail)
    file.back(left)
    return bytes(block[: len(block) - left]), plain


def _content(file: File, skeleton: bytes, path: bytes, size: int) -> Iterator[Piece]:
    """So many bytes as they are."""
    if size <= CHUNK_MAX:
        whole = file.take(size)
        yield Piece(skeleton, path, len(whole), 0, whole)
        return
    offset = 0
    while offset < size and len(data := file.some(min(CHUNK_MAX, size - offset))):
        yield Piece(skeleton, path, size, offset, data)
        skeleton = b""
        offset += len(data)
    if skeleton:
        yield Piece(skeleton, b"", 0, 0, b"")


def _rest(file: File, skeleton: bytes, taken: bytes = b"") -> Iterator[Piece]:
    """What is left of the file, as it is; `taken` comes before it."""
    offset = 0
    data = memoryview(taken) if taken else file.some(CHUNK_MAX)
    while len(data):
        yield Piece(skeleton, file.path, -1, offset, data)
        skeleton = b""
        offset += len(data)
        data = file.some(CHUNK_MAX)
    if skeleton:
        yield Piece(skeleton, b"", 0, 0, b"")
