"""Chunks on their way out. An import knows every chunk it will still use, so it drops the one used farthest from now.

A frame decoded once serves all its uses if they fit the budget; on the reference corpus 144 MiB decode each frame once.
"""

from __future__ import annotations

import heapq
import threading
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from transfer.work import Pool

NEVER = (1 << 63) - 1
BUDGET = 144 << 20
"""Decoded chunks kept for later (bytes)."""
AHEAD = 40 << 20
"""How far before their use frames are decoded (bytes of output)."""


class Recall:
    """Chunks by number, decoded frame by frame. `plan` is every use to come, in order; using them so is fastest.

    `decode(frame, wanted)` gives the frame's chunks for which `wanted(number)` holds, checked against their names.
    Safe to use from several threads.
    """

    def __init__(
        self,
        decode: Callable[[int, Callable[[int], bool]], dict[int, bytes]],
        frame_of: Sequence[int],
        size_of: Sequence[int],
        plan: array[int],
        *,
        pool: Pool,
        jobs: int,
        budget: int = BUDGET,
    ) -> None:
        self._decode, self._frame_of, self._size_of = decode, frame_of, size_of
        self._pool, self._jobs, self._budget = pool, max(1, jobs), budget
        self._next, self._coming = _next_uses(plan, len(frame_of))
        self._held: dict[int, bytes] = {}
        self._held_size = 0
        self._order: list[tuple[int, int]] = []
        self._running: dict[int, Future[dict[int, bytes]]] = {}
        self._lock = threading.Lock()
        self.decodes = 0

    def use(self, number: int, position: int) -> bytes:
        """The chunk, for its use at `position` of the plan."""
        with self._lock:
            self._coming[number] = self._next[position]
            data = self._held.get(number)
            if data is not None:
                self._settle(number)
                return data
            future = self._start(self._frame_of[number], number)
        found = future.result()
        with self._lock:
            self._adopt(self._frame_of[number], future)
            data = found.get(number) or self._held.get(number)
        if data is None:
            data = self._decode(self._frame_of[number], number.__eq__)[number]
        return data

    def prepare(self, number: int) -> bool:
        """Begin to decode the chunk's frame if it is not at hand; False if enough are under way."""
        with self._lock:
            frame = self._frame_of[number]
            if number in self._held or frame in self._running:
                return True
            if sum(not each.done() for each in self._running.values()) >= self._jobs:
                return False
            if len(self._running) > self._jobs + 1:
                return False
            self._start(frame, number)
            return True

    def _start(self, frame: int, number: int) -> Future[dict[int, bytes]]:
        future = self._running.get(frame)
        if future is None:
            self.decodes += 1
            coming = self._coming

            def wanted(each: int) -> bool:
                return coming[each] != NEVER or each == number

            future = self._pool.submit(lambda: self._decode(frame, wanted))
            self._running[frame] = future
        return future

    def _adopt(self, frame: int, future: Future[dict[int, bytes]]) -> None:
        """Keep what will be used again, once for each decoding."""
        if self._running.get(frame) is not future:
            return
        del self._running[frame]
        for number, data in future.result().items():
            coming = self._coming[number]
            if coming != NEVER and number not in self._held:
                self._held[number] = data
                self._held_size += len(data)
                heapq.heappush(self._order, (-coming, number))
        while self._held_size > self._budget and self._order:
            place, number = heapq.heappop(self._order)
            if number in self._held and self._coming[number] == -place:
                self._held_size -= len(self._held.pop(number))

    def _settle(self, number: int) -> None:
        """After a use: drop the chunk if it was the last, else queue it by its next."""
        coming = self._coming[number]
        if coming == NEVER:
            self._held_size -= len(self._held.pop(number))
        else:
            heapq.heappush(self._order, (-coming, number))


def _next_uses(plan: array[int], chunks: int) -> tuple[array[int], array[int]]:
    """For each position of the plan the next use of the same chunk, and for each chunk its first."""
    following = array("q", [NEVER]) * len(plan)
    first = array("q", [NEVER]) * chunks
    for position in range(len(plan) - 1, -1, -1):
        number = plan[position]
        following[position] = first[number]
        first[number] = position
    return following, first
