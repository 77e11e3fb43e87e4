"""A depot that takes no more than so many bytes a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from transfer.model import Digest
from transfer.ship.base import Depot, HeldFile


class Pacer(Protocol):
    """Says when so many bytes more may go. `slice`: the most that is asked for at a time."""

    @property
    def slice(self) -> int: ...

    def take(self, count: int) -> None:
        """Wait until they may. It may raise: then they may not go at all."""
        ...


class TokenBucket:
    """A token bucket: `rate` bytes a second over all who share it, with at most a tenth of a second's worth in advance."""

    def __init__(
        self,
        rate: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.slice = max(1, min(rate // 10, 256 << 10))
        self._rate, self._clock, self._sleep = rate, clock, sleep
        self._lock = threading.Lock()
        self._due = clock()

    def take(self, count: int) -> None:
        """Wait until `count` more bytes may go."""
        with self._lock:
            now = self._clock()
            self._due = max(self._due, now - 0.1) + count / self._rate
            wait = self._due - now
        if wait > 0:
            self._sleep(wait)


class Throttled:
    """The same depot; what is appended and read counts, in both directions."""

    def __init__(self, depot: Depot, bucket: Pacer) -> None:
        self._depot, self._bucket = depot, bucket
        self.where, self.traits = depot.where, depot.traits

    def append(self, name: str, data: bytes | memoryview, offset: int) -> None:
        view = memoryview(data)
        for at in range(0, max(1, len(view)), self._bucket.slice):
            part = view[at : at + self._bucket.slice]
            self._bucket.take(len(part))
            self._depot.append(name, part, offset + at)

    def read(self, name: str, offset: int = 0) -> Iterator[bytes]:
        for block in self._depot.read(name, offset):
            self._bucket.take(len(block))
            yield block

    def hold(self, folder: str, token: str) -> None:
        self._depot.hold(folder, token)

    def stat(self, names: Sequence[str]) -> list[HeldFile | None]:
        return self._depot.stat(names)

    def list(self, folder: str) -> dict[str, int]:
        return self._depot.list(folder)

    def parts(self, name: str) -> Sequence[bytes]:
        return self._depot.parts(name)

    def finish(self, name: str, digest: Digest, size: int) -> None:
        self._depot.finish(name, digest, size)

    def check(self, name: str, digest: Digest, size: int) -> str:
        return self._depot.check(name, digest, size)

    def discard(self, name: str) -> None:
        self._depot.discard(name)

    def free(self, folder: str) -> int | None:
        return self._depot.free(folder)

    def supply(self, folder: str, files: Sequence[tuple[str, Digest, int]]) -> int:
        return self._depot.supply(folder, files)

    def close(self) -> None:
        self._depot.close()
