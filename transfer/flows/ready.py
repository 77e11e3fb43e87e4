"""Whether what a compose file, manifests or a chart need would start on this host now, without a network; and if not, why, and which bundle has it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transfer.bundle.reader import Bundle
from transfer.engines.base import ImageSource, ResolvedImage, Runs
from transfer.errors import NotFound, TransferError, UsageError, one_failure
from transfer.flows.picks import Picks
from transfer.model import Digest, Image, Platform, Reference, familiar
from transfer.store.store import Store

PIN = "import it with --to containerd:k8s.io/, which pins it, or label it io.cri-containerd.pinned=pinned"


@dataclass(frozen=True, slots=True)
class Readiness:
    """One image: where it is needed, what the engine calls it (None: it has none), why it would not start, what is odd all the same, and which bundle has it."""

    name: str
    where: str
    id: Digest | None = None
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    bundle: str = ""

    @property
    def ready(self) -> bool:
        return not self.reasons


@dataclass(frozen=True, slots=True)
class Shelved:
    """A bundle that may be imported: what people call it, and its images by name."""

    label: str
    images: dict[str, Image]

    @staticmethod
    def of(bundle: Bundle, label: str) -> Shelved:
        return Shelved(label, {familiar(name): image for image in bundle.images for name in image.names})


def shelved(folders: Sequence[Path], store: Store | None) -> list[Shelved]:
    """The bundles in these folders, then those of the store, the newest first."""
    out = []
    for folder in folders:
        with Bundle(folder) as bundle:
            out.append(Shelved.of(bundle, str(folder)))
    entries = store.entries() if store and store.root.is_dir() else []
    for entry in sorted(entries, key=lambda each: -each.order):
        found = store.bundle(entry.digest) if store else None
        if found:
            place = f", from {entry.place}" if entry.place else ""
            out.append(Shelved.of(found, f"bundle {entry.digest.short} of the store ({entry.role}{place})"))
    return out


def ready(
    source: ImageSource, wanted: Picks, platform: Platform | None, bundles: Iterable[Shelved] = ()
) -> list[Readiness]:
    """Each image that is wanted. UsageError for a place in which nothing runs."""
    if not isinstance(source, Runs):
        raise UsageError(f"{source.where}: nothing runs there", hint="name an engine with --to")
    known = list(bundles)
    return [
        _one(source, source, name, where, wanted.asking.get(name, ""), platform, known)
        for name, where in wanted.names.items()
    ]


def _one(
    source: ImageSource,
    engine: Runs,
    name: str,
    where: str,
    asking: str,
    platform: Platform | None,
    bundles: Sequence[Shelved],
) -> Readiness:
    newest = next((each for each in bundles if _held(each, name)), None)
    label = newest.label if newest else ""
    try:
        found = source.resolve(name, None)
    except NotFound:
        image = _held(newest, name) if newest else None
        return Readiness(name, where, None, (_missing(source, name, image),), (), label)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this image's, and the others are looked at
        return Readiness(name, where, None, (one_failure(error, name).message,), (), label)
    reasons = []
    here = platform or engine.platform
    there = engine.platforms(found)
    if there and not any(here.rank(each) for each in there):
        reasons.append(f"is for {', '.join(map(str, there))}, and this host runs {here}")
    if not engine.is_kept(found):
        reasons.append(f"is not pinned, so the kubelet deletes it when the disk is full: {PIN}")
    if asking:
        reasons.append(
            f"its registry is asked whenever it starts ({asking}): write IfNotPresent, and a tag that is not latest"
        )
    notes = []
    image = _held(newest, name) if newest else None
    if newest and image and not _is_same(found, image):
        notes.append(f"is {found.id.short} here, and {image.root.digest.short} in the newest bundle ({newest.label})")
    return Readiness(name, where, found.id, tuple(reasons), tuple(notes), label if reasons else "")


def _missing(source: ImageSource, name: str, image: Image | None) -> str:
    """Why a name leads nowhere. `image`: the one that a bundle has by this name."""
    wanted = Reference.parse(name)
    if not wanted.digest:
        return "is not there"
    tagged = Reference(wanted.domain, wanted.path, wanted.tag).familiar if wanted.tag else ""
    known = (str(image.root.digest), str(image.config_digest)) if image else ()
    for other in (tagged, *known):
        try:
            found = source.resolve(other, None) if other else None
        except TransferError:
            continue
        if found and image and found.id in (image.root.digest, image.config_digest):
            return "is there, but the engine does not know it by this digest, since it was loaded and not pulled: use a tag"
        if found:
            return f"is not there by this digest: {other} is {found.id.short}"
    return "is not there"


def _held(bundle: Shelved, name: str) -> Image | None:
    """The image of a bundle that a name means: by tag, or by its digest whatever it is called there."""
    wanted = Reference.parse(name)
    if not wanted.digest:
        return bundle.images.get(wanted.familiar)
    return next((each for each in bundle.images.values() if wanted.digest == each.root.digest), None)


def _is_same(found: ResolvedImage, image: Image) -> bool:
    """Whether the engine's image is the bundle's, by whichever digest the engine knows it."""
    return found.id in (image.root.digest, image.config_digest, *image.documents)
