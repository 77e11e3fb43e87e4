"""The rate that was asked for is kept, by one and by several, over a clock that only the sleepers move."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable

import pytest

from tests.support.zoo import noise
from transfer.ship.base import PART, HeldFile
from transfer.ship.memory import MemoryDepot
from transfer.ship.throttled import Throttled, TokenBucket
from transfer.streams import sha256

SECONDS = 10.0
RATES = [1_000, 300_000, 12_500_000, 1 << 30]
BLOCKS = [1, 1_460, 64 << 10, PART]
TAKES = 20_000


class Simulated:
    """A clock for so many threads: when all of them sleep it goes on to where the first one wakes."""

    def __init__(self, workers: int = 1) -> None:
        self.now = 100.0
        self._awake = workers
        self._alarms: list[tuple[float, int]] = []
        self._numbers = itertools.count()
        self._moved = threading.Condition()

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        with self._moved:
            alarm = (self.now + seconds, next(self._numbers))
            heapq.heappush(self._alarms, alarm)
            self._rest()
            assert self._moved.wait_for(lambda: alarm not in self._alarms, 30)

    def leave(self) -> None:
        """One thread fewer."""
        with self._moved:
            self._rest()

    def _rest(self) -> None:
        self._awake -= 1
        if not self._awake and self._alarms:
            self.now, _ = heapq.heappop(self._alarms)
            self._awake = 1
            self._moved.notify_all()


def taken(rate: int, blocks: list[int], seconds: float = SECONDS) -> list[tuple[float, int]]:
    """When each take came back, and its bytes: one thread for each size of block, all out of one bucket."""
    time = Simulated(len(blocks))
    bucket = TokenBucket(rate, clock=time.clock, sleep=time.sleep)
    began, out = time.now, []

    def work(block: int) -> None:
        while True:
            bucket.take(block)
            if time.now - began > seconds:
                break
            out.append((time.now - began, block))
        time.leave()

    threads = [threading.Thread(target=work, args=(block,), daemon=True) for block in blocks]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
        assert not each.is_alive()
    return out


def assert_no_burst(events: list[tuple[float, int]], rate: int) -> None:
    """In no stretch of time more than its worth and what may come in advance: a tenth of a second's, or else one block."""
    advance = max(rate / 10, max(block for _, block in events))
    lowest, total = 0.0, 0
    for at, block in events:
        lowest = min(lowest, total - rate * at)
        total += block
        assert total - rate * at - lowest <= advance * (1 + 1e-6) + 1


@pytest.mark.parametrize(("rate", "block"), [(r, b) for r in RATES for b in BLOCKS if 20 * b < r * SECONDS < TAKES * b])
def test_the_rate_is_kept(rate: int, block: int) -> None:
    events = taken(rate, [block])
    assert sum(size for _, size in events) == pytest.approx(rate * SECONDS, rel=0.05)
    assert_no_burst(events, rate)


@pytest.mark.parametrize("blocks", [[1_460] * 5, [100, 1_460, 64 << 10, 200_000]], ids=["alike", "unlike"])
def test_several_share_it(blocks: list[int]) -> None:
    rate = 1_000_000
    events = taken(rate, blocks)
    assert sum(size for _, size in events) == pytest.approx(rate * SECONDS, rel=0.05)
    assert {size for _, size in events} == set(blocks)
    assert_no_burst(events, rate)


def test_idleness_saves_up_no_more_than_a_tenth_of_a_second() -> None:
    time = Simulated()
    bucket = TokenBucket(10_000, clock=time.clock, sleep=time.sleep)
    bucket.take(10_000)
    for idle in (0.05, 0.1, 3, 86_400):
        time.now += idle
        before, free = time.now, 0
        while time.now == before:
            bucket.take(1)
            free += 1
        assert free - 1 == pytest.approx(min(idle, 0.1) * 10_000, abs=1)


def throttled(depot: MemoryDepot, rate: int) -> tuple[Throttled, Simulated]:
    time = Simulated()
    return Throttled(depot, TokenBucket(rate, clock=time.clock, sleep=time.sleep)), time


@pytest.mark.parametrize("rate", [1 << 20, 5_000_000])
def test_both_directions_count(rate: int) -> None:
    data, depot = noise(1, 3 * PART + 5), MemoryDepot()
    slow, time = throttled(depot, rate)

    def seconds(call: Callable[[], object]) -> float:
        began = time.now
        call()
        return time.now - began

    assert seconds(lambda: slow.append("b/x", data, 0)) == pytest.approx(len(data) / rate, rel=0.05)
    assert seconds(lambda: slow.finish("b/x", sha256(data), len(data))) == 0
    assert depot.finished["b/x"] == data
    assert seconds(lambda: b"".join(slow.read("b/x"))) == pytest.approx(len(data) / rate, rel=0.05)
    assert b"".join(slow.read("b/x", PART + 1)) == data[PART + 1 :]


def test_what_is_appended_goes_in_slices_of_a_tenth_of_a_second() -> None:
    """So that the far side hears something steadily, however large the part is."""
    grown: list[int] = []

    class Watching(MemoryDepot):
        def append(self, name: str, data: bytes | memoryview, offset: int) -> None:
            super().append(name, data, offset)
            grown.append(len(data))

    slow, _ = throttled(Watching(), 50_000)
    slow.append("b/x", noise(1, PART), 0)
    assert max(grown) == 5_000
    assert sum(grown) == PART
    assert slow.stat(["b/x"]) == [HeldFile(PART, False)]
    slow.append("b/x", b"", 0)
    assert slow.stat(["b/x"]) == [HeldFile(0, False)]
