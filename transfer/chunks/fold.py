"""Layers on their way out: the deflate streams inside their files are made again of what they hold (FORMAT.md, section 14)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import TypeAlias

from transfer.chunks.deflate import Records, Taking, codec, done, record_size
from transfer.chunks.varint import get_varints
from transfer.chunks.walk import PACKED_MAX, STREAM_MAX
from transfer.errors import FormatError
from transfer.streams import Readable
from transfer.work import Pool

FOLD_PLAIN, FOLD_GAPS, FOLD_STREAMS, FOLD_PACKED = STREAM_MAX, 1 << 20, 1 << 12, PACKED_MAX
"""A fold of several streams has at most so many plain bytes, bytes between its streams, streams, and packed bytes."""
HEADER, TRAILER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff", 8
"""Each stream is a gzip member for the codec: this header, the stream, CRC-32 and size."""
LONG, NO_MORE, MORE = b"\0", b"\0", b"\1"
KEY_SIZE = 16
"""A fold of several streams has so many bytes of the BLAKE3 of its members, by which a writer finds its records again."""
_COPY = 1 << 20
_VARINT = 9

_Made: TypeAlias = tuple[Future[bytes], Callable[[bytes], bytes]]


def folded(
    runs: Iterable[tuple[int, Readable]], unfolded: Readable, pool: Pool, ahead: int, where: str
) -> Iterator[bytes]:
    """A layer, made of its unfolded bytes. `runs`: folds, and how many unfolded bytes are copied before each run of them.

    FormatError where they do not fit together; the layer's digest is the caller's to check. At most `ahead` folds are made at once.
    """
    try:
        yield from _Folding(Taking(unfolded, where), pool, ahead, where).all(runs)
    except codec().DeflateError as error:
        raise FormatError(f"{where}: {error}", hint="export the image again") from error


class _Folding:
    """One layer on its way."""

    def __init__(self, unfolded: Taking, pool: Pool, ahead: int, where: str) -> None:
        self._unfolded, self._pool, self._ahead, self._where = unfolded, pool, ahead, where
        self._waiting: deque[_Made] = deque()

    def all(self, runs: Iterable[tuple[int, Readable]]) -> Iterator[bytes]:
        for lead, stream in runs:
            folds = Taking(stream, self._where)
            while folds.peek(1):
                count = take_numbers(folds, 1)[0]
                yield from self._several(folds, count, lead) if count else self._long(folds, lead)
                lead = 0
            if lead:
                folds.refuse("folds are missing")
        yield from self._drain()
        while data := self._unfolded.some(_COPY):
            yield data

    def _several(self, folds: Taking, count: int, lead: int) -> Iterator[bytes]:
        """Streams of a few bytes each, made again together."""
        numbers = take_numbers(folds, 3 * count) if count <= FOLD_STREAMS else []
        gaps, sizes, packed = numbers[0::3], numbers[1::3], numbers[2::3]
        if not numbers or sum(gaps[1:]) > FOLD_GAPS or sum(sizes) > FOLD_PLAIN or sum(packed) > FOLD_PACKED:
            folds.refuse("a fold is larger than the format allows")
        gaps[0] = yield from self._copied(lead + gaps[0])
        between, plain = [], bytearray()
        for gap, size in zip(gaps, sizes, strict=True):
            between.append(self._unfolded.take(gap))
            plain += self._unfolded.take(size)
        left = Taking(_Once(bytes(plain)), self._where)
        folds.take(KEY_SIZE)
        records, made = Records(folds), list[tuple[int, Callable[[], bytes]]]()
        bits, whole = 0, 8 * members_size(packed)
        while bits < whole:
            made.append(records.next(left.take))
            bits += made[-1][0]
        if bits != whole:
            folds.refuse("a fold makes other streams than it says")
        yield from self._push(self._pool.submit(partial(_joined, made, between, packed)), bytes)

    def _long(self, folds: Taking, lead: int) -> Iterator[bytes]:
        """One stream of any size."""
        gap = yield from self._copied(lead + take_numbers(folds, 1)[0])
        yield from self._push(done(self._unfolded.take(gap)), bytes)
        records, stream = Records(folds), _LongStream()
        while (flag := folds.take(1)) == MORE:
            bits, make = records.next(self._unfolded.take)
            yield from self._push(self._pool.submit(make), partial(stream.more, bits))
        if flag != NO_MORE:
            folds.refuse("a fold is malformed")
        yield from self._push(done(b""), stream.end)

    def _copied(self, gap: int) -> Generator[bytes, None, int]:
        """Many bytes are copied at once; how many are left of them."""
        if gap <= _COPY:
            return gap
        yield from self._drain()
        while gap:
            data = self._unfolded.some(min(gap, _COPY))
            if not data:
                self._unfolded.refuse("the recipe and the plain bytes do not fit together")
            gap -= len(data)
            yield data
        return 0

    def _push(self, made: Future[bytes], use: Callable[[bytes], bytes]) -> Iterator[bytes]:
        self._waiting.append((made, use))
        while len(self._waiting) > self._ahead:
            yield self._first()

    def _drain(self) -> Iterator[bytes]:
        while self._waiting:
            yield self._first()

    def _first(self) -> bytes:
        made, use = self._waiting.popleft()
        return use(made.result())


def records_by_key(folds: Readable, where: str) -> Iterator[tuple[bytes, bytes]]:
    """Of a run of folds, the key and the records of each that has several streams. FormatError where it is malformed."""
    taking = Taking(folds, where)
    while taking.peek(1):
        count = take_numbers(taking, 1)[0]
        if count > FOLD_STREAMS:
            taking.refuse("a fold is larger than the format allows")
        packed = take_numbers(taking, 3 * count)[2::3] if count else take_numbers(taking, 1)
        if count:
            key, whole = taking.take(KEY_SIZE), 8 * members_size(packed)
            yield key, b"".join(_taken(taking, whole))
        else:
            while taking.take(1) == MORE:
                taking.take(record_size(taking)[0])


def _taken(folds: Taking, bits: int) -> Iterator[bytes]:
    """Records that make so many bits."""
    while bits > 0:
        size, made = record_size(folds)
        bits -= made
        yield folds.take(size)


def members_size(packed: Iterable[int]) -> int:
    """How many bytes streams of so many each have as gzip members."""
    return sum(len(HEADER) + each + TRAILER for each in packed)


def take_numbers(folds: Taking, count: int) -> list[int]:
    """So many varints."""
    numbers, used = get_varints(folds.peek(_VARINT * count), 0, count, folds.where)
    folds.take(used)
    return numbers


class _LongStream:
    """Takes header and trailer off a member that comes in pieces."""

    def __init__(self) -> None:
        self._assembler = codec().Assembler()
        self._held = b""
        self._skip = len(HEADER)

    def more(self, bits: int, made: bytes) -> bytes:
        data: bytes = self._held + self._assembler.join(made, bits)
        passed = min(self._skip, len(data))
        self._skip -= passed
        end = max(passed, len(data) - TRAILER)
        self._held = data[end:]
        return data[passed:end]

    def end(self, made: bytes) -> bytes:
        self._assembler.finish()
        return made


def _joined(made: list[tuple[int, Callable[[], bytes]]], between: list[bytes], packed: list[int]) -> bytes:
    """What lies between the streams, and the streams, in turn."""
    assembler = codec().Assembler()
    members = b"".join([assembler.join(make(), bits) for bits, make in made])
    assembler.finish()
    out: list[bytes] = []
    at = len(HEADER)
    for gap, size in zip(between, packed, strict=True):
        out += (gap, members[at : at + size])
        at += size + TRAILER + len(HEADER)
    return b"".join(out)


class _Once:
    """A Readable of bytes at hand."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int, /) -> bytes:
        out, self._data = self._data[:size], self._data[size:]
        return out
