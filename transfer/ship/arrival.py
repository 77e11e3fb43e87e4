"""The word that a bundle has come whole, for whoever watches a folder."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from transfer.errors import TransferError
from transfer.streams import publish

ARRIVED = ".arrived"
"""A file in an inbox or a spool, made anew when a bundle's index.json is there: systemd's path units look at it."""


def mark_arrival(place: Path) -> None:
    """Say it. Bundles are found without, only later: that it cannot be written is no matter."""
    with contextlib.suppress(TransferError, OSError):
        if not (place / ARRIVED).is_symlink():
            publish(place / ARRIVED, f"{time.time():.3f} {os.getpid()}\n".encode())
