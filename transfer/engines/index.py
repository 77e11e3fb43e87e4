"""What an index.json says of names and roots: of layouts, and of archives (image-spec, image-layout.md)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transfer.errors import FormatError, NotFound, TransferError
from transfer.model import Descriptor, Digest, Reference, is_label, is_name
from transfer.streams import parse_object, sha256

REF_NAME = "org.opencontainers.image.ref.name"
_DIGEST = re.compile(r"sha(256|512):[0-9a-f]+", re.ASCII)
"""What reads as a digest is no name: it would mean two images."""
FULL_NAME = "io.containerd.image.name"
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}\n'


def entry_names(descriptor: Descriptor) -> tuple[str, ...]:
    """The names an index.json entry goes by: containerd's full name in its familiar form, else the ref name as it is."""
    full = descriptor.annotations.get(FULL_NAME, "")
    if full and is_name(full):
        return (Reference.parse(full).familiar,)
    name = descriptor.annotations.get(REF_NAME, "")
    return (name,) if is_label(name) and not _DIGEST.fullmatch(name) else ()


def name_annotations(name: str) -> dict[str, str]:
    """What an index.json entry says of its name, readable by skopeo (ref name) and containerd and Docker (full name)."""
    if any(mark in name for mark in ":/@") and is_name(name):
        return {REF_NAME: name, FULL_NAME: str(Reference.parse(name))}
    return {REF_NAME: name}


@dataclass(frozen=True, slots=True)
class Broken:
    """An image that is named and cannot be had: its names, a digest it may be called by, and why."""

    names: tuple[str, ...]
    id: Digest
    error: TransferError


class Roots:
    """The entries of an index.json: names to roots. Shared by folders and archives. `broken`: images without a root."""

    def __init__(self, entries: list[Descriptor], where: str, broken: Sequence[Broken] = ()) -> None:
        self.where, self.entries, self.broken = where, entries, tuple(broken)
        self._names: dict[Digest, dict[str, None]] = {}
        self._named: dict[str, list[Descriptor]] = {}
        for each in entries:
            for name in entry_names(each):
                self._names.setdefault(each.digest, {})[name] = None
                self._named.setdefault(name, []).append(each)

    @staticmethod
    def parse(data: bytes, where: str, place: str = "", *, strict: bool = False) -> Roots:
        """`where` the file is, and what `place` it lists, for messages. FormatError if it is not an index.json. A malformed entry is that image's own fault, but with `strict`."""
        found = parse_object(data, where).get("manifests", 0)
        if found is None:
            found = []  # as Go writes an empty list
        if not isinstance(found, list):
            raise FormatError(f"{where}: manifests is not a list")
        good, broken = [], []
        for number, each in enumerate(found, 1):
            try:
                good.append(Descriptor.parse(each, where))
            except FormatError as error:
                if strict:
                    raise
                broken.append(_broken_entry(each, number, where, error))
        return Roots(good, place or where, broken)

    def pick(
        self, reference: str, suits: Callable[[Descriptor], bool] = lambda root: True
    ) -> tuple[Descriptor, tuple[str, ...]]:
        """The root a name, digest, or start of a digest's hex means, with all its names. Of several the one that `suits`."""
        wanted = [reference]
        if is_name(reference):
            wanted.append(Reference.parse(reference).familiar)
        text = _bare(reference)
        hits = [each for each in self.entries if str(each.digest) == reference]  # a whole digest is never a name
        hits = hits or [each for name in dict.fromkeys(wanted) for each in self._named.get(name, ())]
        if not hits and reference:
            hits = [each for each in self.entries if len(text) >= 6 and each.digest.hex.startswith(text)]
        if not reference and len({each.digest for each in self.entries}) == 1:
            hits = self.entries[:1]
        if len({each.digest for each in hits}) > 1:
            hits = [each for each in hits if suits(each)] or hits
        self._broken(reference, wanted, bool(hits))
        if len({each.digest for each in hits}) != 1:
            have = ", ".join(n for each in self.entries for n in entry_names(each)) or "no named image"
            what = "more than one image is" if hits else "no image is"
            several = ", ".join(dict.fromkeys(each.digest.short for each in hits))
            raise NotFound(
                f"{self.where}: {what} called {reference!r:.100}; it holds {have:.400}",
                hint=f"name the image by its digest ({several:.200}), or choose one with --platform" if hits else "",
            )
        return hits[0], self.names_of(hits[0].digest)

    def _broken(self, reference: str, wanted: list[str], found: bool) -> None:
        """The error of an image that is meant and cannot be had."""
        text = _bare(reference)
        for each in self.broken:
            alone = not reference and not self.entries
            by_id = len(text) >= 6 and each.id.hex.startswith(text)
            if not found and (alone or by_id or set(wanted) & set(each.names)):
                raise each.error

    def names_of(self, digest: Digest) -> tuple[str, ...]:
        return tuple(self._names.get(digest, ()))

    def all(self) -> tuple[list[tuple[Descriptor, tuple[str, ...]]], Sequence[Broken]]:
        """Each root once with its names, and what is broken."""
        return [(each, self.names_of(each.digest)) for each in self.unique()], self.broken

    def unique(self) -> list[Descriptor]:
        return list({each.digest: each for each in self.entries}.values())


def _broken_entry(value: object, number: int, where: str, error: FormatError) -> Broken:
    """An entry of index.json that is none, by what can be read of it."""
    notes = value.get("annotations") if isinstance(value, dict) else None
    name = notes.get(REF_NAME) if isinstance(notes, dict) else None
    names = (name,) if isinstance(name, str) and is_label(name) else ()
    called = f" ({names[0]})" if names else ""
    told = FormatError(f"{where}: entry {number}{called}: {error.message.removeprefix(f'{where}: ')}", hint=error.hint)
    return Broken(names, sha256(f"entry {number}".encode()), told)


def _bare(reference: str) -> str:
    """A digest without what says its algorithm, as people type its beginning."""
    return reference.removeprefix("sha256:").removeprefix("sha512:")
