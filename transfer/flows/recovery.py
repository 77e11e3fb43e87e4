"""Recovery files: made beside a bundle's packs, and packs made anew of what is left."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from transfer.bundle import recovery as rec
from transfer.bundle.reader import Bundle
from transfer.bundle.recovery import Group, Recovery, RecoveryPart
from transfer.bundle.sound import file_fault
from transfer.bundle.sums import SUMS
from transfer.chunks.erasure import decode, encode
from transfer.errors import Damaged, FormatError, MissingPart, NoSpace, NotFound, TransferError, from_os_error
from transfer.events import Advanced, Done, Noted, Observer, Planned
from transfer.flows.ship import File, files_of, in_memory, sums_of
from transfer.folders import own_folder, remove_folder, remove_ours
from transfer.model import Digest, blob_path
from transfer.streams import (
    IterReader,
    SliceReader,
    create,
    open_plain,
    publish,
    read_small,
    sync_folder,
    verified,
    write_all,
)
from transfer.work import Pool, ordered_map


class NotEnough(MissingPart):
    """Too little is left of a group: so many more of its files are needed."""

    advice = "bring another medium of the set, or copy the packs from the bundle"

    def __init__(self, short: int, message: str) -> None:
        super().__init__(message)
        self.short = short


def packs_of(bundle: Bundle) -> list[RecoveryPart]:
    return [RecoveryPart(blob.digest, blob.size) for blob in bundle.header.packs]


def recovery_at(bundle: Bundle, place: Path) -> Recovery:
    """The recovery.json of one place. NotFound if there is none, FormatError if it is of no use for this bundle."""
    path = place / rec.NAME
    return rec.parse_recovery(read_small(path, rec.DOCUMENT_MAX), str(path), bundle.manifest.digest, packs_of(bundle))


def read_recovery(bundle: Bundle) -> Recovery | None:
    """The bundle's recovery.json from the first place that has one for it; None if there is none."""
    for place in bundle.places:
        with contextlib.suppress(NotFound, FormatError):
            return recovery_at(bundle, place)
    return None


_FILES = re.compile(r"[0-9a-f]{64}|\.[0-9]+\.tmp", re.ASCII)
"""The files of ours in a bundle's folder for recovery files."""


def make(bundle: Bundle, share: int, observer: Observer) -> Recovery:
    """Recovery files in the bundle's own folder, unless they are there. Each pack is checked while it is read."""
    made = read_recovery(bundle)
    if made and made.share == share and all(_whole(bundle.folder, part) for part in made.files):
        return made
    planned = foreseen(bundle, share)
    needed = sum(part.size for part in planned.files)
    folder = bundle.folder / rec.FOLDER
    try:
        (bundle.folder / rec.NAME).unlink(missing_ok=True)
        own_folder(bundle.folder, rec.FOLDER)
        remove_ours(bundle.folder, rec.FOLDER, _FILES)
        free = os.statvfs(folder)
    except OSError as error:
        raise from_os_error(error, f"writing {folder}") from error
    if needed > free.f_bavail * free.f_frsize:
        remove_folder(bundle.folder, rec.FOLDER)
        raise NoSpace(f"{folder}: the recovery files need {needed / 1e6:.1f} MB", hint="free some space there")
    observer(Planned("parity", sum(blob.size for blob in bundle.header.packs)))
    made = replace(planned, groups=tuple(_encode(bundle, group, observer) for group in planned.groups))
    publish(bundle.folder / rec.NAME, made.encode())
    observer(Done("parity"))
    return made


def foreseen(bundle: Bundle, share: int) -> Recovery:
    """What `make` would give: sizes and numbers are right, the digests of recovery files are not."""
    packs, numbers = packs_of(bundle), itertools.count()
    groups = []
    for members, count in rec.grouped(len(packs), share):
        data = tuple(packs[n] for n in members)
        size = max(part.size for part in data)
        groups.append(
            Group(data, tuple(RecoveryPart(Digest(f"sha256:{next(numbers):064x}"), size) for _ in range(count)))
        )
    return Recovery(bundle.manifest.digest, share, tuple(groups))


def dealt(bundle: Bundle, made: Recovery | None) -> tuple[list[File], list[File]]:
    """What tells of the bundle, its index last; and what can be shared out: packs and recovery files."""
    packs = {blob.path for blob in bundle.header.packs}
    telling: list[File] = []
    shared: list[File] = []
    for file in files_of(bundle):
        (shared if file.name in packs else telling).append(file)
    if made:
        telling.insert(-1, in_memory(rec.NAME, made.encode()))
        shared += [File(part.path, part.digest, part.size, bundle.folder / part.path) for part in made.files]
        telling = [sums_of((*telling, *shared)) if file.name == SUMS else file for file in telling]
    return telling, shared


def _whole(folder: Path, part: RecoveryPart) -> bool:
    with contextlib.suppress(OSError):
        return (folder / part.path).lstat().st_size == part.size
    return False


def _encode(bundle: Bundle, group: Group, observer: Observer) -> Group:
    """The group with its recovery files as they are now."""
    folder = bundle.folder / rec.FOLDER
    with contextlib.ExitStack() as stack:
        sources = [IterReader(stack.enter_context(_reading(bundle.path_of(part), part))) for part in group.data]
        files = [stack.enter_context(_File(folder / f".{n}.tmp", part.size)) for n, part in enumerate(group.recovery)]
        writes: list[Callable[[bytes], object]] = [file.write for file in files]
        encode(sources, group.size, group.code, writes, lambda passed: observer(Advanced("parity", passed)))
        found = []
        for file in files:
            file.sync()
            digest = file.digest()
            os.replace(file.path, folder / digest.hex)
            found.append(RecoveryPart(digest, group.size))
    sync_folder(folder)
    return replace(group, recovery=tuple(found))


@contextlib.contextmanager
def _reading(path: Path, part: RecoveryPart) -> Iterator[Iterator[bytes]]:
    """The file's bytes, believed only at the end. Damaged, naming it, if they are not what the digest says."""
    with open_plain(path) as file:
        yield verified(SliceReader(file.fileno(), 0, part.size, str(path)), part.digest, part.size, str(path))


class _File:
    """A file being written, hashed as it grows; of what comes only `size` bytes are kept, the rest is padding."""

    def __init__(self, path: Path, size: int) -> None:
        self.path, self._left = path, size
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        self._fd = create(path)
        self._hasher = hashlib.sha256()

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *args: object) -> None:
        os.close(self._fd)
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

    def write(self, data: bytes) -> None:
        kept = data[: self._left]
        self._left -= len(kept)
        self._hasher.update(kept)
        try:
            write_all(self._fd, kept)
        except OSError as error:
            raise from_os_error(error, f"writing {self.path}") from error

    def sync(self) -> None:
        os.fsync(self._fd)

    def digest(self) -> Digest:
        return Digest(f"sha256:{self._hasher.hexdigest()}")


def lost_packs(bundle: Bundle, observer: Observer, jobs: int) -> list[RecoveryPart]:
    """Packs that are missing or not what their digests say: all are read."""
    return [
        part
        for part, fault in _faults(packs_of(bundle), lambda part: _pack_path(bundle, part), observer, jobs)
        if fault
    ]


def _pack_path(bundle: Bundle, part: RecoveryPart) -> Path | None:
    path = bundle.path_of(part)
    return path if path.exists() else None


def _recovery_path(bundle: Bundle, part: RecoveryPart) -> Path | None:
    return next((place / part.path for place in bundle.places if _whole(place, part)), None)


def _faults(
    parts: Sequence[RecoveryPart], find: Callable[[RecoveryPart], Path | None], observer: Observer, jobs: int
) -> list[tuple[RecoveryPart, str]]:
    """Each file, and what is wrong with it."""

    def fault(part: RecoveryPart) -> str:
        path = find(part)
        if path is None:
            return "it is not there"
        try:
            return file_fault(path, part, lambda count: observer(Advanced("recover", count)))
        except TransferError as error:
            return error.message

    with Pool(jobs, "check") as pool:
        return list(zip(parts, ordered_map(fault, parts, pool, jobs + 1), strict=True))


def restore(
    bundle: Bundle, found: Recovery, lost: Sequence[RecoveryPart], scratch: Path, observer: Observer, jobs: int
) -> None:
    """Make the lost packs anew, in `scratch` as in a bundle's folder. MissingPart if too little is left, saying how much is lost."""
    (scratch / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    missing = set(lost)
    todo = [(group, [n for n, part in enumerate(group.data) if part in missing]) for group in found.groups]
    observer(Planned("recover", sum(2 * group.size * len(group.data) for group, wanted in todo if wanted)))
    for group, wanted in todo:
        if wanted:
            _restore(bundle, group, wanted, scratch, observer, jobs)
    observer(Done("recover"))
    observer(Noted(f"{len(missing)} packs were rebuilt from the recovery files"))


def _restore(bundle: Bundle, group: Group, wanted: Sequence[int], scratch: Path, observer: Observer, jobs: int) -> None:
    places = {
        part: _pack_path(bundle, part) if n < len(group.data) else _recovery_path(bundle, part)
        for n, part in enumerate(group.parts)
    }
    at_hand = [part for n, part in enumerate(group.parts) if places[part] and n not in wanted]
    wrong = {part for part, fault in _faults(at_hand, places.__getitem__, observer, jobs) if fault}
    have = {n: places[part] for n, part in enumerate(group.parts) if part in at_hand and part not in wrong}
    if len(have) < len(group.data):
        short = len(group.data) - len(have)
        raise NotEnough(
            short, f"{bundle.folder}: {len(wanted)} packs are missing, and any {short} more files of the set would do"
        )
    with contextlib.ExitStack() as stack:
        readers = {}
        for n in group.code.needed(have):
            path, part = have[n], group.parts[n]
            assert path
            opened = stack.enter_context(open_plain(path))
            readers[n] = SliceReader(opened.fileno(), 0, part.size, str(path))
        files = []
        for n in wanted:
            part = group.data[n]
            final = scratch / blob_path(part.digest)
            files.append(stack.enter_context(_File(final.with_name(f".{final.name}.tmp"), part.size)))
        writes: list[Callable[[bytes], object]] = [file.write for file in files]
        decode(readers, group.size, group.code, wanted, writes, lambda count: observer(Advanced("recover", count)))
        for n, file in zip(wanted, files, strict=True):
            part = group.data[n]
            if file.digest() != part.digest:
                raise Damaged(
                    f"{scratch / blob_path(part.digest)}: the recovery files did not give this pack",
                    hint="a medium changed while it was read: run the same command again",
                )
            os.replace(file.path, scratch / blob_path(part.digest))
