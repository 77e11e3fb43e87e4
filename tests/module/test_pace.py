"""How much is sent ahead: little over a slow line, up to all that is allowed over a fast one."""

from __future__ import annotations

import pytest

from tests.support.zoo import noise
from transfer.ship import wire
from transfer.ship.base import WINDOW
from transfer.ship.pace import FIRST, LEAST, PIECE_MIN, Pace


class Line:
    """A line that carries `rate` bytes a second and answers `delay` seconds later, used as a depot uses it."""

    def __init__(self, rate: float, delay: float, most: int = WINDOW) -> None:
        self.now, self.sent = 0.0, 0
        self._rate, self._delay = rate, delay
        self._free = 0.0
        self._answers: list[tuple[float, int]] = []
        self.pace = Pace(most, clock=lambda: self.now)

    def carry(self, total: int) -> float:
        """Send so many bytes; the longest time (s) for which nothing was heard, from when the first answer came."""
        heard, longest = None, 0.0
        self.pace.begin()
        while total or self._answers:
            while total and sum(size for _, size in self._answers) <= self.pace.window:
                piece = min(total, self.pace.piece)
                self._free = max(self._free, self.now) + piece / self._rate
                self._answers.append((self._free + self._delay, piece))
                total -= piece
            self.now, size = self._answers.pop(0)
            longest = max(longest, self.now - (self.now if heard is None else heard))
            heard = self.now
            self.pace.told(size)
        return longest


@pytest.mark.parametrize("rate", [300.0, 1_000.0, 10_000.0])
@pytest.mark.parametrize("delay", [0.0, 0.6])
def test_a_slow_line_answers_every_few_seconds(rate: float, delay: float) -> None:
    line = Line(rate, delay)
    assert line.carry(200_000) < wire.SILENCE / 2
    assert line.pace.window <= max(LEAST, rate * 5)


@pytest.mark.parametrize(("rate", "delay"), [(1e6, 0.05), (12.5e6, 0.1), (300e6, 0.0), (1e6, 0.6)])
def test_a_fast_one_is_kept_full(rate: float, delay: float) -> None:
    line, total = Line(rate, delay), 64 << 20
    line.carry(total)
    assert line.now < total / rate * 1.05 + 12 * delay
    assert line.pace.window >= min(WINDOW, rate * 2)


def test_a_line_that_gets_slow_is_narrowed_and_one_that_gets_fast_widened() -> None:
    line = Line(50e6, 0.01)
    line.carry(32 << 20)
    assert line.pace.window == WINDOW
    line._rate = 1_000
    line.carry(1 << 20)
    assert line.pace.window <= LEAST
    line._rate = 50e6
    line.carry(32 << 20)
    assert line.pace.window == WINDOW


def test_never_more_than_was_allowed() -> None:
    assert Pace(1000).window == 1000
    assert Pace(1000).piece == PIECE_MIN
    pace = Pace(LEAST // 2)
    pace.told(1 << 30)
    assert pace.window == LEAST // 2
    assert Pace().window == FIRST


def test_an_answer_that_is_nonsense_only_narrows() -> None:
    pace = Pace()
    for count in (-1, 0, 1 << 80, *noise(1, 20)):
        pace.told(count)
        assert LEAST <= pace.window <= WINDOW
