"""Blobs that come over a network, begun before it is their turn: while one is packed, the next are on their way."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

from transfer.engines.base import BlobStream
from transfer.streams import IterReader, Readable, blocks
from transfer.work import background

BEGUN = 2
"""Blobs under way beside the one that is read."""
BLOCK, DEPTH = 1 << 18, 8
"""A block (bytes), and how many wait for each blob: 2 MiB."""
_END = object()


def ahead(streams: Iterator[BlobStream], wanted: Callable[[BlobStream], bool]) -> Iterator[BlobStream]:
    """The same blobs in the same order; those that are `wanted` are opened a little before their turn."""
    waiting: deque[tuple[BlobStream, _Begun | None]] = deque()
    try:
        for stream in streams:
            begun = _Begun(stream) if wanted(stream) else None
            waiting.append((replace(stream, open=begun.open) if begun else stream, begun))
            while sum(each is not None for _, each in waiting) > BEGUN or len(waiting) > 8 * BEGUN:
                yield from _first(waiting)
        while waiting:
            yield from _first(waiting)
    finally:
        for _, begun in waiting:
            if begun:
                begun.close()


def _first(waiting: deque[tuple[BlobStream, _Begun | None]]) -> Iterator[BlobStream]:
    stream, begun = waiting.popleft()
    with contextlib.closing(begun) if begun else contextlib.nullcontext():
        yield stream


class _Begun:
    """One blob whose first bytes are fetched by a thread."""

    def __init__(self, stream: BlobStream) -> None:
        self._stream = stream
        self._blocks: queue.Queue[object] = queue.Queue(DEPTH)
        self._stop = threading.Event()
        self._thread = background(self._run, "ahead")

    def _put(self, item: object) -> bool:
        while not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                self._blocks.put(item, timeout=0.1)
                return True
        return False

    def _run(self) -> None:
        try:
            for block in blocks(self._stream.open(0), BLOCK):
                if not self._put(block):
                    return
            self._put(_END)
        except BaseException as error:  # noqa: BLE001 - raised again by whoever reads
            self._put(error)

    def open(self, start: int = 0) -> Readable:
        """From the beginning what is on its way already; from elsewhere a reading of its own."""
        return self._stream.open(start) if start else IterReader(self._taken())

    def _taken(self) -> Iterator[bytes]:
        while (item := self._blocks.get()) is not _END:
            if isinstance(item, BaseException):
                raise item
            yield item  # type: ignore[misc]

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
