"""Layers that were rebuilt for a client, kept as files for those who ask next, up to so many bytes."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from transfer.errors import Damaged, TransferError, from_os_error
from transfer.folders import own_folder
from transfer.model import Descriptor, Digest
from transfer.streams import begin, blocks, open_plain, pread, verified, write_all
from transfer.work import background

REBUILDS = 4
"""Layers that are rebuilt at once."""
BLOCK = 1 << 18
_NAME = re.compile(r"[0-9a-f]{64}([0-9a-f]{64})?")


class Rebuild(Protocol):
    """A layer's bytes out of a bundle, from an offset on."""

    def __call__(self, layer: Descriptor, start: int = 0, /) -> Iterator[bytes]: ...


class BlobCache:
    """The one used longest ago goes first. Each layer is rebuilt once, however many ask, and they read along while it grows."""

    def __init__(self, folder: Path, most: int) -> None:
        own_folder(folder, private=True)
        self._folder, self._most = folder, most
        self._lock, self._turns = threading.Lock(), threading.Semaphore(REBUILDS)
        self._filling: dict[Digest, _Filling] = {}
        self._checked: set[tuple[int, int, int]] = set()

    def takes(self, layer: Descriptor) -> bool:
        return layer.size <= self._most

    def open(self, layer: Descriptor, rebuild: Rebuild, start: int = 0) -> Iterator[bytes]:
        """The layer from `start` on: out of its file, or as it comes into it. Damaged before the last block if it is not what its digest says."""
        with self._lock:
            kept = self._kept(layer)
            filling = None if kept else self._filling.get(layer.digest)
            if not kept and filling is None:
                self._make_room(layer.size)
                filling = self._filling[layer.digest] = _Filling(
                    self._path(layer), layer, rebuild, self._turns, self._filled
                )
        if filling:
            return filling.read(start)
        return self._read(layer, rebuild, start)

    def _path(self, layer: Descriptor) -> Path:
        return self._folder / layer.digest.hex

    def _kept(self, layer: Descriptor) -> bool:
        with contextlib.suppress(OSError):
            return self._path(layer).lstat().st_size == layer.size
        return False

    def _filled(self, layer: Descriptor, state: os.stat_result | None) -> None:
        """A file is whole, and was checked on its way; or it came to nothing."""
        with self._lock:
            self._filling.pop(layer.digest, None)
            if state:
                self._checked.add(_key(state))

    def _read(self, layer: Descriptor, rebuild: Rebuild, start: int) -> Iterator[bytes]:
        path = self._path(layer)
        try:
            file = open_plain(path)
        except TransferError:  # it had to make room meanwhile
            yield from rebuild(layer, start)
            return
        with file:
            state = os.fstat(file.fileno())
            key = _key(state)
            with contextlib.suppress(OSError):
                os.utime(file.fileno(), ns=(time.time_ns(), state.st_mtime_ns))  # when it was used last
            if start or key in self._checked:
                file.seek(start)
                yield from blocks(file, BLOCK)
                return
            try:
                yield from verified(file, layer.digest, layer.size, str(path))
            except Damaged:
                path.unlink(missing_ok=True)
                raise
            self._checked.add(key)

    def _make_room(self, size: int) -> None:
        with contextlib.suppress(OSError):
            found = []
            for each in os.scandir(self._folder):
                if _NAME.fullmatch(each.name):
                    with contextlib.suppress(OSError):
                        state = each.stat(follow_symlinks=False)
                        found.append((state.st_atime_ns, state.st_size, each.path))
            held = sum(each[1] for each in found)
            for _, each_size, path in sorted(found):
                if held + size <= self._most:
                    return
                Path(path).unlink(missing_ok=True)
                held -= each_size


def _key(state: os.stat_result) -> tuple[int, int, int]:
    """Which content of which file: its inode, when it was written last, and its size."""
    return (state.st_ino, state.st_mtime_ns, state.st_size)


class _Filling:
    """A file on its way into the cache. It is named when it is whole, and read by anybody before that."""

    def __init__(
        self, path: Path, layer: Descriptor, rebuild: Rebuild, turns: threading.Semaphore, filled: Filled
    ) -> None:
        self._path, self._layer, self._rebuild, self._turns, self._tell = path, layer, rebuild, turns, filled
        self._fd, self._temporary = begin(path, 0o600)
        self._more = threading.Condition()
        self._written, self._readers, self._ended = 0, 0, False
        self._error: BaseException | None = None
        background(self._run, "cache")

    def _run(self) -> None:
        state = None
        try:
            with self._turns:
                for block in self._rebuild(self._layer):
                    write_all(self._fd, block)
                    with self._more:
                        self._written += len(block)
                        self._more.notify_all()
            self._temporary.replace(self._path)
            state = os.fstat(self._fd)
        except OSError as error:
            self._error = from_os_error(error, f"writing {self._path}")
        except BaseException as error:  # noqa: BLE001 - raised again by whoever reads
            self._error = error
        finally:
            with contextlib.suppress(OSError):
                self._temporary.unlink(missing_ok=True)
            self._tell(self._layer, state)
            with self._more:
                self._ended = True
                self._more.notify_all()
                self._close()

    def _close(self) -> None:
        if self._ended and not self._readers and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def read(self, start: int) -> Iterator[bytes]:
        """From `start` on, as it comes."""
        with self._more:
            if self._fd < 0:  # it ended between the question and now
                ended = True
            else:
                ended = False
                self._readers += 1
        if ended:
            if self._error:
                raise self._error
            with open_plain(self._path) as file:
                file.seek(start)
                yield from blocks(file, BLOCK)
            return
        try:
            at = start
            while at < self._layer.size:
                with self._more:
                    while self._written <= at and not self._ended:
                        self._more.wait()
                    upto, error = self._written, self._error
                if error:
                    raise error
                while at < upto:
                    block = pread(self._fd, min(BLOCK, upto - at), at, str(self._path))
                    at += len(block)
                    yield block
        finally:
            with self._more:
                self._readers -= 1
                self._close()


class Filled(Protocol):
    """Told when a file is whole, or came to nothing."""

    def __call__(self, layer: Descriptor, state: os.stat_result | None, /) -> None: ...
