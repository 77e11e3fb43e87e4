"""Damage repaired from afar: the list of files that are wrong, and a small bundle with just those."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transfer.bundle.assembly import supplied_by
from transfer.bundle.delta import DeltaBase, outside_names
from transfer.bundle.header import OCI_LAYOUT, Blob, parse_index
from transfer.bundle.library import BundleList
from transfer.bundle.ranges import Ranges
from transfer.bundle.reader import Bundle
from transfer.bundle.seal import README_NAME, companions
from transfer.bundle.sound import file_fault
from transfer.chunks.pack import PACK_HEADER, read_frame_header, read_packed, sound
from transfer.errors import Damaged, FormatError, MissingPart, NotFound, UsageError, from_os_error
from transfer.events import Noted, Observer
from transfer.flows.verify import AROUND, Checked
from transfer.folders import own_folder, remove_folder, remove_ours
from transfer.model import Digest
from transfer.store.store import Store
from transfer.streams import (
    BLOCK,
    begin,
    copy_verified,
    open_plain,
    parse_object,
    pread,
    publish,
    publishing,
    read_small,
    write_all,
)
from transfer.work import Pool

REQUEST_MAX = 16 << 20


REPAIR, ANSWER = "repair", "answer.json"
"""The folder with frames that mend packs, and what says which they are: in an answer, and in a bundle over which one was copied."""


@dataclass(frozen=True, slots=True)
class Request:
    """What of which bundle is wanted again: whole files, and of damaged packs single frames (none: only what is around them is wrong)."""

    bundle: Digest
    blobs: tuple[Digest, ...]
    frames: Mapping[Digest, Ranges] = field(default_factory=dict)

    def encode(self) -> bytes:
        value: dict[str, object] = {
            "format": "transfer.request",
            "version": 2 if self.frames else 1,
            "bundle": str(self.bundle),
            "blobs": [str(each) for each in self.blobs],
        }
        if self.frames:
            value["frames"] = {str(pack): str(wanted) for pack, wanted in self.frames.items()}
        return json.dumps(value, indent=1).encode() + b"\n"


def parse_request(data: bytes, where: str) -> Request:
    """FormatError for anything else."""
    value = parse_object(data, where, REQUEST_MAX)
    blobs, frames = value.get("blobs"), value.get("frames", {})
    if value.get("format") != "transfer.request" or value.get("version") not in (1, 2) or not isinstance(blobs, list):
        raise FormatError(
            f"{where}: not a request of version 1 or 2",
            hint="make one with: transfer verify BUNDLE --repair-request FILE",
        )
    if not isinstance(frames, dict):
        raise FormatError(f"{where}: frames are named by their packs")
    return Request(
        Digest.parse(value.get("bundle"), where),
        tuple(Digest.parse(each, where) for each in blobs),
        {Digest.parse(pack, where): Ranges.parse(text, where) for pack, text in frames.items()},
    )


def request_of(folder: Path) -> Request:
    """For a bundle that cannot be opened: what every answer to whole files brings, its manifest, header, catalogs and index."""
    data = read_small(folder / "index.json")
    return Request(parse_index(data, f"{folder}/index.json").digest, ())


def request_for(checked: Checked) -> Request:
    """What a check found wrong or missing: single frames of packs, where it could tell them apart, else files."""
    whole: dict[str, None] = {}
    frames: dict[str, list[int]] = {}
    for each in (*checked.damage, *checked.missing):
        if not each.file.startswith("blobs/"):
            continue
        name = Path(each.file).name
        if each.frame is not None:
            frames.setdefault(name, []).append(each.frame)
        elif each.why.endswith(AROUND):
            frames.setdefault(name, [])
        else:
            whole[name] = None
    return Request(
        checked.digest,
        tuple(Digest.parse(f"sha256:{each}") for each in whole),
        {Digest.parse(f"sha256:{name}"): Ranges.of(wanted) for name, wanted in frames.items() if name not in whole},
    )


@dataclass(frozen=True, slots=True)
class Answered:
    """A small bundle: the files and frames asked for, and what says which they are."""

    folder: Path
    digest: Digest
    files: int
    frames: int
    size: int


def answer(request: Request, folder: Path, library: BundleList) -> Answered:
    """Write what was asked for, each file and frame checked. Copied over the damaged bundle, or by `import --repair`, it mends it."""
    bundle = library.bundle(request.bundle)
    if bundle is None:
        raise NotFound(
            f"bundle {request.bundle.short} is not on this host",
            hint="name its folder with --seed; or export the same images again with the same options",
        )
    listed = {blob.digest: blob for blob in (*bundle.header.catalog, *bundle.header.packs)}
    unknown = [each for each in (*request.blobs, *request.frames) if each not in listed]
    if unknown:
        raise UsageError(
            f"bundle {request.bundle.short} has no file {unknown[0].short}", hint="the request is for another bundle"
        )
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty", hint="name a new folder")
    wanted = [listed[each] for each in dict.fromkeys(request.blobs)]
    # frames were told apart by the catalogs, so these are sound; whoever asks for nothing else may lack all of them
    catalogs = [blob for blob in bundle.header.catalog if blob not in wanted] if not request.frames else []
    try:
        own_folder(folder, "blobs", "blobs/sha256")
        for blob in (*wanted, *catalogs):
            _copy(bundle, blob, folder)
        for each in (bundle.config, bundle.manifest):
            publish(folder / "blobs" / "sha256" / each.digest.hex, read_small(bundle.path_of(each), each.size))
        size = sum(blob.size for blob in wanted)
        size += sum(_write_frames(bundle, listed[pack], frames, folder) for pack, frames in request.frames.items())
        publish(folder / "oci-layout", OCI_LAYOUT)
        publish(folder / README_NAME, _README.format(short=request.bundle.short).encode())
        publish(folder / ANSWER, _told(request))
        publish(folder / "index.json", bundle.index)
    except OSError as error:
        raise from_os_error(error, f"writing {folder}") from error
    return Answered(folder, request.bundle, len(wanted), sum(map(len, request.frames.values())), size)


_README = """This folder is an answer to a request: what was damaged or missing of the bundle {short}, and nothing else.

On the host with the damaged bundle:

    transfer import DAMAGED --repair THIS_FOLDER

or copy it over the damaged bundle, and then verify or import that one:

    cp -r THIS_FOLDER/. DAMAGED/
"""


def _told(request: Request) -> bytes:
    value = {
        "format": "transfer.answer",
        "version": 1,
        "bundle": str(request.bundle),
        "blobs": [str(each) for each in request.blobs],
        "frames": {str(pack): str(frames) for pack, frames in sorted(request.frames.items())},
    }
    return json.dumps(value, indent=1).encode() + b"\n"


def _write_frames(bundle: Bundle, pack: Blob, wanted: Ranges, folder: Path) -> int:
    """A pack's frames as they stand in it, one after the other; how many bytes those are."""
    span = bundle.header.frames_in(pack)
    if any(not span.start <= frame < span.stop for frame in wanted):
        raise UsageError(f"pack {pack.digest.short} has no such frames", hint="the request is for another bundle")
    own_folder(folder, REPAIR)
    total = 0
    path = bundle.path_of(pack)
    with open_plain(path) as file, publishing(folder / REPAIR / pack.digest.hex) as write:
        for frame in wanted:
            entry = bundle.catalog().frames[frame]
            placed = read_frame_header(file.fileno(), entry.offset, str(path))
            data = read_packed(file.fileno(), placed, str(path))
            if not sound(placed.header, data):
                raise Damaged(
                    f"{path}, frame {frame}: this copy is damaged too",
                    hint="name another copy of the bundle with --seed",
                )
            write(placed.header.encode())
            write(data)
            total += placed.end - placed.offset
    return total


@dataclass(frozen=True, slots=True)
class Given:
    """An answer: where it lies, for which bundle, and which frames of which packs it has."""

    folder: Path
    bundle: Digest
    blobs: tuple[Digest, ...]
    frames: Mapping[Digest, Ranges]


def given(folder: Path) -> Given | None:
    """The answer that lies in a folder, or was copied there; None if there is none. FormatError if it is malformed."""
    path = folder / ANSWER
    try:
        value = parse_object(read_small(path, REQUEST_MAX), str(path), REQUEST_MAX)
    except NotFound:
        return None
    if value.get("format") != "transfer.answer" or value.get("version") != 1:
        raise FormatError(
            f"{path}: not an answer of version 1", hint="remove it, or use the version of transfer that made it"
        )
    value |= {"format": "transfer.request"}
    asked = parse_request(json.dumps(value).encode(), str(path))
    return Given(folder, asked.bundle, asked.blobs, asked.frames)


def mend(bundle: Bundle, answer: Given, target: Path) -> int:
    """Make the packs anew, in `target`'s blobs, of what is there of them and the frames of an answer; how many that were.

    Damaged if one is still not what its digest says. What is sound already is left alone.
    """
    if answer.bundle != bundle.manifest.digest:
        raise UsageError(
            f"{answer.folder} is an answer for bundle {answer.bundle.short}, not {bundle.manifest.digest.short}",
            hint="name the answer that was made for this bundle's request",
        )
    listed = {blob.digest: blob for blob in bundle.header.packs}
    made = 0
    for digest, frames in answer.frames.items():
        pack = listed.get(digest)
        if pack is None:
            raise FormatError(f"{answer.folder / ANSWER}: bundle {answer.bundle.short} has no pack {digest.short}")
        with contextlib.suppress(NotFound):
            if not file_fault(bundle.path_of(pack), pack):
                continue
        _mend(bundle, pack, frames, answer.folder / REPAIR / digest.hex, target)
        made += 1
    return made


def _mend(bundle: Bundle, pack: Blob, frames: Ranges, given: Path, target: Path) -> None:
    """One pack: its own bytes, with these frames put where they belong."""
    own_folder(target, "blobs", "blobs/sha256")
    final, source = target / pack.path, bundle.paths_of(pack)
    path = next((each for each in source if each.is_file()), source[0])
    fd, temporary = begin(final)
    try:
        with contextlib.suppress(NotFound), open_plain(path) as file:
            for at in range(0, pack.size, BLOCK):
                block = pread(file.fileno(), min(BLOCK, pack.size - at), at, str(path))
                if not block:
                    break
                write_all(fd, block)
        os.ftruncate(fd, pack.size)
        os.pwrite(fd, PACK_HEADER, 0)
        with open_plain(given) as file:
            at = 0
            for frame in frames:
                if not bundle.header.frames_in(pack).start <= frame < bundle.header.frames_in(pack).stop:
                    raise FormatError(f"{given}: frames of another pack")
                placed = read_frame_header(file.fileno(), at, str(given))
                data = placed.header.encode() + read_packed(file.fileno(), placed, str(given))
                os.pwrite(fd, data, bundle.catalog().frames[frame].offset)
                at = placed.end
        os.fsync(fd)
        fault = file_fault(temporary, pack)
        if fault:
            raise Damaged(
                f"{final}: with these frames {fault}",
                hint="more of the pack is damaged: ask for the rest with transfer verify --repair-request",
            )
        os.replace(temporary, final)
    except OSError as error:
        raise from_os_error(error, f"writing {final}") from error
    finally:
        os.close(fd)
        with contextlib.suppress(OSError):
            temporary.unlink()


def mend_here(folder: Path, observer: Observer) -> None:
    """Where an answer was copied over a damaged bundle: put its frames into the packs, and clear it away.

    Nothing is done where it cannot be written, or what was copied is no answer for this bundle; the check tells what is wrong then.
    """
    found = given(folder)
    if found is None or not found.frames or not os.access(folder, os.W_OK):
        return
    try:
        with Bundle(folder) as bundle:
            if bundle.manifest.digest != found.bundle or is_answer(bundle, found):
                return
            made = mend(bundle, found, folder)
    except (Damaged, MissingPart, NotFound, UsageError) as error:
        observer(Noted(f"{folder / ANSWER}: {error.message}"))
        return
    if made:
        observer(Noted(f"{made} damaged packs were repaired with the frames of the answer that was copied there"))
    publish(folder / README_NAME, companions()[README_NAME])
    remove_ours(folder, REPAIR, re.compile(r"[0-9a-f]{64}", re.ASCII))
    remove_folder(folder, REPAIR)
    remove_ours(folder, "", re.compile(re.escape(ANSWER)))


def is_answer(bundle: Bundle, found: Given) -> bool:
    """Whether the folder is an answer alone: none of the bundle's packs is there but those that were asked for."""
    asked = {*found.blobs}
    missing = {blob.digest for blob in bundle.header.packs if not os.path.lexists(bundle.folder / blob.path)}
    return bool(bundle.header.packs) and {blob.digest for blob in bundle.header.packs} - asked == missing - asked


def _copy(bundle: Bundle, blob: Blob, folder: Path) -> None:
    source = bundle.path_of(blob)
    try:
        copy_verified(source, folder / blob.path, blob.digest, blob.size)
    except NotFound as error:
        raise MissingPart(
            f"{source} is no longer here",
            hint="name a folder that has the whole bundle with --seed, or export the same images again",
        ) from error


@dataclass(frozen=True, slots=True)
class Against:
    """Whether a place has what a delta builds on: how many chunks it needs, how many are not there, who would supply those."""

    needed: int
    missing: int
    suppliers: tuple[Digest, ...]
    words: str


def against(bundle: Bundle, place: Store | Sequence[Bundle]) -> Against:
    """What of the bundle's prerequisites a store holds, or a site that has confirmed these bundles."""
    needed = outside_names(bundle)
    if isinstance(place, Store):
        there = set(place.locate(needed))
        have = {entry.digest for entry in place.entries()}
    else:
        with Pool(0, "against") as pool:
            base = DeltaBase(place, pool=pool, jobs=1) if place else None
        there = {name for name in needed if base and name in base}
        have = {each.manifest.digest for each in place}
    missing = needed - there
    named = bundle.header.prerequisites.bundles
    absent = tuple(digest for digest in named if digest not in have) if missing else ()
    return Against(len(needed), len(missing), absent, supplied_by(bundle, absent or named) if missing else "")
