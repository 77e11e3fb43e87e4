"""Ship: a bundle's files to a depot, the index last; what is there already is checked and not sent again."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transfer.bundle.header import SIGNATURE
from transfer.bundle.reader import Bundle
from transfer.bundle.seal import companions
from transfer.bundle.sound import file_fault
from transfer.bundle.sums import SUMS, sums
from transfer.chunks.name import chunk_id
from transfer.errors import (
    CredentialsError,
    CutOff,
    Damaged,
    HostKeyError,
    LinkError,
    Locked,
    MissingPart,
    NoSpace,
    UsageError,
)
from transfer.events import Advanced, Done, Noted, Observer, Planned, Rewound
from transfer.model import Addressed, Digest, blob_path
from transfer.ship.base import PART, Depot, HeldFile, portable
from transfer.streams import open_plain, pread, read_small, sha256
from transfer.work import Pool

INDEX = "index.json"
ROOM_LEFT = 1 << 20
"""Bytes a filesystem needs for folders and names, beside the files."""
SMALL = 16 << 20
"""A second line is not worth its set-up below this (bytes)."""


Read = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class File:
    """One file of a bundle: its name in the bundle folder, what is in it, and where it is read; `data` if it is nowhere yet."""

    name: str
    digest: Digest
    size: int
    path: Path
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Shipped:
    """What came of it (bytes). `sent` counts what was sent twice as well; `supplied` came out of the far side's own store."""

    digest: Digest
    where: str
    files: int
    total: int
    sent: int
    there: int
    supplied: int
    rewound: int
    lanes: int
    seconds: float

    @property
    def already(self) -> bool:
        return self.sent == 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a shipment would do (bytes)."""

    where: str
    files: int
    total: int
    there: int


def files_of(bundle: Bundle) -> list[File]:
    """All files, in the order in which they go: what says what it is, packs, what helps people, the index last. MissingPart if one is not here."""
    blobs: list[Addressed] = [bundle.manifest, bundle.config, *bundle.header.catalog, *bundle.header.packs]
    out = [_blob(bundle, each) for each in blobs]
    for name, data in companions().items():
        out.append(in_memory(name, data))  # this program's own: what lies in the folder may be anybody's
    for name in (SIGNATURE, "oci-layout", INDEX):
        path = bundle.folder / name
        if name == INDEX or path.is_file():
            out.append(in_memory(name, bundle.index if name == INDEX else read_small(path), path))
    return [*out[:-1], sums_of(out), out[-1]]


def sums_of(files: Iterable[File]) -> File:
    """SHA256SUMS over these files."""
    return in_memory(SUMS, sums((file.name, file.digest) for file in files if file.name != SUMS))


def in_memory(name: str, data: bytes, path: Path | None = None) -> File:
    """A small file whose bytes are known."""
    return File(name, sha256(data), len(data), path or Path(name), data)


def _blob(bundle: Bundle, blob: Addressed) -> File:
    path = bundle.path_of(blob)
    if not path.is_file() or path.lstat().st_size != blob.size:
        raise MissingPart(
            f"{path} is missing or has the wrong size", hint="copy it from the original bundle, or export again"
        )
    return File(blob_path(blob.digest), blob.digest, blob.size, path)


def name_of(bundle: Bundle) -> str:
    """The name a bundle has wherever it is shipped: that of its folder. UsageError for one that cannot be a name everywhere."""
    name = bundle.folder.resolve().name
    portable(name)
    return name


@contextlib.contextmanager
def _reading(file: File) -> Iterator[Read]:
    """Gives a function for so many bytes at an offset."""
    if file.data is not None:
        data = file.data
        yield lambda size, at: data[at : at + size]
        return
    with open_plain(file.path) as source:
        yield lambda size, at: pread(source.fileno(), size, at, str(file.path))


def size(count: int) -> str:
    """Bytes for people."""
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count} bytes"


@dataclass
class Shipment:
    """Files on their way into one folder of one place. `connect` gives a depot on it, one for each lane.

    `checked_later`: what is there already is not looked into; `before_index` does that for all files, when all but the last are there.
    `one_way`: something else takes the files away meanwhile; nothing is left there to hold the place.
    """

    files: Sequence[File]
    folder: str
    connect: Callable[[], Depot]
    observer: Observer
    lanes: int | None = None
    place: str = ""
    checked_later: bool = False
    one_way: bool = False
    before_index: Callable[[Depot], None] = lambda depot: None
    token: str = field(default_factory=lambda: os.urandom(8).hex())
    sent: int = 0
    there: int = 0
    supplied: int = 0
    rewound: int = 0
    used: int = 1

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def run(self, digest: Digest) -> Shipped:
        """Send all that is not there. Afterwards every file is there and has been checked there."""
        started = time.monotonic()
        first = self.connect()
        try:
            if not self.one_way:
                first.hold(self.folder, self.token)
            return self._run(first, digest, started)
        finally:
            first.close()

    def plan(self) -> Plan:
        """What is there already, by size alone; nothing is written."""
        depot = self.connect()
        try:
            held = self._look(depot)
        finally:
            depot.close()
        there = sum(each.size for each in held.values() if each)
        return Plan(self._named(depot), len(self.files), sum(file.size for file in self.files), there)

    def _run(self, first: Depot, digest: Digest, started: float) -> Shipped:
        index = self.files[-1]
        held = self._look(first)
        self._is_ours(first, index, held.get(INDEX))
        total = sum(file.size for file in self.files)
        self._has_room(first, held)
        self.observer(Planned("ship", total))
        todo = list(self.files[:-1])
        self._supply(first, [file for file in todo if held[file.name] is None])
        begun = sum(each.size for each in held.values() if each)
        if begun:
            self.observer(Noted(f"{size(begun)} of {size(total)} are already there; resuming"))
        self._all(first, todo, held)
        self.before_index(first)
        self._one(first, index, held.get(index.name))
        self.observer(Done("ship"))
        return Shipped(
            digest,
            self._named(first),
            len(self.files),
            total,
            self.sent,
            self.there,
            self.supplied,
            self.rewound,
            self.used,
            time.monotonic() - started,
        )

    def _named(self, depot: Depot) -> str:
        place = self.place or depot.where
        return f"{place}{'' if place.endswith(':') else '/'}{self.folder}"

    def _look(self, depot: Depot) -> dict[str, HeldFile | None]:
        names = [file.name for file in self.files]
        found = depot.stat([f"{self.folder}/{name}" for name in names])
        return dict(zip(names, found, strict=True))

    def _is_ours(self, depot: Depot, index: File, held: HeldFile | None) -> None:
        if held and held.finished and depot.check(f"{self.folder}/{INDEX}", index.digest, index.size):
            raise UsageError(
                f"{self._named(depot)} is another bundle, or a damaged one",
                hint="ship to another folder, or remove that one",
            )

    def _has_room(self, depot: Depot, held: dict[str, HeldFile | None]) -> None:
        free = depot.free(self.folder)
        needed = sum(file.size - (each.size if (each := held[file.name]) else 0) for file in self.files)
        if free is not None and needed + ROOM_LEFT > free and needed > 0:
            raise NoSpace(
                f"{depot.where}: {size(needed + ROOM_LEFT)} are needed and {size(free)} are free",
                hint="free some space there, or ship to several media",
            )

    def _supply(self, depot: Depot, files: Sequence[File]) -> None:
        """What the far side's store has need not be sent."""
        self.supplied = (
            depot.supply(self.folder, [(file.name, file.digest, file.size) for file in files]) if files else 0
        )
        if self.supplied:
            self.observer(Noted(f"{self.supplied} files are already in the store of that host and are not sent"))

    def _all(self, first: Depot, todo: list[File], held: dict[str, HeldFile | None]) -> None:
        left = sum(file.size for file in todo) - sum(each.size for each in held.values() if each)
        wanted = self.lanes or (1 if left < SMALL else first.traits.lanes)
        self.used = max(1, min(wanted, len(todo)))
        waiting = iter(todo)
        with Pool(self.used - 1, "ship") as pool:
            others = [pool.submit(lambda: self._lane(None, waiting, held)) for _ in range(self.used - 1)]
            try:
                self._lane(first, waiting, held)
            except BaseException:
                self._stop.set()
                raise
            for other in others:
                other.result()

    def _lane(self, depot: Depot | None, waiting: Iterator[File], held: dict[str, HeldFile | None]) -> None:
        """Take files until none is left. A further line that cannot be had is no matter: the first one sends all."""
        with contextlib.ExitStack() as stack:
            if depot is None:
                try:
                    depot = self.connect()
                    stack.callback(depot.close)
                    depot.hold(self.folder, self.token)
                except (LinkError, Locked, CredentialsError, HostKeyError) as error:
                    self.observer(Noted(f"no second connection: {error.message}"))
                    return
            while not self._stop.is_set():
                with self._lock:
                    file = next(waiting, None)
                if file is None:
                    return
                try:
                    self._one(depot, file, held[file.name])
                except BaseException:
                    self._stop.set()
                    raise

    def _one(self, depot: Depot, file: File, held: HeldFile | None) -> None:
        """Bring one file there. What does not match is discarded once, and sent again."""
        name, again = f"{self.folder}/{file.name}", False
        while True:
            if self._stop.is_set():
                return
            try:
                if held and held.finished and self._stands(depot, name, file):
                    return
                self._send(depot, name, file, None if held and held.finished else held)
                return
            except CutOff:
                pass
            except Damaged as error:
                self._source_is_sound(file)
                if again:
                    raise
                again = True
                depot.discard(name)
                self._rewind(name, error.message)
            held = depot.stat([name])[0]

    def again(self, depot: Depot, file: File) -> None:
        """Send a file that was found wrong there once more."""
        depot.discard(f"{self.folder}/{file.name}")
        self._rewind(file.name, "it was read back other than it was written")
        self._one(depot, file, None)

    def _stands(self, depot: Depot, name: str, file: File) -> bool:
        if self.checked_later:
            if file.data is not None or depot.stat([name]) != [HeldFile(file.size, True)]:
                return False
            self._count(file.size, there=True)
            return True
        fault = depot.check(name, file.digest, file.size)
        if fault:
            raise Damaged(fault)
        self._count(file.size, there=True)
        return True

    def _send(self, depot: Depot, name: str, file: File, held: HeldFile | None) -> None:
        with _reading(file) as read:
            at = self._resume_at(depot, name, file, read, held)
            while at < file.size and not self._stop.is_set():
                block = read(min(PART, file.size - at), at)
                if not block:
                    raise MissingPart(
                        f"{file.path} is cut short", hint="copy it from the original bundle, or export again"
                    )
                depot.append(name, block, at)
                at += len(block)
                self._count(len(block))
        if not self._stop.is_set():
            depot.finish(name, file.digest, file.size)

    def _resume_at(self, depot: Depot, name: str, file: File, read: Read, held: HeldFile | None) -> int:
        """Behind the last part that is the same on both sides."""
        if held is None or held.finished or held.size > file.size:
            return 0
        at = held.size
        for n, part in enumerate(depot.parts(name) if depot.traits.compares_parts else ()):
            ours = read(min(PART, held.size - n * PART), n * PART) if held.size > n * PART else b""
            if chunk_id(ours) != part:
                at = n * PART
                self._rewind(name, f"an unfinished copy differs from byte {at} on")
                break
        if at:
            self._count(at, there=True)
        return at

    def _rewind(self, name: str, why: str) -> None:
        self.rewound += 1
        self.observer(Rewound(name, f"{why}; sent again"))

    def _count(self, size: int, *, there: bool = False) -> None:
        with self._lock:
            if there:
                self.there += size
            else:
                self.sent += size
            self.observer(Advanced("ship", size))

    def _source_is_sound(self, file: File) -> None:
        """Damaged, naming the file here, if it is the one that is wrong."""
        why = "" if file.data is not None else file_fault(file.path, file)
        if why:
            raise Damaged(f"{file.path}: {why}", hint="the local bundle is damaged: run transfer verify")
