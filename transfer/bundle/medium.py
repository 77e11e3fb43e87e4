"""Which files of a bundle are on which medium of a set: `medium.json` on each medium, `media.json` beside the bundle that was shipped."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from transfer.errors import FormatError
from transfer.model import Digest
from transfer.streams import parse_object

MEDIUM, MEDIA = "medium.json", "media.json"
AGAIN = "again"
"""The folder with second copies of what a spool sends first."""
FORMAT, VERSION = "transfer.media", 1
DOCUMENT_MAX = 16 << 20


@dataclass(frozen=True, slots=True)
class Medium:
    """One medium: `id` tells it from others, `label` is for people, `files` are packs and recovery files by their paths.

    `mounted`: it was a filesystem of its own when it was written.
    """

    id: str
    label: str
    files: tuple[str, ...]
    mounted: bool = False

    def as_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {"id": self.id, "label": self.label, "files": list(self.files)}
        return value | {"mounted": True} if self.mounted else value


@dataclass(frozen=True, slots=True)
class MediaSet:
    """The media of one set, as far as they are known. `share`: percent that may be lost (0: none). `this`: the medium this lies on."""

    bundle: Digest
    id: str
    share: int
    media: tuple[Medium, ...] = ()
    this: str = ""

    def encode(self) -> bytes:
        value = {
            "format": FORMAT,
            "version": VERSION,
            "bundle": str(self.bundle),
            "set": self.id,
            "share": self.share,
            "this": self.this,
            "media": [each.as_json() for each in self.media],
        }
        return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"

    def medium(self, name: str) -> Medium | None:
        return next((each for each in self.media if each.id == name), None)

    def number(self, name: str) -> int:
        """Which one it is, from 1; 0 for one that is not in the set."""
        return next((n for n, each in enumerate(self.media, 1) if each.id == name), 0)

    def with_medium(self, medium: Medium) -> MediaSet:
        """The set with this medium as it is now."""
        others = tuple(medium if each.id == medium.id else each for each in self.media)
        return replace(self, media=others if medium in others else (*others, medium))

    @property
    def files(self) -> set[str]:
        """All that is on some medium."""
        return {name for each in self.media for name in each.files}


def parse_media(data: bytes, where: str) -> MediaSet:
    """FormatError for anything else."""
    value = parse_object(data, where, DOCUMENT_MAX)
    listed, share = value.get("media"), value.get("share")
    if value.get("format") != FORMAT or value.get("version") != VERSION or not isinstance(listed, list):
        raise FormatError(f"{where}: not a list of media that this program knows", hint="remove it")
    if type(share) is not int or not 0 <= share < 100:
        raise FormatError(f"{where}: malformed")
    media = tuple(_medium(each, where) for each in listed)
    return MediaSet(
        Digest.parse(value.get("bundle"), where),
        _text(value.get("set"), where),
        share,
        media,
        _text(value.get("this"), where),
    )


def _medium(value: Any, where: str) -> Medium:
    if not isinstance(value, dict) or not isinstance(value.get("files"), list):
        raise FormatError(f"{where}: malformed")
    files = tuple(_text(each, where) for each in value["files"])
    return Medium(_text(value.get("id"), where), _text(value.get("label"), where), files, value.get("mounted") is True)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or len(value) > 4096:
        raise FormatError(f"{where}: malformed")
    return value
