"""Verify: every byte of a bundle against its digest, and what damage means in images."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transfer.bundle import header as head
from transfer.bundle.library import EMPTY, Library
from transfer.bundle.reader import Bundle, file_fault
from transfer.bundle.rebuild import Rebuilding
from transfer.chunks.pack import Hole, read_packed, scan, sound
from transfer.errors import Damaged, MissingPart, NotFound, TransferError
from transfer.events import Advanced, Done, Observer, Planned
from transfer.flows.load import BundleContent
from transfer.model import Digest
from transfer.streams import open_plain
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
    """What was looked at. `bytes_checked` are packed bytes; `layers_rebuilt` only with `deep`."""

    bundle: Path
    digest: Digest
    files: int
    bytes_checked: int
    layers_rebuilt: int
    damage: tuple[Damage, ...]
    missing: tuple[Damage, ...]
    seconds: float

    @property
    def sound(self) -> bool:
        return not self.damage and not self.missing


def check(folder: Path, *, deep: bool, jobs: int | None, observer: Observer, library: Library = EMPTY) -> Checked:
    """Hash every file; in a damaged pack, find the frames; with `deep`, rebuild every layer as well."""
    started = time.monotonic()
    threads = default_jobs() if jobs is None else jobs
    with Bundle(folder, library=library) as bundle, Pool(threads, "verify") as pool:
        blobs = [*bundle.header.catalog, *bundle.header.packs]
        observer(Planned("verify", sum(blob.size for blob in blobs)))
        found: list[Damage] = []
        for blob, problem in zip(
            blobs, ordered_map(lambda b: _hash(bundle, b, observer), blobs, pool, threads + 1), strict=True
        ):
            if problem:
                found += _explain(bundle, blob, problem)
        observer(Done("verify"))
        rebuilt = 0
        if deep and not found:
            rebuilt, found = _rebuild_all(bundle, pool, threads, observer)
        gone = tuple(each for each in found if each.why == _GONE)
        return Checked(
            folder,
            bundle.manifest.digest,
            len(blobs) + 3,
            sum(blob.size for blob in blobs),
            rebuilt,
            tuple(each for each in found if each.why != _GONE),
            gone,
            time.monotonic() - started,
        )


_GONE = "the file is missing"


def _hash(bundle: Bundle, blob: head.Blob, observer: Observer) -> str:
    """What is wrong with a file as a whole; "" if nothing."""
    try:
        return file_fault(bundle.path_of(blob), blob, lambda count: observer(Advanced("verify", count)))
    except NotFound:
        return _GONE


def _explain(bundle: Bundle, blob: head.Blob, problem: str) -> list[Damage]:
    """Which frames of a damaged file are gone, and which images need them."""
    everyone = tuple(image.label for image in bundle.images)
    if blob in bundle.header.catalog:
        return [Damage(blob.path, None, problem, everyone)]
    number = bundle.header.packs.index(blob)
    first = sum(each.frames for each in bundle.header.packs[:number])
    frames = range(first, first + blob.frames)
    if problem == _GONE:
        return [Damage(blob.path, None, problem, _users(bundle, frames))]
    try:
        offsets = {entry.offset: n for n, entry in enumerate(bundle.catalog().frames) if entry.pack == number}
        sound = _sound_offsets(bundle.path_of(blob))
    except TransferError:
        return [Damage(blob.path, None, problem, _users(bundle, frames))]
    lost = sorted(set(offsets.values()) - {offsets[at] for at in sound if at in offsets})
    if not lost:
        return [Damage(blob.path, None, f"{problem}, but every frame in it is sound", ())]
    return [Damage(blob.path, frame, problem, _users(bundle, [frame])) for frame in lost]


def _users(bundle: Bundle, frames: Sequence[int]) -> tuple[str, ...]:
    wanted = set(frames)
    pairs = zip(bundle.images, bundle.header.needs, strict=True)
    return tuple(image.label for image, needs in pairs if wanted & set(needs))


def _sound_offsets(path: Path) -> list[int]:
    """Where frames start whose bytes are what their header says."""
    out = []
    with open_plain(path) as file:
        for each in scan(path):
            with contextlib.suppress(TransferError):
                if not isinstance(each, Hole) and sound(each.header, read_packed(file.fileno(), each, str(path))):
                    out.append(each.offset)
    return out


def _rebuild_all(bundle: Bundle, pool: Pool, jobs: int, observer: Observer) -> tuple[int, list[Damage]]:
    """Every layer, to nowhere, against its digest."""
    layers = list({layer.digest: layer for image in bundle.images for layer in image.layers}.values())
    content = BundleContent(bundle, observer, threaded=jobs > 0)
    content.rebuilding = Rebuilding(bundle, [layer.digest for layer in layers], pool=pool, jobs=max(1, jobs))
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
