"""The outer tar of an archive of images, member by member.

It is hostile until proven otherwise: names are keys, never paths; only plain files, folders and links are accepted, and links are followed
inside the archive alone.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from transfer.errors import Damaged, FormatError
from transfer.streams import BLOCK, MAX_DOCUMENT, Readable, SliceReader, pread
from transfer.tarfmt import MAX_EXTENSION, RECORD, ZERO, padding, parse_header, parse_pax, pax_size

MAX_MEMBERS = 500_000
MAX_NAME = 4096
MAX_NAMES = 32 << 20
"""Bytes of all names in an archive together."""
NO_ARCHIVE = "docker-archive: is what `docker save` writes; what `docker export` writes is the files of a container, and no image"
_PLAIN, _HARDLINK, _SYMLINK, _FOLDER = b"\x00", b"1", b"2", b"5"


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the archive. `link` is the target's name inside the archive, "" for one that leads out of it, None for a plain file.

    `at`: where its data begin in the archive; sizes in bytes.
    """

    name: str
    size: int
    link: str | None = None
    at: int = 0


def members(source: Forward) -> Iterator[tuple[Member, Readable]]:
    """The archive's files and links, each with its data, to be read before the next is asked for.

    A member may stand there again, as `tar -r` writes it: which of them counts is for whoever reads to say. FormatError for anything
    this program does not accept in an archive's outer tar.
    """
    where = source.where
    count, names = 0, 0
    name, link, size, extensions = "", "", None, 0
    while record := source.exactly(RECORD):
        if record == ZERO:
            return
        header = parse_header(record)
        if header is None:
            raise FormatError(f"{where}: this is not a tar archive, or it is damaged, at byte {source.at - RECORD}")
        if header.kind in b"LKxg":
            extensions += 1
            if header.size > MAX_EXTENSION or extensions > 4:
                raise FormatError(f"{where}: a tar extension header is too large, or there are too many")
            data = source.exactly(header.size + padding(header.size))[: header.size]
            if header.kind == ord("x"):
                name, link, size = _pax(data, where, source.at)
            elif header.kind == ord("L"):
                name = _text(data.rstrip(b"\0"), where)
            elif header.kind == ord("K"):
                link = _text(data.rstrip(b"\0"), where)
            continue
        length = header.size if size is None else size
        try:
            entry = _entry(
                header.kind, name or _text(header.name, where), link or _text(header.link, where), length, where
            )
        except FormatError as error:
            raise FormatError(error.message, hint=NO_ARCHIVE if count < 1000 else "") from error
        name, link, size, extensions = "", "", None, 0
        if entry is None:
            source.skip(length + padding(length))
            continue
        count += 1
        names += len(entry.name) + len(entry.link or "")
        if count > MAX_MEMBERS or names > MAX_NAMES:
            raise FormatError(f"{where}: the archive has too many members, or their names are too long")
        end = source.at + length
        yield replace(entry, at=source.at), Window(source, end)
        source.skip(end - source.at + padding(length))
    return


class Forward:
    """A stream with a position."""

    def __init__(self, stream: Readable, where: str) -> None:
        self._stream, self.where, self.at = stream, where, 0
        self._held = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        if not self._held:
            self._held = memoryview(self._stream.read(BLOCK))
        out = bytes(self._held[:size])
        self._held = self._held[len(out) :]
        self.at += len(out)
        return out

    def exactly(self, size: int) -> bytes:
        """`size` bytes; b"" at a clean end; Damaged in between."""
        parts, missing = [], size
        while missing and (data := self.read(missing)):
            parts.append(data)
            missing -= len(data)
        if missing and missing != size:
            raise Damaged(
                f"{self.where}: cut short at byte {self.at}", hint="the file is incomplete: write or copy it again"
            )
        return b"".join(parts)

    def skip(self, size: int) -> None:
        while size:
            data = self.read(min(size, BLOCK))
            if not data:
                raise Damaged(
                    f"{self.where}: cut short at byte {self.at}", hint="the file is incomplete: write or copy it again"
                )
            size -= len(data)


class ForwardFile(Forward):
    """The same over a regular file: what is skipped is not read."""

    def __init__(self, fd: int, where: str) -> None:
        super().__init__(SliceReader(fd, 0, 0, where), where)
        self._fd, self._end = fd, os.fstat(fd).st_size

    def read(self, size: int, /) -> bytes:
        data = pread(self._fd, min(size, BLOCK), self.at, self.where)
        self.at += len(data)
        return data

    def skip(self, size: int) -> None:
        if self.at + size > self._end:
            raise Damaged(
                f"{self.where}: cut short at byte {self._end}", hint="the file is incomplete: write or copy it again"
            )
        self.at += size


class Window:
    """A Readable up to a position of a Forward; Damaged if the stream ends before."""

    def __init__(self, source: Forward, end: int) -> None:
        self._source, self._end = source, end

    def read(self, size: int, /) -> bytes:
        want = min(size, self._end - self._source.at)
        if want <= 0:
            return b""
        data = self._source.read(want)
        if not data:
            self._source.skip(1)
        return data


def _pax(data: bytes, where: str, at: int) -> tuple[str, str, int | None]:
    """The name, link and size that a PAX header sets for the next member; FormatError if it cannot be read."""
    try:
        records = parse_pax(data)
        size = pax_size(records)
    except FormatError as error:
        raise FormatError(f"{where}: {error.message} before byte {at}") from error
    return _text(records.get(b"path", b""), where), _text(records.get(b"linkpath", b""), where), size


def _text(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{where}: a member name that is not UTF-8: {raw!r:.80}") from error


def _entry(kind: int, name: str, link: str, size: int, where: str) -> Member | None:
    flag = bytes([kind])
    if flag == _FOLDER:
        return None
    if flag not in (_PLAIN, b"0", b"7", _HARDLINK, _SYMLINK):
        raise FormatError(f"{where}: {name!r:.100} is neither a file, a folder nor a link; refused")
    clean = inside(name, where)
    if flag in (_HARDLINK, _SYMLINK):
        base = posixpath.dirname(clean) if flag == _SYMLINK else ""
        target = ""
        with contextlib.suppress(
            FormatError
        ):  # one that leads out of the archive is no matter as long as nobody follows it
            target = inside(posixpath.join(base, link), where)
        return Member(clean, 0, target)
    return Member(clean, size)


def inside(name: str, where: str) -> str:
    """The name without ./ and resolved ..; FormatError for one that leaves the archive or is no plain name."""
    if not name or len(name) > MAX_NAME or "\0" in name or "\\" in name or name.startswith("/"):
        raise FormatError(f"{where}: a member name that is refused: {name!r:.100}")
    clean = posixpath.normpath(name)
    if clean in (".", "..") or clean.startswith("../"):
        raise FormatError(f"{where}: a member name that leaves the archive: {name!r:.100}")
    return clean


def follow(name: str, links: Mapping[str, str], where: str) -> str:
    """Where a name leads through links of the archive; FormatError after 8, and for one that leads out of it."""
    for _ in range(8):
        if name not in links:
            return name
        if not links[name]:
            raise FormatError(f"{where}: {name!r:.100} is a link that leads out of the archive; refused")
        name = links[name]
    raise FormatError(f"{where}: {name!r:.100} is a chain of too many links; refused")


def whole_member(entry: Member, data: Readable, where: str) -> bytes:
    """What is left of a small member. FormatError for one that is too large."""
    if entry.size > MAX_DOCUMENT:
        raise FormatError(f"{where}: {entry.name!r:.100} has {entry.size} bytes (limit {MAX_DOCUMENT})")
    out = bytearray()
    while part := data.read(BLOCK):
        out += part
    return bytes(out)
