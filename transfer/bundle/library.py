"""Where other bundles are found: what a delta needs of them, by content."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from transfer.bundle.reader import Bundle, BundleLookup
from transfer.errors import MissingPart
from transfer.model import Digest


class BundleList:
    """A few bundles, and the libraries behind them: the first that has something gives it."""

    def __init__(self, bundles: Iterable[Bundle] = (), behind: Sequence[BundleLookup] = ()) -> None:
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


EMPTY = BundleList()
