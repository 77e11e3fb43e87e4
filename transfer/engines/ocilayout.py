"""OCI image layouts: folders with oci-layout, index.json and blobs/ (image-spec, image-layout.md). Source and sink."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from transfer.engines.base import (
    Content,
    Found,
    Landed,
    Listed,
    Offer,
    SinkTraits,
    SourceTraits,
    Status,
    Tree,
    image_of,
    no_matter,
    offers,
    walk,
)
from transfer.errors import Damaged, FormatError, NotFound, TransferError, UsageError, from_os_error
from transfer.folders import real_folders
from transfer.model import OCI_INDEX, Descriptor, Digest, Image, Platform, Reference, is_label, is_name
from transfer.streams import (
    Effort,
    Readable,
    SliceReader,
    canonical_json,
    open_plain,
    parse_object,
    publish,
    publishing,
    read_document,
    read_small,
    sha256,
    sweep,
    verified,
)

REF_NAME = "org.opencontainers.image.ref.name"
_DIGEST = re.compile(r"sha(256|512):[0-9a-f]+", re.ASCII)
"""What reads as a digest is no name: it would mean two images."""
FULL_NAME = "io.containerd.image.name"
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}\n'


def entry_names(descriptor: Descriptor) -> tuple[str, ...]:
    """The names an index.json entry goes by: containerd's full name in its familiar form, else the ref name as it is."""
    full = descriptor.annotations.get(FULL_NAME, "")
    if full and is_name(full):
        return (Reference.parse(full).familiar,)
    name = descriptor.annotations.get(REF_NAME, "")
    return (name,) if is_label(name) and not _DIGEST.fullmatch(name) else ()


def name_annotations(name: str) -> dict[str, str]:
    """What an index.json entry says of its name, readable by skopeo (ref name) and containerd and Docker (full name)."""
    if any(mark in name for mark in ":/@") and is_name(name):
        return {REF_NAME: name, FULL_NAME: str(Reference.parse(name))}
    return {REF_NAME: name}


@dataclass(frozen=True, slots=True)
class Broken:
    """An image that is named and cannot be had: its names, a digest it may be called by, and why."""

    names: tuple[str, ...]
    id: Digest
    error: TransferError


class Roots:
    """The entries of an index.json: names to roots. Shared by folders and archives. `broken`: images without a root."""

    def __init__(self, entries: list[Descriptor], where: str, broken: Sequence[Broken] = ()) -> None:
        self.where, self.entries, self.broken = where, entries, tuple(broken)
        self._names: dict[Digest, dict[str, None]] = {}
        self._named: dict[str, list[Descriptor]] = {}
        for each in entries:
            for name in entry_names(each):
                self._names.setdefault(each.digest, {})[name] = None
                self._named.setdefault(name, []).append(each)

    @staticmethod
    def parse(data: bytes, where: str, *, strict: bool = False) -> Roots:
        """FormatError if it is not an index.json. A malformed entry is that image's own fault, but with `strict`."""
        found = parse_object(data, where).get("manifests", 0)
        if found is None:
            found = []  # as Go writes an empty list
        if not isinstance(found, list):
            raise FormatError(f"{where}: manifests is not a list")
        good, broken = [], []
        for number, each in enumerate(found, 1):
            try:
                good.append(Descriptor.parse(each, where))
            except FormatError as error:
                if strict:
                    raise
                broken.append(_broken_entry(each, number, where, error))
        return Roots(good, where, broken)

    def pick(
        self, reference: str, suits: Callable[[Descriptor], bool] = lambda root: True
    ) -> tuple[Descriptor, tuple[str, ...]]:
        """The root a name, digest, or start of a digest's hex means, with all its names. Of several the one that `suits`."""
        wanted = [reference]
        if is_name(reference):
            wanted.append(Reference.parse(reference).familiar)
        text = _bare(reference)
        hits = [each for each in self.entries if str(each.digest) == reference]  # a whole digest is never a name
        hits = hits or [each for name in dict.fromkeys(wanted) for each in self._named.get(name, ())]
        if not hits and reference:
            hits = [each for each in self.entries if len(text) >= 6 and each.digest.hex.startswith(text)]
        if not reference and len({each.digest for each in self.entries}) == 1:
            hits = self.entries[:1]
        if len({each.digest for each in hits}) > 1:
            hits = [each for each in hits if suits(each)] or hits
        self._broken(reference, wanted, bool(hits))
        if len({each.digest for each in hits}) != 1:
            have = ", ".join(n for each in self.entries for n in entry_names(each)) or "no named image"
            what = "more than one image is" if hits else "no image is"
            several = ", ".join(dict.fromkeys(each.digest.short for each in hits))
            raise NotFound(
                f"{self.where}: {what} called {reference!r:.100}; it holds {have:.400}",
                hint=f"name the one you mean by its digest ({several:.200}), or by --platform" if hits else "",
            )
        return hits[0], self.names_of(hits[0].digest)

    def _broken(self, reference: str, wanted: list[str], found: bool) -> None:
        """The error of an image that is meant and cannot be had."""
        text = _bare(reference)
        for each in self.broken:
            alone = not reference and not self.entries
            by_id = len(text) >= 6 and each.id.hex.startswith(text)
            if not found and (alone or by_id or set(wanted) & set(each.names)):
                raise each.error

    def names_of(self, digest: Digest) -> tuple[str, ...]:
        return tuple(self._names.get(digest, ()))

    def unique(self) -> list[Descriptor]:
        return list({each.digest: each for each in self.entries}.values())


def _broken_entry(value: object, number: int, where: str, error: FormatError) -> Broken:
    """An entry of index.json that is none, by what can be read of it."""
    notes = value.get("annotations") if isinstance(value, dict) else None
    name = notes.get(REF_NAME) if isinstance(notes, dict) else None
    names = (name,) if isinstance(name, str) and is_label(name) else ()
    called = f" ({names[0]})" if names else ""
    told = FormatError(f"{where}: entry {number}{called}: {error.message.removeprefix(f'{where}: ')}", hint=error.hint)
    return Broken(names, sha256(f"entry {number}".encode()), told)


def _bare(reference: str) -> str:
    """A digest without what says its algorithm, as people type its beginning."""
    return reference.removeprefix("sha256:").removeprefix("sha512:")


class RootedSource:
    """What folders and archives with an index.json have in common: everything but how a blob is opened."""

    traits = SourceTraits(random_access=True, keeps_digest=True)

    def __init__(self, where: str, roots: Roots, opener: Callable[[Descriptor], Readable]) -> None:
        self.where = where
        self._roots = roots
        self._open = opener
        self._documents: dict[Digest, bytes | None] = {}
        self._trees: dict[tuple[Digest, str, int, Platform | None], Tree] = {}
        self._effort = Effort(where)

    def _document(self, descriptor: Descriptor) -> bytes | None:
        if descriptor.digest not in self._documents:
            self._documents[descriptor.digest] = self._read_document(descriptor)
        return self._documents[descriptor.digest]

    def _read_document(self, descriptor: Descriptor) -> bytes | None:
        try:
            stream = self._open(descriptor)
        except NotFound:
            return None
        return read_document(stream, descriptor, self.where)

    def _tree(self, root: Descriptor, platform: Platform | None) -> Tree:
        key = (root.digest, root.media_type, root.size, platform)
        if key not in self._trees:
            self._trees[key] = walk(root, lambda each: self._effort.spent(self._document(each)), platform)
        return self._trees[key]

    def names(self) -> list[Listed]:
        out = []
        effort = Effort(self.where)
        for root in self._roots.unique():
            try:
                layers = walk(root, lambda each: effort.spent(self._document(each))).layers
            except TransferError:
                layers = []  # it is listed all the same: whoever asks for it is told what is wrong
            size = sum(each.size for each in layers)
            out.append(Listed(self._roots.names_of(root.digest), root.digest, size, 0, len(layers)))
        return out + [Listed(each.names, each.id, 0, 0, 0) for each in self._roots.broken]

    def resolve(self, reference: str, platform: Platform | None) -> Found:
        root, names = self._roots.pick(reference, partial(self._suits, platform))
        if root.is_index and not self._tree(root, platform).manifests:
            absent = bool(self._tree(root, platform).absent)
            why = "an index of which no manifest is here" if absent else "an index that lists no manifest"
            raise FormatError(
                f"{self.where}: {reference or root.digest.short} is {why}: it holds no image",
                hint="pull or build the image again, and save it again",
            )
        layers = tuple((each.digest, each.size) for each in self._tree(root, platform).layers)
        return Found(names, root.digest, sum(size for _, size in layers), layers, root, platform)

    def _suits(self, platform: Platform | None, root: Descriptor) -> bool:
        """Whether a root has anything for the platform that is wanted."""
        with contextlib.suppress(TransferError):
            found = self._tree(root, platform)
            return platform is None or any(platform.rank(each.platform) for each in found.manifests)
        return False

    def read(self, found: Sequence[Found]) -> Iterator[Offer]:
        yield from offers([self._tree(each.root, each.platform) for each in found if each.root], self._open)

    def images(
        self, found: Sequence[Found], documents: dict[Digest, bytes], sizes: Mapping[Digest, int]
    ) -> list[Image]:
        return [image_of(each.names, each.root, self._tree(each.root, each.platform)) for each in found if each.root]

    def close(self) -> None:
        """Nothing is kept open."""


class LayoutSource(RootedSource):
    """An OCI layout folder to read from."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise NotFound(f"{folder}: no such folder", hint="check the path")
        self._folder = folder
        roots = Roots.parse(_read(folder / "index.json"), f"{folder}/index.json")
        with contextlib.suppress(NotFound):  # archives are taken without one, and other tools do not look for it
            parse_object(read_small(folder / "oci-layout"), f"{folder}/oci-layout")
        super().__init__(f"the OCI layout {folder}", roots, self._open_blob)

    def _open_blob(self, descriptor: Descriptor) -> Readable:
        path = self._folder / "blobs" / descriptor.digest.algorithm / descriptor.digest.hex
        file = open_plain(
            path, follow=True
        )  # a link too, as Bazel makes: the digest tells whether it leads to the right bytes
        size = os.fstat(file.fileno()).st_size
        if size != descriptor.size:
            file.close()
            raise Damaged(f"{path}: {size} bytes where its descriptor says {descriptor.size}")
        return file


def _read(path: Path) -> bytes:
    try:
        return read_small(path)
    except NotFound as error:
        raise NotFound(f"{path.parent} is not an OCI layout: it has no {path.name}", hint="check the path") from error


class LayoutSink:
    """An OCI layout folder to fill. Blobs appear by rename once verified; index.json last."""

    traits = SinkTraits(keeps_digest=True)
    platform: Platform | None = None

    def __init__(self, folder: Path, *, only_look: bool = False) -> None:
        """`only_look`: nothing is made there; for whoever asks what an import would do."""
        self._folder = folder
        self.where = f"the OCI layout {folder}"
        self._sound: set[Digest] = set()
        self._together: dict[str, set[Digest]] = {}
        if only_look:
            return
        if _is_bundle(folder):
            raise UsageError(f"{folder} is a bundle, not a place for images", hint="name another folder")
        try:
            real_folders(folder, "blobs", "blobs/sha256")
            for place in (folder, *(folder / "blobs").iterdir()):
                if place == folder or not place.is_symlink():
                    sweep(place)
        except OSError as error:
            raise from_os_error(error, f"making {folder}") from error
        if not (folder / "oci-layout").exists():
            publish(folder / "oci-layout", LAYOUT)

    def taken(
        self, image: Image, names: Sequence[str], content: Content, beside: Collection[Digest]
    ) -> dict[str, Digest]:
        """What several images of one import share as a name stays with all of them, as an index.json may have it."""
        for name in names:
            self._together.setdefault(name, set()).update(beside)
        mine = {image.root.digest, *beside}
        held = {name: each.digest for each in self._entries() if each.digest not in mine for name in entry_names(each)}
        return {name: held[name] for name in names if name in held}

    def _path(self, digest: Digest) -> Path:
        return self._folder / "blobs" / digest.algorithm / digest.hex

    def _has(self, descriptor: Descriptor) -> bool:
        """Whether the blob is there and is what its name says; a damaged one will be replaced."""
        if descriptor.digest in self._sound:
            return True
        try:
            with open_plain(self._path(descriptor.digest)) as file:
                size = os.fstat(file.fileno()).st_size
                stream = SliceReader(file.fileno(), 0, size, str(self._path(descriptor.digest)))
                for _ in verified(stream, descriptor.digest, descriptor.size, "blob"):
                    pass
        except TransferError:
            return False
        self._sound.add(descriptor.digest)
        return True

    def lacking(self, image: Image, content: Content) -> list[Descriptor] | None:
        missing = [layer for layer in image.layers if not self._has(layer)]
        if missing:
            return missing
        there = {entry.digest for entry in self._entries()}
        documents = all(self._path(digest).exists() for digest in image.documents)
        return None if documents and image.root.digest in there else []

    def land(
        self, image: Image, names: Sequence[str], content: Content, settled: Callable[[], None] = no_matter
    ) -> Landed:
        missing = self.lacking(image, content)
        for layer in missing or ():
            self._put(layer.digest, content.open(layer))
        for digest in reversed(image.documents):
            data = content.document(digest)
            if not self._has(Descriptor("", digest, len(data))):
                self._put(digest, iter([data]))
        self._commit(image.root, names)
        sent = len(missing or ())
        status: Status = "present" if missing is None else "imported"
        return Landed(image, status, image.root.digest, tuple(names), sent, len(image.layers) - sent)

    def _put(self, digest: Digest, blocks: Iterator[bytes]) -> None:
        path = self._path(digest)
        real_folders(self._folder, f"blobs/{digest.algorithm}")
        with publishing(path) as write:
            for block in blocks:
                write(block)
        self._sound.add(digest)

    def _entries(self) -> list[Descriptor]:
        path = self._folder / "index.json"
        return Roots.parse(read_small(path), str(path), strict=True).entries if path.exists() else []

    def _commit(self, root: Descriptor, names: Sequence[str]) -> None:
        """Add or move the names, keeping every other entry as it is. One writer at a time."""
        path = self._folder / "index.json"
        with _locked(self._folder):
            value = parse_object(read_small(path), str(path)) if path.exists() else {}
            entries = value.get("manifests") or []
            before = canonical_json(entries)
            entries = [e for e in entries if not self._yields(Descriptor.parse(e, str(path)), root, set(names))]
            entries += [{**root.as_json(), "annotations": name_annotations(name)} for name in names]
            if not names and all(e["digest"] != str(root.digest) for e in entries):
                entries.append(root.as_json())
            if canonical_json(entries) != before:
                value |= {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
                publish(path, canonical_json(value))

    def _yields(self, entry: Descriptor, root: Descriptor, names: set[str]) -> bool:
        """Whether an entry goes, as its name is given anew. One whose image shares the name stays."""
        hit = names & set(entry_names(entry))
        shares = entry.digest != root.digest and any(entry.digest in self._together.get(name, ()) for name in hit)
        return bool(hit) and not shares

    def close(self, *, failed: bool) -> None:
        """Every image was published as it came."""


def _is_bundle(folder: Path) -> bool:
    """Whether what lies there is an artifact of another kind, which a new index.json would destroy."""
    try:
        entries = parse_object(read_small(folder / "index.json"), "index.json").get("manifests")
    except TransferError:
        return (folder / ".transfer").is_dir()
    return isinstance(entries, list) and any(isinstance(e, dict) and e.get("artifactType") for e in entries)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
