"""What a registry answers out of bundles or a store: names as three kinds of client ask for them, and blobs rebuilt when asked for."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from transfer.bundle.library import BundleList
from transfer.bundle.reader import Bundle
from transfer.engines.tree import referrer_entry, subject_of
from transfer.errors import FormatError, TransferError
from transfer.events import silent
from transfer.flows.blobcache import BlobCache
from transfer.flows.content import BundleContent
from transfer.flows.page import POLICY, HeldBundle, page
from transfer.flows.select import name_matches
from transfer.model import HUB, Descriptor, Digest, Image, Reference, is_name
from transfer.serve.app import Blob
from transfer.store.store import Store
from transfer.streams import parse_object


@dataclass(frozen=True)
class _Held:
    """One image, and the bundle that has it."""

    image: Image
    bundle: Bundle


@dataclass
class _Repository:
    """The images of one repository: by tag the newest, and all of them for whoever asks by digest."""

    tags: dict[str, _Held] = field(default_factory=dict)
    held: list[_Held] = field(default_factory=list)


class _Names:
    """Everything that is held at one moment, by repository. Bundles from the oldest to the newest."""

    def __init__(self, bundles: Iterable[Bundle], only: Sequence[str]) -> None:
        self.repositories: dict[tuple[str, str], _Repository] = {}
        self.images: list[_Held] = []
        for bundle in bundles:
            for image in bundle.images:
                held = _Held(image, bundle)
                names = [name for name in image.names if is_name(name)]
                names = [name for name in names if not only or any(name_matches(name, each) for each in only)]
                if names:
                    self.images.append(held)
                for name in names:
                    found = Reference.parse(name)
                    repository = self.repositories.setdefault((found.domain, found.path), _Repository())
                    repository.held.append(held)
                    if found.tag:
                        repository.tags[found.tag] = held

    def find(self, path: str, host: str) -> _Repository | None:
        """What a path means: of the registry that a client says it asks (containerd), and of no other; with that host in front of
        the path (podman, and people); of Docker Hub (Docker's mirrors); else of the only registry that has it."""
        if host:
            return self.repositories.get((host, path))
        first, _, rest = path.partition("/")
        if rest and (first, rest) in self.repositories:
            return self.repositories[first, rest]
        if (HUB, path) in self.repositories:
            return self.repositories[HUB, path]
        found = [repository for (_, each), repository in self.repositories.items() if each == path]
        return found[0] if len(found) == 1 else None


class BundleHoldings:
    """See serve/app.py, Holdings. A store is read anew when its entries change."""

    policy = POLICY

    def __init__(
        self, bundles: Sequence[Bundle], store: Store | None, cache: BlobCache | None, only: Sequence[str] = ()
    ) -> None:
        self._bundles, self._store, self._cache, self._only = list(bundles), store, cache, only
        self._lock = threading.Lock()
        self._seen: object = None
        self._names = _Names((), ())

    def _now(self) -> _Names:
        with self._lock:
            state = self._state()
            if self._seen != state:
                if self._store:
                    self._store.forget()
                found = list(self._store.bundles()) if self._store else []
                self._names = _Names([*self._bundles, *reversed(found)], self._only)
                self._seen = state
            return self._names

    def _state(self) -> object:
        """What changes when the store does."""
        if self._store is None:
            return "bundles"
        with contextlib.suppress(OSError):
            folder = self._store.root / "bundles"
            return sorted((each.name, each.stat().st_mtime_ns) for each in os.scandir(folder))
        return "nothing"

    def manifest(self, name: str, reference: str, host: str) -> tuple[Descriptor, bytes] | None:
        repository = self._now().find(name, host)
        if repository is None:
            return None
        if ":" not in reference:
            held = repository.tags.get(reference)
            return (held.image.root, held.bundle.document(held.image.root.digest)) if held else None
        with contextlib.suppress(FormatError):
            digest = Digest.parse(reference)
            for held in repository.held:
                if digest in held.image.documents:
                    data = held.bundle.document(digest)
                    return self._descriptor(held, digest, data), data
        return None

    @staticmethod
    def _descriptor(held: _Held, digest: Digest, data: bytes) -> Descriptor:
        if digest == held.image.root.digest:
            return held.image.root
        value = parse_object(data, str(digest))
        kind = value.get("mediaType")
        if not isinstance(kind, str):
            kind = "application/vnd.oci.image." + ("index" if "manifests" in value else "manifest") + ".v1+json"
        return Descriptor(kind, digest, len(data))

    def blob(self, name: str, digest: Digest, host: str) -> Blob | None:
        repository = self._now().find(name, host)
        for held in repository.held if repository else ():
            if digest in held.image.documents:
                data = held.bundle.document(digest)
                return Blob(len(data), partial(_tail, data), at_hand=True)
            for layer in held.image.layers:
                if layer.digest == digest:
                    content = BundleContent(held.bundle, silent)
                    if self._cache and self._cache.takes(layer):
                        return Blob(layer.size, partial(self._cache.open, layer, content.open), at_hand=True)
                    return Blob(layer.size, partial(content.open, layer))
        return None

    def tags(self, name: str, host: str) -> list[str] | None:
        found = self._now().find(name, host)
        return None if found is None else list(found.tags)

    def repositories(self) -> list[str]:
        return [path if domain == HUB else f"{domain}/{path}" for domain, path in self._now().repositories]

    def referrers(self, name: str, digest: Digest, host: str) -> list[dict[str, Any]]:
        """The manifests held here whose subject this is."""
        out: list[dict[str, Any]] = []
        for held in self._now().images:
            for each in held.image.documents:
                data = held.bundle.document(each)
                if b'"subject"' not in data:
                    continue
                with contextlib.suppress(TransferError):
                    subject = subject_of(data, str(each))
                    if subject and subject.digest == digest:
                        out.append(referrer_entry(data, each))
        return list({each["digest"]: each for each in out}.values())

    def page(self, under_way: int) -> str:
        names = self._now()
        bundles = {held.bundle.manifest.digest: held.bundle for held in names.images}
        held = [
            HeldBundle(
                str(digest),
                each.header.created,
                len(each.images),
                sum(blob.size for blob in (*each.header.packs, *each.header.catalog)),
            )
            for digest, each in bundles.items()
        ]
        return page([each.image for each in names.images], held, under_way)


def _tail(data: bytes, start: int) -> Iterator[bytes]:
    return iter([data[start:]] if start < len(data) else [])


def opened_bundles(folders: Sequence[Path], seeds: BundleList) -> list[Bundle]:
    """The bundles in these folders, each with the others to look up what it depends on."""
    out = [Bundle(folder, library=seeds) for folder in folders]
    for each in out:
        seeds.put(each)
        each.catalog()  # the first client does not wait for it
    return out
