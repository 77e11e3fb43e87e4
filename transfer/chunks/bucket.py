"""New chunks gather by kind until a frame's worth is there, in the order in which they come. Order in gives order out."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from transfer.chunks.name import Kind
from transfer.model import ChunkId

FRAME_RAW = 16 << 20
"""A bucket is flushed when it holds as much (bytes, uncompressed): so all of them together hold at most 96 MiB."""
FRAME_CHUNKS = 1 << 16
SPARE_BUFFERS = 3
"""Buffers kept for the next frames: the pages of a new one have to be cleared, which takes as long as filling it."""


def _buffer() -> mmap.mmap:
    """Memory of its own for a frame, in large pages where the system has them: half the system time, and given back whole."""
    buffer = mmap.mmap(-1, FRAME_RAW, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        buffer.madvise(mmap.MADV_HUGEPAGE)
    return buffer


@dataclass(slots=True)
class OpenFrame:
    """A frame to be: chunks end to end in `buffer`, their names and sizes (bytes).

    `holes` are the numbers of chunks whose bytes were not given: they are in a frame of an earlier run. `users` are those who have not
    done with the buffer.
    """

    kind: Kind
    buffer: mmap.mmap
    size: int = 0
    names: list[ChunkId] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    holes: list[int] = field(default_factory=list)
    users: int = 1


class Buckets:
    """The gathering place. `flush` gets each frame's worth as soon as it is there."""

    def __init__(self, flush: Callable[[OpenFrame], None]) -> None:
        self._flush = flush
        self._open: dict[Kind, OpenFrame] = {}
        self._lock = threading.Lock()
        self._spare: list[mmap.mmap] = []

    def add(self, name: ChunkId, size: int, data: bytes | memoryview | None, kind: Kind) -> OpenFrame:
        """Take a copy of the chunk, behind the last one of the frame that is given back; None for one whose bytes are at hand elsewhere."""
        bucket = self.room(kind, size)
        if data is None:
            bucket.holes.append(len(bucket.sizes))
        else:
            bucket.buffer[bucket.size : bucket.size + size] = data
        bucket.names.append(name)
        bucket.sizes.append(size)
        bucket.size += size
        return bucket

    def room(self, kind: Kind, size: int) -> OpenFrame:
        """The frame that takes the next chunk of this kind, if it has so many bytes. A full one is flushed."""
        bucket = self._open.get(kind)
        if bucket and (bucket.size + size > len(bucket.buffer) or len(bucket.sizes) >= FRAME_CHUNKS):
            self._empty(kind)
            bucket = None
        if bucket is None:
            bucket = self._open[kind] = OpenFrame(kind, self._spare.pop() if self._spare else _buffer())
        return bucket

    def pop_last(self, reassembled: OpenFrame) -> bytes:
        """The bytes of the frame's last chunk, which is not to be in it after all."""
        reassembled.names.pop()
        end = reassembled.size
        reassembled.size = end - reassembled.sizes.pop()
        return reassembled.buffer[reassembled.size : end]

    def share(self, reassembled: OpenFrame) -> None:
        """One more keeps the frame's buffer, until it is `release` it."""
        with self._lock:
            reassembled.users += 1

    def release(self, reassembled: OpenFrame) -> None:
        """Somebody does not need a frame's buffer any more. From any thread."""
        with self._lock:
            reassembled.users -= 1
            if reassembled.users:
                return
            if len(self._spare) < SPARE_BUFFERS:
                self._spare.append(reassembled.buffer)
            else:
                reassembled.buffer.close()

    def finish(self) -> None:
        """Flush what is left, the largest first: so the last to be packed are small, and no thread waits long for another."""
        for kind in sorted(self._open, key=lambda each: (-self._open[each].size, each)):
            if self._open[kind].sizes:
                self._empty(kind)

    def _empty(self, kind: Kind) -> None:
        self._flush(self._open.pop(kind))
