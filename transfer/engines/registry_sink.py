"""Registries to push to: what a repository lacks, children first, the tag last."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from transfer.engines.base import (
    ALONE,
    Content,
    ImportedImage,
    RegistryOptions,
    SinkTraits,
    Status,
    Turn,
)
from transfer.engines.clients import Clients
from transfer.engines.distribution import RegistryClient, push
from transfer.engines.tree import tree_of
from transfer.engines.upload import Upload
from transfer.errors import EngineError, FormatError, UsageError
from transfer.events import Observer
from transfer.model import Descriptor, Digest, Image, Platform, Reference, is_name


@dataclass(frozen=True, slots=True)
class _Target:
    """Where an image is pushed to: one repository, and the tags it gets there ("" for none)."""

    client: RegistryClient
    repository: str
    tags: tuple[str, ...]


class RegistrySink:
    """A registry to push to. Children first, the tag last; what a repository has is not sent."""

    platform: Platform | None = None

    def __init__(self, place: str, options: RegistryOptions, observer: Observer) -> None:
        self.where = f"the registry {place}" if place else "the registries"
        self.traits = SinkTraits(keeps_digest=True, parallel=3, checks=True, artifacts=True, indexes=True)
        self._prefix = place
        self._clients = Clients(options, observer)
        self._lock = threading.Lock()
        self._there: dict[tuple[str, str, Digest], bool] = {}
        self._sources: dict[tuple[str, Digest], str] = {}

    def _target_name(self, name: str) -> Reference:
        """The name an image gets here: within the namespace that was named, its own path below that."""
        if not is_name(name):
            raise UsageError(f"{name!r:.100} is not a name for a registry", hint="--retag OLD=NEW gives it one")
        own = Reference.parse(name)
        if not self._prefix:
            return own
        tag = f":{own.tag}" if own.tag else f"@{own.digest}"
        return Reference.parse(f"{self._prefix}/{own.path}{tag}")

    def _targets(self, names: Sequence[str]) -> list[_Target]:
        found: dict[tuple[str, str], list[str]] = {}
        for name in names:
            target = self._target_name(name)
            found.setdefault((target.domain, target.path), []).append(target.tag)
        return [
            _Target(self._clients.of(domain), path, tuple(dict.fromkeys(tags)))
            for (domain, path), tags in found.items()
        ]

    def taken(
        self, image: Image, names: Sequence[str], content: Content, beside: Collection[Digest]
    ) -> dict[str, Digest]:
        out = {}
        for name in names:
            target = self._target_name(name)
            if target.tag:
                client = self._clients.of(target.domain)
                told = client.head_manifest(target.path, target.tag, push(target.path))
                if told and told != str(image.root.digest):
                    with contextlib.suppress(FormatError):
                        out[name] = Digest.parse(told)
        return out

    def _has(self, target: _Target, digest: Digest) -> bool:
        key = (target.client.host, target.repository, digest)
        with self._lock:
            known = self._there.get(key)
        if known is None:
            known = target.client.has_blob(target.repository, digest, push(target.repository))
            self._note(target, digest, known)
        return known

    def _note(self, target: _Target, digest: Digest, there: bool = True) -> None:
        with self._lock:
            self._there[target.client.host, target.repository, digest] = there
            if there:
                self._sources.setdefault((target.client.host, digest), target.repository)

    def missing(self, image: Image, content: Content) -> list[Descriptor] | None:
        targets = self._targets(image.names)
        if not targets:
            raise UsageError(
                f"{image.label} has no name, and a registry keeps images by name", hint="--retag DIGEST=NAME gives one"
            )
        lacking = [layer for layer in image.layers if not all(self._has(each, layer.digest) for each in targets)]
        if lacking:
            return lacking
        return None if all(self._is_there(each, image) for each in targets) else []

    def _is_there(self, target: _Target, image: Image) -> bool:
        wanted = str(image.root.digest)
        references = [tag or wanted for tag in target.tags]
        scope = push(target.repository)
        return all(target.client.head_manifest(target.repository, each, scope) == wanted for each in references)

    def put(self, image: Image, names: Sequence[str], content: Content, turn: Turn = ALONE) -> ImportedImage:
        targets = self._targets(names)
        missing = self.missing(replace(image, names=tuple(names)), content)
        keys = {
            (each.client.host, each.repository, layer.digest): layer
            for each in targets
            for layer in missing or ()
            if not self._has(each, layer.digest)
        }
        mine = turn.claim(lambda: keys)
        sent = 0
        for target in targets:
            for layer in missing or ():
                if (target.client.host, target.repository, layer.digest) in mine:
                    sent += self._send(target, layer, content)
        turn.wait()
        for target in targets:
            if missing is not None:
                self._documents(target, image, content)
            self._tag(target, image, content)
        status: Status = "present" if missing is None else "imported"
        held = tuple(str(self._target_name(name).familiar) for name in names)
        return ImportedImage(
            image, status, image.root.digest, held, sent, len(image.layers) - min(sent, len(image.layers))
        )

    def _send(self, target: _Target, blob: Descriptor, content: Content) -> int:
        """Get a layer into a repository: from another repository of this host, or from the bundle. How many were sent (0 or 1)."""
        with self._lock:
            other = self._sources.get((target.client.host, blob.digest), "")
        mounted = Upload(target.client, target.repository).put(
            blob, lambda start: content.open(blob, start), mount=other if other != target.repository else ""
        )
        self._note(target, blob.digest)
        return 0 if mounted else 1

    def _documents(self, target: _Target, image: Image, content: Content) -> None:
        """Configs as blobs, manifests by digest, the deepest first: a registry refuses one whose children it lacks."""
        tree = tree_of(image, content.document)
        manifests = {each.digest: each for each in tree.documents if each.is_index or each.is_manifest}
        for each in tree.documents:
            if each.digest not in manifests and not self._has(target, each.digest):
                data = content.document(each.digest)
                Upload(target.client, target.repository).put(each, partial(_tail, data))
                self._note(target, each.digest)
        for each in reversed(tree.documents):
            if each.digest in manifests and each.digest != image.root.digest:
                self._put_manifest(target, each, str(each.digest), content)

    def _tag(self, target: _Target, image: Image, content: Content) -> None:
        root = image.root
        for tag in target.tags or ("",):
            reference = tag or str(root.digest)
            scope = push(target.repository)
            if target.client.head_manifest(target.repository, reference, scope) != str(root.digest):
                self._put_manifest(target, root, reference, content, image)
            told = target.client.head_manifest(target.repository, reference, scope)
            if told != str(root.digest):
                raise EngineError(
                    f"{target.client.where}: {target.repository}:{reference} is {told}, not {root.digest}"
                )

    def _put_manifest(
        self, target: _Target, each: Descriptor, reference: str, content: Content, image: Image | None = None
    ) -> None:
        data = content.document(each.digest)
        path = f"/v2/{target.repository}/manifests/{reference}"
        headers = {"Content-Type": each.media_type, "Content-Length": str(len(data))}
        try:
            reply = target.client.request(
                "PUT", path, scope=push(target.repository), headers=headers, content=data, ok=frozenset({200, 201, 202})
            )
        except EngineError as error:
            if image is not None and image.absent and "UNKNOWN" in error.message:
                raise EngineError(
                    f"{error.message}: the bundle holds {', '.join(map(str, image.platforms))} of this image, "
                    "and this registry accepts only whole indexes",
                    hint="export it with --platform all",
                ) from error
            raise
        if reply.status == 404:
            raise EngineError(f"{target.client.where}: it does not accept {target.repository}:{reference}")

    def close(self, *, failed: bool) -> None:
        self._clients.close()


def _tail(data: bytes, start: int) -> Iterator[bytes]:
    return iter([data[start:]] if start < len(data) else [])
