"""Programs that share code with one that went by a moment ago: compilers of one family, Go binaries, a library that two packages bring.

Wherever a function is linked to, it begins on a grid of 16 bytes, and most of its inside stays as it is. So those blocks on the
grid that begin with one certain byte are a sample of a program's content that does not depend on where in it the content stands.
Chunks that have part of their samples in common are patched against each other within the bundle (docs/decisions/0009).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from blake3 import blake3

from transfer.chunks.bucket import Buckets, OpenFrame
from transfer.chunks.name import Kind
from transfer.chunks.patch import PATCH_RAW, PREFIX_RAW
from transfer.model import ChunkId

GRID, SAMPLE = 16, 32
MARK = 0xB9
"""One block in some 300 begins with it: it is no padding, and functions do not commonly begin with it."""
CHUNK_MIN = 256 << 10
"""Smaller chunks (bytes) are not looked at."""
REACH = 4
"""So many frames of programs are kept after the one that is being filled: 64 MiB."""
_SAMPLES_MIN = 16
_PREFIX_CHUNKS, _COMMON_MIN, _SHARE_EACH, _SHARE_ALL = 3, 3, 0.03, 0.06
"""A prefix has so many chunks at most; each has at least so many samples and such a share of them in common with the new one, all together such a share."""


def eligible(kind: Kind, size: int) -> bool:
    """Whether a chunk of this kind and size (bytes) is looked at."""
    return kind == Kind.ELF and size >= CHUNK_MIN


def _samples(frame: OpenFrame, at: int, size: int, offset: int) -> set[bytes]:
    """The sampled blocks of `size` bytes at `at` in a frame, which stand at `offset` (bytes) of their file."""
    buffer, first, end = frame.buffer, at + -offset % GRID, at + size
    heads = buffer[first:end:GRID]
    find, out = heads.find, set()
    found = find(MARK)
    while found >= 0:
        begin = first + found * GRID
        out.add(buffer[begin : begin + SAMPLE])
        found = find(MARK, found + 1)
    return out


class SimilarChunk(NamedTuple):
    """A chunk, its size (bytes), and its bytes; None where only an earlier run had them in memory."""

    name: ChunkId
    size: int
    data: bytes | None


@dataclass(slots=True)
class _Entry:
    """A chunk that went by, and where in its frame it is. `samples` are None while its bytes are still to be loaded."""

    name: ChunkId
    size: int
    offset: int
    frame: OpenFrame
    at: int
    samples: set[bytes] | None = None


class RecentPrograms:
    """The programs that went by last, in the buffers they were gathered in. What is found depends on nothing but these and their order."""

    def __init__(self, buckets: Buckets, load: Callable[[ChunkId], bytes], reach: int = REACH) -> None:
        """`load` gives the bytes of a chunk that was gathered without them. `reach` in frames."""
        self._buckets, self._load, self._reach = buckets, load, reach
        self._frames: deque[OpenFrame] = deque()
        self._entries: dict[int, _Entry] = {}
        self._count = 0
        self._last: dict[bytes, int] = {}
        self._unread: list[int] = []

    @property
    def state(self) -> str:
        """A digest of what is kept: the same state finds the same for the same chunks."""
        return blake3(b"".join(each.name + bytes([each.offset % GRID]) for each in self._entries.values())).hexdigest()

    def look(self, frame: OpenFrame, offset: int) -> tuple[SimilarChunk, ...]:
        """What the frame's last chunk, which stands at `offset` (bytes) of its file, shares most with, oldest first. If nothing, it is kept."""
        size = frame.sizes[-1]
        at = frame.size - size
        samples = _samples(frame, at, size, offset)
        found = self._like(samples) if len(samples) >= _SAMPLES_MIN else ()
        if not found:
            self._learn(self._enter(frame, offset), samples)
        return found

    def keep(self, frame: OpenFrame, offset: int) -> None:
        """The frame's last chunk is kept; its bytes are not in the frame yet."""
        self._unread.append(self._enter(frame, offset))

    def named(self, names: Collection[ChunkId]) -> tuple[SimilarChunk, ...]:
        """Some of the chunks that are kept, oldest first."""
        return tuple(_similar_chunk(each) for each in self._entries.values() if each.name in names)

    def _enter(self, frame: OpenFrame, offset: int) -> int:
        if not self._frames or self._frames[-1] is not frame:
            self._buckets.share(frame)
            self._frames.append(frame)
            if len(self._frames) > self._reach + 1:
                self._drop(self._frames.popleft())
        size = frame.sizes[-1]
        self._entries[self._count] = _Entry(frame.names[-1], size, offset, frame, frame.size - size)
        self._count += 1
        return self._count - 1

    def _drop(self, frame: OpenFrame) -> None:
        """Forget the oldest frame."""
        for number in [number for number, each in self._entries.items() if each.frame is frame]:
            for sample in self._entries.pop(number).samples or ():
                if self._last.get(sample) == number:
                    del self._last[sample]
        self._unread = [number for number in self._unread if number in self._entries]
        self._buckets.release(frame)

    def _like(self, samples: set[bytes]) -> tuple[SimilarChunk, ...]:
        for number in self._unread:
            self._read(number)
        self._unread.clear()
        last = self._last
        hits = Counter(last[sample] for sample in samples if sample in last)
        least = max(_COMMON_MIN, _SHARE_EACH * len(samples))
        best = sorted(((count, number) for number, count in hits.items() if count >= least), reverse=True)
        best = best[:_PREFIX_CHUNKS]
        if sum(count for count, _ in best) < _SHARE_ALL * len(samples):
            return ()
        return tuple(_similar_chunk(self._entries[number]) for number in sorted(number for _, number in best))

    def _read(self, number: int) -> None:
        """Fill the hole where a chunk was gathered without its bytes."""
        entry = self._entries[number]
        entry.frame.buffer[entry.at : entry.at + entry.size] = self._load(entry.name)
        self._learn(number, _samples(entry.frame, entry.at, entry.size, entry.offset))

    def _learn(self, number: int, samples: set[bytes]) -> None:
        self._entries[number].samples = samples
        for sample in samples:
            if self._last.get(sample, -1) < number:
                self._last[sample] = number


def _similar_chunk(entry: _Entry) -> SimilarChunk:
    whole = entry.samples is not None
    return SimilarChunk(entry.name, entry.size, entry.frame.buffer[entry.at : entry.at + entry.size] if whole else None)


@dataclass(slots=True)
class SimilarGroup:
    """A frame to be: chunks, and those they are patched against by name."""

    chunks: list[SimilarChunk] = field(default_factory=list)
    prefix: dict[ChunkId, SimilarChunk] = field(default_factory=dict)

    def takes(self, chunk: SimilarChunk, older: Sequence[SimilarChunk]) -> bool:
        """Whether a chunk that is patched against these is to join."""
        raw = sum(each.size for each in (*self.chunks, chunk))
        prefix = sum(each.size for each in self.prefix.values())
        more = sum(each.size for each in older if each.name not in self.prefix)
        return not self.chunks or (raw <= PATCH_RAW and prefix + more <= PREFIX_RAW)

    def add(self, chunk: SimilarChunk, older: Sequence[SimilarChunk]) -> None:
        self.chunks.append(chunk)
        for each in older:
            self.prefix.setdefault(each.name, each)
