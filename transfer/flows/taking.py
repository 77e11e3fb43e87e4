"""One layer taken in: a tar and a gzip stream are taken apart, anything else is held as it is."""

from __future__ import annotations

import contextlib
import hashlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

from transfer.bundle.catalog import FOLDED, OPAQUE, PLAIN, TOGETHER
from transfer.bundle.delta import DeltaBase
from transfer.chunks.cut import Cutter
from transfer.chunks.deflate import AHEAD_MAX, DISTRIBUTION, GZIP, Dismantling, codec
from transfer.chunks.layer import raw, split
from transfer.chunks.name import ID_SIZE, ChunkSink
from transfer.chunks.patch import DeltaMatcher
from transfer.chunks.unfold import KnownRecords, Unfolding
from transfer.model import Digest, Folds, GzipWay, Part, Recipe
from transfer.streams import IterReader, Readable
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
    folds: Folds | None = None


class Taker:
    """Cuts layers into chunks for a sink. `dismantlers` take gzip streams apart, as far as `way` says."""

    def __init__(
        self,
        sink: ChunkSink,
        dismantlers: Pool,
        way: GzipWay,
        jobs: int,
        base: DeltaBase | None = None,
        fewer: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        """`fewer`: while a gzip stream is taken apart, fewer frames are packed at a time, which gives the memory for it."""
        self._sink, self._dismantlers, self._way, self._jobs, self._fewer = sink, dismantlers, way, jobs, fewer
        self._unfolds = way == "exact" and codec() is not None
        self._known = KnownRecords()
        if base and self._unfolds:
            base.learn_records(self._known)
        self._ahead = max(1, min(jobs, AHEAD_MAX) - 1)
        self._pairing: DeltaMatcher | None = None
        self._room = ROOM

    @property
    def dismantles(self) -> bool:
        """Whether gzip streams are to be taken apart."""
        return self._way != "opaque"

    def take(self, first: bytes, rest: Iterator[bytes], size: int | None, pairing: DeltaMatcher | None) -> Taken:
        """One layer's chunks, in one of three ways: a tar, a gzip stream of one, or bytes as they are. `first` is how it begins, `size` its bytes, if that is known; `pairing` finds partners in a base."""
        self._pairing = pairing
        compression = next((name for magic, name in _COMPRESSED.items() if first.startswith(magic)), "")
        if not compression:
            parts, folds = self._cut(IterReader(rest))
            return Taken(FOLDED if folds else PLAIN, parts, folds=folds)
        why = f"{compression} is not taken apart"
        if compression == "gzip":
            if not self.dismantles:
                why = "as was asked for"
            elif codec() is None:
                why = f"gzip, and {DISTRIBUTION} is not installed"
            else:
                limit = GROWTH * (size or ROOM) + self._room
                apart = Dismantling(rest, self._sink, self._dismantlers, self._ahead, limit)
                why = apart.begin()
                if not why:
                    with self._fewer():
                        return self._take_apart(apart)
                rest = chain(apart.held, rest)
        return Taken(OPAQUE, Cutter(self._sink, self._pairing).cut(raw(IterReader(rest))), why=why)

    def _cut(self, layer: Readable) -> tuple[tuple[Part, ...], Folds | None]:
        """A tar's chunks; and how its compressed files are made again, where some were taken apart."""
        cutter = Cutter(self._sink, self._pairing)
        if not self._unfolds:
            return cutter.cut(split(layer)), None
        is_held = self._pairing.holds if self._pairing else None
        unfolding = Unfolding(
            self._sink, self._dismantlers, min(self._jobs, AHEAD_MAX), self._room, self._known, is_held
        )
        return cutter.cut(unfolding.pieces(split(layer))), unfolding.folds

    def grew(self, size: int, plain: int) -> None:
        """A gzip stream of so many bytes came, or a layer with such streams in it, which is put together from so many plain ones."""
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

            cut, folds = self._cut(IterReader(plain()))
        records = (Part(b"", apart.names, array("Q", bytes(8 * (len(apart.names) // ID_SIZE + 1)))),)
        digest = Digest(f"sha256:{hasher.hexdigest()}")
        recipe = Recipe(digest, size, FOLDED if folds else PLAIN, cut, folds=folds)
        return Taken(TOGETHER, records, recipe, f"in part: {apart.fault}" if apart.fault else "")
