"""Docker's images: read from the daemon's own files or through its API (`docker save`), and taken by load or pull."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from transfer.engines.base import (
    Content,
    Found,
    Landed,
    Listed,
    Offer,
    PlatformImage,
    ReadWay,
    SinkTraits,
    SourceTraits,
    no_matter,
    platform_image,
    tree_of,
)
from transfer.engines.daemon import DockerClient
from transfer.engines.ocilayout import LAYOUT, name_annotations
from transfer.engines.overlay import ASK, OverlayImages
from transfer.engines.saves import Saves
from transfer.errors import Damaged, EngineError, NoSpace, NotFound, TransferError, TryAgain
from transfer.events import Noted, Observer, silent
from transfer.model import OCI_INDEX, Descriptor, Digest, Image, Platform, Reference, blob_path, is_name
from transfer.streams import canonical_json, coalesced, parse_object, read_small, sha256
from transfer.tarfmt import RECORD, make_header, member, padding

TEMPORARY = "transfer-import"
"""First part of the repository name that images have while they are pulled from this process."""

SENDING = 2
"""Images that are being sent at once: each has some 50 MiB of memory here. The others wait for the daemon."""
Way = Literal["auto", "pull", "load"]
_STALE = re.compile(rf"127\.0\.0\.1:[0-9]+/{TEMPORARY}/[0-9a-f]+@sha256:[0-9a-f]{{64}}")


class DockerSource:
    """A daemon's images: out of its own files where this process may read them (`files`), else by `docker save` (`api`)."""

    def __init__(self, client: DockerClient, *, way: ReadWay = "auto", observer: Observer = silent) -> None:
        self._client, self._way, self._observer = client, way, observer
        self.where = client.where
        files = OverlayImages.of(client.info) if client.local and way != "api" else None
        if way == "files" and files is None:
            raise EngineError(
                f"{client.where}: its files cannot be read from here",
                hint="that takes root, on the daemon's own host, and an overlay2 store; --via api asks the daemon",
            )
        self.traits = SourceTraits(
            random_access=files is not None, keeps_digest=client.has_containerd_store(), host=True
        )
        self._reader: OverlayImages | Saves = files or Saves(self.where, self._save)

    def names(self) -> list[Listed]:
        out = []
        for each in self._client.images():
            tags = tuple(tag for tag in each.get("RepoTags") or [] if tag != "<none>:<none>")
            layers = (self._client.inspect(each["Id"]) or {}).get("RootFS", {}).get("Layers") or []
            digest = Digest.parse(each["Id"], self.where)
            out.append(Listed(tags, digest, each.get("Size", 0), each.get("Created", 0), len(layers)))
        return out

    def resolve(self, reference: str, platform: Platform | None) -> Found:
        value = self._client.inspect(reference)
        if value is None:
            raise NotFound(f"{self.where} has no image {reference!r:.200}", hint="`transfer images` lists what it has")
        own = Platform(value.get("Os") or "linux", value.get("Architecture") or "amd64", value.get("Variant") or "")
        if platform and not self.traits.keeps_digest and not platform.accepts(own):
            raise NotFound(f"{self.where}: {reference} is for {own}, not {platform}")
        by_name = is_name(reference) and not reference.startswith(value["Id"].removeprefix("sha256:")[: len(reference)])
        tags = tuple(value.get("RepoTags") or ())
        familiar = Reference.parse(reference).familiar if by_name else ""
        names = (familiar,) if familiar in tags else tags
        layers = tuple((Digest.parse(each, self.where), 0) for each in value.get("RootFS", {}).get("Layers") or [])
        return Found(names, Digest.parse(value["Id"], self.where), value.get("Size", 0), layers, None, platform)

    def read(self, found: Sequence[Found]) -> Iterator[Offer]:
        if isinstance(self._reader, OverlayImages):
            self._read_files(self._reader, found)
        yield from self._reader.read(found)

    def _read_files(self, files: OverlayImages, found: Sequence[Found]) -> None:
        """Say that the layers come from the daemon's files; or go back to its API, where something is odd about them."""
        odd = files.lacks(found)
        if not odd:
            self._observer(Noted(f"reading layers from {files.root}, past the daemon"))
            return
        if self._way == "files":
            raise EngineError(odd, hint=ASK)
        self._observer(Noted(f"{odd}; asking the daemon for all layers instead"))
        self._reader = Saves(self.where, self._save)
        self.traits = replace(self.traits, random_access=False)

    @contextlib.contextmanager
    def _save(self, wanted: Sequence[str]) -> Iterator[Iterator[bytes]]:
        with self._client.stream("GET", "/images/get", names=list(wanted)) as parts:
            yield coalesced(parts)  # the daemon sends 32 KiB at a time

    def images(
        self, found: Sequence[Found], documents: dict[Digest, bytes], sizes: Mapping[Digest, int]
    ) -> list[Image]:
        return self._reader.images(found, documents, sizes)

    def close(self) -> None:
        self._client.close()


@dataclass(frozen=True, slots=True)
class _Plan:
    """How one image is to land: the platform's part, what the daemon will call it, the layers it lacks.

    `others`: images on their way in that bring layers this one lacks as well; those are not in `missing`.
    """

    chosen: PlatformImage
    id: Digest
    layers: tuple[Descriptor, ...]
    missing: tuple[Descriptor, ...]
    present: bool
    others: frozenset[Future[bool]] = frozenset()

    def wait(self) -> None:
        """Until the others are in place. _Lost if one of them failed."""
        if not all(each.result() for each in self.others):
            raise _Lost("an image that was to bring a layer failed")


class _Lost(TransferError):
    """A layer that another image was to bring does not come: this one has to bring it."""


class DockerSink:
    """A daemon to fill: by load of an archive without what it has, or by pull from a registry in this process.

    `publish` gives the registry reference an image can be pulled by. Measured on 13 images (docs/decisions/0003): several thin
    loads at a time are the fastest on every kind of store; pulling is what is left where a daemon refuses them.
    """

    def __init__(
        self,
        client: DockerClient,
        *,
        way: Way = "auto",
        platform: Platform | None = None,
        publish: Callable[[PlatformImage], str] | None = None,
        observer: Observer = silent,
    ) -> None:
        self._client, self._observer = client, observer
        self.where = client.where
        self._containerd = client.has_containerd_store()
        self._way, self._platform = way, platform
        self._publish = publish if way == "pull" or (client.local and not self._containerd) else None
        # the containerd store names an image also when a layer came that is another one, and so is not there
        self.traits = SinkTraits(keeps_digest=self._containerd, parallel=4, checks=not self._containerd)
        self._lock = threading.Lock()
        self._sending = threading.Semaphore(SENDING)
        self._chains: set[tuple[str, ...]] | None = None
        self._layers: set[str] = set()
        self._coming: dict[tuple[str, ...], Future[bool]] = {}

    @property
    def platform(self) -> Platform | None:
        return self._platform or self._client.platform

    def taken(
        self, image: Image, names: Sequence[str], content: Content, beside: Collection[Digest]
    ) -> dict[str, Digest]:
        mine = self._id(image, self._chosen(image, content))
        out = {}
        for name in names:
            reference = Reference.parse(name)
            there = self._client.inspect(f"{reference.repository}:{reference.tag}") if reference.tag else None
            if there and there["Id"] != str(mine):
                out[name] = Digest.parse(there["Id"], self.where)
        return out

    def _chosen(self, image: Image, content: Content) -> PlatformImage:
        return platform_image(image, content.document, self._platform or self._client.platform)

    def _id(self, image: Image, chosen: PlatformImage) -> Digest:
        """What the daemon calls the image."""
        return image.root.digest if self._containerd else chosen.config.digest

    def _present_layers(self) -> None:
        """Learn the layer chains the daemon has, once; what lands later is added."""
        if self._chains is None:
            self._chains = set()
            if self._containerd:
                self._layers.update(self._referenced())
                return
            for each in self._client.images(all="1"):
                self._remember((self._client.inspect(each["Id"]) or {}).get("RootFS", {}).get("Layers") or [])

    def _referenced(self) -> set[str]:
        """In a containerd store: the layers that images have there whose content is all there, by their own digests.

        The same content as gzip is another blob, and a blob that no image names may be collected at any moment. What a manifest names
        stands in the daemon's content folder alone, so this is known to root on the daemon's host.
        """
        out: set[str] = set()
        folders = [folder for folder in self._content_folders() if folder.is_dir()] if self._client.local else []
        for each in self._client.images(all="1", manifests="1") if folders else ():
            for manifest in each.get("Manifests") or []:
                if isinstance(manifest, dict) and manifest.get("Available") is True:
                    out |= _layers_of(str(manifest.get("ID")), folders)
        return out

    def _content_folders(self) -> list[Path]:
        root = str(self._client.info.get("DockerRootDir") or "/nowhere")
        return [
            place / "io.containerd.content.v1.content/blobs/sha256"
            for place in (Path(root) / "containerd/daemon", Path("/var/lib/containerd"))
        ]

    def _available(self, image: Image, id: Digest, content: Content) -> bool:
        """Whether all content of the image is there. A classic store has it; a containerd store may have the name alone."""
        if not self._containerd:
            return True
        told = (self._client.ask(f"/images/{id}/json", manifests="1")).get("Manifests")
        if not isinstance(told, list):
            return True  # before API 1.48 nothing tells; what the load says is heeded
        there = {str(each.get("ID")) for each in told if isinstance(each, dict) and each.get("Available") is True}
        return all(str(each.descriptor.digest) in there for each in tree_of(image, content.document).manifests)

    def _remember(self, ids: Sequence[str]) -> None:
        if self._chains is not None:
            self._chains.update(tuple(ids[:n]) for n in range(1, len(ids) + 1))
            self._layers.update(ids)

    def _plan(self, image: Image, content: Content, mine: Future[bool] | None = None) -> _Plan:
        """What the image lacks. With `mine` it is noted that this image brings that, but for what others are bringing already."""
        chosen = self._chosen(image, content)
        digest = self._id(image, chosen)
        layers = image.layers if self._containerd else chosen.layers
        there = self._client.inspect(str(digest))
        if there and there.get("Id") == str(digest) and self._available(image, digest, content):
            return _Plan(chosen, digest, layers, (), True)
        with self._lock:
            self._present_layers()
            lacking = self._lacking(chosen, layers)
            others = {self._coming[key] for key in lacking if key in self._coming}
            missing = [layer for key, layer in lacking.items() if key not in self._coming]
            if mine:
                self._coming |= {key: mine for key in lacking if key not in self._coming}
        return _Plan(chosen, digest, layers, tuple(dict.fromkeys(missing)), False, frozenset(others))

    def _lacking(self, chosen: PlatformImage, layers: Sequence[Descriptor]) -> dict[tuple[str, ...], Descriptor]:
        """The layers the daemon lacks: by digest in a containerd store, else by the chain of diffIDs up to each."""
        if self._containerd:
            return {(str(each.digest),): each for each in layers if str(each.digest) not in self._layers}
        ids = tuple(str(each) for each in chosen.diff_ids)
        chains = self._chains or set()
        have = next((n for n in range(len(ids), 0, -1) if ids[:n] in chains), 0)
        return {ids[: n + 1]: layers[n] for n in range(have, len(ids))}

    def lacking(self, image: Image, content: Content) -> list[Descriptor] | None:
        plan = self._plan(image, content)
        return None if plan.present else list(plan.missing)

    def land(
        self, image: Image, names: Sequence[str], content: Content, settled: Callable[[], None] = no_matter
    ) -> Landed:
        while True:
            mine: Future[bool] = Future()
            landed = None
            try:
                plan = self._plan(image, content, mine)
                settled()
                landed = self._land(image, plan, names, content)
                return landed
            except _Lost:
                continue
            finally:
                with self._lock:
                    self._coming = {key: each for key, each in self._coming.items() if each is not mine}
                mine.set_result(landed is not None)

    def _land(self, image: Image, plan: _Plan, names: Sequence[str], content: Content) -> Landed:
        if plan.present:
            self._name(plan.id, names)
            self._drop_temporary(plan.id)
            return Landed(image, "present", plan.id, tuple(names), 0, len(set(plan.layers)), _nameless(names))
        before = self._named_now(names)
        try:
            sent = self._bring(image, plan, _tags(names), content)
            self._check(image, plan, content)
        except TransferError:
            self._take_back(plan, names, before)
            raise
        self._name(plan.id, names)
        self._drop_temporary(plan.id)
        with self._lock:
            if self._containerd:
                self._layers.update(str(each.digest) for each in plan.layers)
            else:
                self._remember([str(each) for each in plan.chosen.diff_ids])
        return Landed(image, "imported", plan.id, tuple(names), sent, len(set(plan.layers)) - sent, _nameless(names))

    def _named_now(self, names: Sequence[str]) -> dict[str, str]:
        """Which image has each of these names (its ID; "" for none)."""
        return {name: (self._client.inspect(name) or {}).get("Id", "") for name in _tags(names)}

    def _take_back(self, plan: _Plan, names: Sequence[str], before: Mapping[str, str]) -> None:
        """A containerd store gives names before it has the content: after a failure they go back to whom they were before."""
        if not self._containerd:
            return
        for name, old in before.items():
            with contextlib.suppress(TransferError):
                now = (self._client.inspect(name) or {}).get("Id", "")
                if now == old or now not in ("", str(plan.id)):
                    continue
                if old:
                    reference = Reference.parse(name)
                    self._client.do("POST", f"/images/{old}/tag", repo=reference.repository, tag=reference.tag)
                else:
                    self._client.do("DELETE", f"/images/{name}", force="1")

    def _bring(self, image: Image, plan: _Plan, names: Sequence[str], content: Content) -> int:
        """Get the image into the daemon, the preferred way first; how many layers were sent."""
        if self._way == "pull":
            return self._pull(plan)
        try:
            sent = self._load(image, plan, names, content, plan.missing)
            if self._containerd:
                self._check(image, plan, content)
            return sent
        except (EngineError, TryAgain) as error:
            if isinstance(error, TryAgain) and not self._client.answers():
                raise
            whole = tuple(dict.fromkeys(plan.layers))
            if self._way == "auto" and self._publish and names:  # a nameless one would keep the temporary name
                self._observer(
                    Noted(f"{image.label}: loading did not work ({error.message}); the daemon pulls instead")
                )
                return self._pull(plan)
            if len(plan.missing) == len(whole):
                raise
            self._observer(Noted(f"{image.label}: the daemon wants every layer ({error.message}); sending all"))
        return self._load(image, plan, names, content, whole)

    def _pull(self, plan: _Plan) -> int:
        if not self._publish:
            raise EngineError(f"{self.where}: cannot pull from here", hint="use --via load")
        plan.wait()
        repository, _, digest = self._publish(plan.chosen).partition("@")
        with (
            self._sending,
            self._client.stream("POST", "/images/create", fromImage=repository, tag=digest) as answer,
        ):
            self._heed(answer)
        return len(plan.missing)

    def _load(
        self, image: Image, plan: _Plan, names: Sequence[str], content: Content, layers: Sequence[Descriptor]
    ) -> int:
        archive = _Archive(image, plan, names, content, layers, self._sending, whole=self._containerd)
        failure: list[TransferError] = []

        def watched() -> Generator[bytes, None, None]:
            try:
                yield from archive.blocks()
            except TransferError as error:
                failure.append(error)
                raise

        try:
            with (
                contextlib.closing(watched()) as parts,  # or one that is broken off would go on holding its turn
                self._client.stream("POST", "/images/load", content=parts, length=archive.size, quiet="1") as answer,
            ):
                self._heed(answer)
        except TransferError:
            if failure:
                raise failure[0] from None
            raise
        return len(layers)

    def _heed(self, answer: Iterator[bytes]) -> None:
        """Read a stream of JSON lines; Docker says 200 first and what went wrong afterwards."""
        rest = b""
        for part in answer:
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                self._heed_line(line)
            if len(rest) > 1 << 20:
                raise EngineError(f"{self.where}: an answer without end")
        self._heed_line(rest)

    def _heed_line(self, line: bytes) -> None:
        try:
            value = json.loads(line) if line.strip() else {}
        except ValueError:
            return
        if not isinstance(value, dict):
            return
        text = str(value.get("error") or value.get("errorDetail") or "")[:500]
        said = " ".join(str(value.get(key) or "") for key in ("stream", "status"))
        if not text and "rror unpacking image" in said:  # Docker 28 and 29 tell it like a success
            text = " ".join(said.split())[:500]
        if not text:
            return
        if "no space left on device" in text:
            root = self._client.info.get("DockerRootDir", "its data folder")
            raise NoSpace(f"{self.where}: {text}", hint=f"free space under {root} and run the same command again")
        raise EngineError(f"{self.where}: {text}")

    def _check(self, image: Image, plan: _Plan, content: Content) -> None:
        """Ask the daemon what it made of it."""
        there = self._client.inspect(str(plan.id))
        if not there or there.get("Id") != str(plan.id) or not self._available(image, plan.id, content):
            raise EngineError(
                f"{self.where} says it took {image.label}, but has no image {plan.id} with all its content",
                hint="see the daemon's log",
            )
        ids = [str(each) for each in plan.chosen.diff_ids]
        if (there.get("RootFS") or {}).get("Layers") != ids:
            raise Damaged(f"{self.where}: {image.label} arrived with other layers than were sent")

    def _name(self, digest: Digest, names: Sequence[str]) -> None:
        """Give the image its names, and ask for each of them afterwards."""
        there = self._client.inspect(str(digest)) or {}
        for name in _tags(names):
            reference = Reference.parse(name)
            if name not in (there.get("RepoTags") or []):
                self._client.do("POST", f"/images/{digest}/tag", repo=reference.repository, tag=reference.tag)
            found = (self._client.inspect(name) or {}).get("Id", "nothing")
            if found != str(digest):
                raise EngineError(
                    f"{self.where}: {name} is {found:.80} there and not {digest}", hint="run the same command again"
                )

    def _drop_temporary(self, digest: Digest) -> None:
        """Take away the name the pull gave it, also one that a killed run left; never an image's last name."""
        there = self._client.inspect(str(digest)) or {}
        if there.get("RepoTags"):
            for name in there.get("RepoDigests") or []:
                if _STALE.fullmatch(name):
                    with contextlib.suppress(NotFound):
                        self._client.do("DELETE", f"/images/{name}", noprune="1")

    def close(self, *, failed: bool) -> None:
        self._client.close()


def _layers_of(manifest: str, folders: Sequence[Path]) -> set[str]:
    """The layers a manifest names, out of a content folder; none if it cannot be read there, or is not what its digest says."""
    for folder in folders:
        with contextlib.suppress(TransferError):
            digest = Digest.parse(manifest)
            data = read_small(folder / digest.hex)
            if sha256(data) == digest:
                return {str(each.get("digest")) for each in parse_object(data, manifest).get("layers") or []}
    return set()


def _tags(names: Sequence[str]) -> list[str]:
    """Names as Docker keeps them: with a tag, and without a digest; one that has only a digest is none."""
    found = [Reference.parse(name) for name in names]
    return list(dict.fromkeys(f"{each.repository}:{each.tag}" for each in found if each.tag))


def _nameless(names: Sequence[str]) -> str:
    """What is to be said of an image that gets no name."""
    if _tags(names):
        bare = [name for name in names if Reference.parse(name).tag == "latest" and not name.endswith(":latest")]
        return f"its name {bare[0]} is {Reference.parse(bare[0]).familiar} there" if bare else ""
    why = f"Docker keeps no name like {names[0]!r:.100}" if names else "it has none in the bundle"
    return f"it has no name there, as {why}; --retag gives it one"


class _Archive:
    """The dual format `docker load` takes: OCI layout and manifest.json, with only the layers that are to be sent.

    `whole`: the image as it is, index and all platforms (containerd store); else one platform's manifest. Layers are sent within `turn`.
    """

    def __init__(
        self,
        image: Image,
        plan: _Plan,
        names: Sequence[str],
        content: Content,
        layers: Sequence[Descriptor],
        turn: contextlib.AbstractContextManager[object],
        *,
        whole: bool,
    ) -> None:
        chosen = plan.chosen
        root = image.root if whole else chosen.manifest
        documents = image.documents if whole else (chosen.manifest.digest, chosen.config.digest)
        entry = Descriptor(root.media_type, root.digest, root.size).as_json()
        entries = [{**entry, "annotations": name_annotations(name)} for name in names] or [entry]
        saved = {
            "Config": blob_path(chosen.config.digest),
            "RepoTags": list(names) or None,
            "Layers": [blob_path(each.digest) for each in chosen.layers],
        }
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        self._before = [(blob_path(digest), content.document(digest)) for digest in documents]
        self._after = [
            ("manifest.json", canonical_json([saved])),
            ("index.json", canonical_json(index)),
            ("oci-layout", LAYOUT),
        ]
        self._plan, self._layers, self._content, self._turn = plan, layers, content, turn
        sizes = [len(data) for _, data in self._before + self._after] + [layer.size for layer in layers]
        self.size = sum(RECORD + size + padding(size) for size in sizes) + 2 * RECORD

    def blocks(self) -> Iterator[bytes]:
        for name, data in self._before:
            yield from member(name, data)
        with self._turn:
            for layer in self._layers:
                yield make_header(blob_path(layer.digest), layer.size)
                yield from self._content.open(layer)
                yield bytes(padding(layer.size))
        self._plan.wait()  # the daemon unpacks when it has the archive's end; what another image brings must be there by then
        for name, data in self._after:
            yield from member(name, data)
        yield bytes(2 * RECORD)
