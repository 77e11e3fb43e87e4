"""What `docker save` writes, read member by member: the old layout, the OCI layout, and both at once.

The outer tar is hostile until proven otherwise: names are keys, never paths; only plain files, folders and links inside the
archive are accepted; nothing may stand there twice.
"""

from __future__ import annotations

import io
import json
import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType

from transfer.engines.base import Found, Offer, Tree, diff_ids, image_of, walk
from transfer.engines.ocilayout import Roots
from transfer.errors import Damaged, FormatError, NotFound
from transfer.model import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor, Digest, Image, is_name
from transfer.streams import BLOCK, MAX_DOCUMENT, Readable, SliceReader, parse_json, pread, sha256
from transfer.tarfmt import MAX_EXTENSION, RECORD, ZERO, padding, parse_header, parse_pax, pax_size

MAX_MEMBERS = 500_000
MAX_NAME = 4096
_PLAIN, _HARDLINK, _SYMLINK, _FOLDER = b"\x00", b"1", b"2", b"5"


@dataclass(frozen=True, slots=True)
class Entry:
    """A member of the archive. `link` is the target's name inside the archive, "" for a plain file; sizes in bytes."""

    name: str
    size: int
    link: str = ""


def members(source: Forward) -> Iterator[tuple[Entry, Readable]]:
    """The archive's files and links, each with its data, to be read before the next is asked for.

    FormatError for anything this program does not accept in an archive's outer tar.
    """
    where = source.where
    seen: set[str] = set()
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
        entry = _entry(header.kind, name or _text(header.name, where), link or _text(header.link, where), length, where)
        name, link, size, extensions = "", "", None, 0
        if entry is None:
            source.skip(length + padding(length))
            continue
        if entry.name in seen or len(seen) >= MAX_MEMBERS:
            raise FormatError(f"{where}: {entry.name!r:.100} stands twice in the archive, or it has too many members")
        seen.add(entry.name)
        end = source.at + length
        yield entry, Window(source, end)
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
        return Entry(clean, 0, inside(posixpath.join(base, link), where))
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
    """Where a name leads through links of the archive; FormatError after 8."""
    for _ in range(8):
        if name not in links:
            return name
        name = links[name]
    raise FormatError(f"{where}: {name!r:.100} is a link to a link to a link; refused")


@dataclass(frozen=True, slots=True)
class Saved:
    """One image of a manifest.json: member names of config and layers, and tags."""

    config: str
    tags: tuple[str, ...]
    layers: tuple[str, ...]


def parse_saved(data: bytes, where: str) -> list[Saved]:
    """A manifest.json; FormatError if it is not what `docker save` writes."""
    value = parse_json(data, where)
    if not isinstance(value, list):
        raise FormatError(f"{where}: manifest.json is not a list")
    out = []
    for each in value:
        if not isinstance(each, dict):
            raise FormatError(f"{where}: an entry of manifest.json is not an object")
        tags, layers, config = each.get("RepoTags") or [], each.get("Layers") or [], each.get("Config")
        strings = (
            isinstance(tags, list)
            and isinstance(layers, list)
            and all(isinstance(s, str) for s in [config, *tags, *layers])
        )
        if not strings or not all(is_name(tag) for tag in tags):
            raise FormatError(f"{where}: a malformed entry in manifest.json")
        out.append(Saved(inside(str(config), where), tuple(tags), tuple(inside(name, where) for name in layers)))
    return out


def made_manifest(config: bytes, layers: Sequence[tuple[Digest, int]], where: str) -> bytes:
    """An OCI manifest around an original config, byte for byte what Docker 25 and later save for the same image."""
    ids = diff_ids(config, where)
    if len(ids) != len(layers):
        raise FormatError(f"{where}: {len(layers)} layers where the config names {len(ids)}")

    def entry(digest: Digest, size: int, diff_id: Digest) -> dict[str, object]:
        return Descriptor(OCI_LAYER if digest == diff_id else OCI_LAYER + "+gzip", digest, size).as_json()

    value = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": Descriptor(OCI_CONFIG, sha256(config), len(config)).as_json(),
        "layers": [entry(digest, size, each) for (digest, size), each in zip(layers, ids, strict=True)],
    }
    return json.dumps(value, separators=(",", ":")).encode()


def made_image(found: Found, layers: Sequence[tuple[Digest, int]], documents: dict[Digest, bytes], where: str) -> Image:
    """An image that has a config and layers alone: with a manifest made for it, which is added to `documents`."""
    data = made_manifest(documents[found.id], layers, where)
    root = Descriptor(OCI_MANIFEST, sha256(data), len(data))
    documents[root.digest] = data
    return image_of(found.names, root, walk(root, lambda each: documents.get(each.digest)))


@dataclass
class SaveStream:
    """One pass over a saved archive. Blobs are handed out as they come; what they belong to is known at the end."""

    where: str
    documents: dict[Digest, bytes] = field(default_factory=dict)
    digest_of: dict[str, Digest] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    manifest: bytes | None = None
    index: bytes | None = None

    def read(self, stream: Readable, known: Mapping[str, Digest] = MappingProxyType({})) -> Iterator[Offer]:
        """Layers as offers of unknown digest, documents as offers of known digest. Layers whose member is `known` are passed over."""
        for entry, data in members(Forward(stream, self.where)):
            if entry.link:
                self.links[entry.name] = entry.link
            elif entry.name in ("manifest.json", "index.json"):
                whole = self._small(entry, data)
                self.manifest, self.index = (
                    (whole, self.index) if entry.name == "manifest.json" else (self.manifest, whole)
                )
            elif entry.name in known:
                self.digest_of[entry.name] = known[entry.name]
            elif entry.name.startswith("blobs/") or entry.name.endswith((".json", ".tar")):
                yield from self._blob(entry, data)

    def _small(self, entry: Entry, data: Readable) -> bytes:
        if entry.size > MAX_DOCUMENT:
            raise FormatError(f"{self.where}: {entry.name} has {entry.size} bytes (limit {MAX_DOCUMENT})")
        out = bytearray()
        while part := data.read(BLOCK):
            out += part
        return bytes(out)

    def _blob(self, entry: Entry, data: Readable) -> Iterator[Offer]:
        head = data.read(1) if entry.size else b""
        if head == b"{" and entry.size <= MAX_DOCUMENT and not entry.name.endswith(".tar"):
            whole = head + self._small(entry, data)
            digest = sha256(whole)
            self.documents[digest] = whole
            self.digest_of[entry.name] = digest
            yield Offer(True, partial(io.BytesIO, whole), digest, len(whole))
        else:
            learned = partial(self.digest_of.__setitem__, entry.name)
            yield Offer(False, lambda: Rejoined(head, data), None, entry.size, learned)

    def images(
        self, found: Sequence[Found], documents: dict[Digest, bytes], sizes: Mapping[Digest, int]
    ) -> list[Image]:
        """The images asked for. Makes manifests where the archive has none, and adds them to `documents`."""
        made = [self._image(each, documents, sizes) for each in found]
        for path, digest in self.digest_of.items():
            if path.startswith("blobs/sha256/") and len(path) == 77 and path[13:] != digest.hex and self.index:
                raise Damaged(f"{self.where}: {path} is not what its name says")
        return made

    def _image(self, found: Found, documents: dict[Digest, bytes], sizes: Mapping[Digest, int]) -> Image:
        if self.index:
            for entry in Roots.parse(self.index, f"{self.where}: index.json").entries:
                tree = self._tree(entry, documents, found)
                if tree and (entry.digest == found.id or any(c.digest == found.id for c in tree.configs)):
                    missing = [d.digest for d in tree.layers if d.digest not in sizes]
                    if missing:
                        raise NotFound(f"{found.names or found.id}: the engine did not give layer {missing[0]}")
                    return image_of(found.names, entry, tree)
        for saved in parse_saved(self.manifest or b"[]", f"{self.where}: manifest.json"):
            config = self.digest_of.get(follow(saved.config, self.links, self.where))
            if config == found.id and config in documents:
                return self._old_image(found, saved, documents, sizes)
        raise NotFound(
            f"{', '.join(found.names) or found.id}: the engine did not give this image",
            hint="it may have been removed or retagged meanwhile; run again",
        )

    def _tree(self, root: Descriptor, documents: Mapping[Digest, bytes], found: Found) -> Tree | None:
        if root.digest not in documents:
            return None
        return walk(root, lambda each: documents.get(each.digest), found.platform)

    def _old_image(
        self, found: Found, saved: Saved, documents: dict[Digest, bytes], sizes: Mapping[Digest, int]
    ) -> Image:
        digests = []
        for name in saved.layers:
            digest = self.digest_of.get(follow(name, self.links, self.where))
            if digest is None or digest not in sizes:
                raise FormatError(f"{self.where}: {name!r:.100}, a layer of {saved.tags or found.id}, is not there")
            digests.append((digest, sizes[digest]))
        return made_image(found, digests, documents, self.where)


class Rejoined:
    """A Readable whose first bytes were taken already."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._head, self._rest = head, rest

    def read(self, size: int, /) -> bytes:
        if self._head:
            out, self._head = self._head, b""
            return out
        return self._rest.read(size)
