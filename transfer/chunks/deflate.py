"""Gzip streams taken apart into plain bytes and a recipe, and put together again bit for bit.

The codec is a distribution of its own (`deflate/` in the repository). Without it gzip streams are held as they are. A recipe is a
sequence of records (FORMAT.md, section 13), each for some 4 MiB of plain bytes, made and used independently of the others.
"""

from __future__ import annotations

import functools
import importlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any

from transfer.chunks.name import CHUNK_MAX, ChunkSink, Kind, chunk_id
from transfer.errors import FormatError, Unsupported
from transfer.streams import Readable
from transfer.work import Pool

DISTRIBUTION = "transfer-appliance-deflate"
FORMAT = 1
GZIP = b"\x1f\x8b"
SMALLEST = 4096
"""A stream of fewer bytes is held as it is: its recipe and what tells of it would hardly be less."""
RATIO_MAX = 1032
"""Deflate makes no more plain bytes of one byte (RFC 1951: 258 bytes of 2 bits)."""
SHARE_MAX = 2
"""A stream whose first record is more than this part (1/n) of its bits is held as it is."""
RESIDUAL_CHUNK = 1 << 20
LAG = 16
"""So many segments behind its plain bytes a record is packed: whatever the number of threads, chunks come in the same order."""
AHEAD_MAX = 4
"""Records that are made or used at once: each takes some 25 MB."""
MEMBERS_MAX = 1 << 22
_HISTORY = 1 << 15
_HEAD_MAX = 64


@functools.cache
def codec() -> Any:
    """The codec's module; None if it is not installed, or speaks of another format."""
    try:
        found = importlib.import_module("transfer_deflate")
    except ImportError:
        return None
    return found if getattr(found, "FORMAT", 0) == FORMAT else None


def need_codec(where: str, files: bool) -> None:
    """Unsupported if gzip streams cannot be put together here; `files`: those of files in layers, else layers themselves."""
    if codec() is None and files:
        raise Unsupported(
            f"{where}: the layers have jars, wheels or other compressed files that were taken apart, and this host has no {DISTRIBUTION} to put them together",
            hint=f"install {DISTRIBUTION} beside transfer, or export the images again with --gzip layers",
        )
    if codec() is None:
        raise Unsupported(
            f"{where}: the layers are gzip streams that were taken apart, and this host has no {DISTRIBUTION} to put them together",
            hint=f"install {DISTRIBUTION} beside transfer, or import into a Docker with a classic store, which needs the plain layers only",
        )


class Dismantling:
    """A gzip stream on its way in. First `begin`; then either `held` and what is left of `parts` are the stream, or `plain` is read to its end.

    The recipe is packed into `sink`; `names` are its chunks, end to end. `fault` says why the stream is held as it is from some place on.
    """

    def __init__(self, parts: Iterator[bytes], sink: ChunkSink, pool: Pool, ahead: int, limit: int = 1 << 46) -> None:
        """At most `limit` plain bytes are taken apart, the rest is held as it is."""
        self._parts, self._sink, self._pool = parts, sink, pool
        self._room = threading.Semaphore(ahead)
        self._parser = codec().Parser(limit, MEMBERS_MAX)
        self._first: list[Any] = []
        self._records: deque[Future[bytes]] = deque()
        self._residual = bytearray()
        self._names = bytearray()
        self.held: list[bytes] = []

    @property
    def names(self) -> bytes:
        return bytes(self._names)

    @property
    def fault(self) -> str:
        return self._parser.fault or ""

    def begin(self) -> str:
        """Why the stream is to be held as it is; "" if it is to be taken apart. No more is read than its first segment takes."""
        size = 0
        for part in self._parts:
            self.held.append(part)
            size += len(part)
            self._first = self._parser.feed(part)
            if self._first or self.fault:
                break
        else:
            if size < SMALLEST:
                return f"it has only {size} bytes"
            self._first = self._parser.feed(b"")
        if self.fault:
            return self.fault
        record = self._first[0].record()
        _, bits, _, _ = codec().head(record)
        if len(record) * 8 * SHARE_MAX > bits:
            return "its recipe would be too large"
        self._records.append(done(record))
        self.held.clear()
        return ""

    def plain(self) -> Iterator[bytes]:
        """The plain bytes, a segment at a time; may be run in a thread of its own."""
        segments, self._first = self._first, []
        yield segments.pop(0).plain()
        yield from self._each(segments)
        for part in self._parts:
            yield from self._each(self._parser.feed(part))
        yield from self._each(self._parser.feed(b""))

    def _each(self, segments: list[Any]) -> Iterator[bytes]:
        """The plain bytes of each; who makes its record is then the only one who keeps it."""
        while segments:
            self._room.acquire()
            plain = segments[0].plain()
            self._submit(segments.pop(0))
            yield plain
            del plain

    def _submit(self, segment: Any) -> None:
        future: Future[bytes] = self._pool.submit(segment.record)
        future.add_done_callback(lambda _: self._room.release())
        self._records.append(future)

    def followed(self, plain: Iterator[bytes]) -> Iterator[bytes]:
        """The same plain bytes; packs records on the way, always at the same places, and the last of them at the end."""
        for number, block in enumerate(plain):
            yield block
            if number >= LAG:
                self._pack(self._records.popleft().result())
        while self._records:
            self._pack(self._records.popleft().result())
        self._flush()

    def _pack(self, record: bytes) -> None:
        for at in range(0, len(record), CHUNK_MAX - RESIDUAL_CHUNK):
            self._residual += record[at : at + CHUNK_MAX - RESIDUAL_CHUNK]
            if len(self._residual) >= RESIDUAL_CHUNK:
                self._flush()

    def _flush(self) -> None:
        if self._residual:
            data = bytes(self._residual)
            name = chunk_id(data)
            self._sink.add(name, data, Kind.RESIDUAL)
            self._names += name
            self._residual.clear()


def done(record: bytes) -> Future[bytes]:
    """What is known already, where others have to be waited for."""
    future: Future[bytes] = Future()
    future.set_result(record)
    return future


REMADE = (0x16, 0x19)
"""Encoders whose gzip streams can be made of plain bytes alone, by their numbers in FORMAT.md: Go at its usual level, and at its best."""


def can_remake() -> bool:
    """Whether the codec is here, and knows how."""
    return hasattr(codec(), "Remaker")


def remade(plain: Iterator[bytes], encoder: int) -> Iterator[bytes]:
    """The gzip stream that an encoder makes of these plain bytes. FormatError where they take it too long."""
    module = codec()
    try:
        remaker = module.Remaker(encoder)
        for block in plain:
            yield remaker.feed(block)
        yield remaker.finish()
    except module.DeflateError as error:
        raise FormatError(f"the gzip stream cannot be made again: {error}") from error


def put_together(residual: Readable, plain: Readable, pool: Pool, ahead: int, where: str) -> Iterator[bytes]:
    """The gzip stream of a recipe and its plain bytes. FormatError where they do not fit together; the digest of all is the caller's to check."""
    module = codec()
    assembler = module.Assembler()
    try:
        for bits, future in _in_flight(Taking(residual, where), Taking(plain, where), pool, ahead, module):
            yield assembler.join(future.result(), bits)
        assembler.finish()
    except module.DeflateError as error:
        raise FormatError(f"{where}: {error}", hint="export the image again") from error


def _in_flight(
    residual: Taking, plain: Taking, pool: Pool, ahead: int, module: Any
) -> Iterator[tuple[int, Future[bytes]]]:
    """Each record's bits, in order, at most `ahead` under way."""
    waiting: deque[tuple[int, Future[bytes]]] = deque()
    records = Records(residual)
    while residual.peek(1):
        bits, make = records.next(plain.take)
        if len(waiting) >= ahead:
            yield waiting.popleft()
        waiting.append((bits, pool.submit(make)))
    if plain.peek(1):
        residual.refuse("plain bytes are left over")
    yield from waiting


class Records:
    """The records of one stream, in order."""

    def __init__(self, records: Taking) -> None:
        self._records, self._codec = records, codec()
        self._history, self._start = b"", 0

    def next(self, take: Callable[[int], bytes]) -> tuple[int, Callable[[], bytes]]:
        """How many bits the next record makes, and the call that makes them; `take` gives its plain bytes. FormatError if there is none."""
        plain_size, bits, history_size, size = _head(self._records)
        record, data = self._records.take(size), take(plain_size)
        if history_size > len(self._history):
            self._records.refuse("a record needs more history than there is")
        before = self._history[len(self._history) - history_size :]
        make = partial(self._codec.decode, record, self._start, before, data)
        self._start = (self._start + bits) & 7
        self._history = data[-_HISTORY:] if plain_size >= _HISTORY else (self._history + data)[-_HISTORY:]
        return bits, make


def _head(records: Taking) -> tuple[int, int, int, int]:
    """Of the record that comes: its plain bytes, the bits it makes, how much history it needs, and its own bytes."""
    found: tuple[int, int, int, int] | None = codec().head(records.peek(_HEAD_MAX))
    return found if found is not None else records.refuse("a record ends early")


def record_size(records: Taking) -> tuple[int, int]:
    """The bytes of the record that comes, and the bits it makes. FormatError if there is none."""
    _, bits, _, size = _head(records)
    return size, bits


class Taking:
    """Takes of exact size from a stream. FormatError where it has not so many bytes."""

    def __init__(self, stream: Readable, where: str) -> None:
        self._stream, self.where = stream, where
        self._held = bytearray()

    def peek(self, size: int) -> bytes:
        """The next bytes, fewer only at the end."""
        self._fill(size)
        return bytes(self._held[:size])

    def some(self, size: int) -> bytes:
        """Between 1 and `size` bytes; none at the end."""
        return self.take(min(size, len(self._held))) if self._held else self._stream.read(size)

    def take(self, size: int) -> bytes:
        self._fill(size)
        if len(self._held) < size:
            self.refuse("the recipe and the plain bytes do not fit together")
        out = bytes(memoryview(self._held)[:size])
        del self._held[:size]
        return out

    def _fill(self, size: int) -> None:
        while len(self._held) < size and (data := self._stream.read(size - len(self._held))):
            self._held += data

    def refuse(self, why: str) -> Any:
        raise FormatError(f"{self.where}: {why}", hint="export the image again")
