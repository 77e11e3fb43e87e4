"""A depot over SFTP, for hosts where nothing can be installed: pipelined writes whose every status is read, fsync, rename, and a look at what is there."""

from __future__ import annotations

import contextlib
import hashlib
import shlex
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from transfer.errors import (
    CutOff,
    FormatError,
    MediumError,
    Nonsense,
    NoSpace,
    NotAllowed,
    NotFound,
    TransferError,
)
from transfer.model import Digest
from transfer.ship.base import (
    PART,
    WINDOW,
    WRONG_CONTENT,
    HeldFile,
    Traits,
    damaged,
    split_name,
    unfinished,
    wrong_size,
)
from transfer.ship.pace import Pace
from transfer.ship.requests import Writes, ask_ahead, fsync, request_size, room, sftp_client
from transfer.ship.ssh import LINE_GONE
from transfer.ship.wire import Channel

if TYPE_CHECKING:
    import paramiko

R = TypeVar("R")
AHEAD = 4 * PART
"""Bytes that are asked for at once when a file is read."""
LISTED_MAX, _ENTRY = 64 << 20, 600
"""About the most memory that the list of a folder over there may cost (bytes), and what each file in it costs beside its name."""
SAID_MAX = 64 << 10
"""Bytes of greetings from a shell that are passed over."""
MARK = b"transfer-sha256 "
_PROGRAMS = ("openssl dgst -sha256 -r", "sha256sum", "shasum -a 256")
HASHER = (
    "while IFS= read -r f; do h=$("
    + " || ".join(f'{program} "$f" 2>/dev/null' for program in _PROGRAMS)
    + '); echo "transfer-sha256 ${h%% *}"; done'
)
"""What is run over there. openssl first: it uses the processor's own instructions, which takes a fifth of what Debian's sha256sum does."""


@dataclass
class _PartFile:
    """The unfinished file at work, and where it ends now."""

    name: str
    file: paramiko.SFTPFile
    writes: Writes
    at: int


class SftpDepot:
    """`open_channel` gives the sftp subsystem; `run` a command's channel, as far as the account has a shell. `folder` as the user wrote it.

    `window` bounds the bytes whose status is not known.
    """

    def __init__(
        self,
        open_channel: Callable[[], Channel],
        run: Callable[[str], Channel],
        where: str,
        folder: str,
        *,
        window: int = WINDOW,
        also_close: Callable[[], None] = lambda: None,
    ) -> None:
        self.where, self._run, self._also_close = where, run, also_close
        self._pace = Pace(window)
        self._channel = open_channel()
        self._client = sftp_client(self._channel)
        self._growing: _PartFile | None = None
        self._shell: bool | None = None
        self._hasher: Channel | None = None
        relative = folder[2:] if folder.startswith("~/") else "" if folder == "~" else folder
        self._root = relative.rstrip("/") or ("/" if relative.startswith("/") else ".")
        self._made: set[str] = set()
        self._request_size = self._ask(".", lambda: request_size(self._client))

    @property
    def traits(self) -> Traits:
        return Traits(checks_there=self._shell is not False, compares_parts=False, lanes=2)

    def _path(self, name: str, *, growing: bool = False) -> str:
        *folders, base = split_name(name)
        return "/".join((self._root, *folders, unfinished(base) if growing else base))

    def _ask(self, name: str, call: Callable[[], R]) -> R:
        """One request, or several; what goes wrong gets its name here."""
        try:
            return call()
        except LINE_GONE as error:
            raise CutOff(f"{self.where}: the connection broke: {error or type(error).__name__}") from error
        except FileNotFoundError as error:
            raise NotFound(f"{self.where}:{self._root}/{name} is not there") from error
        except PermissionError as error:
            raise NotAllowed(
                f"{self.where}:{self._root}/{name}: permission denied", hint="check the owner and the permissions there"
            ) from error
        except OSError as error:
            if "ocket is closed" in str(error):
                raise CutOff(f"{self.where}: the connection broke: {error}") from error
            raise self._why(name, error) from error

    def _why(self, name: str, error: OSError) -> TransferError:
        """SFTP says `Failure` for all that has no number of its own: the filesystem tells more."""
        found = None
        with contextlib.suppress(*LINE_GONE):
            found = room(self._client, self._root)
        where = f"{self.where}:{self._root}/{name}"
        if found and found.read_only:
            return MediumError(f"{where}: the filesystem is read-only", hint="ship to another folder, or remount it")
        if found and found.free < 2 * PART:
            return NoSpace(
                f"{where}: no space left on that host", hint="free some space there and run the same command again"
            )
        return MediumError(
            f"{where}: {error}", hint="check quota, disk and permissions on that host; its log may say more"
        )

    def hold(self, folder: str, token: str) -> None:
        """SFTP has no locks."""
        split_name(folder)

    def supply(self, folder: str, files: Sequence[tuple[str, Digest, int]]) -> int:
        return 0

    def stat(self, names: Sequence[str]) -> list[HeldFile | None]:
        self._settle()
        listed: dict[str, dict[str, int]] = {}
        out: list[HeldFile | None] = []
        for name in names:
            *_, base = split_name(name)
            folder = self._path(name).rpartition("/")[0]
            if folder not in listed:
                listed[folder] = {
                    each.filename: int(each.st_size or 0) for each in self._entries(folder) if _is_file(each)
                }
            files = listed[folder]
            if base in files:
                out.append(HeldFile(files[base], True))
            else:
                growing = files.get(unfinished(base))
                out.append(None if growing is None else HeldFile(growing, False))
        return out

    def _entries(self, folder: str) -> list[Any]:
        try:
            return self._ask(folder, lambda: self._listed(folder))
        except NotFound:
            return []

    def _listed(self, folder: str) -> list[Any]:
        """What a folder holds over there. Nonsense if there is no end to it."""
        out, left = [], LISTED_MAX
        for each in self._client.listdir_iter(folder, read_aheads=1):
            left -= _ENTRY + len(each.filename) + len(each.longname)
            if left < 0:
                raise Nonsense(
                    f"{self.where}:{folder}: what it holds has no end",
                    hint="ship into an empty folder, or to a host with transfer installed",
                )
            out.append(each)
        return out

    def list(self, folder: str) -> dict[str, int]:
        out: dict[str, int] = {}
        self._settle()
        waiting = [""]
        split_name(folder)
        while waiting and len(out) < 1 << 20:
            under = waiting.pop()
            for each in self._entries(f"{self._root}/{folder}/{under}".rstrip("/")):
                if _is_file(each) and not each.filename.startswith("."):
                    out[f"{under}{each.filename}"] = int(each.st_size or 0)
                elif stat.S_ISDIR(each.st_mode or 0) and under.count("/") < 7:
                    waiting.append(f"{under}{each.filename}/")
        return out

    def read(self, name: str, offset: int = 0) -> Iterator[bytes]:
        self._settle()
        return self._read(name, self._path(name), offset)

    def _read(self, name: str, path: str, offset: int = 0) -> Iterator[bytes]:
        file = self._open(name, path, "rb")
        try:
            size = self._ask(name, lambda: int(file.stat().st_size or 0))
            ask_ahead(file)
            while offset < size:
                wanted = [(at, min(PART, size - at)) for at in range(offset, min(offset + AHEAD, size), PART)]
                yield from self._ask(name, lambda wanted=wanted: list(file.readv(wanted)))  # type: ignore[misc]
                offset += AHEAD
        finally:
            self._close(file)

    def _open(self, name: str, path: str, mode: str) -> paramiko.SFTPFile:
        file = self._ask(name, lambda: self._client.open(path, mode, 0))
        file.MAX_REQUEST_SIZE = self._request_size
        return file

    def _close(self, file: paramiko.SFTPFile) -> None:
        with contextlib.suppress(OSError, *LINE_GONE):
            file.close()

    def parts(self, name: str) -> Sequence[bytes]:
        split_name(name)
        return ()

    # writing

    def append(self, name: str, data: bytes | memoryview, offset: int) -> None:
        grown = self._growing
        if grown is None or grown.name != name or grown.at != offset:
            grown = self._take_up(name, offset)
        for piece in self._pace.pieces(data, self._request_size):
            self._step(grown, lambda piece=piece: grown.writes.send(grown.at, piece))  # type: ignore[misc]
            grown.at += len(piece)
            self._step(grown, lambda: grown.writes.wait(self._pace.window))

    def _step(self, grown: _PartFile, call: Callable[[], None]) -> None:
        """Write, or read statuses; after a failure the file is let go."""
        try:
            self._ask(grown.name, call)
        except TransferError:
            self._growing = None
            self._close(grown.file)
            raise

    def _take_up(self, name: str, offset: int) -> _PartFile:
        self._settle()
        path = self._path(name, growing=True)
        self._folders(name)
        there = 0
        with contextlib.suppress(NotFound):
            found = self._ask(name, lambda: self._client.lstat(path))
            there = int(found.st_size or 0)
            if not _is_file(found):
                raise MediumError(f"{self.where}:{path} is not a regular file", hint="remove it")
        if offset > there:
            raise FormatError(f"{self.where}:{path}: bytes at {offset}, beyond its end at {there}")
        file = self._open(name, path, "r+b" if there else "wb")
        if there > offset:
            self._ask(name, lambda: file.truncate(offset))
        self._growing = _PartFile(name, file, Writes(self._client, file, self._pace), offset)
        return self._growing

    def _folders(self, name: str) -> None:
        *folders, _ = split_name(name)
        path = self._root
        for each in ("", *folders):
            path = f"{path}/{each}" if each else path
            if path in self._made:
                continue
            try:
                self._client.stat(path)
            except FileNotFoundError:
                self._ask(name, lambda path=path: self._client.mkdir(path))  # type: ignore[misc]
            except (OSError, *LINE_GONE) as error:
                self._ask(name, lambda error=error: _raise(error))  # type: ignore[misc]
            self._made.add(path)

    def _drain(self) -> _PartFile | None:
        """Read the status of everything that was written."""
        grown, self._growing = self._growing, None
        if grown:
            self._step(grown, lambda: grown.writes.wait(0))
        return grown

    def _settle(self) -> None:
        grown = self._drain()
        if grown:
            self._close(grown.file)

    def finish(self, name: str, digest: Digest, size: int) -> None:
        grown = self._growing
        if grown is None or grown.name != name:
            held = self.stat([name])[0]
            self._take_up(name, held.size if held and not held.finished else 0)
        grown = self._drain()
        assert grown
        file = grown.file
        try:
            durable = self._ask(name, lambda: fsync(self._client, file))
        finally:
            self._close(file)
        path, final = self._path(name, growing=True), self._path(name)
        why = self._fault(name, path, digest, size)
        if why:
            raise damaged(f"{self.where}:{self._root}", name, why)
        self._ask(name, lambda: self._rename(path, final))
        self.durable = durable

    def _rename(self, path: str, final: str) -> None:
        try:
            self._client.posix_rename(path, final)
        except OSError as error:
            if "unsupported" not in str(error).lower():
                raise
            with contextlib.suppress(FileNotFoundError):
                self._client.remove(final)
            self._client.rename(path, final)

    def check(self, name: str, digest: Digest, size: int) -> str:
        self._settle()
        try:
            return self._fault(name, self._path(name), digest, size)
        except NotFound:
            return "it is not there"

    def _fault(self, name: str, path: str, digest: Digest, size: int) -> str:
        """What is wrong with the bytes that lie there: never the size alone."""
        found = self._ask(name, lambda: int(self._client.lstat(path).st_size or 0))
        if found != size:
            return wrong_size(name, found, size)
        told = self._hash_there(path) if digest.algorithm == "sha256" else None
        if told is None:
            hasher = hashlib.new(digest.algorithm)
            for block in self._read(name, path):
                hasher.update(block)
            told = hasher.hexdigest()
        return "" if told == digest.hex else WRONG_CONTENT

    def _hash_there(self, path: str) -> str | None:
        """sha256 as that host's own programs give it; None if nothing can be run there. One shell hashes all files of a line."""
        if self._shell is False or "\n" in path:
            return None
        said = b""
        try:
            if self._hasher is None:
                self._hasher = self._run(f"exec sh -c {shlex.quote(HASHER)}")
            self._hasher.send(f"{path if path.startswith('/') else f'./{path}'}\n".encode("utf-8", "surrogateescape"))
            while b"\n" not in said[max(0, said.find(MARK)) :] or MARK not in said:
                block = self._hasher.recv(4096)
                if not block or len(said) > SAID_MAX:
                    break
                said += block
        except CutOff:
            said = b""
        word = said.partition(MARK)[2].split(b"\n")[0].decode(errors="replace").strip().lstrip("\\")
        self._shell = len(word) == 64 and set(word) <= set("0123456789abcdef")
        if not self._shell:
            self._close_hasher()
        return word if self._shell else None

    def _close_hasher(self) -> None:
        if self._hasher is not None:
            self._hasher.close()
            self._hasher = None

    def discard(self, name: str) -> None:
        if self._growing and self._growing.name == name:
            with contextlib.suppress(TransferError):
                self._settle()
        self._settle()
        for path in (self._path(name), self._path(name, growing=True)):
            with contextlib.suppress(NotFound):
                self._ask(name, lambda path=path: self._client.remove(path))  # type: ignore[misc]

    def free(self, folder: str) -> int | None:
        self._settle()
        for path in (self._root, "."):
            found = self._ask(folder, lambda path=path: room(self._client, path))  # type: ignore[misc]
            if found:
                return found.free
        return None

    def close(self) -> None:
        with contextlib.suppress(TransferError):
            self._settle()
        self._close_hasher()
        with contextlib.suppress(OSError, *LINE_GONE):
            self._client.close()
        self._channel.close()
        self._also_close()


def _is_file(found: Any) -> bool:
    return stat.S_ISREG(found.st_mode or 0)


def _raise(error: BaseException) -> None:
    raise error
