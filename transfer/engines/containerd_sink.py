"""A containerd to fill: by import of an OCI archive without the blobs it has, under a name of our own until it is seen to be whole."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from transfer.engines.base import ALONE, Content, ImportedImage, SinkTraits, Turn
from transfer.engines.ctr import KUBERNETES, TEMPORARY_NAMES, Ctr, Name
from transfer.engines.thin import ThinArchive
from transfer.engines.tree import is_artifact, tree_of
from transfer.errors import EngineError, TransferError
from transfer.events import Noted, Observer, silent
from transfer.model import Descriptor, Digest, Image, Platform, Reference, is_name

SENDING = 2
"""Images that are being sent at once; the others wait for containerd to unpack."""
PINS = {"io.cri-containerd.image": "managed", "io.cri-containerd.pinned": "pinned"}
"""Labels by which Kubernetes knows an image, and leaves it alone when it makes room."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """How one image is to land: what it lacks of layers, but for what others are bringing; whether it is there; whether it is unpacked."""

    missing: tuple[Descriptor, ...]
    present: bool
    runnable: bool
    turn: Turn = ALONE


@dataclass(frozen=True, slots=True)
class _There:
    """What a namespace has: names, blobs, and of which names the content is complete, and (True) unpacked."""

    names: Mapping[str, Name]
    blobs: set[str]
    whole: Mapping[str, bool]


class ContainerdSink:
    """One namespace of a containerd.

    `ctr images import` names an image before it is whole, and leaves the name where the import fails (1.6), or says that all is well
    where it is not (--no-unpack; 1.6 and 2). So an image comes under a temporary name, `ctr images check` is asked, and only then the
    image gets its own names.
    """

    traits = SinkTraits(keeps_digest=True, parallel=4, checks=True, artifacts=True, indexes=True)

    def __init__(
        self, ctr: Ctr, *, platform: Platform | None = None, observer: Observer = silent, pin: bool = True
    ) -> None:
        self._ctr, self._observer = ctr, observer
        self._pin = pin and ctr.namespace == KUBERNETES
        self.where = ctr.where
        self.platform = platform
        self._lock = threading.Lock()
        self._sending = threading.Semaphore(SENDING)
        ctr.namespaces()
        self._there: _There | None = None

    def taken(
        self, image: Image, names: Sequence[str], content: Content, beside: Collection[Digest]
    ) -> dict[str, Digest]:
        there = {name: each.digest for name, each in self._look().names.items()}
        held = {name: there.get(full) for name, full in _full(image, names).items()}
        return {name: digest for name, digest in held.items() if digest and digest != image.root.digest}

    def _plan(self, image: Image, content: Content, turn: Turn = ALONE) -> _Plan:
        runnable = self._runnable(image, content)
        if self._is_there(image, runnable):
            return _Plan((), True, runnable)
        layers = {str(each.digest): each for each in image.layers}

        def look() -> Iterable[str]:
            blobs = self._look().blobs
            return [digest for digest in layers if digest not in blobs]

        mine = turn.claim(look)
        return _Plan(tuple(each for key, each in layers.items() if key in mine), False, runnable, turn)

    def _runnable(self, image: Image, content: Content) -> bool:
        """Whether this host can run it: then it has to be unpacked. Artifacts cannot, nor what is for other platforms."""
        here = self.platform or Platform.here()
        tree = tree_of(image, content.document)
        if is_artifact(tree):
            return False
        return any(here.rank(each.descriptor.platform or each.platform) for each in tree.manifests)

    def _look(self, *, anew: bool = False) -> _There:
        """What containerd has; asked again only after something has changed."""
        with self._lock:
            if self._there is None or anew:
                names = {each.name: each for each in self._ctr.images()}
                self._there = _There(names, self._ctr.digests(), self._ctr.checked())
            return self._there

    def _names_of(self, image: Image) -> list[str]:
        return [name for name, each in self._look().names.items() if each.digest == image.root.digest]

    def _is_there(self, image: Image, runnable: bool) -> bool:
        """Whether containerd has all of it, under any name."""
        there, names = self._look(), self._names_of(image)
        unpacked = any(there.whole.get(name) for name in names)
        return bool(names) and self._has_all(image, there.blobs) and (unpacked or not runnable)

    def _has_all(self, image: Image, blobs: Collection[str]) -> bool:
        return {*map(str, image.documents), *(str(each.digest) for each in image.layers)} <= set(blobs)

    def missing(self, image: Image, content: Content) -> list[Descriptor] | None:
        plan = self._plan(image, content)
        return None if plan.present else list(plan.missing)

    def put(self, image: Image, names: Sequence[str], content: Content, turn: Turn = ALONE) -> ImportedImage:
        plan = self._plan(image, content, turn)
        total = len(set(image.layers))
        full = tuple(dict.fromkeys(_full(image, names).values())) or (_nameless(image),)
        if self._ctr.namespace == KUBERNETES:
            full = tuple(dict.fromkeys([*full, *(by_digest(name, image.root.digest) for name in full)]))
        if plan.present:
            self._name(image, self._names_of(image)[0], full)
            return ImportedImage(image, "present", image.root.digest, tuple(names), 0, total, _note(image, names))
        temporary = f"{TEMPORARY_NAMES}{image.root.digest.hex}:new"
        try:
            sent = self._send(image, temporary, plan, content)
            self._name(image, temporary, full)
        finally:
            self._drop(temporary)
        return ImportedImage(
            image, "imported", image.root.digest, tuple(names), sent, total - sent, _note(image, names)
        )

    def _drop(self, temporary: str) -> None:
        """Take our own name away; where that fails the next import of the image tries again."""
        with contextlib.suppress(TransferError):
            if self._ctr.images(temporary):
                self._ctr.remove(temporary)

    def _send(self, image: Image, temporary: str, plan: _Plan, content: Content) -> int:
        """The image under a name of ours, whole: at first what it lacks, and all of it if that does not do. How many layers were sent."""
        every = tuple(dict.fromkeys(image.layers))
        missing = plan.missing
        while True:
            try:
                self._load(image, temporary, plan, missing, content)
                self._check(image, temporary, plan)
                return len(missing)
            except EngineError as error:
                if len(missing) == len(every):
                    raise
                self._observer(
                    Noted(
                        f"{image.label}: the missing layers alone were not enough ({error.message}); sending all layers"
                    )
                )
                self._drop(temporary)
                missing = every

    def _load(self, image: Image, temporary: str, plan: _Plan, layers: Sequence[Descriptor], content: Content) -> None:
        archive = ThinArchive(
            image,
            None,
            [temporary],
            content,
            layers,
            whole=True,
            sending=self._sending,
            before_end=plan.turn.wait,
        )
        self._ctr.load(archive.blocks(), unpack=plan.runnable)

    def _check(self, image: Image, name: str, plan: _Plan) -> None:
        """EngineError if containerd lacks something of what it has just taken."""
        found = self._ctr.images(name)
        if not found or found[0].digest != image.root.digest:
            raise EngineError(f"{self.where} took {image.label} and does not have it")
        if not self._has_all(image, self._ctr.digests()):
            raise EngineError(f"{self.where} took {image.label} and lacks some of its blobs")
        if plan.runnable and not self._ctr.checked(name).get(name):
            raise EngineError(f"{self.where} has {image.label}, and has not unpacked it")

    def _name(self, image: Image, source: str, names: Sequence[str]) -> None:
        """Give it its names, and pin them where Kubernetes would collect them. Each was asked for afterwards."""
        there = self._look(anew=source.startswith(TEMPORARY_NAMES)).names
        lacking = [name for name in names if name not in there or there[name].digest != image.root.digest]
        bare = [each for each in names if each in lacking or not PINS.items() <= there[each].labels.items()]
        for name in lacking:
            self._ctr.tag(source, name)
        for name in bare if self._pin else ():
            self._ctr.label(name, PINS)
        after = self._look(anew=bool(lacking)).names
        for name in names:
            if name not in after or after[name].digest != image.root.digest:
                raise EngineError(f"{self.where} did not give {name} to {image.label}")

    def close(self, *, failed: bool) -> None:
        """Every image was visible as it came."""


def _full(image: Image, names: Sequence[str]) -> dict[str, str]:
    """Names as containerd and Kubernetes write them, in full. What is no name there is left out, and so is another image's digest."""
    found = {name: Reference.parse(name) for name in names if is_name(name)}
    return {name: str(each) for name, each in found.items() if each.digest in (None, image.root.digest)}


def by_digest(name: str, digest: Digest) -> str:
    """The name by which Kubernetes finds an image that a manifest names by its digest; a pull leaves it, too."""
    wanted = Reference.parse(name)
    return str(Reference(wanted.domain, wanted.path, "", digest))


def _nameless(image: Image) -> str:
    """What keeps containerd from collecting an image that has no name."""
    return f"localhost/nameless@{image.root.digest}"


def _note(image: Image, names: Sequence[str]) -> str:
    """What is to be said of an image that gets no name."""
    if _full(image, names):
        return ""
    why = f"containerd keeps no name like {names[0]!r:.100}" if names else "it has none in the bundle"
    return f"it is called {_nameless(image)} there, as {why}; --retag gives it a name"
