"""New chunks gather by kind until a frame's worth is there, in the order in which they come. Order in gives order out."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass, field

from transfer.chunks.name import Kind
from transfer.model import ChunkId

LARGE_RAW, SMALL_RAW = 32 << 20, 16 << 20
FRAME_RAW = dict.fromkeys((Kind.ELF, Kind.TEXT, Kind.OTHER), LARGE_RAW)
"""A bucket is flushed when it holds as much (bytes, uncompressed): so all of them together hold at most 144 MiB."""
FRAME_CHUNKS = 1 << 16
SPARE = 3
"""Buffers kept for the next frames, one a kind that has large ones: the pages of a new one have to be cleared, which takes as long as filling it."""


def _buffer(size: int) -> mmap.mmap:
    """Memory of its own for a frame, in large pages where the system has them: half the system time, and given back whole."""
    buffer = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        buffer.madvise(mmap.MADV_HUGEPAGE)
    return buffer


@dataclass(slots=True)
class Gathered:
    """A frame to be: chunks end to end in `buffer`, their names and sizes (bytes).

    `holes` are the numbers of chunks whose bytes were not given: they are in a frame of an earlier run.
    """

    kind: Kind
    buffer: mmap.mmap
    size: int = 0
    names: list[ChunkId] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    holes: list[int] = field(default_factory=list)


class Buckets:
    """The gathering place. `flush` gets each frame's worth as soon as it is there."""

    def __init__(self, flush: Callable[[Gathered], None]) -> None:
        self._flush = flush
        self._open: dict[Kind, Gathered] = {}
        self._spare: list[mmap.mmap] = []

    def add(self, name: ChunkId, size: int, data: bytes | memoryview | None, kind: Kind) -> None:
        """Take a copy of the chunk; None for one whose bytes are at hand elsewhere."""
        bucket = self._open.get(kind)
        if bucket and (bucket.size + size > len(bucket.buffer) or len(bucket.sizes) >= FRAME_CHUNKS):
            self._empty(kind)
            bucket = None
        if bucket is None:
            bucket = self._open[kind] = Gathered(kind, self._memory(FRAME_RAW.get(kind, SMALL_RAW)))
        if data is None:
            bucket.holes.append(len(bucket.sizes))
        else:
            bucket.buffer[bucket.size : bucket.size + size] = data
        bucket.names.append(name)
        bucket.sizes.append(size)
        bucket.size += size

    def _memory(self, size: int) -> mmap.mmap:
        return self._spare.pop() if size == LARGE_RAW and self._spare else _buffer(size)

    def done_with(self, buffer: mmap.mmap) -> None:
        """A flushed frame's memory is not needed any more. From any thread."""
        if len(buffer) == LARGE_RAW and len(self._spare) < SPARE:
            self._spare.append(buffer)
        else:
            buffer.close()

    def finish(self) -> None:
        """Flush what is left, the largest first: so the last to be packed are small, and no thread waits long for another."""
        for kind in sorted(self._open, key=lambda each: (-self._open[each].size, each)):
            self._empty(kind)

    def _empty(self, kind: Kind) -> None:
        self._flush(self._open.pop(kind))
