"""Which older chunk a changed one is compressed against: files find their older selves by path, chunks by their place in the file.

A bad partner costs only bytes: what does not help is not used.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Final

from transfer.chunks.name import NO_PARTNER, Kind
from transfer.model import ChunkId

PATCH_RAW, PREFIX_RAW = 4 << 20, 8 << 20
"""A patched frame takes no further chunk that would make it, or its prefix, larger than this (bytes)."""
_MARGIN = 1 << 20
"""How much before and behind its place a changed stretch of a big file may have moved (bytes)."""
BATCH_RAW = 48 << 20
"""Changed chunks are gathered until there are so many (bytes), then go by the place of their partners: so the base is decoded about once."""
_DIGITS: Final = re.compile(rb"\d+(?:\.\d+)*")
_HASH: Final = re.compile(
    rb"(?<![A-Za-z0-9])(?=[A-Za-z0-9]{6,64}(?![A-Za-z0-9]))(?=[A-Za-z]*[0-9]+[A-Za-z])[A-Za-z0-9]+"
    rb"|(?<![A-Za-z0-9])(?=[a-f]+[0-9])[0-9a-f]{8,64}(?![A-Za-z0-9])"
)
"""A part of a name in which letters follow digits (`libx-76c43bf0.so`, `main.4f3c2a1b.js`), or of hexadecimal digits. Build tools put a hash of the content there."""
_SAMPLE_ALL, _SAMPLE_EVERY = 64, 16


class _Table:
    """Files by a key (its 64-bit hash), the last one added first."""

    def __init__(self) -> None:
        self._last: dict[int, int] = {}
        self._before = array("i")

    def __len__(self) -> int:
        return len(self._before)

    def add(self, key: bytes) -> None:
        digest = hash(key)
        self._before.append(self._last.get(digest, NO_PARTNER))
        self._last[digest] = len(self._before) - 1

    def find(self, key: bytes) -> Iterator[int]:
        entry = self._last.get(hash(key), NO_PARTNER)
        while entry != NO_PARTNER:
            yield entry
            entry = self._before[entry]


def normalised(path: bytes) -> bytes:
    """A path in which version numbers and hashes do not count: `lib/libfoo.so.1.2` and `lib/libfoo.so.1.3` are one."""
    return _DIGITS.sub(b"0", _HASH.sub(b"0", path))


class BaseFiles:
    """The files of the base: where each one's chunks are. Chunks are numbers that the owner understands."""

    def __init__(self) -> None:
        self._paths: list[bytes] = []
        self._layer, self._first, self._count = array("I"), array("Q"), array("I")
        self._size, self._chunk_size = array("Q"), array("I")
        self.chunks = array("I")
        self.skeletons: list[array[int]] = []
        self._owner = array("I")
        self._tables: dict[str, _Table] = {"path": _Table()}

    def add_layer(self, skeleton: Sequence[int], files: Iterator[tuple[bytes, int, int]]) -> None:
        """A layer of the base: its skeleton chunks, and (path, chunk, size in bytes) of each payload chunk in order."""
        layer = len(self.skeletons)
        self.skeletons.append(array("I", skeleton))
        last: bytes | None = None
        for path, chunk, size in files:
            if path != last or not path:
                self._paths.append(path)
                self._layer.append(layer)
                self._first.append(len(self.chunks))
                self._count.append(0)
                self._size.append(0)
                self._tables["path"].add(path)
                last = path
            self.chunks.append(chunk)
            self._chunk_size.append(size)
            if chunk >= len(self._owner):
                self._owner.frombytes(bytes(4 * (chunk + 1024 + len(self._owner) // 4 - len(self._owner))))
            self._owner[chunk] = len(self._paths)
            self._count[-1] += 1
            self._size[-1] += size

    def layer_of(self, file: int) -> int:
        return self._layer[file]

    def size_of(self, file: int) -> int:
        return self._size[file]

    def is_called(self, file: int, name: bytes) -> bool:
        """Whether this is the last part of its path."""
        return _last(self._paths[file]) == name

    def first_chunk(self, file: int) -> int:
        return self.chunks[self._first[file]]

    def chunks_of(self, file: int) -> tuple[array[int], array[int]]:
        """The file's chunks, and where each begins (bytes) with the file's end behind them."""
        first, end = self._first[file], self._first[file] + self._count[file]
        return self.chunks[first:end], array("Q", [0, *accumulate(self._chunk_size[first:end])])

    def with_chunk(self, chunk: int) -> int:
        """A file that has this chunk; -1 if none has."""
        return self._owner[chunk] - 1 if 0 <= chunk < len(self._owner) else NO_PARTNER

    def named(self, path: bytes) -> Iterator[int]:
        """Files of exactly this path."""
        return self._tables["path"].find(path) if path else iter(())

    def alike(self, path: bytes) -> Iterator[Iterator[int]]:
        """Files of nearly this path, then of the same base name."""
        for way, key in (("normal", normalised), ("base", _base_name)):
            if way not in self._tables:
                table = self._tables[way] = _Table()
                for each in self._paths:
                    table.add(key(each))
            yield self._tables[way].find(key(path))


def _last(path: bytes) -> bytes:
    return path.rpartition(b"/")[2]


def _base_name(path: bytes) -> bytes:
    return normalised(_last(path))


class DeltaMatcher:
    """For the chunks of one blob after the other: their partners in the base."""

    def __init__(self, older: BaseFiles, find: Callable[[bytes], int], usable: Callable[[int], bool]) -> None:
        self._older, self._find, self._usable = older, find, usable
        self._votes: dict[int, int] = {}
        self._files = 0
        self._path = b""
        self._file: tuple[array[int], array[int]] | None = None
        self._shift = 0
        self._skeleton = 0
        self._is_named = False
        self._seen: tuple[bytes, int, int] = (b"", NO_PARTNER, 0)

    def holds(self, path: bytes) -> bool:
        """Whether the base has a file of this path, or of one that differs in numbers and hashes alone, as it is."""
        ways = (self._older.named(path), next(self._older.alike(path)))
        return any(next(way, NO_PARTNER) != NO_PARTNER for way in ways)

    def begin_blob(self) -> None:
        """Another blob: which base layer it resembles is found out anew."""
        self._votes.clear()
        self._files = self._skeleton = 0
        self._path, self._file = b"", None

    def known(self, name: ChunkId, path: bytes, offset: int) -> None:
        """A chunk that the base has went by. Some are looked at: they tell which layer this one is a version of."""
        if path:
            self._seen = (path, self._find(name), offset)
        if offset:
            number = self._seen[1] if path else self._find(name)
            if self._file and self._path == path and number in self._file[0]:
                self._shift = self._file[1][self._file[0].index(number)] - offset
            return
        self._files += 1
        if self._files > _SAMPLE_ALL and self._files % _SAMPLE_EVERY:
            return
        number = self._find(name)
        for file in self._older.named(path):
            if self._older.first_chunk(file) == number:
                layer = self._older.layer_of(file)
                self._votes[layer] = self._votes.get(layer, 0) + 2

    def partners(self, path: bytes, size: int, offset: int, length: int) -> tuple[int, ...]:
        """The base's chunks for `length` changed bytes at `offset` of a file of `size` bytes (-1: unknown); none if there are none.

        In a file that was cut by content they are those that held the same stretch, as far as its last unchanged chunk tells.
        """
        if not offset or self._path != path:
            file = self._choose(path, size)
            self._path, self._shift = path, 0
            self._file = None if file == NO_PARTNER else self._older.chunks_of(file)
        if offset and not self._is_named:
            self._follow(path)
        if self._file is None:
            return ()
        chunks, starts = self._file
        begin = min(max(0, offset + self._shift - _MARGIN), starts[-1] - 1)
        end = min(offset + self._shift + length + _MARGIN, starts[-1])
        first, last = bisect_right(starts, begin) - 1, bisect_left(starts, max(end, begin + 1))
        return tuple(n for n in chunks[first:last] if self._usable(n))

    def _follow(self, path: bytes) -> None:
        """A file that is not in the base by its name: if the base has a chunk of it, the file with that chunk is the older self."""
        seen, number, offset = self._seen
        if seen != path or number < 0 or (self._file and number in self._file[0]):
            return
        file = self._older.with_chunk(number)
        if file != NO_PARTNER:
            self._file = self._older.chunks_of(file)
            self._shift = self._file[1][self._file[0].index(number)] - offset

    def skeleton(self) -> tuple[int, ...]:
        """The base's chunks for the next skeleton chunk of this blob."""
        layer = self.resembles
        if layer == NO_PARTNER or not self._older.skeletons[layer]:
            return ()
        chunks = self._older.skeletons[layer]
        found = chunks[min(self._skeleton, len(chunks) - 1)]
        self._skeleton += 1
        return (found,) if self._usable(found) else ()

    @property
    def resembles(self) -> int:
        """The base layer that this one shares most with so far; -1 if it shares nothing."""
        return max(self._votes, key=lambda layer: (self._votes[layer], -layer)) if self._votes else NO_PARTNER

    def _choose(self, path: bytes, size: int) -> int:
        """The file itself as it was: in the layer this one resembles, else of its name, else of the nearest size; then files of nearly its path."""
        likeness, name = self._votes, _last(path)
        self._is_named = False
        # one way after the other: the tables for near paths are made when a path is first not found
        ways = chain((self._older.named(path),), self._older.alike(path) if path else ())
        for way, hits in enumerate(ways):
            best, rank = NO_PARTNER, (0, False, 0, 0)
            for seen, file in enumerate(hits):
                if seen > 200:
                    break
                vote = likeness.get(self._older.layer_of(file), 0)
                distance = abs(self._older.size_of(file) - size) if size >= 0 else 0
                # of Outer$1.class and Outer$2.class in another version of the jar, the one with the same number
                here = (vote, self._older.is_called(file, name), -distance, file)
                if best == NO_PARTNER or here > rank:
                    best, rank = file, here
            if best != NO_PARTNER:
                self._is_named = way == 0
                layer = self._older.layer_of(best)
                likeness[layer] = likeness.get(layer, 0) + 1
                return best
        return NO_PARTNER


@dataclass(slots=True)
class ChangedChunk:
    """A changed chunk: its bytes (None: an earlier run packed it), and the numbers of its partners in the base."""

    name: ChunkId
    size: int
    data: bytes | None
    kind: Kind
    partners: tuple[int, ...]


def frames_of(
    batch: Sequence[ChangedChunk], place: Callable[[int], int], size_of: Callable[[int], int]
) -> Iterator[list[ChangedChunk]]:
    """The batch divided into patched frames: by kind, then by where in the base the partners are (`place`), then as they came."""
    order = sorted(range(len(batch)), key=lambda n: (batch[n].kind, place(batch[n].partners[0]), n))
    frame: list[ChangedChunk] = []
    raw = older = 0
    partners: set[int] = set()
    for number in order:
        change = batch[number]
        more = sum(size_of(each) for each in change.partners if each not in partners)
        if frame and (change.kind != frame[0].kind or raw + change.size > PATCH_RAW or older + more > PREFIX_RAW):
            yield frame
            frame, raw, older = [], 0, 0
            partners = set()
            more = sum(map(size_of, change.partners))
        frame.append(change)
        partners.update(change.partners)
        raw += change.size
        older += more
    if frame:
        yield frame
