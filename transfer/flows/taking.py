"""One layer taken in: a tar and a gzip stream are taken apart, anything else is held as it is."""

from __future__ import annotations

import contextlib
import hashlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

from transfer.bundle.catalog import OPAQUE, PLAIN, TOGETHER
from transfer.chunks.cut import Cutter
from transfer.chunks.deflate import AHEAD_MAX, DISTRIBUTION, GZIP, Dismantling, codec
from transfer.chunks.layer import raw, split
from transfer.chunks.name import ID_SIZE, ChunkSink
from transfer.chunks.patch import DeltaMatcher
from transfer.model import Digest, Part, Recipe
from transfer.streams import IterReader
from transfer.work import Pool, prefetch, run_alongside

GROWTH = 20
"""Plain bytes for each byte of a gzip stream, beyond which it takes of the room."""
ROOM = 2 << 30
"""So many plain bytes more may all gzip streams of an export have: readers refuse a bundle that grows too much (FORMAT.md, section 9)."""
READ_AHEAD = 2
"""Blocks of a layer that wait between two threads."""
_COMPRESSED = {GZIP: "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ": "xz", b"BZh": "bzip2"}


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one layer: how it is encoded, its recipe's parts, the recipe of the plain blob it is put together from, and why it is held as it is."""

    encoding: int
    parts: tuple[Part, ...]
    plain: Recipe | None = None
    why: str = ""


class Taker:
    """Cuts layers into chunks for a sink. `dismantlers`: who takes gzip streams apart; None: they are held as they are."""

    def __init__(
        self,
        sink: ChunkSink,
        dismantlers: Pool | None,
        jobs: int,
        fewer: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        """`fewer`: while a gzip stream is taken apart, fewer frames are packed at a time, which gives the memory for it."""
        self._sink, self._dismantlers, self._jobs, self._fewer = sink, dismantlers, jobs, fewer
        self._pairing: DeltaMatcher | None = None
        self._room = ROOM

    @property
    def dismantles(self) -> bool:
        """Whether gzip streams are to be taken apart."""
        return self._dismantlers is not None

    def take(self, first: bytes, rest: Iterator[bytes], size: int | None, pairing: DeltaMatcher | None) -> Taken:
        """One layer's chunks, in one of three ways: a tar, a gzip stream of one, or bytes as they are. `first` is how it begins, `size` its bytes, if that is known; `pairing` finds partners in a base."""
        self._pairing = pairing
        compression = next((name for magic, name in _COMPRESSED.items() if first.startswith(magic)), "")
        if not compression:
            return Taken(PLAIN, Cutter(self._sink, self._pairing).cut(split(IterReader(rest))))
        why = f"{compression} is not taken apart"
        if compression == "gzip":
            if not self._dismantlers:
                why = "as was asked for"
            elif codec() is None:
                why = f"gzip, and {DISTRIBUTION} is not installed"
            else:
                ahead = max(1, min(self._jobs, AHEAD_MAX) - 1)
                apart = Dismantling(rest, self._sink, self._dismantlers, ahead, GROWTH * (size or ROOM) + self._room)
                why = apart.begin()
                if not why:
                    with self._fewer():
                        return self._take_apart(apart)
                rest = chain(apart.held, rest)
        return Taken(OPAQUE, Cutter(self._sink, self._pairing).cut(raw(IterReader(rest))), why=why)

    def grew(self, size: int, plain: int) -> None:
        """A gzip stream of so many bytes came, which is put together from so many plain ones."""
        self._room -= max(0, plain - GROWTH * size)

    def _take_apart(self, apart: Dismantling) -> Taken:
        """A gzip stream: its plain bytes as any layer's, and the recipe beside."""
        hasher, size = hashlib.sha256(), 0
        threaded = self._jobs > 1
        blocks = prefetch(apart.plain(), 1, threaded=threaded)
        with contextlib.closing(blocks), run_alongside(hasher.update, 1, threaded=threaded) as hash_it:  # type: ignore[type-var]

            def plain() -> Iterator[bytes]:
                nonlocal size
                for block in apart.followed(blocks):
                    hash_it(block)
                    size += len(block)
                    yield block

            cut = Cutter(self._sink, self._pairing).cut(split(IterReader(plain())))
        records = (Part(b"", apart.names, array("Q", bytes(8 * (len(apart.names) // ID_SIZE + 1)))),)
        recipe = Recipe(Digest(f"sha256:{hasher.hexdigest()}"), size, PLAIN, cut)
        return Taken(TOGETHER, records, recipe, f"in part: {apart.fault}" if apart.fault else "")
