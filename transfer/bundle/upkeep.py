"""Keeping a store small and sound: check, prune, compact. Nothing that a kept image or a kept delta needs is ever removed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from transfer.bundle.assembly import assemble
from transfer.bundle.base import Base
from transfer.bundle.header import Blob
from transfer.bundle.reader import Bundle
from transfer.bundle.store import Role, Store
from transfer.bundle.writer import BundleWriter
from transfer.chunks.name import Kind, split_names
from transfer.errors import MissingPart, TransferError
from transfer.model import ChunkId, Digest
from transfer.streams import BLOCK, open_plain
from transfer.work import Pool

GARBAGE_FROM = 4
"""Chunks are packed anew when more than one in so many bytes of their frames is garbage."""
COMPACT_LEVEL = 9


@dataclass(frozen=True, slots=True)
class Fault:
    """A file of the store that is not as it should be, and the images that cannot be rebuilt without it."""

    file: str
    why: str
    images: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StoreChecked:
    """What a check found. `unnamed`: files no entry names; `bytes_checked` were hashed."""

    bundles: int
    bytes_checked: int
    unnamed: int
    rebuilt: bool
    faults: tuple[Fault, ...]


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a prune did: bundles forgotten, bundles kept only for others' sake, bytes freed."""

    removed: tuple[Digest, ...]
    suppliers: tuple[Digest, ...]
    kept: tuple[Digest, ...]
    bytes_freed: int


@dataclass(frozen=True, slots=True)
class Compacted:
    """What a compaction did: chunks packed anew, bytes of packs before and after."""

    chunks: int
    bytes_before: int
    bytes_after: int


def check(store: Store, *, rebuild: bool, jobs: int) -> StoreChecked:
    """Hash every file; with `rebuild`, make the index anew."""
    with store.removing() if rebuild else store.reading():
        entries = store.entries()
        faults: list[Fault] = []
        seen: dict[str, Blob] = {}
        users: dict[str, list[str]] = {}
        for entry in entries:
            try:
                bundle = Bundle(store.root, index=entry.index.encode(), library=store)
            except TransferError as error:
                faults.append(Fault(f"bundle {entry.digest.short}", error.message, ()))
                continue
            labels = [image.label for image in bundle.images] if entry.role is Role.HELD else []
            for blob in (*bundle.header.catalog, *(bundle.header.packs if entry.packs else ())):
                seen[blob.digest.hex] = blob
                users.setdefault(blob.digest.hex, []).extend(labels)
        with Pool(jobs, "check") as pool:
            waiting = [(blob, pool.submit(partial(_wrong, store.root / blob.path, blob))) for blob in seen.values()]
            for blob, future in waiting:
                why = future.result()
                if why:
                    faults.append(Fault(blob.path, why, tuple(dict.fromkeys(users[blob.digest.hex]))))
        if entries:
            store.mark_damaged({Path(each.file).name for each in faults if each.file.startswith("blobs/")})
        unnamed = 0
        if store.blobs.is_dir():
            named = len(seen) + 2 * len(entries)
            unnamed = max(0, sum(1 for _ in store.blobs.iterdir()) - named)
        if rebuild:
            store.index.close()
            store.index.path.unlink(missing_ok=True)
            store.forget()
        if store.root.is_dir():
            store.refresh()
        return StoreChecked(len(entries), sum(blob.size for blob in seen.values()), unnamed, rebuild, tuple(faults))


def _wrong(path: Path, blob: Blob) -> str:
    """What is wrong with a file; "" if nothing."""
    try:
        with open_plain(path) as file:
            if os.fstat(file.fileno()).st_size != blob.size:
                return f"{os.fstat(file.fileno()).st_size} bytes where it should have {blob.size}"
            hasher = hashlib.sha256()
            while block := file.read(BLOCK):
                hasher.update(block)
    except TransferError as error:
        return error.message
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "" if hasher.hexdigest() == blob.digest.hex else "the content is not what its name says"


def needed_by(store: Store, digest: Digest) -> set[Digest]:
    """The other bundles of the store that this one is rebuilt or read with.

    Of one that is not whole (staged, or sent without its packs) those it names count.
    """
    bundle = store.bundle(digest)
    if bundle is None or not bundle.is_delta:
        return set()
    try:
        assembly = assemble(bundle, bundle.catalog().recipes, store)
        needed = {each.manifest.digest for each in assembly.bundles} | bundle.record_suppliers
    except MissingPart:
        needed = {Digest.parse(text) for text in bundle.header.prerequisites["bundles"]}
    reach = sorted(needed)
    while reach:
        behind = store.bundle(reach.pop())
        if behind is None:
            continue
        with contextlib.suppress(MissingPart):
            behind.catalog()
            reach += sorted(behind.record_suppliers - needed)
            needed |= behind.record_suppliers
    return needed - {digest}


def prune(store: Store, keep_last: int, confirmed: set[Digest], *, dry_run: bool = False) -> Pruned:
    """Forget all but the newest `keep_last` held bundles, as many sent ones, and what those and the staged ones need.

    Sent bundles that a site has confirmed are kept: its deltas build on them.
    """
    with store.removing():
        entries = store.entries()
        kept = {each.digest for each in entries if each.role is Role.STAGED or each.digest in confirmed}
        for role in (Role.HELD, Role.SENT):
            kept |= {each.digest for each in [e for e in entries if e.role is role][-keep_last:] if keep_last}
        needed = {other for digest in kept for other in needed_by(store, digest)}
        suppliers = {each.digest for each in entries if each.digest in needed and each.digest not in kept}
        gone = [each.digest for each in entries if each.digest not in kept and each.digest not in needed]
        freed = 0
        if not dry_run:
            for each in entries:
                if each.digest in suppliers and each.role in (Role.HELD, Role.SENT):
                    store.change(each.digest, role=Role.SUPPLIER)
            for digest in gone:
                store.remove(digest)
            store.forget()
            freed = store.sweep()
            store.refresh()
        return Pruned(tuple(gone), tuple(sorted(suppliers)), tuple(sorted(kept)), freed)


def compact(store: Store, *, jobs: int) -> Compacted:
    """Pack the chunks anew that are kept only for others' sake, if more than a fourth of their packs is garbage or they are patched."""
    work = store.root / "compacting"
    with store.removing(), Pool(jobs, "compact") as pool:
        store.refresh()
        spare = [each for each in store.entries() if each.role in (Role.SUPPLIER, Role.COMPACTED) and each.packs]
        bundles = [found for each in spare if (found := store.bundle(each.digest))]
        if not bundles:
            return Compacted(0, 0, 0)
        live = _live(store, {each.manifest.digest for each in bundles})
        before = sum(blob.size for each in bundles for blob in each.header.packs)
        if live is None:
            return Compacted(0, before, before)
        whole = sum(size for each in bundles for size in each.catalog().size_of)
        base = Base(bundles, pool=pool, jobs=jobs)
        numbers = array("I", sorted(number for name in live if (number := base.find(name)) >= 0))
        used = sum(base.size_of(number) for number in numbers)
        patched = any(base.assembly.depth(frame) for frame in {base.frame_of(number) for number in numbers})
        if used * GARBAGE_FROM > whole * (GARBAGE_FROM - 1) and not patched:
            return Compacted(0, before, before)
        shutil.rmtree(work, ignore_errors=True)
        entry = _repack(base, numbers, work, pool)
        store.adopt(entry, Role.COMPACTED)
        for each in spare:
            if each.role is Role.COMPACTED and each.digest != entry.manifest.digest:
                store.remove(each.digest)
            elif each.role is Role.SUPPLIER:
                store.change(each.digest, packs=False)
        shutil.rmtree(work, ignore_errors=True)
        store.forget()
        store.sweep()
        store.refresh()
        return Compacted(len(numbers), before, sum(blob.size for blob in entry.header.packs))


def _live(store: Store, spare: set[Digest]) -> set[bytes] | None:
    """The chunks of the spare bundles that others need, for their blobs or as prefixes. None if that cannot be told."""
    live: set[bytes] = set()
    for entry in store.entries():
        if entry.digest in spare or entry.role in (Role.SUPPLIER, Role.COMPACTED):
            continue
        bundle = store.bundle(entry.digest)
        if bundle is None:
            continue
        try:
            catalog = bundle.catalog()
        except MissingPart:
            if spare & {Digest.parse(text) for text in bundle.header.prerequisites["bundles"]}:
                return None
            continue
        names = [
            n
            for recipe in catalog.recipes.values()
            for part in recipe.parts
            for n in split_names(part.skeleton + part.payload)
        ]
        names += [n for frame in catalog.frames for n in split_names(frame.prefix)]
        live.update(name for name in names if not catalog.has(name))
    return live


def _repack(base: Base, numbers: array[int], work: Path, pool: Pool) -> Bundle:
    """These chunks as a bundle without images, unpatched."""
    writer = BundleWriter(work, level=COMPACT_LEVEL, options={"compact": True}, pool=pool, ahead=2)
    try:
        for number, data in zip(numbers, base.fetch(numbers), strict=True):
            bundle, frame = base.assembly.owner(base.frame_of(number))
            kind = bundle.catalog().frames[frame].kind
            writer.add(ChunkId(base.name_of(number)), data, Kind(kind) if kind in _KINDS else Kind.OTHER)
        writer.finish((), created=0, tool="transfer store compact", totals={"layer_bytes": 0})
    finally:
        writer.close()
    return Bundle(work)


_KINDS = frozenset(int(kind) for kind in Kind if kind is not Kind.CATALOG)


def staged(store: Store) -> Iterator[Bundle]:
    """The bundles that wait for what they build on, in the order in which they came."""
    for entry in store.entries():
        if entry.role is Role.STAGED:
            bundle = store.bundle(entry.digest)
            if bundle:
                yield bundle
