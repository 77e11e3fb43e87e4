"""When a site may be reached, and how fast: days and local times, which may pass midnight. No clock is read here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from transfer.errors import UsageError

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DAY_MINUTES = 24 * 60
LOOK_AHEAD = 8
"""Days: every span comes round once in seven."""
_SPAN = re.compile(r"(?P<days>[^\s]+)(?:\s+(?P<from>\d{2}):(?P<from_m>\d{2})-(?P<to>\d{2}):(?P<to_m>\d{2}))?", re.ASCII)
_HOW = "write days and times: Mon..Fri 22:00-05:00, or Sat,Sun, or * 01:00-04:00"


@dataclass(frozen=True, slots=True)
class Span:
    """Local times of certain days (0: Monday), in minutes since midnight, the end not included. An end that is not after the start is the next day's."""

    days: frozenset[int]
    start: int = 0
    end: int = DAY_MINUTES

    def holds(self, local: datetime) -> bool:
        minute = local.hour * 60 + local.minute
        day = local.weekday()
        if self.end > self.start:
            return day in self.days and self.start <= minute < self.end
        return (day in self.days and minute >= self.start) or ((day - 1) % 7 in self.days and minute < self.end)


@dataclass(frozen=True, slots=True)
class Allowed:
    """What holds at a moment. `until`: when that changes (seconds since 1970); None if it never does. `rate`: bytes a second, 0 for no limit."""

    open: bool
    rate: int
    until: float | None


@dataclass(frozen=True, slots=True)
class Window:
    """`spans`: when the site may be reached; none: always. `limits`: rates at certain times, the first that holds counts.

    `zone`: None for the host's own. `finish`: what was begun inside may end outside.
    """

    spans: tuple[Span, ...] = ()
    limits: tuple[tuple[Span, int], ...] = ()
    zone: tzinfo | None = None
    finish: bool = False

    def at(self, now: float) -> Allowed:
        """What holds at a moment (seconds since 1970)."""
        held = self._held(now)
        return Allowed(*held, self._until(now, held))

    def opens(self, now: float) -> float | None:
        """When it is open next: now, later, or never within a week (None)."""
        moment = now
        for _ in range(1000):
            allowed = self.at(moment)
            if allowed.open:
                return moment
            if allowed.until is None:
                return None
            moment = allowed.until
        return None

    def local(self, moment: float) -> datetime:
        return datetime.fromtimestamp(moment, UTC).astimezone(self.zone)

    def _held(self, moment: float) -> tuple[bool, int]:
        local = self.local(moment)
        rate = next((rate for span, rate in self.limits if span.holds(local)), 0)
        return not self.spans or any(span.holds(local) for span in self.spans), rate

    def _until(self, now: float, held: tuple[bool, int]) -> float | None:
        spans = [*self.spans, *(span for span, _ in self.limits)]
        if not spans:
            return None
        for moment in self._edges(now, {edge % DAY_MINUTES for span in spans for edge in (0, span.start, span.end)}):
            if moment > now and self._held(moment) != held:
                return moment
        return None

    def _edges(self, now: float, minutes: set[int]) -> list[float]:
        """The moments of the next days at which something can change, in order: those times, and whenever the clock is put forward or back."""
        midnight = self.local(now).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None) - timedelta(days=1)
        out = set(self._shifts(now))
        for day in range(LOOK_AHEAD + 2):
            for minute in minutes:
                naive = midnight + timedelta(days=day, minutes=minute)
                for fold in (0, 1):
                    wall = naive.replace(fold=fold, tzinfo=self.zone) if self.zone else naive.replace(fold=fold)
                    out.add(wall.timestamp())
        return sorted(out)

    def _shifts(self, now: float) -> list[float]:
        """When the zone's offset from UTC changes, to the minute."""
        first = int(now // 3600) * 3600
        out = []
        for hour in range((LOOK_AHEAD + 1) * 24):
            low, high = first + hour * 3600, first + (hour + 1) * 3600
            before = self.local(low).utcoffset()
            if self.local(high).utcoffset() == before:
                continue
            while high - low > 60:
                middle = (low + high) // 120 * 60
                low, high = (middle, high) if self.local(middle).utcoffset() == before else (low, middle)
            out.append(float(high))
        return out


def parse_span(text: str) -> Span:
    """`Mon..Fri 22:00-05:00`, `Sat,Sun`, `* 01:00-04:00`. UsageError for anything else."""
    found = _SPAN.fullmatch(text.strip())
    if not found:
        raise UsageError(f"{text!r:.80} is not a time window", hint=_HOW)
    days = _days(found["days"], text)
    if found["from"] is None:
        return Span(days)
    start, end = _minute(found["from"], found["from_m"], text), _minute(found["to"], found["to_m"], text)
    if start == DAY_MINUTES:
        raise UsageError(f"{text!r:.80}: a window cannot start at 24:00", hint=_HOW)
    if start == end:
        raise UsageError(f"{text!r:.80}: a window that ends when it starts", hint="for the whole day name days only")
    return Span(days, start, end)


def _days(text: str, whole: str) -> frozenset[int]:
    out: set[int] = set()
    for part in text.split(","):
        first, dots, last = part.partition("..")
        if part == "*":
            out |= set(range(7))
        elif first in DAYS and (not dots or last in DAYS):
            a, b = DAYS.index(first), DAYS.index(last or first)
            out |= {(a + n) % 7 for n in range((b - a) % 7 + 1)}
        else:
            raise UsageError(f"{whole!r:.80}: {part!r:.40} is not a day", hint=f"days are {' '.join(DAYS)}, or *")
    return frozenset(out)


def _minute(hour: str, minute: str, whole: str) -> int:
    out = int(hour) * 60 + int(minute)
    if out > DAY_MINUTES or int(minute) > 59:
        raise UsageError(f"{whole!r:.80}: {hour}:{minute} is not a time of day", hint="write 00:00 to 24:00")
    return out


def parse_window(spans: Sequence[str], limits: Sequence[tuple[str, int]], zone: str, *, finish: bool) -> Window:
    """From the words of a site file. UsageError for what cannot be understood."""
    return Window(
        tuple(parse_span(each) for each in spans),
        tuple((parse_span(each), rate) for each, rate in limits),
        _zone(zone) if zone else None,
        finish,
    )


def _zone(name: str) -> tzinfo:
    from zoneinfo import ZoneInfo

    try:
        if not re.fullmatch(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", name, re.ASCII):
            raise ValueError(name)
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:  # ZoneInfoNotFoundError is a KeyError
        raise UsageError(
            f"{name!r:.80} is not a time zone of this host", hint="write it as Europe/Berlin, or leave it out"
        ) from error
