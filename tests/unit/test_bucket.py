"""Where new chunks gather: a frame's memory serves the next one of its size, and never shows what was in it before."""

from __future__ import annotations

from tests.support.zoo import noise
from transfer.chunks.bucket import LARGE_RAW, SMALL_RAW, SPARE, Buckets, Gathered
from transfer.chunks.name import Kind, chunk_id

CHUNKS = [noise(number, 4 << 20) for number in range(3)]
A_FRAME = LARGE_RAW // len(CHUNKS[0])


def fill(buckets: Buckets, kind: Kind, first: int, count: int) -> bytes:
    data = [CHUNKS[number % 3] for number in range(first, first + count)]
    for each in data:
        buckets.add(chunk_id(each), len(each), each, kind)
    return b"".join(data)


def test_a_frame_holds_its_own_chunks_in_memory_that_another_had() -> None:
    flushed: list[Gathered] = []
    buckets = Buckets(flushed.append)
    held = [fill(buckets, Kind.ELF, 0, A_FRAME), fill(buckets, Kind.ELF, 1, A_FRAME)]
    first = flushed[0].buffer
    assert first[:] == held[0]
    buckets.done_with(first)
    held.append(fill(buckets, Kind.TEXT, 2, 2))
    buckets.finish()
    assert [each.kind for each in flushed] == [Kind.ELF, Kind.ELF, Kind.TEXT]
    assert [each.buffer[: each.size] for each in flushed[1:]] == held[1:]
    assert flushed[2].buffer is first


def test_memory_is_kept_for_one_frame_and_only_for_large_ones() -> None:
    flushed: list[Gathered] = []
    buckets = Buckets(flushed.append)
    for kind in (Kind.ELF, Kind.TEXT, Kind.OTHER, Kind.BYTECODE):
        fill(buckets, kind, 0, 1)
    buckets.finish()
    for each in flushed:
        buckets.done_with(each.buffer)
    assert {len(each.buffer) for each in flushed if not each.buffer.closed} == {LARGE_RAW}
    assert sum(not each.buffer.closed for each in flushed) == SPARE
    fill(buckets, Kind.BYTECODE, 0, 1)
    buckets.finish()
    assert len(flushed[-1].buffer) == SMALL_RAW
