"""Numbers as unsigned LEB128 (FORMAT.md, "varint")."""

from __future__ import annotations

from collections.abc import Sequence

from transfer.errors import FormatError


def put_varints(values: Sequence[int]) -> bytes:
    """Unsigned LEB128, end to end."""
    out = bytearray()
    for value in values:
        while value >= 0x80:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)
    return bytes(out)


def get_varints(data: bytes | memoryview, at: int, count: int, where: str) -> tuple[list[int], int]:
    """`count` LEB128 values from `at` on and where they end. FormatError if they do not fit or exceed 63 bits."""
    out: list[int] = []
    if count > len(data) - at:
        raise FormatError(f"{where}: cut short")
    try:
        for _ in range(count):
            value = data[at]
            at += 1
            if value >= 0x80:
                shift = 7
                while True:
                    byte = data[at]
                    at += 1
                    value += byte - 1 << shift  # takes off the bit by which the byte before said that more comes
                    if byte < 0x80:
                        break
                    shift += 7
                    if shift > 56:
                        raise FormatError(f"{where}: malformed number")
            out.append(value)
    except IndexError:
        raise FormatError(f"{where}: malformed number") from None
    return out, at
