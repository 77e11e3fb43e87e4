"""The depot suite over everything that needs no other host."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conformance.depots import DepotSuite, Yard
from transfer.events import silent
from transfer.ship.base import WINDOW, Depot, unfinished
from transfer.ship.folder import FolderDepot
from transfer.ship.memory import MemoryDepot
from transfer.ship.receive import Receiver
from transfer.ship.receiver import ReceiverDepot
from transfer.ship.retrying import Retrying
from transfer.ship.socketed import SocketChannel
from transfer.ship.throttled import Throttled, TokenBucket
from transfer.ship.wire import ACK_EVERY


def memory(folder: Path) -> Yard:
    finished: dict[str, bytes] = {}
    growing: dict[str, bytearray] = {}

    def spoil(name: str, at: int) -> None:
        data = growing.get(name) or bytearray(finished[name])
        data[at] ^= 1
        if name in finished:
            finished[name] = bytes(data)

    return Yard(lambda: MemoryDepot(finished, growing), finished.get, spoil, locks=False)


def on_disk(root: Path, opened: Callable[[], Depot], *, locks: bool = True) -> Yard:
    def finished(name: str) -> bytes | None:
        path = root / name
        return path.read_bytes() if path.exists() else None

    def spoil(name: str, at: int) -> None:
        path = root / name
        growing = path.with_name(unfinished(path.name))
        path = growing if growing.exists() else path
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)

    return Yard(opened, finished, spoil, locks=locks)


def folder(root: Path) -> Yard:
    return on_disk(root, lambda: FolderDepot(root, patience=0.2))


def receiver(root: Path, *, window: int = WINDOW) -> Yard:
    def opened() -> Depot:
        ours, theirs = socket.socketpair()
        serving = Receiver(SocketChannel(theirs, "sender"), inbox=None, patience=0.2)
        threading.Thread(target=serving.run, daemon=True).start()
        return ReceiverDepot(SocketChannel(ours, "receiver"), "receiver", str(root), window=window)

    return on_disk(root, opened)


def throttled(root: Path) -> Yard:
    return on_disk(root, lambda: Throttled(FolderDepot(root, patience=0.2), TokenBucket(1 << 30)))


def retrying(root: Path) -> Yard:
    return on_disk(root, lambda: Retrying(lambda: FolderDepot(root, patience=0.2), silent))


DEPOTS: dict[str, Callable[[Path], Yard]] = {
    "memory": memory,
    "folder": folder,
    "receiver": receiver,
    "wary receiver": lambda root: receiver(root, window=ACK_EVERY),
    "throttled": throttled,
    "retrying": retrying,
}


class TestDepots(DepotSuite):
    @pytest.fixture(params=DEPOTS)
    def yard(self, request: pytest.FixtureRequest, tmp_path: Path) -> Yard:
        return DEPOTS[request.param](tmp_path / "yard")
