"""Packs that are open: a few at a time, however many bundles and packs are being read."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

OPEN_MAX = 64
"""Descriptors that are kept for the next frame. Most systems give a process 1024, and a bundle may have more packs than that."""


@dataclass(slots=True)
class _Open:
    fd: int
    path: Path
    users: int = 0


class OpenPacks:
    """Descriptors by (owner, number). Those in use are never closed; of the others the one used longest ago goes first."""

    def __init__(self, most: int = OPEN_MAX) -> None:
        self._most = most
        self._open: OrderedDict[tuple[int, int], _Open] = OrderedDict()
        self._lock = threading.Lock()
        self.gone: deque[int] = deque()
        """Owners that are no more. Whoever is being collected may be so in the middle of anything, so what it had is closed later."""

    @contextlib.contextmanager
    def using(self, key: tuple[int, int], opener: Callable[[], tuple[int, Path]]) -> Iterator[tuple[int, Path]]:
        """The descriptor and path of a pack, opened now if it is not open."""
        with self._lock:
            self._close_gone()
            found = self._open.get(key)
            if found is None:
                found = self._open[key] = _Open(*opener())
            self._open.move_to_end(key)
            found.users += 1
            self._close_some()
        try:
            yield found.fd, found.path
        finally:
            with self._lock:
                found.users -= 1

    def _close_some(self) -> None:
        idle = [key for key, each in self._open.items() if not each.users] if len(self._open) > self._most else []
        for key in idle[: len(self._open) - self._most]:
            os.close(self._open.pop(key).fd)

    def forget(self, owner: int) -> None:
        """Close what this owner has open and does not use."""
        self.gone.append(owner)
        with self._lock:
            self._close_gone()

    def _close_gone(self) -> None:
        gone = set()
        while self.gone:
            gone.add(self.gone.popleft())
        for key in [key for key, each in self._open.items() if key[0] in gone and not each.users] if gone else ():
            os.close(self._open.pop(key).fd)


OPEN = OpenPacks()
