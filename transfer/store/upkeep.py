"""Keeping a store small and sound: check, prune, compact. Nothing that a kept image or a kept delta needs is ever removed."""

from __future__ import annotations

import contextlib
import shutil
from array import array
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from transfer.bundle.assembly import BundleSet, complete
from transfer.bundle.delta import DeltaBase, outside_names
from transfer.bundle.header import Blob
from transfer.bundle.reader import Bundle
from transfer.bundle.records import one_search
from transfer.bundle.sound import file_fault
from transfer.bundle.writer import BundleWriter
from transfer.chunks.name import Kind
from transfer.errors import Damaged, MediumError, MissingPart, NotFound, TransferError, UsageError
from transfer.model import ChunkId, Digest
from transfer.store.adopt import adopt
from transfer.store.entry import Role
from transfer.store.store import Store
from transfer.work import Pool

GARBAGE_FROM = 4
"""Chunks are packed anew when more than one in so many bytes of their frames is garbage."""
COMPACT_LEVEL = 9
MIN_NAME = 6
SPARE = frozenset({Role.SUPPLIER, Role.COMPACTED})
"""Roles of bundles that are kept for others' sake alone."""
LOOSE = SPARE | {Role.SENT}
"""Roles of bundles whose own needs bind nobody: they are kept for others, or as a record."""


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
    """Hash every file; with `rebuild`, make the index anew. What is wrong is remembered, so that whoever brings it again replaces it."""
    with store.removing() if rebuild else store.reading():
        entries = store.entries()
        faults = [Fault("bundles", error.message, ()) for error in store.malformed]
        seen: dict[str, Blob] = {}
        users: dict[str, list[str]] = {}
        wrong: set[str] = set()
        for entry in entries:
            try:
                bundle = store.here(entry)
            except TransferError as error:
                faults.append(Fault(f"bundle {entry.digest.short}", error.message, ()))
                store.bundle(entry.digest)  # marks what it stumbles on
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
                    wrong.add(blob.digest.hex)
                    faults.append(Fault(blob.path, why, tuple(dict.fromkeys(users[blob.digest.hex]))))
        with contextlib.suppress(MediumError):
            store.marks.mark_damaged((store.marks.damaged() - seen.keys()) | wrong)
        unnamed = 0
        with contextlib.suppress(Damaged):
            named = store.named()
            unnamed = sum(path.name not in named for path in store.blobs.iterdir()) if store.blobs.is_dir() else 0
        if store.root.is_dir():
            store.refresh(anew=rebuild)
        return StoreChecked(len(entries), sum(blob.size for blob in seen.values()), unnamed, rebuild, tuple(faults))


def _wrong(path: Path, blob: Blob) -> str:
    """What is wrong with a file; "" if nothing."""
    try:
        return file_fault(path, blob)
    except NotFound as error:
        return error.message


def needed_by(store: Store, digest: Digest) -> set[Digest] | None:
    """The other bundles of the store that this one is rebuilt or read with; None if that cannot be told, as it does not even open.

    Of one that is not whole (what it builds on has not come, or is damaged) those count that have anything of what it names, and those it names
    with what those need.
    """
    bundle = store.bundle(digest)
    if bundle is None:
        return None
    if not bundle.is_delta:
        return set()
    try:
        assembly = BundleSet([bundle])
        absent = complete(assembly, outside_names(bundle), store)
    except (MissingPart, Damaged):
        return _named_by(store, bundle) - {digest}
    needed = {each.manifest.digest for each in assembly.bundles} | bundle.record_suppliers
    if absent:
        needed |= set(bundle.header.prerequisites.bundles)
    reach = sorted(needed)
    while reach:
        behind = store.bundle(reach.pop())
        if behind is None:
            continue
        with contextlib.suppress(MissingPart, Damaged):
            behind.catalog()
            reach += sorted(behind.record_suppliers - needed)
            needed |= behind.record_suppliers
    return needed - {digest}


def _named_by(store: Store, bundle: Bundle) -> set[Digest]:
    """The bundles that a delta says it builds on, those that these say they build on, and so on; and what was packed anew of such ones."""
    out = {entry.digest for entry in store.entries() if entry.role is Role.COMPACTED}
    reach: list[Bundle | None] = [bundle]
    while reach:
        each = reach.pop()
        new = set(each.header.prerequisites.bundles) - out if each else set()
        out |= new
        reach += [store.bundle(digest) for digest in sorted(new)]
    return out


PRUNED = (Role.HELD, Role.SENT)
"""Roles of bundles that a prune forgets when they are old."""


def prune(
    store: Store,
    keep_last: int,
    confirmed: set[Digest],
    *,
    dry_run: bool = False,
    roles: Collection[Role] = PRUNED,
) -> Pruned:
    """Forget all but the newest `keep_last` held bundles, as many sent ones, and what those and the staged ones need. Of other `roles` all are kept.

    Sent bundles that a site has confirmed are kept: its deltas build on them. The index is not trusted, and where it cannot be told what a
    kept bundle needs, nothing is forgotten. Files go before anything is written: it works on a full disk.
    """
    with store.removing() if not dry_run else store.reading():
        entries = store.entries()
        store.named()
        kept = {each.digest for each in entries if each.role is Role.STAGED or each.digest in confirmed}
        for role in PRUNED:
            of_it = [each.digest for each in entries if each.role is role]
            kept |= set(of_it[-keep_last:] if keep_last and role in roles else () if role in roles else of_it)
        fresh = store.fresh()
        needed: set[Digest] = set()
        with one_search():
            for digest in sorted(kept):
                behind = needed_by(fresh, digest)
                needed |= {each.digest for each in entries} if behind is None else behind
        suppliers = {each.digest for each in entries if each.digest in needed and each.digest not in kept}
        gone = [each.digest for each in entries if each.digest not in kept and each.digest not in needed]
        freed = store.unnamed(gone) if dry_run else 0
        if not dry_run:
            for digest in gone:
                store.remove(digest)
            store.forget()
            freed = store.sweep()
            for each in entries:
                if each.digest in suppliers and each.role in (Role.HELD, Role.SENT):
                    store.change(each.digest, role=Role.SUPPLIER)
            store.refresh()
        return Pruned(tuple(gone), tuple(sorted(suppliers)), tuple(sorted(kept)), freed)


def drop(store: Store, beginning: str) -> tuple[Digest, bool]:
    """Forget one bundle that nothing needs: a staged one that will never be complete, say. UsageError if a held one needs it.

    A staged one that another one needs keeps its chunks, and is not imported any more. Which bundle, and whether it is gone.
    One whose entry cannot be read goes by its file's name.
    """
    with store.removing():
        entries = store.entries()
        plain = beginning.removeprefix("sha256:")
        known = {each.digest: each for each in entries}
        digests = [*known, *store.unreadable()]
        hits = [each for each in digests if len(plain) >= MIN_NAME and each.hex.startswith(plain)]
        if len(hits) != 1:
            raise NotFound(
                f"{len(hits)} bundles in {store.root} begin with {beginning!r:.80}",
                hint="`transfer store ls` lists them",
            )
        fresh, staged = store.fresh(), hits[0] in known and known[hits[0]].role is Role.STAGED
        for each in entries:
            with one_search():
                needs = set() if each.digest == hits[0] or each.role in LOOSE else needed_by(fresh, each.digest)
            if hits[0] in known and (needs is None or hits[0] in needs):
                if staged:
                    store.change(hits[0], role=Role.SUPPLIER)
                    store.refresh()
                    return hits[0], False
                raise UsageError(
                    f"bundle {each.digest.short} depends on it",
                    hint="drop that bundle first, or use `transfer store prune`",
                )
        store.remove(hits[0])
        store.forget()
        with contextlib.suppress(Damaged):  # another one cannot say which files it names: they all stay
            store.sweep()
        store.refresh()
        return hits[0], True


def compact(store: Store, *, jobs: int) -> Compacted:
    """Pack the chunks anew that are kept only for others' sake, if more than a fourth of their packs is garbage or they are patched."""
    work = store.root / "compacting"
    with store.removing(), Pool(jobs, "compact") as pool:
        spare = [each for each in store.entries() if each.role in SPARE and each.packs]
        bundles = [found for each in spare if (found := store.bundle(each.digest))]
        if not bundles:
            return Compacted(0, 0, 0)
        live = _live(store) if len(bundles) == len(spare) else None
        before = sum(blob.size for each in bundles for blob in each.header.packs)
        if live is None:
            return Compacted(0, before, before)
        whole = sum(size for each in bundles for size in each.catalog().size_of)
        base = DeltaBase(bundles, pool=pool, jobs=jobs)
        numbers = array("I", sorted(number for name in live if (number := base.find(name)) >= 0))
        used = sum(base.size_of(number) for number in numbers)
        patched = any(base.assembly.depth(frame) for frame in {base.frame_of(number) for number in numbers})
        if used * GARBAGE_FROM > whole * (GARBAGE_FROM - 1) and not patched:
            return Compacted(0, before, before)
        shutil.rmtree(work, ignore_errors=True)
        entry = _repack(base, numbers, work, pool)
        adopt(store, entry, Role.COMPACTED)
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


def _live(store: Store) -> set[bytes] | None:
    """The chunks of others that bundles need which are not kept for others' sake themselves. None if that cannot be told."""
    live: set[bytes] = set()
    for entry in store.entries():
        if entry.role in SPARE:
            continue
        bundle = store.bundle(entry.digest)
        if bundle is None:
            return None
        try:
            live |= outside_names(bundle)
        except (MissingPart, Damaged):
            return None
    return live


def _repack(base: DeltaBase, numbers: array[int], work: Path, pool: Pool) -> Bundle:
    """These chunks as a bundle without images, unpatched."""
    writer = BundleWriter(work, level=COMPACT_LEVEL, options={"compact": True}, pool=pool, ahead=2)
    try:
        for number, data in zip(numbers, base.fetch(numbers), strict=True):
            bundle, frame = base.assembly.owner(base.frame_of(number))
            kind = bundle.catalog().frames[frame].kind
            writer.add(ChunkId(base.name_of(number)), data, Kind(kind) if kind in _KINDS else Kind.OTHER)
        writer.publish(writer.finish((), created=0, tool="transfer store compact", totals={"layer_bytes": 0}))
    finally:
        writer.close()
    return Bundle(work)


_KINDS = frozenset(int(kind) for kind in Kind if kind is not Kind.CATALOG)
