"""Images of podman: names from `podman`, layers and documents out of its storage on disk, or through `podman save` where that cannot be read."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
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
from transfer.engines.cstorage import ContainerStorage
from transfer.engines.index import REF_NAME, Roots
from transfer.engines.podimages import PodmanImages
from transfer.engines.program import Program, find
from transfer.engines.saves import Saves
from transfer.errors import EngineAway, EngineError, FormatError, NotFound, TransferError, UsageError
from transfer.events import Noted, Observer, silent
from transfer.model import TEMPORARY, Descriptor, Digest, Image, Platform, Reference, familiar, is_name
from transfer.streams import coalesced, parse_json, parse_object

ReadWay = Literal["auto", "files", "api"]
"""How images are read: out of the storage folder, or through `podman save`."""
_ANSWER_MAX = 64 << 20
"""What podman says of its images may be so long (bytes)."""
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


@dataclass(frozen=True, slots=True)
class Held:
    """An image as podman lists it: its ID (the config's digest), names in full, names with digests, size (bytes), age."""

    id: Digest
    names: tuple[str, ...]
    digests: tuple[str, ...]
    size: int
    created: int


class Podman:
    """The `podman` program, with one store. It needs no service; CONTAINER_HOST is not heeded, since its images are elsewhere."""

    def __init__(self, place: str = "") -> None:
        program = find("podman")
        if program is None:
            raise EngineAway("no podman here: the program is not in PATH", hint="install podman")
        driver, root, run = place.split("|") if place else ("", "", "")
        options = [*(["--root", root] if root else []), *(["--runroot", run] if run else [])]
        options += ["--storage-driver", driver] if driver else []
        env = dict.fromkeys(("CONTAINER_HOST", "CONTAINER_CONNECTION"))
        self.where = f"podman at {root}" if root else "podman"
        self._program = Program([program, *options], self.where, env=env, spool=os.environ.get("TMPDIR", "/var/tmp"))
        self._info: dict[str, Any] | None = None

    @property
    def info(self) -> dict[str, Any]:
        """What it says of itself. EngineAway if it says nothing."""
        if self._info is None:
            try:
                self._info = parse_object(self._program.run("info", "--format", "json"), self.where)
            except EngineError as error:
                raise EngineAway(error.message, hint="`podman info` says more") from error
            if not self._program_has_root():
                self.where = f"podman at {self._store().get('graphRoot', '')}"
                self._program.where = self.where
        return self._info

    def _program_has_root(self) -> bool:
        return "--root" in self._program.words

    def _store(self) -> dict[str, Any]:
        value = (self._info or {}).get("store")
        return value if isinstance(value, dict) else {}

    def storage(self) -> ContainerStorage | None:
        """Its storage on disk, if that is one this process may read and knows."""
        store = (self.info and self._store()) or {}
        root = Path(str(store.get("graphRoot") or "/nowhere"))
        options = store.get("graphOptions")
        listed = options.get("overlay.imagestore") if isinstance(options, dict) else None
        also = [Path(each) for each in (listed if isinstance(listed, list) else [listed]) if isinstance(each, str)]
        if store.get("graphDriverName") != "overlay" or not root.is_absolute():
            return None
        with contextlib.suppress(TransferError):
            return ContainerStorage(root, [each for each in also if each.is_absolute()])
        return None

    @property
    def platform(self) -> Platform:
        """What runs here."""
        host = self.info.get("host")
        value = host if isinstance(host, dict) else {}
        return Platform(str(value.get("os") or "linux"), str(value.get("arch") or "amd64"))

    def run(self, *words: str, env: Mapping[str, str] | None = None) -> bytes:
        return self._program.run(*words, env=env)

    def load(self, archive: Iterator[bytes]) -> None:
        """`podman load` of an archive, which podman puts into its temporary folder first."""
        self._program.run("load", "--quiet", data=archive)

    def images(self) -> list[Held]:
        """All images, each once; names that a killed import left are not among them."""
        found: dict[str, Held] = {}
        rows = parse_json(
            self._program.run("images", "--all", "--no-trunc", "--format", "json"), self.where, _ANSWER_MAX
        )
        for row in rows if isinstance(rows, list) else ():
            if not isinstance(row, dict):
                continue
            with contextlib.suppress(FormatError):
                id = Digest.parse("sha256:" + str(row.get("Id")), self.where)
                names, digests = _texts(row.get("Names")), _texts(row.get("RepoDigests"))
                size, created = row.get("Size"), row.get("Created")
                found[str(id)] = Held(
                    id,
                    tuple(dict.fromkeys(each for each in names if is_name(each) and f"/{TEMPORARY}/" not in each)),
                    digests,
                    size if type(size) is int else 0,
                    created if type(created) is int else 0,
                )
        return list(found.values())

    def inspect(self, reference: str) -> dict[str, Any] | None:
        """An image, by its ID or full name; None if it is not there."""
        try:
            found = parse_json(self._program.run("image", "inspect", reference), self.where)
        except EngineError as error:
            if "no such image" in error.message or "image not known" in error.message:
                return None
            raise
        return found[0] if isinstance(found, list) and found and isinstance(found[0], dict) else None

    def layers(self, images: Sequence[Digest]) -> dict[Digest, int]:
        """How many layers images have, by their IDs."""
        if not images:
            return {}
        rows = parse_json(
            self._program.run("image", "inspect", *(each.hex for each in images)), self.where, _ANSWER_MAX
        )
        out = {}
        for row in rows if isinstance(rows, list) else ():
            rootfs = row.get("RootFS") if isinstance(row, dict) else None
            if isinstance(rootfs, dict):
                out[Digest(f"sha256:{row.get('Id')}")] = len(rootfs.get("Layers") or [])
        return out

    @contextlib.contextmanager
    def save(self, wanted: Sequence[str]) -> Iterator[Iterator[bytes]]:
        """Some images as a docker-archive, with plain layers."""
        several = ["--multi-image-archive"] if len(wanted) > 1 else []
        ids = [each.removeprefix("sha256:") for each in wanted]
        stream = self._program.open("save", "--quiet", "--format", "docker-archive", *several, *ids)
        with contextlib.closing(stream):
            yield coalesced(iter(partial(stream.read, 1 << 20), b""))


def _texts(value: object) -> tuple[str, ...]:
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


class PodmanSource:
    """Podman's images: out of its storage where this process may read that (`files`), else by `podman save` (`api`)."""

    def __init__(self, podman: Podman, *, way: ReadWay = "auto", observer: Observer = silent) -> None:
        self._podman, self._way, self._observer = podman, way, observer
        storage = podman.storage() if podman.info and way != "api" else None
        self.where = podman.where
        if way == "files" and storage is None:
            raise EngineError(
                f"{self.where}: its storage cannot be read",
                hint="--via files needs the overlay driver, and root or `podman unshare`; use --via api instead",
            )
        self._images = PodmanImages(self.where, storage) if storage else None
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
        self._lock = threading.Lock()

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
                return self._images.resolved(held.id, names, held.size)
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
