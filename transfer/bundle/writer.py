"""Writes a bundle: chunks in, packs out, and at the very end the index that makes it one.

Order on disk: packs, catalog, header, manifest, each durable under its final name; then index.json by rename. Until then the
folder is an unfinished export, which the next run takes up.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from transfer.bundle import header as head
from transfer.bundle.catalog import chunk_names
from transfer.bundle.delta import DeltaBase
from transfer.bundle.journal import Journal, Seen
from transfer.bundle.seal import (
    BLOB_NAMES,
    OLD_NAMES,
    PART_NAMES,
    Packing,
    PackSequence,
    Place,
    Seal,
    Sealed,
    publish_index,
)
from transfer.chunks.folder import FolderChunks
from transfer.chunks.name import Kind
from transfer.chunks.packer import New, Packed, Packer
from transfer.errors import Locked, UsageError, from_os_error
from transfer.folders import open_own, own_folder, remove_ours
from transfer.model import ChunkId, Digest, Image, Recipe
from transfer.work import Pool


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
        base: DeltaBase | None = None,
        similar: bool = False,
        weigh: bool = False,
    ) -> None:
        """`similar`: programs that share code are patched against each other. `weigh`: all the work is done and nothing of it is written
        but notes; `folder` is a temporary one.
        """
        self.folder, self._base = folder, base
        self._place = Place(folder, weigh)
        self._lock = _claim(folder, self._place.state)
        try:
            self.journal = Journal(self._place.state / "journal", options)
            self.kept = FolderChunks(self._take_up(), pool, base.bytes_of if base else None)
        except OSError as error:
            raise from_os_error(error, f"preparing {folder}") from error
        self._packing = Packing()
        self._new: list[New] = []
        self._packs = PackSequence(self._place, "pack", pool)
        self._packer = Packer(self._deliver, self.kept, level=level, pool=pool, ahead=ahead, base=base, similar=similar)
        self._seal = Seal(self._place, self._packing, base, pool, level)
        self._before = self._packer.state
        self.bytes_new = 0

    @property
    def bytes_reused(self) -> int:
        """Bytes of chunks whose frames an earlier run had packed."""
        return self._packer.bytes_reused

    def _take_up(self) -> list[Path]:
        """The packs an earlier, unfinished run left; with other options they are of no use and go."""
        for part in _named(self._place.state, PART_NAMES):
            part.rename(part.with_name(f"{part.stem}.{os.urandom(4).hex()}.old"))
        if not self.journal.resumed:
            remove_ours(self.folder, "blobs/sha256", BLOB_NAMES)
            remove_ours(self.folder, head.STATE, OLD_NAMES)
            return []
        return _named(self._place.blobs, BLOB_NAMES) + _named(self._place.state, OLD_NAMES)

    def __contains__(self, name: ChunkId) -> bool:
        return name in self._packing.known or (self._base is not None and name in self._base)

    def add(
        self, name: ChunkId, data: bytes | memoryview, kind: Kind, partners: tuple[int, ...] = (), offset: int = 0
    ) -> None:
        if name in self:
            return
        self._packing.known.add(name)
        self.bytes_new += len(data)
        self._new.append(self._packer.add(name, data, kind, partners, offset))

    def _again(self, new: New) -> None:
        """A chunk that an earlier run has packed, as it was added then."""
        self._packing.known.add(new.name)
        self.bytes_new += new.size
        self._packer.again(new)

    def end_blob(self, recipe: Recipe, like: Digest | None = None, plain: Recipe | None = None, why: str = "") -> None:
        """A blob was read and checked; its recipe and its chunks are noted for a later run. `like`: the base's layer it is a version of.

        `plain`: the recipe of the plain blob it is put together from; then that is the one `like` is about. `why` it is held as it is.
        """
        self._note(Seen(recipe, tuple(self._new), like, self._before, plain, why))

    def _note(self, seen: Seen) -> None:
        for recipe in (seen.plain, seen.recipe) if seen.plain else (seen.recipe,):
            self._packing.recipes[recipe.digest] = recipe
            self._packing.like[recipe.digest] = None if recipe.plain else seen.like
        if seen.why:
            self._packing.held[seen.recipe.digest] = seen.why
        self.journal.add(seen)
        self._next_blob()

    def abandon_blob(self) -> None:
        """The last blob did not come whole; its chunks may stay, its note may not."""
        self._next_blob()

    def _next_blob(self) -> None:
        self._new.clear()
        self._before = self._packer.state

    def has_blob(self, digest: Digest) -> bool:
        return digest in self._packing.recipes or digest in self._packing.documents

    def replay(self, digest: Digest) -> bool:
        """Take a layer from the notes of an earlier run, if all it added is in finished frames. Reads nothing."""
        seen = self.journal.seen.get(digest)
        if not seen or seen.before != self._before:
            return False
        if not all(each.name in self or each.name in self.kept for each in seen.new):
            return False
        new = {each.name for each in seen.new}
        recipes = (seen.recipe, seen.plain) if seen.plain else (seen.recipe,)
        names = (ChunkId(name) for recipe in recipes for name in chunk_names(recipe))
        if any(name not in new and name not in self for name in names):
            return False
        for each in seen.new:
            if each.name not in self:
                self._again(each)
        self._note(seen)
        return True

    def add_document(self, digest: Digest, data: bytes) -> None:
        self._packing.documents[digest] = data

    def documents(self) -> dict[Digest, bytes]:
        return self._packing.documents

    def recipes(self) -> dict[Digest, Recipe]:
        return self._packing.recipes

    def sizes(self) -> dict[Digest, int]:
        """Every blob taken so far and its size."""
        return {d: r.size for d, r in self._packing.recipes.items()} | {
            d: len(b) for d, b in self._packing.documents.items()
        }

    def _deliver(self, packed: Packed) -> None:
        frame, data, names = packed
        number, placed = self._packs.append(frame, data)
        self._packing.frames.append((number, placed, names))

    def finish(self, images: Iterable[Image], *, created: int, tool: str, totals: dict[str, int]) -> Sealed:
        """Write what is left, then the catalog, the header and the manifest. Only `publish` makes a bundle of it."""
        try:
            self._packer.finish()
            packs = self._packs.finish()
            return self._seal.seal(tuple(images), packs, created, tool, totals)
        except OSError as error:
            raise from_os_error(error, f"writing {self.folder}") from error

    def publish(self, sealed: Sealed) -> None:
        """The commit point: `index.json`."""
        try:
            publish_index(sealed)
        except OSError as error:
            raise from_os_error(error, f"writing {self.folder}") from error

    def image_bytes(self, header: head.Header) -> tuple[int, ...]:
        """What each image adds to the packs (bytes): a frame counts for the first image that needs it."""
        counted: set[int] = set()
        out = []
        for needs in header.needs:
            sizes = (
                self._packing.frames[n][1].end - self._packing.frames[n][1].offset for n in needs if n not in counted
            )
            out.append(sum(sizes))
            counted.update(needs)
        return tuple(out)

    def close(self) -> None:
        """Let go of the folder; what is finished stays for the next run."""
        self._packer.close()
        self.journal.close()
        os.close(self._lock)


def _claim(folder: Path, state: Path) -> int:
    """Make the folder and hold its lock: one export at a time."""
    try:
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise UsageError(f"{folder} is not a folder", hint="choose a new folder with -o")
        if folder.is_dir() and not state.is_dir() and any(folder.iterdir()):
            raise UsageError(
                f"{folder} is not empty and does not contain an unfinished export",
                hint="choose a new or empty folder with -o",
            )
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


def _named(folder: Path, names: re.Pattern[str]) -> list[Path]:
    """The regular files of ours in a folder, in the order of their names."""
    return sorted(
        path for path in folder.iterdir() if names.fullmatch(path.name) and stat.S_ISREG(path.lstat().st_mode)
    )
