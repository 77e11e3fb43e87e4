"""Chunks in, frames out, in an order that depends on the chunks alone: plain ones, changes against a base, and programs like each other."""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import NamedTuple, Protocol, TypeAlias

from transfer.chunks.bucket import Buckets, OpenFrame
from transfer.chunks.folder import FolderChunks
from transfer.chunks.frame import FrameHeader, encode_frame, offsets
from transfer.chunks.name import Kind, stored_kind
from transfer.chunks.patch import BATCH_RAW, ChangedChunk, frames_of
from transfer.chunks.similar import RecentPrograms, SimilarChunk, SimilarGroup, eligible
from transfer.model import ChunkId
from transfer.work import OrderedPipeline, Pool

Packed: TypeAlias = tuple[FrameHeader, bytes, bytes]
"""A frame's header, its bytes, and the names of its chunks end to end."""


class New(NamedTuple):
    """A chunk that was new: name, size (bytes), kind, the base's chunks it is a version of, where in its file it stands (bytes), and the chunks of this bundle it is like."""

    name: ChunkId
    size: int
    kind: Kind
    partners: tuple[int, ...] = ()
    offset: int = 0
    similar: tuple[ChunkId, ...] = ()


class References(Protocol):
    """Older chunks by number, to patch new ones against."""

    def frame_of(self, number: int) -> int: ...

    def size_of(self, number: int) -> int: ...

    def name_of(self, number: int) -> ChunkId: ...

    def fetch(self, plan: array[int]) -> Iterator[bytes]: ...


class Packer:
    """Gathers chunks and packs them, each on one of three roads. `deliver` gets the frames, in order, in the thread that adds.

    `kept` has the frames of an earlier run, which are not made anew. `similar`: programs that share code are patched against each other.
    """

    def __init__(
        self,
        deliver: Callable[[Packed], None],
        kept: FolderChunks,
        *,
        level: int,
        pool: Pool,
        ahead: int,
        base: References | None = None,
        similar: bool = False,
    ) -> None:
        self._deliver, self._kept, self._level, self._pool, self._base = deliver, kept, level, pool, base
        self._changes: list[ChangedChunk] = []
        self._changed = 0
        self._buckets = Buckets(self._flush)
        self._recent = RecentPrograms(self._buckets, kept.get) if similar else None
        self._siblings = SimilarGroup()
        self._lane: OrderedPipeline[Packed] = OrderedPipeline(pool, ahead, deliver)
        self._ahead = ahead
        self._batches = Pool(1 if pool.threaded else 0, "patch")
        self._patching: Future[list[Packed]] | None = None
        self.bytes_reused = 0

    @property
    def state(self) -> str:
        """What it depends on which programs the next ones are found to be like: the same state finds the same."""
        return self._recent.state if self._recent else ""

    def add(self, name: ChunkId, data: bytes | memoryview, kind: Kind, partners: tuple[int, ...], offset: int) -> New:
        """Take a copy of a chunk (see ChunkSink). What became of it, so that `again` can do the same."""
        size = len(data)
        # bytes that an earlier run has packed need no place in memory until their frame comes up
        held = None if name in self._kept else data
        older: tuple[SimilarChunk, ...] = ()
        if partners:
            self._change(name, size, held, kind, partners)
            return New(name, size, kind, partners, offset)
        kind = stored_kind(kind)
        if self._recent and eligible(kind, size):
            frame = self._buckets.add(name, size, data, kind)
            older = self._recent.look(frame, offset)
            if older:
                self._join(SimilarChunk(name, size, self._buckets.pop_last(frame)), older)
        else:
            self._buckets.add(name, size, held, kind)
        return New(name, size, kind, partners, offset, tuple([each.name for each in older]))

    def again(self, new: New) -> None:
        """A chunk that an earlier run has packed, as it was added then."""
        if new.partners:
            self._change(new.name, new.size, None, new.kind, new.partners)
        elif self._recent and new.similar:
            self._buckets.room(new.kind, new.size)
            self._join(SimilarChunk(new.name, new.size, None), self._recent.named(new.similar))
        else:
            frame = self._buckets.add(new.name, new.size, None, new.kind)
            if self._recent and eligible(new.kind, new.size):
                self._recent.keep(frame, new.offset)

    def _change(
        self, name: ChunkId, size: int, data: bytes | memoryview | None, kind: Kind, partners: tuple[int, ...]
    ) -> None:
        """To be patched against the base."""
        self._changes.append(ChangedChunk(name, size, None if data is None else bytes(data), kind, partners))
        self._changed += size
        if self._changed >= BATCH_RAW:
            self._flush_changes()

    def _join(self, chunk: SimilarChunk, older: tuple[SimilarChunk, ...]) -> None:
        """To be patched against chunks of this bundle."""
        if not self._siblings.takes(chunk, older):
            self._flush_siblings()
        self._siblings.add(chunk, older)

    def _flush(self, reassembled: OpenFrame) -> None:
        self._lane.push(partial(self._pack, reassembled))

    def _pack(self, reassembled: OpenFrame) -> Packed:
        packed = self._packed(b"".join(reassembled.names), partial(self._encode, reassembled))
        self._buckets.release(reassembled)
        return packed

    def _packed(self, names: bytes, encode: Callable[[], tuple[FrameHeader, bytes]]) -> Packed:
        """The frame of these chunks: as an earlier run packed it, or made now."""
        kept = self._kept.packed(names) if len(self._kept) else None
        if kept:
            self.bytes_reused += kept[0].raw_size
        return *(kept or encode()), names

    def _encode(self, reassembled: OpenFrame) -> tuple[FrameHeader, bytes]:
        starts = offsets(reassembled.sizes)
        for number in reassembled.holes:
            start = starts[number]
            reassembled.buffer[start : start + reassembled.sizes[number]] = self._kept.get(reassembled.names[number])
        with memoryview(reassembled.buffer) as whole, whole[: reassembled.size] as raw:
            return encode_frame(reassembled.kind, raw, reassembled.sizes, self._level)

    def _flush_siblings(self) -> None:
        if self._siblings.chunks:
            self._lane.push(partial(self._pack_siblings, self._siblings))
            self._siblings = SimilarGroup()

    def _pack_siblings(self, siblings: SimilarGroup) -> Packed:
        def whole(chunks: Iterable[SimilarChunk]) -> bytes:
            return b"".join(self._kept.get(c.name) if c.data is None else c.data for c in chunks)

        def encode() -> tuple[FrameHeader, bytes]:
            sizes = [each.size for each in siblings.chunks]
            names = list(siblings.prefix)
            raw, prefix = whole(siblings.chunks), whole(siblings.prefix.values())
            siblings.chunks.clear()
            siblings.prefix.clear()
            return encode_frame(Kind.ELF, raw, sizes, self._level, names, prefix, near=True)

        return self._packed(b"".join(each.name for each in siblings.chunks), encode)

    def _flush_changes(self) -> None:
        """Have the batch patched while the next one gathers. What comes of it is written where the next one ends: the order is always the same."""
        self._deliver_changes()
        base, batch = self._base, self._changes
        if base is None or not batch:
            return
        self._patching = self._batches.submit(partial(self._patch_all, base, batch))
        self._changes = []
        self._changed = 0

    def _deliver_changes(self) -> None:
        if self._patching:
            self._lane.drain()
            patched, self._patching = self._patching.result(), None
            for each in patched:
                self._deliver(each)

    def _patch_all(self, base: References, batch: list[ChangedChunk]) -> list[Packed]:
        """A batch as patched frames. The base's bytes come in the order in which the frames need them."""
        out: list[Packed] = []
        frames = list(frames_of(batch, lambda n: base.frame_of(n) << 32 | n, base.size_of))
        partners = [list(dict.fromkeys(n for change in frame for n in change.partners)) for frame in frames]
        older = base.fetch(array("I", [number for each in partners for number in each]))
        with contextlib.closing(OrderedPipeline(self._pool, self._ahead, out.append)) as lane:
            for frame, numbers in zip(frames, partners, strict=True):
                prefix = b"".join([next(older) for _ in numbers])
                lane.push(partial(self._patch, frame, [base.name_of(number) for number in numbers], prefix))
            lane.drain()
        return out

    def _patch(self, frame: list[ChangedChunk], partners: list[ChunkId], prefix: bytes) -> Packed:
        def encode() -> tuple[FrameHeader, bytes]:
            raw = b"".join(self._kept.get(c.name) if c.data is None else c.data for c in frame)
            return encode_frame(frame[0].kind, raw, [c.size for c in frame], self._level, partners, prefix)

        return self._packed(b"".join(change.name for change in frame), encode)

    def finish(self) -> None:
        """Everything that was added is delivered."""
        self._flush_changes()
        self._flush_siblings()
        self._buckets.finish()
        self._deliver_changes()
        self._lane.drain()

    def close(self) -> None:
        self._batches.close()
        self._lane.close()
