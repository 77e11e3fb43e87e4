"""Whatever comes over the wire, it is heard as it was said or refused by a named failure: never for ever, never without bound."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from transfer.errors import FormatError
from transfer.ship import wire
from transfer.ship.socketed import SocketChannel
from transfer.ship.wire import Ended, Talk
from transfer.work import Pool, background

PATIENCE = 10.0
"""Seconds after which something hangs: fewer than it takes the other side to notice silence."""
HANGS: list[str] = []
WAYS = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])

Message = tuple[int, bytes]


def frame(kind: int, body: bytes) -> bytes:
    return struct.pack("<BI", kind, len(body)) + body


def said(kind: int, /, **value: Any) -> bytes:
    return frame(kind, json.dumps(value).encode())


def messages(data: bytes) -> Iterator[Message]:
    while data:
        kind, size = struct.unpack("<BI", data[:5])
        assert len(data) >= 5 + size, "a message is cut short"
        yield kind, data[5 : 5 + size]
        data = data[5 + size :]


def at_once(call: Callable[[], object]) -> Callable[[], Any]:
    """Run it in a thread; what is given back waits for its end, and tells what it failed with. One hang is enough."""
    ended: queue.Queue[Future[object]] = queue.Queue()
    background(lambda: ended.put(Pool(0, "here").submit(call)), "there")

    def wait() -> BaseException | None:
        try:
            return ended.get(timeout=PATIENCE).exception()
        except queue.Empty:
            HANGS.append("it hangs")
            raise

    return wait


def meet(work: Callable[[SocketChannel], object], data: bytes, *, ends: bool = True) -> tuple[Any, bytes]:
    """Work at one end of a line, while the other end sends `data` and then no more. What failed, and what was heard."""
    assert not HANGS
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE)
    heard, until = bytearray(), time.monotonic() + PATIENCE

    def at_work() -> None:
        with contextlib.closing(SocketChannel(theirs, "there")) as channel:
            work(channel)

    def send() -> None:
        with contextlib.suppress(OSError):
            ours.sendall(data)
            if ends:
                ours.shutdown(socket.SHUT_WR)

    with ours:
        working, sending = at_once(at_work), at_once(send)
        with contextlib.suppress(ConnectionResetError, TimeoutError):
            while time.monotonic() < until and (block := ours.recv(1 << 16)):
                heard += block
        assert sending() is None
        return working(), bytes(heard)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 60), 1 << 60) | st.floats(-9, 9) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
BODY = st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode())
KINDS = st.integers(0, 10) | st.integers(0, 255)
ODD = st.binary(max_size=12) | st.builds(frame, KINDS, BODY)

ODD_WORDS: list[object] = [None, True, -1, 5, 1 << 62, 0.5, "", "..", [], [None], [[]], [[1, 2, 3]], {}, {"a": 1}]


def hear_all(talk: Talk) -> list[Message]:
    out: list[Message] = []
    with contextlib.suppress(Ended):
        while True:
            out.append(talk.hear())
    return out


@WAYS
@given(st.lists(st.tuples(KINDS, BODY), max_size=12), st.integers(0, 300))
def test_what_one_says_the_other_hears(told: list[Message], cut: int) -> None:
    """In order, without PING and ACK; and of what is cut short nothing but bytes of files."""
    acks: list[Message] = []

    def listen(channel: SocketChannel) -> None:
        talk = Talk(channel, "there")
        talk.on_ack = lambda call, at: acks.append((call, struct.pack("<Q", at)))
        talk.begin()
        with contextlib.closing(talk):
            heard.extend(hear_all(talk))

    told = [(kind, body[:12].ljust(12) if kind == wire.ACK else body) for kind, body in told]
    data = b"".join(frame(kind, body) for kind, body in told)
    for end in (len(data), min(cut, len(data))):
        heard: list[Message] = []
        acks.clear()
        assert meet(listen, data[:end])[0] is None
        wanted = [each for each in told if each[0] not in (wire.PING, wire.ACK) and (each[1] or each[0] not in (3, 9))]
        if end == len(data):
            assert heard == wanted
            assert acks == [(struct.unpack("<I", x[:4])[0], x[4:]) for kind, x in told if kind == wire.ACK]
        else:
            short = len(heard)
            assert heard[: short - 1] == wanted[: max(0, short - 1)]
            assert all(kind == wanted[short - 1][0] and wanted[short - 1][1].startswith(x) for kind, x in heard[-1:])


@pytest.mark.parametrize("kind", range(12))
@pytest.mark.parametrize("size", [wire.BODY_MAX + 1, (1 << 32) - 1])
def test_too_much_is_refused_before_it_comes(kind: int, size: int) -> None:
    def listen(channel: SocketChannel) -> None:
        talk = Talk(channel, "there")
        talk.begin()
        with contextlib.closing(talk):
            talk.hear()

    failure, _ = meet(listen, struct.pack("<BI", kind, size), ends=False)
    assert type(failure) is FormatError
    assert str(size) in failure.message


def test_who_is_not_listened_to_is_held_up() -> None:
    ours, theirs = socket.socketpair()
    talk = Talk(SocketChannel(theirs, "there"), "there")
    talk.begin()
    ours.settimeout(0.5)
    message, sent = frame(wire.CALL, bytes(100_000)), 0
    with contextlib.closing(talk), ours, pytest.raises(TimeoutError):
        while sent < 100 << 20:
            sent += ours.send(message[sent % len(message) :])
    assert sent < 10 << 20


@WAYS
@given(st.binary(max_size=200), st.binary(max_size=50), st.booleans())
def test_greetings_are_passed_over(greeting: bytes, rest: bytes, told: bool) -> None:
    assume(wire.MAGIC not in greeting + wire.MAGIC[:-1])
    found: queue.Queue[bytes] = queue.Queue()

    def look(channel: SocketChannel) -> None:
        found.put(wire.find_magic(channel, "there"))
        while block := channel.recv(100):
            found.put(block)

    failure, _ = meet(look, greeting + wire.MAGIC + rest if told else greeting)
    if told:
        assert failure is None
        assert (found.get(), b"".join(found.queue)) == (greeting, rest)
    else:
        assert isinstance(failure, Ended)


def test_greetings_have_an_end() -> None:
    failure, _ = meet(lambda channel: wire.find_magic(channel, "there"), b"welcome\n" * 100_000)
    assert type(failure) is FormatError
