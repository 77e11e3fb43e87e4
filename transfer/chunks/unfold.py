"""Files that are compressed inside, on their way in: the deflate streams of zips (jars, wheels) and gzip files are unfolded.

What they hold goes on as content of its own, one level deep, and *folds* say how the streams are made of it again (FORMAT.md, section 14).
"""

from __future__ import annotations

import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from itertools import chain

import pyzstd
from blake3 import blake3

from transfer.chunks.deflate import LAG, MEMBERS_MAX, RESIDUAL_CHUNK, codec
from transfer.chunks.fold import (
    FOLD_GAPS,
    FOLD_PACKED,
    FOLD_PLAIN,
    FOLD_STREAMS,
    HEADER,
    KEY_SIZE,
    LONG,
    MORE,
    NO_MORE,
    TRAILER,
)
from transfer.chunks.layer import Piece, split
from transfer.chunks.name import CHUNK_MAX, ChunkSink, Kind, chunk_id
from transfer.chunks.varint import put_varints
from transfer.chunks.walk import File, Item, Pieces, Stream, inflate, tails, walk_of
from transfer.model import Folds
from transfer.streams import IterReader
from transfer.tarfmt import RECORD, parse_header
from transfer.work import Pool

_BLOCK, _PLAIN_BLOCK = 1 << 18, 4 << 20
_TRIAL, _TRIAL_READ = 2 << 20, 4 << 20
"""By so many plain bytes, found in so many of the file's, it is decided whether a file is unfolded."""
_TRIAL_LEVEL, _WORTH = 3, 1.04
"""It is where its plain bytes, compressed, and its folds have at most so many times the bytes of its streams: what is lost at first
is won with the next delta.
"""
_SHRUNK = 0.95
"""What deflate hardly makes smaller (pictures) has the same parts in its streams as in what they hold: nothing is won."""
_FOLD_MIN = 1 << 20
"""A fold of several streams has so many plain bytes at least, but for a file's first and last."""
_KEPT, _KEPT_SIZE = 2048, 16 << 10
"""The records of so many folds are kept, if they have so many bytes at most: 32 MiB; most have 300 bytes."""
_OWN_CHUNK = 2048
"""A file whose folds have so many bytes ends their chunk, so that the same file has the same one again."""


class Unfolding:
    """One layer's pieces on their way: `pieces` gives them with its files unfolded; then `folds` says how to make the layer of them again."""

    def __init__(
        self,
        sink: ChunkSink,
        pool: Pool,
        ahead: int,
        room: int,
        known: KnownRecords,
        is_held: Callable[[bytes], bool] | None = None,
    ) -> None:
        """`room`: so many plain bytes more than GROWTH allows may there be. `is_held`: whether the base has a file of this path as it is."""
        self._sink, self._pool, self._room, self._known, self._is_held = sink, pool, room, known, is_held
        self._turns = threading.Semaphore(max(1, ahead))
        self._out = _FoldChunks(sink)
        self._fold = _Fold()
        self._since = self._size = 0
        self._has_folds = False

    @property
    def folds(self) -> Folds | None:
        """None if nothing was unfolded."""
        return Folds(self._size, bytes(self._out.names), tuple(self._out.leads)) if self._has_folds else None

    def pieces(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        source = Pieces(pieces)
        for piece in source:
            for each in self._file(piece, source) if self._is_candidate(piece) else (piece,):
                size = len(each.skeleton) + len(each.data)
                self._size += size
                self._since += size
                yield each
        self._out.finish()

    def _is_candidate(self, piece: Piece) -> bool:
        """Whether a file begins here that may be unfolded: not one that the base holds as it is."""
        if piece.offset or not walk_of(bytes(piece.data[:4]), piece.size):
            return False
        if self._is_held and self._is_held(piece.path):
            return False
        return len(piece.data) < piece.size or chunk_id(piece.data) not in self._sink

    def _file(self, first: Piece, source: Pieces) -> Iterator[Piece]:
        """A file's pieces; as they came, where unfolding it is not worth while."""
        file, walk = File(first, source, self._room), walk_of(bytes(first.data[:4]), first.size)
        items: Iterator[Item] = walk(file) if walk else iter(())
        tried: list[Item] = []
        plain = 0
        for item in items:
            tried.append(item)
            plain += len(item.plain) if isinstance(item, Stream) else 0
            if plain >= _TRIAL or file.has_read > _TRIAL_READ or (isinstance(item, Stream) and item.is_long):
                break
        streams = [item for item in tried if isinstance(item, Stream)]
        if not self._is_worth(streams):
            yield from file.as_it_was()
            return
        file.believe()
        self._has_folds = True
        # counted from where the file's content begins, so that the same file has the same folds anywhere
        self._out.begin_file(self._since + len(first.skeleton))
        self._since = -len(first.skeleton)
        for item in chain(tried, items):
            yield from self._unfold(item, file)
        self._close_fold()
        self._out.end_file()
        self._room -= file.excess

    def _unfold(self, item: Item, file: File) -> Iterator[Piece]:
        if isinstance(item, Piece):
            yield item
            return
        gap = self._since + len(item.before)
        if item.is_long:
            self._close_fold()
            self._out.begin_long(gap)
            yield from _contents(item, self._long(item, file))
            self._out.end_long()
        else:
            if not self._fold.takes(gap, item):
                self._close_fold()
            self._fold.add(gap, item)
            yield from _contents(item, iter([item.plain]))
            if self._fold.ends():
                self._close_fold()
        self._since = 0

    def _is_worth(self, streams: list[Stream]) -> bool:
        """Whether to unfold the file that begins with these streams."""
        if not streams:
            return False
        first, count = _Fold(), 0
        for each in streams:
            if each.is_long or first.ends() or not first.takes(0, each):
                break
            first.add(0, each)
            count += len(each.packed)
        packed = sum(len(each.packed) for each in streams)
        if packed > _SHRUNK * sum(len(each.plain) for each in streams):
            return False
        records = len(self._records(first)[1].result()) * packed // count if count else 0
        plain = pyzstd.compress(b"".join(each.plain for each in streams), _TRIAL_LEVEL)
        return len(plain) + records <= _WORTH * packed

    def _close_fold(self) -> None:
        fold, self._fold = self._fold, _Fold()
        if fold.streams:
            self._out.fold(fold.streams, *self._records(fold))

    def _records(self, fold: _Fold) -> tuple[bytes, Future[bytes]]:
        """A fold's key, and its records: as they were made before, or made now."""
        members = bytes(fold.members)
        key = blake3(members).digest(KEY_SIZE)
        known = self._known.get(key)
        if known is None:
            known = self._submit(partial(_records, members))
            self._known.add(key, known)
        return key, known

    def _submit(self, call: Callable[[], bytes]) -> Future[bytes]:
        self._turns.acquire()
        future = self._pool.submit(call)
        future.add_done_callback(lambda _: self._turns.release())
        return future

    def _long(self, item: Stream, file: File) -> Iterator[bytes]:
        """The plain bytes of a long stream, to its end or to where it goes wrong."""
        parser = codec().Parser(1 << 46, MEMBERS_MAX)
        packed, plain, crc = len(item.packed), len(item.plain), zlib.crc32(item.plain)
        segments = parser.feed(HEADER + item.packed)
        item.packed = item.plain = b""
        goes_on = True
        while True:
            while segments:
                block = segments[0].plain()
                self._out.record(self._submit(segments.pop(0).record))
                yield block
            if item.inflater.eof or parser.fault or not goes_on:
                break
            used, more = inflate(item.inflater, file, _BLOCK, _PLAIN_BLOCK)
            packed, plain, crc = packed + len(used), plain + len(more), zlib.crc32(more, crc)
            goes_on = bool(used or more) and file.grow(len(used), len(more))
            segments = parser.feed(used) if used else []
        file.is_broken = not item.inflater.eof or bool(parser.fault)
        item.tails = tails(crc, packed, plain)
        for segment in [*parser.feed(_trailer(crc, plain)), *parser.feed(b"")]:
            block = segment.plain()
            self._out.record(self._submit(segment.record))
            if block:
                yield block


def _contents(item: Stream, blocks: Iterator[bytes]) -> Iterator[Piece]:
    """What a stream holds: files, if that is a tar, else one file."""
    before, offset = item.before, 0
    if len(item.plain) >= RECORD and parse_header(item.plain[:RECORD]) is not None:
        for piece in split(IterReader(blocks)):
            yield piece._replace(skeleton=before + piece.skeleton) if before else piece
            before = b""
        return
    size = -1 if item.is_long else len(item.plain)
    for block in blocks:
        yield Piece(before, item.path, size, offset, block)
        before = b""
        offset += len(block)
    if before:
        yield Piece(before, b"", 0, 0, b"")


class KnownRecords:
    """Records that were made for a base, or a moment ago, by the key of their fold; the oldest go first."""

    def __init__(self) -> None:
        self._kept: dict[bytes, Future[bytes]] = {}
        self._lock = threading.Lock()

    def get(self, key: bytes) -> Future[bytes] | None:
        return self._kept.get(key)

    def add(self, key: bytes, records: Future[bytes]) -> None:
        with self._lock:
            self._kept[key] = records
            if len(self._kept) > _KEPT:
                del self._kept[next(iter(self._kept))]
        records.add_done_callback(lambda made: self._weigh(key, made))

    def _weigh(self, key: bytes, made: Future[bytes]) -> None:
        """Large ones, of an encoder that is not known, are not kept."""
        if made.cancelled() or made.exception() or len(made.result()) > _KEPT_SIZE:
            with self._lock:
                self._kept.pop(key, None)


def _records(members: bytes) -> bytes:
    parser = codec().Parser(1 << 46, MEMBERS_MAX)
    return b"".join([segment.record() for segment in [*parser.feed(members), *parser.feed(b"")]])


def _member(stream: Stream) -> bytes:
    crc = int.from_bytes(stream.tails[0][:4], "little")
    return HEADER + stream.packed + _trailer(crc, len(stream.plain))


def _trailer(crc: int, plain: int) -> bytes:
    return crc.to_bytes(4, "little") + (plain & 0xFFFFFFFF).to_bytes(4, "little")


class _Fold:
    """Streams that are made again together: (bytes between, plain, packed) of each, and the streams as gzip members."""

    def __init__(self) -> None:
        self.streams: list[tuple[int, int, int]] = []
        self.members = bytearray()
        self._plain = self._gaps = self._packed = 0

    def takes(self, gap: int, stream: Stream) -> bool:
        return not self.streams or (
            self._plain + len(stream.plain) <= FOLD_PLAIN
            and self._gaps + gap <= FOLD_GAPS
            and len(self.streams) < FOLD_STREAMS
            and self._packed + len(stream.packed) <= FOLD_PACKED
        )

    def ends(self) -> bool:
        """Where a fold ends its last stream says, so that what stays the same has the same folds, whatever is in front of it."""
        return self._plain >= _FOLD_MIN and not self.members[-TRAILER] & 7

    def add(self, gap: int, stream: Stream) -> None:
        self._gaps += gap if self.streams else 0
        self._plain += len(stream.plain)
        self._packed += len(stream.packed)
        self.streams.append((gap, len(stream.plain), len(stream.packed)))
        self.members += _member(stream)


class _FoldChunks:
    """Folds on their way into chunks, each packed when so many others came behind it: whatever the number of threads, chunks come in the same order."""

    def __init__(self, sink: ChunkSink) -> None:
        self._sink = sink
        self._waiting: deque[Callable[[], None]] = deque()
        self._data = bytearray()
        self._carry = self._lead = self._begun = 0
        self.names = bytearray()
        self.leads: list[int] = []

    def begin_file(self, lead: int) -> None:
        """A file whose content begins so many unfolded bytes after the last stream."""
        self._push(partial(self._lead_in, lead))

    def fold(self, streams: list[tuple[int, int, int]], key: bytes, records: Future[bytes]) -> None:
        self._push(partial(self._pack, streams, key, records))

    def begin_long(self, gap: int) -> None:
        self._push(partial(self._pack_long, gap))

    def record(self, record: Future[bytes]) -> None:
        self._push(lambda: self._add(MORE + record.result()))

    def end_long(self) -> None:
        self._push(partial(self._add, NO_MORE))

    def end_file(self) -> None:
        self._push(self._end)

    def finish(self) -> None:
        while self._waiting:
            self._waiting.popleft()()
        self._flush()

    def _push(self, call: Callable[[], None]) -> None:
        self._waiting.append(call)
        while len(self._waiting) > LAG:
            self._waiting.popleft()()

    def _lead_in(self, lead: int) -> None:
        if self._data:
            self._carry += lead
        else:
            self._lead += lead
        self._begun = len(self._data)

    def _take_carry(self) -> int:
        carry, self._carry = self._carry, 0
        return carry

    def _pack(self, streams: list[tuple[int, int, int]], key: bytes, records: Future[bytes]) -> None:
        numbers = [number for each in streams for number in each]
        numbers[0] += self._take_carry()
        self._add(put_varints((len(streams), *numbers)) + key + records.result())

    def _pack_long(self, gap: int) -> None:
        self._add(LONG + put_varints((gap + self._take_carry(),)))

    def _end(self) -> None:
        if len(self._data) - self._begun >= _OWN_CHUNK:
            self._flush()

    def _add(self, data: bytes) -> None:
        for at in range(0, len(data), CHUNK_MAX - RESIDUAL_CHUNK):
            self._data += data[at : at + CHUNK_MAX - RESIDUAL_CHUNK]
            if len(self._data) >= RESIDUAL_CHUNK:
                self._flush()

    def _flush(self) -> None:
        if self._data:
            data = bytes(self._data)
            name = chunk_id(data)
            self._sink.add(name, data, Kind.RESIDUAL)
            self.names += name
            self.leads.append(self._lead)
            self._data.clear()
            self._lead = self._begun = 0
