"""Frames: chunks compressed together, self-describing on disk (FORMAT.md, "Frame")."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import NamedTuple

import pyzstd

from transfer.chunks import difference
from transfer.chunks.name import ID_SIZE, Kind, stored_kind
from transfer.chunks.varint import get_varints, put_varints
from transfer.errors import Damaged, FormatError, Unsupported
from transfer.model import ChunkId

FRAME_MAGIC = b"FRM1"
FRAME_RAW_MAX = 64 << 20
"""Largest frame a reader accepts, uncompressed (bytes)."""
FRAME_HEADER_MAX = 16 << 20
FRAME_CHUNKS_MAX = 1 << 20
WINDOW_LOG_MAX = 27
TAKE = 256 << 10
"""How much is decompressed in one go (bytes): large enough to let other threads run meanwhile."""

STORED, ZSTD, DIFFERENCE = 0, 1, 2

_FIXED = struct.Struct("<4sIBBHIIIII")
_CRC = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """What stands before a frame's bytes in a pack. Sizes in bytes; `sizes` are the chunks', in order.

    `prefix` names the chunks whose bytes, end to end, are the zstd prefix of this frame (none: a plain frame).
    """

    kind: int
    codec: int
    raw_size: int
    packed_size: int
    sizes: tuple[int, ...]
    prefix: tuple[ChunkId, ...]
    data_crc: int
    header_size: int

    def encode(self) -> bytes:
        body = b"".join((put_varints(self.sizes), b"".join(self.prefix)))
        size = _FIXED.size + len(body) + _CRC.size
        fixed = _FIXED.pack(
            FRAME_MAGIC,
            size,
            self.kind,
            self.codec,
            0,
            len(self.sizes),
            self.raw_size,
            self.packed_size,
            len(self.prefix),
            self.data_crc,
        )
        return fixed + body + _CRC.pack(zlib.crc32(fixed + body))


def header_length(start: bytes, where: str) -> int:
    """The whole header's length, from a frame's first 8 bytes. FormatError if no frame starts there."""
    if len(start) < 8 or start[:4] != FRAME_MAGIC:
        raise FormatError(f"{where}: no frame starts here")
    size = int.from_bytes(start[4:8], "little")
    if not _FIXED.size + _CRC.size <= size <= FRAME_HEADER_MAX:
        raise FormatError(f"{where}: bad frame header length {size}")
    return size


def parse_frame_header(data: bytes, where: str) -> FrameHeader:
    """From exactly the header's bytes. FormatError if damaged, Unsupported for an unknown codec or flag."""
    if header_length(data, where) != len(data):
        raise FormatError(f"{where}: cut short")
    if zlib.crc32(data[: -_CRC.size]) != _CRC.unpack(data[-_CRC.size :])[0]:
        raise FormatError(f"{where}: the frame header is damaged (CRC)")
    _, size, kind, codec, flags, chunks, raw_size, packed_size, prefixes, data_crc = _FIXED.unpack_from(data)
    if codec not in (STORED, ZSTD, DIFFERENCE) or flags:
        raise Unsupported(f"{where}: a frame with codec {codec} and flags {flags:#x}, which this version does not know")
    body = data[: -_CRC.size]
    if codec == DIFFERENCE and (raw_size > difference.RAW_MAX or not prefixes):
        raise FormatError(f"{where}: a difference beyond the limits")
    if raw_size > FRAME_RAW_MAX or packed_size > FRAME_RAW_MAX * 2 or chunks > FRAME_CHUNKS_MAX:
        raise FormatError(f"{where}: a frame beyond the limits")
    sizes, at = get_varints(body, _FIXED.size, chunks, where)
    if at + prefixes * ID_SIZE != len(body) or sum(sizes) != raw_size or (chunks and not min(sizes)):
        raise FormatError(f"{where}: the frame header contradicts itself")
    prefix = tuple(ChunkId(body[i : i + ID_SIZE]) for i in range(at, len(body), ID_SIZE))
    return FrameHeader(kind, codec, raw_size, packed_size, tuple(sizes), prefix, data_crc, size)


class _Table(NamedTuple):
    """zstd's search at level 3: log2 of the window (bytes) and of the entries of its long and short hash tables, and the shortest match.

    Without a short table (0) it is the plain fast search in the long one.
    """

    window: int
    long: int
    short: int
    match: int

    def search(self) -> dict[int, int]:
        """As zstd's parameters, without the window."""
        return {
            pyzstd.CParameter.strategy: pyzstd.Strategy.dfast if self.short else pyzstd.Strategy.fast,
            pyzstd.CParameter.hashLog: self.long,
            pyzstd.CParameter.chainLog: self.short,
            pyzstd.CParameter.minMatch: self.match,
        }


_TABLES = {
    Kind.SKELETON: _Table(23, 18, 16, 5),
    Kind.ELF: _Table(23, 17, 0, 6),
    Kind.BYTECODE: _Table(23, 17, 13, 4),
    Kind.TEXT: _Table(24, 17, 12, 5),
    Kind.OTHER: _Table(24, 17, 0, 6),
    Kind.ARCHIVE: _Table(23, 17, 0, 5),
    Kind.CATALOG: _Table(25, 20, 18, 7),
    Kind.RESIDUAL: _Table(23, 17, 0, 5),
}
"""By kind, what it costs least to find most with (docs/decisions/0002). The catalog's holds at any level."""


def options(level: int, size: int, kind: Kind = Kind.OTHER) -> dict[int, int]:
    """zstd parameters of a full frame; the same level, size and kind give the same bytes.

    Up to level 8 the window is 8 MiB (a quarter of a frame is 10 % faster than all of it and 0.4 % larger), but larger for text and others
    at level 3, where it costs nothing. From 9 on, time is less of an object and long-distance matching is on.
    """
    fitting = max(10, (max(size, 1) - 1).bit_length())
    out: dict[int, int] = {
        pyzstd.CParameter.compressionLevel: level,
        pyzstd.CParameter.windowLog: min(23 if level < 9 else WINDOW_LOG_MAX, fitting),
        pyzstd.CParameter.contentSizeFlag: 1,
        pyzstd.CParameter.checksumFlag: 0,
    }
    if size > 1 << 20:
        if level == 3 or kind == Kind.CATALOG:
            table = _TABLES[kind]
            out |= {pyzstd.CParameter.windowLog: min(table.window, fitting), **table.search()}
        elif level >= 9:
            out |= {pyzstd.CParameter.enableLongDistanceMatching: 1}
        if 9 <= level <= 12:
            out |= {pyzstd.CParameter.hashLog: 22, pyzstd.CParameter.chainLog: 22}
        if level == 9:
            out |= {pyzstd.CParameter.searchLog: 6}
    return out


_FAST = 3
"""What a table is an excerpt of: in others zstd may set other things, such as leaving literals as they are."""
PATCH_LEVEL = 9
"""The least level of a patched frame: nearly all of it is matches, so that it costs little."""
PATCH_FAST = 5
"""Up to this level a patched frame is made a third as expensive, by tables that are filled with every third position of the prefix: 5 % larger."""
PATCH_LAZY = 12
"""The last level of zstd whose search is lazy."""
PATCH_HASH = 23
"""Above it, log2 of the entries of zstd's hash table: with its own 2^22 or fewer a match farther back than 4 MiB is not found (docs/decisions/0015)."""
_FAR, _NEAR = _Table(WINDOW_LOG_MAX, 21, 19, 6), _Table(WINDOW_LOG_MAX, 20, 0, 7)
"""How matches are then searched for, in a base and in the same bundle (docs/decisions/0005 and 0009)."""
PLAIN_FROM = 4
"""A patched frame of more than a fourth of its bytes is compressed plainly as well, and the smaller of the two is kept."""
_WORTH, _POOR = 0.95, 0.5
"""How much smaller a difference has to be than a patch; and what part of its bytes a patched frame has that may be an array of numbers."""
PREFIX_MIN = 8
"""Shorter prefixes (bytes) have no meaning for zstd."""


def encode_frame(
    kind: Kind,
    raw: bytes | memoryview,
    sizes: Sequence[int],
    level: int,
    names: Sequence[ChunkId] = (),
    prefix: bytes = b"",
    *,
    near: bool = False,
) -> tuple[FrameHeader, bytes]:
    """Compress chunks, given end to end, into one frame: its header and its bytes. Stored where zstd gains nothing.

    In one call: fed piece by piece, zstd ends a block at every 128 KiB and the frame grows by half a percent. With a `prefix` (the bytes
    of the chunks `names`) it is patched against that, unless plain is smaller. `near`: the prefix is known to be like it, so that plain
    is not tried.
    """
    packed, used = b"", tuple(names) if len(prefix) >= PREFIX_MIN else ()
    if used:
        packed = _patch(raw, level, prefix, _NEAR if near else _FAR)
    if not used or (not near and len(packed) * PLAIN_FROM > len(raw)):
        plain = pyzstd.compress(raw, options(level, len(raw), stored_kind(kind)))
        if not used or len(plain) <= len(packed):
            packed, used = plain, ()
    codec = ZSTD
    width = _width(kind, raw, len(packed)) if names and not near and len(prefix) >= PREFIX_MIN else 0
    if width:
        patch = partial(_patch, level=level, prefix=prefix, table=_FAR)
        other = difference.encode(bytes(raw), prefix, patch, level, width)
        if len(other) < _WORTH * len(packed):
            codec, packed, used = DIFFERENCE, other, tuple(names)
    if len(packed) >= len(raw):
        codec, packed, used = STORED, bytes(raw), ()
    return FrameHeader(
        int(stored_kind(kind)), codec, len(raw), len(packed), tuple(sizes), used, zlib.crc32(packed), 0
    ), packed


def _width(kind: Kind, raw: bytes | memoryview, packed: int) -> int:
    """Whether a frame is to be tried as a difference as well, and of values of how many bytes; 0 for no (docs/decisions/0015)."""
    if len(raw) > difference.RAW_MAX:
        return 0
    if kind == Kind.GO:
        return 1
    return difference.width_of(bytes(raw)) if kind == Kind.OTHER and packed > _POOR * len(raw) else 0


def _patch(raw: bytes | memoryview, level: int, prefix: bytes, table: _Table) -> bytes:
    """Compressed with the window over prefix and content (docs/decisions/0005).

    The slowest searches choose by what a match costs, and miss some that a lazy one takes: the smaller of the two is kept.
    """
    if level > PATCH_LAZY:
        return min(_searched(raw, level, prefix, table), _searched(raw, PATCH_LAZY, prefix, table), key=len)
    return _searched(raw, level, prefix, table)


def _searched(raw: bytes | memoryview, level: int, prefix: bytes, table: _Table) -> bytes:
    window = min(WINDOW_LOG_MAX, max(10, (len(raw) + len(prefix) - 1).bit_length()))
    settings: dict[int, int] = {
        pyzstd.CParameter.compressionLevel: _FAST if level <= PATCH_FAST else max(level, PATCH_LEVEL),
        pyzstd.CParameter.windowLog: window,
        pyzstd.CParameter.contentSizeFlag: 1,
        pyzstd.CParameter.checksumFlag: 0,
    }
    if level <= PATCH_FAST:
        settings |= table.search()
    else:
        settings |= {pyzstd.CParameter.hashLog: PATCH_HASH}
    return pyzstd.compress(raw, settings, pyzstd.ZstdDict(prefix, is_raw=True).as_prefix)


def decode_frame(header: FrameHeader, packed: bytes, where: str, prefix: bytes = b"") -> Iterator[bytes]:
    """The frame's chunks, in order, never more than `header.raw_size` bytes. Damaged if they cannot be had.

    Only a window of the frame is in memory, and the chunks that the caller keeps.
    """
    if header.codec == STORED:
        if len(packed) != header.raw_size:
            raise Damaged(f"{where}: {len(packed)} bytes where the frame has {header.raw_size}")
        for start, size in zip(offsets(header.sizes), header.sizes, strict=True):
            yield packed[start : start + size]
        return
    if header.codec == DIFFERENCE:
        try:
            whole = difference.decode(packed, prefix, header.raw_size, where)
        except (pyzstd.ZstdError, EOFError) as error:
            raise Damaged(f"{where}: the compressed frame is damaged ({error})") from error
        for start, size in zip(offsets(header.sizes), header.sizes, strict=True):
            yield whole[start : start + size]
        return
    dictionary = pyzstd.ZstdDict(prefix, is_raw=True).as_prefix if len(prefix) >= PREFIX_MIN else None
    decoder = pyzstd.ZstdDecompressor(dictionary, {pyzstd.DParameter.windowLogMax: WINDOW_LOG_MAX})
    try:
        given = packed
        for group in _groups(header.sizes):
            size = sum(group)
            raw = decoder.decompress(given, size)
            given = b""
            while len(raw) < size:
                more = b"" if decoder.eof or decoder.needs_input else decoder.decompress(b"", size - len(raw))
                if not more:
                    raise Damaged(f"{where}: the compressed frame ends too early")
                raw += more
            if len(group) == 1:
                yield raw
                continue
            start = 0
            for each in group:
                yield raw[start : start + each]
                start += each
        if not decoder.eof and (given or not decoder.needs_input) and decoder.decompress(given, 1):
            raise Damaged(f"{where}: the compressed frame has more bytes than it should")
        if not decoder.eof or decoder.unused_data:
            raise Damaged(f"{where}: the compressed frame does not end where it should")
    except (pyzstd.ZstdError, EOFError) as error:
        raise Damaged(f"{where}: the compressed frame is damaged ({error})") from error


def _groups(sizes: Sequence[int]) -> Iterator[Sequence[int]]:
    """Neighbouring chunks that are decoded in one go: small ones together, large ones alone."""
    first, total = 0, 0
    for index, size in enumerate(sizes):
        if total and total + size > TAKE:
            yield sizes[first:index]
            first, total = index, 0
        total += size
    if total:
        yield sizes[first:]


def offsets(sizes: Sequence[int]) -> list[int]:
    """Where each chunk starts in the raw frame."""
    return [0, *accumulate(sizes)][: len(sizes)]
