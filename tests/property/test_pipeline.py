"""What goes through the pipeline comes out of it, byte for byte, whatever it is and however it comes."""

from __future__ import annotations

import io
import random
from array import array
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.zoo import layer, noise
from transfer.bundle.reader import Bundle
from transfer.bundle.rebuild import BlobReader
from transfer.bundle.writer import BundleWriter
from transfer.chunks.cut import Cutter
from transfer.chunks.frame import decode_frame, encode_frame
from transfer.chunks.layer import raw, split
from transfer.chunks.memory import MemoryChunks
from transfer.chunks.name import CHUNK_MAX, Kind
from transfer.chunks.recall import ChunkCache, with_prefixes
from transfer.errors import Damaged
from transfer.model import ChunkId, Recipe
from transfer.streams import IterReader, blocks, sha256
from transfer.work import Pool

settings.register_profile("here", deadline=None, max_examples=80, suppress_health_check=list(HealthCheck))
settings.load_profile("here")

NAMES = st.text(alphabet="abc/.\u00e9", min_size=1, max_size=200).map(lambda name: "f" + name)
LAYERS = st.builds(
    lambda files, cut, tail: (lambda data: data[: len(data) - cut % (len(data) + 1)] + tail)(layer(files)),
    st.dictionaries(NAMES, st.binary(max_size=2000), max_size=8),
    st.one_of(st.just(0), st.integers(0, 30_000)),
    st.binary(max_size=700),
)


@given(st.one_of(st.binary(max_size=4000), LAYERS), st.integers(1, 5000))
def test_a_layer_split_and_joined_is_the_same(data: bytes, block: int) -> None:
    parts = (data[at : at + block] for at in range(0, len(data), block))
    pieces = list(split(IterReader(parts)))
    assert b"".join(piece.skeleton + piece.data for piece in pieces) == data


@given(LAYERS, st.integers(1, 3000))
def test_blocks_do_not_change_what_is_cut(data: bytes, block: int) -> None:
    whole = Cutter(MemoryChunks()).cut(split(io.BytesIO(data)))
    parts = (data[at : at + block] for at in range(0, len(data), block))
    assert Cutter(MemoryChunks()).cut(split(IterReader(parts))) == whole


@pytest.mark.parametrize("block", [4096, 1 << 20, 5_000_003])
@pytest.mark.parametrize("size", [CHUNK_MAX, CHUNK_MAX + 1, 30_000_000])
def test_big_files_are_cut_the_same_however_they_come(size: int, block: int) -> None:
    data = layer({"big": noise(size, size), "after": b"x"})
    held = MemoryChunks()
    parts = Cutter(held).cut(split(IterReader(data[at : at + block] for at in range(0, len(data), block))))
    again = Cutter(MemoryChunks()).cut(split(io.BytesIO(data)))
    assert parts == again
    names = parts[0].payload
    assert all(0 < len(held.get(ChunkId(names[at : at + 32]))) <= CHUNK_MAX for at in range(0, len(names), 32))


def test_a_change_in_a_big_file_stays_local() -> None:
    data = noise(9, 40 << 20)
    changed = data[: 20 << 20] + b"inserted" + data[20 << 20 :]
    first, second = (Cutter(MemoryChunks()).cut(split(io.BytesIO(layer({"big": each})))) for each in (data, changed))
    names = [{p[0].payload[at : at + 32] for at in range(0, len(p[0].payload), 32)} for p in (first, second)]
    assert len(names[1] - names[0]) <= 4


@given(layers=st.lists(st.one_of(LAYERS, st.binary(max_size=3000)), max_size=5, unique=True), jobs=st.integers(0, 2))
@settings(max_examples=40)
def test_a_bundle_gives_back_every_blob(
    layers: list[bytes], jobs: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder: Path = tmp_path_factory.mktemp("b") / "b"
    with Pool(jobs, "test") as pool:
        writer = BundleWriter(folder, level=1, options={}, pool=pool, ahead=2)
        recipes = []
        for number, data in enumerate(layers):
            pieces = raw(io.BytesIO(data)) if number % 2 else split(io.BytesIO(data))
            recipes.append(Recipe(sha256(data), len(data), number % 2, Cutter(writer).cut(pieces)))
            writer.end_blob(recipes[-1])
        writer.publish(writer.finish([], created=0, tool="test", totals={}))
        writer.close()
    assert recipes == list(writer.recipes().values())
    # no image names these blobs, so the catalog does not list them: they are rebuilt from the writer's own recipes
    with Bundle(folder) as bundle, Pool(jobs, "test") as pool:
        bundle.catalog().recipes.update(writer.recipes())
        rebuilding = BlobReader(bundle, [r.digest for r in recipes], pool=pool, jobs=max(1, jobs), budget=5000)
        for recipe, data in zip(recipes, layers, strict=True):
            assert b"".join(blocks(rebuilding.open(recipe.digest), 700)) == data


@given(
    st.lists(st.integers(0, 29), max_size=120),
    st.integers(1, 6),
    st.integers(0, 200),
    st.integers(0, 3),
    st.lists(st.lists(st.integers(0, 29), max_size=5), max_size=30),
    st.integers(1, 9),
    st.integers(0, 20),
    st.lists(st.integers(0, 120), max_size=3),
    st.randoms(use_true_random=False),
)
def test_recall_gives_every_use_its_chunk(
    uses: list[int],
    width: int,
    budget: int,
    jobs: int,
    older: list[list[int]],
    together: int,
    lead: int,
    cuts: list[int],
    chance: random.Random,
) -> None:
    """Thirty chunks in frames of `width`, some patched against chunks of earlier frames; any plan, any budget, any number of threads.

    They are used so many `together`, with frames begun so far ahead as `lead`, by readers in any turn: one more than there are `cuts`.
    """
    chunks = [bytes([number]) * (number + 1) for number in range(30)]
    frame_of = [number // width for number in range(30)]
    prefixes = {frame: tuple(dict.fromkeys(n for n in names if n < frame * width)) for frame, names in enumerate(older)}
    prefixes = {frame: names for frame, names in prefixes.items() if names and frame in frame_of}

    def decode(frame: int, wanted: object, prefix: bytes) -> dict[int, bytes]:
        assert callable(wanted)
        assert prefix == b"".join(chunks[n] for n in prefixes.get(frame, ()))
        return {n: chunks[n] for n in range(30) if frame_of[n] == frame and wanted(n)}

    with Pool(jobs, "test") as pool:
        sizes = [len(each) for each in chunks]
        plan, time, begin = with_prefixes(array("I", uses), frame_of, lambda frame: prefixes.get(frame, ()))
        recall = ChunkCache(
            decode,
            frame_of,
            sizes,
            plan,
            pool=pool,
            jobs=max(1, jobs),
            budget=budget,
            prefix_of=lambda frame: prefixes.get(frame, ()),
            prefix_uses=begin,
        )
        ends = sorted({min(cut, len(uses)) for cut in cuts} | {len(uses)})
        readers = [range(begin, end) for begin, end in pairwise([0, *ends])]
        while readers := [each for each in readers if each]:
            which = chance.randrange(len(readers))
            places, readers[which] = readers[which][:together], readers[which][together:]
            for position in (*places, *readers[which])[:lead]:
                recall.prepare(uses[position])
            numbers = [uses[position] for position in places]
            assert recall.use_all(numbers, [time[position] for position in places]) == [chunks[n] for n in numbers]
        if not prefixes:
            assert recall.decodes <= max(len(uses), 1) * 3


def test_recall_with_room_decodes_each_frame_once() -> None:
    frame_of = [number // 10 for number in range(100)]

    def decode(frame: int, wanted: object, prefix: bytes) -> dict[int, bytes]:
        assert callable(wanted)
        return {n: b"%d" % n for n in range(100) if frame_of[n] == frame and wanted(n)}

    plan = array("I", [*range(100), *range(0, 100, 7), *range(99, 0, -1)])
    recall = ChunkCache(decode, frame_of, [2] * 100, plan, pool=Pool(0, "test"), jobs=1)
    for position, number in enumerate(plan):
        assert recall.use(number, position) == b"%d" % number
    assert recall.decodes == 10


def test_what_is_taken_up_for_a_prefix_may_push_out_what_else_the_prefix_needs() -> None:
    """With room for one chunk: chunk 1 is used before the prefix, chunk 0 not, so 0 goes when 1 comes."""
    older = {2: (0, 1)}

    def decode(frame: int, wanted: object, prefix: bytes) -> dict[int, bytes]:
        assert prefix == (b"01" if frame in older else b"")
        return {frame: b"%d" % frame}

    plan, time, begin = with_prefixes(array("I", [0, 1, 2]), range(3), lambda frame: older.get(frame, ()))
    recall = ChunkCache(
        decode,
        range(3),
        [1] * 3,
        plan,
        pool=Pool(0, "test"),
        jobs=2,
        budget=1,
        prefix_of=lambda frame: older.get(frame, ()),
        prefix_uses=begin,
    )
    assert recall.use(0, time[0]) == b"0"
    assert recall.prepare(1)
    recall.prepare(2)
    assert [recall.use(1, time[1]), recall.use(2, time[2])] == [b"1", b"2"]


@given(st.data(), st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=40), min_size=1, max_size=4))
def test_several_readers_of_one_plan_decode_each_frame_once(data: st.DataObject, layers: list[list[int]]) -> None:
    """Layers read beside each other, in any turn, each within itself in order; the last gives up half-way."""
    frame_of = [number // 10 for number in range(100)]

    def decode(frame: int, wanted: object, prefix: bytes) -> dict[int, bytes]:
        assert callable(wanted)
        return {n: b"%d" % n for n in range(100) if frame_of[n] == frame and wanted(n)}

    plan = array("I", [number for layer in layers for number in layer])
    recall = ChunkCache(decode, frame_of, [2] * 100, plan, pool=Pool(0, "test"), jobs=1)
    starts = [sum(len(each) for each in layers[:n]) for n in range(len(layers))]
    places = [list(range(start, start + len(layer))) for start, layer in zip(starts, layers, strict=True)]
    given_up = places[-1][len(places[-1]) // 2 :]
    del places[-1][len(places[-1]) // 2 :]
    used = set()
    while left := [each for each in places if each]:
        reader = data.draw(st.sampled_from(left))
        positions = [reader.pop(0) for _ in range(min(data.draw(st.integers(1, 5)), len(reader)))]
        numbers = [plan[position] for position in positions]
        used |= set(numbers)
        assert recall.use_all(numbers, positions) == [b"%d" % number for number in numbers]
    assert recall.decodes == len({frame_of[number] for number in used})
    for position in given_up:
        recall.forgo(plan[position], position)
    before = recall.decodes
    for position in given_up:
        assert recall.use(plan[position], position) == b"%d" % plan[position]
    assert recall.decodes == before + len(given_up)  # nothing was kept for them


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=10), st.integers(1, 12))
def test_frames_come_back_and_damage_does_not(chunks: list[bytes], level: int) -> None:
    header, packed = encode_frame(Kind.OTHER, b"".join(chunks), [len(each) for each in chunks], level)
    assert list(decode_frame(header, packed, "here")) == chunks
    for wrong in (packed[:-1], packed + b"x", b""):
        with pytest.raises(Damaged):
            list(decode_frame(header, wrong, "here"))
