"""Headers of zip and gzip files that lie in a layer's files (PKWARE APPNOTE 6.3, RFC 1952), and the paths of what they hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from transfer.chunks.layer import last_path
from transfer.tarfmt import RECORD, parse_header

LOCAL, DESCRIPTOR, GZIP = b"PK\x03\x04", b"PK\x07\x08", b"\x1f\x8b\x08"
_END = b"PK\x05\x06"
LOCAL_SIZE, GZIP_SIZE = 30, 10
RECORD_HEAD, DESCRIPTOR_MAX = 46, 24
_CENTRAL_SIZE, _END_SIZE, _END64_SIZE = 46, 22, 12
_UNKNOWN = 0xFFFFFFFF
_MEMBERS = re.compile(re.escape(GZIP))
_MARKS = re.compile(re.escape(LOCAL) + b"|" + re.escape(_END))


class LocalHeader(NamedTuple):
    """A zip entry's header: its own size and the entry's packed one (bytes; None where the header does not say), and how it is packed."""

    size: int
    packed: int | None
    is_deflate: bool
    is_stored: bool


def local_header(data: bytes) -> LocalHeader | None:
    """The header that begins with these 30 bytes; None if there is none."""
    if len(data) < LOCAL_SIZE or not data.startswith(LOCAL):
        return None
    flags, method = int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    packed = int.from_bytes(data[18:22], "little")
    size = LOCAL_SIZE + int.from_bytes(data[26:28], "little") + int.from_bytes(data[28:30], "little")
    said = packed != _UNKNOWN and not (flags & 8 and not packed)
    return LocalHeader(size, packed if said else None, method == 8 and not flags & 1, method == 0)


def holds_zip(header: bytes, follows: bytes) -> bool:
    """Whether a whole local header is that of a zip which lies uncompressed in this one; `follows` is what comes behind."""
    entry = local_header(header)
    return entry is not None and entry.is_stored and entry.packed != 0 and follows.startswith(LOCAL)


def name_of(header: bytes) -> bytes:
    """The name in a whole local header."""
    return header[LOCAL_SIZE : LOCAL_SIZE + int.from_bytes(header[26:28], "little")]


def record_size(data: bytes) -> int:
    """How many bytes a zip's record has that is no entry, by its first 46; 0 for what is none."""

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], "little")

    if data.startswith(b"PK\x01\x02") and len(data) >= _CENTRAL_SIZE:
        return _CENTRAL_SIZE + number(28, 2) + number(30, 2) + number(32, 2)
    if data.startswith(_END) and len(data) >= _END_SIZE:
        return _END_SIZE + number(20, 2)
    if data.startswith(b"PK\x06\x06") and len(data) >= _END64_SIZE:
        return _END64_SIZE + min(number(4, 8), 1 << 16)
    return 20 if data.startswith(b"PK\x06\x07") else 0


def is_end(data: bytes) -> bool:
    """Whether a zip's last record begins here."""
    return data.startswith(_END)


def descriptor_size(data: bytes, sum_and_sizes: tuple[bytes, bytes]) -> int:
    """How many bytes the descriptor behind an entry has, which repeats CRC and sizes; 0 if there is none. The sizes have 4 or 8 bytes each."""
    for mark in (len(DESCRIPTOR), 0):
        for each in sum_and_sizes:
            if data[mark:].startswith(each) and (not mark or data.startswith(DESCRIPTOR)):
                return mark + len(each)
    return 0


def gzip_header_size(data: bytes) -> int:
    """How many bytes a gzip header has that begins here; 0 if there is none, or it does not end here."""
    if len(data) < GZIP_SIZE or not data.startswith(GZIP) or data[3] & 0xE0:
        return 0
    at = GZIP_SIZE
    if data[3] & 4:
        at += 2 + int.from_bytes(data[at : at + 2], "little")
    for flag in (8, 16):
        if data[3] & flag:
            at = data.find(b"\0", at) + 1
            if not at:
                return 0
    at += 2 * bool(data[3] & 2)
    return at if at <= len(data) else 0


class FilePaths:
    """The path of the file behind each stretch of skeleton; of what lies in a zip or a gzip file, `FILE!/ENTRY` or `FILE!`."""

    def __init__(self) -> None:
        self._outer = self._stored = self._path = b""

    def after(self, stretch: bytes) -> bytes:
        """Nothing between means: the same file goes on."""
        if stretch:
            self._path = self._read(stretch)
        return self._path

    def _read(self, stretch: bytes) -> bytes:
        """What a stretch ends with: a zip entry's header, a gzip file's, or a tar's."""
        entry = b""
        for found in _MARKS.finditer(stretch):
            at = found.start()
            if found[0] != LOCAL:
                self._stored = b""
                continue
            if self._enter(stretch[:at]):
                self._stored = b""
            header = local_header(stretch[at : at + LOCAL_SIZE])
            entry = stretch[at : at + header.size] if header else b""
            if not self._stored and holds_zip(entry, stretch[at + len(entry) :][:4]):
                self._stored = name_of(entry)
        if entry and stretch.endswith(entry):
            return inner_path(self._outer, self._stored, name_of(entry))
        self._stored = b""
        at = stretch.rfind(GZIP)
        if at >= 0 and gzip_header_size(stretch[at:]) == len(stretch) - at:
            for found in _MEMBERS.finditer(stretch):
                self._enter(stretch[: found.start()])
            return self._outer + b"!"
        self._outer = last_path(stretch)
        return self._outer

    def _enter(self, stretch: bytes) -> bool:
        """Whether the stretch ends with a tar header: what follows lies in that file."""
        if len(stretch) < RECORD or parse_header(stretch[-RECORD:]) is None:
            return False
        self._outer = last_path(stretch)
        return True


def inner_path(outer: bytes, stored: bytes, name: bytes) -> bytes:
    """What an entry is called; `stored` is the zip that holds it, where that lies uncompressed in another."""
    return b"!/".join([outer, stored, name] if stored else [outer, name])


def file_paths(stretches: Iterable[bytes]) -> Iterator[bytes]:
    """The path of the file behind each stretch of skeleton, as whoever cut the layer gave it."""
    paths = FilePaths()
    return map(paths.after, stretches)
