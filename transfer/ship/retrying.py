"""A depot over a line that drops: opened again when it broke, with patience that any progress renews."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from transfer.errors import CutOff, LinkError, TransferError
from transfer.events import Noted, Observer
from transfer.model import Digest
from transfer.ship.base import Depot, HeldFile

R = TypeVar("R")
PAUSES = (0.0, 0.5, 1, 2, 4, 8, 15, 30, 30, 30)
"""Seconds before each attempt: a minute and a half in all, enough for a host to restart its sshd."""


class Retrying:
    """Whatever `connect` gives. All but `append` is asked again over a new line; after a cut in `append` (CutOff) the caller asks `stat`.

    LinkError when the line breaks or cannot be had as often as there are pauses, and nothing more has arrived in between.
    """

    def __init__(
        self,
        connect: Callable[[], Depot],
        observer: Observer,
        *,
        pauses: Sequence[float] = PAUSES,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._connect, self._observer, self._pauses, self._sleep = connect, observer, pauses, sleep
        self._holding: tuple[str, str] | None = None
        self._failures = 0
        self._reached: dict[str, int] = {}
        self._depot: Depot | None = connect()
        self.where, self.traits = self._depot.where, self._depot.traits

    def _line(self) -> Depot:
        """The depot; opened again if the line broke."""
        while self._depot is None:
            self._sleep(self._pauses[min(self._failures, len(self._pauses)) - 1])
            try:
                depot = self._connect()
            except CutOff as error:
                self._broke(error)
                continue
            except LinkError as error:
                self._broke(CutOff(error.message, hint=error.hint))
                continue
            self._depot = depot
            if self._holding:
                try:
                    self._ask(lambda line: line.hold(*self._holding))  # type: ignore[misc]
                except TransferError:
                    if self._depot:
                        self._depot.close()
                        self._depot = None
                    raise
        return self._depot

    def _broke(self, error: CutOff) -> None:
        self._failures += 1
        if self._depot:
            with contextlib.suppress(LinkError):
                self._depot.close()
        self._depot = None
        if self._failures >= len(self._pauses):
            raise LinkError(f"{error.message} ({self._failures} attempts)", hint=LinkError.advice) from error
        self._observer(Noted(f"{error.message}; trying again"))

    def _ask(self, call: Callable[[Depot], R]) -> R:
        while True:
            try:
                return call(self._line())
            except CutOff as error:
                self._broke(error)

    def hold(self, folder: str, token: str) -> None:
        self._ask(lambda depot: depot.hold(folder, token))
        self._holding = (folder, token)

    def stat(self, names: Sequence[str]) -> list[HeldFile | None]:
        found = self._ask(lambda depot: depot.stat(names))
        for name, held in zip(names, found, strict=True):
            size = 0 if held is None else held.size + held.finished
            if size > self._reached.get(name, 0):
                self._reached[name] = size
                self._failures = 0
        return found

    def list(self, folder: str) -> dict[str, int]:
        return self._ask(lambda depot: depot.list(folder))

    def read(self, name: str, offset: int = 0) -> Iterator[bytes]:
        while True:
            try:
                for block in self._line().read(name, offset):
                    yield block
                    offset += len(block)
                    self._failures = 0
                return
            except CutOff as error:
                self._broke(error)

    def parts(self, name: str) -> Sequence[bytes]:
        return self._ask(lambda depot: depot.parts(name))

    def append(self, name: str, data: bytes | memoryview, offset: int) -> None:
        try:
            self._line().append(name, data, offset)
        except CutOff as error:
            self._broke(error)
            raise

    def finish(self, name: str, digest: Digest, size: int) -> None:
        """CutOff as `append`: bytes that were on their way may be lost, or all is there already."""
        try:
            self._line().finish(name, digest, size)
        except CutOff as error:
            self._broke(error)
            raise
        self._failures = 0

    def check(self, name: str, digest: Digest, size: int) -> str:
        return self._ask(lambda depot: depot.check(name, digest, size))

    def discard(self, name: str) -> None:
        self._ask(lambda depot: depot.discard(name))

    def free(self, folder: str) -> int | None:
        return self._ask(lambda depot: depot.free(folder))

    def supply(self, folder: str, files: Sequence[tuple[str, Digest, int]]) -> int:
        return self._ask(lambda depot: depot.supply(folder, files))

    def close(self) -> None:
        if self._depot:
            with contextlib.suppress(LinkError):
                self._depot.close()
