"""Sizes, ages and JSON as the commands print them."""

from __future__ import annotations

import json as jsonlib
import re
import time

from transfer.errors import UsageError


def amount(size: int) -> str:
    """Bytes for people, in powers of 1000."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def several(number: int, what: str) -> str:
    """`1 image`, `2 images`."""
    plural = f"{what[:-1]}ies" if what.endswith("ry") else f"{what}s"
    return f"{number} {what}" if number == 1 else f"{number} {plural}"


def parse_size(option: str, text: str) -> int:
    """Bytes: `50G`, `500M`, `100000`; 0 for none. UsageError for anything else."""
    found = re.fullmatch(r"(\d{1,15})([KMGT]?)B?", text, re.IGNORECASE | re.ASCII)
    if text and not found:
        raise UsageError(f"{option} {text!r:.40}", hint="write bytes: 500M, 50G, 2T")
    return int(found[1]) * 1000 ** " KMGT".index(found[2].upper() or " ") if found else 0


def age(created: int) -> str:
    """How long ago, roughly."""
    seconds = max(0, int(time.time()) - created)
    for name, size in (("year", 31_557_600), ("month", 2_629_800), ("day", 86400), ("hour", 3600), ("minute", 60)):
        if created and seconds >= size:
            count = seconds // size
            return f"{count} {name}{'s' * (count != 1)} ago"
    return "just now" if created else "-"


def print_json(value: object) -> None:
    """One line that is JSON in any terminal: control characters, and bytes of a path that are no text, as escapes."""
    text = jsonlib.dumps(value, ensure_ascii=False)
    print(text if text.isprintable() else "".join(c if c.isprintable() else jsonlib.dumps(c)[1:-1] for c in text))
