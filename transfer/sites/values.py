"""What the values of a site file may be, and how each is read."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True, slots=True)
class Setting:
    """What a key may be. `read` makes the value and raises ValueError or UsageError for one that it cannot be."""

    read: Callable[[Any], Any]
    what: str


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError
    return tuple(_text(each) for each in value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def number(least: int, most: int) -> Setting:
    def read(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise ValueError
        return value

    return Setting(read, f"a number from {least} to {most}")


def word(**words: Any) -> Setting:
    def read(value: Any) -> Any:
        if not isinstance(value, str) or value not in words:
            raise ValueError
        return words[value]

    return Setting(read, " or ".join(words))


def duration(value: Any) -> int:
    """Seconds in `90s`, `15min`, `12h`, `7d`, `2w`. ValueError for anything else."""
    found = re.fullmatch(r"(\d{1,6})\s*(s|min|h|d|w)", value) if isinstance(value, str) else None
    if not found:
        raise ValueError
    return int(found[1]) * _UNITS[found[2]]


def rate(value: Any) -> int:
    """Bytes a second in `500K`, `2M`, `1.5G`; ValueError for anything else, or less than 1K."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([KMG]?)", value) if isinstance(value, str) else None
    out = int(float(found[1]) * {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3}[found[2]]) if found else 0
    if out < 1000:
        raise ValueError
    return out


def _share(value: Any) -> int:
    found = re.fullmatch(r"(\d{1,2})%", value) if isinstance(value, str) else None
    if not found or not 1 <= int(found[1]) <= 50:
        raise ValueError
    return int(found[1])


def _limits(value: Any) -> tuple[tuple[str, int], ...]:
    if not isinstance(value, list) or not all(isinstance(each, list) and len(each) == 2 for each in value):
        raise ValueError
    return tuple((_text(when), rate(most)) for when, most in value)


TEXT, TEXTS, FLAG = Setting(_text, "a text"), Setting(_texts, "a list of texts"), Setting(_flag, "true or false")
DURATION = Setting(duration, "a duration such as 12h, 7d or 2w")
RATE = Setting(rate, "bytes a second, at least 1K: 500K, 2M")
SHARE = Setting(_share, "a share from 1% to 50%")
LIMITS = Setting(_limits, 'a list of pairs: [["Mon..Fri 08:00-18:00", "100K"]]')


def one_of(*words: str) -> Setting:
    """One of these texts, as it is."""

    def read(value: Any) -> str:
        if value not in words:
            raise ValueError
        return str(value)

    return Setting(read, " or ".join(words))
