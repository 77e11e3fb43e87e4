"""Images in registries, by name: pulled blob by blob with their digests, pushed with what the registry lacks."""

from __future__ import annotations

import contextlib
import fnmatch
import itertools
import re
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from transfer.engines.base import (
    ALONE,
    Content,
    ImageSink,
    ImageSource,
    ImportedImage,
    RegistryOptions,
    SinkOptions,
    SinkTraits,
    SourceOptions,
    SourceTraits,
    Status,
    Turn,
)
from transfer.engines.blobs import BlobSource, Root, Suits
from transfer.engines.distribution import HUB, RegistryClient, pull, push
from transfer.engines.http import BUSY
from transfer.engines.index import Broken
from transfer.engines.savestream import tail
from transfer.engines.tree import tree_of
from transfer.errors import Damaged, EngineError, FormatError, NotFound, TransferError, TryAgain, UsageError
from transfer.events import Observer
from transfer.model import Descriptor, Digest, Image, Platform, Reference, is_name
from transfer.streams import Readable, parse_object

GLOB = frozenset("*?[")
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
    return RegistrySink(place, options.registry, options.observer)


class _Clients:
    """One client for each host."""

    def __init__(self, options: RegistryOptions, observer: Observer) -> None:
        self._options, self._observer = options, observer
        self._clients: dict[str, RegistryClient] = {}
        self._lock = threading.Lock()

    def of(self, host: str) -> RegistryClient:
        with self._lock:
            if host not in self._clients:
                self._clients[host] = RegistryClient(host, self._options, self._observer)
            return self._clients[host]

    def close(self) -> None:
        for each in self._clients.values():
            each.close()


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
        self._clients = _Clients(options, observer)
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
        head, _, last = full.rpartition("/")
        name, _, tag = last.partition(":")
        path = f"{head}/{name}" if head else name
        if not path or path == "*" or full in ("*", ""):
            raise UsageError("a registry cannot list all that it has", hint="name a repository: docker://HOST/NAME")
        domain, slash, rest = path.partition("/")
        if not slash and self._prefix:
            return (path, "*"), tag or "*"
        if GLOB & set(domain):
            raise UsageError(f"{pattern!r:.100}: the host cannot be a pattern", hint="docker://HOST/PATTERN")
        if slash and ("." in domain or ":" in domain or domain == "localhost"):
            return (domain, rest), tag or "*"
        return (HUB, path if slash else f"library/{path}"), tag or "*"

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
        self._clients = _Clients(options, observer)
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
        if reply.status_code == 404:
            raise EngineError(f"{target.client.where}: it does not accept {target.repository}:{reference}")

    def close(self, *, failed: bool) -> None:
        self._clients.close()


def _tail(data: bytes, start: int) -> Iterator[bytes]:
    return iter([data[start:]] if start < len(data) else [])


class Upload:
    """One blob on its way into a repository: mounted from another one, or sent whole; after a cut it goes on where the registry says."""

    def __init__(self, client: RegistryClient, repository: str) -> None:
        self._client, self._repository = client, repository
        self._scope = push(repository)

    def put(self, blob: Descriptor, open_at: Callable[[int], Iterator[bytes]], *, mount: str = "") -> bool:
        """Send it; whether it was mounted instead. `open_at` gives the bytes from an offset on."""
        location = self._begin(blob, mount)
        if location is None:
            return True
        start = 0
        for attempt in itertools.count(1):
            try:
                self._send(location, blob, start, open_at)
                return False
            except (TryAgain, EngineError) as error:
                if attempt >= AGAIN_MAX or (isinstance(error, EngineError) and "416" not in error.message):
                    raise
                self._client.gate.busy(error.message)
                there = self._status(location) if isinstance(error, TryAgain) else None
                if there is None:
                    location, start = self._begin(blob, "") or location, 0
                else:
                    location, start = there
        raise AssertionError("the loop returns or raises")

    def _begin(self, blob: Descriptor, mount: str) -> str | None:
        """A new upload's address; None if the blob was mounted from the repository that is named."""
        path = f"/v2/{self._repository}/blobs/uploads/"
        scope = self._scope
        if mount:
            path += f"?mount={blob.digest}&from={mount}"
            scope = f"{self._scope} {pull(mount)}"
        try:
            reply = self._client.request(
                "POST", path, scope=scope, headers={"Content-Length": "0"}, ok=frozenset({201, 202})
            )
        except TransferError:
            if not mount:
                raise
            return self._begin(blob, "")
        if reply.status_code == 201:
            return None
        found = reply.headers.get("location", "")
        if not found:
            raise EngineError(f"{self._client.where}: it began an upload and does not say where")
        return self._client.joined(path, found)

    def _send(self, location: str, blob: Descriptor, start: int, open_at: Callable[[int], Iterator[bytes]]) -> None:
        """All that is left in one PUT with its length: what every registry takes."""
        url = f"{location}{'&' if '?' in location else '?'}digest={blob.digest}"
        left = blob.size - start
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(left)}
        if start:
            headers["Content-Range"] = f"{start}-{blob.size - 1}"
        with self._client.stream(
            "PUT",
            url,
            scope=self._scope,
            headers=headers,
            content=lambda: open_at(start),
            ok=frozenset({201, 202, 204}),
            repeat=False,
        ):
            return

    def _status(self, location: str) -> tuple[str, int] | None:
        """Where an upload goes on, and how many bytes the registry has; None if it has forgotten it."""
        try:
            reply = self._client.request("GET", location, scope=self._scope, ok=frozenset({200, 202, 204} | BUSY))
        except EngineError:
            return None
        if reply.status_code not in (200, 202, 204):
            return None
        found = re.fullmatch(r"(?:bytes=)?0-(\d{1,18})", reply.headers.get("range", ""))
        following = reply.headers.get("location", "")
        # "0-0" is what an empty upload says, too (distribution): from the start then, and anew if one byte was there
        end = int(found[1]) if found else 0
        return (self._client.joined(location, following) if following else location), end + 1 if end else 0
