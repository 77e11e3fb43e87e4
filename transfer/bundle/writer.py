"""Writes a bundle: chunks in, packs out, and at the very end the index that makes it one.

Order on disk: packs, catalog, header, manifest, each durable under its final name; then index.json by rename. Until then the
folder is an unfinished export, which the next run takes up.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
from array import array
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TypeAlias

from transfer.bundle import header as head
from transfer.bundle.catalog import CATALOG_FRAME_RAW, chunk_names, document_record, frame_record, recipe_records
from transfer.bundle.delta import ABSENT, Base
from transfer.bundle.journal import Journal, New, Seen
from transfer.bundle.prerequisites import NONE, Prerequisites
from transfer.bundle.ranges import Ranges
from transfer.chunks.bucket import Buckets, Gathered
from transfer.chunks.folder import FolderChunks
from transfer.chunks.frame import FrameHeader, encode_frame, offsets
from transfer.chunks.name import Kind, split_names
from transfer.chunks.pack import PACK_SIZE, PackFile, Placed
from transfer.chunks.patch import BATCH_RAW, Change, frames_of
from transfer.chunks.similar import Held, Recent, Siblings, eligible
from transfer.errors import Locked, UsageError, from_os_error
from transfer.folders import open_own, own_folder, remove_folder, remove_ours
from transfer.model import OCI_MANIFEST, ChunkId, Descriptor, Digest, Image, Recipe
from transfer.streams import TEMPORARY, publish, sha256, sync_folder
from transfer.work import Lane, Pool

README_NAME, VERIFY_NAME = "README.txt", "verify.py"
MIN_CATALOG_LEVEL = 15
"""For a catalog up to a MiB and for one that is patched. Chunk names do not compress, and it has each of them twice or more."""


Packed: TypeAlias = tuple[FrameHeader, bytes, bytes]
"""A frame's header, its bytes, and the names of its chunks end to end."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A bundle, whole but for its index: where, its manifest's digest, its header, its index.json, its files (hex of their digests),
    and the bytes of all that will be in the folder.
    """

    folder: Path
    digest: Digest
    header: head.Header
    index: bytes = b""
    files: frozenset[str] = frozenset()
    size: int = 0


class _Packs:
    """A sequence of packs being filled; every frame is told where it went."""

    def __init__(self, state: Path, blobs: Path, stem: str, pool: Pool, *, weigh: bool) -> None:
        self._state, self._blobs, self._stem, self._pool, self._weigh = state, blobs, stem, pool, weigh
        self._open: PackFile | None = None
        self._done: list[tuple[PackFile, Future[Digest]]] = []

    def append(self, header: FrameHeader, packed: bytes) -> tuple[int, Placed]:
        if self._open and self._open.size + len(packed) > PACK_SIZE:
            self._close()
        if not self._open:
            path = self._state / f"{self._stem}-{len(self._done):05d}.part"
            self._open = PackFile(None if self._weigh else path)
        return len(self._done), self._open.append(header, packed)

    def _close(self) -> None:
        if self._open:
            pack, self._open = self._open, None
            self._done.append((pack, self._pool.submit(partial(pack.finish, self._blobs))))

    def finish(self) -> tuple[head.Blob, ...]:
        self._close()
        return tuple(head.Blob(f.result(), p.size, p.frames, p.raw) for p, f in self._done)


class BundleWriter:
    """A ChunkSink that ends as a bundle. Deterministic: the same chunks in the same order give the same bytes."""

    def __init__(
        self,
        folder: Path,
        *,
        level: int,
        options: dict[str, object],
        pool: Pool,
        ahead: int,
        base: Base | None = None,
        similar: bool = False,
        weigh: bool = False,
    ) -> None:
        """`similar`: programs that share code are patched against each other. `weigh`: all the work is done and nothing of it is written
        but notes; `folder` is a temporary one.
        """
        self.folder, self._level, self._pool, self._base = folder, level, pool, base
        self._blobs, self._state = folder / "blobs" / "sha256", folder / head.STATE
        self._lock = _claim(folder, self._state)
        try:
            self.journal = Journal(self._state / "journal", options)
            self.kept = FolderChunks(self._take_up(), pool, base.bytes_of if base else None)
        except OSError as error:
            raise from_os_error(error, f"preparing {folder}") from error
        self._known: set[bytes] = set()
        self._new: list[New] = []
        self._changes: list[Change] = []
        self._changed = 0
        self._like: dict[Digest, Digest | None] = {}
        self._recipes: dict[Digest, Recipe] = {}
        self._documents: dict[Digest, bytes] = {}
        self._frames: list[tuple[int, Placed, bytes]] = []
        self._packs = _Packs(self._state, self._blobs, "pack", pool, weigh=weigh)
        self._weigh = weigh
        self._buckets = Buckets(self._flush)
        self._recent = Recent(self._buckets, self.kept.get) if similar else None
        self._before = self._recent.state if self._recent else ""
        self._siblings = Siblings()
        self._lane: Lane[Packed] = Lane(pool, ahead, self._deliver)
        self._ahead = ahead
        self._batches = Pool(1 if pool.threaded else 0, "patch")
        self._patching: Future[list[Packed]] | None = None
        self._patched = False
        self.bytes_new = self.bytes_reused = 0

    def _take_up(self) -> list[Path]:
        """The packs an earlier, unfinished run left; with other options they are of no use and go."""
        for part in _named(self._state, _PART):
            part.rename(part.with_name(f"{part.stem}.{os.urandom(4).hex()}.old"))
        if not self.journal.resumed:
            remove_ours(self.folder, "blobs/sha256", _BLOB)
            remove_ours(self.folder, head.STATE, _OLD)
            return []
        return _named(self._blobs, _BLOB) + _named(self._state, _OLD)

    def __contains__(self, name: ChunkId) -> bool:
        return name in self._known or (self._base is not None and name in self._base)

    def add(
        self, name: ChunkId, data: bytes | memoryview, kind: Kind, partners: tuple[int, ...] = (), offset: int = 0
    ) -> None:
        if name in self:
            return
        self._known.add(name)
        size = len(data)
        self.bytes_new += size
        # bytes that an earlier run has packed need no place in memory until their frame comes up
        held = None if name in self.kept else data
        older: tuple[Held, ...] = ()
        if partners:
            self._change(name, size, held, kind, partners)
        elif self._recent and eligible(kind, size):
            frame = self._buckets.add(name, size, data, kind)
            older = self._recent.look(frame, offset)
            if older:
                self._join(Held(name, size, self._buckets.take_back(frame)), older)
        else:
            self._buckets.add(name, size, held, kind)
        self._new.append(New(name, size, kind, partners, offset, tuple([each.name for each in older])))

    def _again(self, new: New) -> None:
        """A chunk that an earlier run has packed, as it was added then."""
        self._known.add(new.name)
        self.bytes_new += new.size
        if new.partners:
            self._change(new.name, new.size, None, new.kind, new.partners)
        elif self._recent and new.similar:
            self._buckets.room(new.kind, new.size)
            self._join(Held(new.name, new.size, None), self._recent.named(new.similar))
        else:
            frame = self._buckets.add(new.name, new.size, None, new.kind)
            if self._recent and eligible(new.kind, new.size):
                self._recent.keep(frame, new.offset)

    def _change(
        self, name: ChunkId, size: int, data: bytes | memoryview | None, kind: Kind, partners: tuple[int, ...]
    ) -> None:
        """To be patched against the base."""
        self._changes.append(Change(name, size, None if data is None else bytes(data), kind, partners))
        self._changed += size
        if self._changed >= BATCH_RAW:
            self._flush_changes()

    def _join(self, chunk: Held, older: tuple[Held, ...]) -> None:
        """To be patched against chunks of this bundle."""
        if not self._siblings.takes(chunk, older):
            self._flush_siblings()
        self._siblings.add(chunk, older)

    def end_blob(self, recipe: Recipe, like: Digest | None = None) -> None:
        """A blob was read and checked; its recipe and its chunks are noted for a later run. `like`: the base's layer it is a version of."""
        self._recipes[recipe.digest] = recipe
        self._like[recipe.digest] = like
        self.journal.add(Seen(recipe, tuple(self._new), like, self._before))
        self._next_blob()

    def abandon_blob(self) -> None:
        """The last blob did not come whole; its chunks may stay, its note may not."""
        self._next_blob()

    def _next_blob(self) -> None:
        self._new.clear()
        self._before = self._recent.state if self._recent else ""

    def has_blob(self, digest: Digest) -> bool:
        return digest in self._recipes or digest in self._documents

    def replay(self, digest: Digest) -> bool:
        """Take a layer from the notes of an earlier run, if all it added is in finished frames. Reads nothing."""
        seen = self.journal.seen.get(digest)
        if not seen or seen.before != self._before:
            return False
        if not all(each.name in self or each.name in self.kept for each in seen.new):
            return False
        new = {each.name for each in seen.new}
        ids = (part.skeleton + part.payload for part in seen.recipe.parts)
        if any(name not in new and name not in self for each in ids for name in map(ChunkId, split_names(each))):
            return False
        for each in seen.new:
            if each.name not in self:
                self._again(each)
        self._recipes[digest] = seen.recipe
        self._like[digest] = seen.like
        self._next_blob()
        return True

    def add_document(self, digest: Digest, data: bytes) -> None:
        self._documents[digest] = data

    def documents(self) -> dict[Digest, bytes]:
        return self._documents

    def recipes(self) -> dict[Digest, Recipe]:
        return self._recipes

    def sizes(self) -> dict[Digest, int]:
        """Every blob taken so far and its size."""
        return {d: r.size for d, r in self._recipes.items()} | {d: len(b) for d, b in self._documents.items()}

    def _flush(self, gathered: Gathered) -> None:
        self._lane.push(partial(self._pack, gathered))

    def _pack(self, gathered: Gathered) -> Packed:
        packed = self._packed(b"".join(gathered.names), partial(self._encode, gathered))
        self._buckets.done_with(gathered)
        return packed

    def _packed(self, names: bytes, encode: Callable[[], tuple[FrameHeader, bytes]]) -> Packed:
        """The frame of these chunks: as an earlier run packed it, or made now."""
        kept = self.kept.packed(names) if len(self.kept) else None
        if kept:
            self.bytes_reused += kept[0].raw_size
        return *(kept or encode()), names

    def _encode(self, gathered: Gathered) -> tuple[FrameHeader, bytes]:
        starts = offsets(gathered.sizes)
        for number in gathered.holes:
            start = starts[number]
            gathered.buffer[start : start + gathered.sizes[number]] = self.kept.get(gathered.names[number])
        with memoryview(gathered.buffer) as whole, whole[: gathered.size] as raw:
            return encode_frame(gathered.kind, raw, gathered.sizes, self._level)

    def _flush_siblings(self) -> None:
        if self._siblings.chunks:
            self._lane.push(partial(self._pack_siblings, self._siblings))
            self._siblings = Siblings()

    def _pack_siblings(self, siblings: Siblings) -> Packed:
        def whole(chunks: Iterable[Held]) -> bytes:
            return b"".join(self.kept.get(c.name) if c.data is None else c.data for c in chunks)

        def encode() -> tuple[FrameHeader, bytes]:
            sizes = [each.size for each in siblings.chunks]
            names = list(siblings.prefix)
            raw, prefix = whole(siblings.chunks), whole(siblings.prefix.values())
            siblings.chunks.clear()
            siblings.prefix.clear()
            return encode_frame(Kind.ELF, raw, sizes, self._level, names, prefix, near=True)

        return self._packed(b"".join(each.name for each in siblings.chunks), encode)

    def _flush_changes(self) -> None:
        """Have the batch patched while the next one gathers. What comes of it is written where the next one ends: the order is always the same."""
        self._deliver_changes()
        base, batch = self._base, self._changes
        if base is None or not batch:
            return
        self._patching = self._batches.submit(partial(self._patch_all, base, batch))
        self._changes = []
        self._changed = 0

    def _deliver_changes(self) -> None:
        if self._patching:
            self._lane.drain()
            patched, self._patching = self._patching.result(), None
            for each in patched:
                self._deliver(each)

    def _patch_all(self, base: Base, batch: list[Change]) -> list[Packed]:
        """A batch as patched frames. The base's bytes come in the order in which the frames need them."""
        out: list[Packed] = []
        frames = list(frames_of(batch, lambda n: base.frame_of(n) << 32 | n, base.size_of))
        partners = [list(dict.fromkeys(n for change in frame for n in change.partners)) for frame in frames]
        older = base.fetch(array("I", [number for each in partners for number in each]))
        with contextlib.closing(Lane(self._pool, self._ahead, out.append)) as lane:
            for frame, numbers in zip(frames, partners, strict=True):
                prefix = b"".join([next(older) for _ in numbers])
                lane.push(partial(self._patch, frame, [base.name_of(number) for number in numbers], prefix))
            lane.drain()
        return out

    def _patch(self, frame: list[Change], partners: list[ChunkId], prefix: bytes) -> Packed:
        def encode() -> tuple[FrameHeader, bytes]:
            raw = b"".join(self.kept.get(c.name) if c.data is None else c.data for c in frame)
            return encode_frame(frame[0].kind, raw, [c.size for c in frame], self._level, partners, prefix)

        return self._packed(b"".join(change.name for change in frame), encode)

    def _deliver(self, packed: Packed) -> None:
        frame, data, names = packed
        number, placed = self._packs.append(frame, data)
        self._frames.append((number, placed, names))

    def finish(self, images: Iterable[Image], *, created: int, tool: str, totals: dict[str, int]) -> Sealed:
        """Write what is left, then the catalog, the header and the manifest. Only `publish` makes a bundle of it."""
        try:
            self._flush_changes()
            self._flush_siblings()
            self._buckets.finish()
            self._deliver_changes()
            self._lane.drain()
            packs = self._packs.finish()
            return self._seal(tuple(images), packs, created, tool, totals)
        except OSError as error:
            raise from_os_error(error, f"writing {self.folder}") from error

    def _seal(
        self, images: tuple[Image, ...], packs: tuple[head.Blob, ...], created: int, tool: str, totals: dict[str, int]
    ) -> Sealed:
        wanted = {d for image in images for d in (*image.documents, *(layer.digest for layer in image.layers))}
        catalog = self._write_catalog(wanted)
        whole = {
            **totals,
            "chunks": sum(len(placed.header.sizes) for _, placed, _ in self._frames),
            "chunk_bytes": sum(placed.header.raw_size for _, placed, _ in self._frames),
            "packed_bytes": sum(blob.size for blob in packs + catalog),
        }
        needs = self._needs(images)
        prerequisites = self._prerequisites(wanted)
        patched = bool(prerequisites.chunks) or self._patched or any(p.header.prefix for _, p, _ in self._frames)
        features = (head.PATCH,) if patched else ()
        header = head.Header(created, tool, self._level, images, needs, catalog, packs, whole, prerequisites, features)
        config = self._put(header.encode(), head.CONFIG_TYPE)
        manifest = self._put(header.manifest(config), OCI_MANIFEST)
        index = head.encode_index(manifest)
        small = {"oci-layout": head.OCI_LAYOUT, **companions()}
        size = sum(blob.size for blob in (*packs, *catalog)) + config.size + manifest.size + len(index)
        size += sum(map(len, small.values()))
        if self._weigh:
            return Sealed(self.folder, manifest.digest, header, size=size)
        for name, data in small.items():
            publish(self.folder / name, data)
        sync_folder(self.folder)
        keep = {blob.digest.hex for blob in (*packs, *catalog)} | {config.digest.hex, manifest.digest.hex}
        return Sealed(self.folder, manifest.digest, header, index, frozenset(keep), size)

    def publish(self, sealed: Sealed) -> None:
        """The commit point: `index.json`, and after it whatever an export leaves beside its bundle goes."""
        try:
            publish(self.folder / "index.json", sealed.index)
            clean_up(self.folder, sealed.files)
        except OSError as error:
            raise from_os_error(error, f"writing {self.folder}") from error

    def _put(self, data: bytes, media_type: str) -> Descriptor:
        digest = sha256(data)
        if not self._weigh:
            publish(self._blobs / digest.hex, data)
        return Descriptor(media_type, digest, len(data))

    def _prerequisites(self, wanted: set[Digest]) -> Prerequisites:
        """What the bundle needs and does not carry, and which bundles carry it."""
        base = self._base
        if base is None:
            return NONE
        used = {
            name for digest, recipe in self._recipes.items() if digest in wanted for name in chunk_names(recipe)
        } | {name for _, placed, _ in self._frames for name in placed.header.prefix}
        lacking = used - self._known
        numbers = [base.find(name) for name in lacking]
        bundles = set(base.carriers(numbers)) | (set(base.digests) if self._patched or ABSENT in numbers else set())
        layers = base.layers_with(lacking) | {like for digest in wanted if (like := self._like.get(digest))}
        return Prerequisites(
            len(lacking),
            sum(base.size_of(number) for number in numbers if number >= 0),
            tuple(sorted(bundles)),
            {digest: text for digest, text in base.about().items() if digest in bundles},
            tuple(sorted(layers)),
        )

    def _needs(self, images: tuple[Image, ...]) -> tuple[Ranges, ...]:
        frame_of = {
            names[i : i + 32]: n for n, (_, _, names) in enumerate(self._frames) for i in range(0, len(names), 32)
        }
        by_layer = {
            digest: self._with_prefixes(
                {frame_of[n] for n in chunk_names(self._recipes[digest]) if n in frame_of}, frame_of
            )
            for digest in {layer.digest for image in images for layer in image.layers}
        }
        return tuple(Ranges.of(set().union(*(by_layer[layer.digest] for layer in image.layers))) for image in images)

    def _with_prefixes(self, frames: set[int], frame_of: dict[bytes, int]) -> set[int]:
        """The frames, and those of this bundle they are patched against: these are plain."""
        prefix = (name for frame in frames for name in self._frames[frame][1].header.prefix)
        return frames | {frame_of[name] for name in prefix if name in frame_of}

    def image_bytes(self, header: head.Header) -> tuple[int, ...]:
        """What each image adds to the packs (bytes): a frame counts for the first image that needs it."""
        counted: set[int] = set()
        out = []
        for needs in header.needs:
            sizes = (self._frames[n][1].end - self._frames[n][1].offset for n in needs if n not in counted)
            out.append(sum(sizes))
            counted.update(needs)
        return tuple(out)

    def _write_catalog(self, wanted: set[Digest]) -> tuple[head.Blob, ...]:
        """Documents, recipes, frames, in that order: a chunk's name then stands near its first use."""
        packs = _Packs(self._state, self._blobs, "catalog", self._pool, weigh=self._weigh)
        records: list[bytes] = []
        held = 0
        like = [self._like.get(digest) or digest for digest in self._recipes if digest in wanted]
        names, prefix = self._base.like(like) if self._base else ([], b"")

        def flush() -> None:
            nonlocal held
            sizes = [len(each) for each in records]
            level = max(self._level, MIN_CATALOG_LEVEL)
            header, packed = encode_frame(Kind.CATALOG, b"".join(records), sizes, level, names, prefix)
            self._patched |= bool(header.prefix)
            packs.append(header, packed)
            records.clear()
            held = 0

        for record in self._records(wanted):
            if records and held + len(record) > CATALOG_FRAME_RAW:
                flush()
            records.append(record)
            held += len(record)
        flush()
        return packs.finish()

    def _records(self, wanted: set[Digest]) -> Iterable[bytes]:
        for digest in sorted(wanted & self._documents.keys()):
            yield document_record(digest, self._documents[digest])
        for digest, recipe in self._recipes.items():
            if digest in wanted:
                yield from recipe_records(recipe)
        for number, placed, names in self._frames:
            yield frame_record(number, placed, names)

    def close(self) -> None:
        """Let go of the folder; what is finished stays for the next run."""
        self._batches.close()
        self._lane.close()
        self.journal.close()
        os.close(self._lock)


def companions() -> dict[str, bytes]:
    """What lies beside every bundle for whoever finds it: this program's own README.txt and verify.py."""
    place = resources.files("transfer.bundle")
    return {
        README_NAME: place.joinpath("README.txt").read_bytes(),
        VERIFY_NAME: place.joinpath("standalone.py").read_bytes(),
    }


def _claim(folder: Path, state: Path) -> int:
    """Make the folder and hold its lock: one export at a time."""
    try:
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise UsageError(f"{folder} is not a folder", hint="name a new folder for the bundle")
        if folder.is_dir() and not state.is_dir() and any(folder.iterdir()):
            raise UsageError(f"{folder} is not empty and no unfinished bundle", hint="name a new folder for the bundle")
        own_folder(folder, head.STATE, "blobs", "blobs/sha256")
        lock = open_own(state / "lock")
    except OSError as error:
        raise from_os_error(error, f"making {folder}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise Locked(f"{folder}: another export is writing here", hint="wait for it to end, then run again") from error
    return lock


def clean_up(folder: Path, keep: Collection[str]) -> None:
    """Remove what an export leaves beside a finished bundle: other blobs, the notes, the lock."""
    for inner, names, kept in (
        ("blobs/sha256", _BLOB, frozenset(keep)),
        ("", TEMPORARY, frozenset()),
        (head.STATE, _NOTE, frozenset()),
    ):
        remove_ours(folder, inner, names, kept)
    remove_folder(folder, head.STATE)
    sync_folder(folder)


_BLOB = re.compile(rf"[0-9a-f]{{64}}|{TEMPORARY.pattern}", re.ASCII | re.DOTALL)
_PART, _OLD = (
    re.compile(r"(?:pack|catalog)-[0-9]+\.part", re.ASCII),
    re.compile(r"pack-[0-9]+\.[0-9a-f]{8}\.old", re.ASCII),
)
_NOTE = re.compile(r"lock|journal|(?:pack|catalog)-[0-9]+(?:\.[0-9a-f]{8})?\.(?:part|old)", re.ASCII)
"""What an export leaves beside its bundle. Nothing else is ever removed there."""


def _named(folder: Path, names: re.Pattern[str]) -> list[Path]:
    """The regular files of ours in a folder, in the order of their names."""
    return sorted(
        path for path in folder.iterdir() if names.fullmatch(path.name) and stat.S_ISREG(path.lstat().st_mode)
    )
