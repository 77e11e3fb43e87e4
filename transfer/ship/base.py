"""The contract of every depot: a place for files by name that takes up where it was left, and believes only digests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from transfer.errors import Damaged, FormatError, UsageError
from transfer.model import Digest

PART = 1 << 20
"""The unit of resume (bytes): of an unfinished file whole parts are compared, and the first wrong one is sent again."""
WINDOW = 8 << 20
"""Bytes that may be on their way before the far side has said that it wrote them."""
NAME_MAX = 255
HIDDEN, UNFINISHED = ".", ".part"
RESERVED = frozenset({"CON", "PRN", "AUX", "NUL", *(f"{a}{n}" for a in ("COM", "LPT") for n in range(1, 10))})


@dataclass(frozen=True, slots=True)
class Traits:
    """What a depot is like, as data.

    `atomic_finish`: a name appears whole or not at all. `durable_finish`: what is finished outlives a power cut.
    `checks_there`: `finish` and `check` hash where the file lies, without sending it back. `compares_parts`: `parts`
    answers. `lanes`: how many files at once make it faster, each over a depot of its own.
    """

    atomic_finish: bool = True
    durable_finish: bool = True
    checks_there: bool = True
    compares_parts: bool = True
    lanes: int = 1


@dataclass(frozen=True, slots=True)
class HeldFile:
    """What lies under a name: bytes of the finished file, or of the unfinished one."""

    size: int
    finished: bool


class Depot(Protocol):
    """Files by names like `night.bundle/blobs/sha256/ab12...`. One caller at a time.

    Failures are the named ones: LinkError and CutOff (the line), NoSpace, MediumError, Damaged, Locked. After CutOff the depot is of no
    more use; what was appended before may or may not be there, `stat` on a new one tells.
    """

    @property
    def where(self) -> str:
        """The place, as messages name it."""
        ...

    @property
    def traits(self) -> Traits: ...

    def hold(self, folder: str, token: str) -> None:
        """From now until `close`, only depots with the same token may write in this folder. Locked if another one does.

        Where a place has no locks this does nothing: two that write the same bytes to the same names do no harm.
        """
        ...

    def stat(self, names: Sequence[str]) -> list[HeldFile | None]:
        """What is there under each name; None for nothing. A finished file counts before an unfinished one."""
        ...

    def list(self, folder: str) -> dict[str, int]:
        """Names (relative to the folder) and sizes of the finished files in it and below. Empty if there is no such folder."""
        ...

    def read(self, name: str, offset: int = 0) -> Iterator[bytes]:
        """A finished file's bytes from an offset. NotFound if it is not there."""
        ...

    def parts(self, name: str) -> Sequence[bytes]:
        """BLAKE3 of each PART of an unfinished file, the last one as short as it is; nothing where that would mean to send it back."""
        ...

    def append(self, name: str, data: bytes | memoryview, offset: int) -> None:
        """Bytes for the unfinished file, whose length is cut to `offset` first. FormatError beyond its end.

        It may return before the bytes are there; a failure then comes with a later call, `finish` at the latest.
        """
        ...

    def finish(self, name: str, digest: Digest, size: int) -> None:
        """The unfinished file is whole: check it, make it durable, give it its name, in place of what had it.

        Damaged if it is not what the digest says: then it is still unfinished, and `discard` clears it away.
        """
        ...

    def check(self, name: str, digest: Digest, size: int) -> str:
        """What is wrong with a finished file; "" if its bytes are what the digest says."""
        ...

    def discard(self, name: str) -> None:
        """Remove it, finished or not, if it is there."""
        ...

    def free(self, folder: str) -> int | None:
        """Bytes that may still be written; None if nobody can tell."""
        ...

    def supply(self, folder: str, files: Sequence[tuple[str, Digest, int]]) -> int:
        """Files (name in the folder, digest, size) that the place may take out of a store of its own; how many it took."""
        ...

    def close(self) -> None: ...


def split_name(name: str) -> tuple[str, ...]:
    """A name's components. FormatError for anything that could lead elsewhere, or that a filesystem would not take."""
    parts = tuple(name.split("/"))
    for each in parts:
        if not each or each in (".", "..") or len(each.encode("utf-8", "surrogatepass")) > NAME_MAX - 8:
            raise FormatError(f"{name!r:.200} is not a file name")
        if not each.isprintable() or any(c in '\\:*?"<>|' for c in each) or each[-1] in ". ":
            raise FormatError(f"{name!r:.200} has characters that some filesystems do not allow")
    if len(parts) > 8:
        raise FormatError(f"{name!r:.200} is too deep")
    return parts


def portable(name: str) -> None:
    """UsageError for a folder's name that FAT, exFAT or NTFS does not take."""
    try:
        split_name(name)
        legal = name.split(".")[0].upper() not in RESERVED
    except FormatError:
        legal = False
    if not legal:
        raise UsageError(f"{name!r:.200}: not a name that every filesystem allows", hint="rename the bundle's folder")


def unfinished(base: str) -> str:
    """The name under which a file grows, beside its own."""
    return f"{HIDDEN}{base}{UNFINISHED}"


def wrong_size(name: str, found: int, size: int) -> str:
    """In the words that `check` and `finish` use everywhere."""
    return f"{found} bytes where it should have {size}" if found != size else ""


WRONG_CONTENT = "the content does not match its digest"


def damaged(where: str, name: str, why: str) -> Damaged:
    """What `finish` raises."""
    return Damaged(f"{where}/{name}: {why}", hint="run the same command again: the file is sent again")
