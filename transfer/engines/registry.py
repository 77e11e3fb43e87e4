"""Images in registries, by name: pulled blob by blob with their digests, pushed with what the registry lacks."""

from __future__ import annotations

import contextlib
import fnmatch
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from transfer.engines.base import (
    ImageSink,
    ImageSource,
    RegistryOptions,
    ResolvedImage,
    SinkOptions,
    SourceOptions,
    SourceTraits,
)
from transfer.engines.blobs import BlobSource, Root, Suits
from transfer.engines.clients import Clients
from transfer.engines.distribution import RegistryClient, fallback_tag
from transfer.engines.index import Broken
from transfer.engines.savestream import tail
from transfer.errors import Damaged, FormatError, NotFound, TransferError, TryAgain, UsageError
from transfer.events import Observer
from transfer.model import HUB, Descriptor, Digest, Reference
from transfer.streams import Readable, parse_object

GLOB = frozenset("*?[")
COSIGN = ("sig", "att", "sbom")
"""What cosign's tags end with: `sha256-<hex>.sig` (sigstore/cosign, SIGNATURE_SPEC.md)."""
REFERRERS_MAX = 1000
AGAIN_MAX = 8
"""So often the reading or sending of one blob goes on after a cut without a byte of progress."""
_HOST = re.compile(
    r"(localhost|[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?|[A-Za-z0-9-]+:[0-9]{1,5}(?=/)"
)


def split_place(text: str) -> tuple[str, str]:
    """`//host/app:1` is an image, `//host` or `//host/team` (no tag) a place in which names are looked up."""
    rest = text.removeprefix("//").rstrip("/") if text.startswith("//") else ""
    if not rest:
        raise UsageError(f"docker:{text}: the registry is missing", hint="write docker://HOST/NAME:TAG")
    first = rest.partition("/")[0]
    last = rest.rpartition("/")[2]
    if "/" not in rest and _HOST.fullmatch(first):
        return rest, ""
    tagged = ":" in last or "@" in rest or GLOB & set(rest)
    return ("", rest) if tagged or not _HOST.match(f"{first}/") else (rest, "")


def open_source(place: str, options: SourceOptions) -> ImageSource:
    """Registries by name: any host, or the one that is named."""
    return RegistrySource(place, options.registry, options.observer)


def open_sink(place: str, options: SinkOptions) -> ImageSink:
    """A registry, or a namespace in one."""
    from transfer.engines.registry_sink import RegistrySink

    return RegistrySink(place, options.registry, options.observer, options.platform)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a blob can be had."""

    client: RegistryClient
    repository: str


class RegistrySource(BlobSource):
    """Images by name. A tag is asked for once; everything else is fetched by digest."""

    traits = SourceTraits(random_access=True, keeps_digest=True, host=True, ranges=True, remote=True)

    def __init__(self, place: str, options: RegistryOptions, observer: Observer) -> None:
        super().__init__(f"the registry {place}" if place else "the registries")
        self._prefix = place
        self._clients = Clients(options, observer)
        self._places: dict[Digest, _Place] = {}
        self._manifests: dict[Digest, bytes] = {}
        self._lock = threading.Lock()

    def _full(self, name: str) -> str:
        """A name as it is asked for: within the place that was named, or anywhere."""
        return f"{self._prefix}/{name}" if self._prefix and not name.startswith(f"{self._prefix}/") else name

    def root(self, reference: str, suits: Suits) -> Root:
        name = self._full(reference)
        try:
            wanted = Reference.parse(name)
        except UsageError as error:
            raise NotFound(f"{self.where}: {reference!r:.100} is not the name of an image") from error
        client = self._clients.of(wanted.domain)
        found = client.manifest(wanted.path, str(wanted.digest) if wanted.digest else wanted.tag)
        if found is None:
            raise NotFound(f"{client.where} has no image {wanted.familiar}", hint=self._near(client, wanted))
        root, data = found
        self._effort.spend(len(data))
        self._learn(_Place(client, wanted.path), root, data)
        return root, (wanted.familiar,)

    @staticmethod
    def _near(client: RegistryClient, wanted: Reference) -> str:
        """What else the repository has, for a hint."""
        with contextlib.suppress(TransferError):
            tags = client.tags(wanted.path)
            if tags:
                return f"it has {', '.join(sorted(tags)[-8:])}"
        return "check the name; a private repository needs: transfer login"

    def _learn(self, place: _Place, descriptor: Descriptor, data: bytes) -> None:
        """Remember where a document's children are."""
        with self._lock:
            self._places.setdefault(descriptor.digest, place)
            self._manifests[descriptor.digest] = data
            with contextlib.suppress(FormatError):
                value = parse_object(data, str(descriptor.digest))
                children = [*_listed(value, "manifests"), *_listed(value, "layers"), value.get("config")]
                for each in children:
                    if isinstance(each, dict) and isinstance(each.get("digest"), str):
                        with contextlib.suppress(FormatError):
                            self._places.setdefault(Digest.parse(each["digest"]), place)

    def _read_document(self, descriptor: Descriptor) -> bytes | None:
        known = self._manifests.get(descriptor.digest)
        if known is not None:
            return known
        place = self._places.get(descriptor.digest)
        if place is None:
            return None
        if not (descriptor.is_index or descriptor.is_manifest):
            return super()._read_document(descriptor)
        found = place.client.manifest(place.repository, str(descriptor.digest))
        if found is None:
            return None
        self._learn(place, descriptor, found[1])
        return found[1]

    def roots(self, pattern: str = "") -> tuple[Sequence[Root], Sequence[Broken]]:
        """The tags of a repository, or of those that match a pattern where the registry lists its repositories."""
        repository, tag = self._split(pattern)
        domain, path = repository
        client = self._clients.of(domain)
        paths = [path]
        if GLOB & set(path):
            paths = [each for each in client.catalog() if fnmatch.fnmatchcase(each, path)]
        out, broken = [], []
        for each in paths:
            for name in client.tags(each):
                if fnmatch.fnmatchcase(name, tag):
                    full = Reference(domain, each, name)
                    try:
                        out.append(self.root(str(full), lambda root: True))
                    except TransferError as error:
                        broken.append(Broken((full.familiar,), Digest("sha256:" + "0" * 64), error))
        return _merged(out), broken

    def _split(self, pattern: str) -> tuple[tuple[str, str], str]:
        full = self._full(pattern) if pattern else self._prefix
        if full == self._prefix and "/" not in full:  # its colon is that of a port
            raise _no_list()
        head, _, last = full.rpartition("/")
        name, _, tag = last.partition(":")
        path = f"{head}/{name}" if head else name
        if not path or path == "*" or full in ("*", ""):
            raise _no_list()
        domain, slash, rest = path.partition("/")
        if not slash and self._prefix:
            return (path, "*"), tag or "*"
        if GLOB & set(domain):
            raise UsageError(f"{pattern!r:.100}: the host cannot be a pattern", hint="docker://HOST/PATTERN")
        if slash and ("." in domain or ":" in domain or domain == "localhost"):
            return (domain, rest), tag or "*"
        return (HUB, path if slash else f"library/{path}"), tag or "*"

    def referrers(self, image: ResolvedImage) -> list[ResolvedImage]:
        """See base.py, Referred. The registry's list, or the tag that stands for it, and the tags of cosign."""
        if image.root is None or not image.names:
            return []
        name = Reference.parse(image.names[0])
        client = self._clients.of(name.domain)
        tree = self._tree(image.root, image.platform)
        asked = [image.root.digest]
        asked += [each.descriptor.digest for each in tree.manifests if each.platform.os != "unknown"]
        asked, known = list(dict.fromkeys(asked)), {each.digest for each in tree.documents}
        out: list[ResolvedImage] = []
        for digest in asked:  # grows: what refers to a signature
            for reference in self._referring(client, name, digest):
                found = self.resolve(reference, None)
                if found.id not in known:
                    known.add(found.id)
                    asked.append(found.id)
                    out.append(found)
                if len(out) > REFERRERS_MAX:
                    raise FormatError(f"{client.where}: more than {REFERRERS_MAX} manifests refer to {name.familiar}")
        return out

    def _referring(self, client: RegistryClient, name: Reference, digest: Digest) -> list[str]:
        """The full names of what refers to a digest."""
        listed = client.referrers(name.path, digest)
        if listed is None:
            kept = client.fallback(name.path, digest).get("manifests")
            listed = [Descriptor.parse(each, client.where) for each in (kept if isinstance(kept, list) else [])]
        out = [str(replace(name, tag="", digest=each.digest)) for each in listed]
        for ending in COSIGN:
            tag = f"{fallback_tag(digest)}.{ending}"
            if client.head_manifest(name.path, tag) is not None:
                out.append(str(replace(name, tag=tag, digest=None)))
        return out

    def open(self, blob: Descriptor, start: int = 0) -> Readable:
        known = self._documents.get(blob.digest) or self._manifests.get(blob.digest)
        if known is not None:
            return tail(known, start)
        place = self._places.get(blob.digest)
        if place is None:
            raise NotFound(f"{self.where}: {blob.digest} is not part of any image that was named")
        return _Blob(place, blob, start)

    def close(self) -> None:
        self._clients.close()


def _no_list() -> UsageError:
    return UsageError("a registry cannot list all that it has", hint="name a repository: docker://HOST/NAME")


def _listed(value: dict[str, object], key: str) -> list[object]:
    found = value.get(key)
    return found if isinstance(found, list) else []


def _merged(roots: Sequence[Root]) -> list[Root]:
    """Each root once, with all its names."""
    names: dict[Digest, list[str]] = {}
    for root, named in roots:
        names.setdefault(root.digest, []).extend(named)
    unique = {root.digest: root for root, _ in roots}
    return [(root, tuple(names[digest])) for digest, root in unique.items()]


class _Blob:
    """A blob as it comes; after a cut it goes on where it stopped."""

    def __init__(self, place: _Place, blob: Descriptor, start: int) -> None:
        self._place, self._descriptor, self._at = place, blob, start
        self._stack = contextlib.ExitStack()
        self._blocks: Iterator[bytes] | None = None
        self._cuts = 0

    def read(self, size: int, /) -> bytes:
        while True:
            try:
                if self._blocks is None:
                    self._blocks = self._open()
                data = next(self._blocks, b"")
            except TryAgain:
                self.close()
                self._cuts += 1
                if self._cuts >= AGAIN_MAX:
                    raise
                continue
            if not data and self._at < self._descriptor.size:
                self.close()
                self._cuts += 1
                if self._cuts >= AGAIN_MAX:
                    raise Damaged(
                        f"{self._place.client.where}: blob {self._descriptor.digest} ends at byte {self._at} "
                        f"of {self._descriptor.size}"
                    )
                continue
            if not data:
                self.close()
            else:
                self._cuts = 0
            self._at += len(data)
            return data

    def _open(self) -> Iterator[bytes]:
        """From where it stopped. What breaks while a block is awaited comes out as TryAgain."""
        if self._descriptor.size and self._at >= self._descriptor.size:
            return iter(())
        place = self._place
        blocks = self._stack.enter_context(place.client.blob(place.repository, self._descriptor, self._at))
        return place.client.reading(blocks)

    def close(self) -> None:
        self._blocks = None
        with contextlib.suppress(TransferError):
            self._stack.close()
        self._stack = contextlib.ExitStack()
