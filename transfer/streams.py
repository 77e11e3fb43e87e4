"""Bytes that are believed only when size and hash agree: verified readers, durable files, strict JSON."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from transfer.errors import Damaged, FormatError, NotFound, OtherContent, UsageError, from_os_error
from transfer.model import Descriptor, Digest

BLOCK = 1 << 20
LAYER_BLOCK = 4 << 20
"""Layers are read in larger blocks (bytes): each is handed from thread to thread, which costs more than the caches lose (docs/decisions/0002)."""
MAX_DOCUMENT = 8 << 20
"""Largest manifest, index or config that is read (bytes). Registries stop at 4 MiB."""
JSON_WEIGHT = 256 << 20
"""About the most memory that parsing JSON may cost (bytes): a few bytes of text can become many of objects."""
EFFORT_MAX, _VISIT = 256 << 20, 4096
"""Bytes of documents that are followed, over all images of a source; and what a visit counts beside them."""
TEMPORARY = re.compile(r"\.(.+)\.[0-9]+\.[0-9a-f]{8}\.tmp", re.ASCII | re.DOTALL)


class Effort:
    """How much is read while documents are followed from many roots: many may share one large index, and each follows all of it.

    One for a whole source or bundle. About 50,000 documents, or a quarter of a GB of them.
    """

    def __init__(self, where: str) -> None:
        self._where, self._left = where, EFFORT_MAX

    def spend(self, size: int) -> None:
        """FormatError if that was one visit too many. `size`: of what was visited (bytes)."""
        self._left -= _VISIT + size
        if self._left < 0:
            raise FormatError(
                f"{self._where}: the images refer to more documents than this program reads",
                hint="export fewer images at a time",
            )

    def spent(self, data: bytes | None) -> bytes | None:
        """The document, after its visit was counted."""
        self.spend(len(data or b""))
        return data


class Readable(Protocol):
    """A one-way stream: `read(n)` gives 1..n bytes, or b"" at the end, and only then."""

    def read(self, size: int, /) -> bytes: ...


def blocks(stream: Readable, size: int = BLOCK) -> Iterator[bytes]:
    """The stream's bytes, up to `size` at a time. A stream that can be closed is closed at the end."""
    try:
        while block := stream.read(size):
            yield block
    finally:
        close = getattr(stream, "close", None)
        if close:
            close()


def coalesced(parts: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """The same bytes in blocks of about a MiB. What had come before a failure is given before that is raised: whoever tries again goes on behind it."""
    held: list[bytes | memoryview] = []
    size = 0
    try:
        for part in parts:
            held.append(part)
            size += len(part)
            if size >= BLOCK:
                yield b"".join(held)
                held.clear()
                size = 0
    except Exception:
        if held:
            yield b"".join(held)
        raise
    if held:
        yield b"".join(held)


class IterReader:
    """A Readable over an iterator of byte strings."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._rest: memoryview = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        while not self._rest:
            part = next(self._parts, None)
            if part is None:
                return b""
            if len(part) <= size and part:
                return part
            self._rest = memoryview(part)
        out = bytes(self._rest[:size])
        self._rest = self._rest[size:]
        return out


class SliceReader:
    """A Readable over part of an open file, by pread: many may share one descriptor."""

    def __init__(self, fd: int, offset: int, size: int, where: str) -> None:
        self._fd, self._at, self._end, self._where = fd, offset, offset + size, where

    def read(self, size: int, /) -> bytes:
        want = min(size, self._end - self._at)
        if want <= 0:
            return b""
        data = pread(self._fd, want, self._at, self._where)
        if not data:
            raise Damaged(f"{self._where}: cut short, {self._end - self._at} bytes are missing at the end")
        self._at += len(data)
        return data


def pread(fd: int, size: int, offset: int, where: str) -> bytes:
    """All of these bytes, or what there is to the file's end: a filesystem may give less at a time. A failure names the file."""
    try:
        data = os.pread(fd, size, offset)
        while data and len(data) < size:
            more = os.pread(fd, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data
    except OSError as error:
        raise from_os_error(error, f"reading {where}") from error


def verified(stream: Readable, digest: Digest, size: int, where: str, *, hashed: bool = True) -> Iterator[bytes]:
    """The stream's blocks; raises Damaged before the last one is handed out if size or digest differ.

    `hashed=False` leaves the digest to whoever receives the blocks, where that is certain to check it.
    """
    hasher = hashlib.new(digest.algorithm)
    held = b""
    seen = 0
    for block in blocks(stream):
        seen += len(block)
        if seen > size:
            raise Damaged(f"{where}: longer than the {size} bytes of {digest}")
        if hashed:
            hasher.update(block)
        if held:
            yield held
        held = block
    if seen != size:
        raise Damaged(f"{where}: {seen} bytes where {digest} has {size}")
    if hashed and hasher.hexdigest() != digest.hex:
        raise OtherContent(
            f"{where}: the content is not {digest}", hint="the content was changed or damaged; get it again"
        )
    if held:
        yield held


def read_document(stream: Readable, descriptor: Descriptor, where: str) -> bytes:
    """A small blob whole, its size and digest checked. FormatError over MAX_DOCUMENT."""
    if descriptor.size > MAX_DOCUMENT:
        raise FormatError(f"{where}: a document of {descriptor.size} bytes is refused (limit {MAX_DOCUMENT})")
    return b"".join(verified(stream, descriptor.digest, descriptor.size, where))


def sha256(data: bytes) -> Digest:
    """The digest OCI gives these bytes."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def sha256_of(path: Path) -> str:
    """A file's: 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in pairs:
        if key in out:
            raise ValueError(f"the key {key!r:.60} stands twice")
        out[key] = value
    return out


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _whole(text: str) -> int:
    if len(text) > 20:
        raise ValueError("a number of more than 20 digits")
    return int(text)


def _weight(data: bytes) -> int:
    """An upper bound for the memory that this text and what it is parsed to take (bytes; CPython, measured)."""
    text = len(data) * (2 if data.isascii() else 9)
    return text + 256 * data.count(b"{") + 96 * data.count(b"[") + 72 * (data.count(b",") + data.count(b":"))


def parse_json(data: bytes, where: str, limit: int = MAX_DOCUMENT) -> Any:
    """Strict JSON: UTF-8 without BOM, no duplicate keys, no NaN, no lone surrogates, bounded size, depth and memory."""
    if len(data) > limit:
        raise FormatError(f"{where}: {len(data)} bytes of JSON are refused (limit {limit})")
    if _weight(data) > JSON_WEIGHT:
        raise FormatError(f"{where}: {len(data)} bytes of JSON with more members than this program accepts")
    try:
        text = data.decode("utf-8", "strict")
        value = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_refuse_constant, parse_int=_whole)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8", "strict")
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: not valid JSON: {str(error)[:120]}") from error
    return value


def parse_object(data: bytes, where: str, limit: int = MAX_DOCUMENT) -> dict[str, Any]:
    """`parse_json` for what must be an object."""
    value = parse_json(data, where, limit)
    if not isinstance(value, dict):
        raise FormatError(f"{where}: not a JSON object")
    return value


def canonical_json(value: object) -> bytes:
    """The one way this program writes JSON that is hashed: sorted keys, no spaces, a newline at the end."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def open_plain(path: Path, *, follow: bool = False) -> BinaryIO:
    """Open a regular file for reading without blocking on a FIFO, nor following a link unless told to. Errors name the file."""
    try:
        fd = os.open(path, os.O_RDONLY | (0 if follow else os.O_NOFOLLOW) | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Damaged(f"{path} is a link, which is not followed", hint="put the file itself there") from error
        if error.errno == errno.ENOTDIR:
            raise NotFound(
                f"{path} does not exist: a part of the path is not a folder", hint="check the path"
            ) from error
        raise from_os_error(error, f"opening {path}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Damaged(f"{path} is not a regular file")
    return os.fdopen(fd, "rb", buffering=0)


def read_small(path: Path, limit: int = MAX_DOCUMENT) -> bytes:
    """A whole regular file of at most `limit` bytes."""
    with open_plain(path) as file:
        out = bytearray()
        while len(out) <= limit:
            block = pread(file.fileno(), min(BLOCK, limit + 1 - len(out)), len(out), str(path))
            if not block:
                return bytes(out)
            out += block
    raise FormatError(f"{path}: larger than the {limit} bytes that are accepted")


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """os.write until nothing is left."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def create(path: Path, mode: int = 0o666) -> int:
    """A new file, never an existing one and never through a link; the descriptor."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)


def temporary_name(path: Path) -> Path:
    """A new name beside `path` for what is to become it (`sweep` knows them by their form)."""
    return path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")


def begin(path: Path, mode: int = 0o666) -> tuple[int, Path]:
    """A new temporary neighbour of `path`, to be given its name when it is whole: descriptor and name.

    It is locked as long as it is open, so that `sweep` leaves it alone.
    """
    while True:
        temporary = temporary_name(path)
        fd = create(temporary, mode)
        with contextlib.suppress(OSError):  # where nothing can be locked, nothing is swept either
            fcntl.flock(fd, fcntl.LOCK_EX)
        if temporary.exists():
            return fd, temporary
        os.close(fd)  # swept before it was locked


def sweep(folder: Path, name: str = "") -> None:
    """Remove the temporary files here, all or those for `name`, whose writers were killed."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = TEMPORARY.fullmatch(entry.name)
            if found and name in ("", found[1]) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    _remove_unlocked(folder / entry.name)


def _remove_unlocked(path: Path) -> None:
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    finally:
        os.close(fd)


@contextlib.contextmanager
def publishing(path: Path, mode: int = 0o666, *, exact: bool = False) -> Iterator[Callable[[bytes | memoryview], None]]:
    """Write a file that appears whole or not at all: temporary neighbour, fsync, rename, folder fsync.

    Gives the write function. On any failure the temporary file is removed. `exact`: the mode holds whatever the umask is.
    """
    if not path.name or path.is_dir():
        raise UsageError(f"{path} is a folder", hint="name a file")
    try:
        fd, temporary = begin(path, mode)
        try:
            if exact:
                os.fchmod(fd, mode)
            yield lambda data: write_all(fd, data)
            os.fsync(fd)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        finally:
            os.close(fd)
        sync_folder(path.parent)
    except OSError as error:
        raise from_os_error(error, f"writing {path}") from error


def copy_verified(source: Path, target: Path, digest: Digest, size: int) -> None:
    """A copy that appears only if it is what the digest says."""
    with open_plain(source) as file, publishing(target) as write:
        for block in verified(SliceReader(file.fileno(), 0, size, str(source)), digest, size, str(source)):
            write(block)


def publish(path: Path, data: bytes, mode: int = 0o666, *, exact: bool = False) -> None:
    """A small file, whole and durable or not at all."""
    with publishing(path, mode, exact=exact) as write:
        write(data)
