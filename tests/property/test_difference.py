"""Frames by subtraction: what goes in comes out, whatever it is, and what is not one is refused."""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from functools import partial

import pytest
import pyzstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.gzipped import words
from tests.support.zoo import floats, go_program, noise
from transfer.bundle import standalone
from transfer.chunks import difference
from transfer.chunks.difference import RAW_MAX, added, decode, encode, subtracted
from transfer.chunks.frame import DIFFERENCE, ZSTD, decode_frame, encode_frame, parse_frame_header
from transfer.chunks.name import Kind, chunk_id, kind_of
from transfer.chunks.varint import put_varints
from transfer.errors import Damaged, FormatError

settings.register_profile("here", deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
settings.load_profile("here")


def patch(prefix: bytes, data: bytes) -> bytes:
    dictionary = pyzstd.ZstdDict(prefix, is_raw=True).as_prefix if prefix else None
    return pyzstd.compress(data, {pyzstd.CParameter.contentSizeFlag: 1}, dictionary)


def moved(older: bytes, seed: int, changes: int) -> bytes:
    """What code becomes when something is put in before it: addresses in it are others."""
    rand = random.Random(seed)
    out = bytearray(older)
    for _ in range(changes):
        if out:
            at = rand.randrange(len(out))
            out[at] = (out[at] + 7) & 255
    at = rand.randrange(len(out) + 1)
    return bytes(out[:at]) + noise(seed, rand.randrange(90)) + bytes(out[at:])


OLDER = st.builds(noise, st.integers(0, 99), st.integers(8, 5000))


@given(st.binary(max_size=400), st.data(), st.sampled_from([1, 2, 4, 8]))
def test_what_is_added_was_subtracted(new: bytes, data: st.DataObject, width: int) -> None:
    new = new[: len(new) // width * width]
    old = data.draw(st.binary(min_size=len(new), max_size=len(new)))
    planes = subtracted(new, old, width)
    count = len(new) // width
    plain = [
        (int.from_bytes(new[n : n + width], "little") - int.from_bytes(old[n : n + width], "little")) % 256**width
        for n in range(0, len(new), width)
    ]
    top = 256**width // 2
    values = plain if width == 1 else [2 * v if v < top else 2 * (256**width - v) - 1 for v in plain]
    assert planes == b"".join(bytes(value >> 8 * n & 255 for value in values) for n in range(width))
    apart = bytearray(len(new))
    for n in range(width):
        apart[n::width] = planes[n * count : (n + 1) * count]
    assert added(bytes(apart), old, width) == new


@given(OLDER, st.integers(0, 99), st.integers(0, 300), st.binary(max_size=300))
def test_a_frame_comes_back(older: bytes, seed: int, changes: int, more: bytes) -> None:
    new = more + moved(older, seed, changes) + more
    data = encode(new, older, partial(patch, older), 9)
    assert decode(data, older, len(new), "test") == new
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            standalone, "unzstd", lambda packed, size, prefix: difference._unpacked(packed, prefix, size, "x")
        )
        assert standalone.undiffer(data, len(new), older) == new  # type: ignore[no-untyped-call]


@given(OLDER, st.integers(0, 99), st.integers(0, 1 << 16), st.integers(1, 255), st.integers(0, 40))
def test_a_damaged_one_is_refused_or_other_bytes(older: bytes, seed: int, at: int, change: int, cut: int) -> None:
    new = moved(older, seed, 40)
    bad = bytearray(encode(new, older, partial(patch, older), 9))
    bad[at % len(bad)] ^= change
    with contextlib.suppress(Damaged, FormatError, pyzstd.ZstdError, EOFError):
        assert len(decode(bytes(bad[: len(bad) - cut]), older, len(new), "test")) == len(new)


@pytest.mark.parametrize("width", [2, 4, 8])
def test_wider_values_are_read(width: int) -> None:
    old = noise(1, 4096)
    new = bytes((n * 31) & 255 for n in range(4096))
    data = put_varints((width, 2, 4000, 1, 96, 0, len(patch(old, new[4000:]))))
    data += patch(old, new[4000:]) + pyzstd.compress(subtracted(new[:4000], old[:4000], width))
    assert decode(data, old, 4096, "test") == new


@pytest.mark.parametrize(
    "numbers",
    [
        (3, 1, 8, 1, 0),
        (1, 1, 9, 1, 0),
        (1, 1, 8, 2, 0),
        (2, 2, 7, 1, 1, 2, 0),
        (1, 1 << 17, 8, 1, 0),
        (1, 1, 8, 1, 1 << 40),
        (1, 0, 0),
    ],
)
def test_numbers_that_cannot_be_are_refused(numbers: tuple[int, ...]) -> None:
    with pytest.raises((Damaged, FormatError)):
        decode(put_varints(numbers) + pyzstd.compress(bytes(8)), bytes(8), 8, "test")


def test_programs_in_go_are_told_and_subtracted() -> None:
    old, new = go_program(1, 0), go_program(1, 4096)
    assert kind_of(b"bin/it", new) == Kind.GO
    assert kind_of(b"bin/it", b"\x7fELF" + bytes(9000)) == Kind.ELF
    sizes = []
    for kind, codec in ((Kind.GO, DIFFERENCE), (Kind.ELF, ZSTD)):
        header, data = encode_frame(kind, new, [len(new)], 3, [chunk_id(old)], old)
        assert (header.codec, header.kind) == (codec, int(Kind.ELF))
        assert b"".join(decode_frame(header, data, "test", old)) == new
        sizes.append(len(data))
    assert sizes[0] < sizes[1] / 1.5


def test_a_difference_of_nothing_or_of_too_much_is_refused() -> None:
    old, new = go_program(1, 0), go_program(1, 4096)
    header, _ = encode_frame(Kind.GO, new, [len(new)], 3, [chunk_id(old)], old)
    for bad in ({"prefix": ()}, {"raw_size": RAW_MAX + 1, "sizes": (RAW_MAX + 1,)}):
        with pytest.raises(FormatError):
            parse_frame_header(replace(header, **bad).encode(), "test")


@pytest.mark.parametrize("lead", [0, 1, 7])
@pytest.mark.parametrize(("code", "width"), [("e", 2), ("f", 4), ("d", 8)])
def test_tensors_are_told_and_subtracted(code: str, width: int, lead: int) -> None:
    old = noise(1, 5) + floats(1, 0, code)
    new = noise(2, lead) + floats(1, 0.0001, code)
    assert difference.width_of(new) == width
    header, data = encode_frame(Kind.OTHER, new, [len(new)], 3, [chunk_id(old)], old)
    assert header.codec == DIFFERENCE
    assert b"".join(decode_frame(header, data, "test", old)) == new
    patched = len(patch(old, new))
    assert len(data) < patched * 0.85


def test_what_is_no_array_is_not_taken_for_one() -> None:
    for data in (noise(1, 90_000), words(1, 90_000), bytes(90_000), b"ab" * 45_000, go_program(1, 0), b""):
        assert difference.width_of(data) == 0
