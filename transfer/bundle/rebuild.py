"""Blobs on their way out of a bundle and those it builds on: recipes followed, frames decoded ahead of their use."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from functools import partial

from transfer.bundle.assembly import BundleSet, assemble
from transfer.bundle.reader import Bundle
from transfer.chunks.deflate import need_codec, put_together
from transfer.chunks.fold import folded
from transfer.chunks.recall import AHEAD, BUDGET, BUDGET_DELTA, ChunkCache, with_prefixes
from transfer.errors import FormatError
from transfer.model import Digest, Folds, Recipe
from transfer.streams import BLOCK, IterReader, coalesced
from transfer.work import Pool

TOGETHER_MAX = 2
"""Records of one blob that are decoded at once: each takes some 25 MB, and four blobs may be on their way."""


class BlobReader:
    """These blobs, in this order for preference, sharing one memory of decoded chunks.

    MissingPart if they need chunks that neither the bundle nor its library has. `checked=False` leaves out comparing chunks with their
    names: the blob's digest tells as much, though not which frame is wrong.
    """

    def __init__(
        self,
        bundle: Bundle,
        digests: Iterable[Digest],
        *,
        pool: Pool,
        jobs: int,
        budget: int | None = None,
        checked: bool = True,
    ) -> None:
        ordered = list(dict.fromkeys(digests))
        self._catalog, self._where, self._pool = bundle.catalog(), str(bundle.folder), pool
        self._ahead = max(1, min(jobs, TOGETHER_MAX))
        for recipe in self._catalog.all_of(ordered):
            if recipe.plain or recipe.folds:
                need_codec(self._where, files=bool(recipe.folds))
        assembly = assemble(bundle, ordered, bundle.library) if bundle.is_delta else BundleSet([bundle])
        if budget is None:
            budget = BUDGET_DELTA if bundle.is_delta else BUDGET
        self.frame_of, self.size_of = assembly.frame_of, assembly.size_of
        self._places: dict[Digest, range] = {}
        self._plain_at: dict[Digest, int] = {}
        self.plan: array[int] = array("I")
        for digest in ordered:
            begin = len(self.plan)
            for recipe in self._catalog.all_of((digest,)):
                self._plain_at[digest] = len(self.plan)
                if recipe.folds:
                    self.plan.extend(assembly.numbers(recipe.folds.names))
                for part in recipe.parts:
                    self.plan.extend(assembly.numbers(part.skeleton + part.payload))
            self._places[digest] = range(begin, len(self.plan))
        uses, prefixes = self.plan, dict[int, int]()
        self._time: array[int] | None = None
        if bundle.is_patched:
            uses, self._time, prefixes = with_prefixes(self.plan, assembly.frame_of, assembly.prefix_of)
        self.recall = ChunkCache(
            partial(assembly.decode, checked=checked),
            assembly.frame_of,
            assembly.size_of,
            uses,
            pool=pool,
            jobs=jobs,
            prefix_of=assembly.prefix_of if bundle.is_patched else None,
            prefix_uses=prefixes,
            budget=budget,
        )
        self.frames = len({assembly.frame_of[number] for number in uses})

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._places

    def open(self, digest: Digest) -> IterReader:
        """The blob as a stream; it is checked against its digest by whoever reads it."""
        recipe = self._catalog.recipe(digest)
        stream = self._stream(recipe, self._places[digest].start)
        if recipe.plain is None:
            return stream
        plain = self._stream(self._catalog.recipe(recipe.plain), self._plain_at[digest])
        where = f"{self._where}: layer {digest}"
        return IterReader(put_together(stream, plain, self._pool, self._ahead, where))

    def _stream(self, recipe: Recipe, position: int) -> IterReader:
        folds = recipe.folds
        if folds is None:
            return IterReader(coalesced(self._pieces(recipe, position)))
        unfolded = IterReader(coalesced(self._pieces(recipe, position + len(folds.leads))))
        runs = self._runs(folds, position)
        return IterReader(folded(runs, unfolded, self._pool, self._ahead, f"{self._where}: layer {recipe.digest}"))

    def _runs(self, folds: Folds, position: int) -> Iterator[tuple[int, IterReader]]:
        """The folds of a blob, from a position of the plan on: what is copied before some, and those."""
        for lead, count in folds.runs():
            yield lead, IterReader(self._each(range(position, position + count)))
            position += count

    def _each(self, positions: range) -> Iterator[bytes]:
        for position in positions:
            yield self.use(position, position + 1)[0]

    def _pieces(self, recipe: Recipe, position: int) -> Iterator[bytes | memoryview]:
        """Skeleton and chunks in turn, from a position of the plan on."""
        for part in recipe.parts:
            skeletons, payloads = len(part.skeleton) // 32, len(part.payload) // 32
            frame = _Skeleton(self, position, skeletons)
            scout = _Scout(self, position + skeletons, position + skeletons + payloads)
            gaps = iter(part.gaps)
            for chunks in scout.batches():
                for data, gap in zip(chunks, gaps, strict=False):
                    if gap:
                        yield from frame.take(gap)
                    yield data
            yield from frame.take(part.gaps[-1])
            position += skeletons + payloads

    def forgo(self, digests: Iterable[Digest]) -> None:
        """What is left of these blobs is not going to be read, so nothing is kept for it. Who reads one nevertheless gets it."""
        for digest in digests:
            for position in self._places.get(digest, ()):
                self.recall.forgo(self.plan[position], self._time[position] if self._time else position)

    def use(self, begin: int, end: int) -> list[bytes]:
        """The chunks at these places of the plan."""
        positions = self._time[begin:end] if self._time else range(begin, end)
        return self.recall.use_all(self.plan[begin:end], positions)


class _Skeleton:
    """The skeleton chunks of one part, taken in order."""

    def __init__(self, owner: BlobReader, position: int, count: int) -> None:
        self._owner, self._position, self._end = owner, position, position + count
        self._rest = memoryview(b"")

    def take(self, size: int) -> Iterator[memoryview]:
        while size > 0:
            if not self._rest:
                if self._position >= self._end:
                    raise FormatError("a recipe needs more skeleton bytes than it has")
                self._rest = memoryview(self._owner.use(self._position, self._position + 1)[0])
                self._position += 1
            piece = self._rest[:size]
            self._rest = self._rest[len(piece) :]
            size -= len(piece)
            yield piece


class _Scout:
    """Uses payload chunks, about a MiB at a time, and has the frames ahead decoded in time."""

    def __init__(self, owner: BlobReader, begin: int, end: int) -> None:
        self._owner, self._at, self._seen, self._end = owner, begin, begin, end
        self._lead = 0

    def batches(self) -> Iterator[list[bytes]]:
        plan, size_of = self._owner.plan, self._owner.size_of
        while self._at < self._end:
            begin, size = self._at, 0
            while self._at < self._end and size < BLOCK:
                size += size_of[plan[self._at]]
                self._at += 1
            self._look_ahead(size)
            yield self._owner.use(begin, self._at)

    def _look_ahead(self, size: int) -> None:
        """Begin to decode what is used soon; `size` bytes of what was looked at are used now."""
        plan, size_of, frame_of = self._owner.plan, self._owner.size_of, self._owner.frame_of
        prepared: set[int] = set()
        while self._seen < self._end and self._lead < AHEAD:
            number = plan[self._seen]
            frame = frame_of[number]
            if frame not in prepared and not self._owner.recall.prepare(number):
                break
            prepared.add(frame)
            self._lead += size_of[number]
            self._seen += 1
        self._lead -= size
        if self._seen < self._at:
            self._seen, self._lead = self._at, 0
