"""Images in registries, by name: pulled blob by blob with their digests, pushed with what the registry lacks."""

from __future__ import annotations

import contextlib
import fnmatch
import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

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
from transfer.engines.clients import Clients, Place
from transfer.engines.distribution import fallback_tag
from transfer.engines.index import Broken
from transfer.engines.savestream import tail
from transfer.errors import Damaged, FormatError, NotFound, TransferError, TryAgain, UsageError
from transfer.events import Noted, Observer
from transfer.model import HUB, Descriptor, Digest, Image, Reference
from transfer.streams import Readable, parse_object

LOG = logging.getLogger(__name__)
T = TypeVar("T")
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


class RegistrySource(BlobSource):
    """Images by name. A tag is asked for once; everything else is fetched by digest."""

    traits = SourceTraits(random_access=True, keeps_digest=True, host=True, ranges=True, remote=True)

    def __init__(self, place: str, options: RegistryOptions, observer: Observer) -> None:
        super().__init__(f"the registry {place}" if place else "the registries")
        self._prefix = place
        self._clients = Clients(options, observer)
        self._observer = observer
        self._places: dict[Digest, tuple[Place, ...]] = {}
        self._told: set[str] = set()
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
        places = self._clients.places(wanted)
        reference = str(wanted.digest) if wanted.digest else wanted.tag
        place, found = first_that_has(places, lambda each: each.client.manifest(each.repository, reference))
        if found is None:
            raise NotFound(f"{place.client.where} has no image {wanted.familiar}", hint=self._near(place))
        self._tell(wanted, place)
        root, data = found
        self._effort.spend(len(data))
        self._learn((place, *(each for each in places if each != place)), root, data)
        return root, (wanted.familiar,)

    def _tell(self, wanted: Reference, place: Place) -> None:
        """Say once where the images of a registry really come from."""
        if place.client.host != wanted.domain and wanted.domain not in self._told:
            self._told.add(wanted.domain)
            self._observer(Noted(f"{wanted.domain} through {place.client.host}"))

    @staticmethod
    def _near(place: Place) -> str:
        """What else the repository has, for a hint."""
        with contextlib.suppress(TransferError):
            tags = place.client.tags(place.repository)
            if tags:
                return f"it has {', '.join(sorted(tags)[-8:])}"
        return "check the name; a private repository needs: transfer login"

    def _learn(self, places: tuple[Place, ...], descriptor: Descriptor, data: bytes) -> None:
        """Remember where a document's children are."""
        with self._lock:
            self._places.setdefault(descriptor.digest, places)
            self._manifests[descriptor.digest] = data
            with contextlib.suppress(FormatError):
                value = parse_object(data, str(descriptor.digest))
                children = [*_listed(value, "manifests"), *_listed(value, "layers"), value.get("config")]
                for each in children:
                    if isinstance(each, dict) and isinstance(each.get("digest"), str):
                        with contextlib.suppress(FormatError):
                            self._places.setdefault(Digest.parse(each["digest"]), places)

    def _read_document(self, descriptor: Descriptor) -> bytes | None:
        known = self._manifests.get(descriptor.digest)
        if known is not None:
            return known
        places = self._places.get(descriptor.digest)
        if places is None:
            return None
        if not (descriptor.is_index or descriptor.is_manifest):
            return super()._read_document(descriptor)
        digest = str(descriptor.digest)
        _, found = first_that_has(places, lambda each: each.client.manifest(each.repository, digest))
        if found is None:
            return None
        self._learn(places, descriptor, found[1])
        return found[1]

    def roots(self, pattern: str = "") -> tuple[Sequence[Root], Sequence[Broken]]:
        """The tags of a repository, or of those that match a pattern where the registry lists its repositories."""
        repository, tag = self._split(pattern)
        domain, path = repository
        paths = [path]
        if GLOB & set(path):
            paths = [each for each in self._clients.of(domain).catalog() if fnmatch.fnmatchcase(each, path)]
        out, broken = [], []
        for each in paths:
            places = self._clients.places(Reference(domain, each))
            _, tags = first_that_has(places, lambda place: place.client.tags(place.repository) or None)
            for name in tags or ():
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
        place = self._places[image.root.digest][0]
        tree = self._tree(image.root, image.platform)
        asked = [image.root.digest]
        asked += [each.descriptor.digest for each in tree.manifests if each.platform.os != "unknown"]
        asked, known = list(dict.fromkeys(asked)), {each.digest for each in tree.documents}
        out: list[ResolvedImage] = []
        for digest in asked:  # grows: what refers to a signature
            for reference in self._referring(place, name, digest):
                found = self.resolve(reference, None)
                if found.id not in known:
                    known.add(found.id)
                    asked.append(found.id)
                    out.append(found)
                if len(out) > REFERRERS_MAX:
                    raise FormatError(
                        f"{place.client.where}: more than {REFERRERS_MAX} manifests refer to {name.familiar}"
                    )
        return out

    @staticmethod
    def _referring(place: Place, name: Reference, digest: Digest) -> list[str]:
        """The full names of what refers to a digest."""
        client, repository = place.client, place.repository
        listed = client.referrers(repository, digest)
        if listed is None:
            kept = client.fallback(repository, digest).get("manifests")
            listed = [Descriptor.parse(each, client.where) for each in (kept if isinstance(kept, list) else [])]
        out = [str(replace(name, tag="", digest=each.digest)) for each in listed]
        for ending in COSIGN:
            tag = f"{fallback_tag(digest)}.{ending}"
            if client.head_manifest(repository, tag) is not None:
                out.append(str(replace(name, tag=tag, digest=None)))
        return out

    def known(self, digest: Digest) -> bytes:
        """A document of an image that was resolved. NotFound for any other."""
        data = self._manifests.get(digest) or self._documents.get(digest)
        if data is None:
            raise NotFound(f"{self.where}: {digest} is not a document of any image that was named")
        return data

    def images(
        self, found: Sequence[ResolvedImage], documents: dict[Digest, bytes], sizes: Mapping[Digest, int]
    ) -> list[Image]:
        """As they were when they were pinned. A tag that has moved meanwhile is told."""
        for each in found:
            name = Reference.parse(each.names[0]) if each.names else None
            if each.root and name and name.tag and not name.digest:
                place = self._places[each.root.digest][0]
                with contextlib.suppress(TransferError):
                    if place.client.head_manifest(place.repository, name.tag) != str(each.root.digest):
                        self._observer(
                            Noted(f"{name.familiar} is another image there by now; the bundle has {each.root.digest}")
                        )
        return super().images(found, documents, sizes)

    def open(self, blob: Descriptor, start: int = 0) -> Readable:
        known = self._documents.get(blob.digest) or self._manifests.get(blob.digest)
        if known is not None:
            return tail(known, start)
        places = self._places.get(blob.digest)
        if places is None:
            raise NotFound(f"{self.where}: {blob.digest} is not part of any image that was named")
        return _Blob(places, blob, start)

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


def first_that_has(places: Sequence[Place], ask: Callable[[Place], T | None]) -> tuple[Place, T | None]:
    """The first place that answers, and its answer. A mirror that fails or lacks something is passed over; the last place counts."""
    for place in places[:-1]:
        try:
            found = ask(place)
            if found is not None:
                return place, found
            LOG.info("%s does not have it", place.client.where)
        except TransferError as error:
            LOG.info("%s is passed over: %s", place.client.where, error.message)
    return places[-1], ask(places[-1])


class _Blob:
    """A blob as it comes; after a cut it goes on where it stopped, and from the next place if one fails for good."""

    def __init__(self, places: Sequence[Place], blob: Descriptor, start: int) -> None:
        self._place, self._others = places[0], list(places[1:])
        self._descriptor, self._at = blob, start
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
                if not self._once_more():
                    raise
                continue
            except TransferError as error:
                self.close()
                if not self._others:
                    raise
                LOG.info("%s is passed over: %s", self._place.client.where, error.message)
                self._place = self._others.pop(0)
                continue
            if not data and self._at < self._descriptor.size:
                if not self._once_more():
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

    def _once_more(self) -> bool:
        """After a cut: whether it is worth another try."""
        self.close()
        self._cuts += 1
        if self._cuts >= AGAIN_MAX and self._others:
            self._place, self._cuts = self._others.pop(0), 0
        return self._cuts < AGAIN_MAX

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
