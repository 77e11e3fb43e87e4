"""Where new chunks gather: a frame's memory serves the next one, and never shows what was in it before."""

from __future__ import annotations

from tests.support.zoo import noise
from transfer.chunks.bucket import FRAME_RAW, SPARE_BUFFERS, Buckets, OpenFrame
from transfer.chunks.name import Kind, chunk_id

CHUNKS = [noise(number, 4 << 20) for number in range(3)]
A_FRAME = FRAME_RAW // len(CHUNKS[0])


def fill(buckets: Buckets, kind: Kind, first: int, count: int) -> bytes:
    data = [CHUNKS[number % 3] for number in range(first, first + count)]
    for each in data:
        buckets.add(chunk_id(each), len(each), each, kind)
    return b"".join(data)


def test_a_frame_holds_its_own_chunks_in_memory_that_another_had() -> None:
    flushed: list[OpenFrame] = []
    buckets = Buckets(flushed.append)
    held = [fill(buckets, Kind.ELF, 0, A_FRAME), fill(buckets, Kind.ELF, 1, A_FRAME)]
    first = flushed[0].buffer
    assert first[:] == held[0]
    buckets.release(flushed[0])
    held.append(fill(buckets, Kind.TEXT, 2, 2))
    buckets.finish()
    assert [each.kind for each in flushed] == [Kind.ELF, Kind.ELF, Kind.TEXT]
    assert [each.buffer[: each.size] for each in flushed[1:]] == held[1:]
    assert flushed[2].buffer is first


def test_memory_of_a_few_frames_is_kept() -> None:
    flushed: list[OpenFrame] = []
    buckets = Buckets(flushed.append)
    for kind in (Kind.ELF, Kind.TEXT, Kind.OTHER, Kind.BYTECODE):
        fill(buckets, kind, 0, 1)
    buckets.finish()
    for each in flushed:
        buckets.release(each)
    assert sum(not each.buffer.closed for each in flushed) == SPARE_BUFFERS < len(flushed)


def test_memory_that_two_use_is_kept_until_both_are_done() -> None:
    flushed: list[OpenFrame] = []
    buckets = Buckets(flushed.append)
    held = fill(buckets, Kind.ELF, 0, 1)
    buckets.share(buckets.room(Kind.ELF, 1))
    buckets.finish()
    buckets.release(flushed[0])
    fill(buckets, Kind.ELF, 1, 1)
    assert flushed[0].buffer[: flushed[0].size] == held
    buckets.finish()
    assert flushed[1].buffer is not flushed[0].buffer
    buckets.release(flushed[0])
    fill(buckets, Kind.ELF, 1, 1)
    buckets.finish()
    assert flushed[2].buffer is flushed[0].buffer


def test_a_chunk_that_is_taken_back_leaves_nothing_behind() -> None:
    flushed: list[OpenFrame] = []
    buckets = Buckets(flushed.append)
    held = fill(buckets, Kind.ELF, 0, 1)
    frame = buckets.add(chunk_id(CHUNKS[1]), len(CHUNKS[1]), CHUNKS[1], Kind.ELF)
    assert buckets.pop_last(frame) == CHUNKS[1]
    held += fill(buckets, Kind.ELF, 2, 1)
    alone = buckets.add(chunk_id(CHUNKS[1]), len(CHUNKS[1]), CHUNKS[1], Kind.TEXT)
    buckets.pop_last(alone)
    buckets.finish()
    assert [(each.kind, each.buffer[: each.size]) for each in flushed] == [(Kind.ELF, held)]
    assert flushed[0].names == [chunk_id(CHUNKS[0]), chunk_id(CHUNKS[2])]
