"""A podman to fill: by pull of each image under its own name from a registry in this process, or by load of an archive without what it has."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from transfer.engines.base import ALONE, Content, ImportedImage, SinkTraits, Turn, cannot_publish
from transfer.engines.endpoints import Blocked, ruled
from transfer.engines.podman_client import Held, Podman
from transfer.engines.thin import ThinArchive
from transfer.engines.tree import PlatformImage, platform_image
from transfer.errors import Damaged, EngineError, FormatError, TransferError
from transfer.events import Noted, Observer, silent
from transfer.model import TEMPORARY, Descriptor, Digest, Image, Platform, Reference, is_name
from transfer.streams import parse_object

LoadWay = Literal["auto", "pull", "load"]
TEMPORARY_NAME = f"localhost/{TEMPORARY}"
"""What the name begins with that an image without one has while it comes in."""


MARK = "transfer.invalid"
"""A registry that only our rules name, so that podman can be asked whether it reads them. `.invalid` is nobody's (RFC 2606).

It has a rule of its own: the registries to search may be a drop-in's, which wins.
"""
RULES = f"""\
unqualified-search-registries = []

[[registry]]
prefix = "{MARK}"
location = "{MARK}"
blocked = true
"""
"""A registries.conf, and what is added to it for one image. Names have no character in them that TOML's quotes do not take."""
ONLY_HERE = """
[[registry]]
prefix = "{host}/{path}"
location = "{place}"
insecure = true

[[registry]]
prefix = "{host}"
location = "{host}"
blocked = true
"""
OTHER_LAYERS = "does not match config's DiffID"
"""What podman 5 says of a layer that the config does not name. Podman 4 compares nothing."""
ASK = "ask whoever keeps /etc/containers/policy.json; --via load is not under that rule"


@dataclass(frozen=True, slots=True)
class _Plan:
    """How one image is to land: the part for the platform, the layers podman lacks but for what others are bringing, and whether it is there."""

    chosen: PlatformImage
    missing: tuple[Descriptor, ...]
    present: bool
    turn: Turn = ALONE


class PodmanSink:
    """One store of podman's.

    `offer` gives a repository of a registry in this process in which every tag is the image: podman pulls from there under the image's
    real name, by a registries.conf of our own, so that names, index and digests are what they would be after a pull from the real
    place, and layers that it has are never asked for. It hashes what it pulls, and does not compare layers with the config, so that is done here.
    """

    traits = SinkTraits(keeps_digest=True, parallel=3, checks=True)

    def __init__(
        self,
        podman: Podman,
        *,
        way: LoadWay = "auto",
        platform: Platform | None = None,
        offer: Callable[[Image], str] = cannot_publish,
        observer: Observer = silent,
    ) -> None:
        self._podman, self._way, self._offer, self._observer = podman, way, offer, observer
        self._platform = platform or podman.platform
        self.where = podman.where
        self._lock = threading.Lock()
        self._sending = threading.Semaphore(2)
        self._obeys: bool | None = None
        self._blobs: set[Digest] | None = None
        self._held: dict[Digest, Held] | None = None

    @property
    def platform(self) -> Platform | None:
        return self._platform

    def taken(
        self, image: Image, names: Sequence[str], content: Content, beside: Collection[Digest]
    ) -> dict[str, Digest]:
        mine = platform_image(image, content.document, self._platform).config.digest
        there = self._named()
        held = {name: there.get(str(Reference.parse(name))) for name in _tagged(names)}
        return {name: digest for name, digest in held.items() if digest and digest != mine}

    def _plan(self, image: Image, content: Content, turn: Turn = ALONE) -> _Plan:
        chosen = platform_image(image, content.document, self._platform)
        self._agrees(image, chosen, content)
        if self._is_there(image, chosen):
            return _Plan(chosen, (), True)
        lacking: dict[Digest, Descriptor] = {}

        def look() -> Iterable[Digest]:
            with self._lock:
                blobs = self._known()
            pairs = zip(chosen.layers, chosen.diff_ids, strict=True)
            lacking.update((each.digest, each) for each, diff_id in pairs if not {each.digest, diff_id} & blobs)
            return lacking

        mine = turn.claim(look)
        return _Plan(chosen, tuple(each for digest, each in lacking.items() if digest in mine), False, turn)

    def _agrees(self, image: Image, chosen: PlatformImage, content: Content) -> None:
        """Damaged if a layer is known to be another than the config says: podman would take it."""
        for layer, diff_id in zip(chosen.layers, chosen.diff_ids, strict=True):
            plain = content.plain(layer, diff_id)
            if plain.digest != diff_id and not layer.media_type.endswith(("gzip", "zstd")):
                raise Damaged(f"{image.label}: layer {layer.digest}, but its config names {diff_id}")

    def _known(self) -> set[Digest]:
        """The layers podman has, by the digests under which it would find them again: plain ones, and those they came with."""
        if self._blobs is None:
            storage = self._podman.storage()
            self._blobs = storage.blobs() if storage else set()
        return self._blobs

    def _listed(self, *, anew: bool = False) -> dict[Digest, Held]:
        """What podman lists, by IDs; asked again only after something has changed."""
        with self._lock:
            if self._held is None or anew:
                self._held = {each.id: each for each in self._podman.images()}
            return self._held

    def _named(self, *, anew: bool = False) -> dict[str, Digest]:
        """Which image has each name."""
        return {name: each.id for each in self._listed(anew=anew).values() for name in each.names}

    def _is_there(self, image: Image, chosen: PlatformImage) -> bool:
        """Whether podman has the image, and knows it by the bundle's own manifest: what else is pulled again then has no layer to send."""
        held = self._listed().get(chosen.config.digest)
        if held is None:
            return False
        digests = {each.rpartition("@")[2] for each in held.digests}
        return not held.names or bool({str(image.root.digest), str(chosen.manifest.digest)} & digests)

    def missing(self, image: Image, content: Content) -> list[Descriptor] | None:
        plan = self._plan(image, content)
        return None if plan.present else list(plan.missing)

    def put(self, image: Image, names: Sequence[str], content: Content, turn: Turn = ALONE) -> ImportedImage:
        plan = self._plan(image, content, turn)
        total, tags = len(set(plan.chosen.layers)), _tagged(names)
        mine = plan.chosen.config.digest
        if plan.present:
            self._name(image, mine, tags)
            return ImportedImage(image, "present", mine, tuple(names), 0, total, _note(names))
        plan.turn.wait()
        self._send(image, plan, tags, content)
        self._check(image, plan)
        self._listed(anew=True)
        self._name(image, mine, tags)
        with self._lock:
            if self._blobs is not None:
                self._blobs.update(each.digest for each in plan.chosen.layers)
                self._blobs.update(plan.chosen.diff_ids)
        sent = len(plan.missing)
        return ImportedImage(image, "imported", mine, tuple(names), sent, total - sent, _note(names))

    def _send(self, image: Image, plan: _Plan, tags: Sequence[str], content: Content) -> None:
        first = str(Reference.parse(tags[0])) if tags else f"{TEMPORARY_NAME}/{image.root.digest.hex}:new"
        try:
            self._pull_or_load(image, plan, first, content)
        except EngineError as error:
            if OTHER_LAYERS in error.message:
                raise _others(image) from error
            raise
        finally:
            if not tags:
                with contextlib.suppress(TransferError):
                    self._podman.run("untag", plan.chosen.config.digest.hex, first)

    def _pull_or_load(self, image: Image, plan: _Plan, name: str, content: Content) -> None:
        if self._way == "load":
            self._load(image, plan, name, content)
            return
        try:
            self._pull(image, name)
        except Blocked:
            raise
        except EngineError as error:
            if self._way == "pull" or OTHER_LAYERS in error.message:
                raise
            self._observer(Noted(f"{image.label}: pulling failed ({error.message}); trying a load instead"))
            self._load(image, plan, name, content)

    def _pull(self, image: Image, name: str) -> None:
        """Pull it under its name. Nothing but our registry is asked: of the rules for a name the longest counts, and ours is all of it.

        A podman that does not read our rules would ask the real registry, and take what that has under this name.
        """
        wanted = Reference.parse(name)
        if other := ruled(wanted):
            raise EngineError(
                f"{other} has a rule for {wanted.repository}", hint="use --via load, or take the rule away"
            )
        self._has_to_obey()
        rules = RULES + ONLY_HERE.format(host=wanted.domain, path=wanted.path, place=self._offer(image))
        platform = ["--os", self._platform.os, "--arch", self._platform.architecture]
        platform += ["--variant", self._platform.variant] if self._platform.variant else []
        try:
            self._podman.run_with_rules(rules, "pull", "--quiet", *platform, name)
        except EngineError as error:
            if "rejected by policy" in error.message or "is rejected" in error.message:
                raise Blocked(error.message, hint=ASK) from error
            raise

    def _has_to_obey(self) -> None:
        """EngineError if podman asks other registries than those it is told to ask. Podman is asked once."""
        with self._lock:
            if self._obeys is None:
                try:
                    told = parse_object(self._podman.run_with_rules(RULES, "info", "--format", "json"), self.where)
                    registries = told.get("registries")
                    self._obeys = isinstance(registries, dict) and MARK in registries
                except FormatError:
                    self._obeys = False
            if not self._obeys:
                raise EngineError(
                    f"{self.where} does not read the registries.conf that it is told to read, and would ask the real registry",
                    hint="use --via load, or a newer podman",
                )

    def _load(self, image: Image, plan: _Plan, name: str, content: Content) -> None:
        """As a thin OCI archive; once more with all layers if that is refused."""
        every = tuple(dict.fromkeys(plan.chosen.layers))
        for layers in dict.fromkeys((plan.missing, every)):
            archive = ThinArchive(
                image,
                plan.chosen,
                [name],
                content,
                layers,
                whole=False,
                sending=self._sending,
                before_end=plan.turn.wait,
                docker=False,
            )
            try:
                self._podman.load(archive.blocks())
                return
            except EngineError as error:
                if layers == every or OTHER_LAYERS in error.message:
                    raise
                self._observer(
                    Noted(
                        f"{image.label}: podman refused the missing layers alone ({error.message}); sending all layers"
                    )
                )

    def _check(self, image: Image, plan: _Plan) -> None:
        """Ask podman what it made of it, and its storage which layers those are."""
        mine = plan.chosen.config.digest
        found = self._podman.inspect(mine.hex)
        ids = [str(each) for each in plan.chosen.diff_ids]
        if found is None or ((found.get("RootFS") or {}).get("Layers") or []) != ids:
            raise EngineError(f"{self.where} reports success for {image.label}, but does not have it as it was sent")
        storage = self._podman.storage()
        held = storage.images.get(mine.hex) if storage else None
        if storage and held:
            try:
                storage.layers(held, plan.chosen.diff_ids)
            except EngineError as error:
                with contextlib.suppress(TransferError):
                    self._podman.run("rmi", "--force", mine.hex)
                raise _others(image) from error

    def _name(self, image: Image, mine: Digest, tags: Sequence[str]) -> None:
        """Give it its names, and ask for each of them afterwards."""
        there = self._named()
        wanted = [str(Reference.parse(name)) for name in tags]
        lacking = [name for name in wanted if there.get(name) != mine]
        if not lacking:
            return
        self._podman.run("tag", mine.hex, *lacking)
        there = self._named(anew=True)
        for name in wanted:
            if there.get(name) != mine:
                raise EngineError(f"{self.where} did not give {name} to {image.label}")

    def close(self, *, failed: bool) -> None:
        """Every image was visible as it came."""


def _others(image: Image) -> Damaged:
    return Damaged(f"{image.label}: its layers are not those its config names")


def _tagged(names: Sequence[str]) -> list[str]:
    """Names that podman keeps: with a tag, and without a digest."""
    found = [Reference.parse(name) for name in names if is_name(name)]
    return list(dict.fromkeys(Reference(each.domain, each.path, each.tag).familiar for each in found if each.tag))


def _note(names: Sequence[str]) -> str:
    """What is to be said of an image that gets no name."""
    if _tagged(names):
        return ""
    why = f"podman keeps no name like {names[0]!r:.100}" if names else "it has none in the bundle"
    return f"it has no name there, as {why}; --retag gives it one"
