"""Chunks on their way out. An import knows every chunk it will still use, so it drops the one used farthest from now.

A frame decoded once serves all its uses if they fit the budget. On the reference corpus that takes 144 MiB for one layer after the other
in the bundle's order; four images at a time, the largest first, decode some 250 frames for 217 with 192 MiB.
"""

from __future__ import annotations

import heapq
import logging
import threading
from array import array
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future

from transfer.work import Pool

NEVER = (1 << 63) - 1
BUDGET, BUDGET_DELTA = 192 << 20, 176 << 20
"""Decoded chunks kept for later (bytes); fewer where frames' prefixes from other bundles are in memory besides."""
AHEAD = 40 << 20
"""How far before their use frames are decoded (bytes of output)."""

LOG = logging.getLogger(__name__)


class ChunkCache:
    """Chunks by number, decoded frame by frame. `plan` is every use to come, in order; using them so is fastest.

    `decode(frame, wanted, prefix)` gives the frame's chunks for which `wanted(number)` holds, checked against their names. Where frames
    have prefixes, `prefix_of` gives the numbers of a frame's prefix chunks, and `prefix_uses` where in the plan they stand.
    Only those who use chunks wait for frames; the pool's threads never do. Safe to use from several threads.
    """

    def __init__(
        self,
        decode: Callable[[int, Callable[[int], bool], bytes], dict[int, bytes]],
        frame_of: Sequence[int],
        size_of: Sequence[int],
        plan: array[int],
        *,
        pool: Pool,
        jobs: int,
        budget: int = BUDGET,
        prefix_of: Callable[[int], Sequence[int]] | None = None,
        prefix_uses: Mapping[int, int] | None = None,
    ) -> None:
        self._decode, self._frame_of, self._size_of = decode, frame_of, size_of
        self._pool, self._jobs, self._budget = pool, max(1, jobs), budget
        self._prefix_of, self._prefix_uses = prefix_of, dict(prefix_uses or {})
        self._next, self._coming = _next_uses(plan, len(frame_of))
        self._past: set[int] = set()
        self._held: dict[int, bytes] = {}
        self._held_size = 0
        self._order: list[tuple[int, int]] = []
        self._running: dict[int, Future[dict[int, bytes]]] = {}
        self._lock = threading.Lock()
        self.decodes = 0

    def use(self, number: int, position: int) -> bytes:
        """The chunk, for its use at `position` of the plan."""
        return self.use_all((number,), (position,))[0]

    def use_all(self, numbers: Sequence[int], positions: Sequence[int]) -> list[bytes]:
        """The chunks, for their uses at these positions of the plan: much less work than one after the other."""
        with self._lock:
            held = [self._held.get(number) for number in numbers]
            lacking = [number for number, data in zip(numbers, held, strict=True) if data is None]
            if not lacking:
                self._spend(numbers, positions)
        if not lacking:
            return [data for data in held if data is not None]
        found = self._obtain(list(dict.fromkeys(lacking)))
        with self._lock:
            self._spend(numbers, positions)
        return [found[number] if data is None else data for number, data in zip(numbers, held, strict=True)]

    def _obtain(self, numbers: Sequence[int]) -> dict[int, bytes]:
        """These chunks, decoded if need be, each frame once. Waits for the frames, and first for those they are patched against."""
        out: dict[int, bytes] = {}
        for number in numbers:
            if number in out:
                continue
            frame = self._frame_of[number]
            with self._lock:
                data = self._held.get(number)
                future = self._running.get(frame)
            if data is not None:
                out[number] = data
                continue
            together = {each for each in numbers if self._frame_of[each] == frame}
            if future is None:
                prefix = self._prefix(frame)
                with self._lock:
                    future = self._start(frame, together, prefix)
            found = future.result()
            with self._lock:
                self._adopt(frame, future)
                out.update({n: data for n in together if (data := found.get(n) or self._held.get(n))})
            if number not in out:
                LOG.debug("frame %d is decoded again: %d of its chunks were dropped for others", frame, len(together))
                out |= self._decode(frame, together.__contains__, self._prefix(frame))
        return out

    def _prefix(self, frame: int) -> bytes:
        """A frame's prefix, from the chunks it names."""
        numbers = self._prefix_of(frame) if self._prefix_of else ()
        if not numbers:
            return b""
        found = self._obtain(numbers)
        with self._lock:
            self._spend_prefix(frame, numbers)
        return b"".join([found[number] for number in numbers])

    def _spend_prefix(self, frame: int, numbers: Sequence[int]) -> None:
        """The uses the plan has for this prefix are over."""
        begin = self._prefix_uses.pop(frame, None)
        if begin is not None:
            self._spend(numbers, range(begin, begin + len(numbers)))

    def _spend(self, numbers: Sequence[int], positions: Sequence[int]) -> None:
        """These uses are over."""
        for number, position in zip(numbers, positions, strict=True):
            if self._pass(number, position) and number in self._held:
                self._settle(number)

    def _pass(self, number: int, position: int) -> bool:
        """The use at this position is over. Whether another one comes next now: where several read at once, an earlier one may be due."""
        coming = self._coming[number]
        if position > coming:
            self._past.add(position)
        if position != coming:
            return False
        following = self._next[position]
        while following in self._past:
            self._past.discard(following)
            following = self._next[following]
        self._coming[number] = following
        return True

    def forgo(self, number: int, position: int) -> None:
        """This use will not be made after all: nothing is kept for it."""
        with self._lock:
            self._spend((number,), (position,))

    def prepare(self, number: int) -> bool:
        """Begin to decode the chunk's frame if it is not at hand; False if enough are under way."""
        with self._lock:
            frame = self._frame_of[number]
            if number in self._held or frame in self._running:
                return True
            if sum(not each.done() for each in self._running.values()) >= self._jobs:
                return False
            if len(self._running) > self._jobs + (
                self._prefix_of is None
            ):  # a delta has its prefixes in memory besides
                return False
            numbers = self._prefix_of(frame) if self._prefix_of else ()
            prefix = self._gather(numbers)
            if prefix is None:
                return False
            self._spend_prefix(frame, numbers)
            self._start(frame, (number,), prefix)
            return True

    def _gather(self, numbers: Sequence[int]) -> bytes | None:
        """These chunks together, if all are held; if not, the first frame that is lacking is begun, where it is a plain one.

        Each is taken as it is come by: the next one may push it out.
        """
        found: list[bytes] = []
        for number in numbers:
            frame = self._frame_of[number]
            running = self._running.get(frame)
            if number not in self._held and running and running.done() and not running.exception():
                self._adopt(frame, running)
            data = self._held.get(number)
            if data is None:
                if frame not in self._running and not (self._prefix_of and self._prefix_of(frame)):
                    self._start(frame, (number,), b"")
                return None
            found.append(data)
        return b"".join(found)

    def _start(self, frame: int, numbers: Collection[int], prefix: bytes) -> Future[dict[int, bytes]]:
        future = self._running.get(frame)
        if future is None:
            self.decodes += 1
            coming = self._coming

            def wanted(each: int) -> bool:
                return coming[each] != NEVER or each in numbers

            future = self._pool.submit(lambda: self._decode(frame, wanted, prefix))
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


def with_prefixes(
    plan: array[int], frame_of: Sequence[int], prefix_of: Callable[[int], Sequence[int]]
) -> tuple[array[int], array[int], dict[int, int]]:
    """The plan with the uses that decoding itself makes: a frame's prefix chunks just before its first chunk.

    Gives all uses, for each place of the plan its place among them, and for each patched frame where its prefix uses begin.
    """
    uses: array[int] = array("I")
    time: array[int] = array("I")
    begin: dict[int, int] = {}
    seen: set[int] = set()

    def enter(frame: int) -> None:
        seen.add(frame)
        prefix = prefix_of(frame)
        for number in prefix:
            if frame_of[number] not in seen:
                enter(frame_of[number])
        if prefix:
            begin[frame] = len(uses)
            uses.extend(prefix)

    for number in plan:
        frame = frame_of[number]
        if frame not in seen:
            enter(frame)
        time.append(len(uses))
        uses.append(number)
    return uses, time, begin
