"""A site's growing collection of bundles: packs and catalogs by their digests, one entry a bundle, an index to find chunks.

blobs/sha256/<hex>    packs, catalogs, headers, manifests; each is there once
incoming/<hex>/       recovery files of a bundle that is here in part
bundles/<hex>.json    one entry a bundle: its index.json and what it is to this site. The commit point, published last
index.sqlite          a cache (index.py)
lock                  held by whoever adds; `in-use` is held, shared, by readers against whoever removes
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import threading
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from transfer.bundle import header as head
from transfer.bundle.reader import Bundle
from transfer.bundle.records import one_search
from transfer.errors import Damaged, FormatError, MediumError, MissingPart, NotFound, TransferError, UsageError
from transfer.folders import no_links, remove_ours
from transfer.model import Digest
from transfer.store.entry import ENTRY_MAX, Entry, Role, parse_entry
from transfer.store.index import ChunkIndex, IndexSpoiled
from transfer.store.locks import held
from transfer.store.marks import PRIVATE, Marks
from transfer.streams import TEMPORARY, publish, read_small, sha256, sweep, sync_folder

INNER = ("bundles", "blobs", "blobs/sha256", "incoming", "sites", "compacting", "sync", "out", "in", "receipts")
FILES = (
    *("lock", "in-use", "index.sqlite", "index.dirty", "damaged", "disowned", "lost+found"),
    *("site.json", "leaving.json", "arrived.json", "history.jsonl"),
)
"""What lies at the top of a store. A folder that holds other things, and no bundles of ours, is no store."""
_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)


OURS = re.compile(rf"[0-9a-f]{{64}}|{TEMPORARY.pattern}", re.ASCII | re.DOTALL)
"""The names of files that a store makes among its blobs; nothing else is removed there."""


class Store:
    """A Library that lasts. A store that is not there yet is an empty one."""

    def __init__(self, root: Path, *, index: ChunkIndex | None = None) -> None:
        self.root = root
        self.blobs, self._entries = root / "blobs" / "sha256", root / "bundles"
        self.index = index or ChunkIndex(root)
        self.malformed: list[TransferError] = []
        self._opened: dict[Digest, Bundle] = {}
        self._indexed = self._anew = False
        self._mine: set[tuple[str, int]] = set()
        self.marks = Marks(root)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the index and of the bundles that are open."""
        self.forget()

    def fresh(self) -> Store:
        """The same store with an index in memory, made from the catalogs: for work that must not trust the one on disk."""
        other = Store(self.root, index=ChunkIndex(None))
        other._mine = self._mine
        return other

    # what is in it

    def entries(self) -> list[Entry]:
        """All bundles, in the order in which they came. Entries that cannot be read are left out, and named in `malformed`."""
        self._is_one()
        found: list[Entry] = []
        self.malformed = []
        for path in sorted(self._entries.glob("*.json")) if self._entries.is_dir() else ():
            try:
                entry = parse_entry(read_small(path, ENTRY_MAX), str(path))
                if path.stem != entry.digest.hex:
                    raise FormatError(f"{path}: an entry for another bundle, {entry.digest.short}")
                found.append(entry)
            except Damaged as error:
                self.malformed.append(error)
        return sorted(found, key=lambda each: (each.order, str(each.digest)))

    def unreadable(self) -> list[Digest]:
        """The bundles whose entries cannot be read, by the names of their files."""
        known = {entry.digest.hex for entry in self.entries()}
        names = [path.stem for path in sorted(self._entries.glob("*.json"))] if self._entries.is_dir() else []
        return [Digest(f"sha256:{name}") for name in names if name not in known and re.fullmatch(r"[0-9a-f]{64}", name)]

    def _is_one(self) -> None:
        """UsageError for what can be no store."""
        if os.path.lexists(self.root) and not self.root.is_dir():
            raise UsageError(
                f"the store {self.root} is not a folder", hint="name another with --store or TRANSFER_STORE"
            )
        if any((self.root / name).exists() for name in ("oci-layout", "index.json")):
            raise UsageError(
                f"{self.root} contains images or a bundle; it is not a store",
                hint="name another with --store or TRANSFER_STORE",
            )
        no_links(self.root, *INNER)
        if (
            self.root.is_dir()
            and not os.path.lexists(self._entries)
            and not {each for each in os.listdir(self.root) if not each.startswith(".")} <= {*INNER, *FILES}
        ):
            raise UsageError(
                f"{self.root} contains other files; it is not a store",
                hint="name a new folder with --store or TRANSFER_STORE",
            )

    def entry(self, digest: Digest) -> Entry | None:
        """The bundle's entry; None if there is none, or none that can be read."""
        with contextlib.suppress(NotFound, Damaged):
            path = self._entries / f"{digest.hex}.json"
            return parse_entry(read_small(path, ENTRY_MAX), str(path))
        return None

    def bundle(self, digest: Digest) -> Bundle | None:
        """The bundle; None if it is not here, or so damaged that it has to be brought again."""
        if digest not in self._opened:
            entry = self.entry(digest)
            if entry is None:
                return None
            try:
                self._opened[digest] = self._open(entry)
            except (Damaged, MissingPart, NotFound):
                self._suspect_small(entry)
                return None
        return self._opened[digest]

    def _open(self, entry: Entry) -> Bundle:
        """From its packs here, else from where it was written, else its catalog alone."""
        place = Path(entry.place) if entry.place and not entry.packs else None
        with contextlib.suppress(TransferError, OSError):
            if place and (place / "index.json").is_file():
                there = Bundle(place, library=self)
                if there.manifest.digest == entry.digest:
                    return there
        return self.here(entry)

    def here(self, entry: Entry) -> Bundle:
        """The bundle from the store's own files."""
        found = Bundle(self.root, index=entry.index.encode(), library=self)
        found.suspect = self.marks.suspect
        found.disown = lambda: self.marks.disown(entry.digest)
        return found

    def bundles(self) -> Iterator[Bundle]:
        for entry in self.entries():
            found = self.bundle(entry.digest)
            if found:
                yield found

    def locate(self, names: Iterable[bytes]) -> dict[bytes, Bundle]:
        wanted = set(names)
        if not wanted or not self._entries.is_dir():
            return {}
        found = self._locate(wanted)
        if len(found) < len(wanted) and not self._anew:
            # before something is said to be missing, the index is not believed
            self.refresh(anew=True)
            found = self._locate(wanted)
        return found

    def _locate(self, wanted: set[bytes]) -> dict[bytes, Bundle]:
        self.refresh()
        found: dict[bytes, Bundle] = {}
        try:
            hits = self.index.find(wanted)
        except IndexSpoiled:
            self.refresh(anew=True)
            hits = self.index.find(wanted)
        disowned = self.marks.disowned()
        for name, digest, number in hits:
            bundle = None if digest in disowned or name in found else self.bundle(digest)
            with contextlib.suppress(Damaged, MissingPart):
                if bundle and number < bundle.catalog().chunks and bundle.catalog().name_of(number) == name:
                    found[name] = bundle
        return found

    def refresh(self, *, anew: bool = False) -> None:
        """Make the index agree with the entries: what is new is added. Where it cannot be trusted, or `anew`, it is made from nothing.

        It is in memory where the store cannot be written.
        """
        if self._indexed and not anew:
            return
        wanted = {entry.digest for entry in self.entries() if entry.packs}
        if anew or self._known() != wanted:
            try:
                with self.adding():
                    self._catch_up(wanted, anew)
            except MediumError:
                self.index = ChunkIndex(None)
                self._catch_up(wanted, True)
        self._indexed = True

    def _catch_up(self, wanted: set[Digest], anew: bool) -> None:
        known = None if anew else self._known()
        if known is None or known - wanted:
            self._anew = True
            self.index.clear()
            known = set()
        lacking = sorted(wanted - known)
        if lacking:
            with self.index.writing(), one_search():
                for digest in lacking:
                    self._index(digest)

    def _known(self) -> set[Digest] | None:
        """The bundles that are in the index; None if it is not to be trusted."""
        with contextlib.suppress(IndexSpoiled):
            return self.index.bundles() if self.index.sound else None
        return None

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
    def reading(self, *, adopting: bool = False) -> Iterator[None]:
        """While this is held, nothing is removed. A store that cannot be written needs no lock: nobody removes from it.

        `adopting`: a bundle is to come into it meanwhile, so that a store that is not there yet is made, and locked, now.
        """
        self._is_one()
        if not adopting and not self.root.is_dir():
            yield
            return
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(MediumError):
                stack.enter_context(self._locked("in-use", fcntl.LOCK_SH, "removing from"))
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
        self._indexed = self._anew = False
        self.index.close()

    @contextlib.contextmanager
    def _locked(self, name: str, how: int, what: str) -> Iterator[None]:
        mine = (name, threading.get_ident())
        if mine in self._mine:
            yield
            return
        self._is_one()
        with held(self.root, name, how, what):
            self._mine.add(mine)
            try:
                yield
            finally:
                self._mine.discard(mine)

    def next_order(self) -> int:
        """The place of a bundle that comes now."""
        return 1 + max((each.order for each in self.entries()), default=0)

    def put(self, entry: Entry) -> None:
        """Publish an entry."""
        publish(self._entries / f"{entry.digest.hex}.json", entry.encode(), PRIVATE)

    def change(
        self, digest: Digest, *, role: Role | None = None, packs: bool | None = None, begun: bool = False
    ) -> None:
        """Publish the entry again with another role, without its packs, or as one whose import has begun. One that becomes held is the newest."""
        entry = self.entry(digest)
        if entry:
            order = self.next_order() if role is Role.HELD and entry.role is not Role.HELD else entry.order
            kept = entry.packs if packs is None else packs
            self.put(replace(entry, role=role or entry.role, order=order, packs=kept, begun=begun))

    def look_again(self, digest: Digest) -> None:
        """Files or entry of the bundle have changed: open it anew, and compare the index with the entries anew."""
        self._opened.pop(digest, None)
        self._indexed = False

    # what is wrong with it

    def holds(self, bundle: Bundle) -> bool:
        """Whether it was imported here and every file is there, and as it was when last looked at."""
        entry = self.entry(bundle.manifest.digest)
        return bool(entry and entry.packs and entry.role is Role.HELD) and self.whole(bundle)

    def whole(self, bundle: Bundle) -> bool:
        """Every file is there, of its size, and not known to be damaged; the small ones are hashed again."""
        small, damaged = bundle.small(), self.marks.damaged()
        for each in (*small, *bundle.header.packs):
            path = self.blobs / each.digest.hex
            try:
                if each.digest.hex in damaged or path.lstat().st_size != each.size:
                    return False
                if each in small and sha256(read_small(path, each.size)) != each.digest:
                    self.marks.suspect(each.digest.hex)
                    return False
            except (OSError, TransferError):
                return False
        return True

    def _suspect_small(self, entry: Entry) -> None:
        """Manifest and header of a bundle that does not open."""
        with contextlib.suppress(TransferError):
            manifest = head.parse_index(entry.index.encode(), "entry")
            self.marks.suspect(manifest.digest.hex)
            data = read_small(self.blobs / manifest.digest.hex, head.HEADER_MAX)
            if sha256(data) == manifest.digest:
                self.marks.mark_damaged(self.marks.damaged() - {manifest.digest.hex})
                self.marks.suspect(head.parse_manifest(data, "manifest")[0].digest.hex)

    def remove(self, digest: Digest) -> None:
        """Forget a bundle. Its files go with `sweep`."""
        (self._entries / f"{digest.hex}.json").unlink(missing_ok=True)
        self.marks.own_again(digest)
        sync_folder(self._entries)

    def incoming(self, digest: Digest) -> Path:
        """Where recovery files wait while a bundle is here in part."""
        return self.root / "incoming" / digest.hex

    def sweep(self) -> int:
        """Remove the files that no entry names, and what broken-off work left; how many bytes that were. Inside `removing`.

        Damaged if an entry or a header cannot be read: what it names would go with the rest.
        """
        freed = remove_ours(self.root, "blobs/sha256", OURS, self.named())
        waiting = {entry.digest.hex for entry in self.entries() if not entry.packs}
        no_links(self.root, *INNER)
        left = [each for each in self.root.glob("incoming/*") if _HEX.fullmatch(each.name) and each.name not in waiting]
        for path in (*self.root.glob(".transfer-base-*"), *self.root.glob("compacting"), *left):
            shutil.rmtree(path, ignore_errors=True)
        for inner in ("", *INNER):
            sweep(self.root / inner)
        sync_folder(self.blobs)
        return freed

    def unnamed(self, without: Collection[Digest] = ()) -> int:
        """Bytes of the files of ours that no entry names, but for those of some bundles that are to go."""
        keep = self.named(without)
        if not self.blobs.is_dir():
            return 0
        found = [path for path in self.blobs.iterdir() if OURS.fullmatch(path.name) and path.name not in keep]
        return sum(path.lstat().st_size for path in found if stat.S_ISREG(path.lstat().st_mode))

    def named(self, without: Collection[Digest] = ()) -> set[str]:
        """The files that entries name (hex of their digests), but for those of some bundles. Damaged if one cannot tell."""
        keep: set[str] = set()
        for entry in self.entries():
            if entry.digest in without:
                continue
            try:
                bundle = self.here(entry)
            except TransferError as error:
                self._suspect_small(entry)
                raise Damaged(
                    error.message, hint=f"import bundle {entry.digest.short} again, then run this again"
                ) from error
            keep |= {each.digest.hex for each in bundle.small()}
            if entry.packs or entry.role is Role.STAGED or self.incoming(entry.digest).is_dir():
                keep |= {each.digest.hex for each in bundle.header.packs}
        if self.malformed:
            raise Damaged(self.malformed[0].message, hint="import that bundle again, or remove this entry")
        return keep
