"""A toy engine, as somebody would add one: a folder with a file for each blob and a file for each name."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from transfer.engines.base import Content, ImageSink, ImageSource, SinkOptions, SourceOptions
from transfer.engines.blobs import BlobSink, BlobSource, Root, Suits
from transfer.engines.index import Broken
from transfer.engines.transports import Transport
from transfer.errors import NotFound
from transfer.model import Descriptor, Digest, Image, familiar
from transfer.streams import Readable, canonical_json, open_plain, parse_object, publish, publishing, read_small

TRANSPORT = Transport("toy", "toy:DIR[:NAME]", "tests.support.toy")


def open_source(place: str, options: SourceOptions) -> ImageSource:
    return ToySource(Path(place))


def open_sink(place: str, options: SinkOptions) -> ImageSink:
    return ToySink(Path(place))


def _named(folder: Path) -> list[tuple[str, Descriptor]]:
    found = [parse_object(read_small(path), str(path)) for path in sorted(folder.glob("*.name"))]
    return [(each["name"], Descriptor.parse(each["root"], str(folder))) for each in found]


class ToySource(BlobSource):
    def __init__(self, folder: Path) -> None:
        super().__init__(f"the toy {folder}")
        if not folder.is_dir():
            raise NotFound(f"{folder}: no such toy")
        self._folder = folder

    def roots(self, pattern: str = "") -> tuple[Sequence[Root], Sequence[Broken]]:
        named = _named(self._folder)
        unique = {root.digest: root for _, root in named}
        return [(r, tuple(n for n, each in named if each.digest == r.digest)) for r in unique.values()], ()

    def root(self, reference: str, suits: Suits) -> Root:
        for name, root in _named(self._folder):
            if familiar(reference) == familiar(name):
                return root, (name,)
            if reference == str(root.digest):
                return root, ()
        raise NotFound(f"{self.where} has no {reference!r}")

    def open(self, blob: Descriptor, start: int = 0) -> Readable:
        file = open_plain(self._folder / blob.digest.hex)
        file.seek(start)
        return file

    def close(self) -> None:
        return


class ToySink(BlobSink):
    def __init__(self, folder: Path) -> None:
        super().__init__(f"the toy {folder}")
        folder.mkdir(exist_ok=True)
        self._folder = folder

    def has(self, blob: Descriptor) -> bool:
        return (self._folder / blob.digest.hex).is_file()

    def put_blob(self, blob: Descriptor, data: Iterator[bytes]) -> None:
        with publishing(self._folder / blob.digest.hex) as write:
            for block in data:
                write(block)

    def tag(self, image: Image, names: Sequence[str], content: Content) -> None:
        for name in names:
            value = {"name": name, "root": image.root.as_json()}
            publish(self._folder / f"{name.encode().hex()}.name", canonical_json(value))

    def named(self, name: str) -> Collection[Digest]:
        return [root.digest for each, root in _named(self._folder) if each == name]
