"""What a store notes of one bundle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum

from transfer.bundle.header import parse_index
from transfer.errors import FormatError
from transfer.model import Digest
from transfer.streams import parse_object

ENTRY_MAX = 64 << 20
"""Largest entry that is read (bytes): it holds a bundle's whole index.json, escaped."""


class Role(StrEnum):
    """What a bundle is to this site.

    HELD: imported, its images can be rebuilt. STAGED: here, but what it builds on is not, or it was not imported yet. SENT: this site made it.
    SUPPLIER: its images are not kept any more, only chunks that others need. COMPACTED: such chunks, packed anew.
    """

    HELD = "held"
    STAGED = "staged"
    SENT = "sent"
    SUPPLIER = "supplier"
    COMPACTED = "compacted"


@dataclass(frozen=True, slots=True)
class Entry:
    """One bundle of a store. `order`: how many were added before. `packs`: its packs are here too. `place`: the folder it came from.

    `begun`: an import of a staged one was begun, and has not ended well or was killed: whoever ran it runs it again. One that is
    staged and not begun waits, and is imported when what it builds on has come.
    """

    digest: Digest
    index: str
    role: Role
    order: int
    when: int
    packs: bool
    place: str
    begun: bool = False

    def encode(self) -> bytes:
        value = {
            "format": "transfer.store.entry",
            "version": 1,
            "digest": str(self.digest),
            "index": self.index,
            "role": str(self.role),
            "order": self.order,
            "when": self.when,
            "packs": self.packs,
            "place": self.place,
            **({"begun": True} if self.begun else {}),
        }
        return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"


def parse_entry(data: bytes, where: str) -> Entry:
    """FormatError for anything that is no entry."""
    value = parse_object(data, where, ENTRY_MAX)
    kinds = {"index": str, "role": str, "order": int, "when": int, "packs": bool, "place": str}
    if value.get("format") != "transfer.store.entry" or value.get("version") != 1:
        raise FormatError(f"{where}: not an entry of this version", hint="use the version of transfer that wrote it")
    if any(type(value.get(key)) is not kind for key, kind in kinds.items()) or value["role"] not in set(Role):
        raise FormatError(f"{where}: a malformed entry", hint="`transfer store check` says what is sound")
    digest = Digest.parse(value.get("digest"), where)
    if parse_index(value["index"].encode(), where).digest != digest:
        raise FormatError(f"{where}: its index belongs to another bundle", hint="import that bundle again")
    return Entry(
        digest,
        value["index"],
        Role(value["role"]),
        value["order"],
        value["when"],
        value["packs"],
        value["place"],
        value.get("begun") is True,
    )
