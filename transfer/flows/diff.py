"""What changed between two bundles, or two images: images, layers, files, and the bytes each costs."""

from __future__ import annotations

import contextlib
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transfer.bundle.catalog import AS_FILES
from transfer.bundle.delta import DeltaBase
from transfer.bundle.files import files_of, skeleton_names
from transfer.bundle.library import BundleList
from transfer.bundle.reader import Bundle
from transfer.chunks.name import split_names
from transfer.errors import UsageError
from transfer.events import Observer
from transfer.flows.export import export
from transfer.flows.select import choose, open_source, select
from transfer.flows.site import spacious
from transfer.model import Digest, Image, Reference, is_name
from transfer.work import Pool, default_jobs

Change = Literal["added", "changed", "removed"]


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file: how it changed, its size now (bytes), and how much of that is in chunks the older side has nowhere."""

    path: str
    change: Change
    size: int
    new: int


@dataclass(frozen=True, slots=True)
class ImageDiff:
    """An image: how it changed, layers only one side has, files, bytes in chunks the older side has nowhere."""

    older: str
    newer: str
    change: Literal["added", "changed", "removed", "same"]
    layers_added: tuple[Digest, ...]
    layers_removed: tuple[Digest, ...]
    files: tuple[FileChange, ...]
    new: int


class Side:
    """The images of one side, and their files."""

    def __init__(self, bundle: Bundle, images: Sequence[Image], *, pool: Pool, jobs: int) -> None:
        self.bundle = bundle
        recipes = bundle.catalog().recipes
        layers = {layer.digest for image in images for layer in image.layers}
        self._names = {
            name
            for recipe in bundle.catalog().all_of(layers & recipes.keys())
            for part in recipe.parts
            for name in split_names(part.payload)
        }
        self.base = DeltaBase([bundle], pool=pool, jobs=jobs)
        self._layers: dict[Digest, dict[bytes, list[bytes]]] = {}

    def __contains__(self, name: bytes) -> bool:
        return name in self._names

    def files(self, image: Image) -> dict[bytes, list[bytes]]:
        """Path and chunks of every file, as the layers one on another leave it. Empty files have no chunks and are left out."""
        out: dict[bytes, list[bytes]] = {}
        for layer in image.layers:
            out |= self._layer(layer.digest)
        return out

    def _layer(self, digest: Digest) -> dict[bytes, list[bytes]]:
        known = self._layers.get(digest)
        if known is None:
            *_, recipe = self.bundle.catalog().all_of((digest,))
            numbers = array("I", [max(0, self.base.find(name)) for name in skeleton_names(recipe)])
            skeletons = self.base.fetch(numbers)
            known = {} if recipe.encoding not in AS_FILES else dict(files_of(recipe, lambda: next(skeletons)))
            self._layers[digest] = known
        return known

    def size(self, names: Sequence[bytes]) -> int:
        return sum(self.base.size_of(number) for name in names if (number := self.base.find(name)) >= 0)


def compare(older: Side, newer: Side, pairs: Sequence[tuple[Image | None, Image | None]]) -> Iterator[ImageDiff]:
    """Each pair of images in turn. A chunk that an earlier image brought is not counted again."""
    seen: set[bytes] = set()
    for before, after in pairs:
        if after is None:
            if before is not None:
                yield ImageDiff(before.label, "", "removed", (), tuple(_digests(before)), (), 0)
            continue
        old_layers = _digests(before) if before else []
        added = tuple(digest for digest in _digests(after) if digest not in old_layers)
        gone = tuple(digest for digest in old_layers if digest not in _digests(after))
        if before and before.root.digest == after.root.digest:
            yield ImageDiff(before.label, after.label, "same", (), (), (), 0)
            continue
        files = tuple(_files(older, newer, before, after, seen)) if added or gone else ()
        total = sum(each.new for each in files)
        yield ImageDiff(
            before.label if before else "", after.label, "changed" if before else "added", added, gone, files, total
        )


def _files(older: Side, newer: Side, before: Image | None, after: Image, seen: set[bytes]) -> Iterator[FileChange]:
    was = older.files(before) if before else {}
    now = newer.files(after)
    for path in sorted(was.keys() | now.keys()):
        names, previous = now.get(path), was.get(path)
        if names == previous:
            continue
        if names is None:
            yield FileChange(_text(path), "removed", 0, 0)
            continue
        new = [name for name in dict.fromkeys(names) if name not in older and name not in seen]
        seen.update(new)
        yield FileChange(_text(path), "changed" if previous else "added", newer.size(names), newer.size(new))


def _text(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")


def _digests(image: Image) -> list[Digest]:
    return [layer.digest for layer in image.layers]


def pair(older: Sequence[Image], newer: Sequence[Image]) -> list[tuple[Image | None, Image | None]]:
    """Images that belong together: of one name, else of one repository; then those that have no partner."""
    left = list(older)
    out: list[tuple[Image | None, Image | None]] = []
    for image in sorted(newer, key=lambda each: each.names):
        hit = next((o for o in left if set(o.names) & set(image.names)), None)
        hit = hit or next((o for o in left if _repositories(o) & _repositories(image)), None)
        if hit:
            left.remove(hit)
        out.append((hit, image))
    return out + [(image, None) for image in left]


def _repositories(image: Image) -> set[str]:
    return {Reference.parse(name).repository for name in image.names if is_name(name)}


Pairs = list[tuple[Image | None, Image | None]]


@contextlib.contextmanager
def sides(
    older: str, newer: str, source: str, shelf: BundleList, pool: Pool, observer: Observer
) -> Iterator[tuple[Side, Side, Pairs]]:
    """Two bundle folders, or two images of one source (which are exported into a temporary bundle). UsageError for one of each."""
    jobs = default_jobs()
    are_bundles = [(Path(each) / "oci-layout").exists() and not source for each in (older, newer)]
    if all(are_bundles):
        left, right = (Bundle(Path(each), library=shelf) for each in (older, newer))
        shelf.put(left)
        shelf.put(right)
        yield (
            Side(left, left.images, pool=pool, jobs=jobs),
            Side(right, right.images, pool=pool, jobs=jobs),
            pair(left.images, right.images),
        )
        return
    if any(are_bundles):
        raise UsageError(
            "one of the two is a bundle and the other is an image", hint="name two bundle folders, or two images"
        )
    opened, _ = open_source(source)
    with tempfile.TemporaryDirectory(prefix=".transfer-diff-", dir=spacious()) as folder:
        try:
            found = select(opened, [older, newer], None, observer)
            export(opened, found, Path(folder) / "b", level=1, jobs=None, observer=observer)
        finally:
            opened.close()
        both = Bundle(Path(folder) / "b")
        before, after = (choose(both.images, [each])[0] for each in (older, newer))
        sides = (Side(both, [each], pool=pool, jobs=jobs) for each in (before, after))
        yield next(sides), next(sides), [(before, after)]
