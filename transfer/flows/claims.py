"""Who sends a layer that several images lack: one of them, and the others wait for it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future

from transfer.engines.base import Key, OtherFailed


class Claims:
    """What the images that land at once have claimed. For any sink that takes several at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._coming: dict[Hashable, Future[bool]] = {}

    @contextlib.contextmanager
    def turn(self, claimed: Callable[[], None] = lambda: None) -> Iterator[ClaimingTurn]:
        """One image's turn. `claimed` is called when it has claimed what it brings, so that the next image may begin.

        Whoever waits for it learns whether it came: it did if nothing was raised in here.
        """
        done: Future[bool] = Future()
        arrived = False
        try:
            yield ClaimingTurn(self._lock, self._coming, done, claimed)
            arrived = True
        finally:
            with self._lock:
                for key in [key for key, each in self._coming.items() if each is done]:
                    del self._coming[key]
            done.set_result(arrived)


class ClaimingTurn:
    """See engines/base.py, Turn."""

    def __init__(
        self,
        lock: threading.Lock,
        coming: dict[Hashable, Future[bool]],
        done: Future[bool],
        claimed: Callable[[], None],
    ) -> None:
        self._lock, self._coming, self._done, self._claimed = lock, coming, done, claimed
        self._others: set[Future[bool]] = set()

    def claim(self, lacking: Callable[[], Iterable[Key]]) -> frozenset[Key]:
        with self._lock:
            keys = list(lacking())
            self._others = {self._coming[key] for key in keys if key in self._coming}
            mine = frozenset(key for key in keys if key not in self._coming)
            self._coming.update(dict.fromkeys(mine, self._done))
        self._claimed()
        return mine

    def wait(self) -> None:
        if not all(each.result() for each in self._others):
            raise OtherFailed("an image that was to bring a layer failed")
