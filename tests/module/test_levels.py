"""No higher level makes a patched frame larger than a lower one: a match anywhere in a large prefix is found at all of them."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from tests.support.thorough import THOROUGH
from tests.support.zoo import noise
from transfer.chunks.frame import decode_frame, encode_frame
from transfer.chunks.name import Kind, chunk_id
from transfer.chunks.patch import PATCH_RAW, PREFIX_RAW

LEVELS = (1, 3, 5, 6, 7, 8, 9, 10, 12, 13, 15, 16, 19, 22) if THOROUGH else (1, 3, 6, 9, 12)
PREFIX = noise(1, PREFIX_RAW)
SLACK = 0.01
"""The slowest searches choose by what a match costs and may be off by so much."""


def sizes(raw: bytes) -> list[int]:
    out = []
    for level in LEVELS:
        header, packed = encode_frame(Kind.OTHER, raw, [len(raw)], level, [chunk_id(PREFIX)], PREFIX)
        assert b"".join(decode_frame(header, packed, "here", PREFIX)) == raw
        out.append(len(packed))
    return out


@pytest.mark.parametrize("at", [0, 1 << 20, 3 << 20, PREFIX_RAW - (3 << 20)])
@pytest.mark.parametrize("changes", [0, 2000])
def test_a_stretch_of_a_large_prefix(at: int, changes: int) -> None:
    raw = bytearray(PREFIX[at : at + (3 << 20)])
    rand = random.Random(at)
    for _ in range(changes):
        raw[rand.randrange(len(raw))] ^= 1
    found = sizes(bytes(raw))
    assert max(found) < len(raw) / 100
    assert all(later <= earlier * (1 + SLACK) for earlier, later in pairwise(found))


def test_small_stretches_out_of_all_of_it() -> None:
    """Pieces of some kilobytes in another order, as files in a layer that was packed anew."""
    rand = random.Random(2)
    starts = [rand.randrange(PREFIX_RAW - 8192) for _ in range(PATCH_RAW // 8192)]
    found = sizes(b"".join(PREFIX[at : at + 8192] for at in starts))
    assert found[-1] < PATCH_RAW / 100
    assert all(later <= earlier * (1 + SLACK) for earlier, later in pairwise(found))
