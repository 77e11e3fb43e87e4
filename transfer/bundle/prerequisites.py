"""What a delta uses and does not carry, and how to tell people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from transfer.bundle.members import list_in, number_in, object_in
from transfer.errors import FormatError
from transfer.model import Digest

NO_WORDS: Mapping[Digest, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Prerequisites:
    """Chunks (and their bytes, uncompressed) that a bundle uses and other bundles carry.

    `bundles` carry them; `about` has a few words for each that is known. `layers` are the layers of images that hold them too: an engine
    that has these can take the bundles' place. None where the bundle was made without a base.
    """

    chunks: int = 0
    bytes: int = 0
    bundles: tuple[Digest, ...] = ()
    about: Mapping[Digest, str] | None = None
    layers: tuple[Digest, ...] | None = None

    @staticmethod
    def parse(value: dict[str, Any], where: str) -> Prerequisites:
        """FormatError for anything malformed."""
        about = object_in({"about": {}, **value}, "about", where)
        if not all(isinstance(text, str) and text.isprintable() and len(text) <= 1000 for text in about.values()):
            raise FormatError(f"{where}: the descriptions of its prerequisites are malformed")
        words = {_digest_or_none(key): text for key, text in about.items()}
        return Prerequisites(
            number_in(value, "chunks", where),
            number_in({"bytes": 0, **value}, "bytes", where),
            tuple(Digest.parse(each, where) for each in list_in(value, "bundles", where)),
            {digest: text for digest, text in words.items() if digest} or None,
            tuple(Digest.parse(each, where) for each in list_in(value, "layers", where)) if "layers" in value else None,
        )

    def as_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            "chunks": self.chunks,
            "bytes": self.bytes,
            "bundles": [str(each) for each in self.bundles],
        }
        if self.about is not None:
            out["about"] = {str(digest): text for digest, text in self.about.items()}
        if self.layers is not None:
            out["layers"] = [str(each) for each in self.layers]
        return out

    @property
    def words(self) -> Mapping[Digest, str]:
        """A few words for each bundle that is known."""
        return self.about or NO_WORDS

    def __bool__(self) -> bool:
        """Whether anything is needed."""
        return bool(self.chunks or self.bundles)


NONE = Prerequisites()


def _digest_or_none(text: str) -> Digest | None:
    try:
        return Digest.parse(text)
    except FormatError:
        return None


def describe(bundles: Sequence[Digest], about: Mapping[Digest, str] = NO_WORDS) -> str:
    """Bundles in a sentence; `about` has a few words for each digest that is known."""
    shown = ", ".join(f"{each.short} ({about[each]})" if each in about else each.short for each in bundles[:3])
    more = f" and {len(bundles) - 3} more" if len(bundles) > 3 else ""
    return f"bundle{'s' * (len(bundles) != 1)} {shown}{more}"


def import_first(bundles: Sequence[Digest]) -> str:
    """What to do about bundles that are not here."""
    return (
        f"import {describe(bundles)} first, or name its folder with --seed; or keep this bundle for later with --stage"
        if bundles
        else "name the folder of the bundle it depends on with --seed"
    )
