"""Catalog records of other bundles, found by the BLAKE3 of their bytes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Protocol

from transfer.bundle.prerequisites import describe, import_first
from transfer.chunks.name import chunk_id
from transfer.errors import Damaged, MissingPart
from transfer.model import Descriptor, Digest

STEPS_MAX = 16
"""Catalogs from a patched one to a plain one (FORMAT.md, section 3)."""


class Catalogued(Protocol):
    """A bundle, as far as its catalog's records are concerned."""

    manifest: Descriptor
    reading: bool

    def records(self) -> Generator[bytes]: ...


class Catalogs(Protocol):
    """Some bundles at hand."""

    def bundle(self, digest: Digest, /) -> Catalogued | None: ...

    def bundles(self) -> Iterator[Catalogued]: ...


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
    library: Catalogs, names: Sequence[bytes], likely: Sequence[Digest], about: Mapping[Digest, str], where: str
) -> tuple[dict[bytes, bytes], set[Digest]]:
    """Catalog records of other bundles by the BLAKE3 of their bytes, and the bundles they are in. MissingPart if one is not to be had."""
    with one_search():
        _SEARCH.depth += 1
        try:
            return _find_records(library, names, likely, about, where)
        finally:
            _SEARCH.depth -= 1


def _find_records(
    library: Catalogs, names: Sequence[bytes], likely: Sequence[Digest], about: Mapping[Digest, str], where: str
) -> tuple[dict[bytes, bytes], set[Digest]]:
    wanted: set[bytes] = set(names)
    found: dict[bytes, bytes] = {}
    suppliers: set[Digest] = set()
    broken: list[Damaged] = []
    seen: set[Digest] = set()
    failed, depth = _SEARCH.failed, _SEARCH.depth
    assert failed is not None

    def look(bundle: Catalogued) -> None:
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
            f"{where}: this bundle depends on {describe(absent or likely, about)}, which is not on this host",
            hint=import_first(absent or likely),
        )
    return found, suppliers
