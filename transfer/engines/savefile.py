"""What `docker save` writes, read member by member: the old layout, the OCI layout, and both at once.

The outer tar is hostile until proven otherwise: names are keys, never paths; only plain files, folders and links are accepted, and
links are followed inside the archive alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Protocol

from transfer.engines.base import MAX_NODES, REMAKE, Found, Manifest, Offer, Tree, agrees, diff_ids, image_of, walk
from transfer.engines.ocilayout import Roots
from transfer.errors import Damaged, FormatError, NotFound, TransferError
from transfer.model import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor, Digest, Image, blob_path, is_label
from transfer.streams import BLOCK, MAX_DOCUMENT, Effort, Readable, SliceReader, parse_json, pread, sha256
from transfer.tarfmt import MAX_EXTENSION, RECORD, ZERO, padding, parse_header, parse_pax, pax_size

MAX_MEMBERS = 500_000
MAX_NAME = 4096
MAX_NAMES = 32 << 20
"""Bytes of all names in an archive together."""
NO_ARCHIVE = "docker-archive: is what `docker save` writes; what `docker export` writes is the files of a container, and no image"
_PLAIN, _HARDLINK, _SYMLINK, _FOLDER = b"\x00", b"1", b"2", b"5"


@dataclass(frozen=True, slots=True)
class Entry:
    """A member of the archive. `link` is the target's name inside the archive, "" for one that leads out of it, None for a plain file.

    `at`: where its data begin in the archive; sizes in bytes.
    """

    name: str
    size: int
    link: str | None = None
    at: int = 0


def members(source: Forward) -> Iterator[tuple[Entry, Readable]]:
    """The archive's files and links, each with its data, to be read before the next is asked for.

    A member may stand there again, as `tar -r` writes it: which of them counts is for whoever reads to say. FormatError for anything
    this program does not accept in an archive's outer tar.
    """
    where = source.where
    count, names = 0, 0
    name, link, size, extensions = "", "", None, 0
    while record := source.exactly(RECORD):
        if record == ZERO:
            return
        header = parse_header(record)
        if header is None:
            raise FormatError(f"{where}: not a tar archive, or damaged, at byte {source.at - RECORD}")
        if header.kind in b"LKxg":
            extensions += 1
            if header.size > MAX_EXTENSION or extensions > 4:
                raise FormatError(f"{where}: a tar extension header that is too large or one of too many")
            data = source.exactly(header.size + padding(header.size))[: header.size]
            if header.kind == ord("x"):
                name, link, size = _pax(data, where, source.at)
            elif header.kind == ord("L"):
                name = _text(data.rstrip(b"\0"), where)
            elif header.kind == ord("K"):
                link = _text(data.rstrip(b"\0"), where)
            continue
        length = header.size if size is None else size
        try:
            entry = _entry(
                header.kind, name or _text(header.name, where), link or _text(header.link, where), length, where
            )
        except FormatError as error:
            raise FormatError(error.message, hint=NO_ARCHIVE if count < 1000 else "") from error
        name, link, size, extensions = "", "", None, 0
        if entry is None:
            source.skip(length + padding(length))
            continue
        count += 1
        names += len(entry.name) + len(entry.link or "")
        if count > MAX_MEMBERS or names > MAX_NAMES:
            raise FormatError(f"{where}: it has too many members, or they have too long names")
        end = source.at + length
        yield replace(entry, at=source.at), Window(source, end)
        source.skip(end - source.at + padding(length))
    return


class Forward:
    """A stream with a position."""

    def __init__(self, stream: Readable, where: str) -> None:
        self._stream, self.where, self.at = stream, where, 0
        self._held = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        if not self._held:
            self._held = memoryview(self._stream.read(BLOCK))
        out = bytes(self._held[:size])
        self._held = self._held[len(out) :]
        self.at += len(out)
        return out

    def exactly(self, size: int) -> bytes:
        """`size` bytes; b"" at a clean end; Damaged in between."""
        parts, missing = [], size
        while missing and (data := self.read(missing)):
            parts.append(data)
            missing -= len(data)
        if missing and missing != size:
            raise Damaged(f"{self.where}: cut short at byte {self.at}", hint="it was not written or copied to its end")
        return b"".join(parts)

    def skip(self, size: int) -> None:
        while size:
            data = self.read(min(size, BLOCK))
            if not data:
                raise Damaged(
                    f"{self.where}: cut short at byte {self.at}", hint="it was not written or copied to its end"
                )
            size -= len(data)


class ForwardFile(Forward):
    """The same over a regular file: what is skipped is not read."""

    def __init__(self, fd: int, where: str) -> None:
        super().__init__(SliceReader(fd, 0, 0, where), where)
        self._fd, self._end = fd, os.fstat(fd).st_size

    def read(self, size: int, /) -> bytes:
        data = pread(self._fd, min(size, BLOCK), self.at, self.where)
        self.at += len(data)
        return data

    def skip(self, size: int) -> None:
        if self.at + size > self._end:
            raise Damaged(
                f"{self.where}: cut short at byte {self._end}", hint="it was not written or copied to its end"
            )
        self.at += size


class Window:
    """A Readable up to a position of a Forward; Damaged if the stream ends before."""

    def __init__(self, source: Forward, end: int) -> None:
        self._source, self._end = source, end

    def read(self, size: int, /) -> bytes:
        want = min(size, self._end - self._source.at)
        if want <= 0:
            return b""
        data = self._source.read(want)
        if not data:
            self._source.skip(1)
        return data


def _pax(data: bytes, where: str, at: int) -> tuple[str, str, int | None]:
    """The name, link and size that a PAX header sets for the next member; FormatError if it cannot be read."""
    try:
        records = parse_pax(data)
        size = pax_size(records)
    except FormatError as error:
        raise FormatError(f"{where}: {error.message} before byte {at}") from error
    return _text(records.get(b"path", b""), where), _text(records.get(b"linkpath", b""), where), size


def _text(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{where}: a member name that is not UTF-8: {raw!r:.80}") from error


def _entry(kind: int, name: str, link: str, size: int, where: str) -> Entry | None:
    flag = bytes([kind])
    if flag == _FOLDER:
        return None
    if flag not in (_PLAIN, b"0", b"7", _HARDLINK, _SYMLINK):
        raise FormatError(f"{where}: {name!r:.100} is neither file, folder nor link; refused")
    clean = inside(name, where)
    if flag in (_HARDLINK, _SYMLINK):
        base = posixpath.dirname(clean) if flag == _SYMLINK else ""
        target = ""
        with contextlib.suppress(
            FormatError
        ):  # one that leads out of the archive is no matter as long as nobody follows it
            target = inside(posixpath.join(base, link), where)
        return Entry(clean, 0, target)
    return Entry(clean, size)


def inside(name: str, where: str) -> str:
    """The name without ./ and resolved ..; FormatError for one that leaves the archive or is no plain name."""
    if not name or len(name) > MAX_NAME or "\0" in name or "\\" in name or name.startswith("/"):
        raise FormatError(f"{where}: a member name that is refused: {name!r:.100}")
    clean = posixpath.normpath(name)
    if clean in (".", "..") or clean.startswith("../"):
        raise FormatError(f"{where}: a member name that leaves the archive: {name!r:.100}")
    return clean


def follow(name: str, links: Mapping[str, str], where: str) -> str:
    """Where a name leads through links of the archive; FormatError after 8, and for one that leads out of it."""
    for _ in range(8):
        if name not in links:
            return name
        if not links[name]:
            raise FormatError(f"{where}: {name!r:.100} is a link that leads out of the archive; refused")
        name = links[name]
    raise FormatError(f"{where}: {name!r:.100} is a link to a link to a link; refused")


@dataclass(frozen=True, slots=True)
class Saved:
    """One image of a manifest.json: member names of config and layers, and tags."""

    config: str
    tags: tuple[str, ...]
    layers: tuple[str, ...]
    error: FormatError | None = None
    """Why the entry is none."""


def parse_saved(data: bytes, where: str) -> list[Saved]:
    """A manifest.json; FormatError if it is not what `docker save` writes. A tag that is none is left out; a malformed entry is its own fault."""
    value = parse_json(data, where)
    if value is None:
        return []  # as Go writes an empty list
    if not isinstance(value, list):
        raise FormatError(f"{where}: manifest.json is not a list")
    return [_saved_entry(each, number, where) for number, each in enumerate(value, 1)]


def _saved_entry(value: object, number: int, where: str) -> Saved:
    """One entry of a manifest.json; with an error, by what can be read of it."""
    tags = value.get("RepoTags") or [] if isinstance(value, dict) else []
    named = tuple(dict.fromkeys(tag for tag in tags if is_label(tag))) if isinstance(tags, list) else ()
    place = f"{where}: entry {number}" + (f" ({named[0]})" if named else "")
    try:
        if not isinstance(value, dict):
            raise FormatError(f"{place} is not an object")
        layers, config = value.get("Layers") or [], value.get("Config")
        if not isinstance(tags, list) or not isinstance(layers, list):
            raise FormatError(f"{place}: its tags or layers are not lists")
        if not all(isinstance(text, str) for text in [config, *tags, *layers]):
            raise FormatError(f"{place}: its config, tags or layers are no names")
        if len(layers) > MAX_NODES:
            raise FormatError(f"{place} has over {MAX_NODES} layers")
        return Saved(inside(str(config), place), named, tuple(inside(name, place) for name in layers))
    except FormatError as error:
        return Saved(f"entry {number}", named, (), error)


PACKED = {b"\x1f\x8b": "+gzip", b"\x28\xb5\x2f\xfd": "+zstd", b"\xfd7zXZ": "+xz", b"BZh": "+bzip2"}
"""How compressed files begin, and what a layer's media type says of them (image-spec has the first two)."""


def packed_as(head: bytes) -> str:
    """The suffix of a media type for a layer that begins like this; "" for one that is not compressed."""
    return next((suffix for magic, suffix in PACKED.items() if head.startswith(magic)), "")


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of a manifest.json: its own digest, size (bytes), and how it is compressed (`+gzip`; "" for plain)."""

    digest: Digest
    size: int
    packed: str = ""


def made_manifest(config: bytes, layers: Sequence[Layer], where: str) -> bytes:
    """An OCI manifest around an original config, byte for byte what Docker 25 and later save for the same image."""
    ids = diff_ids(config, where)
    if len(ids) != len(layers):
        raise FormatError(f"{where}: {len(layers)} layers where the config names {len(ids)}", hint=REMAKE)
    value = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": Descriptor(OCI_CONFIG, sha256(config), len(config)).as_json(),
        "layers": [Descriptor(OCI_LAYER + each.packed, each.digest, each.size).as_json() for each in layers],
    }
    return json.dumps(value, separators=(",", ":")).encode()


def made_image(found: Found, layers: Sequence[Layer], documents: dict[Digest, bytes], where: str) -> Image:
    """An image that has a config and layers alone: with a manifest made for it, which is added to `documents`."""
    data = made_manifest(documents[found.id], layers, where)
    root = Descriptor(OCI_MANIFEST, sha256(data), len(data))
    documents[root.digest] = data
    return image_of(found.names, root, walk(root, lambda each: documents.get(each.digest)))


class Members(Protocol):
    """An archive's members, as far as images need them. Names are followed through links; NotFound for one that is not there."""

    def small(self, name: str) -> bytes:
        """All of a document."""
        ...

    def layer(self, name: str) -> Layer:
        """Digest, size and compression of a layer; the digest of a plain one may be the one its name says."""
        ...


@dataclass(frozen=True, slots=True)
class SavedImage:
    """An image of an archive: its root, or why it cannot be had; the digest people may call it by; how many layers it is said to have."""

    names: tuple[str, ...]
    id: Digest
    root: Descriptor | None
    error: TransferError | None = None
    layers: int = 0


class SavedImages:
    """What images an archive holds: its manifest.json and its index.json held against each other and against the configs.

    Docker 25.0.0 wrote an index.json with layers missing, in another order, or without the images saved by ID (moby#47150, #47065, #47210,
    #51389). So where there is a manifest.json it says which images there are, and an entry of index.json counts for one of them
    only where both name the same config and the same layers; else a manifest is made. `made` are those; `paths` says where blobs are
    that are not under their digests.
    """

    def __init__(self, manifest: bytes | None, index: bytes | None, members: Members, where: str) -> None:
        self._members, self._where = members, where
        self.made: dict[Digest, bytes] = {}
        self.paths: dict[Digest, str] = {}
        self._documents: dict[Digest, bytes | None] = {}
        self._layers: dict[str, Layer] = {}
        self._effort = Effort(where)
        entries = Roots.parse(index, f"{where}: index.json") if index is not None else Roots([], where)
        self._entries = [(root, entries.names_of(root.digest), self._manifests(root)) for root in entries.unique()]
        self._by_config: dict[Digest, list[tuple[Descriptor, tuple[str, ...], Manifest]]] = {}
        for root, names, manifests in self._entries:
            for each in manifests:
                self._by_config.setdefault(each.config.digest, []).append((root, names, each))
        self.images: list[SavedImage] = []
        configs: set[Digest] = set()
        for saved in parse_saved(manifest, f"{where}: manifest.json") if manifest is not None else ():
            found, config = self._saved(saved)
            self.images.append(found)
            configs |= {config} if config else set()
        if manifest is None:
            self.images += [SavedImage(each.names, each.id, None, each.error) for each in entries.broken]
        taken = {each.root.digest for each in self.images if each.root}
        for root, names, manifests in self._entries:
            if root.digest not in taken and not any(each.config.digest in configs for each in manifests):
                layers = {layer.digest for each in manifests for layer in each.layers}
                self.images.append(SavedImage(names, root.digest, root, None, len(layers)))

    def document(self, descriptor: Descriptor) -> bytes | None:
        """A document of the archive by its digest, checked; None if it is not there."""
        if descriptor.digest in self.made:
            return self.made[descriptor.digest]
        if descriptor.digest not in self._documents:
            name = self.paths.get(descriptor.digest) or blob_path(descriptor.digest)
            try:
                data = self._members.small(name)
            except NotFound:
                self._documents[descriptor.digest] = None
            else:
                if hashlib.new(descriptor.digest.algorithm, data).hexdigest() != descriptor.digest.hex:
                    raise Damaged(f"{self._where}: {name} is not what its name says")
                self._documents[descriptor.digest] = data
        return self._documents[descriptor.digest]

    def _manifests(self, root: Descriptor) -> list[Manifest]:
        """The manifests an entry of index.json leads to; none where it cannot be followed: whoever asks for it is told why."""
        with contextlib.suppress(TransferError):
            return walk(root, lambda each: self._effort.spent(self.document(each))).manifests
        return []

    def _saved(self, saved: Saved) -> tuple[SavedImage, Digest | None]:
        """An image of manifest.json, and its config's digest."""
        config: Digest | None = None
        try:
            if saved.error:
                raise saved.error
            self._effort.spend(0)
            data = self._members.small(saved.config)
            self._effort.spend(len(data))
            config = sha256(data)
            self.paths.setdefault(config, saved.config)
            layers = [self._layer(name) for name in saved.layers]
            layers, sound = self._held_against(layers, data)
            for layer, name in zip(layers, saved.layers, strict=True):
                self.paths.setdefault(layer.digest, name)
            root, names = self._entry(config, layers, sound)
            if root is None:
                data = made_manifest(data, layers, self._where)
                root = Descriptor(OCI_MANIFEST, sha256(data), len(data))
                self.made[root.digest] = data
            return SavedImage(tuple(dict.fromkeys((*saved.tags, *names))), root.digest, root, None, len(layers)), config
        except TransferError as error:
            error.__traceback__ = error.__context__ = None  # they hold the config, and there may be many
            unknown = config or sha256(saved.config.encode())
            return SavedImage(saved.tags, unknown, None, error, len(saved.layers)), config

    def _layer(self, name: str) -> Layer:
        """A layer, looked at once however often it is named."""
        if name not in self._layers:
            self._layers[name] = self._members.layer(name)
        return self._layers[name]

    def _held_against(self, layers: list[Layer], config: bytes) -> tuple[list[Layer], bool]:
        """The layers, a plain one under its diffID; and whether they are those the config names."""
        ids = diff_ids(config, self._where)
        if len(ids) != len(layers):
            return layers, False
        pairs = list(zip(layers, ids, strict=True))
        sound = all(each.packed or each.digest in (NOT_READ, diff_id) for each, diff_id in pairs)
        return [replace(each, digest=diff_id) if each.digest == NOT_READ else each for each, diff_id in pairs], sound

    def _entry(self, config: Digest, layers: list[Layer], sound: bool) -> tuple[Descriptor | None, tuple[str, ...]]:
        """The entry of index.json that is this image; None if a manifest has to be made. FormatError if both are wrong."""
        right: list[tuple[Descriptor, tuple[str, ...]]] = []
        for root, names, each in self._by_config.get(config, ()):
            self._effort.spend(256 * len(layers))
            if self._is_right(each, layers, sound):
                right.append((root, names))
        if not right and not sound:
            raise FormatError(f"{self._where}: the layers are not those that config {config} names", hint=REMAKE)
        return right[0] if right else (None, ())

    def _is_right(self, manifest: Manifest, layers: list[Layer], sound: bool) -> bool:
        """Whether a manifest names the layers that manifest.json names; where those are wrong, whether it agrees with its config."""
        if sound:
            return [each.digest for each in manifest.layers] == [each.digest for each in layers]
        plain = {each.digest for each in layers if not each.packed}
        data = self.document(manifest.config)
        try:
            agrees(manifest, data or b"", plain.__contains__)
        except FormatError:
            return False
        return bool(data and manifest.layers and diff_ids(data, self._where))


NOT_READ = Digest("sha256:" + "0" * 64)
"""The digest of a plain layer that nobody has read yet, and whose name does not say it: it is the diffID."""


def named_digest(name: str) -> Digest | None:
    """The digest that a member's name says, for one in `blobs/`."""
    found = re.fullmatch(r"blobs/(sha256/[0-9a-f]{64}|sha512/[0-9a-f]{128})", name)
    return Digest(found[1].replace("/", ":")) if found else None


KEPT_MAX = 64 << 20
"""Documents of one archive that are kept in memory, together (bytes)."""


@dataclass
class SaveStream:
    """One pass over what a daemon saves. Blobs are handed out as they come; what they belong to is known at the end."""

    where: str
    documents: dict[Digest, bytes] = field(default_factory=dict)
    digest_of: dict[str, Digest] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    heads: dict[str, bytes] = field(default_factory=dict)
    manifest: bytes | None = None
    index: bytes | None = None
    kept: int = 0
    _sizes: Mapping[Digest, int] = field(default_factory=dict)
    _held: SavedImages | None = None

    def read(self, stream: Readable, known: Mapping[str, Digest] = MappingProxyType({})) -> Iterator[Offer]:
        """Layers as offers of unknown digest, documents as offers of known digest. Layers whose member is `known` are passed over."""
        for entry, data in members(Forward(stream, self.where)):
            if entry.link is not None:
                self.links[entry.name] = entry.link
            elif entry.name in ("manifest.json", "index.json"):
                whole = whole_member(entry, data, self.where)
                self.manifest, self.index = (
                    (whole, self.index) if entry.name == "manifest.json" else (self.manifest, whole)
                )
            elif entry.name in known:
                self.digest_of[entry.name] = known[entry.name]
                self.heads[entry.name] = data.read(6) if entry.size else b""
            elif entry.name.startswith("blobs/") or entry.name.endswith((".json", ".tar")):
                yield from self._blob(entry, data)

    def _blob(self, entry: Entry, data: Readable) -> Iterator[Offer]:
        head = data.read(6) if entry.size else b""
        small = entry.size <= min(MAX_DOCUMENT, KEPT_MAX - self.kept)
        if head.lstrip()[:1] == b"{" and small and not entry.name.endswith(".tar"):
            self.kept += entry.size
            whole = head + whole_member(entry, data, self.where)
            digest = sha256(whole)
            self.documents[digest] = whole
            self.digest_of[entry.name] = digest
            yield Offer(True, partial(io.BytesIO, whole), digest, len(whole))
        else:
            self.heads[entry.name] = head
            learned = partial(self.digest_of.__setitem__, entry.name)
            yield Offer(False, lambda: Rejoined(head, data), None, entry.size, learned)

    def images(
        self, found: Sequence[Found], documents: dict[Digest, bytes], sizes: Mapping[Digest, int]
    ) -> list[Image]:
        """The images asked for. Makes manifests where the archive has none, and adds them to `documents`."""
        self._sizes = sizes
        if self._held is None:
            self._held = SavedImages(self.manifest, self.index, self, self.where)
        return [self._image(each, self._held, documents) for each in found]

    def _image(self, found: Found, held: SavedImages, documents: dict[Digest, bytes]) -> Image:
        for each in held.images:
            if each.root is None:
                if each.error and found.id == each.id:
                    raise each.error
                continue
            tree = self._tree(each.root, held, found)
            if tree and (each.root.digest == found.id or any(c.digest == found.id for c in tree.configs)):
                documents |= held.made
                wrong = [d for d in tree.layers if self._sizes.get(d.digest) != d.size]
                if wrong:
                    raise NotFound(
                        f"{', '.join(found.names) or found.id}: the engine did not give layer {wrong[0].digest} whole"
                    )
                return image_of(found.names, each.root, tree)
        raise NotFound(
            f"{', '.join(found.names) or found.id}: the engine did not give this image",
            hint="it may have been removed or retagged meanwhile; run again",
        )

    def _tree(self, root: Descriptor, held: SavedImages, found: Found) -> Tree | None:
        """What it reaches; None if it is not here, or has nothing for the platform that is wanted."""
        with contextlib.suppress(NotFound):
            return walk(root, held.document, found.platform)
        return None

    # as Members

    def _digest(self, name: str) -> Digest:
        found = self.digest_of.get(follow(name, self.links, self.where))
        if found is None:
            raise NotFound(f"{self.where}: {name!r:.100} is not in the archive")
        return found

    def small(self, name: str) -> bytes:
        digest = self._digest(name)
        if digest not in self.documents:
            raise NotFound(f"{self.where}: {name!r:.100} is no document")
        return self.documents[digest]

    def layer(self, name: str) -> Layer:
        digest = self._digest(name)
        head = self.heads.get(follow(name, self.links, self.where), b"")
        size = self._sizes.get(digest, len(self.documents.get(digest, b"")))
        return Layer(digest, size, packed_as(head))


def whole_member(entry: Entry, data: Readable, where: str) -> bytes:
    """What is left of a small member. FormatError for one that is too large."""
    if entry.size > MAX_DOCUMENT:
        raise FormatError(f"{where}: {entry.name!r:.100} has {entry.size} bytes (limit {MAX_DOCUMENT})")
    out = bytearray()
    while part := data.read(BLOCK):
        out += part
    return bytes(out)


class Rejoined:
    """A Readable whose first bytes were taken already."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._head, self._rest = head, rest

    def read(self, size: int, /) -> bytes:
        if self._head:
            out, self._head = self._head, b""
            return out
        return self._rest.read(size)
