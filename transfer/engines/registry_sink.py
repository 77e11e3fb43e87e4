"""Registries to push to: what a repository lacks, children first, the tag last."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

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
from transfer.engines.distribution import RegistryClient, fallback_tag, push
from transfer.engines.tree import image_of, is_artifact, platform_image, referrer_entry, subject_of, tree_of, walk
from transfer.engines.upload import Upload, remembered
from transfer.errors import EngineError, FormatError, UsageError
from transfer.events import Observer
from transfer.model import OCI_INDEX, Descriptor, Digest, Image, Platform, Reference, is_name

WRITES_MAX = 8
"""So often a list of referrers is written while others write it, too."""


@dataclass(frozen=True, slots=True)
class _Target:
    """Where an image is pushed to: one repository, and the tags it gets there ("" for none)."""

    client: RegistryClient
    repository: str
    tags: tuple[str, ...]


class RegistrySink:
    """A registry to push to. Children first, the tag last; what a repository has is not sent."""

    platform: Platform | None = None

    def __init__(
        self, place: str, options: RegistryOptions, observer: Observer, wanted: Platform | None = None
    ) -> None:
        """`wanted`: the platform that is pushed where only one is."""
        self.where = f"the registry {place}" if place else "the registries"
        self.traits = SinkTraits(keeps_digest=True, parallel=3, checks=True, artifacts=True, indexes=True)
        self._prefix, self._options, self._wanted = place, options, wanted or Platform.here()
        self._clients = Clients(options, observer)
        self._lock = threading.Lock()
        self._listing = threading.Lock()
        self._uploads = remembered()
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

    def client(self, host: str) -> RegistryClient:
        return self._clients.of(host)

    def comes_from(self, name: Reference, image: Image) -> None:
        """Where the blobs of an image are already, in one of the registries."""
        with self._lock:
            for digest in (*image.documents, *(layer.digest for layer in image.layers)):
                self._sources.setdefault((name.domain, digest), name.path)

    def _pushed(self, image: Image, content: Content) -> Image:
        """What is pushed of an image: all of it, or with `--index platform` the manifest of one platform."""
        if self._options.index != "platform" or not image.root.is_index:
            return image
        tree = tree_of(image, content.document)
        runnable = [each for each in tree.manifests if each.platform.os != "unknown"]
        if is_artifact(tree) or not runnable:
            return image
        alone = runnable[0].descriptor if len(runnable) == 1 else None
        root = alone or platform_image(image, content.document, self._wanted).manifest
        return image_of(image.names, root, walk(root, lambda each: content.document(each.digest)))

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
        image = self._pushed(image, content)
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
        image = self._pushed(image, content)
        targets = self._targets(image.names)
        if not targets:
            raise UsageError(
                f"{image.label} has no name, and a registry keeps images by name", hint="--retag DIGEST=NAME gives one"
            )
        lacking = [layer for layer in image.layers if not all(self._has(each, layer.digest) for each in targets)]
        if lacking:
            return lacking
        subject = subject_of(content.document(image.root.digest), str(image.root.digest))
        return None if all(self._is_there(each, image, subject) for each in targets) else []

    def _is_there(self, target: _Target, image: Image, subject: Descriptor | None) -> bool:
        wanted = str(image.root.digest)
        references = [tag or wanted for tag in target.tags]
        scope = push(target.repository)
        tagged = all(target.client.head_manifest(target.repository, each, scope) == wanted for each in references)
        return tagged and (subject is None or self._refers(target, image.root.digest, subject.digest))

    def put(self, image: Image, names: Sequence[str], content: Content, turn: Turn = ALONE) -> ImportedImage:
        whole, image = image, self._pushed(image, content)
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
            self._refer(target, image, content)
        status: Status = "present" if missing is None else "imported"
        held = tuple(str(self._target_name(name).familiar) for name in names)
        present = len(image.layers) - min(sent, len(image.layers))
        note = ""
        if image.root.digest != whole.root.digest:
            note = f"{', '.join(map(str, image.platforms))} alone, so its digest is not {whole.root.digest.short}"
        return ImportedImage(whole, status, image.root.digest, held, sent, present, note)

    def _send(self, target: _Target, blob: Descriptor, content: Content) -> int:
        """Get a layer into a repository: from another repository of this host, or from the bundle. How many were sent (0 or 1)."""
        with self._lock:
            other = self._sources.get((target.client.host, blob.digest), "")
        upload = Upload(target.client, target.repository, self._uploads)
        source = other if other != target.repository else ""
        mounted = upload.put(blob, lambda start: content.open(blob, start), mount=source)
        self._note(target, blob.digest)
        return 0 if mounted else 1

    def _documents(self, target: _Target, image: Image, content: Content) -> None:
        """Configs as blobs, manifests by digest, the deepest first: a registry refuses one whose children it lacks."""
        tree = tree_of(image, content.document)
        manifests = {each.digest: each for each in tree.documents if each.is_index or each.is_manifest}
        for each in tree.documents:
            if each.digest not in manifests and not self._has(target, each.digest):
                data = content.document(each.digest)
                with self._lock:
                    other = self._sources.get((target.client.host, each.digest), "")
                source = other if other != target.repository else ""
                Upload(target.client, target.repository).put(each, partial(_tail, data), mount=source)
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
        try:
            self._put_data(target, reference, each.media_type, content.document(each.digest))
        except EngineError as error:
            if image is not None and "UNKNOWN" in error.message and tree_of(image, content.document).absent:
                raise EngineError(
                    f"{error.message}: the bundle holds {', '.join(map(str, image.platforms))} of this image, "
                    "and this registry accepts only whole indexes",
                    hint="export it with --platform all, or push one platform with --index platform",
                ) from error
            raise

    # what refers to another manifest

    def _refers(self, target: _Target, digest: Digest, subject: Digest) -> bool:
        """Whether a registry lists one manifest among what refers to another."""
        listed = target.client.referrers(target.repository, subject)
        if listed is not None:
            return any(each.digest == digest for each in listed)
        return any(
            each.get("digest") == str(digest) for each in _entries(target.client.fallback(target.repository, subject))
        )

    def _refer(self, target: _Target, image: Image, content: Content) -> None:
        """Where the registry keeps no list of referrers: the tag that clients look at (distribution-spec, referrers tag schema).

        What others have in that list stays. Who writes it at the same moment may win, so it is looked at again afterwards.
        """
        data = content.document(image.root.digest)
        subject = subject_of(data, str(image.root.digest))
        if subject is None or target.client.referrers(target.repository, subject.digest) is not None:
            return
        with self._listing:
            for _ in range(WRITES_MAX):
                found = target.client.fallback(target.repository, subject.digest)
                entries = _entries(found)
                if any(each.get("digest") == str(image.root.digest) for each in entries):
                    return
                found |= {"schemaVersion": 2, "mediaType": OCI_INDEX}
                found["manifests"] = [*entries, referrer_entry(data, image.root.digest)]
                self._put_data(target, fallback_tag(subject.digest), OCI_INDEX, json.dumps(found).encode())
        raise EngineError(
            f"{target.client.where}: {target.repository}: others write the list of what refers to {subject.digest.short}",
            hint="run the same command again",
        )

    def _put_data(self, target: _Target, reference: str, media_type: str, data: bytes) -> None:
        reply = target.client.request(
            "PUT",
            f"/v2/{target.repository}/manifests/{reference}",
            scope=push(target.repository),
            headers={"Content-Type": media_type, "Content-Length": str(len(data))},
            content=data,
            ok=frozenset({200, 201, 202}),
        )
        if reply.status == 404:
            raise EngineError(f"{target.client.where}: it does not accept {target.repository}:{reference}")

    def close(self, *, failed: bool) -> None:
        self._clients.close()


def _entries(index: dict[str, Any]) -> list[dict[str, Any]]:
    found = index.get("manifests")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _tail(data: bytes, start: int) -> Iterator[bytes]:
    return iter([data[start:]] if start < len(data) else [])
