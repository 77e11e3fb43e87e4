"""Where other bundles are found: what a delta needs of them, by content."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from transfer.chunks.name import chunk_id
from transfer.errors import Damaged, MissingPart
from transfer.model import Digest

STEPS_MAX = 4
"""Catalogs from a patched one to a plain one (FORMAT.md, section 3)."""

if TYPE_CHECKING:
    from transfer.bundle.reader import Bundle


class Library(Protocol):
    """Some bundles at hand."""

    def bundle(self, digest: Digest) -> Bundle | None:
        """The bundle with this digest, if it is here."""
        ...

    def bundles(self) -> Iterator[Bundle]:
        """All of them."""
        ...

    def locate(self, names: Iterable[bytes]) -> dict[bytes, Bundle]:
        """Which bundle carries each of these chunks; names that none carries are left out."""
        ...


class Shelf:
    """A few bundles, and the libraries behind them: the first that has something gives it."""

    def __init__(self, bundles: Iterable[Bundle] = (), behind: Sequence[Library] = ()) -> None:
        self._bundles = {each.manifest.digest: each for each in bundles}
        self._behind = behind
        for each in self._bundles.values():
            each.library = self

    def put(self, bundle: Bundle) -> None:
        """One more, with this shelf as its library."""
        bundle.library = self
        self._bundles.setdefault(bundle.manifest.digest, bundle)

    def bundle(self, digest: Digest) -> Bundle | None:
        if digest in self._bundles:
            return self._bundles[digest]
        return next((found for each in self._behind if (found := each.bundle(digest))), None)

    def bundles(self) -> Iterator[Bundle]:
        yield from self._bundles.values()
        for each in self._behind:
            yield from (b for b in each.bundles() if b.manifest.digest not in self._bundles)

    def locate(self, names: Iterable[bytes]) -> dict[bytes, Bundle]:
        wanted, found = set(names), {}
        for bundle in self._bundles.values():
            if not wanted or bundle.missing_packs():
                continue
            try:
                hits = wanted & bundle.catalog().numbers_of.keys()
            except MissingPart:
                continue  # what it builds on is not here: what it carries cannot be told
            found.update(dict.fromkeys(hits, bundle))
            wanted -= hits
        for library in self._behind:
            if wanted:
                hits_behind = library.locate(wanted)
                found.update(hits_behind)
                wanted -= hits_behind.keys()
        return found


EMPTY = Shelf()


class _Search(threading.local):
    """What the search for records that is under way in this thread has found out so far."""

    depth = 0
    failed: dict[Digest, int] | None = None
    """Bundles whose catalogs could not be read, and how far the search was from its start: from no farther they are tried again."""


_SEARCH = _Search()


@contextlib.contextmanager
def one_search() -> Iterator[None]:
    """Catalogs that are found to be unreadable in here are not tried again. Nothing may come into the libraries meanwhile."""
    if _SEARCH.failed is not None:
        yield
        return
    _SEARCH.failed = {}
    try:
        yield
    finally:
        _SEARCH.failed = None


def find_records(
    library: Library, names: Sequence[bytes], likely: Sequence[Digest], about: Mapping[str, str], where: str
) -> tuple[dict[bytes, bytes], set[Digest]]:
    """Catalog records of other bundles by the BLAKE3 of their bytes, and the bundles they are in. MissingPart if one is not to be had."""
    with one_search():
        _SEARCH.depth += 1
        try:
            return _find_records(library, names, likely, about, where)
        finally:
            _SEARCH.depth -= 1


def _find_records(
    library: Library, names: Sequence[bytes], likely: Sequence[Digest], about: Mapping[str, str], where: str
) -> tuple[dict[bytes, bytes], set[Digest]]:
    wanted: set[bytes] = set(names)
    found: dict[bytes, bytes] = {}
    suppliers: set[Digest] = set()
    broken: list[Damaged] = []
    seen: set[Digest] = set()
    failed, depth = _SEARCH.failed, _SEARCH.depth
    assert failed is not None

    def look(bundle: Bundle) -> None:
        digest = bundle.manifest.digest
        if not wanted or digest in seen or bundle.reading or depth > STEPS_MAX or failed.get(digest, 99) <= depth:
            return
        seen.add(digest)
        failed[digest] = depth
        try:
            with contextlib.closing(bundle.records()) as records:
                for record in records:
                    name = chunk_id(record)
                    if name in wanted:
                        wanted.discard(name)
                        found[bytes(name)] = record
                        suppliers.add(bundle.manifest.digest)
                        if not wanted:
                            break
            del failed[digest]
        except Damaged as error:
            broken.append(error)
        except MissingPart:
            return

    for digest in likely:
        known = library.bundle(digest)
        if known:
            look(known)
    if wanted:
        for bundle in library.bundles():
            look(bundle)
    if wanted:
        if broken:
            raise broken[0]
        absent = [digest for digest in likely if digest not in seen]
        raise MissingPart(
            f"{where}: it builds on {describe(absent or likely, about)}, not to be found here",
            hint=import_first(absent or likely),
        )
    return found, suppliers


def describe(bundles: Sequence[Digest], about: Mapping[str, str] = MappingProxyType({})) -> str:
    """Bundles in a sentence; `about` has a few words for each digest that is known."""
    shown = ", ".join(
        f"{each.short} ({about[str(each)]})" if str(each) in about else each.short for each in bundles[:3]
    )
    more = f" and {len(bundles) - 3} more" if len(bundles) > 3 else ""
    return f"bundle{'s' * (len(bundles) != 1)} {shown}{more}"


def import_first(bundles: Sequence[Digest]) -> str:
    """What to do about bundles that are not here."""
    return (
        f"import {describe(bundles)} first, or name its folder with --seed; --stage keeps this bundle until then"
        if bundles
        else "name a folder that holds the bundle it builds on with --seed"
    )
