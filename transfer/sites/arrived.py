"""What came from syncs: their bundles are folders named SITE-000042, and the newest number of each is remembered in the store."""

from __future__ import annotations

import json
import re
from pathlib import Path

from transfer.errors import TransferError, UsageError
from transfer.sites.receipt import site_name
from transfer.streams import parse_object, publish, read_small

FILE = "arrived.json"
_NAME = re.compile(r"(.+)-(\d{6,12})", re.ASCII)


def folder_name(site: str, serial: int) -> str:
    """What the folder of a sync's bundle is called."""
    return f"{site}-{serial:06}"


def series(folder: str) -> tuple[str, int] | None:
    """The site that a bundle was made for, and its number; None for a folder that no sync named."""
    found = _NAME.fullmatch(folder)
    try:
        return (site_name(found[1]), int(found[2])) if found else None
    except UsageError:
        return None


def newest(store: Path) -> dict[str, int]:
    """The newest bundle of each sync that was imported. A list that cannot be read is begun again."""
    path = store / FILE
    try:
        value = parse_object(read_small(path), str(path)).get("serials") if path.exists() else None
    except TransferError:
        return {}
    return {name: n for name, n in value.items() if type(n) is int} if isinstance(value, dict) else {}


def overtaken_by(store: Path, folder: str) -> int:
    """The number of the newest bundle of the same sync that was imported before this older one; 0 if there is none."""
    found = series(folder)
    last = newest(store).get(found[0], 0) if found else 0
    return last if found and found[1] < last else 0


def remember(store: Path, folder: str) -> None:
    """A bundle was imported."""
    found, known = series(folder), newest(store)
    if found and found[1] > known.get(found[0], 0):
        value = {"format": "transfer.arrived", "version": 1, "serials": {**known, found[0]: found[1]}}
        publish(store / FILE, json.dumps(value, indent=1).encode() + b"\n")
