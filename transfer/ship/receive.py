"""The receiver's half of the wire: a folder depot that answers calls, confined to the folder it was given."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import re
import select
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from transfer import __version__
from transfer.errors import CutOff, FormatError, MediumError, TransferError, UsageError, from_os_error
from transfer.model import Digest, blob_path
from transfer.ship import wire
from transfer.ship.base import Depot, split_name
from transfer.ship.confined import LEAST, Confined, one_folder
from transfer.ship.folder import PATIENCE, FolderDepot
from transfer.ship.wire import Channel, Ended, Talk

Supply = Callable[[Path, Digest, int], bool]
"""Put the file with this digest and size at this path, out of what the site has; False if it has not."""
Import = Callable[[Path, dict[str, Any], Callable[[dict[str, Any]], None]], dict[str, Any]]
"""Import a bundle folder; events go to the callable."""
Answer = dict[str, Any]
R = TypeVar("R")
ACK_SECONDS = 1.0
PIPE = 1 << 20
"""What sshd may write ahead, where standard input is a pipe (bytes)."""


class StdioChannel:
    """Standard input and output of this process."""

    def __init__(self, source: int = 0, sink: int = 1) -> None:
        self._source, self._sink = source, sink
        self._wake, self._waker = os.pipe()
        with contextlib.suppress(OSError, AttributeError):
            fcntl.fcntl(source, fcntl.F_SETPIPE_SZ, PIPE)

    def send(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._sink, view) :]
        except OSError as error:
            raise CutOff(f"the connection to the sender broke: {error.strerror}") from error

    def recv(self, size: int) -> bytes:
        try:
            ready, _, _ = select.select([self._source, self._wake], [], [])
            return os.read(self._source, size) if self._source in ready else b""
        except OSError as error:
            raise CutOff(f"the connection to the sender broke: {error.strerror}") from error

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._waker, b".")


@dataclass(frozen=True, slots=True)
class Duties:
    """What a receiver does beside taking files. Each that is there is announced as a feature of its name.

    `receipt` (site, number of the receipt that the sender accepted last) gives this site's receipt, as JSON text. `prune` (how many bundles to
    keep) makes the site's store smaller. `accept` takes the receipt of a site that pulls; `offers` lists the bundles for it: folder, digest, bytes.
    """

    supply: Supply | None = None
    import_: Import | None = None
    receipt: Callable[[str, int], str] | None = None
    prune: Callable[[int], Answer] | None = None
    accept: Callable[[str], Answer] | None = None
    offers: Callable[[], list[Answer]] | None = None

    @property
    def features(self) -> list[str]:
        return [each.name.rstrip("_") for each in fields(self) if getattr(self, each.name) is not None]


class Receiver:
    """Serves one sender until it ends. `inbox` confines it; without one it writes where its user may. With `outbox` it only gives."""

    def __init__(
        self,
        channel: Channel,
        *,
        inbox: Path | None,
        duties: Duties = Duties(),
        patience: float = PATIENCE,
        most: int = 0,
        outbox: bool = False,
    ) -> None:
        """`most`: bytes that may lie in the inbox (0: no limit). `outbox`: the inbox is one, of which nothing is changed."""
        self._channel, self._inbox, self._patience, self._most = channel, inbox, patience, most
        self._duties, self._outbox = duties, outbox
        self._talk = Talk(channel, "the sender")
        self._depot: Depot | None = None
        self._root = Path()
        self._growing: tuple[int, str, int] | None = None  # the call that began it, name, where it ends now
        self._acked, self._acked_at = 0, 0.0

    def run(self) -> None:
        """Until the sender is done, or gone: what it sent until then is kept."""
        self._channel.send(wire.MAGIC)
        self._talk.begin()
        self._talk.tell(wire.HELLO, wire=wire.VERSION, mandatory=[], features=self._duties.features, tool=__version__)
        try:
            with contextlib.suppress(Ended, CutOff):
                if self._meet():
                    while True:
                        self._take(*self._talk.hear())
        finally:
            if self._depot:
                self._depot.close()
            self._talk.close()

    def _meet(self) -> bool:
        kind, body = self._talk.hear()
        try:
            hello = wire.body_of(body, "the sender")
            if kind != wire.HELLO:
                raise FormatError("protocol error: the sender did not introduce itself")
            wire.meet(hello, "the sender")
            self._root = choose_root(str(hello.get("folder", "")), self._inbox)
            depot = FolderDepot(self._root, patience=self._patience)
            self._depot = Confined(depot, str(self._root), self._most, only_read=self._outbox) if self._inbox else depot
        except TransferError as error:
            self._fail(0, error)
            return False
        self._talk.tell(wire.ANSWER, n=0)
        return True

    def _fail(self, number: int, error: TransferError) -> None:
        hint = error.hint or error.advice
        self._talk.tell(wire.FAIL, n=number, slug=error.slug, message=error.message, hint=hint)

    def _take(self, kind: int, body: bytes) -> None:
        if kind == wire.DATA:
            if self._growing:
                self._write(body)
            return
        call = wire.body_of(body, "the sender")
        number = call.get("n")
        if kind != wire.CALL or type(number) is not int or not 0 <= number < 1 << 32:
            raise CutOff("protocol error: unexpected message from the sender")
        handler = _CALLS.get(str(call.get("op")))
        try:
            if handler is None:
                raise UsageError(f"this receiver does not support {call.get('op')!r:.40}")
            answer = handler(self, call)
            if answer is not None:
                self._talk.tell(wire.ANSWER, n=number, **answer)
        except TransferError as error:
            self._fail(number, error)
        except OSError as error:
            self._fail(number, from_os_error(error, str(self._root)))
        except (KeyError, TypeError, ValueError) as error:
            self._fail(number, FormatError(f"protocol error: a malformed request: {error!r:.200}"))

    @property
    def _place(self) -> Depot:
        if self._depot is None:
            raise UsageError("protocol error: the sender named no folder")
        return self._depot

    # the calls

    def _append(self, call: dict[str, Any]) -> None:
        offset = _whole(call["offset"])
        self._growing = (call["n"], _text(call["name"]), offset)
        self._acked, self._acked_at = offset, time.monotonic()

    def _write(self, data: bytes) -> None:
        assert self._growing
        number, name, at = self._growing
        try:
            self._place.append(name, data, at)
        except TransferError as error:
            self._growing = None
            self._fail(number, error)
            return
        at += len(data)
        self._growing = (number, name, at)
        now = time.monotonic()
        if at - self._acked >= wire.ACK_EVERY or now - self._acked_at > ACK_SECONDS or not self._talk.waiting():
            self._talk.ack(number, at)
            self._acked, self._acked_at = at, now

    def _finish(self, call: dict[str, Any]) -> dict[str, Any]:
        self._growing = None
        self._place.finish(_text(call["name"]), Digest.parse(call["digest"]), _whole(call["size"]))
        return {}

    def _hold(self, call: dict[str, Any]) -> dict[str, Any]:
        self._place.hold(_text(call["folder"]), _token(call["token"]))
        return {}

    def _stat(self, call: dict[str, Any]) -> dict[str, Any]:
        held = self._place.stat([_text(each) for each in call["names"]])
        return {"held": [None if each is None else [each.size, each.finished] for each in held]}

    def _list(self, call: dict[str, Any]) -> dict[str, Any]:
        return {
            "files": {
                name: size for name, size in self._place.list(_text(call["folder"])).items() if name.isprintable()
            }
        }

    def _parts(self, call: dict[str, Any]) -> dict[str, Any]:
        return {"parts": [each.hex() for each in self._place.parts(_text(call["name"]))]}

    def _read(self, call: dict[str, Any]) -> dict[str, Any]:
        for block in self._place.read(_text(call["name"]), _whole(call["offset"])):
            self._talk.say(wire.BLOCK, block)
        return {}

    def _check(self, call: dict[str, Any]) -> dict[str, Any]:
        name, digest = _text(call["name"]), Digest.parse(call["digest"])
        return {"fault": self._place.check(name, digest, _whole(call["size"]))}

    def _discard(self, call: dict[str, Any]) -> dict[str, Any]:
        self._place.discard(_text(call["name"]))
        return {}

    def _free(self, call: dict[str, Any]) -> dict[str, Any]:
        folder = _text(call["folder"])
        split_name(folder)
        return {"bytes": self._place.free(folder)}

    def _one_folder(self, call: dict[str, Any]) -> str:
        """The folder of a bundle, which is no link."""
        folder = _text(call["folder"])
        if self._inbox:
            one_folder(folder)
        split_name(folder)
        self._place.list(folder)
        return folder

    def _take_supply(self, call: dict[str, Any]) -> dict[str, Any]:
        folder, files = self._one_folder(call), _pairs(call["files"])
        count = 0
        for name, digest, size in files:
            split_name(f"{folder}/{name}")
            if name != blob_path(Digest.parse(digest)):
                continue  # what is named by its content can be supplied, and nothing else
            if self._duties.supply and self._place.stat([f"{folder}/{name}"]) == [None]:
                if isinstance(self._depot, Confined):
                    self._depot.count(_whole(size) + LEAST)
                count += self._duties.supply(self._root / folder / name, Digest.parse(digest), _whole(size))
        return {"count": count}

    def _run_import(self, call: dict[str, Any]) -> dict[str, Any]:
        folder = self._one_folder(call)
        if self._duties.import_ is None:
            raise UsageError(
                "this receiver only accepts files",
                hint="import on that host by hand, or allow it there: receive --allow-import",
            )
        options = call["options"]
        if not isinstance(options, dict):
            raise FormatError("protocol error: a malformed request")
        return self._duties.import_(self._root / folder, options, lambda value: self._talk.tell(wire.EVENT, **value))

    def _receipt(self, call: dict[str, Any]) -> Answer:
        return {"receipt": _asked(self._duties.receipt)(_text(call["site"]), _signed(call["seen"]))}

    def _prune(self, call: dict[str, Any]) -> Answer:
        return _asked(self._duties.prune)(_whole(call["keep"]))

    def _accept(self, call: dict[str, Any]) -> Answer:
        return _asked(self._duties.accept)(_text(call["receipt"]))

    def _offers(self, call: dict[str, Any]) -> Answer:
        return {"offers": _asked(self._duties.offers)()}


_CALLS: dict[str, Callable[[Receiver, dict[str, Any]], dict[str, Any] | None]] = {
    "accept": Receiver._accept,
    "append": Receiver._append,
    "check": Receiver._check,
    "discard": Receiver._discard,
    "finish": Receiver._finish,
    "free": Receiver._free,
    "hold": Receiver._hold,
    "import": Receiver._run_import,
    "list": Receiver._list,
    "offers": Receiver._offers,
    "parts": Receiver._parts,
    "prune": Receiver._prune,
    "read": Receiver._read,
    "receipt": Receiver._receipt,
    "stat": Receiver._stat,
    "supply": Receiver._take_supply,
}


def choose_root(folder: str, inbox: Path | None) -> Path:
    """The folder a sender means: absolute, or from the home (or the inbox). UsageError for one outside the inbox."""
    if "\0" in folder or ".." in folder.split("/"):
        raise UsageError(f"{folder!r:.200} is not a folder to ship to", hint="write the path without ..")
    if folder == "~" or folder.startswith("~/"):
        folder = folder[2:]
    base = inbox.resolve() if inbox else Path.home()
    root = Path(os.path.normpath(base / folder))
    if inbox and root != base:
        raise UsageError(
            f"{folder} is not the inbox of this receiver", hint=f"ship to {base}, or name no folder: HOST: alone"
        )
    if inbox and not base.is_dir():
        raise MediumError(f"the inbox {base} is not a folder", hint="create it, or name another: receive --inbox DIR")
    return root


def sound_inbox(inbox: Path, site: str = "") -> Path:
    """The folder a sender is confined to: the inbox, or the site's own in it, which is made. UsageError for one that gives more away than bundles."""
    base = inbox.resolve()
    if base == Path(base.anchor) or base in _homes() or ".ssh" in base.parts or (base / ".ssh").exists():
        raise UsageError(
            f"the inbox {base} is a home folder, or holds .ssh: a sender could write other files there",
            hint="create a folder for bundles only: receive --inbox /srv/inbox",
        )
    if not site or not base.is_dir():
        return base
    place = base / site
    try:
        with contextlib.suppress(FileExistsError):
            place.mkdir(mode=0o700)
        if not stat.S_ISDIR(place.lstat().st_mode):
            raise UsageError(f"{place} is not a folder", hint="remove it, or name another site")
    except OSError as error:
        raise from_os_error(error, f"making {place}") from error
    return place


def _homes() -> set[Path]:
    """The homes of this host's users, as far as they are known."""
    mine = set()
    with contextlib.suppress(RuntimeError):
        mine.add(Path.home().resolve())
    return mine | {Path(each.pw_dir) for each in pwd.getpwall() if each.pw_dir not in _NO_HOMES}


_NO_HOMES = {"", "/", "/nonexistent", "/dev/null"}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise FormatError("protocol error: a malformed request")
    return value


def _asked(duty: R | None) -> R:
    """UsageError for what this receiver does not do."""
    if duty is None:
        raise UsageError("this receiver does not do that", hint="its administrator can allow it; see docs/sync.md")
    return duty


def _signed(value: object) -> int:
    return -1 if value == -1 else _whole(value)


def _token(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9A-Za-z]{1,64}", value, re.ASCII):
        raise FormatError("protocol error: a malformed request")
    return value


def _whole(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 60:
        raise FormatError("protocol error: a malformed request")
    return value


def _pairs(value: object) -> Sequence[Sequence[Any]]:
    if not isinstance(value, list) or not all(isinstance(each, list) and len(each) == 3 for each in value):
        raise FormatError("protocol error: a malformed request")
    return value
