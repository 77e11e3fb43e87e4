"""How much may be on its way over a line: what it carries in a few seconds, so that a slow one still answers in time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from transfer.ship.base import WINDOW

SECONDS = 4.0
"""What is on its way is what the line carries in so many seconds."""
LEAST, FIRST = 8 << 10, 16 << 10
"""Bytes that may be on their way over the slowest line, and over one of which nothing is known."""
PIECE_MIN = 2 << 10


class Pace:
    """Grows with every answer, up to `most` (bytes), and narrows on a line that carries less.

    Over 8 kbit/s the 8 MiB of a fast line would take two hours, and whatever is to show that the line lives would wait behind them.
    """

    def __init__(self, most: int = WINDOW, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self.window = min(FIRST, most)
        self._at = clock()

    @property
    def piece(self) -> int:
        """What to send in one go, so that the far side answers several times for what is on its way (bytes)."""
        return max(PIECE_MIN, self.window // 4)

    def pieces(self, data: bytes | memoryview, most: int = WINDOW) -> Iterator[memoryview]:
        """The data in such pieces, each as large as the line takes when its turn comes, and never above `most` bytes."""
        rest = memoryview(data)
        while rest:
            piece = rest[: min(most, self.piece)]
            yield piece
            rest = rest[len(piece) :]

    def begin(self) -> None:
        """Nothing was on its way until now."""
        self._at = self._clock()

    def told(self, count: int) -> None:
        """The far side has written `count` bytes more."""
        now = self._clock()
        took, self._at = max(now - self._at, 1e-6), now
        self.window = max(min(LEAST, self._most), min(self._most, 2 * self.window, int(count / took * SECONDS)))
