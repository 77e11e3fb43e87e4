"""How a bundle comes into a store: its files linked where that is free, else copied, each checked against its digest, the entry last."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from transfer.bundle.header import Blob
from transfer.bundle.reader import Bundle
from transfer.bundle.sound import first_sound
from transfer.errors import Damaged, FormatError, MediumError, MissingPart, NotFound, from_os_error
from transfer.folders import own_folder
from transfer.model import Addressed
from transfer.store.entry import Entry, Role
from transfer.store.marks import PRIVATE
from transfer.store.store import Store
from transfer.streams import SliceReader, open_plain, publishing, sync_folder, temporary_name, verified


@dataclass(frozen=True, slots=True)
class Adopted:
    """What came into the store (bytes): by link or clone, by copying, and what is already present."""

    linked: int
    copied: int
    present: int


def adopt(
    store: Store, bundle: Bundle, role: Role, *, copy: bool = True, written: bool = False, begun: bool = False
) -> Adopted:
    """Take a bundle in. One that is here only changes its role.

    With `copy=False` packs come only where that costs no space (a link or a clone); else the catalog alone is kept.
    `begun`: its import has begun. `written`: this process made the files and named them by what it wrote; a link to one needs no second look.
    """
    with _adding(store):
        known = store.entry(bundle.manifest.digest)
        settled = known and known.packs and (known.role in (role, Role.HELD) or role is Role.SENT)
        if known and settled and begun and known.role is Role.STAGED:
            store.change(known.digest, begun=True)
        if settled and store.whole(bundle):
            _renew(store, known if role is Role.HELD else None)
            return Adopted(0, 0, sum(blob.size for blob in bundle.header.packs))
        taken = {"linked": 0, "copied": 0, "present": 0}
        for each in bundle.small():
            taken[_take_any(store, bundle, each, copy=True)] += each.size
        packs = True
        for blob in bundle.header.packs:
            how = _take_any(store, bundle, blob, copy=copy, written=written)
            packs = packs and bool(how)
            if how:
                taken[how] += blob.size
        sync_folder(store.blobs)
        if not settled:
            place = "" if bundle.folder == store.root else str(bundle.folder.absolute())
            if not place.isprintable():
                place = ""  # a hint only, and JSON holds no name that is not text
            _enter(store, bundle, role, store.next_order(), packs, place, begun)
        store.look_again(bundle.manifest.digest)
        return Adopted(**taken)


def adopt_part(store: Store, bundle: Bundle, told: Callable[[str], None]) -> list[Blob]:
    """Take what is there of a bundle whose packs are not all at hand; it is staged until they are. Returns the packs that are still missing.

    A pack that does not match its digest counts as missing; `told` hears of it.
    """
    with _adding(store):
        for each in bundle.small():
            _take_any(store, bundle, each, copy=True)
        missing = []
        for blob in bundle.header.packs:
            try:
                _take_any(store, bundle, blob, copy=True)
            except (Damaged, FormatError, MissingPart, NotFound, MediumError) as error:
                missing.append(blob)
                if not isinstance(error, NotFound | MissingPart):
                    told(error.message)
        sync_folder(store.blobs)
        digest, known = bundle.manifest.digest, store.entry(bundle.manifest.digest)
        if missing:
            own_folder(store.root, "incoming", f"incoming/{digest.hex}", private=True)
        if known is None or (known.role is Role.STAGED and known.packs == bool(missing)):
            _enter(store, bundle, Role.STAGED, known.order if known else store.next_order(), not missing, "")
        store.look_again(digest)
        return missing


@contextlib.contextmanager
def _adding(store: Store) -> Iterator[None]:
    try:
        with store.adding():
            yield
    except OSError as error:
        raise from_os_error(error, f"adding to the store {store.root}") from error


def _enter(store: Store, bundle: Bundle, role: Role, order: int, packs: bool, place: str, begun: bool = False) -> None:
    store.put(Entry(bundle.manifest.digest, bundle.index.decode(), role, order, int(time.time()), packs, place, begun))


def _renew(store: Store, entry: Entry | None) -> None:
    """A held bundle that was imported once more is the newest."""
    following = store.next_order()
    if entry and entry.role is Role.HELD and entry.order + 1 < following:
        store.put(replace(entry, order=following))


def _take_any(store: Store, bundle: Bundle, each: Addressed, *, copy: bool, written: bool = False) -> str:
    """`_take` from the first place of the bundle where the file is sound."""
    return first_sound(bundle.paths_of(each), lambda path: _take(store, path, each, copy=copy, written=written))


def _take(store: Store, source: Path, each: Addressed, *, copy: bool, written: bool) -> str:
    """How a file came: "present", "linked", "copied", or "" if it would have to be copied and must not be."""
    final = store.blobs / each.digest.hex
    with contextlib.suppress(FileNotFoundError):
        if final.lstat().st_size == each.size and each.digest.hex not in store.marks.damaged():
            return "present"
    with open_plain(source) as file:
        state = os.fstat(file.fileno())
        stream = SliceReader(file.fileno(), 0, state.st_size, str(source))
        blocks = verified(stream, each.digest, each.size, str(source))
        temporary = temporary_name(final)
        how = _link(source, temporary, state) if written or _is_settled(state) else ""
        if how:
            try:
                for _ in blocks if not written else ():
                    pass
                os.replace(temporary, final)
            finally:
                with contextlib.suppress(OSError):
                    temporary.unlink()
        elif copy:
            how = "copied"
            with publishing(final, PRIVATE) as write:
                for block in blocks:
                    write(block)
        else:
            return ""
    store.marks.mark_damaged(store.marks.damaged() - {each.digest.hex})
    return how


def _is_settled(state: os.stat_result) -> bool:
    """Whether nobody else can change a file later: what is linked has one content under both names."""
    return state.st_uid == os.geteuid() and not state.st_mode & 0o022


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
