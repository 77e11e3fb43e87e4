"""Opens a bundle and gives its blobs back, byte for byte."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from transfer.bundle import header as head
from transfer.bundle.catalog import Catalog, CatalogReader, chunk_names
from transfer.bundle.packs import OPEN
from transfer.bundle.records import STEPS_MAX, find_records
from transfer.bundle.sound import file_fault, first_sound, size_there
from transfer.chunks.frame import DIFFERENCE, FRAME_RAW_MAX, decode_frame
from transfer.chunks.name import chunk_id
from transfer.chunks.pack import BLOB_MAX, PACK_HEADER, pack_version, read_frame_header, read_packed, sound
from transfer.errors import Damaged, FormatError, MissingPart, NotFound, TransferError
from transfer.model import Addressed, Descriptor, Digest, Image, blob_path
from transfer.streams import Effort, open_plain, parse_object, pread, read_small, sha256

GROWTH_FREE, GROWTH_RATIO, GROWTH_ABSENT = 4 << 30, 1000, 64 << 20
"""All layers together may have so many bytes, more by so many times the size of the packs, and by so many for each chunk of other bundles."""
CATALOG_MEMORY, CATALOG_GROWTH = 128 << 20, 16
"""What the catalogs of a bundle may cost in memory: so many bytes, and so many more for each byte of their files."""
_OWNERS = itertools.count()


class BundleLookup(Protocol):
    """Some bundles at hand."""

    def bundle(self, digest: Digest) -> Bundle | None:
        """The bundle with this digest, if it is here."""
        ...

    def bundles(self) -> Iterator[Bundle]:
        """All of them."""
        ...

    def locate(self, names: Iterable[bytes]) -> dict[bytes, Bundle]:
        """Which bundle carries each of these chunks; names that none carries are left out."""
        ...


class NoBundles:
    """Nothing is at hand."""

    def bundle(self, digest: Digest) -> Bundle | None:
        return None

    def bundles(self) -> Iterator[Bundle]:
        return iter(())

    def locate(self, names: Iterable[bytes]) -> dict[bytes, Bundle]:
        return {}


EMPTY = NoBundles()


class Bundle:
    """A finished bundle folder. Opening reads and checks index, manifest and header; the catalog comes when asked for.

    `library` is where the bundles it builds on are looked for. In a store `folder` holds the blobs of many bundles, and `index` is given.
    `places` are further folders that may have the bundle's files, or some of them: other media of a set.
    """

    def __init__(
        self, folder: Path, *, index: bytes | None = None, library: BundleLookup = EMPTY, places: Sequence[Path] = ()
    ) -> None:
        self.folder, self.library = folder, library
        self.places = [folder, *places]
        self.index = _read_index(folder) if index is None else index
        self.manifest = head.parse_index(self.index, f"{folder}/index.json")
        data = self._document(self.manifest, "manifest")
        self.config, catalogs, packs = head.parse_manifest(data, f"{folder}: manifest")
        self.header = head.parse_header(self._document(self.config, "header"), f"{folder}: header")
        head.agreed(self.header, catalogs, packs, str(folder))
        self._catalog: Catalog | None = None
        self.effort = Effort(str(folder))
        self._owner = next(_OWNERS)
        self._numbers: dict[Digest, int] | None = None
        self.reading = False
        self.suspect: Callable[[str], None] | None = None
        self.disown: Callable[[], None] | None = None
        self.record_depth = 0
        self.record_suppliers: set[Digest] = set()

    def path_of(self, file: Addressed) -> Path:
        """Where a file of the bundle lies: in the first place that has one of its size; in the bundle's own folder if none has."""
        paths = self.paths_of(file)
        return next((path for path in paths if size_there(path) == file.size), paths[0])

    def paths_of(self, file: Addressed) -> list[Path]:
        """Where it could lie, the likeliest first."""
        name = blob_path(file.digest)
        return [place / name for place in self.places]

    def _document(self, descriptor: Descriptor, what: str) -> bytes:
        """Manifest or header, from the first place where it is sound."""

        def read(path: Path) -> bytes:
            data = read_small(path, head.HEADER_MAX)
            if sha256(data) != descriptor.digest or len(data) != descriptor.size:
                raise Damaged(
                    f"{path}: the bundle's {what} is damaged: its content does not match its digest",
                    hint="copy this file again from the original bundle",
                )
            return data

        return first_sound(self.paths_of(descriptor), read)

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, *args: object) -> None:
        OPEN.forget(self._owner)

    def __del__(self) -> None:
        if hasattr(self, "_owner"):
            OPEN.gone.append(self._owner)

    @property
    def is_delta(self) -> bool:
        """Whether it needs others to be read."""
        return bool(self.header.prerequisites)

    @property
    def is_patched(self) -> bool:
        """Whether frames have prefixes, be they of this bundle or of others."""
        return head.PATCH in self.header.features

    def small(self) -> list[Addressed]:
        """What says what the bundle is: manifest, header, catalogs."""
        return [self.manifest, self.config, *self.header.catalog]

    @property
    def images(self) -> tuple[Image, ...]:
        return self.header.images

    def catalog(self) -> Catalog:
        """Documents, recipes and places of chunks; read and checked once."""
        if self._catalog is None:
            reader = CatalogReader(f"{self.folder}: catalog", self._catalog_room())
            for record in self.records():
                reader.add(record)
            catalog = reader.finish()
            self._check(catalog)
            self._catalog = catalog
        return self._catalog

    def records(self) -> Generator[bytes]:
        """The catalog's records as they are. MissingPart if it builds on a catalog that is not in the library."""
        self.reading = True
        left = self._catalog_room()
        try:
            for blob in self.header.catalog:
                left = yield from self._catalog_records(blob, left)
        finally:
            self.reading = False

    def _catalog_room(self) -> int:
        return CATALOG_MEMORY + CATALOG_GROWTH * sum(blob.size for blob in self.header.catalog)

    def _catalog_records(self, blob: head.Blob, left: int) -> Generator[bytes, None, int]:
        """The records of one catalog file, after its sha256 was found right; what remains of `left` bytes uncompressed."""
        try:
            path = first_sound(self.paths_of(blob), lambda path: _sound_catalog(path, blob))
        except (Damaged, MissingPart) as error:
            raise type(error)(error.message, hint=self._cure(blob, error.hint)) from error
        with open_plain(path) as file:
            fd, at = file.fileno(), 16
            pack_version(pread(fd, 16, 0, str(path)), str(path))
            while at < blob.size:
                placed = read_frame_header(fd, at, str(path))
                if placed.header.codec == DIFFERENCE:
                    raise FormatError(f"{path}: a catalog with frames by subtraction, which none has")
                left -= placed.header.raw_size
                if left < 0:
                    raise FormatError(f"{path}: the catalog is larger than the format allows; refused")
                prefix = self._record_prefix(placed.header.prefix, str(path))
                if prefix:
                    self.record_depth = self._depth_behind() + 1
                    if self.record_depth > STEPS_MAX:
                        raise FormatError(f"{path}: catalogs depend on each other over more steps than {STEPS_MAX}")
                yield from decode_frame(placed.header, read_packed(fd, placed, str(path)), str(path), prefix)
                at = placed.end
        return left

    def _depth_behind(self) -> int:
        found = [self.library.bundle(digest) for digest in self.record_suppliers]
        return max((each.record_depth for each in found if each and each is not self), default=0)

    def _record_prefix(self, names: Sequence[bytes], where: str) -> bytes:
        if not names:
            return b""
        likely = self.header.prerequisites.bundles
        about = self.header.prerequisites.words
        found, suppliers = find_records(self.library, names, likely, about, str(self.folder))
        self.record_suppliers |= suppliers
        if sum(len(found[name]) for name in names) > FRAME_RAW_MAX:
            raise FormatError(f"{where}: a frame depends on more data than the format allows")
        return b"".join(found[name] for name in names)

    def _check(self, catalog: Catalog) -> None:
        """What header and catalog say must fit together."""
        where = f"{self.folder}: catalog"
        self._check_frames(catalog, where)
        prefixed = any(entry.prefix for entry in catalog.frames)
        if (catalog.lacking and not self.is_delta) or (not self.is_patched and (self.is_delta or prefixed)):
            raise FormatError(f"{where}: the bundle uses chunks of other bundles and does not declare it")
        if any(recipe.plain for recipe in catalog.recipes.values()) and head.DEFLATE not in self.header.features:
            raise FormatError(f"{where}: the bundle holds gzip layers taken apart and does not declare it")
        if any(recipe.folds for recipe in catalog.recipes.values()) and head.FOLDS not in self.header.features:
            raise FormatError(f"{where}: the bundle holds compressed files taken apart and does not declare it")
        if any(entry.codec == DIFFERENCE for entry in catalog.frames) and head.DIFFERENCE not in self.header.features:
            raise FormatError(f"{where}: the bundle has frames by subtraction and does not declare it")
        self._check_growth(catalog, where)

    def _check_growth(self, catalog: Catalog, where: str) -> None:
        """A few frames that are named again and again must not become layers without end."""
        size = sum(max(each.size, each.folds.size if each.folds else 0) for each in catalog.recipes.values())
        most = GROWTH_FREE + GROWTH_RATIO * sum(blob.size for blob in self.header.packs)
        if size <= most:
            return
        names = {name for recipe in catalog.recipes.values() for name in chunk_names(recipe)}
        most += GROWTH_ABSENT * sum(name not in catalog.numbers_of for name in names)
        if size > most:
            raise FormatError(
                f"{where}: all layers together have {size} bytes; packs of this size may not become more than {most}",
                hint="if the images really contain so many zeros, export the bundle without them",
            )

    def _check_frames(self, catalog: Catalog, where: str) -> None:
        """The header's counts of frames and bytes are the catalog's, and frames stand in the order of the packs."""
        packs = self.header.packs
        found = [[0, 0] for _ in packs]
        ends = [len(PACK_HEADER)] * len(packs)
        before = 0
        for entry in catalog.frames:
            if not before <= entry.pack < len(packs):
                raise FormatError(f"{where}: a frame is in an unlisted pack, or out of order")
            before = entry.pack
            found[before][0] += 1
            found[before][1] += entry.raw_size
            ends[before] = entry.offset + entry.header_size + entry.packed_size
        for blob, end in zip(packs, ends, strict=True):
            if blob.size != end:
                raise FormatError(
                    f"{where}: the frames of pack {blob.digest.short} end at {end}, where the header says {blob.size}"
                )
        for blob, (frames, raw) in zip(packs, found, strict=True):
            if (blob.frames, blob.raw_size) != (frames, raw):
                raise FormatError(
                    f"{where}: {frames} frames of {raw} bytes in pack {blob.digest.short}, "
                    f"where the header says {blob.frames} of {blob.raw_size}"
                )

    def number_of(self, pack: head.Blob) -> int:
        """The place of a pack in the header's list."""
        if self._numbers is None:
            self._numbers = {each.digest: number for number, each in enumerate(self.header.packs)}
        return self._numbers[pack.digest]

    def missing_packs(self) -> list[head.Blob]:
        """Packs that are not there, or not of their size."""
        return [blob for blob in self.header.packs if size_there(self.path_of(blob)) != blob.size]

    def document(self, digest: Digest) -> bytes:
        """A manifest, index or config."""
        documents = self.catalog().documents
        if digest not in documents:
            raise MissingPart(f"{self.folder}: document {digest} is not in this bundle")
        return documents[digest]

    def decode(
        self, frame: int, wanted: Callable[[int], bool], prefix: bytes = b"", *, checked: bool = True
    ) -> dict[int, bytes]:
        """The frame's wanted chunks by number; `prefix` are the bytes of its prefix chunks.

        Each chunk is compared with its name if `checked`, else only the frame with its CRC: that finds what went wrong on the way.
        Damaged names pack, frame and images.
        """
        catalog = self.catalog()
        entry = catalog.frames[frame]
        blob = self.header.packs[entry.pack]
        try:
            with self._open_pack(entry.pack) as (fd, path):
                return self._decode(catalog, frame, fd, path, wanted, prefix, checked=checked)
        except (Damaged, MissingPart) as error:
            raise self._blame(error, frame, blob) from error

    def _decode(
        self,
        catalog: Catalog,
        frame: int,
        fd: int,
        path: Path,
        wanted: Callable[[int], bool],
        prefix: bytes,
        *,
        checked: bool,
    ) -> dict[int, bytes]:
        entry = catalog.frames[frame]
        where = f"{path}, frame {frame} at byte {entry.offset}"
        placed = read_frame_header(fd, entry.offset, where)
        found = placed.header
        stated = (entry.packed_size, entry.raw_size, entry.sizes, entry.prefix)
        if (found.packed_size, found.raw_size, found.sizes, b"".join(found.prefix)) != stated:
            raise Damaged(f"{where}: the frame is not the one that the catalog describes")
        packed = read_packed(fd, placed, where)
        if not sound(found, packed):
            raise Damaged(f"{where}: the frame is damaged (CRC)")
        chunks = decode_frame(found, packed, where, prefix)
        first, out = catalog.first_of[frame], {}
        for index, data in enumerate(chunks):
            if wanted(first + index):
                if checked and chunk_id(data) != entry.names[index * 32 : index * 32 + 32]:
                    if self.disown:
                        self.disown()
                    raise Damaged(f"{where}: a chunk does not match its name")
                out[first + index] = data
        return out

    def _blame(self, error: TransferError, frame: int, blob: head.Blob) -> TransferError:
        users = self.header.users(range(frame, frame + 1))
        named = ", ".join(users[:5]) + (f" and {len(users) - 5} more" if len(users) > 5 else "")
        hint = self._cure(blob, error.hint or "copy this file again from the original bundle")
        return type(error)(f"{error.message} (needed for {named})", hint=hint)

    def _cure(self, blob: head.Blob, hint: str) -> str:
        """What to do about a file that was found wrong; a store is told, so that it takes the file when it comes again."""
        if self.suspect is None:
            return hint
        self.suspect(blob.digest.hex)
        return f"import bundle {self.manifest.digest.short} again: the store's copy of that file is replaced"

    def _open_pack(self, number: int) -> contextlib.AbstractContextManager[tuple[int, Path]]:
        """A pack, opened once, and where it lies."""

        def opener() -> tuple[int, Path]:
            path = self.path_of(self.header.packs[number])
            try:
                with open_plain(path) as file:
                    pack_version(pread(file.fileno(), 16, 0, str(path)), str(path))
                    return os.dup(file.fileno()), path
            except NotFound as error:
                raise MissingPart(f"{path} is missing", hint="copy this file from the original bundle") from error

        return OPEN.using((self._owner, number), opener)


def _read_index(folder: Path) -> bytes:
    if not folder.is_dir():
        raise NotFound(f"{folder}: no such bundle", hint="check the path")
    path = folder / "index.json"
    if not path.exists():
        if (folder / head.STATE).is_dir():
            raise MissingPart(f"{folder} is an unfinished export", hint="run the same export again: it resumes")
        raise NotFound(f"{folder} is not a bundle: it has no index.json", hint="check the path")
    parse_object(read_small(folder / "oci-layout", 4096), f"{folder}/oci-layout")
    return read_small(path)


def _sound_catalog(path: Path, blob: head.Blob) -> Path:
    """The path, after the file's size and sha256 were found right."""
    if blob.size > BLOB_MAX:
        raise FormatError(f"{path}: a catalog file of {blob.size} bytes is refused")
    try:
        fault = file_fault(path, blob)
    except NotFound as error:
        raise MissingPart(f"{path}: the catalog is missing", hint="copy this file from the original bundle") from error
    if fault:
        raise Damaged(f"{path}: the catalog is damaged: {fault}", hint="copy this file again from the original bundle")
    return path
