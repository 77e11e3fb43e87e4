"""Names of images in registries: given, also from one registry to another, and taken."""

from __future__ import annotations

from collections.abc import Iterator

from transfer.engines.base import Keeper, RegistryOptions, SourceOptions
from transfer.engines.distribution import delete, push
from transfer.engines.registry import RegistrySource
from transfer.engines.registry_sink import RegistrySink
from transfer.errors import EngineError, NotFound, UsageError
from transfer.events import Observer
from transfer.model import Descriptor, Digest, Reference, is_name
from transfer.streams import blocks, verified


def open_keeper(place: str, options: SourceOptions) -> Keeper:
    """Names in registries."""
    return RegistryKeeper(options.registry, options.observer)


class RegistryKeeper:
    """See base.py, Keeper. A registry knows no containers, so nothing is ever in use there."""

    where = "the registries"

    def __init__(self, options: RegistryOptions, observer: Observer) -> None:
        self._source = RegistrySource("", options, observer)
        self._sink = RegistrySink("", options, observer)

    def tag(self, source: str, name: str) -> Digest:
        """Within a host by mounting; between hosts the blobs go through this one, each checked on its way."""
        target = Reference.parse(name)
        if target.digest:
            raise UsageError(f"{name}: a new name has a tag, not a digest")
        found = self._source.resolve(source, None)
        image = self._source.images([found], {}, {})[0]
        self._sink.comes_from(Reference.parse(source), image)
        landed = self._sink.put(image, [target.familiar], _Content(self._source))
        return landed.id

    def users(self, name: str) -> list[str]:
        wanted = self._named(name)
        client = self._sink.client(wanted.domain)
        if client.head_manifest(wanted.path, wanted.tag or str(wanted.digest)) is None:
            raise NotFound(f"{client.where} has no image {wanted.familiar}")
        return []

    @staticmethod
    def _named(name: str) -> Reference:
        if not is_name(name):
            raise UsageError(f"{name!r:.100} is not an image name", hint="name the image, with its tag")
        wanted = Reference.parse(name)
        if wanted.digest and wanted.tag:
            raise UsageError(f"{name}: a tag and a digest at once", hint="name the tag, or the digest")
        return wanted

    def untag(self, name: str) -> None:
        """By tag alone, or by a digest that the user wrote: deleting the digest of a tag would take every other tag of it along."""
        wanted = self._named(name)
        client = self._sink.client(wanted.domain)
        reference = wanted.tag or str(wanted.digest)
        path = f"/v2/{wanted.path}/manifests/{reference}"
        scope = f"{push(wanted.path)} {delete(wanted.path)}"
        reply = client.request("DELETE", path, scope=scope, ok=frozenset({200, 202, 204, 400, 405}))
        if reply.status == 404:
            raise NotFound(f"{client.where} has no image {wanted.familiar}")
        if reply.status in (400, 405):
            raise EngineError(
                f"{client.where} cannot delete {wanted.familiar} (HTTP {reply.status})",
                hint="the registry deletes nothing, or whole digests alone, with all their tags: NAME@DIGEST asks for that",
            )
        if client.head_manifest(wanted.path, reference) is not None:
            raise EngineError(f"{client.where} still has {wanted.familiar}")

    def close(self) -> None:
        self._source.close()
        self._sink.close(failed=False)


class _Content:
    """See base.py, Content: what a registry has."""

    def __init__(self, source: RegistrySource) -> None:
        self._source = source
        self._sizes: dict[Digest, Descriptor] = {}

    def document(self, digest: Digest) -> bytes:
        return self._source.known(digest)

    def plain(self, layer: Descriptor, diff_id: Digest) -> Descriptor:
        return layer

    def open(self, descriptor: Descriptor, start: int = 0) -> Iterator[bytes]:
        stream = self._source.open(descriptor, start)
        return blocks(stream) if start else verified(stream, descriptor.digest, descriptor.size, self._source.where)
