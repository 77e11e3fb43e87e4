"""recovery.json: which packs of a bundle belong together, and the recovery files that stand in for any of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transfer.chunks.erasure import MOST, Code
from transfer.chunks.pack import BLOB_MAX
from transfer.errors import FormatError, Unsupported, UsageError
from transfer.model import Digest
from transfer.streams import canonical_json, parse_object

NAME = "recovery.json"
FOLDER = "recovery"
FORMAT, VERSION = "transfer.recovery", 1
CODE = "rs-gf256-11d-cauchy"
DOCUMENT_MAX = 16 << 20
LEAST, GREATEST = 1, 50
"""Percent of all files that may be lost: half of them at the most, which is as many recovery files as packs."""


@dataclass(frozen=True, slots=True)
class RecoveryPart:
    """A pack or a recovery file: digest and size (bytes)."""

    digest: Digest
    size: int

    @property
    def path(self) -> str:
        """Where a recovery file lies in the bundle's folder."""
        return f"{FOLDER}/{self.digest.hex}"


@dataclass(frozen=True, slots=True)
class Group:
    """Packs that are coded together, and their recovery files: any len(data) of all of them give the others back."""

    data: tuple[RecoveryPart, ...]
    recovery: tuple[RecoveryPart, ...]

    @property
    def code(self) -> Code:
        return Code(len(self.data), len(self.recovery))

    @property
    def size(self) -> int:
        """Bytes of each recovery file: those of the longest pack."""
        return max(part.size for part in self.data)

    @property
    def parts(self) -> tuple[RecoveryPart, ...]:
        """All files by their number in the code."""
        return self.data + self.recovery


@dataclass(frozen=True, slots=True)
class Recovery:
    """All groups of a bundle. `share`: percent of a group's files that may be lost."""

    bundle: Digest
    share: int
    groups: tuple[Group, ...]

    @property
    def files(self) -> tuple[RecoveryPart, ...]:
        """All recovery files."""
        return tuple(part for group in self.groups for part in group.recovery)

    def encode(self) -> bytes:
        return canonical_json(
            {
                "format": FORMAT,
                "version": VERSION,
                "bundle": str(self.bundle),
                "code": CODE,
                "share": self.share,
                "groups": [
                    {"data": [_json(part) for part in group.data], "recovery": [_json(part) for part in group.recovery]}
                    for group in self.groups
                ],
            }
        )


def _json(part: RecoveryPart) -> dict[str, Any]:
    return {"digest": str(part.digest), "size": part.size}


def grouped(count: int, share: int) -> list[tuple[list[int], int]]:
    """Packs by number in groups, and how many recovery files each group gets, so that `share` percent of its files may be lost.

    Neighbours go into different groups: what lies together on a medium is lost together. UsageError for a share that cannot be.
    """
    if not LEAST <= share <= GREATEST:
        raise UsageError(
            f"--survive-loss {share}%", hint=f"give the share of files that may be lost, {LEAST}% to {GREATEST}%"
        )
    most = MOST * (100 - share) // 100
    groups = -(-count // most)
    members = [list(range(first, count, groups)) for first in range(groups)]
    return [(each, -(-len(each) * share // (100 - share))) for each in members]


def parse_recovery(data: bytes, where: str, bundle: Digest, packs: Sequence[RecoveryPart]) -> Recovery:
    """FormatError for anything that is not the recovery data of this bundle with these packs."""
    value = parse_object(data, where, DOCUMENT_MAX)
    if value.get("format") != FORMAT or value.get("version") != VERSION or value.get("code") != CODE:
        raise Unsupported(f"{where}: this recovery data is of an unknown version")
    if value.get("bundle") != str(bundle):
        raise FormatError(f"{where}: it belongs to another bundle", hint="remove it")
    share, listed = value.get("share"), value.get("groups")
    if type(share) is not int or not LEAST <= share <= GREATEST or not isinstance(listed, list):
        raise FormatError(f"{where}: malformed")
    groups = tuple(_group(each, where) for each in listed)
    coded = sorted((part.digest.hex, part.size) for group in groups for part in group.data)
    if coded != sorted((part.digest.hex, part.size) for part in packs):
        raise FormatError(f"{where}: its packs are not the packs of this bundle", hint="remove it")
    made = Recovery(bundle, share, groups)
    if len({part.digest for part in made.files}) < len(made.files):
        raise FormatError(f"{where}: a recovery file that is named twice")
    return made


def _group(value: object, where: str) -> Group:
    if not isinstance(value, dict):
        raise FormatError(f"{where}: malformed")
    group = Group(_parts(value.get("data"), where), _parts(value.get("recovery"), where))
    if not group.data or not group.recovery or len(group.parts) > MOST:
        raise FormatError(f"{where}: a group of {len(group.data)} and {len(group.recovery)} files")
    if any(part.size != group.size for part in group.recovery):
        raise FormatError(f"{where}: a recovery file that is not as long as the longest pack")
    return group


def _parts(value: object, where: str) -> tuple[RecoveryPart, ...]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise FormatError(f"{where}: malformed")
    parts = []
    for each in value:
        size = each.get("size")
        if type(size) is not int or not 0 < size <= BLOB_MAX:
            raise FormatError(f"{where}: a file of {size!r:.40} bytes")
        parts.append(RecoveryPart(Digest.parse(each.get("digest"), where), size))
    return tuple(parts)
