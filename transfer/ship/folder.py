"""A depot in a folder of this machine: names are walked without following links, files appear by rename after fsync."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transfer.chunks.name import chunk_id
from transfer.errors import FormatError, Locked, MediumError, NotFound, TransferError, from_os_error
from transfer.folders import plain
from transfer.model import Digest
from transfer.ship.base import (
    PART,
    WRONG_CONTENT,
    HeldFile,
    Traits,
    damaged,
    split_name,
    unfinished,
    wrong_size,
)
from transfer.streams import pread, write_all

LOCK = ".transfer-ship.lock"
SYNC_EVERY = 64 << 20
"""Bytes after which what was written is made durable, so that progress is real and a full medium is noticed early."""
PATIENCE = 30.0
"""Seconds to wait for another one's lock."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass
class _PartFile:
    """The unfinished file at work: open, with the sha256 of all that is in it (None: nobody asked)."""

    name: str
    fd: int
    at: int
    hasher: Any
    synced: int = 0


class FolderDepot:
    """`root` is made when something is written. `hashed=False` leaves checking to whoever reads everything back later."""

    def __init__(self, root: Path, *, hashed: bool = True, patience: float = PATIENCE) -> None:
        self.root, self.where = root, str(root)
        self.traits = Traits(lanes=2)
        self._hashed, self._patience = hashed, patience
        self._growing: _PartFile | None = None
        self._locks: list[tuple[str, int]] = []

    # finding things

    @contextlib.contextmanager
    def _within(self, name: str, *, create: bool = False) -> Iterator[tuple[int, str]]:
        """The open folder a name lies in, and the last part of the name. Links on the way are refused."""
        *folders, base = split_name(name)
        try:
            if create:
                self.root.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                for each in folders:
                    if create and _make(each, fd):
                        os.fsync(fd)
                    inner = os.open(each, _FOLDER, dir_fd=fd)
                    os.close(fd)
                    fd = inner
                yield fd, base
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise MediumError(
                    f"{self.where}/{name}: a part of this path is not a folder", hint="remove it, or name another place"
                ) from error
            raise from_os_error(error, f"{'writing' if create else 'reading'} {self.where}/{name}") from error

    def _size(self, fd: int, base: str) -> int | None:
        """Bytes of a plain file; None if there is none."""
        try:
            found = os.stat(base, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def hold(self, folder: str, token: str) -> None:
        with self._within(f"{folder}/{LOCK}", create=True) as (at, base):
            until = time.monotonic() + self._patience
            while True:
                fd = os.open(base, _LOCK, 0o666, dir_fd=at)
                if not plain(fd):
                    os.close(fd)
                    raise MediumError(
                        f"{self.where}/{folder}/{LOCK} is not a regular file of this program", hint="remove it"
                    )
                if _share(fd, token) and _same(fd, base, at):
                    break
                os.close(fd)
                if time.monotonic() > until:
                    raise Locked(
                        f"{self.where}/{folder}: another `transfer ship` is writing there",
                        hint="wait for it to end, then run again",
                    )
                time.sleep(0.1)
            self._locks.append((f"{folder}/{LOCK}", fd))

    def stat(self, names: Sequence[str]) -> list[HeldFile | None]:
        return [self._stat(name) for name in names]

    def _stat(self, name: str) -> HeldFile | None:
        try:
            with self._within(name) as (fd, base):
                size = self._size(fd, base)
                if size is not None:
                    return HeldFile(size, True)
                size = self._size(fd, unfinished(base))
                return None if size is None else HeldFile(size, False)
        except NotFound:
            return None

    def list(self, folder: str) -> dict[str, int]:
        out: dict[str, int] = {}
        with contextlib.suppress(NotFound), self._within(f"{folder}/x") as (fd, _):
            self._list(fd, "", out)
        return out

    def _list(self, folder: int, under: str, out: dict[str, int]) -> None:
        with os.scandir(folder) as found:
            for each in found:
                if each.is_dir(follow_symlinks=False) and under.count("/") < 7:
                    inner = os.open(each.name, _FOLDER, dir_fd=folder)
                    try:
                        self._list(inner, f"{under}{each.name}/", out)
                    finally:
                        os.close(inner)
                elif each.is_file(follow_symlinks=False) and not each.name.startswith("."):
                    out[f"{under}{each.name}"] = each.stat(follow_symlinks=False).st_size

    def read(self, name: str, offset: int = 0) -> Iterator[bytes]:
        with self._open(name) as fd:
            while block := os.pread(fd, PART, offset):
                offset += len(block)
                yield block

    @contextlib.contextmanager
    def _open(self, name: str, *, growing: bool = False) -> Iterator[int]:
        """A plain file, opened for reading; a FIFO does not block, a link is not followed."""
        with self._within(name) as (at, base):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(unfinished(base) if growing else base, flags, dir_fd=at)
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise MediumError(f"{self.where}/{name} is not a regular file", hint="remove it")
                yield fd
            finally:
                os.close(fd)

    def parts(self, name: str) -> Sequence[bytes]:
        self._let_go()
        try:
            with self._open(name, growing=True) as fd:
                size = os.fstat(fd).st_size
                return [chunk_id(pread(fd, PART, at, f"{self.where}/{name}")) for at in range(0, size, PART)]
        except NotFound:
            return []

    # writing

    def append(self, name: str, data: bytes | memoryview, offset: int) -> None:
        file = self._growing
        if file is None or file.name != name or file.at != offset:
            file = self._take_up(name, offset)
        try:
            write_all(file.fd, data)
            file.at += len(data)
            if file.hasher:
                file.hasher.update(data)
            if file.at - file.synced >= SYNC_EVERY:
                os.fdatasync(file.fd)
                file.synced = file.at
        except OSError as error:
            self._let_go()
            raise from_os_error(error, f"writing {self.where}/{name}") from error

    def _take_up(self, name: str, offset: int) -> _PartFile:
        """The unfinished file, cut to `offset`, with the hash of what stays."""
        self._let_go()
        with self._within(name, create=True) as (at, base):
            fd = os.open(unfinished(base), _LOCK, 0o666, dir_fd=at)
            file = _PartFile(name, fd, offset, hashlib.sha256() if self._hashed else None, offset)
            self._growing = file
            there = os.fstat(fd)
            if not plain(fd):
                raise MediumError(f"{self.where}/{name}: its unfinished file is not a regular file", hint="remove it")
            if offset > there.st_size:
                raise FormatError(f"{self.where}/{name}: bytes at {offset}, beyond its end at {there.st_size}")
            os.ftruncate(fd, offset)
            os.lseek(fd, offset, os.SEEK_SET)
            if file.hasher:
                for start in range(0, offset, PART):
                    file.hasher.update(pread(fd, min(PART, offset - start), start, f"{self.where}/{name}"))
            return file

    def finish(self, name: str, digest: Digest, size: int) -> None:
        file = self._growing
        if file is None or file.name != name:
            held = self._stat(name)
            file = self._take_up(name, held.size if held and not held.finished else 0)
        why = wrong_size(name, file.at, size)
        if not why and file.hasher and self._told(file, digest.algorithm) != digest.hex:
            why = WRONG_CONTENT
        if why:
            self._let_go()
            raise damaged(self.where, name, why)
        try:
            os.fsync(file.fd)
        except OSError as error:
            # what the system could not write down is gone, and a second fsync would not say so
            self._let_go()
            with contextlib.suppress(TransferError):
                self.discard(name)
            raise from_os_error(error, f"writing {self.where}/{name}") from error
        self._let_go()
        with self._within(name) as (at, base):
            os.replace(unfinished(base), base, src_dir_fd=at, dst_dir_fd=at)
            os.fsync(at)

    def _told(self, file: _PartFile, algorithm: str) -> str:
        """The hash of all that is in the unfinished file."""
        if algorithm == "sha256":
            return str(file.hasher.hexdigest())
        hasher = hashlib.new(algorithm)
        for block in self._blocks(file.fd, file.at):
            hasher.update(block)
        return hasher.hexdigest()

    def _let_go(self) -> None:
        if self._growing:
            os.close(self._growing.fd)
            self._growing = None

    def check(self, name: str, digest: Digest, size: int) -> str:
        try:
            with self._open(name) as fd:
                found = os.fstat(fd).st_size
                if found != size:
                    return wrong_size(name, found, size)
                hasher = hashlib.new(digest.algorithm)
                try:
                    for block in self._blocks(fd, size):
                        hasher.update(block)
                except OSError as error:
                    return f"cannot be read: {error.strerror}"
        except NotFound:
            return "it is not there"
        return "" if hasher.hexdigest() == digest.hex else WRONG_CONTENT

    def _blocks(self, fd: int, size: int) -> Iterator[memoryview]:
        """An open file's bytes, as `check` reads them."""
        buffer, at = bytearray(PART), 0
        while count := os.preadv(fd, [buffer], at):
            yield memoryview(buffer)[:count]
            at += count

    def discard(self, name: str) -> None:
        self._let_go()
        with contextlib.suppress(NotFound), self._within(name) as (at, base):
            for each in (base, unfinished(base)):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(each, dir_fd=at)

    def free(self, folder: str) -> int | None:
        place = self.root / folder
        while not place.exists() and place != place.parent:
            place = place.parent
        try:
            found = os.statvfs(place)
        except OSError:
            return None
        return found.f_bavail * found.f_frsize

    def supply(self, folder: str, files: Sequence[tuple[str, Digest, int]]) -> int:
        return 0

    def close(self) -> None:
        self._let_go()
        for name, fd in self._locks:
            with contextlib.suppress(OSError, TransferError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the last one clears it away
                with self._within(name) as (at, base):
                    os.unlink(base, dir_fd=at)
            os.close(fd)
        self._locks.clear()


def _make(name: str, at: int) -> bool:
    """Make a folder; whether it was not there."""
    try:
        os.mkdir(name, dir_fd=at)
    except FileExistsError:
        return False
    return True


def _same(fd: int, name: str, at: int) -> bool:
    """Whether the open file is still the one under that name."""
    try:
        there = os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return False
    mine = os.fstat(fd)
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)


def _share(fd: int, token: str) -> bool:
    """Hold the lock together with all who have the same token; False while others have it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.pwrite(fd, token.encode(), 0)
        os.ftruncate(fd, len(token.encode()))
        fcntl.flock(fd, fcntl.LOCK_SH)
    except BlockingIOError:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    if os.pread(fd, 200, 0).decode(errors="replace") == token:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False
