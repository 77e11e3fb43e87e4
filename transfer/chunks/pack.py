"""Packs: files of frames. Written once and named by their sha256; read frame by frame, also when damaged."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from transfer.chunks.frame import (
    FRAME_MAGIC,
    FrameHeader,
    header_length,
    parse_frame_header,
)
from transfer.errors import Damaged, FormatError, Unsupported
from transfer.model import Digest
from transfer.streams import BLOCK, create, open_plain, pread, sync_folder, write_all

PACK_HEADER = b"\x89TPK\r\n\x1a\n" + (1).to_bytes(2, "little") + bytes(6)
"""Magic, version 1, no flags. The odd bytes show a file that went through a text-mode copy."""
PACK_SIZE = 64 << 20
"""A pack takes no further frame that would make it larger than this (bytes)."""
FRAMES_MAX = 1 << 22
"""Frames in all packs of a bundle (FORMAT.md, section 9)."""
BLOB_MAX = 256 << 20


@dataclass(frozen=True, slots=True)
class FrameLocation:
    """A frame and where its header starts in its pack (bytes)."""

    offset: int
    header: FrameHeader

    @property
    def data_offset(self) -> int:
        return self.offset + self.header.header_size

    @property
    def end(self) -> int:
        return self.data_offset + self.header.packed_size


class PackFile:
    """One pack being written, under a temporary name until `finish`. Without a path it is only weighed."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._fd = -1 if path is None else create(path)
        self._hash = hashlib.sha256()
        self.size = 0
        self.frames = 0
        self.raw = 0
        self._write(PACK_HEADER)

    def append(self, header: FrameHeader, packed: bytes) -> FrameLocation:
        """Write a frame; where it stands."""
        encoded = header.encode()
        offset = self.size
        self._write(encoded)
        self._write(packed)
        self.frames += 1
        self.raw += header.raw_size
        placed = FrameHeader(
            header.kind,
            header.codec,
            header.raw_size,
            header.packed_size,
            header.sizes,
            header.prefix,
            header.data_crc,
            len(encoded),
        )
        return FrameLocation(offset, placed)

    def _write(self, data: bytes) -> None:
        if self.path:
            write_all(self._fd, data)
        self._hash.update(data)
        self.size += len(data)

    def finish(self, blobs: Path) -> Digest:
        """Make it durable and give it its name in `blobs` (the folder of its sha256 blobs)."""
        digest = Digest("sha256:" + self._hash.hexdigest())
        if self.path is None:
            return digest
        os.fsync(self._fd)
        os.close(self._fd)
        os.replace(self.path, blobs / digest.hex)
        sync_folder(blobs)
        return digest


def pack_version(start: bytes, where: str) -> None:
    """Refuse what is not a pack of version 1."""
    if start[:8] != PACK_HEADER[:8]:
        raise FormatError(f"{where}: not a pack")
    if start[:16] != PACK_HEADER:
        version = int.from_bytes(start[8:10], "little")
        raise Unsupported(
            f"{where}: a pack of version {version}, flags {start[10:16].hex()}: this program reads version 1"
        )


def read_frame_header(fd: int, offset: int, where: str) -> FrameLocation:
    """The frame whose header starts at `offset`."""
    start = pread(fd, 4096, offset, where)
    length = header_length(start, where)
    if length > len(start):
        start += pread(fd, length - len(start), offset + len(start), where)
    if length > len(start):
        raise FormatError(f"{where}: cut short inside a frame header")
    return FrameLocation(offset, parse_frame_header(start[:length], where))


def read_packed(fd: int, placed: FrameLocation, where: str) -> bytes:
    """The frame's bytes as they stand in the pack, unchecked but complete."""
    size, parts = placed.header.packed_size, []
    at = placed.data_offset
    while size > 0:
        data = pread(fd, min(size, 8 << 20), at, where)
        if not data:
            raise Damaged(f"{where}: cut short, {size} bytes of a frame are missing")
        parts.append(data)
        at += len(data)
        size -= len(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def sound(header: FrameHeader, packed: bytes) -> bool:
    """Whether a frame's bytes came through unharmed: a CRC finds accidents; trust rests on the pack's digest and the chunks' names."""
    return len(packed) == header.packed_size and zlib.crc32(packed) == header.data_crc


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of a pack that holds no readable frame."""

    offset: int
    size: int
    why: str


def scan(path: Path) -> Iterator[FrameLocation | Gap]:
    """Every frame whose header can be read, in order, and the stretches between: works on any damage.

    After damage, the next frame magic with a sound header is looked for. Contents are not checked.
    """
    with open_plain(path) as file:
        fd, end = file.fileno(), os.fstat(file.fileno()).st_size
        try:
            pack_version(pread(fd, 16, 0, str(path)), str(path))
        except FormatError as error:
            yield Gap(0, min(end, len(PACK_HEADER)), error.message)
        at = len(PACK_HEADER)
        while at < end:
            try:
                placed = read_frame_header(fd, at, str(path))
            except FormatError as error:
                after = _next_magic(fd, at + 1, end, str(path))
                yield Gap(at, after - at, error.message)
                at = after
                continue
            if placed.end > end:
                yield Gap(at, end - at, f"{path}: cut short inside a frame")
                return
            yield placed
            at = placed.end


def _next_magic(fd: int, at: int, end: int, where: str) -> int:
    """Where the next sound frame header starts, or the end."""
    overlap = len(FRAME_MAGIC) - 1
    while at < end:
        block = pread(fd, BLOCK, at, where)
        found = block.find(FRAME_MAGIC)
        if found < 0:
            if len(block) <= overlap:
                return end
            at += len(block) - overlap
            continue
        at += found
        try:
            read_frame_header(fd, at, where)
            return at
        except FormatError:
            at += 1
    return end
