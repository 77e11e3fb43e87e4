"""A Docker daemon to fill: by load of an archive without what it has, or by pull from a registry in this process."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from transfer.engines.base import ALONE, Content, ImportedImage, SinkTraits, Turn, cannot_publish
from transfer.engines.contents import ContentFolder, docker_places
from transfer.engines.daemon import DockerClient
from transfer.engines.thin import ThinArchive
from transfer.engines.tree import PlatformImage, platform_image, tree_of
from transfer.errors import Damaged, EngineError, NoSpace, NotFound, TransferError, TryAgain
from transfer.events import Noted, Observer, silent
from transfer.model import TEMPORARY, Descriptor, Digest, Image, Platform, Reference
from transfer.streams import parse_object

SENDING = 2
"""Images that are being sent at once: each has some 50 MiB of memory here. The others wait for the daemon."""
LoadWay = Literal["auto", "pull", "load"]
_STALE = re.compile(rf"127\.0\.0\.1:[0-9]+/{TEMPORARY}/[0-9a-f]+@sha256:[0-9a-f]{{64}}")


@dataclass(frozen=True, slots=True)
class _Plan:
    """How one image is to land: the platform's part, what the daemon will call it, the layers it lacks.

    `turn`: other images on their way in may bring layers this one lacks as well; those are not in `missing`.
    """

    chosen: PlatformImage
    id: Digest
    layers: tuple[Descriptor, ...]
    missing: tuple[Descriptor, ...]
    present: bool
    turn: Turn = ALONE


class DockerSink:
    """A daemon to fill: by load of an archive without what it has, or by pull from a registry in this process.

    `publish` gives the registry reference an image can be pulled by. Measured on 13 images (docs/decisions/0003): several thin
    loads at a time are the fastest on every kind of store; pulling is what is left where a daemon refuses them.
    """

    def __init__(
        self,
        client: DockerClient,
        *,
        way: LoadWay = "auto",
        platform: Platform | None = None,
        publish: Callable[[PlatformImage], str] = cannot_publish,
        observer: Observer = silent,
    ) -> None:
        self._client, self._observer = client, observer
        self.where = client.where
        self._containerd = client.has_containerd_store()
        self._way, self._platform = way, platform
        self._publish = publish
        self._may_pull = way == "pull" or (client.local and not self._containerd)
        # the containerd store names an image also when a layer came that is another one, and so is not there
        self.traits = SinkTraits(keeps_digest=self._containerd, parallel=4, checks=not self._containerd)
        self._lock = threading.Lock()
        self._sending = threading.Semaphore(SENDING)
        self._chains: set[tuple[str, ...]] | None = None
        self._layers: set[str] = set()

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
        chosen = platform_image(image, content.document, self._platform or self._client.platform)
        if self._containerd:
            return chosen
        pairs = zip(chosen.layers, chosen.diff_ids, strict=True)
        return replace(chosen, layers=tuple(content.plain(layer, diff_id) for layer, diff_id in pairs))

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
        folders = [each for each in docker_places(self._client.info) if each.is_dir()] if self._client.local else []
        for each in self._client.images(all="1", manifests="1") if folders else ():
            for manifest in each.get("Manifests") or []:
                if isinstance(manifest, dict) and manifest.get("Available") is True:
                    out |= _layers_of(str(manifest.get("ID")), folders)
        return out

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

    def _plan(self, image: Image, content: Content, turn: Turn = ALONE) -> _Plan:
        """What the image has to bring: what it lacks, but for what others are bringing already."""
        chosen = self._chosen(image, content)
        digest = self._id(image, chosen)
        layers = image.layers if self._containerd else chosen.layers
        there = self._client.inspect(str(digest))
        if there and there.get("Id") == str(digest) and self._available(image, digest, content):
            return _Plan(chosen, digest, layers, (), True)
        lacking: dict[tuple[str, ...], Descriptor] = {}

        def look() -> Iterable[tuple[str, ...]]:
            with self._lock:
                self._present_layers()
                lacking.update(self._lacking(chosen, layers))
            return lacking

        mine = turn.claim(look)
        missing = dict.fromkeys(layer for key, layer in lacking.items() if key in mine)
        return _Plan(chosen, digest, layers, tuple(missing), False, turn)

    def _lacking(self, chosen: PlatformImage, layers: Sequence[Descriptor]) -> dict[tuple[str, ...], Descriptor]:
        """The layers the daemon lacks: by digest in a containerd store, else by the chain of diffIDs up to each."""
        if self._containerd:
            return {(str(each.digest),): each for each in layers if str(each.digest) not in self._layers}
        ids = tuple(str(each) for each in chosen.diff_ids)
        chains = self._chains or set()
        have = next((n for n in range(len(ids), 0, -1) if ids[:n] in chains), 0)
        return {ids[: n + 1]: layers[n] for n in range(have, len(ids))}

    def missing(self, image: Image, content: Content) -> list[Descriptor] | None:
        plan = self._plan(image, content)
        return None if plan.present else list(plan.missing)

    def put(self, image: Image, names: Sequence[str], content: Content, turn: Turn = ALONE) -> ImportedImage:
        plan = self._plan(image, content, turn)
        if plan.present:
            self._name(plan.id, names)
            self._drop_temporary(plan.id)
            return ImportedImage(image, "present", plan.id, tuple(names), 0, len(set(plan.layers)), _nameless(names))
        before = self._named_now(names)
        try:
            sent = self._send(image, plan, _tags(names), content)
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
        return ImportedImage(
            image, "imported", plan.id, tuple(names), sent, len(set(plan.layers)) - sent, _nameless(names)
        )

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

    def _send(self, image: Image, plan: _Plan, names: Sequence[str], content: Content) -> int:
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
            if self._way == "auto" and self._may_pull and names:  # a nameless one would keep the temporary name
                self._observer(Noted(f"{image.label}: loading failed ({error.message}); trying a pull instead"))
                return self._pull(plan)
            if len(plan.missing) == len(whole):
                raise
            self._observer(
                Noted(
                    f"{image.label}: the daemon refused the missing layers alone ({error.message}); sending all layers"
                )
            )
        return self._load(image, plan, names, content, whole)

    def _pull(self, plan: _Plan) -> int:
        plan.turn.wait()
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
        archive = ThinArchive(
            image,
            plan.chosen,
            names,
            content,
            layers,
            whole=self._containerd,
            sending=self._sending,
            before_end=plan.turn.wait,
        )
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
                raise EngineError(f"{self.where}: the daemon's answer is too long")
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
                f"{self.where} reports success for {image.label}, but has no complete image {plan.id}",
                hint="look at the daemon's log",
            )
        ids = [str(each) for each in plan.chosen.diff_ids]
        if ((there.get("RootFS") or {}).get("Layers") or []) != ids:
            raise Damaged(f"{self.where}: {image.label} has other layers in the daemon than were sent")

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
                    f"{self.where}: {name} is {found:.80} in the daemon, not {digest}",
                    hint="run the same command again",
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
    """The layers a manifest names, out of a content folder; none if it cannot be read there, or does not match its digest."""
    for folder in folders:
        with contextlib.suppress(TransferError):
            digest = Digest.parse(manifest)
            data = ContentFolder(folder).small(digest)
            if data is not None:
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
