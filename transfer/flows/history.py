"""What was exported, shipped, confirmed, imported and refused at this site: one JSON line each, in the store."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from transfer.errors import TransferError
from transfer.folders import open_own, own_folder
from transfer.streams import publish, write_all

FILE = "history.jsonl"
FILE_MAX = 16 << 20
LINE_MAX = 16 << 10
_PRIVATE = 0o600


@dataclass(frozen=True, slots=True)
class Event:
    """`what`: exported, shipped, confirmed, lost, imported, refused, receipt, failed. Sizes in bytes, `at` in seconds since 1970."""

    at: float
    what: str
    site: str = ""
    bundle: str = ""
    serial: int = 0
    images: int = 0
    size: int = 0
    road: str = ""
    where: str = ""
    slug: str = ""
    message: str = ""


def note(store: Path, event: Event) -> None:
    """Add a line, durably. A history that cannot be written is no reason to fail."""
    short = {key: each for key, each in asdict(event).items() if each not in ("", 0)}
    short |= {key: str(short[key])[:1000] for key in ("where", "message") if key in short}
    line = json.dumps(short, separators=(",", ":")).encode() + b"\n"
    with contextlib.suppress(TransferError, OSError):
        own_folder(store, private=True)
        _shorten(store / FILE)
        fd = open_own(store / FILE, _PRIVATE)
        try:
            size = os.lseek(fd, 0, os.SEEK_END)
            if size and os.pread(fd, 1, size - 1) != b"\n":
                line = b"\n" + line  # a line that a kill cut off is passed over
            write_all(fd, line)
            os.fsync(fd)
        finally:
            os.close(fd)


def _shorten(path: Path) -> None:
    """The newer half of a file that has grown too large."""
    if path.exists() and path.stat().st_size > FILE_MAX:
        lines = path.read_bytes().splitlines(keepends=True)
        publish(path, b"".join(lines[len(lines) // 2 :]), _PRIVATE)


def read(store: Path, since: float = 0) -> Iterator[Event]:
    """The events since a moment, oldest first. Lines that are none are passed over."""
    names = Event.__dataclass_fields__
    try:
        with open(store / FILE, "rb") as file:
            lines = file.read(FILE_MAX * 2).splitlines()
    except OSError:
        return
    for line in lines:
        try:
            value = json.loads(line[:LINE_MAX])
            found = Event(**{key: each for key, each in value.items() if key in names})
            if float(found.at) >= since and isinstance(found.what, str):
                yield found
        except (ValueError, TypeError, AttributeError):
            continue


def now() -> float:
    """The time as it is noted: to the millisecond."""
    return round(time.time(), 3)
