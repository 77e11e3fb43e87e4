"""The two locks of a store: of whoever adds, and of readers against whoever removes."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from transfer.errors import Locked, from_os_error
from transfer.folders import open_own, own_folder
from transfer.store.marks import PRIVATE

LOG = logging.getLogger(__name__)
PATIENCE = 30.0
"""How long a run waits for another one's lock (seconds)."""


@contextlib.contextmanager
def held(root: Path, name: str, how: int, what: str) -> Iterator[None]:
    """Hold a lock file of the store, which is made if there is none. Locked after PATIENCE, with what the other run is doing."""
    try:
        own_folder(root, "bundles", "blobs", "blobs/sha256", private=True)
        fd = open_own(root / name, PRIVATE)
    except OSError as error:
        raise from_os_error(error, f"opening the store {root}") from error
    try:
        started = time.monotonic()
        until = started + PATIENCE
        while True:
            try:
                fcntl.flock(fd, how | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() > until:
                    raise Locked(
                        f"{root}: another run is {what} this store", hint="wait for it to end, then run again"
                    ) from error
                time.sleep(0.05)
        if time.monotonic() - started > 0.05:
            LOG.info("%s: waited %.2f s for the lock %s", root, time.monotonic() - started, name)
        yield
    finally:
        os.close(fd)
