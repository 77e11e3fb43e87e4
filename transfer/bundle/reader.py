"""Opens a bundle and gives its blobs back, byte for byte."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from transfer.bundle import header as head
from transfer.bundle.catalog import Catalog, CatalogReader
from transfer.bundle.writer import STATE
from transfer.chunks.frame import decode_frame
from transfer.chunks.name import chunk_id
from transfer.chunks.pack import BLOB_MAX, pack_version, read_frame_header, read_packed
from transfer.chunks.recall import AHEAD, Recall
from transfer.errors import Damaged, FormatError, MissingPart, NotFound, TransferError
from transfer.model import Descriptor, Digest, Image, Recipe
from transfer.streams import BLOCK, IterReader, open_plain, parse_object, pread, read_small, sha256
from transfer.work import Pool


class Bundle:
    """A finished bundle folder. Opening reads and checks index, manifest and header; the catalog comes when asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index = _read_index(folder)
        self.manifest = head.parse_index(self.index, f"{folder}/index.json")
        data = self._document(self.manifest, "manifest")
        self.config, catalogs, packs = head.parse_manifest(data, f"{folder}: manifest")
        self.header = head.parse_header(self._document(self.config, "header"), f"{folder}: header")
        for listed, blobs in ((catalogs, self.header.catalog), (packs, self.header.packs)):
            if [(d.digest, d.size) for d in listed] != [(b.digest, b.size) for b in blobs]:
                raise FormatError(f"{folder}: manifest and header name different files")
        self._catalog: Catalog | None = None
        self._files: dict[int, int] = {}

    def _document(self, descriptor: Descriptor, what: str) -> bytes:
        path = self.folder / "blobs" / descriptor.digest.algorithm / descriptor.digest.hex
        data = read_small(path, head.HEADER_MAX)
        if sha256(data) != descriptor.digest or len(data) != descriptor.size:
            raise Damaged(
                f"{path}: the bundle's {what} is damaged: it is not what its digest says",
                hint="copy this file from the bundle again",
            )
        return data

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, *args: object) -> None:
        for fd in self._files.values():
            os.close(fd)
        self._files.clear()

    @property
    def images(self) -> tuple[Image, ...]:
        return self.header.images

    def catalog(self) -> Catalog:
        """Documents, recipes and places of chunks; read and checked once."""
        if self._catalog is None:
            reader = CatalogReader(f"{self.folder}: catalog")
            for blob in self.header.catalog:
                for record in _catalog_records(self.folder / blob.path, blob):
                    reader.add(record)
            self._catalog = reader.finish()
            self._check(self._catalog)
        return self._catalog

    def _check(self, catalog: Catalog) -> None:
        """What header and catalog say must fit together."""
        where = f"{self.folder}: catalog"
        for digest, data in catalog.documents.items():
            if sha256(data) != digest:
                raise Damaged(f"{where}: the document {digest} is not what its digest says")
        for entry in catalog.frames:
            if entry.pack >= len(self.header.packs):
                raise FormatError(f"{where}: a frame in a pack that is not listed")
        for image in self.images:
            for layer in image.layers:
                if layer.digest in catalog.recipes and catalog.recipe(layer.digest).size != layer.size:
                    raise FormatError(f"{where}: two sizes for {layer.digest}")

    def missing_packs(self) -> list[head.Blob]:
        """Packs that are not there, or not of their size."""
        out = []
        for blob in self.header.packs:
            try:
                if (self.folder / blob.path).lstat().st_size == blob.size:
                    continue
            except OSError:
                pass
            out.append(blob)
        return out

    def document(self, digest: Digest) -> bytes:
        """A manifest, index or config."""
        documents = self.catalog().documents
        if digest not in documents:
            raise MissingPart(f"{self.folder}: document {digest} is not in this bundle")
        return documents[digest]

    def users_of(self, frame: int) -> list[str]:
        """The images a frame is needed for."""
        pairs = zip(self.images, self.header.needs, strict=True)
        return [image.label for image, needs in pairs if frame in needs]

    def decode(self, frame: int, wanted: Callable[[int], bool]) -> dict[int, bytes]:
        """The frame's wanted chunks by number, each checked. Damaged names pack, frame and images."""
        catalog = self.catalog()
        entry = catalog.frames[frame]
        blob = self.header.packs[entry.pack]
        where = f"{self.folder / blob.path}, frame {frame} at byte {entry.offset}"
        try:
            fd = self._open_pack(entry.pack)
            placed = read_frame_header(fd, entry.offset, where)
            stated = (entry.packed_size, entry.raw_size, entry.sizes)
            if (placed.header.packed_size, placed.header.raw_size, placed.header.sizes) != stated:
                raise Damaged(f"{where}: the frame is not the one the catalog means")
            chunks = decode_frame(placed.header, read_packed(fd, placed, where), where)
            first, out = catalog.first_of[frame], {}
            for index, data in enumerate(chunks):
                if wanted(first + index):
                    if chunk_id(data) != entry.names[index * 32 : index * 32 + 32]:
                        raise Damaged(f"{where}: a chunk is not what its name says")
                    out[first + index] = data
        except (Damaged, MissingPart) as error:
            raise self._blame(error, frame) from error
        return out

    def _blame(self, error: TransferError, frame: int) -> TransferError:
        users = self.users_of(frame)
        named = ", ".join(users[:5]) + (f" and {len(users) - 5} more" if len(users) > 5 else "")
        return type(error)(
            f"{error.message} (needed for {named})", hint=error.hint or "copy this pack from the bundle again"
        )

    def _open_pack(self, number: int) -> int:
        if number not in self._files:
            path = self.folder / self.header.packs[number].path
            try:
                with open_plain(path) as file:
                    pack_version(pread(file.fileno(), 16, 0, str(path)), str(path))
                    fd = os.dup(file.fileno())
            except NotFound as error:
                raise MissingPart(f"{path} is missing", hint="copy this pack from the bundle") from error
            other = self._files.setdefault(number, fd)
            if other != fd:
                os.close(fd)
        return self._files[number]

    def rebuild(self, digests: Iterable[Digest], *, pool: Pool, jobs: int, budget: int | None = None) -> Rebuilding:
        """Get ready to rebuild these blobs, in this order for preference."""
        return Rebuilding(self, list(dict.fromkeys(digests)), pool, jobs, budget)


class Rebuilding:
    """Blobs on their way out of a bundle, sharing one memory of decoded chunks."""

    def __init__(self, bundle: Bundle, digests: list[Digest], pool: Pool, jobs: int, budget: int | None) -> None:
        self._catalog = bundle.catalog()
        self._begin: dict[Digest, int] = {}
        plan: array[int] = array("I")
        for digest in digests:
            self._begin[digest] = len(plan)
            for part in self._catalog.recipe(digest).parts:
                plan.extend(self._catalog.numbers(part.skeleton + part.payload))
        catalog = self._catalog
        extra = {} if budget is None else {"budget": budget}
        self.recall = Recall(bundle.decode, catalog.frame_of, catalog.size_of, plan, pool=pool, jobs=jobs, **extra)
        self._plan = plan
        self.frames = len({catalog.frame_of[number] for number in plan})

    def open(self, digest: Digest) -> IterReader:
        """The blob as a stream; it is checked against its digest by whoever reads it."""
        recipe = self._catalog.recipe(digest)
        return IterReader(self._blocks(recipe, self._begin[digest]))

    def _blocks(self, recipe: Recipe, begin: int) -> Iterator[bytes]:
        position = begin
        held: list[bytes | memoryview] = []
        size = 0
        for part in recipe.parts:
            skeletons, payloads = len(part.skeleton) // 32, len(part.payload) // 32
            frame = _Skeleton(self, position, skeletons)
            scout = _Scout(self, position + skeletons, position + skeletons + payloads)
            for index in range(payloads):
                gap = part.gaps[index]
                if gap:
                    held.extend(frame.take(gap))
                data = scout.use(position + skeletons + index)
                held.append(data)
                size += gap + len(data)
                if size >= BLOCK:
                    yield b"".join(held)
                    held.clear()
                    size = 0
            for piece in frame.take(part.gaps[-1]):
                held.append(piece)
                size += len(piece)
                if size >= BLOCK:
                    yield b"".join(held)
                    held.clear()
                    size = 0
            position += skeletons + payloads
        if held:
            yield b"".join(held)

    def number_at(self, position: int) -> int:
        return self._plan[position]

    def size_at(self, position: int) -> int:
        return self._catalog.size_of[self._plan[position]]


class _Skeleton:
    """The skeleton chunks of one part, taken in order."""

    def __init__(self, owner: Rebuilding, position: int, count: int) -> None:
        self._owner, self._position, self._end = owner, position, position + count
        self._rest = memoryview(b"")

    def take(self, size: int) -> Iterator[memoryview]:
        while size > 0:
            if not self._rest:
                if self._position >= self._end:
                    raise FormatError("a recipe takes more skeleton than there is")
                number = self._owner.number_at(self._position)
                self._rest = memoryview(self._owner.recall.use(number, self._position))
                self._position += 1
            piece = self._rest[:size]
            self._rest = self._rest[len(piece) :]
            size -= len(piece)
            yield piece


class _Scout:
    """Uses payload chunks and has the frames ahead decoded in time."""

    def __init__(self, owner: Rebuilding, position: int, end: int) -> None:
        self._owner, self._seen, self._end = owner, position, end
        self._lead = 0

    def use(self, position: int) -> bytes:
        owner = self._owner
        while self._seen < self._end and self._lead < AHEAD:
            if not owner.recall.prepare(owner.number_at(self._seen)):
                break
            self._lead += owner.size_at(self._seen)
            self._seen += 1
        self._lead -= owner.size_at(position)
        if self._seen <= position:
            self._seen = position + 1
            self._lead = 0
        return owner.recall.use(owner.number_at(position), position)


def _read_index(folder: Path) -> bytes:
    if not folder.is_dir():
        raise NotFound(f"{folder}: no such bundle", hint="check the path")
    path = folder / "index.json"
    if not path.exists():
        if (folder / STATE).is_dir():
            raise MissingPart(
                f"{folder} is an unfinished export", hint="run the same export again, it goes on where it stopped"
            )
        raise NotFound(f"{folder} is not a bundle: it has no index.json", hint="check the path")
    parse_object(read_small(folder / "oci-layout", 4096), f"{folder}/oci-layout")
    return read_small(path)


def _catalog_records(path: Path, blob: head.Blob) -> Iterator[bytes]:
    """The records of one catalog file, after its sha256 was found right."""
    if blob.size > BLOB_MAX:
        raise FormatError(f"{path}: a catalog file of {blob.size} bytes is refused")
    try:
        data = read_small(path, blob.size)
    except NotFound as error:
        raise MissingPart(f"{path}: the catalog is missing", hint="copy this file from the bundle") from error
    except FormatError as error:
        raise Damaged(
            f"{path}: the catalog is damaged: {error.message}", hint="copy this file from the bundle again"
        ) from error
    if sha256(data) != blob.digest:
        raise Damaged(f"{path}: the catalog is damaged", hint="copy this file from the bundle again")
    with open_plain(path) as file:
        fd, at = file.fileno(), 16
        pack_version(data[:16], str(path))
        while at < len(data):
            placed = read_frame_header(fd, at, str(path))
            yield from decode_frame(placed.header, read_packed(fd, placed, str(path)), str(path))
            at = placed.end
