"""A bundle put together from wherever its files have arrived: media of a set in any order, a spool, and what the store took in before."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from transfer.bundle import recovery as rec
from transfer.bundle.header import Blob, parse_index
from transfer.bundle.library import BundleList
from transfer.bundle.medium import AGAIN, MEDIUM
from transfer.bundle.reader import Bundle
from transfer.errors import Damaged, MediumError, MissingPart, NotFound, TransferError, UsageError
from transfer.events import Noted, Observer
from transfer.flows import recovery, repair
from transfer.flows.rechunk import SCRATCH
from transfer.flows.site import StoreChoice, reading, spacious
from transfer.folders import no_links, own_folder, scratch
from transfer.model import Digest, Image
from transfer.store.adopt import adopt_part
from transfer.store.entry import Role
from transfer.store.store import Store
from transfer.streams import copy_verified, parse_object, publish, read_small
from transfer.work import default_jobs

NAMED_MAX = 3


def looks_like_bundle(folder: Path) -> bool:
    """Whether a folder has a bundle's index, or the second copy a spool has of it, or is a medium that lacks it. One that may not be read has not."""
    try:
        return any((folder / name).is_file() for name in ("index.json", f"{AGAIN}/index.json", MEDIUM))
    except PermissionError:
        return False


def bundles_in(place: Path) -> list[Path]:
    """The bundle folders of a medium or a spool: the folder itself, or those right in it."""
    if looks_like_bundle(place):
        return [place]
    try:
        inner = sorted(each for each in place.iterdir() if each.is_dir() and not each.is_symlink())
    except OSError:
        return []
    return [each for each in inner if looks_like_bundle(each) and (each / "blobs").is_dir()]


def one_bundle(places: Sequence[Path]) -> list[Path]:
    """The bundle's folder on each of these places; a place itself that has none. UsageError if one has several."""
    folders = [folder for place in places for folder in (bundles_in(place) or [place])]
    found = dict.fromkeys(folders)
    if len(found) > len(places):
        names = ", ".join(str(each) for each in found)
        raise UsageError(f"several bundles are here: {names:.300}", hint="name one of them")
    return list(found)


class Reassembly:
    """One bundle in several places. `bundle` reads each file from the first place that has it."""

    def __init__(self, folders: Sequence[Path], shelf: BundleList, choice: StoreChoice, observer: Observer) -> None:
        self._shelf, self._observer = shelf, observer
        self._store: Store | None = choice.store
        self._scratch: list[Path] = []
        self._stack = contextlib.ExitStack()
        self._answers: list[Path] = []
        self._folders = [each for folder in folders for each in (folder, folder / AGAIN) if each.is_dir()] or list(
            folders
        )
        self.bundle = self._open()

    def _open(self) -> Bundle:
        """The bundle as the first place that has an index says it; another bundle's medium is refused."""
        first = next((each for each in self._folders if _digest(each) and _is_layout(each)), self._folders[0])
        others = [each for each in self._folders if each != first]
        bundle = Bundle(first, library=self._shelf, places=[*others, *self._answers, *self._waiting(first)])
        for other in others:
            _same(bundle, other)
        bundle.places[:0] = self._scratch
        return bundle

    def _waiting(self, folder: Path) -> list[Path]:
        """What the store took in of it before."""
        digest = _digest(folder)
        if self._store is None or not self._store.root.is_dir() or digest is None:
            return []
        return [self._store.root, self._store.incoming(digest)]

    def close(self) -> None:
        self.bundle.__exit__()
        self._stack.close()

    @property
    def several(self) -> bool:
        """Whether it is in pieces: then what is missing is not an error of copying."""
        return len(self._folders) > 1 or (self._folders[0] / MEDIUM).is_file() or self._store_has_some()

    def _store_has_some(self) -> bool:
        if self._store is None:
            return False
        digest = self.bundle.manifest.digest
        entry = self._store.entry(digest)
        return (entry is not None and entry.role is Role.STAGED) or self._store.incoming(digest).is_dir()

    def complete(self, images: Sequence[Image]) -> None:
        """Make what these images lack anew, if there are recovery files enough; else keep what is here, and say what is missing (MissingPart)."""
        if not self._lack(images):
            return
        found = recovery.read_recovery(self.bundle)
        failed: recovery.NotEnough | None = None
        if found:
            try:
                self._restore(found, [rec.RecoveryPart(blob.digest, blob.size) for blob in self.bundle.missing_packs()])
                return
            except recovery.NotEnough as error:
                failed = error
        if not self.several:
            return
        gone = self._keep()
        self._again()
        if self._lack(images):
            raise self._still_missing(gone, failed)

    def _users(self) -> tuple[str, ...]:
        """The images that need a pack which is not here."""
        header = self.bundle.header
        return header.users(*(header.frames_in(blob) for blob in self.bundle.missing_packs()))

    def _lack(self, images: Sequence[Image]) -> bool:
        users = set(self._users())
        return any(image.label in users for image in images)

    def repair(self, answers: Sequence[Path]) -> None:
        """Mend packs with what was asked for again: out of these folders, or copied over the bundle."""
        for folder in (*answers, *self._folders):
            found = repair.given(folder)
            if found is None:
                if folder in answers:
                    raise NotFound(
                        f"{folder} is not an answer to a repair request",
                        hint="make one with: transfer export --repair-request FILE",
                    )
                continue
            if folder in answers and folder not in self._answers:
                self._answers.append(folder)
                self._again()
            if found.bundle != self.bundle.manifest.digest and folder not in answers:
                continue
            made = self._stack.enter_context(scratch(self._roomy(), SCRATCH))
            count = repair.mend(self.bundle, found, made)
            if count:
                self._scratch.append(made)
                self._observer(Noted(f"{count} damaged packs were repaired with the frames in {folder}"))
                self._again()

    def _roomy(self) -> Path:
        return self._store.root if self._store and os.access(self._store.root, os.W_OK) else spacious()

    def mend(self) -> bool:
        """After damage was met: read all packs, and make those anew that are wrong. False if there are no recovery files."""
        found = recovery.read_recovery(self.bundle)
        if found is None:
            return False
        self._observer(Noted("damage found: reading all packs and rebuilding the damaged ones"))
        lost = recovery.lost_packs(self.bundle, self._observer, default_jobs())
        if not lost:
            return False
        self._restore(found, lost)
        return True

    def _restore(self, found: rec.Recovery, lost: Sequence[rec.RecoveryPart]) -> None:
        made = self._stack.enter_context(scratch(self._roomy(), SCRATCH))
        self._scratch.append(made)
        recovery.restore(self.bundle, found, lost, made, self._observer, default_jobs())
        self._again()

    def _again(self) -> None:
        """Open it anew: files may lie elsewhere now."""
        self.bundle.__exit__()
        self.bundle = self._open()

    def _keep(self) -> list[Blob]:
        """Take what is here into the store; the packs that are still missing."""
        if self._store is None:
            return self.bundle.missing_packs()
        missing = adopt_part(self._store, self.bundle, lambda text: self._observer(Noted(text)))
        found = recovery.read_recovery(self.bundle)
        if missing and found:
            self._keep_recovery(self._store, found)
        return missing

    def _keep_recovery(self, store: Store, found: rec.Recovery) -> None:
        """Recovery files may stand in for packs that never come."""
        waiting = store.incoming(found.bundle)
        inner = f"incoming/{waiting.name}"
        own_folder(store.root, "incoming", inner, f"{inner}/{rec.FOLDER}", private=True)
        for part in found.files:
            final = waiting / part.path
            for place in self.bundle.places:
                if final.is_file():
                    break
                with contextlib.suppress(Damaged, MediumError, NotFound):
                    copy_verified(place / part.path, final, part.digest, part.size)
        publish(waiting / rec.NAME, found.encode())

    def _still_missing(self, missing: Sequence[Blob], failed: recovery.NotEnough | None) -> MissingPart:
        total = len(self.bundle.header.packs)
        images = self._users()
        named = ", ".join(images[:NAMED_MAX]) + (
            f" and {len(images) - NAMED_MAX} more" if len(images) > NAMED_MAX else ""
        )
        kept = "what is here is kept in the store" if self._store else "nothing is kept, as there is no store"
        size = sum(blob.size for blob in missing)
        return MissingPart(
            f"{total - len(missing)} of {total} packs have come, {size / 1e6:.1f} MB are still missing (for {named}); {kept}"
            + (f"; any {failed.short} more files of this set complete the bundle" if failed else ""),
            hint="import the next medium: transfer import FOLDER"
            if self._store
            else "name all media in one command, or allow a store (leave out --no-store)",
        )

    def settle(self) -> None:
        """It is in: nothing waits for it any more, if all of it has come."""
        if self._store and not self.bundle.missing_packs():
            with contextlib.suppress(UsageError):
                no_links(self._store.root, "incoming")
                shutil.rmtree(self._store.incoming(self.bundle.manifest.digest), ignore_errors=True)


@contextlib.contextmanager
def reassembled(
    places: Sequence[Path], shelf: BundleList, choice: StoreChoice, observer: Observer
) -> Iterator[Reassembly]:
    """The one bundle that is on these places."""
    empty = [place for place in places if not bundles_in(place)]
    holding = [place for place in places if place not in empty]
    for place in empty if holding else ():
        observer(Noted(f"{place} has no bundle"))
    with reading(choice):
        found = Reassembly(one_bundle(holding or places[:1]), shelf, choice, observer)
        try:
            yield found
        finally:
            found.close()


def _digest(folder: Path) -> Digest | None:
    """The bundle whose index is in a folder; None if there is none that can be read: its other files may still be of use."""
    path = folder / "index.json"
    with contextlib.suppress(TransferError):
        return parse_index(read_small(path), str(path)).digest
    return None


def _is_layout(folder: Path) -> bool:
    path = folder / "oci-layout"
    with contextlib.suppress(TransferError):
        return bool(parse_object(read_small(path), str(path)))
    return False


def _same(bundle: Bundle, folder: Path) -> None:
    """UsageError if the folder has another bundle's index."""
    other, ours = _digest(folder), bundle.manifest.digest
    if other not in (None, ours):
        raise UsageError(
            f"{folder} is of bundle {other.short}, but {bundle.folder} is of bundle {ours.short}",
            hint="import them one after the other",
        )
