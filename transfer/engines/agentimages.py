"""The folder from which k3s, RKE2 and k0s import images when they start, and (k3s since 1.32) when a file appears: one OCI archive a set."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from transfer.engines.archive import ArchiveSink, open_archive
from transfer.engines.base import ALONE, Content, ImageSink, ImportedImage, SinkOptions, Turn
from transfer.errors import EngineAway, TransferError, UsageError
from transfer.events import Noted, Observer, silent
from transfer.model import Descriptor, Digest, Image, Reference, is_name
from transfer.streams import canonical_json, sha256

PLACES = {
    "/var/lib/rancher/k3s": "agent/images",
    "/var/lib/rancher/rke2": "agent/images",
    "/var/lib/k0s": "images",
}
"""Data folders of the agents, and where their images are in them."""
_OURS = re.compile(r"transfer-([0-9]{6})-[0-9a-f]{12}\.tar", re.ASCII)


def open_sink(place: str, options: SinkOptions) -> ImageSink:
    """The folder, or that of the agent found here."""
    return AgentImages(Path(place) if place else _found(), observer=options.observer)


def _found() -> Path:
    for data, images in PLACES.items():
        if Path(data).is_dir():
            return Path(data) / images
    raise EngineAway(
        f"no agent with a folder for images here: {', '.join(PLACES)} are not there",
        hint="name the folder: agent-images:DIR",
    )


class AgentImages(ArchiveSink):
    """One more set in the folder. It appears by rename, whole, and later sets stand after earlier ones: an agent takes them in that order.

    An image that a set has already, under all its names, is not written again.
    """

    def __init__(self, folder: Path, *, observer: Observer = silent) -> None:
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is not a folder", hint="name the folder: agent-images:DIR")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._observer = folder, observer
        self._names: dict[str, Digest] = {}
        self._number = 0
        self._sets: dict[Path, set[str]] = {}
        for path in sorted(folder.iterdir()):
            if found := _OURS.fullmatch(path.name):
                self._number = max(self._number, int(found[1]))
                self._learn(path)
        super().__init__(folder / "transfer.tar", docker=False)
        self.where = f"the agent's images in {folder}"

    def _learn(self, path: Path) -> None:
        """What a set has. One that cannot be read has nothing."""
        try:
            archive = open_archive(path)
        except TransferError as error:
            self._observer(Noted(f"{path}: {error.message}"))
            return
        try:
            held = {name: each.id for each in archive.names() for name in each.names}
        finally:
            archive.close()
        self._sets[path] = set(held)
        self._names |= held

    def taken(
        self, image: Image, names: Sequence[str], content: Content, beside: Collection[Digest]
    ) -> dict[str, Digest]:
        held = {name: self._names.get(name) for name in _called(names)}
        return {name: digest for name, digest in held.items() if digest and digest != image.root.digest}

    def _is_there(self, image: Image, names: Sequence[str]) -> bool:
        wanted = _called(names)
        if not wanted:
            return image.root.digest in self._names.values()
        return all(self._names.get(name) == image.root.digest for name in wanted)

    def missing(self, image: Image, content: Content) -> list[Descriptor] | None:
        return None if self._is_there(image, image.names) else super().missing(image, content)

    def put(self, image: Image, names: Sequence[str], content: Content, turn: Turn = ALONE) -> ImportedImage:
        if self._is_there(image, names):
            present = len(set(image.layers))
            return ImportedImage(image, "present", image.root.digest, tuple(names), 0, present)
        return super().put(image, names, content, turn)

    def _finish(self) -> None:
        if not self._entries:
            return  # nothing new: no set
        named = sha256(canonical_json(self._entries)).hex[:12]
        self._path = self._folder / f"transfer-{self._number + 1:06}-{named}.tar"
        super()._finish()
        self._learn(self._path)
        old = [path for path in sorted(self._sets) if path != self._path and self._outdone(path)]
        for path in old:
            self._observer(Noted(f"{path}: a newer set has all its names; this file can be deleted"))

    def _outdone(self, path: Path) -> bool:
        """Whether all names of a set are those of other images now."""
        later = set().union(*(names for other, names in self._sets.items() if other > path))
        return self._sets[path] <= later


def _called(names: Sequence[str]) -> list[str]:
    """Names as they stand in a set."""
    return [Reference.parse(name).familiar if is_name(name) else name for name in names]
