"""A depot behind a transfer program on the far side: this is the sender's half; `receive.py` is the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from transfer import __version__
from transfer.errors import CredentialsError, CutOff, FormatError, Nonsense, Unsupported
from transfer.model import Digest
from transfer.ship import wire
from transfer.ship.base import WINDOW, HeldFile, Traits
from transfer.ship.pace import Pace
from transfer.ship.wire import Channel, Ended, Talk
from transfer.work import background

R = TypeVar("R")
ONLY_RECEIVES = "the key there may only receive (it has no --allow-import)"
IMPORT_THERE = "ship without --import, and import over there: transfer import FOLDER"


def _held(said: Any) -> HeldFile:
    """What a far side says of a file. TypeError or ValueError for nonsense."""
    size, finished = said
    if type(size) is not int or size < 0 or type(finished) is not bool:
        raise ValueError("no size")
    return HeldFile(size, finished)


class NoReceiver(Exception):
    """There is no transfer program at the other end of the channel; what there was instead, in words."""


class ReceiverDepot:
    """`folder` is the far side's, as the user wrote it; empty for its home or inbox. NoReceiver if no program answers there."""

    def __init__(
        self,
        channel: Channel,
        where: str,
        folder: str,
        *,
        window: int = WINDOW,
        also_close: Callable[[], None] = lambda: None,
    ) -> None:
        self.where, self.traits = where, Traits(lanes=2)
        self._talk, self._pace, self._also_close = Talk(channel, where), Pace(window), also_close
        self._number = 0
        self._growing: tuple[str, int, int] | None = None  # name, bytes sent so far, the call that began it
        self._written = 0
        self._moved = threading.Condition()
        self._talk.on_ack = self._on_ack
        greeted = threading.Event()

        def give_up() -> None:
            if not greeted.wait(wire.SILENCE):
                channel.close()

        background(give_up, "greeting")
        try:
            self._talk.tell(wire.HELLO, wire=wire.VERSION, mandatory=[], tool=__version__, folder=folder)
            wire.find_magic(channel, where)
        except (Ended, CutOff, FormatError) as error:
            channel.close()
            raise NoReceiver(str(error)) from error
        finally:
            greeted.set()
        self._talk.begin()
        kind, body = self._hear()
        hello = self._body(body)
        if kind != wire.HELLO:
            raise Nonsense(f"{where}: protocol error: the receiver did not introduce itself")
        wire.meet(hello, where)
        self.features = self._sound(lambda: frozenset(str(each) for each in hello.get("features", [])))
        self._wait(0)

    # asking

    def _hear(self) -> tuple[int, bytes]:
        try:
            return self._talk.hear()
        except FormatError as error:
            raise Nonsense(error.message) from error
        except Ended as end:
            raise CutOff(f"{self.where}: the connection ended") from end

    def _body(self, body: bytes) -> dict[str, Any]:
        try:
            return wire.body_of(body, self.where)
        except FormatError as error:
            raise Nonsense(error.message) from error

    def _call(self, op: str, **words: Any) -> int:
        self._number += 1
        self._talk.tell(wire.CALL, n=self._number, op=op, **words)
        return self._number

    def _wait(
        self,
        number: int,
        block: Callable[[bytes], None] | None = None,
        event: Callable[[dict[str, Any]], None] = lambda value: None,
    ) -> dict[str, Any]:
        """The answer to a call. The failure of the append before it comes first."""
        while True:
            kind, body = self._hear()
            if kind == wire.BLOCK:
                if block:
                    block(body)
                continue
            value = self._body(body)
            if kind == wire.EVENT:
                event(value)
            elif kind == wire.FAIL and (
                value.get("n") == number or (self._growing and value.get("n") == self._growing[2])
            ):
                self._growing = None
                raise wire.failure(value)
            elif kind == wire.ANSWER and value.get("n") == number:
                return value

    def _ask(self, op: str, **words: Any) -> dict[str, Any]:
        self._settle()
        return self._wait(self._call(op, **words))

    def _sound(self, read: Callable[[], R]) -> R:
        """What an answer says; FormatError if it is nonsense."""
        try:
            return read()
        except (TypeError, ValueError, IndexError, KeyError, AttributeError, OverflowError) as error:
            raise Nonsense(f"{self.where}: protocol error: a malformed answer") from error

    def hold(self, folder: str, token: str) -> None:
        self._ask("hold", folder=folder, token=token)

    def stat(self, names: Sequence[str]) -> list[HeldFile | None]:
        out: list[HeldFile | None] = []
        for at in range(0, len(names), 1000):
            found = self._ask("stat", names=list(names[at : at + 1000])).get("held")
            if not isinstance(found, list) or len(found) != len(names[at : at + 1000]):
                raise Nonsense(f"{self.where}: protocol error: a malformed answer")
            out += self._sound(lambda found=found: [None if each is None else _held(each) for each in found])  # type: ignore[misc]
        return out

    def list(self, folder: str) -> dict[str, int]:
        found = self._ask("list", folder=folder).get("files")
        return self._sound(lambda: {str(name): int(size) for name, size in (found or {}).items()})

    def read(self, name: str, offset: int = 0) -> Iterator[bytes]:
        self._settle()
        number = self._call("read", name=name, offset=offset)
        while True:
            kind, body = self._hear()
            if kind == wire.BLOCK:
                yield body
                continue
            value = self._body(body)
            if value.get("n") == number:
                if kind == wire.FAIL:
                    raise wire.failure(value)
                return

    def parts(self, name: str) -> Sequence[bytes]:
        found = self._ask("parts", name=name).get("parts")
        return self._sound(lambda: [bytes.fromhex(each) for each in found or ()])

    # sending

    def append(self, name: str, data: bytes | memoryview, offset: int) -> None:
        if self._growing is None or self._growing[:2] != (name, offset):
            self._settle()
            self._written = offset
            self._growing = (name, offset, self._call("append", name=name, offset=offset))
            self._pace.begin()
        for piece in self._pace.pieces(data):
            self._talk.say(wire.DATA, piece)
            name, sent, call = self._growing
            self._growing = (name, sent + len(piece), call)
            self._make_room()

    def _on_ack(self, call: int, at: int) -> None:
        with self._moved:
            if self._growing and call == self._growing[2]:
                self._pace.told(at - self._written)
                self._written = at
                self._moved.notify()

    def _make_room(self) -> None:
        """Wait until no more is on its way than may be."""
        if self._growing is None:
            return
        with self._moved:
            while self._growing[1] - self._written > self._pace.window:
                self._moved.wait(0.05)
                self._look()
        self._look()

    def _look(self) -> None:
        """Whether something has gone wrong meanwhile: while a file is sent, nothing but a failure is ever said."""
        if not self._talk.waiting():
            return
        kind, body = self._hear()
        said = self._body(body)
        if kind == wire.FAIL and self._growing and said.get("n") == self._growing[2]:
            self._growing = None
            raise wire.failure(said)

    def _settle(self) -> None:
        """No file is at work any more."""
        self._growing = None

    def finish(self, name: str, digest: Digest, size: int) -> None:
        number = self._call("finish", name=name, digest=str(digest), size=size)
        self._wait(number)
        self._settle()

    def check(self, name: str, digest: Digest, size: int) -> str:
        return str(self._ask("check", name=name, digest=str(digest), size=size).get("fault", ""))[:1000]

    def discard(self, name: str) -> None:
        self._ask("discard", name=name)

    def free(self, folder: str) -> int | None:
        found = self._ask("free", folder=folder).get("bytes")
        return found if type(found) is int else None

    def supply(self, folder: str, files: Sequence[tuple[str, Digest, int]]) -> int:
        """Let the far side take files out of its own store; how many it had."""
        if "supply" not in self.features:
            return 0
        words = [[name, str(digest), size] for name, digest, size in files]
        found = self._ask("supply", folder=folder, files=words).get("count", 0)
        return self._sound(lambda: int(found))

    def run_import(
        self, folder: str, options: dict[str, Any], event: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        """Import over there what was shipped; its progress goes to `event`. The failure is the import's own."""
        if "import" not in self.features:
            raise CredentialsError(f"{self.where}: {ONLY_RECEIVES}", hint=IMPORT_THERE)
        self._settle()
        return self._wait(self._call("import", folder=folder, options=options), event=event)

    def receipt(self, site: str, seen: int) -> bytes:
        """The receipt of the site over there. `seen`: the number of the one that was accepted last, and that nothing on its way contradicts."""
        self._can("receipt")
        found = self._ask("receipt", site=site, seen=seen).get("receipt")
        if not isinstance(found, str):
            raise Nonsense(f"{self.where}: protocol error: a malformed answer")
        return found.encode()

    def prune(self, keep: int) -> int:
        """Let the store over there become smaller; how many bundles it forgot or will forget."""
        self._can("prune")
        found = self._ask("prune", keep=keep)
        return self._sound(lambda: int(found["removed"]) + int(found["leaving"]))

    def accept(self, receipt: bytes) -> int:
        """Give this site's receipt; the number of the one that is accepted there now."""
        self._can("accept")
        found = self._ask("accept", receipt=receipt.decode())
        return self._sound(lambda: int(found["serial"]))

    def offers(self) -> Sequence[tuple[str, str, int]]:
        """The bundles that are there to be taken: folder, digest, bytes. Their names are checked where they are used."""
        self._can("offers")
        found = self._ask("offers").get("offers")
        return self._sound(lambda: [(str(each["folder"]), str(each["digest"]), int(each["bytes"])) for each in found])  # type: ignore[union-attr]

    def _can(self, feature: str) -> None:
        if feature not in self.features:
            raise Unsupported(
                f"{self.where}: the transfer program there does not offer `{feature}`",
                hint="install a newer version there, or allow it for this key; see docs/sync.md",
            )

    def close(self) -> None:
        self._talk.close()
        self._also_close()
