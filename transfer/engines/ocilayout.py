"""OCI image layouts: folders with oci-layout, index.json and blobs/ (image-spec, image-layout.md). Source and sink."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from transfer.engines.base import Content, ImageSink, ImageSource, SinkOptions, SourceOptions
from transfer.engines.blobs import BlobSink, BlobSource, Root, Suits
from transfer.engines.index import LAYOUT, Broken, Roots, entry_names, name_annotations
from transfer.errors import Damaged, NotFound, TransferError, UsageError, from_os_error
from transfer.folders import real_folders
from transfer.model import OCI_INDEX, Descriptor, Digest, Image
from transfer.streams import (
    Readable,
    SliceReader,
    canonical_json,
    open_plain,
    parse_object,
    publish,
    publishing,
    read_small,
    sweep,
    verified,
)


def open_source(place: str, options: SourceOptions) -> ImageSource:
    """The layout in this folder."""
    return LayoutSource(Path(place))


def open_sink(place: str, options: SinkOptions) -> ImageSink:
    """The layout in this folder, which is made if there is none."""
    return LayoutSink(Path(place), only_look=options.only_look)


class LayoutSource(BlobSource):
    """An OCI layout folder to read from."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise NotFound(f"{folder}: no such folder", hint="check the path")
        super().__init__(f"the OCI layout {folder}")
        self._folder = folder
        self._roots = Roots.parse(_read(folder / "index.json"), f"{folder}/index.json", self.where)
        with contextlib.suppress(NotFound):  # archives are taken without one, and other tools do not look for it
            parse_object(read_small(folder / "oci-layout"), f"{folder}/oci-layout")

    def roots(self, pattern: str = "") -> tuple[Sequence[Root], Sequence[Broken]]:
        return self._roots.all()

    def root(self, reference: str, suits: Suits) -> Root:
        return self._roots.pick(reference, suits)

    def open(self, blob: Descriptor, start: int = 0) -> Readable:
        path = self._folder / "blobs" / blob.digest.algorithm / blob.digest.hex
        file = open_plain(path, follow=True)  # a link too, as Bazel makes: the digest tells where it leads
        size = os.fstat(file.fileno()).st_size
        if size != blob.size:
            file.close()
            raise Damaged(f"{path}: {size} bytes, but its descriptor says {blob.size}")
        file.seek(start)
        return file

    def close(self) -> None:
        """Nothing is kept open."""


def _read(path: Path) -> bytes:
    try:
        return read_small(path)
    except NotFound as error:
        raise NotFound(f"{path.parent} is not an OCI layout: it has no {path.name}", hint="check the path") from error


class LayoutSink(BlobSink):
    """An OCI layout folder to fill. Blobs appear by rename once verified; index.json last."""

    def __init__(self, folder: Path, *, only_look: bool = False) -> None:
        """`only_look`: nothing is made there; for whoever asks what an import would do."""
        super().__init__(f"the OCI layout {folder}")
        self._folder = folder
        self._sound: set[Digest] = set()
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

    def _path(self, digest: Digest) -> Path:
        return self._folder / "blobs" / digest.algorithm / digest.hex

    def has(self, blob: Descriptor) -> bool:
        """A damaged one will be replaced."""
        if blob.digest in self._sound:
            return True
        try:
            with open_plain(self._path(blob.digest)) as file:
                size = os.fstat(file.fileno()).st_size
                stream = SliceReader(file.fileno(), 0, size, str(self._path(blob.digest)))
                for _ in verified(stream, blob.digest, blob.size, "blob"):
                    pass
        except TransferError:
            return False
        self._sound.add(blob.digest)
        return True

    def put_blob(self, blob: Descriptor, data: Iterator[bytes]) -> None:
        real_folders(self._folder, f"blobs/{blob.digest.algorithm}")
        with publishing(self._path(blob.digest)) as write:
            for block in data:
                write(block)
        self._sound.add(blob.digest)

    def is_listed(self, root: Descriptor) -> bool:
        return any(entry.digest == root.digest for entry in self._entries())

    def named(self, name: str) -> Collection[Digest]:
        return [each.digest for each in self._entries() if name in entry_names(each)]

    def _entries(self) -> list[Descriptor]:
        path = self._folder / "index.json"
        return Roots.parse(read_small(path), str(path), strict=True).entries if path.exists() else []

    def tag(self, image: Image, names: Sequence[str], content: Content) -> None:
        """Add or move the names, keeping every other entry as it is. One writer at a time."""
        root = image.root
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
