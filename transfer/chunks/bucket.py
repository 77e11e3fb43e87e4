"""New chunks gather by kind until a frame's worth is there, then leave sorted. Order in gives order out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from transfer.chunks.name import Kind, Label
from transfer.model import ChunkId

FRAME_RAW = 32 << 20
"""A bucket is flushed when it holds this much (bytes, uncompressed)."""
GATHER_MAX = 96 << 20
"""All buckets together hold at most this much; the fullest is flushed when it is spent."""
FRAME_CHUNKS = 1 << 16


@dataclass(frozen=True, slots=True)
class Gathered:
    """One chunk in a bucket. `data` is None when its bytes are known to be in a frame of an earlier run."""

    order: tuple[bytes, bytes]
    name: ChunkId
    size: int
    data: bytes | None


class Buckets:
    """The gathering place. `flush` gets a kind and its chunks, sorted, each time a frame is full."""

    def __init__(self, flush: Callable[[Kind, list[Gathered]], None]) -> None:
        self._flush = flush
        self._full: dict[Kind, list[Gathered]] = {}
        self._sizes: dict[Kind, int] = {}
        self._total = 0

    def add(self, name: ChunkId, size: int, data: bytes | None, label: Label) -> None:
        kind = label.kind
        held = self._sizes.get(kind, 0)
        if held and held + size > FRAME_RAW:
            self._empty(kind)
        bucket = self._full.setdefault(kind, [])
        bucket.append(Gathered(label.order, name, size, data))
        self._sizes[kind] = self._sizes.get(kind, 0) + size
        self._total += size
        if len(bucket) >= FRAME_CHUNKS:
            self._empty(kind)
        while self._total > GATHER_MAX:
            self._empty(max(self._sizes, key=lambda each: (self._sizes[each], each)))

    def finish(self) -> None:
        """Flush what is left, in the order of the kinds."""
        for kind in sorted(self._full):
            self._empty(kind)

    def _empty(self, kind: Kind) -> None:
        chunks = self._full.pop(kind, [])
        self._total -= self._sizes.pop(kind, 0)
        if chunks:
            chunks.sort(key=lambda each: each.order)
            self._flush(kind, chunks)
