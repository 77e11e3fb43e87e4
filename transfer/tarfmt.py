"""Tar headers, read strictly and written plainly (POSIX.1-2001 ustar and PAX, GNU base-256 sizes)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from transfer.errors import FormatError

RECORD = 512
MAX_EXTENSION = 1 << 20
"""Largest PAX or GNU long-name record that is followed (bytes)."""

_FIELDS = struct.Struct("100s 24x 12s 12x 8s B 100s 6s 82x 155s 12x")
"""Name, size, checksum, type, link, magic and prefix."""
_BLANK = b" \0"
_HEADER_ONLY = frozenset(b"123456")
ZERO = bytes(RECORD)


class Member(NamedTuple):
    """One tar header: raw name as bytes, type flag, size of the data that follows (bytes), and the link name's whole field."""

    name: bytes
    kind: int
    size: int
    link_field: bytes

    @property
    def link(self) -> bytes:
        """The raw link name."""
        return self.link_field.split(b"\0", 1)[0]


def parse_header(record: bytes) -> Member | None:
    """The header in a 512-byte record, or None if it is not one: wrong checksum, negative or malformed size."""
    name, length, checksum, kind, link, magic, prefix = _FIELDS.unpack(record)
    stored = _number(checksum)
    # adler32's low half is 1 + the sum of all bytes modulo 65521: thirty times faster than summing in Python
    if stored is None or ((zlib.adler32(record) & 0xFFFF) - 1 - sum(checksum) + 256 - stored) % 65521:
        return None
    size = _number(length)
    if size is None or size < 0 or size > 1 << 60:
        return None
    name = name.split(b"\0", 1)[0]
    if prefix[0] and magic == b"ustar\0":
        name = prefix.split(b"\0", 1)[0] + b"/" + name
    if kind in _HEADER_ONLY or (kind == 0 and name.endswith(b"/")):
        size = 0
    return Member(name, kind, size, link)


def _number(field: bytes) -> int | None:
    """An octal or base-256 field; None if malformed. Negative base-256 numbers are given as they are."""
    digits = field.rstrip(_BLANK).lstrip(b" ")
    if digits.isdigit():
        try:
            return int(digits, 8)
        except ValueError:
            return None
    if field[0] & 0x80:
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    return 0 if not field.strip(_BLANK) else None


def parse_pax(data: bytes) -> dict[bytes, bytes]:
    """The records of a PAX header; FormatError if malformed. The last of two equal keys counts, as POSIX says."""
    out: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        digits = data[at:space] if space > 0 else b""
        if not digits.isdigit():
            if not data[at:].strip(b"\0"):
                break
            raise FormatError("malformed PAX record")
        end = at + int(digits)
        if end > len(data) or end <= space + 1 or data[end - 1] != 0x0A:
            raise FormatError("malformed PAX record")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals:
            raise FormatError("malformed PAX record")
        out[key] = value
        at = end
    return out


def pax_size(records: dict[bytes, bytes]) -> int | None:
    """The size a PAX header sets for the next member, or None. FormatError for nonsense."""
    if b"size" not in records:
        return None
    value = records[b"size"]
    if not value.isdigit() or len(value) > 18:
        raise FormatError("malformed size in a PAX header")
    return int(value)


def padding(size: int) -> int:
    """Bytes from the end of a member's data to the next record."""
    return -size % RECORD


def make_header(name: str, size: int, *, kind: bytes = b"0", mtime: int = 0) -> bytes:
    """A header for a plain member: mode 0644 (0755 for a folder), owner 0. A name of over 100 bytes has a PAX header in front."""
    encoded = name.encode()
    if len(encoded) > 100:
        told = _pax_record(b"path", encoded)
        front = make_header("PaxHeaders/0", len(told), kind=b"x", mtime=mtime) + told + bytes(padding(len(told)))
        return front + make_header(encoded[:100].decode(errors="ignore"), size, kind=kind, mtime=mtime)
    size_field = b"%011o\0" % size if size < 8 << 30 else b"\x80" + size.to_bytes(11, "big")
    mode = b"0000755\0" if kind == b"5" else b"0000644\0"
    head = encoded.ljust(100, b"\0") + mode + b"0000000\0" * 2 + size_field + b"%011o\0" % mtime
    tail = kind + bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\0" * 2
    record = (head + b" " * 8 + tail).ljust(RECORD, b"\0")
    return record[:148] + b"%06o\0 " % sum(record) + record[156:]


def _pax_record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE`, where the length counts itself."""
    rest = b" %s=%s\n" % (key, value)
    size = len(rest) + len(str(len(rest)))
    size = len(rest) + len(str(size))
    return b"%d%s" % (size, rest)


def member(name: str, data: bytes, *, mtime: int = 0) -> Iterator[bytes]:
    """A small member whole: header, data, padding."""
    yield make_header(name, len(data), mtime=mtime)
    yield data
    yield bytes(padding(len(data)))
