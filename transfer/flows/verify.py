"""Verify: every byte of a bundle against its digest, and what damage means in images."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

from transfer.bundle import header as head
from transfer.bundle.medium import DOCUMENT_MAX, MEDIUM, parse_media
from transfer.bundle.reader import EMPTY, Bundle, BundleLookup
from transfer.bundle.rebuild import BlobReader
from transfer.bundle.recovery import NAME as RECOVERY
from transfer.bundle.recovery import RecoveryPart
from transfer.bundle.seal import VERIFY_NAME, companions
from transfer.bundle.sound import file_fault
from transfer.chunks.pack import Gap, read_packed, scan, sound
from transfer.errors import Damaged, MissingPart, NotFound, TransferError
from transfer.events import Advanced, Done, Noted, Observer, Planned
from transfer.flows.content import BundleContent
from transfer.flows.recovery import recovery_at
from transfer.flows.vouching import vouch
from transfer.model import Digest
from transfer.streams import open_plain, read_small
from transfer.work import Pool, default_jobs, ordered_map


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing wrong: file, frame number (None: the file as a whole), what, and which images cannot be had."""

    file: str
    frame: int | None
    why: str
    images: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """What was looked at. `bytes_checked` are packed bytes; `layers_rebuilt` only with `deep`; `elsewhere`: packs that other media carry."""

    bundle: Path
    digest: Digest
    files: int
    bytes_checked: int
    layers_rebuilt: int
    damage: tuple[Damage, ...]
    missing: tuple[Damage, ...]
    seconds: float
    elsewhere: int = 0

    @property
    def sound(self) -> bool:
        return not self.damage and not self.missing


def check(folder: Path, *, deep: bool, jobs: int | None, observer: Observer, library: BundleLookup = EMPTY) -> Checked:
    """Hash every file; in a damaged pack, find the frames; with `deep`, rebuild every layer as well."""
    started = time.monotonic()
    threads = default_jobs() if jobs is None else jobs
    with Bundle(folder, library=library) as bundle, Pool(threads, "verify") as pool:
        _note_strange(folder, observer)
        packs = _expected(bundle)
        blobs = [*bundle.header.catalog, *packs]
        observer(Planned("verify", sum(blob.size for blob in blobs)))
        found: list[Damage] = []
        explained = 0
        for blob, problem in zip(
            blobs, ordered_map(lambda b: _hash(bundle, b, observer), blobs, pool, threads + 1), strict=True
        ):
            if problem:
                explained += 1
                short = explained * len(bundle.images) > head.USERS_MAX
                found += [Damage(blob.path, None, problem, MORE)] if short else _explain(bundle, blob, problem)
        recovery, spoiled = _recovery(bundle, observer)
        found += spoiled
        observer(Done("verify"))
        found += _catalog(bundle, {each.file for each in found})
        rebuilt, elsewhere = 0, len(bundle.header.packs) - len(packs)
        if deep and elsewhere:
            raise MissingPart(
                f"{folder} is one medium of a set: {elsewhere} packs are on other media",
                hint="leave out --deep, or import all media",
            )
        if deep and not found:
            rebuilt, found = _rebuild_all(bundle, pool, threads, observer)
        gone = tuple(each for each in found if each.why == GONE)
        return Checked(
            folder,
            bundle.manifest.digest,
            len(blobs) + 3 + len(recovery),
            sum(blob.size for blob in blobs) + sum(part.size for part in recovery),
            rebuilt,
            tuple(each for each in found if each.why != GONE),
            gone,
            time.monotonic() - started,
            elsewhere,
        )


def _note_strange(folder: Path, observer: Observer) -> None:
    """Say that the verify.py there is not this program's: people are told to run it."""
    with contextlib.suppress(TransferError):
        if read_small(folder / VERIFY_NAME) != companions()[VERIFY_NAME]:
            observer(
                Noted(
                    f"{folder / VERIFY_NAME} is not the verify.py of this version: it is older, or somebody changed it; do not run it"
                )
            )


def _catalog(bundle: Bundle, wrong: set[str]) -> list[Damage]:
    """What an import would refuse of the catalog, or of what the header says of the images.

    A delta's catalog cannot be read without what it builds on; where that is not here, nothing is said of it.
    """
    if any(blob.path in wrong for blob in bundle.header.catalog):
        return []
    everyone = tuple(image.label for image in bundle.images)
    name = bundle.header.catalog[0].path if bundle.header.catalog else "catalog"
    try:
        bundle.catalog()
    except MissingPart as error:
        return [] if bundle.is_delta else [Damage(name, None, error.message, everyone)]
    except Damaged as error:
        return [Damage(name, None, error.message, everyone)]
    found = []
    for image in bundle.images:
        try:
            vouch(bundle, image)
        except (Damaged, MissingPart) as error:
            found.append(Damage(f"image {image.label}", None, error.message, (image.label,)))
    return found


def _expected(bundle: Bundle) -> list[head.Blob]:
    """The packs that should be here: all, or on one medium of a set those that are said to be on it."""
    here = _medium_files(bundle)
    if here is None:
        return list(bundle.header.packs)
    gone = {blob.digest for blob in bundle.missing_packs()}
    return [blob for blob in bundle.header.packs if blob.path in here or blob.digest not in gone]


def _medium_files(bundle: Bundle) -> set[str] | None:
    """What a medium's list says is on it; None where there is no such list."""
    path = bundle.folder / MEDIUM
    try:
        found = parse_media(read_small(path, DOCUMENT_MAX), str(path))
    except TransferError:
        return None  # advice for people (FORMAT.md, section 11): without it all of the bundle is looked for
    medium = found.medium(found.this)
    return set(medium.files) if medium and found.bundle == bundle.manifest.digest else None


def _recovery(bundle: Bundle, observer: Observer) -> tuple[list[RecoveryPart], list[Damage]]:
    """The recovery files that should be here, and what is wrong with them."""
    path = bundle.folder / RECOVERY
    if not path.exists():
        return [], []
    try:
        made = recovery_at(bundle, bundle.folder)
    except TransferError as error:
        return [], [Damage(RECOVERY, None, error.message, ())]
    here = _medium_files(bundle)
    parts = [part for part in made.files if here is None or part.path in here]
    found = []
    for part in parts:
        try:
            problem = file_fault(bundle.folder / part.path, part, lambda count: observer(Advanced("verify", count)))
        except NotFound:
            problem = "" if here is None else GONE  # beside a bundle that is all there they may be deleted
        if problem:
            found.append(Damage(part.path, None, problem, ()))
    return parts, found


GONE = "the file is missing"
AROUND = ", but every frame in it is sound"
MORE = ("more images than are listed",)
"""For files beyond those for which it was looked up who needs them."""


def _hash(bundle: Bundle, blob: head.Blob, observer: Observer) -> str:
    """What is wrong with a file as a whole; "" if nothing."""
    try:
        return file_fault(bundle.path_of(blob), blob, lambda count: observer(Advanced("verify", count)))
    except NotFound:
        return GONE


def _explain(bundle: Bundle, blob: head.Blob, problem: str) -> list[Damage]:
    """Which frames of a damaged file are gone, and which images need them."""
    everyone = tuple(image.label for image in bundle.images)
    if blob in bundle.header.catalog:
        return [Damage(blob.path, None, problem, everyone)]
    frames = bundle.header.frames_in(blob)
    if problem == GONE:
        return [Damage(blob.path, None, problem, bundle.header.users(frames))]
    try:
        entries = bundle.catalog().frames[frames.start : frames.stop]
        offsets = {entry.offset: n for n, entry in enumerate(entries, frames.start)}
        sound = _sound_offsets(bundle.path_of(blob))
    except TransferError:
        return [Damage(blob.path, None, problem, bundle.header.users(frames))]
    lost = sorted(set(offsets.values()) - {offsets[at] for at in sound if at in offsets})
    if not lost:
        return [Damage(blob.path, None, f"{problem}{AROUND}", ())]
    return [Damage(blob.path, frame, problem, bundle.header.users(range(frame, frame + 1))) for frame in lost]


def _sound_offsets(path: Path) -> list[int]:
    """Where frames start whose bytes are what their header says."""
    out = []
    with open_plain(path) as file:
        for each in scan(path):
            with contextlib.suppress(TransferError):
                if not isinstance(each, Gap) and sound(each.header, read_packed(file.fileno(), each, str(path))):
                    out.append(each.offset)
    return out


def _rebuild_all(bundle: Bundle, pool: Pool, jobs: int, observer: Observer) -> tuple[int, list[Damage]]:
    """Every layer, to nowhere, against its digest."""
    layers = list({layer.digest: layer for image in bundle.images for layer in image.layers}.values())
    rebuilding = BlobReader(bundle, [layer.digest for layer in layers], pool=pool, jobs=max(1, jobs))
    content = BundleContent(bundle, observer, threaded=jobs > 0, rebuilding=rebuilding)
    observer(Planned("import", sum(layer.size for layer in layers)))
    found = []
    for layer in layers:
        users = tuple(image.label for image in bundle.images if layer in image.layers)
        try:
            for _ in content.open(layer):
                pass
        except (Damaged, MissingPart) as error:
            found.append(Damage(f"layer {layer.digest}", None, error.message, users))
    observer(Done("import"))
    return len(layers) - len(found), found
