"""What lets bytes through: only while the window is open, and as fast as the hour allows."""

from __future__ import annotations

import pytest

from transfer.errors import NotNow
from transfer.ship.gate import Gate
from transfer.sites.window import parse_window

MIDNIGHT = 1_764_547_200.0
"""Monday, 1 December 2025, 00:00 UTC."""
MB = 1_000_000


class Clock:
    def __init__(self, now: float) -> None:
        self.now, self.slept = now, 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept = max(self.slept, seconds)


def gate(
    clock: Clock,
    spans: list[str],
    limits: list[tuple[str, int]],
    rate: int = 0,
    *,
    ignore: bool = False,
    finish: bool = False,
) -> Gate:
    window = parse_window(spans, limits, "UTC", finish=finish)
    return Gate(window, rate, ignore=ignore, clock=clock, sleep=clock.sleep)


def test_the_rate_changes_while_a_run_is_under_way() -> None:
    clock = Clock(MIDNIGHT + 7 * 3600 + 3599)
    passing = gate(clock, [], [("* 08:00-18:00", 100_000)])
    passing.take(10 * MB)
    assert clock.slept == 0
    clock.now += 2
    passing.take(MB // 10)
    assert 0.7 < clock.slept < 1.1
    clock.now = MIDNIGHT + 18 * 3600
    passing.take(10 * MB)
    assert clock.slept < 1.1


def test_the_lower_rate_counts() -> None:
    clock = Clock(MIDNIGHT)
    passing = gate(clock, [], [("*", 50_000)], 100_000)
    passing.take(50_000)
    assert 0.7 < clock.slept < 1.1


def test_it_shuts_in_the_middle() -> None:
    clock = Clock(MIDNIGHT + 4 * 3600 + 3590)
    passing = gate(clock, ["* 22:00-05:00"], [])
    passing.take(MB)
    clock.now += 30
    with pytest.raises(NotNow, match="opens Mon 22:00"):
        passing.take(1)
    clock.now -= 3600  # the clock is put back
    passing.take(1)


@pytest.mark.parametrize("how", ["ignore", "finish"])
def test_what_may_end_outside(how: str) -> None:
    clock = Clock(MIDNIGHT + 12 * 3600)
    gate(clock, ["* 22:00-05:00"], [], ignore=how == "ignore", finish=how == "finish").take(MB)
