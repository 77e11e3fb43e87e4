"""Makes a bundle of what was packed: catalog, header and manifest, and at the very end the index."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path

from transfer.bundle import header as head
from transfer.bundle.catalog import (
    CATALOG_FRAME_RAW,
    chunk_names,
    document_record,
    frame_record,
    recipe_records,
    with_plain,
)
from transfer.bundle.delta import ABSENT, DeltaBase
from transfer.bundle.prerequisites import NONE, Prerequisites
from transfer.bundle.ranges import Ranges
from transfer.bundle.sums import SUMS, sums
from transfer.chunks.frame import DIFFERENCE, FrameHeader, encode_frame
from transfer.chunks.name import Kind
from transfer.chunks.pack import PACK_SIZE, FrameLocation, PackFile
from transfer.folders import remove_folder, remove_ours
from transfer.model import OCI_MANIFEST, Addressed, Descriptor, Digest, Image, Recipe, blob_path
from transfer.streams import TEMPORARY, publish, sha256, sync_folder
from transfer.work import Pool

README_NAME, VERIFY_NAME = "README.txt", "verify.py"
MIN_CATALOG_LEVEL = 15
"""For a catalog up to a MiB and for one that is patched. Chunk names do not compress, and it has each of them twice or more."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a bundle is made: its folder, that of its blobs, that of its notes. `weigh`: nothing is written but notes."""

    folder: Path
    weigh: bool = False

    @property
    def blobs(self) -> Path:
        return self.folder / "blobs" / "sha256"

    @property
    def state(self) -> Path:
        return self.folder / head.STATE


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


class PackSequence:
    """A sequence of packs being filled; every frame is told where it went."""

    def __init__(self, place: Place, stem: str, pool: Pool) -> None:
        self._place, self._stem, self._pool = place, stem, pool
        self._open: PackFile | None = None
        self._done: list[tuple[PackFile, Future[Digest]]] = []

    def append(self, header: FrameHeader, packed: bytes) -> tuple[int, FrameLocation]:
        if self._open and self._open.size + len(packed) > PACK_SIZE:
            self._close()
        if not self._open:
            path = self._place.state / f"{self._stem}-{len(self._done):05d}.part"
            self._open = PackFile(None if self._place.weigh else path)
        return len(self._done), self._open.append(header, packed)

    def _close(self) -> None:
        if self._open:
            pack, self._open = self._open, None
            self._done.append((pack, self._pool.submit(partial(pack.finish, self._place.blobs))))

    def finish(self) -> tuple[head.Blob, ...]:
        self._close()
        return tuple(head.Blob(f.result(), p.size, p.frames, p.raw) for p, f in self._done)


@dataclass
class Packing:
    """What there is to seal: recipes and documents of all blobs, the base's layer each is a version of, frames and where they went,
    and why a layer is held as it is.
    """

    recipes: dict[Digest, Recipe] = field(default_factory=dict)
    documents: dict[Digest, bytes] = field(default_factory=dict)
    like: dict[Digest, Digest | None] = field(default_factory=dict)
    known: set[bytes] = field(default_factory=set)
    held: dict[Digest, str] = field(default_factory=dict)
    frames: list[tuple[int, FrameLocation, bytes]] = field(default_factory=list)


class Seal:
    """Writes catalog, header and manifest around the packs, each durable under its final name."""

    def __init__(self, place: Place, packing: Packing, base: DeltaBase | None, pool: Pool, level: int) -> None:
        self._place, self._packing, self._base, self._pool, self._level = place, packing, base, pool, level
        self._patched = False

    def seal(
        self, images: tuple[Image, ...], packs: tuple[head.Blob, ...], created: int, tool: str, totals: dict[str, int]
    ) -> Sealed:
        """Everything but the index."""
        wanted = {d for image in images for d in (*image.documents, *(layer.digest for layer in image.layers))}
        plain = {r.plain for d, r in self._packing.recipes.items() if d in wanted and r.plain}
        wanted |= plain
        catalog = self._write_catalog(wanted)
        whole = {
            **totals,
            "chunks": sum(len(placed.header.sizes) for _, placed, _ in self._packing.frames),
            "chunk_bytes": sum(placed.header.raw_size for _, placed, _ in self._packing.frames),
            "packed_bytes": sum(blob.size for blob in packs + catalog),
        }
        needs = self._needs(images)
        prerequisites = self._prerequisites(wanted)
        patched = (
            bool(prerequisites.chunks) or self._patched or any(p.header.prefix for _, p, _ in self._packing.frames)
        )
        folded = any(r.folds for d, r in self._packing.recipes.items() if d in wanted)
        subtracted = any(placed.header.codec == DIFFERENCE for _, placed, _ in self._packing.frames)
        found = ((head.DEFLATE, plain), (head.DIFFERENCE, subtracted), (head.FOLDS, folded), (head.PATCH, patched))
        features = tuple(name for name, is_used in found if is_used)
        held = {digest: why for digest, why in self._packing.held.items() if digest in wanted}
        header = head.Header(
            created, tool, self._level, images, needs, catalog, packs, whole, prerequisites, features, held
        )
        config = self._put(header.encode(), head.CONFIG_TYPE)
        manifest = self._put(header.manifest(config), OCI_MANIFEST)
        index = head.encode_index(manifest)
        small = {"oci-layout": head.OCI_LAYOUT, **companions()}
        told = {name: sha256(data) for name, data in {**small, "index.json": index}.items()}
        files: list[Addressed] = [*packs, *catalog, config, manifest]
        told |= {blob_path(each.digest): each.digest for each in files}
        small[SUMS] = sums(told.items())
        size = sum(blob.size for blob in (*packs, *catalog)) + config.size + manifest.size + len(index)
        size += sum(map(len, small.values()))
        if self._place.weigh:
            return Sealed(self._place.folder, manifest.digest, header, size=size)
        for name, data in small.items():
            publish(self._place.folder / name, data)
        sync_folder(self._place.folder)
        keep = {blob.digest.hex for blob in (*packs, *catalog)} | {config.digest.hex, manifest.digest.hex}
        return Sealed(self._place.folder, manifest.digest, header, index, frozenset(keep), size)

    def _put(self, data: bytes, media_type: str) -> Descriptor:
        digest = sha256(data)
        if not self._place.weigh:
            publish(self._place.blobs / digest.hex, data)
        return Descriptor(media_type, digest, len(data))

    def _prerequisites(self, wanted: set[Digest]) -> Prerequisites:
        """What the bundle needs and does not carry, and which bundles carry it."""
        base = self._base
        if base is None:
            return NONE
        used = {
            name for digest, recipe in self._packing.recipes.items() if digest in wanted for name in chunk_names(recipe)
        } | {name for _, placed, _ in self._packing.frames for name in placed.header.prefix}
        lacking = used - self._packing.known
        numbers = [base.find(name) for name in lacking]
        bundles = set(base.carriers(numbers)) | (set(base.digests) if self._patched or ABSENT in numbers else set())
        layers = base.layers_with(lacking) | {like for digest in wanted if (like := self._packing.like.get(digest))}
        return Prerequisites(
            len(lacking),
            sum(base.size_of(number) for number in numbers if number >= 0),
            tuple(sorted(bundles)),
            {digest: text for digest, text in base.about().items() if digest in bundles},
            tuple(sorted(layers)),
        )

    def _needs(self, images: tuple[Image, ...]) -> tuple[Ranges, ...]:
        frame_of = {
            names[i : i + 32]: n
            for n, (_, _, names) in enumerate(self._packing.frames)
            for i in range(0, len(names), 32)
        }
        by_layer = {
            digest: self._with_prefixes(
                {
                    frame_of[n]
                    for recipe in with_plain((digest,), self._packing.recipes.__getitem__)
                    for n in chunk_names(recipe)
                    if n in frame_of
                },
                frame_of,
            )
            for digest in {layer.digest for image in images for layer in image.layers}
        }
        return tuple(Ranges.of(set().union(*(by_layer[layer.digest] for layer in image.layers))) for image in images)

    def _with_prefixes(self, frames: set[int], frame_of: dict[bytes, int]) -> set[int]:
        """The frames, and those of this bundle they are patched against: these are plain."""
        prefix = (name for frame in frames for name in self._packing.frames[frame][1].header.prefix)
        return frames | {frame_of[name] for name in prefix if name in frame_of}

    def _write_catalog(self, wanted: set[Digest]) -> tuple[head.Blob, ...]:
        """Documents, recipes, frames, in that order: a chunk's name then stands near its first use."""
        packs = PackSequence(self._place, "catalog", self._pool)
        records: list[bytes] = []
        held = 0
        like = [self._packing.like.get(digest) or digest for digest in self._packing.recipes if digest in wanted]
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
        for digest in sorted(wanted & self._packing.documents.keys()):
            yield document_record(digest, self._packing.documents[digest])
        for digest, recipe in self._packing.recipes.items():
            if digest in wanted:
                yield from recipe_records(recipe)
        for number, placed, names in self._packing.frames:
            yield frame_record(number, placed, names)


def publish_index(sealed: Sealed) -> None:
    """The commit point: `index.json`, and after it whatever an export leaves beside its bundle goes."""
    publish(sealed.folder / "index.json", sealed.index)
    clean_up(sealed.folder, sealed.files)


def companions() -> dict[str, bytes]:
    """What lies beside every bundle for whoever finds it: this program's own README.txt and verify.py."""
    place = resources.files("transfer.bundle")
    return {
        README_NAME: place.joinpath("README.txt").read_bytes(),
        VERIFY_NAME: place.joinpath("standalone.py").read_bytes(),
    }


def clean_up(folder: Path, keep: Collection[str]) -> None:
    """Remove what an export leaves beside a finished bundle: other blobs, the notes, the lock."""
    for inner, names, kept in (
        ("blobs/sha256", BLOB_NAMES, frozenset(keep)),
        ("", TEMPORARY, frozenset()),
        (head.STATE, _NOTE, frozenset()),
    ):
        remove_ours(folder, inner, names, kept)
    remove_folder(folder, head.STATE)
    sync_folder(folder)


BLOB_NAMES = re.compile(rf"[0-9a-f]{{64}}|{TEMPORARY.pattern}", re.ASCII | re.DOTALL)
PART_NAMES, OLD_NAMES = (
    re.compile(r"(?:pack|catalog)-[0-9]+\.part", re.ASCII),
    re.compile(r"pack-[0-9]+\.[0-9a-f]{8}\.old", re.ASCII),
)
_NOTE = re.compile(r"lock|journal|(?:pack|catalog)-[0-9]+(?:\.[0-9a-f]{8})?\.(?:part|old)", re.ASCII)
"""What an export leaves beside its bundle. Nothing else is ever removed there."""
