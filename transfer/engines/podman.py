"""Images of podman: names from `podman`, layers and documents out of its storage on disk, or through `podman save` where that cannot be read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, cast

from transfer.engines.base import (
    BlobStream,
    ImageSink,
    ImageSource,
    Listed,
    ResolvedImage,
    SinkOptions,
    SourceOptions,
    SourceTraits,
)
from transfer.engines.index import REF_NAME, Roots
from transfer.engines.podimages import PodmanImages
from transfer.engines.podman_client import Held, Podman
from transfer.engines.program import find
from transfer.engines.saves import Saves
from transfer.errors import EngineError, FormatError, NotFound, UsageError
from transfer.events import Noted, Observer, silent
from transfer.model import Descriptor, Digest, Image, Platform, Reference, familiar, is_name

ReadWay = Literal["auto", "files", "api"]
"""How images are read: out of the storage folder, or through `podman save`."""
_STORE = re.compile(r"\[(?:(overlay|vfs|btrfs|zfs)@)?(/[^+\]:]+)(?:\+(/[^+\]:]+))?\](.*)", re.ASCII | re.DOTALL)


def store_and_name(text: str) -> tuple[str, str]:
    """`[overlay@/root+/run]name` as containers/image writes it; without brackets it is podman's own store."""
    if not text.startswith("["):
        return "", text
    found = _STORE.fullmatch(text)
    if not found:
        raise UsageError(f"{text!r:.200} does not name a store", hint="write [overlay@/GRAPHROOT+/RUNROOT]NAME")
    return "|".join([found[1] or "", found[2], found[3] or ""]), found[4]


def is_here() -> bool:
    """Whether the program is there."""
    return find("podman") is not None


def open_source(place: str, options: SourceOptions) -> ImageSource:
    """The podman found here; the place is a store of its."""
    return PodmanSource(Podman(place), way=cast(ReadWay, options.via), observer=options.observer)


def open_sink(place: str, options: SinkOptions) -> ImageSink:
    """The podman found here; the place is a store of its."""
    from transfer.engines.podman_sink import LoadWay, PodmanSink

    return PodmanSink(
        Podman(place),
        way=cast(LoadWay, options.via),
        platform=options.platform,
        offer=options.offer,
        observer=options.observer,
    )


class PodmanSource:
    """Podman's images: out of its storage where this process may read that (`files`), else by `podman save` (`api`)."""

    def __init__(self, podman: Podman, *, way: ReadWay = "auto", observer: Observer = silent) -> None:
        self._podman, self._way, self._observer = podman, way, observer
        storage = podman.storage() if podman.info and way != "api" else None
        self.where = podman.where
        if way == "files" and storage is None:
            raise EngineError(
                f"{self.where}: its storage cannot be read",
                hint="--via files needs the overlay driver, and root or the owner; use --via api instead",
            )
        self._images = PodmanImages(storage, remake=way == "auto", observer=observer) if storage else None
        self._saves: Saves | None = None if storage else Saves(self.where, podman.save)
        self._held = podman.images()
        self._roots = Roots(
            [
                Descriptor("", each.id, 0, annotations={REF_NAME: familiar(name)} if name else {})
                for each in self._held
                for name in each.names or ("",)
            ],
            self.where,
        )

    @property
    def traits(self) -> SourceTraits:
        return SourceTraits(random_access=self._saves is None, keeps_digest=False, host=True)

    def names(self, pattern: str = "") -> list[Listed]:
        counts = {} if self._images else self._podman.layers([each.id for each in self._held])
        return [
            Listed(
                tuple(map(familiar, each.names)),
                each.id,
                each.size,
                each.created,
                self._images.count(each.id) if self._images else counts.get(each.id, 0),
            )
            for each in self._held
        ]

    def resolve(self, reference: str, platform: Platform | None) -> ResolvedImage:
        held, names = self._find(reference)
        value = self._podman.inspect(held.id.hex) or {}
        own = _platform_of(value)
        if platform and not platform.accepts(own):
            raise NotFound(f"{self.where}: {reference} is for {own}, not {platform}")
        if self._images:
            try:
                return self._images.resolved(held.id, names)
            except (EngineError, NotFound, FormatError) as error:
                if self._way == "files":
                    raise
                self._through_podman(error.message)
        layers = tuple((Digest.parse(each, self.where), 0) for each in (value.get("RootFS") or {}).get("Layers") or [])
        note = f"{names[0] if names else held.id.short}: podman saves it with another manifest: its digest is a new one"
        return ResolvedImage(names, held.id, held.size, layers, None, platform, (note,))

    @property
    def platform(self) -> Platform:
        return self._podman.platform

    def platforms(self, image: ResolvedImage) -> list[Platform]:
        return [_platform_of(self._podman.inspect(image.id.hex) or {})]

    def is_kept(self, image: ResolvedImage) -> bool:
        """Podman deletes no image by itself."""
        return True

    def _find(self, reference: str) -> tuple[Held, tuple[str, ...]]:
        """The image, and its names; by one of these alone, if it was named. Podman's own short name is localhost's where nothing else has it."""
        by_digest = {name: each for each in self._held for name in each.digests}
        wanted = [reference, f"localhost/{reference}"]
        for each in wanted:
            if is_name(each) and str(Reference.parse(each)) in by_digest:
                held = by_digest[str(Reference.parse(each))]
                return held, tuple(map(familiar, held.names))
        root: Descriptor | None = None
        names: tuple[str, ...] = ()
        failure: NotFound | None = None
        for each in wanted:
            try:
                root, names = self._roots.pick(each)
                break
            except NotFound as error:
                failure = failure or error
        if root is None:
            raise failure or NotFound(f"{self.where} has no image {reference!r:.200}")
        named = [name for each in wanted if is_name(each) and (name := Reference.parse(each).familiar) in names]
        held = next(each for each in self._held if each.id == root.digest)
        return held, tuple(named[:1]) or names

    def _through_podman(self, odd: str) -> None:
        self._observer(Noted(f"{odd}; reading all layers through podman instead"))
        self._images, self._saves = None, Saves(self.where, self._podman.save)

    def read(self, images: Sequence[ResolvedImage]) -> Iterator[BlobStream]:
        if self._saves:
            yield from self._saves.read(images)
        elif self._images:
            self._observer(Noted(f"reading layers directly from {self._images.root}"))
            yield from self._images.read(images)

    def images(
        self, found: Sequence[ResolvedImage], documents: dict[Digest, bytes], sizes: Mapping[Digest, int]
    ) -> list[Image]:
        reader = self._saves or self._images
        return reader.images(found, documents, sizes) if reader else []

    def close(self) -> None:
        """Nothing is kept open."""


def _platform_of(value: Mapping[str, Any]) -> Platform:
    """What an image is for, by what podman says of it."""
    return Platform(str(value.get("Os") or "linux"), str(value.get("Architecture") or "amd64"))
