"""`docker save` in several streams: while one is read, the daemon prepares the next ones.

A daemon writes all that was asked for into temporary files before its first byte (Docker 20.10, 13 images, 2.7 GB: 17 of 22 seconds), and
uses one processor for it.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future

from transfer.engines.base import BlobStream, ResolvedImage
from transfer.engines.savestream import SaveStream
from transfer.model import Digest, Image
from transfer.streams import IterReader
from transfer.work import Pool

PARTS = 3
"""About so many streams. Each repeats the layers it shares with others, which costs the daemon time (docs/decisions/0007)."""
LEAST = 256 << 20
"""But none for images of less than so many bytes."""
AHEAD = 2
"""Streams that the daemon prepares while one is read."""

_Place = tuple[tuple[Digest, ...], Digest | None]
Opened = contextlib.AbstractContextManager[Iterator[bytes]]


class Saves:
    """The images of one export. `open_stream` asks the daemon for some of them by ID, as one stream."""

    def __init__(self, where: str, open_stream: Callable[[Sequence[str]], Opened]) -> None:
        self._where, self._open = where, open_stream
        self._streams: list[tuple[SaveStream, frozenset[Digest]]] = []

    def read(self, found: Sequence[ResolvedImage]) -> Iterator[BlobStream]:
        """Every blob, in an order that depends on the images alone. A layer that a stream had is passed over in the next."""
        groups = grouped(found)
        known: dict[str, Digest] = {}
        documents: set[Digest] = set()
        waiting: deque[Future[tuple[contextlib.ExitStack, Iterator[bytes]]]] = deque()
        self._streams = []
        with Pool(AHEAD if len(groups) > 1 else 0, "save") as pool:
            following = iter(groups)

            def ask() -> None:
                group = next(following, None)
                if group is not None:
                    waiting.append(pool.submit(lambda: self._ask(group)))

            try:
                for group in groups:
                    while len(waiting) < 1 + AHEAD and len(waiting) + len(self._streams) < len(groups):
                        ask()
                    stack, parts = waiting.popleft().result()
                    stream = SaveStream(self._where)
                    self._streams.append((stream, frozenset(each.id for each in group)))
                    with stack:
                        for each in stream.read(IterReader(parts), known):
                            if each.digest is None or each.digest not in documents:
                                yield each
                    documents |= stream.documents.keys()
                    known.update((name, d) for name, d in stream.digest_of.items() if d not in documents)
            finally:
                for asked in waiting:
                    with contextlib.suppress(Exception):
                        asked.result()[0].close()

    def _ask(self, group: Sequence[ResolvedImage]) -> tuple[contextlib.ExitStack, Iterator[bytes]]:
        """Returns when the daemon begins to answer."""
        stack = contextlib.ExitStack()
        return stack, stack.enter_context(self._open([str(each.id) for each in group]))

    def images(
        self, found: Sequence[ResolvedImage], documents: dict[Digest, bytes], sizes: Mapping[Digest, int]
    ) -> list[Image]:
        """The images asked for, each from the stream that had it."""
        made: dict[int, Image] = {}
        for stream, ids in self._streams:
            mine = [each for each in found if each.id in ids]
            made.update(zip(map(id, mine), stream.images(mine, documents, sizes), strict=True))
        return [made[id(each)] for each in found]


def grouped(found: Sequence[ResolvedImage]) -> list[list[ResolvedImage]]:
    """Images dealt out into a few groups of about equal size, those that share their first layers side by side.

    Docker 20.10 saves the images of one stream in random order (a Go map), and a layer that several have goes where the first one has it. So
    images that have it in different places come in different streams: the order of layers then depends on the images alone.
    """
    different = {each.id: each for each in found}
    ordered = sorted(different.values(), key=lambda each: ([str(digest) for digest, _ in each.layers], str(each.id)))
    rounds: list[tuple[dict[Digest, _Place], list[ResolvedImage]]] = []
    for each in ordered:
        places = _places(each)
        fitting = (r for r in rounds if all(r[0].get(digest, place) == place for digest, place in places.items()))
        places_of, members = next(fitting, ({}, []))
        if not members:
            rounds.append((places_of, members))
        places_of.update(places)
        members.append(each)
    target = max(LEAST, sum(each.size for each in ordered) // PARTS)
    return [group for _, members in rounds for group in _split(members, target)]


def _places(image: ResolvedImage) -> dict[Digest, _Place]:
    """Where `docker save` has each layer first: it is named by what lies below it, the topmost by the image too."""
    chain = tuple(digest for digest, _ in image.layers)
    out: dict[Digest, _Place] = {}
    for at, digest in enumerate(chain):
        out.setdefault(digest, (chain[: at + 1], image.id if at == len(chain) - 1 else None))
    return out


def _split(images: Sequence[ResolvedImage], target: int) -> list[list[ResolvedImage]]:
    groups: list[list[ResolvedImage]] = []
    reassembled = target
    for each in images:
        if reassembled >= target:
            groups.append([])
            reassembled = 0
        groups[-1].append(each)
        reassembled += each.size
    return groups
