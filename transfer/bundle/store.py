"""A site's growing collection of bundles: packs and catalogs by their digests, one entry a bundle, an index to find chunks.

blobs/sha256/<hex>    packs, catalogs, headers, manifests; each is there once
bundles/<hex>.json    one entry a bundle: its index.json and what it is to this site. The commit point, published last
index.sqlite          a cache (index.py)
lock                  held by whoever adds; `in-use` is held, shared, by readers against whoever removes
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from transfer.bundle import header as head
from transfer.bundle.index import ChunkIndex
from transfer.bundle.reader import Bundle
from transfer.errors import Damaged, FormatError, Locked, TransferError, from_os_error
from transfer.model import Descriptor, Digest
from transfer.streams import BLOCK, create, open_plain, parse_object, publish, read_small, sync_folder, write_all

PATIENCE = 30.0
"""How long a run waits for another one's lock (seconds)."""
_ENTRY_MAX = 1 << 20


class Role(StrEnum):
    """What a bundle is to this site.

    HELD: imported, its images can be rebuilt. STAGED: here, but what it builds on is not, or it was not imported yet. SENT: this site made it.
    SUPPLIER: its images are not kept any more, only chunks that others need. COMPACTED: such chunks, packed anew.
    """

    HELD = "held"
    STAGED = "staged"
    SENT = "sent"
    SUPPLIER = "supplier"
    COMPACTED = "compacted"


@dataclass(frozen=True, slots=True)
class Entry:
    """One bundle of a store. `order`: how many were added before. `packs`: its packs are here too. `place`: the folder it came from."""

    digest: Digest
    index: str
    role: Role
    order: int
    when: int
    packs: bool
    place: str

    def encode(self) -> bytes:
        value = {
            "format": "transfer.store.entry",
            "version": 1,
            "digest": str(self.digest),
            "index": self.index,
            "role": str(self.role),
            "order": self.order,
            "when": self.when,
            "packs": self.packs,
            "place": self.place,
        }
        return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"


def parse_entry(data: bytes, where: str) -> Entry:
    """FormatError for anything that is no entry."""
    value = parse_object(data, where, _ENTRY_MAX)
    kinds = {"index": str, "role": str, "order": int, "when": int, "packs": bool, "place": str}
    if value.get("format") != "transfer.store.entry" or value.get("version") != 1:
        raise FormatError(f"{where}: not an entry of this version", hint="use the version of transfer that wrote it")
    if any(type(value.get(key)) is not kind for key, kind in kinds.items()) or value["role"] not in set(Role):
        raise FormatError(f"{where}: a malformed entry", hint="`transfer store check` says what is sound")
    digest = Digest.parse(value.get("digest"), where)
    return Entry(
        digest, value["index"], Role(value["role"]), value["order"], value["when"], value["packs"], value["place"]
    )


@dataclass(frozen=True, slots=True)
class Adopted:
    """What came into the store (bytes): by link or clone, by copying, and what was there already."""

    linked: int
    copied: int
    present: int


class Store:
    """A Library that lasts. A store that is not there yet is an empty one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs, self._entries = root / "blobs" / "sha256", root / "bundles"
        self.index = ChunkIndex(root)
        self._opened: dict[Digest, Bundle] = {}
        self._indexed = False
        self._mine: set[tuple[str, int]] = set()

    # what is in it

    def entries(self) -> list[Entry]:
        """All bundles, in the order in which they came."""
        found = []
        if self._entries.is_dir():
            for path in sorted(self._entries.glob("*.json")):
                entry = parse_entry(read_small(path, _ENTRY_MAX), str(path))
                if path.stem != entry.digest.hex:
                    raise FormatError(f"{path}: an entry for another bundle, {entry.digest.short}")
                found.append(entry)
        return sorted(found, key=lambda each: (each.order, str(each.digest)))

    def entry(self, digest: Digest) -> Entry | None:
        path = self._entries / f"{digest.hex}.json"
        return parse_entry(read_small(path, _ENTRY_MAX), str(path)) if path.exists() else None

    def bundle(self, digest: Digest) -> Bundle | None:
        if digest not in self._opened:
            entry = self.entry(digest)
            if entry is None:
                return None
            self._opened[digest] = self._open(entry)
        return self._opened[digest]

    def _open(self, entry: Entry) -> Bundle:
        """From its packs here, else from where it was written, else its catalog alone."""
        place = Path(entry.place) if entry.place and not entry.packs else None
        if place and (place / "index.json").is_file():
            with contextlib.suppress(TransferError):
                there = Bundle(place, library=self)
                if there.manifest.digest == entry.digest:
                    return there
        return Bundle(self.root, index=entry.index.encode(), library=self)

    def bundles(self) -> Iterator[Bundle]:
        for entry in self.entries():
            found = self.bundle(entry.digest)
            if found:
                yield found

    def locate(self, names: Iterable[bytes]) -> dict[bytes, Bundle]:
        wanted = set(names)
        if not wanted or not self._entries.is_dir():
            return {}
        self.refresh()
        found: dict[bytes, Bundle] = {}
        for name, digest, number in self.index.find(wanted):
            bundle = self.bundle(digest)
            if bundle and number < bundle.catalog().chunks and bundle.catalog().name_of(number) == name:
                found[name] = bundle
        return found

    def refresh(self) -> None:
        """Make the index agree with the entries: what is new is added; where it cannot be trusted, it is made anew."""
        if self._indexed:
            return
        wanted = {entry.digest for entry in self.entries() if entry.packs}
        known = self.index.bundles() if self.index.sound else None
        if known is None or known - wanted:
            with self.adding():
                self.index.clear()
            known = set()
        lacking = sorted(wanted - known)
        if lacking:
            with self.adding(), self.index.writing():
                for digest in lacking:
                    self._index(digest)
        self._indexed = True

    def _index(self, digest: Digest) -> None:
        """Add a bundle's chunks. One whose catalog cannot be read waits: it is damaged, or what it builds on is not here yet."""
        opened = digest in self._opened
        with contextlib.suppress(TransferError):
            bundle = self.bundle(digest)
            if bundle:
                catalog = bundle.catalog()
                self.index.add(digest, (frame.names for frame in catalog.frames), catalog.recipes)
        if not opened:
            self._opened.pop(digest, None)  # a store has more catalogs than memory has room for

    # changing it

    @contextlib.contextmanager
    def adding(self) -> Iterator[None]:
        """One at a time adds to the store."""
        with self._locked("lock", fcntl.LOCK_EX, "adding to"):
            yield

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """While this is held, nothing is removed."""
        if not self.root.is_dir():
            yield
            return
        with self._locked("in-use", fcntl.LOCK_SH, "removing from"):
            yield

    @contextlib.contextmanager
    def removing(self) -> Iterator[None]:
        """Alone: nobody reads or adds."""
        with self._locked("in-use", fcntl.LOCK_EX, "using"), self.adding():
            self.forget()
            yield

    def forget(self) -> None:
        """Read entries and index anew at the next use."""
        self._opened.clear()
        self._indexed = False
        self.index.close()

    @contextlib.contextmanager
    def _locked(self, name: str, how: int, what: str) -> Iterator[None]:
        mine = (name, threading.get_ident())
        if mine in self._mine:
            yield
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._entries.mkdir(exist_ok=True)
            self.blobs.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.root / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise from_os_error(error, f"opening the store {self.root}") from error
        try:
            until = time.monotonic() + PATIENCE
            while True:
                try:
                    fcntl.flock(fd, how | fcntl.LOCK_NB)
                    break
                except OSError as error:
                    if time.monotonic() > until:
                        raise Locked(
                            f"{self.root}: another run is {what} this store", hint="wait for it to end, then run again"
                        ) from error
                    time.sleep(0.05)
            self._mine.add(mine)
            yield
        finally:
            self._mine.discard(mine)
            os.close(fd)

    def adopt(self, bundle: Bundle, role: Role, *, copy: bool = True) -> Adopted:
        """Take a bundle in, each file checked against its digest, the entry last. One that is here only changes its role.

        With `copy=False` packs come only where that costs no space (a link or a clone); else the catalog alone is kept.
        """
        try:
            with self.adding():
                return self._adopt(bundle, role, copy)
        except OSError as error:
            raise from_os_error(error, f"adding to the store {self.root}") from error

    def _adopt(self, bundle: Bundle, role: Role, copy: bool) -> Adopted:
        digest = bundle.manifest.digest
        known = self.entry(digest)
        hexes = {blob.digest.hex for blob in (*bundle.header.catalog, *bundle.header.packs)}
        settled = known and known.packs and (known.role in (role, Role.HELD) or role is Role.SENT)
        if settled and not hexes & self.damaged():
            return Adopted(0, 0, sum(blob.size for blob in bundle.header.packs))
        taken = {"linked": 0, "copied": 0, "present": 0}
        small = [bundle.manifest, bundle.config, *(_descriptor(b) for b in bundle.header.catalog)]
        for each in small:
            taken[self._take(bundle.folder, each, copy=True)] += each.size
        packs = True
        for blob in bundle.header.packs:
            how = self._take(bundle.folder, _descriptor(blob), copy=copy)
            packs = packs and bool(how)
            if how:
                taken[how] += blob.size
        sync_folder(self.blobs)
        self.mark_damaged(self.damaged() - hexes)
        if settled:
            return Adopted(**taken)
        order = known.order if known else 1 + max((each.order for each in self.entries()), default=0)
        place = "" if bundle.folder == self.root else str(bundle.folder.absolute())
        self.put(Entry(digest, bundle.index.decode(), role, order, int(time.time()), packs, place))
        self._opened.pop(digest, None)
        self._indexed = False
        return Adopted(**taken)

    def holds(self, bundle: Bundle) -> bool:
        """Whether it was imported here and every file is as it was when last looked at."""
        entry = self.entry(bundle.manifest.digest)
        hexes = {blob.digest.hex for blob in (*bundle.header.catalog, *bundle.header.packs)}
        return bool(entry and entry.packs and entry.role is Role.HELD) and not hexes & self.damaged()

    def damaged(self) -> set[str]:
        """Files that a check found wrong (hex of their digests): whoever brings them again replaces them."""
        try:
            return set((self.root / "damaged").read_text(encoding="ascii", errors="replace").split())
        except FileNotFoundError:
            return set()

    def mark_damaged(self, hexes: set[str]) -> None:
        """Remember what is wrong."""
        if hexes != self.damaged():
            publish(self.root / "damaged", "".join(f"{each}\n" for each in sorted(hexes)).encode())

    def put(self, entry: Entry) -> None:
        """Publish an entry."""
        publish(self._entries / f"{entry.digest.hex}.json", entry.encode())

    def change(self, digest: Digest, *, role: Role | None = None, packs: bool | None = None) -> None:
        """Publish the entry again with another role, or without its packs."""
        entry = self.entry(digest)
        if entry:
            self.put(replace(entry, role=role or entry.role, packs=entry.packs if packs is None else packs))

    def remove(self, digest: Digest) -> None:
        """Forget a bundle. Its files go with `sweep`."""
        (self._entries / f"{digest.hex}.json").unlink(missing_ok=True)
        sync_folder(self._entries)

    def sweep(self) -> int:
        """Remove the files that no entry names; how many bytes that were. Inside `removing`."""
        keep: set[str] = set()
        for entry in self.entries():
            bundle = Bundle(self.root, index=entry.index.encode(), library=self)
            keep |= {bundle.manifest.digest.hex, bundle.config.digest.hex}
            keep |= {each.digest.hex for each in bundle.header.catalog}
            if entry.packs:
                keep |= {each.digest.hex for each in bundle.header.packs}
        freed = 0
        for path in self.blobs.iterdir():
            if path.name not in keep:
                freed += path.lstat().st_size
                path.unlink()
        sync_folder(self.blobs)
        return freed

    def _take(self, folder: Path, each: Descriptor, *, copy: bool) -> str:
        """How a file came: "present", "linked", "copied", or "" if it would have to be copied and must not be."""
        final = self.blobs / each.digest.hex
        with contextlib.suppress(FileNotFoundError):
            if final.lstat().st_size == each.size and each.digest.hex not in self.damaged():
                return "present"
        source = folder / "blobs" / each.digest.algorithm / each.digest.hex
        temporary = self.blobs / f".{each.digest.hex[:16]}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
        try:
            with open_plain(source) as file:
                how = _link(source, temporary, os.fstat(file.fileno()))
                if not how and not copy:
                    return ""
                _check(file.fileno(), each, temporary if not how else None, str(source))
            os.replace(temporary, final)
            return how or "copied"
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()


def _descriptor(blob: head.Blob) -> Descriptor:
    return Descriptor("", blob.digest, blob.size)


def _link(source: Path, target: Path, state: os.stat_result) -> str:
    """A second name for the same file, if the filesystem allows."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        return ""
    there = target.lstat()
    if (there.st_dev, there.st_ino) != (state.st_dev, state.st_ino):
        target.unlink()
        return ""
    return "linked"


def _check(fd: int, each: Descriptor, copy_to: Path | None, where: str) -> None:
    """Read it all, copying it if asked to; Damaged unless size and digest are right."""
    out = create(copy_to) if copy_to else -1
    try:
        hasher, size = hashlib.new(each.digest.algorithm), 0
        while block := os.read(fd, BLOCK):
            hasher.update(block)
            size += len(block)
            if size > each.size:
                break
            if out >= 0:
                write_all(out, block)
        if size != each.size or hasher.hexdigest() != each.digest.hex:
            raise Damaged(
                f"{where}: the content is not what its name says", hint="copy this file from the bundle again"
            )
        if out >= 0:
            os.fsync(out)
    finally:
        if out >= 0:
            os.close(out)
