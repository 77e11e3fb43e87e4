"""Writes a bundle: chunks in, packs out, and at the very end the index that makes it one.

Order on disk: packs, catalog, header, manifest, each durable under its final name; then index.json by rename. Until then the
folder is an unfinished export, which the next run takes up.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path

from transfer.bundle import header as head
from transfer.bundle.catalog import CATALOG_FRAME_RAW, document_record, frame_record, recipe_records
from transfer.bundle.journal import Journal, Seen
from transfer.chunks.bucket import Buckets, Gathered
from transfer.chunks.folder import FolderChunks
from transfer.chunks.frame import FrameHeader, encode_frame, offsets
from transfer.chunks.name import Kind
from transfer.chunks.pack import PACK_SIZE, PackFile, Placed
from transfer.errors import Locked, UsageError, from_os_error
from transfer.model import OCI_MANIFEST, ChunkId, Descriptor, Digest, Image, Recipe
from transfer.streams import publish, sha256, sync_folder
from transfer.work import Lane, Pool

STATE = ".transfer"
README_NAME, VERIFY_NAME = "README.txt", "verify.py"
MIN_CATALOG_LEVEL = 15
"""Chunk names do not compress, and a catalog has each of them twice or more: on the reference corpus 9 makes 2.76 MB, 15 2.27."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A finished bundle: where, its manifest's digest, and its header."""

    folder: Path
    digest: Digest
    header: head.Header


class _Packs:
    """A sequence of packs being filled; every frame is told where it went."""

    def __init__(self, state: Path, blobs: Path, stem: str, pool: Pool) -> None:
        self._state, self._blobs, self._stem, self._pool = state, blobs, stem, pool
        self._open: PackFile | None = None
        self._done: list[tuple[PackFile, Future[Digest]]] = []

    def append(self, header: FrameHeader, packed: bytes) -> tuple[int, Placed]:
        if self._open and self._open.size + len(packed) > PACK_SIZE:
            self._close()
        if not self._open:
            self._open = PackFile(self._state / f"{self._stem}-{len(self._done):05d}.part")
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

    def __init__(self, folder: Path, *, level: int, options: dict[str, object], pool: Pool, ahead: int) -> None:
        self.folder, self._level, self._pool = folder, level, pool
        self._blobs, self._state = folder / "blobs" / "sha256", folder / STATE
        self._lock = _claim(folder, self._state)
        try:
            self._blobs.mkdir(parents=True, exist_ok=True)
            self.journal = Journal(self._state / "journal", options)
            self.kept = FolderChunks(self._take_up(), pool)
        except OSError as error:
            raise from_os_error(error, f"preparing {folder}") from error
        self._known: set[bytes] = set()
        self._new: list[tuple[ChunkId, int, Kind]] = []
        self._recipes: dict[Digest, Recipe] = {}
        self._documents: dict[Digest, bytes] = {}
        self._frames: list[tuple[int, Placed, bytes]] = []
        self._packs = _Packs(self._state, self._blobs, "pack", pool)
        self._buckets = Buckets(self._flush)
        self._lane: Lane[tuple[FrameHeader, bytes, bytes]] = Lane(pool, ahead, self._deliver)
        self.bytes_new = self.bytes_reused = 0

    def _take_up(self) -> list[Path]:
        """The packs an earlier, unfinished run left; with other options they are of no use and go."""
        for part in self._state.glob("*.part"):
            part.rename(part.with_name(f"{part.stem}.{os.urandom(4).hex()}.old"))
        found = sorted(self._blobs.iterdir()) + sorted(self._state.glob("pack-*.old"))
        if not self.journal.resumed:
            for path in found:
                path.unlink()
            return []
        return found

    def __contains__(self, name: ChunkId) -> bool:
        return name in self._known

    def add(self, name: ChunkId, data: bytes | memoryview, kind: Kind) -> None:
        if name in self._known:
            return
        self._known.add(name)
        self._new.append((name, len(data), kind))
        self.bytes_new += len(data)
        # bytes that an earlier run has packed need no place in memory until their frame comes up
        self._buckets.add(name, len(data), None if name in self.kept else data, kind)

    def end_blob(self, recipe: Recipe) -> None:
        """A blob was read and checked; its recipe and its chunks are noted for a later run."""
        self._recipes[recipe.digest] = recipe
        self.journal.add(Seen(recipe, tuple(self._new)))
        self._new.clear()

    def abandon_blob(self) -> None:
        """The last blob did not come whole; its chunks may stay, its note may not."""
        self._new.clear()

    def has_blob(self, digest: Digest) -> bool:
        return digest in self._recipes or digest in self._documents

    def replay(self, digest: Digest) -> bool:
        """Take a layer from the notes of an earlier run, if all it added is in finished frames. Reads nothing."""
        seen = self.journal.seen.get(digest)
        if not seen or not all(name in self._known or name in self.kept for name, _, _ in seen.new):
            return False
        new = {name for name, _, _ in seen.new}
        ids = (part.skeleton + part.payload for part in seen.recipe.parts)
        if any(
            each[i : i + 32] not in self._known and each[i : i + 32] not in new
            for each in ids
            for i in range(0, len(each), 32)
        ):
            return False
        for name, size, kind in seen.new:
            if name not in self._known:
                self._known.add(name)
                self.bytes_new += size
                self._buckets.add(name, size, None, kind)
        self._recipes[digest] = seen.recipe
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

    def _pack(self, gathered: Gathered) -> tuple[FrameHeader, bytes, bytes]:
        names = b"".join(gathered.names)
        kept = self.kept.packed(names) if len(self.kept) else None
        if kept:
            self.bytes_reused += kept[0].raw_size
        else:
            starts = offsets(gathered.sizes)
            for number in gathered.holes:
                start = starts[number]
                gathered.buffer[start : start + gathered.sizes[number]] = self.kept.get(gathered.names[number])
            with memoryview(gathered.buffer) as whole, whole[: gathered.size] as raw:
                kept = encode_frame(gathered.kind, raw, gathered.sizes, self._level)
        gathered.buffer.close()
        return *kept, names

    def _deliver(self, packed: tuple[FrameHeader, bytes, bytes]) -> None:
        frame, data, names = packed
        number, placed = self._packs.append(frame, data)
        self._frames.append((number, placed, names))

    def finish(self, images: Iterable[Image], *, created: int, tool: str, totals: dict[str, int]) -> Sealed:
        """Write what is left, then the catalog, the header, the manifest and the index."""
        try:
            self._buckets.finish()
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
        header = head.Header(created, tool, self._level, images, needs, catalog, packs, whole)
        config = self._put(header.encode(), head.CONFIG_TYPE)
        manifest = self._put(header.manifest(config), OCI_MANIFEST)
        publish(self.folder / "oci-layout", head.OCI_LAYOUT)
        publish(self.folder / README_NAME, resources.files("transfer.bundle").joinpath("README.txt").read_bytes())
        publish(self.folder / VERIFY_NAME, resources.files("transfer.bundle").joinpath("standalone.py").read_bytes())
        sync_folder(self.folder)
        publish(self.folder / "index.json", head.encode_index(manifest))
        keep = {blob.digest.hex for blob in (*packs, *catalog)} | {config.digest.hex, manifest.digest.hex}
        clean_up(self.folder, keep)
        return Sealed(self.folder, manifest.digest, header)

    def _put(self, data: bytes, media_type: str) -> Descriptor:
        digest = sha256(data)
        publish(self._blobs / digest.hex, data)
        return Descriptor(media_type, digest, len(data))

    def _needs(self, images: tuple[Image, ...]) -> tuple[tuple[int, ...], ...]:
        frame_of = {
            names[i : i + 32]: n for n, (_, _, names) in enumerate(self._frames) for i in range(0, len(names), 32)
        }
        out = []
        for image in images:
            parts = [part for layer in image.layers for part in self._recipes[layer.digest].parts]
            ids = (part.skeleton + part.payload for part in parts)
            out.append(tuple(sorted({frame_of[each[i : i + 32]] for each in ids for i in range(0, len(each), 32)})))
        return tuple(out)

    def _write_catalog(self, wanted: set[Digest]) -> tuple[head.Blob, ...]:
        """Documents, recipes, frames, in that order: a chunk's name then stands near its first use."""
        packs = _Packs(self._state, self._blobs, "catalog", self._pool)
        records: list[bytes] = []
        held = 0

        def flush() -> None:
            nonlocal held
            sizes = [len(each) for each in records]
            packs.append(*encode_frame(Kind.CATALOG, b"".join(records), sizes, max(self._level, MIN_CATALOG_LEVEL)))
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
        self.journal.close()
        os.close(self._lock)


def _claim(folder: Path, state: Path) -> int:
    """Make the folder and hold its lock: one export at a time."""
    try:
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise UsageError(f"{folder} is not a folder", hint="name a new folder for the bundle")
        if folder.is_dir() and not state.is_dir() and any(folder.iterdir()):
            raise UsageError(f"{folder} is not empty and no unfinished bundle", hint="name a new folder for the bundle")
        state.mkdir(parents=True, exist_ok=True)
        lock = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise from_os_error(error, f"making {folder}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise Locked(f"{folder}: another export is writing here", hint="wait for it to end, then run again") from error
    return lock


def clean_up(folder: Path, keep: set[str]) -> None:
    """Remove what an export leaves beside a finished bundle: other blobs, the notes, the lock."""
    with contextlib.suppress(FileNotFoundError):
        for path in (folder / "blobs" / "sha256").iterdir():
            if path.name not in keep:
                path.unlink()
    for path in folder.glob(".*.tmp"):
        path.unlink()
    shutil.rmtree(folder / STATE, ignore_errors=True)
    sync_folder(folder)
