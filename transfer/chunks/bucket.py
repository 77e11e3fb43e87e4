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
SPARE = 3
"""Buffers kept for the next frames: the pages of a new one have to be cleared, which takes as long as filling it."""


def _buffer() -> mmap.mmap:
    """Memory of its own for a frame, in large pages where the system has them: half the system time, and given back whole."""
    buffer = mmap.mmap(-1, FRAME_RAW, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        buffer.madvise(mmap.MADV_HUGEPAGE)
    return buffer


@dataclass(slots=True)
class Gathered:
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

    def __init__(self, flush: Callable[[Gathered], None]) -> None:
        self._flush = flush
        self._open: dict[Kind, Gathered] = {}
        self._lock = threading.Lock()
        self._spare: list[mmap.mmap] = []

    def add(self, name: ChunkId, size: int, data: bytes | memoryview | None, kind: Kind) -> Gathered:
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

    def room(self, kind: Kind, size: int) -> Gathered:
        """The frame that takes the next chunk of this kind, if it has so many bytes. A full one is flushed."""
        bucket = self._open.get(kind)
        if bucket and (bucket.size + size > len(bucket.buffer) or len(bucket.sizes) >= FRAME_CHUNKS):
            self._empty(kind)
            bucket = None
        if bucket is None:
            bucket = self._open[kind] = Gathered(kind, self._spare.pop() if self._spare else _buffer())
        return bucket

    def take_back(self, gathered: Gathered) -> bytes:
        """The bytes of the frame's last chunk, which is not to be in it after all."""
        gathered.names.pop()
        end = gathered.size
        gathered.size = end - gathered.sizes.pop()
        return gathered.buffer[gathered.size : end]

    def share(self, gathered: Gathered) -> None:
        """One more keeps the frame's buffer, until it is `done_with` it."""
        with self._lock:
            gathered.users += 1

    def done_with(self, gathered: Gathered) -> None:
        """Somebody does not need a frame's buffer any more. From any thread."""
        with self._lock:
            gathered.users -= 1
            if gathered.users:
                return
            if len(self._spare) < SPARE:
                self._spare.append(gathered.buffer)
            else:
                gathered.buffer.close()

    def finish(self) -> None:
        """Flush what is left, the largest first: so the last to be packed are small, and no thread waits long for another."""
        for kind in sorted(self._open, key=lambda each: (-self._open[each].size, each)):
            if self._open[kind].sizes:
                self._empty(kind)

    def _empty(self, kind: Kind) -> None:
        self._flush(self._open.pop(kind))
