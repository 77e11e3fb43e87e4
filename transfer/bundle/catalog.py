"""The catalog: documents, recipes and where every chunk is. Records in zstd frames (FORMAT.md, "Catalog")."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from transfer.chunks.deflate import RATIO_MAX
from transfer.chunks.name import CHUNK_MAX, ID_SIZE, split_names
from transfer.chunks.pack import FrameLocation
from transfer.chunks.varint import get_varints, put_varints
from transfer.errors import Damaged, FormatError, MissingPart, Unsupported
from transfer.model import Digest, Folds, Part, Recipe
from transfer.streams import MAX_DOCUMENT

DOCUMENT, RECIPE, FRAME = b"D", b"R", b"F"
PLAIN, OPAQUE, TOGETHER, FOLDED = 0, 1, 2, 3
AS_FILES = (PLAIN, FOLDED)
"""Encodings of blobs whose parts are skeleton and files."""
CATALOG_FRAME_RAW = 32 << 20
"""A catalog frame takes no further record that would make it larger than this (bytes)."""
RECORD_MAX = 32 << 20
_PER_RECORD, _PER_CHUNK = 512, 200
"""What a record, and a chunk of a frame, cost in memory beside their own bytes (CPython, measured)."""


@dataclass(frozen=True, slots=True)
class FrameEntry:
    """Where a frame is and what is in it: `names` and `prefix` are 32-byte chunk names end to end."""

    pack: int
    offset: int
    header_size: int
    packed_size: int
    raw_size: int
    kind: int
    codec: int
    sizes: tuple[int, ...]
    names: bytes
    prefix: bytes = b""


def document_record(digest: Digest, data: bytes) -> bytes:
    """A manifest, index or config as it is."""
    return DOCUMENT + _digest(digest) + data


def recipe_records(recipe: Recipe) -> Iterator[bytes]:
    """One record for each part."""
    parts: Sequence[Part] = recipe.parts or (Part(b"", b"", (0,)),)
    for number, part in enumerate(parts):
        counts = (len(part.skeleton) // ID_SIZE, len(part.payload) // ID_SIZE)
        head = put_varints((recipe.size, recipe.encoding, number, len(parts), *counts))
        more = _digest(recipe.plain) if recipe.plain else b""
        if recipe.folds:
            names, leads = (b"", ()) if number else (recipe.folds.names, recipe.folds.leads)
            more += put_varints((recipe.folds.size, len(leads))) + names + put_varints(leads)
        yield RECIPE + _digest(recipe.digest) + head + part.skeleton + part.payload + put_varints(part.gaps) + more


def chunk_names(recipe: Recipe) -> Iterator[bytes]:
    """Every chunk a recipe names: those that say how it is folded, then part by part, skeleton first."""
    if recipe.folds:
        yield from split_names(recipe.folds.names)
    for part in recipe.parts:
        yield from split_names(part.skeleton)
        yield from split_names(part.payload)


def with_plain(digests: Iterable[Digest], recipe_of: Callable[[Digest], Recipe]) -> Iterator[Recipe]:
    """Each blob's recipe, and behind it that of the plain blob it is put together from."""
    for digest in digests:
        recipe = recipe_of(digest)
        yield recipe
        if recipe.plain:
            yield recipe_of(recipe.plain)


def frame_record(pack: int, placed: FrameLocation, names: bytes) -> bytes:
    """Where a frame is, and its chunks."""
    header = placed.header
    numbers = (
        pack,
        placed.offset,
        header.header_size,
        header.packed_size,
        header.raw_size,
        header.kind,
        header.codec,
        len(header.sizes),
        len(header.prefix),
    )
    return FRAME + put_varints(numbers) + names + b"".join(header.prefix) + put_varints(header.sizes)


def _digest(digest: Digest) -> bytes:
    text = digest.text.encode()
    return bytes([len(text)]) + text


def _take_digest(record: bytes, where: str, at: int = 1) -> tuple[Digest, int]:
    length = record[at] if len(record) > at else 0
    end = at + 1 + length
    try:
        text = record[at + 1 : end].decode("ascii")
    except UnicodeDecodeError:
        text = ""
    return Digest.parse(text, where), end


@dataclass
class Catalog:
    """A catalog in memory. Chunks get numbers in frame order; `find` maps a name to its number. `lacking`: recipes name others too."""

    documents: dict[Digest, bytes] = field(default_factory=dict)
    recipes: dict[Digest, Recipe] = field(default_factory=dict)
    frames: list[FrameEntry] = field(default_factory=list)
    frame_of: array[int] = field(default_factory=lambda: array("I"))
    size_of: array[int] = field(default_factory=lambda: array("I"))
    first_of: array[int] = field(default_factory=lambda: array("I"))
    numbers_of: dict[bytes, int] = field(default_factory=dict)
    lacking: bool = False

    def find(self, name: bytes) -> int:
        """The chunk's number; MissingPart if this bundle does not carry it."""
        number = self.numbers_of.get(name)
        if number is None:
            raise MissingPart(
                f"chunk {name.hex()[:12]} is not in this bundle", hint="import the bundle it depends on first"
            )
        return number

    def has(self, name: bytes) -> bool:
        return name in self.numbers_of

    @property
    def chunks(self) -> int:
        return len(self.frame_of)

    def name_of(self, number: int) -> bytes:
        frame = self.frame_of[number]
        at = (number - self.first_of[frame]) * ID_SIZE
        return self.frames[frame].names[at : at + ID_SIZE]

    def numbers(self, names: bytes) -> array[int]:
        """Chunk numbers of names given end to end."""
        find = self.numbers_of
        try:
            return array("I", [find[names[at : at + ID_SIZE]] for at in range(0, len(names), ID_SIZE)])
        except KeyError as error:
            self.find(error.args[0])
            raise

    def frames_for(self, digests: Iterable[Digest], *, carried: bool = False) -> set[int]:
        """The frames that rebuilding these blobs needs, and those they are patched against; with `carried`, chunks that are not here are passed over."""
        names: Iterable[bytes] = (name for recipe in self.all_of(digests) for name in chunk_names(recipe))
        out: set[int] = set()
        while True:
            new = {self.frame_of[self.find(name)] for name in names if not carried or name in self.numbers_of} - out
            if not new:
                return out
            out |= new
            names = [name for frame in new for name in split_names(self.frames[frame].prefix)]

    def recipe(self, digest: Digest) -> Recipe:
        """MissingPart if the bundle has none for this blob."""
        if digest not in self.recipes:
            raise MissingPart(f"{digest} is not in this bundle", hint="it is incomplete: export the image again")
        return self.recipes[digest]

    def all_of(self, digests: Iterable[Digest]) -> Iterator[Recipe]:
        """The recipes of these blobs, and of the plain blobs that some are put together from."""
        return with_plain(digests, self.recipe)

    def add_frame(self, entry: FrameEntry) -> None:
        first, frame = len(self.frame_of), len(self.frames)
        self.first_of.append(first)
        self.frames.append(entry)
        self.frame_of.extend([frame] * len(entry.sizes))
        self.size_of.extend(entry.sizes)
        names = entry.names
        for index in range(len(entry.sizes)):
            self.numbers_of.setdefault(names[index * ID_SIZE : (index + 1) * ID_SIZE], first + index)


class CatalogReader:
    """Takes records one by one; `finish` checks that they make sense together."""

    def __init__(self, where: str, room: int = 1 << 40) -> None:
        """`room`: about so much memory (bytes) may all that is taken cost."""
        self._where, self._room = where, room
        self._catalog = Catalog()
        self._parts: dict[Digest, list[Part]] = {}
        self._heads: dict[Digest, tuple[int, int, int, Digest | None, int]] = {}
        self._folds: dict[Digest, Folds] = {}

    def add(self, record: bytes) -> None:
        """FormatError for an unknown or malformed record, one beyond the limits, or one too many; Damaged for a document that is another."""
        kind = record[:1]
        self._room -= len(record) + _PER_RECORD
        if self._room < 0 or len(record) > RECORD_MAX:
            raise FormatError(f"{self._where}: it has more or larger records than a catalog of its size may have")
        if kind == DOCUMENT:
            self._add_document(record)
        elif kind == RECIPE:
            self._add_recipe(record)
        elif kind == FRAME:
            self._add_frame(record)
        else:
            raise FormatError(f"{self._where}: unknown record {kind!r}")

    def _add_document(self, record: bytes) -> None:
        digest, at = _take_digest(record, self._where)
        data = record[at:]
        if len(data) > MAX_DOCUMENT:
            raise FormatError(f"{self._where}: a document of {len(data)} bytes is refused (limit {MAX_DOCUMENT})")
        if hashlib.new(digest.algorithm, data).hexdigest() != digest.hex:
            raise Damaged(f"{self._where}: the document {digest} does not match its digest")
        self._catalog.documents[digest] = data

    def _add_recipe(self, record: bytes) -> None:
        digest, at = _take_digest(record, self._where)
        numbers, at = get_varints(record, at, 6, self._where)
        size, encoding, number, count, skeletons, payloads = numbers
        middle = at + skeletons * ID_SIZE
        end = middle + payloads * ID_SIZE
        if end > len(record):
            raise FormatError(f"{self._where}: a recipe is cut short")
        gaps, rest = get_varints(record, end, payloads + 1, self._where)
        plain, unfolded = None, 0
        if encoding == TOGETHER:
            plain, rest = _take_digest(record, self._where, rest)
        elif encoding == FOLDED:
            folds, rest = self._take_folds(record, rest)
            unfolded = folds.size
            if self._folds.setdefault(digest, folds) is not folds and folds.names:
                raise FormatError(f"{self._where}: a recipe contradicts itself")
        elif encoding not in (PLAIN, OPAQUE):
            raise Unsupported(
                f"{self._where}: {digest} has encoding {encoding}, which this version does not know",
                hint="use a newer version of transfer",
            )
        parts = self._parts.setdefault(digest, [])
        head = (size, encoding, count, plain, unfolded)
        same = self._heads.setdefault(digest, head) == head
        if rest != len(record) or number != len(parts) or not same or number >= count:
            raise FormatError(f"{self._where}: a recipe contradicts itself")
        parts.append(Part(record[at:middle], record[middle:end], array("Q", gaps)))

    def _take_folds(self, record: bytes, at: int) -> tuple[Folds, int]:
        (size, count), at = get_varints(record, at, 2, self._where)
        end = at + count * ID_SIZE
        if end > len(record):
            raise FormatError(f"{self._where}: a recipe is cut short")
        leads, rest = get_varints(record, end, count, self._where)
        return Folds(size, record[at:end], tuple(leads)), rest

    def _add_frame(self, record: bytes) -> None:
        numbers, at = get_varints(record, 1, 9, self._where)
        pack, offset, header_size, packed, raw, kind, codec, chunks, prefixes = numbers
        middle = at + chunks * ID_SIZE
        end = middle + prefixes * ID_SIZE
        if end > len(record):
            raise FormatError(f"{self._where}: a frame's entry is cut short")
        self._room -= chunks * _PER_CHUNK
        if self._room < 0:
            raise FormatError(f"{self._where}: it has more chunks than a catalog of its size may have")
        sizes, rest = get_varints(record, end, chunks, self._where)
        limits = max(sizes, default=0) <= CHUNK_MAX and packed < 1 << 32 and header_size < 1 << 32
        if rest != len(record) or sum(sizes) != raw or not limits or (chunks and not min(sizes)):
            raise FormatError(f"{self._where}: a frame's entry contradicts itself")
        self._catalog.add_frame(
            FrameEntry(
                pack,
                offset,
                header_size,
                packed,
                raw,
                kind,
                codec,
                tuple(sizes),
                record[at:middle],
                record[middle:end],
            )
        )

    def finish(self) -> Catalog:
        for digest, parts in self._parts.items():
            size, encoding, count, plain, _ = self._heads[digest]
            if len(parts) != count:
                raise FormatError(f"{self._where}: the recipe of {digest} is not complete")
            recipe = Recipe(digest, size, encoding, tuple(parts), plain, self._folds.get(digest))
            self._check(recipe)
            self._catalog.recipes[digest] = recipe
        for recipe in self._catalog.recipes.values():
            if recipe.plain:
                self._check_plain(recipe, self._catalog.recipes.get(recipe.plain))
        return self._catalog

    def _check_plain(self, recipe: Recipe, plain: Recipe | None) -> None:
        """A blob is put together from one that is plain, and not of more bytes than it can hold."""
        if plain is None or plain.encoding not in AS_FILES or plain.size > RATIO_MAX * recipe.size:
            raise FormatError(
                f"{self._where}: {recipe.digest} is put together from a blob that cannot be what it holds"
            )

    def _check(self, recipe: Recipe) -> None:
        """The pieces must add up to the blob's size: so no blob can be larger than it says. Absent chunks count as nothing."""
        total, absent = 0, 0
        for part in recipe.parts:
            skeleton, gone = self._sum(part.skeleton)
            if skeleton > sum(part.gaps) or (not gone and skeleton != sum(part.gaps)):
                raise FormatError(f"{self._where}: the recipe of {recipe.digest} does not add up")
            payload, lacking = self._sum(part.payload)
            total += sum(part.gaps) + payload
            absent += lacking
            self._catalog.lacking |= bool(lacking or gone)
        # the parts of a blob that is put together are records, of which there are no more bytes than of the blob
        size = recipe.folds.size if recipe.folds else recipe.size
        whole = recipe.encoding != TOGETHER
        if total > size or (whole and not absent and total != size):
            raise FormatError(f"{self._where}: the recipe of {recipe.digest} makes {total} bytes where it says {size}")
        if recipe.folds:
            self._check_folds(recipe, recipe.folds)

    def _check_folds(self, recipe: Recipe, folds: Folds) -> None:
        """A blob has no more unfolded bytes than it can hold, and is folded by no more bytes than it has."""
        size, lacking = self._sum(folds.names)
        self._catalog.lacking |= bool(lacking)
        if not folds.names or folds.size > RATIO_MAX * recipe.size or size > recipe.size:
            raise FormatError(f"{self._where}: {recipe.digest} is folded out of more than it can hold")

    def _sum(self, names: bytes) -> tuple[int, int]:
        """The size of all these chunks that are carried, and how many are not."""
        numbers, sizes = self._catalog.numbers_of, self._catalog.size_of
        found = [numbers.get(names[at : at + ID_SIZE], -1) for at in range(0, len(names), ID_SIZE)]
        return sum(sizes[number] for number in found if number >= 0), found.count(-1)
