"""What sender and receiver say to each other: framed messages over any two-way stream of bytes, with silence noticed on both sides.

After the line `TRANSFER-WIRE 1` (whatever a login shell prints before it is passed over) each side sends messages: a byte for the kind, the
body's length (u32, little-endian), the body. HELLO, CALL, ANSWER, FAIL and EVENT are JSON objects; each CALL has a number `n`, and its ANSWER or FAIL
repeats it. DATA are bytes for the file of the last `append`; ACK says how many bytes of it are written; BLOCK are bytes of the file being read.
"""

from __future__ import annotations

import contextlib
import json
import queue
import struct
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from transfer.errors import CutOff, FormatError, TransferError, Unsupported, named
from transfer.streams import parse_object
from transfer.work import background

MAGIC = b"TRANSFER-WIRE 1\n"
VERSION = 1
NOISE_MAX = 64 << 10
"""Bytes of greetings that are passed over."""
BODY_MAX = 8 << 20
PIECE = 256 << 10
ACK_EVERY = 256 << 10
"""Bytes after which a receiver says how far it is, at the latest; it also does when nothing more has come, as the sender may be waiting."""
HELLO, CALL, DATA, ANSWER, FAIL, ACK, PING, EVENT, BLOCK = range(1, 10)
TICK, SILENCE = 5.0, 30.0
"""Each side says something every TICK seconds; a line on which nothing is heard for SILENCE is cut."""
_HEAD = struct.Struct("<BI")
_ACK = struct.Struct("<IQ")


class Channel(Protocol):
    """Two-way bytes to a program on the far side."""

    def send(self, data: bytes | memoryview) -> None:
        """All of it. CutOff if the line is gone."""
        ...

    def recv(self, size: int) -> bytes:
        """1 to `size` bytes; b"" at the end. CutOff if the line is gone."""
        ...

    def close(self) -> None:
        """Also ends a `send` or `recv` that waits in another thread."""
        ...


class Ended(Exception):
    """The other side closed the stream where a message could begin or in the middle of one."""


class Talk:
    """Messages over a channel. One thread hears, one keeps the line awake; `say` may be called from several."""

    def __init__(self, channel: Channel, where: str, *, tick: float = TICK, silence: float = SILENCE) -> None:
        self._channel, self._where, self._tick, self._silence = channel, where, tick, silence
        self._saying = threading.Lock()
        self._heard: queue.Queue[tuple[int, bytes] | BaseException] = queue.Queue(16)
        self._last = time.monotonic()
        self._over = threading.Event()
        self._why = ""
        self.on_ack: Callable[[int, int], None] = lambda call, at: None

    def begin(self) -> None:
        """Start listening; call it when the MAGIC has been seen or sent."""
        background(self._hear, "hear")
        background(self._keep_awake, "awake")

    def say(self, kind: int, body: bytes | memoryview = b"") -> None:
        """Send one message. CutOff if the line is gone."""
        with self._saying:
            try:
                if len(body) <= PIECE:
                    self._channel.send(_HEAD.pack(kind, len(body)) + bytes(body))
                else:
                    self._channel.send(_HEAD.pack(kind, len(body)))
                    self._channel.send(body)
            except CutOff as error:
                raise CutOff(self._why or error.message, hint=error.hint) from error

    def tell(self, kind: int, **value: Any) -> None:
        """Send a JSON message."""
        self.say(kind, json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogateescape"))

    def ack(self, call: int, at: int) -> None:
        self.say(ACK, _ACK.pack(call, at))

    def hear(self) -> tuple[int, bytes]:
        """The next message that is no ACK and no PING. Ended when the other side is done, CutOff when the line is gone."""
        found = self._heard.get()
        if isinstance(found, BaseException):
            self._heard.put(found)
            raise found
        return found

    def waiting(self) -> bool:
        """Whether `hear` would return at once."""
        return not self._heard.empty()

    def close(self) -> None:
        self._over.set()
        self._channel.close()
        with contextlib.suppress(queue.Empty):
            while True:
                self._heard.get_nowait()  # lets a hearing thread that waits for room see the end

    def _exactly(self, size: int) -> bytes:
        out = bytearray()
        while len(out) < size:
            block = self._channel.recv(size - len(out))
            if not block:
                raise Ended
            self._last = time.monotonic()
            out += block
        return bytes(out)

    def _hear(self) -> None:
        try:
            while True:
                kind, size = _HEAD.unpack(self._exactly(_HEAD.size))
                self._last = time.monotonic()
                if size > BODY_MAX:
                    raise FormatError(
                        f"{self._where}: a message of {size} bytes", hint="the other side is not a transfer program"
                    )
                if kind in (DATA, BLOCK):
                    self._pass_on(kind, size)
                else:
                    self._take(kind, self._exactly(size))
        except Ended as end:
            self._put(CutOff(self._why) if self._why else end)
        except TransferError as error:
            self._put(CutOff(self._why) if self._why else error)

    def _pass_on(self, kind: int, size: int) -> None:
        """Bytes of a file, in pieces: what has arrived when the line breaks is not lost."""
        while size:
            wanted = min(size, PIECE)
            piece = bytearray()
            try:
                while len(piece) < wanted:
                    block = self._channel.recv(wanted - len(piece))
                    if not block:
                        raise Ended
                    self._last = time.monotonic()
                    piece += block
            finally:
                if piece:
                    self._put((kind, bytes(piece)))
            size -= wanted

    def _take(self, kind: int, body: bytes) -> None:
        if kind == ACK:
            if len(body) != _ACK.size:
                raise FormatError(f"{self._where}: a malformed message")
            self.on_ack(*_ACK.unpack(body))
        elif kind != PING:
            self._put((kind, body))

    def _put(self, item: tuple[int, bytes] | BaseException) -> None:
        while not self._over.is_set():
            try:
                self._heard.put(item, timeout=1)
                return
            except queue.Full:
                self._last = time.monotonic()

    def _keep_awake(self) -> None:
        while not self._over.wait(self._tick):
            if time.monotonic() - self._last > self._silence:
                self._why = f"{self._where}: nothing was heard for {self._silence:.0f} seconds"
                self._channel.close()
                return
            if self._saying.acquire(blocking=False):
                try:
                    self._channel.send(_HEAD.pack(PING, 0))
                except CutOff:
                    return
                finally:
                    self._saying.release()


def find_magic(channel: Channel, where: str) -> bytes:
    """Pass over what a login shell prints; returns what it was. Ended if the far side ends before it says the word."""
    seen = bytearray()
    while not seen.endswith(MAGIC):
        block = channel.recv(1)
        if not block:
            raise Ended(bytes(seen[-300:]).decode(errors="replace"))
        seen += block
        if len(seen) > NOISE_MAX:
            raise FormatError(
                f"{where}: the remote shell printed something before transfer started",
                hint="make its login scripts silent for non-interactive sessions",
            )
    return bytes(seen[: -len(MAGIC)])


def body_of(body: bytes, where: str) -> dict[str, Any]:
    """A JSON message's object."""
    return parse_object(body, where, BODY_MAX)


def meet(hello: dict[str, Any], where: str) -> None:
    """Refuse what this program cannot talk with: another version, or a mandatory feature that is not known."""
    version = hello.get("wire")
    if type(version) is not int or version != VERSION:
        raise Unsupported(f"{where}: it speaks version {hello.get('wire')!r:.20} of the wire, this program {VERSION}")
    unknown = hello.get("mandatory")
    if not isinstance(unknown, list) or unknown:
        raise Unsupported(f"{where}: the other side needs {unknown!r:.100}, which this program does not know")


def failure(value: dict[str, Any]) -> TransferError:
    """A failure that the far side told, as one of ours."""
    kind = named(str(value.get("slug", "")))
    return kind(str(value.get("message", "it failed"))[:2000], hint=str(value.get("hint", ""))[:1000])
