"""Lets bytes through while a window is open, and no faster than is allowed at the time of day."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from transfer.errors import NotNow
from transfer.ship.throttled import TokenBucket
from transfer.sites.window import Allowed, Window

LOOK_SECONDS = 1.0
"""So often the clock is looked at: it may be set while a run is under way."""
SLICE = 256 << 10


class Gate:
    """A pacer (`throttled.Pacer`) for all lines of a run. NotNow comes out of `take` when the window shuts, unless what was begun may end.

    `rate`: bytes a second at any time, 0 for no limit; the window's own rate counts if it is less.
    """

    slice = SLICE

    def __init__(
        self,
        window: Window,
        rate: int = 0,
        *,
        ignore: bool = False,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`ignore`: the window's spans do not count (`sync --now`); its rates do."""
        self._window, self._rate, self._clock, self._sleep = window, rate, clock, sleep
        self._ends = not (ignore or window.finish)
        self._lock = threading.Lock()
        self._allowed: Allowed | None = None
        self._looked = 0.0
        self._bucket: tuple[int, TokenBucket] | None = None

    def take(self, count: int) -> None:
        bucket = self._now()
        if bucket:
            for at in range(0, count, bucket.slice):
                bucket.take(min(bucket.slice, count - at))

    def _now(self) -> TokenBucket | None:
        with self._lock:
            now = self._clock()
            if self._allowed is None or abs(now - self._looked) >= LOOK_SECONDS:
                self._allowed, self._looked = self._window.at(now), now
            if not self._allowed.open and self._ends:
                raise NotNow(f"the window is shut{opens(self._window, now)}")
            rate = min((each for each in (self._rate, self._allowed.rate) if each), default=0)
            if not rate:
                self._bucket = None
            elif self._bucket is None or self._bucket[0] != rate:
                self._bucket = rate, TokenBucket(rate, sleep=self._sleep)
            return self._bucket[1] if self._bucket else None


def opens(window: Window, now: float) -> str:
    """ ", it opens Mon 22:00"; "" if that is not within a week."""
    moment = window.opens(now)
    return f"; it opens {window.local(moment):%a %H:%M}" if moment is not None else ""
