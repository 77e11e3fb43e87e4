"""What a delta builds on: chunks the far side has, and older selves of files to patch against."""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

from transfer.bundle import header as head
from transfer.bundle.assembly import DEPTH_MAX, BundleSet, complete
from transfer.bundle.catalog import AS_FILES, chunk_names, recipe_records
from transfer.bundle.files import payload_paths, skeleton_names
from transfer.bundle.reader import Bundle, BundleLookup
from transfer.chunks.deflate import done
from transfer.chunks.fold import records_by_key
from transfer.chunks.name import ID_SIZE, chunk_id, split_names
from transfer.chunks.patch import BaseFiles, DeltaMatcher
from transfer.chunks.recall import ChunkCache, with_prefixes
from transfer.chunks.unfold import KnownRecords
from transfer.errors import Damaged, FormatError, MissingPart
from transfer.model import ChunkId, Digest, Recipe
from transfer.streams import IterReader
from transfer.work import Pool

ABSENT = -1
_RECORDS_MAX = 32 << 20
_FETCH_BUDGET = 96 << 20


class DeltaBase:
    """Bundles that the far side has whole: every chunk their recipes name is there.

    Where a chunk's bytes are not at hand here as well, it is still known, but nothing is patched against it.
    """

    def __init__(self, bundles: Sequence[Bundle], *, pool: Pool, jobs: int) -> None:
        self.bundles = tuple(bundles)
        self._pool, self._jobs = pool, max(1, jobs)
        self.assembly = BundleSet(bundles)
        names = {n for each in bundles if each.is_delta for n in recipe_names(each)}
        if names:
            # what carries a chunk there: other bundles here may carry it nearer to plain, and were never sent there
            complete(self.assembly, names, _Kin(bundles, bundles[0].library))
            complete(self.assembly, names, bundles[0].library)
        self._numbers = self._known(names)
        self._gone = {each.manifest.digest for each in self.assembly.bundles if each.missing_packs()}
        self._usable: dict[int, bool] = {}
        self._layers: list[Digest] = []
        self._recipes = {d: r for each in reversed(bundles) for d, r in each.catalog().recipes.items()}
        self._older: BaseFiles | None = None

    def _known(self, names: set[bytes]) -> dict[bytes, int]:
        if len(self.bundles) == 1 and not names:
            return self.bundles[0].catalog().numbers_of
        known: dict[bytes, int] = {name: self.assembly.find(name) for name in names}
        for bundle in self.bundles:
            known.update((name, self.assembly.find(name)) for name in bundle.catalog().numbers_of)
        return known

    @property
    def digests(self) -> tuple[Digest, ...]:
        return tuple(each.manifest.digest for each in self.bundles)

    def __contains__(self, name: bytes) -> bool:
        return name in self._numbers

    def find(self, name: bytes) -> int:
        """The chunk's number, -1 if it is not known or nowhere here."""
        return self._numbers.get(name, ABSENT)

    def size_of(self, number: int) -> int:
        return self.assembly.size_of[number]

    def name_of(self, number: int) -> ChunkId:
        return ChunkId(self.assembly.name_of(number))

    def frame_of(self, number: int) -> int:
        return self.assembly.frame_of[number]

    def usable(self, number: int) -> bool:
        """Whether the chunk's bytes can be had here, and a frame patched against it stays within the depth."""
        if number < 0:
            return False
        frame = self.assembly.frame_of[number]
        known = self._usable.get(frame)
        if known is None:
            known = False
            with contextlib.suppress(MissingPart, FormatError):
                known = self.assembly.depth(frame) < DEPTH_MAX and self._at_hand(frame)
            self._usable[frame] = known
        return known

    def _at_hand(self, frame: int) -> bool:
        bundle, _ = self.assembly.owner(frame)
        prefix = {self.assembly.frame_of[number] for number in self.assembly.prefix_of(frame)}
        return bundle.manifest.digest not in self._gone and all(self._at_hand(each) for each in prefix)

    def pairing(self) -> DeltaMatcher:
        """Partners for the chunks of new layers. The files of the base are looked through once, when first asked for."""
        if self._older is None:
            self._older = self._look_through()
        return DeltaMatcher(self._older, self.find, self.usable)

    def recipe(self, layer: Digest | None) -> Recipe | None:
        """How the base rebuilds this layer, if it has it."""
        return self._recipes.get(layer) if layer else None

    def held(self, layer: Digest) -> str:
        """Why the base holds this layer as it is, as far as it says."""
        return next((why for each in self.bundles if (why := each.header.held.get(layer))), "")

    def layer(self, number: int) -> Digest | None:
        """The base layer a pairing means by this number."""
        return self._layers[number] if 0 <= number < len(self._layers) else None

    def _look_through(self) -> BaseFiles:
        """Every file of every layer: the names are in the skeletons, which are small."""
        older = BaseFiles()
        recipes = [r for r in self._recipes.values() if r.encoding in AS_FILES and self._rebuildable(r)]
        plan = array("I", [self.find(name) for r in recipes for name in skeleton_names(r)])
        skeletons = self.fetch(plan)
        for recipe in recipes:
            self._layers.append(recipe.digest)
            older.add_layer(
                [self.find(name) for name in skeleton_names(recipe)],
                self._files(recipe, skeletons),
            )
        return older

    def learn_records(self, known: KnownRecords) -> None:
        """What the base's folds are made with, so that it is not made once more for files that stayed."""
        found = [(r.digest, r.folds, split_names(r.folds.names)) for r in self._recipes.values() if r.folds]
        found = [each for each in found if all(self.usable_for_reading(name) for name in each[2])]
        chunks = self.fetch(array("I", [self.find(name) for _, _, names in found for name in names]))
        for digest, folds, _ in found:
            for _, count in folds.runs():
                for key, records in records_by_key(IterReader(islice(chunks, count)), f"layer {digest}"):
                    known.add(key, done(records))

    def _rebuildable(self, recipe: Recipe) -> bool:
        return all(self.usable_for_reading(name) for name in skeleton_names(recipe))

    def usable_for_reading(self, name: bytes) -> bool:
        """Whether the chunk's bytes can be had here at all."""
        number = self.find(name)
        with contextlib.suppress(MissingPart, FormatError):
            return number >= 0 and self._at_hand(self.assembly.frame_of[number])
        return False

    def _files(self, recipe: Recipe, skeletons: Iterator[bytes]) -> Iterator[tuple[bytes, int, int]]:
        for part in recipe.parts:
            whole = b"".join(next(skeletons) for _ in range(len(part.skeleton) // ID_SIZE))
            for path, name in payload_paths(part, whole):
                number = self.find(name)
                if number >= 0:
                    yield path, number, self.size_of(number)

    def fetch(self, plan: array[int], *, inline: bool = False) -> Iterator[bytes]:
        """The bytes of these chunks, in this order, decoded ahead; `inline`: in this thread alone."""
        uses, time, begin = with_prefixes(plan, self.assembly.frame_of, self.assembly.prefix_of)
        recall = ChunkCache(
            self.assembly.decode,
            self.assembly.frame_of,
            self.assembly.size_of,
            uses,
            pool=Pool(0, "inline") if inline else self._pool,
            jobs=self._jobs,
            budget=_FETCH_BUDGET,
            prefix_of=self.assembly.prefix_of,
            prefix_uses=begin,
        )
        ahead = 0
        for position, number in enumerate(plan):
            ahead = max(ahead, position)
            while ahead < len(plan) and ahead - position < 4096 and recall.prepare(plan[ahead]):
                ahead += 1
            yield recall.use(number, time[position])

    def bytes_of(self, names: Sequence[ChunkId]) -> bytes | None:
        """Some chunks end to end, at once and in this thread; None if one is not here."""
        numbers = array("q", [self.find(name) for name in names])
        if not all(number >= 0 and self.usable(number) for number in numbers):
            return None
        return b"".join(self.fetch(array("I", numbers), inline=True))

    def like(self, layers: Iterable[Digest]) -> tuple[list[ChunkId], bytes]:
        """Recipe records of these base layers, to patch new ones against. They can be made anew from the layers, where a catalog is lost."""
        if any(each.record_depth >= DEPTH_MAX for each in self.bundles):
            return [], b""
        records = [
            record
            for digest in dict.fromkeys(layers)
            if digest in self._recipes
            for record in recipe_records(self._recipes[digest])
        ]
        total, kept = 0, []
        for record in records:
            total += len(record)
            if total <= _RECORDS_MAX:
                kept.append(record)
        return [chunk_id(record) for record in kept], b"".join(kept)

    def layers_with(self, names: set[bytes]) -> set[Digest]:
        """The base's layers that have any of these chunks."""
        return {digest for digest, recipe in self._recipes.items() if not names.isdisjoint(chunk_names(recipe))}

    def about(self) -> dict[Digest, str]:
        """Each bundle in a few words, for whoever looks for it later."""
        return {each.manifest.digest: head.in_words(each.header) for each in self.assembly.bundles}

    def carriers(self, numbers: Iterable[int]) -> list[Digest]:
        """The bundles that carry these chunks."""
        frames = {self.assembly.frame_of[number] for number in numbers if number >= 0}
        return sorted({self.assembly.owner(frame)[0].manifest.digest for frame in frames})


class _Kin:
    """Of a library, the bundles that some build on, that those build on, and so on: what a site has that has the first ones."""

    def __init__(self, bundles: Sequence[Bundle], library: BundleLookup) -> None:
        self._found: dict[Digest, Bundle] = {each.manifest.digest: each for each in bundles}
        waiting = list(bundles)
        while waiting:
            for digest in waiting.pop().header.prerequisites.bundles:
                bundle = library.bundle(digest) if digest not in self._found else None
                if bundle:
                    self._found[digest] = bundle
                    waiting.append(bundle)

    def bundle(self, digest: Digest) -> Bundle | None:
        return self._found.get(digest)

    def bundles(self) -> Iterator[Bundle]:
        yield from self._found.values()

    def locate(self, names: Iterable[bytes]) -> dict[bytes, Bundle]:
        wanted, out = set(names), dict[bytes, Bundle]()
        for bundle in self._found.values():
            with contextlib.suppress(MissingPart, Damaged):
                hits = wanted & bundle.catalog().numbers_of.keys()
                out.update(dict.fromkeys(hits, bundle))
                wanted -= hits
        return out


def recipe_names(bundle: Bundle) -> Iterator[bytes]:
    """Every chunk a bundle's recipes name."""
    for recipe in bundle.catalog().recipes.values():
        yield from chunk_names(recipe)


def outside_names(bundle: Bundle) -> set[bytes]:
    """The chunks a bundle's recipes and prefixes name and it does not carry."""
    catalog = bundle.catalog()
    prefixes = (name for frame in catalog.frames for name in split_names(frame.prefix))
    return {name for name in chain(recipe_names(bundle), prefixes) if not catalog.has(name)}
