"""Sizes, ages and JSON as the commands print them."""

from __future__ import annotations

import json as jsonlib
import time


def amount(size: int) -> str:
    """Bytes for people, in powers of 1000."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def age(created: int) -> str:
    """How long ago, roughly."""
    seconds = max(0, int(time.time()) - created)
    for name, size in (("year", 31_557_600), ("month", 2_629_800), ("day", 86400), ("hour", 3600), ("minute", 60)):
        if created and seconds >= size:
            count = seconds // size
            return f"{count} {name}{'s' * (count != 1)} ago"
    return "just now" if created else "-"


def print_json(value: object) -> None:
    print(jsonlib.dumps(value, ensure_ascii=False))
