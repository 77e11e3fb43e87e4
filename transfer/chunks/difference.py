"""Frames by subtraction: where code only moved, its addresses differ by little from those of its older self, and so many a time by the same.

Subtracted, most bytes are 0 and the others repeat; a plain patch has each of them as new. The same goes for arrays of numbers, each of which
moved a little (FORMAT.md, "Frame"; docs/decisions/0015).
Numbers of thousands of digits do the arithmetic: a whole stretch is one number, with a bit for each byte or value that keeps it from its neighbour.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import pyzstd

from transfer.chunks.varint import get_varints, put_varints
from transfer.errors import Damaged

RAW_MAX = 4 << 20
"""Largest frame of this codec (bytes uncompressed)."""
STRETCHES_MAX = 1 << 16
WIDTHS = (1, 2, 4, 8)
_WINDOW_LOG_MAX = 27
_GRID, _SEED, _BLOCK = 32, 16, 64
"""Every so many bytes the prefix is remembered by so many. A block that agrees with the older bytes in a half, or more, is subtracted."""
_SAMPLE, _PLANES, _DENSE = 64 << 10, 0.95, 0.5
"""An array of numbers is told by so many bytes in its middle: apart they compress so much better than together, and together not to so little."""
_TURN = threading.Lock()
"""What is remembered takes 50 MB, and Python looks for it in one thread at a time anyway."""
_LEAST, _WINDOW, _MANY = 256, 1 << 16, 64
"""Shorter stretches are not, nor those of a window (bytes) in which there are so many: data, and no code."""


class Stretch(NamedTuple):
    """So many bytes of a frame; `source` is where in the prefix what they are the difference to begins, -1 where they are new."""

    size: int
    source: int


def encode(raw: bytes, prefix: bytes, patch: Callable[[bytes], bytes], level: int, width: int = 1) -> bytes:
    """A frame's data, of values of `width` bytes. `patch` compresses what is new against the prefix."""
    with _TURN:
        stretches = _stretches(raw, prefix) if width == 1 else _of_values(raw, prefix, width)
    new, moved, older, at = [], [], [], 0
    for size, source in stretches:
        data = raw[at : at + size]
        if source < 0:
            new.append(data)
        else:
            moved.append(data)
            older.append(prefix[source : source + size])
        at += size
    patched = patch(b"".join(new)) if new else b""
    settings: dict[int, int] = {
        pyzstd.CParameter.compressionLevel: max(9, level),
        pyzstd.CParameter.windowLog: 22,
        pyzstd.CParameter.contentSizeFlag: 1,
    }
    rest = pyzstd.compress(subtracted(b"".join(moved), b"".join(older), width), settings) if moved else b""
    numbers = [number for size, source in stretches for number in (size, source + 1)]
    return put_varints((width, len(stretches), *numbers, len(patched))) + patched + rest


def width_of(raw: bytes) -> int:
    """How many bytes a value has, if this is an array of numbers: then its bytes compress much better by planes. Else 0."""
    at = max(0, len(raw) // 2 - _SAMPLE // 2)
    sample = raw[at : at + _SAMPLE // 8 * 8]
    plain = len(pyzstd.compress(sample, 1))
    sizes = {
        width: sum(len(pyzstd.compress(sample[n::width], 1)) for n in range(width)) for width in WIDTHS if width > 1
    }
    best = next(width for width in sizes if sizes[width] < 1.02 * min(sizes.values()))
    return best if sizes[best] < _PLANES * plain and plain > _DENSE * len(sample) else 0


def decode(data: bytes, prefix: bytes, size: int, where: str) -> bytes:
    """The frame's `size` bytes. Damaged where the data are not those of so many."""
    (width, count), at = get_varints(data, 0, 2, where)
    if width not in WIDTHS or count > STRETCHES_MAX:
        raise Damaged(f"{where}: a difference beyond the limits")
    numbers, at = get_varints(data, at, 2 * count + 1, where)
    stretches = [Stretch(*each) for each in zip(numbers[0:-1:2], (n - 1 for n in numbers[1:-1:2]), strict=True)]
    fresh = sum(each.size for each in stretches if each.source < 0)
    moved = sum(each.size for each in stretches if each.source >= 0)
    sound = all(s.source < 0 or (s.source + s.size <= len(prefix) and not s.size % width) for s in stretches)
    if fresh + moved != size or not sound:
        raise Damaged(f"{where}: a difference that contradicts itself")
    end = at + numbers[-1]
    new = _unpacked(data[at:end], prefix, fresh, where)
    older = b"".join([prefix[s.source : s.source + s.size] for s in stretches if s.source >= 0])
    both = added(_together(_unpacked(data[end:], b"", moved, where), width), older, width)
    out, taken, given = [], 0, 0
    for stretch in stretches:
        if stretch.source < 0:
            out.append(new[taken : taken + stretch.size])
            taken += stretch.size
        else:
            out.append(both[given : given + stretch.size])
            given += stretch.size
    return b"".join(out)


def _unpacked(packed: bytes, prefix: bytes, size: int, where: str) -> bytes:
    """Exactly so many bytes of one zstd frame; no frame for none."""
    if not size and not packed:
        return b""
    dictionary = pyzstd.ZstdDict(prefix, is_raw=True).as_prefix if prefix else None
    decoder = pyzstd.ZstdDecompressor(dictionary, {pyzstd.DParameter.windowLogMax: _WINDOW_LOG_MAX})
    out = decoder.decompress(packed, size + 1)
    if len(out) != size or not decoder.eof or decoder.unused_data:
        raise Damaged(f"{where}: the compressed frame does not end where it should")
    return out


def _each(size: int, width: int, value: bytes) -> int:
    """The same bytes in each value."""
    return int.from_bytes(value * (size // width), "little")


def subtracted(new: bytes, old: bytes, width: int) -> bytes:
    """Value by value (`width` bytes, little-endian), without what goes below 0: first the lowest byte of each, then the next.

    Of more than one byte: doubled, and one less than nothing is 1, two less 3, so that small differences are small either way.
    """
    size, bits = len(new), 8 * width
    one, two = int.from_bytes(new, "little"), int.from_bytes(old, "little")
    high = _each(size, width, bytes(width - 1) + b"\x80")
    low = high ^ (1 << 8 * size) - 1
    out = (one | high) - (two & low) ^ (one ^ ~two) & high
    if width > 1:
        first = _each(size, width, b"\xfe" + b"\xff" * (width - 1))
        out = out << 1 & first ^ ((out & high) >> bits - 1) * ((1 << bits) - 1)
    apart = out.to_bytes(size, "little")
    return b"".join(apart[n::width] for n in range(width)) if width > 1 else apart


def added(difference: bytes, old: bytes, width: int) -> bytes:
    """What `old` was subtracted from; the difference value by value."""
    size, bits = len(old), 8 * width
    one, two = int.from_bytes(difference, "little"), int.from_bytes(old, "little")
    high = _each(size, width, bytes(width - 1) + b"\x80")
    low = high ^ (1 << 8 * size) - 1
    if width > 1:
        first = _each(size, width, b"\x01" + bytes(width - 1))
        one = one >> 1 & low ^ (one & first) * ((1 << bits) - 1)
    return ((one & low) + (two & low) ^ (one ^ two) & high).to_bytes(size, "little")


def _together(planes: bytes, width: int) -> bytes:
    """Values whose bytes were apart."""
    if width == 1:
        return planes
    out, count = bytearray(len(planes)), len(planes) // width
    for n in range(width):
        out[n::width] = planes[n * count : (n + 1) * count]
    return bytes(out)


def _stretches(raw: bytes, prefix: bytes) -> list[Stretch]:
    """The frame in stretches, each of which moved by one distance, or is new."""
    found = _aligned(raw, prefix)
    many = Counter(start // _WINDOW for start, _, _ in found)
    out: list[Stretch] = []
    for start, end, distance in found:
        is_moved = distance is not None and end - start >= _LEAST and many[start // _WINDOW] <= _MANY
        source = start + distance if is_moved and distance is not None else -1
        last = out[-1] if out else None
        if last and (last.source < 0) == (source < 0) and (source < 0 or last.source + last.size == source):
            out[-1] = Stretch(last.size + end - start, last.source)
        else:
            out.append(Stretch(end - start, source))
    return out


def _of_values(raw: bytes, prefix: bytes, width: int) -> list[Stretch]:
    """The same for values: by their highest bytes alone, most of which stay. Where in a value either begins is found out."""
    begin = min(range(width), key=lambda n: len(pyzstd.compress(raw[n + width - 1 : n + _SAMPLE : width], 1)))
    highest = raw[begin + width - 1 :: width]
    middle = highest[len(highest) // 2 :][: _SAMPLE // 8]

    def kept(phase: int) -> int:
        found = _aligned(middle, prefix[phase + width - 1 :: width])
        return sum(end - start for start, end, distance in found if distance is not None)

    phase = max(range(width), key=kept)
    found = _aligned(highest, prefix[phase + width - 1 :: width])
    out = [Stretch(begin, -1)] if begin else []
    for start, end, distance in found:
        source = -1 if distance is None else phase + (start + distance) * width
        out.append(Stretch((end - start) * width, source))
    rest = len(raw) - sum(each.size for each in out)
    return [*out, Stretch(rest, -1)] if rest else out


def _aligned(raw: bytes, prefix: bytes) -> list[tuple[int, int, int | None]]:
    """(start, end, distance to the older bytes) of each stretch, by what stands on the prefix's grid: chunks begin anywhere, so that new bytes are looked at from every place."""
    places = {prefix[at : at + _SEED]: at for at in range((len(prefix) - _SEED) // _GRID * _GRID, -1, -_GRID)}
    places.pop(bytes(_SEED), None)
    out: list[tuple[int, int, int | None]] = []
    distance: int | None = None
    for start in range(0, len(raw), _BLOCK):
        block = raw[start : start + _BLOCK]
        if distance is None or not _agrees(block, prefix, start + distance):
            seeds = (places.get(raw[at : at + _SEED], -1) - at for at in range(start, start + _BLOCK))
            distance = next((each for each in seeds if _agrees(block, prefix, start + each)), None)
        if out and out[-1][2] == distance:
            out[-1] = (out[-1][0], start + len(block), distance)
        else:
            out.append((start, start + len(block), distance))
    return out


def _agrees(block: bytes, prefix: bytes, at: int) -> bool:
    """Whether at least half of a block is what the prefix has there."""
    other = prefix[at : at + len(block)] if at >= 0 else b""
    if other == block:
        return True
    if len(other) != len(block):
        return False
    same = (int.from_bytes(block, "little") ^ int.from_bytes(other, "little")).to_bytes(len(block), "little").count(0)
    return same * 2 >= len(block)
