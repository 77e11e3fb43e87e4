"""Docker's images: read from the daemon's own files or through its API (`docker save`)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
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
from transfer.engines.daemon import DEFAULT_HOST, DockerClient
from transfer.engines.dockerstore import StoreImages
from transfer.engines.overlay import ASK, OverlayImages
from transfer.engines.saves import Saves
from transfer.errors import EngineError, NotFound
from transfer.events import Noted, Observer, silent
from transfer.model import Digest, Image, Platform, Reference, is_name
from transfer.streams import coalesced

ReadWay = Literal["auto", "files", "api"]
"""How images are read: out of the files the daemon keeps them in, or through its API."""


def is_here() -> bool:
    """Whether a daemon is named, or the usual one's socket is there."""
    return bool(os.environ.get("DOCKER_HOST")) or Path(DEFAULT_HOST.removeprefix("unix://")).exists()


def open_source(place: str, options: SourceOptions) -> ImageSource:
    """The daemon that DOCKER_HOST names, or the one found here."""
    return DockerSource(DockerClient(), way=cast(ReadWay, options.via), observer=options.observer)


def open_sink(place: str, options: SinkOptions) -> ImageSink:
    """The daemon that DOCKER_HOST names, or the one found here."""
    from transfer.engines.docker_sink import DockerSink, LoadWay

    return DockerSink(
        DockerClient(),
        way=cast(LoadWay, options.via),
        platform=options.platform,
        publish=options.publish,
        observer=options.observer,
    )


class DockerSource:
    """A daemon's images: out of its own files where this process may read them (`files`), else by `docker save` (`api`)."""

    def __init__(self, client: DockerClient, *, way: ReadWay = "auto", observer: Observer = silent) -> None:
        self._client, self._way, self._observer = client, way, observer
        self.where = client.where
        self._containerd = client.has_containerd_store()
        files = self._files() if client.local and way != "api" else None
        if way == "files" and files is None:
            raise EngineError(
                f"{client.where}: the daemon's files cannot be read from here",
                hint="--via files needs root on the daemon's own host, and an overlay2 or a containerd store; use --via api instead",
            )
        self.traits = SourceTraits(random_access=files is not None, keeps_digest=self._containerd, host=True)
        self._reader: OverlayImages | StoreImages | Saves = files or Saves(self.where, self._save)

    def _files(self) -> OverlayImages | StoreImages | None:
        """The daemon's own files, if this process may read them and they are as they are known here."""
        return StoreImages.of(self._client) if self._containerd else OverlayImages.of(self._client.info)

    def names(self, pattern: str = "") -> list[Listed]:
        out = []
        for each in self._client.images():
            tags = tuple(tag for tag in each.get("RepoTags") or [] if tag != "<none>:<none>")
            layers = (self._client.inspect(each["Id"]) or {}).get("RootFS", {}).get("Layers") or []
            digest = Digest.parse(each["Id"], self.where)
            out.append(Listed(tags, digest, each.get("Size", 0), each.get("Created", 0), len(layers)))
        return out

    def resolve(self, reference: str, platform: Platform | None) -> ResolvedImage:
        value = self._client.inspect(reference)
        if value is None:
            raise NotFound(f"{self.where} has no image {reference!r:.200}", hint="`transfer images` lists what it has")
        own = _platform_of(value)
        if platform and not self.traits.keeps_digest and not platform.accepts(own):
            raise NotFound(f"{self.where}: {reference} is for {own}, not {platform}")
        by_name = is_name(reference) and not reference.startswith(value["Id"].removeprefix("sha256:")[: len(reference)])
        tags = tuple(value.get("RepoTags") or ())
        familiar = Reference.parse(reference).familiar if by_name else ""
        names = (familiar,) if familiar in tags else tags
        digest = Digest.parse(value["Id"], self.where)
        if isinstance(self._reader, StoreImages):
            if self._reader.lacks(digest) and self._way != "files":
                self._through_the_daemon(f"{self._reader.folder.root} does not have {digest.short}")
            else:
                self._reader.whole(reference, self._reader.root(str(digest), lambda root: True)[0], platform)
                return replace(self._reader.resolve(str(digest), platform), names=names)
        if self._containerd:
            self._available(reference, digest)
        layers = tuple((Digest.parse(each, self.where), 0) for each in value.get("RootFS", {}).get("Layers") or [])
        return ResolvedImage(names, digest, value.get("Size", 0), layers, None, platform)

    def _available(self, reference: str, digest: Digest) -> None:
        """EngineError if the daemon says (from API 1.48 on) that the content of all platforms is missing: `docker save` does not."""
        told = self._client.ask(f"/images/{digest}/json", manifests="1").get("Manifests")
        images = [each for each in told if isinstance(each, dict)] if isinstance(told, list) else []
        if images and not any(each.get("Available") is True for each in images):
            raise StoreImages.gone_from(self.where, reference, str(images[0].get("ID")))

    def read(self, images: Sequence[ResolvedImage]) -> Iterator[BlobStream]:
        if isinstance(self._reader, OverlayImages):
            self._read_files(self._reader, images)
        elif isinstance(self._reader, StoreImages):
            self._observer(Noted(f"reading layers directly from {self._reader.folder.root}"))
        yield from self._reader.read(images)

    def _read_files(self, files: OverlayImages, found: Sequence[ResolvedImage]) -> None:
        """Say that the layers come from the daemon's files; or go back to its API, where something is odd about them."""
        odd = files.lacks(found)
        if not odd:
            self._observer(Noted(f"reading layers directly from {files.root}"))
            return
        if self._way == "files":
            raise EngineError(odd, hint=ASK)
        self._through_the_daemon(odd)

    def _through_the_daemon(self, odd: str) -> None:
        self._observer(Noted(f"{odd}; reading all layers through the daemon instead"))
        self._reader = Saves(self.where, self._save)
        self.traits = replace(self.traits, random_access=False)

    @contextlib.contextmanager
    def _save(self, wanted: Sequence[str]) -> Iterator[Iterator[bytes]]:
        with self._client.stream("GET", "/images/get", names=list(wanted)) as parts:
            yield coalesced(parts)  # the daemon sends 32 KiB at a time

    def images(
        self, found: Sequence[ResolvedImage], documents: dict[Digest, bytes], sizes: Mapping[Digest, int]
    ) -> list[Image]:
        return self._reader.images(found, documents, sizes)

    @property
    def platform(self) -> Platform:
        return self._client.platform

    def platforms(self, image: ResolvedImage) -> list[Platform]:
        if isinstance(self._reader, StoreImages) and image.root:
            return self._reader.platforms(image)
        return [_platform_of(self._client.inspect(str(image.id)) or {})]

    def is_kept(self, image: ResolvedImage) -> bool:
        """Docker deletes no image by itself."""
        return True

    def close(self) -> None:
        self._client.close()


def _platform_of(value: Mapping[str, Any]) -> Platform:
    """What an image is for, by what a daemon says of it."""
    return Platform(value.get("Os") or "linux", value.get("Architecture") or "amd64", value.get("Variant") or "")
