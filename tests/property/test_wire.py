"""Whatever comes over the wire, each side goes on or says one of the named failures: never another, never for ever, never without bound."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from transfer.errors import FormatError, TransferError, Unsupported
from transfer.ship import wire
from transfer.ship.base import Depot
from transfer.ship.receiver import NoReceiver, ReceiverDepot
from transfer.ship.socketed import SocketChannel
from transfer.ship.wire import Ended, Talk
from transfer.streams import sha256
from transfer.work import Pool, background

PATIENCE = 10.0
"""Seconds after which something hangs: fewer than it takes the other side to notice silence."""
HANGS: list[str] = []
WAYS = settings(deadline=None, max_examples=60)

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
    heard = bytearray()

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
            while block := ours.recv(1 << 16):
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


def send(depot: Depot) -> None:
    depot.append("b/x", b"x", 0)
    depot.finish("b/x", sha256(b"x"), 1)


ANSWERS: dict[str, tuple[Callable[[ReceiverDepot], object], dict[str, Any]]] = {
    "append": (send, {}),
    "check": (lambda depot: depot.check("b/x", sha256(b"x"), 1), {"fault": "the content is not what its digest says"}),
    "discard": (lambda depot: depot.discard("b/x"), {}),
    "free": (lambda depot: depot.free("b"), {"bytes": 5}),
    "hold": (lambda depot: depot.hold("b", "t"), {}),
    "import": (lambda depot: depot.run_import("b", {}, lambda event: None), {"code": 0}),
    "parts": (lambda depot: depot.parts("b/x"), {"parts": ["ab" * 32]}),
    "read": (lambda depot: list(depot.read("b/x")), {}),
}
HELLO = {"wire": 1, "mandatory": [], "features": ["supply", "import"], "tool": "0"}


def ask(call: Callable[[ReceiverDepot], object], hello: Mapping[str, Any], data: bytes) -> tuple[Any, object]:
    """What a sender's call fails with, or gives, if the far side says this, whatever it hears."""
    out: list[object] = []

    def work(channel: SocketChannel) -> None:
        with contextlib.closing(ReceiverDepot(channel, "there", "")) as depot:
            out.append(call(depot))

    failure, _ = meet(work, wire.MAGIC + said(wire.HELLO, **hello) + data)
    return failure, out[0] if out else None


@st.composite
def answers(draw: st.DrawFn, words: Mapping[str, Any]) -> bytes:
    """What a receiver could say, mostly with something odd in it."""
    value = {"n": draw(st.sampled_from([0, 1, 1, 1, 2])), **words, "slug": "no-space", "message": "full", "hint": ""}
    for key in draw(st.lists(st.sampled_from([*value, "new"]), max_size=2)):
        value[key] = draw(JSON)
    return said(draw(st.sampled_from([wire.ANSWER, wire.ANSWER, wire.FAIL, wire.EVENT])), **value)


@WAYS
@given(st.data(), st.sampled_from(sorted(ANSWERS)), st.booleans())
def test_a_sender_takes_whatever_comes(data: st.DataObject, op: str, met: bool) -> None:
    call, words = ANSWERS[op]
    ack = st.binary(min_size=11, max_size=13).map(lambda body: frame(wire.ACK, body))
    blocks = BODY.map(lambda body: frame(wire.BLOCK, body))
    said_then = data.draw(st.lists(answers(words) | ack | blocks | ODD, max_size=6))
    failure, _ = ask(call, HELLO, said(wire.ANSWER, n=0) * met + b"".join(said_then))
    assert failure is None or isinstance(failure, TransferError), failure


@WAYS
@given(st.binary(max_size=300), st.sampled_from([b"", wire.MAGIC, wire.MAGIC + said(wire.HELLO, **HELLO)]))
def test_a_sender_that_meets_no_receiver(data: bytes, before: bytes) -> None:
    failure, _ = meet(lambda channel: ReceiverDepot(channel, "there", ""), before + data)
    assert isinstance(failure, TransferError | NoReceiver)


@WAYS
@given(st.dictionaries(st.text(max_size=6), JSON, max_size=3), st.lists(st.text(max_size=9), max_size=3))
def test_what_is_new_and_optional_is_passed_over(new: dict[str, Any], features: list[str]) -> None:
    for op in sorted(ANSWERS):
        call, words = ANSWERS[op]
        answer = (
            said(wire.ANSWER, **(new | {"n": 0}))
            + said(wire.EVENT, **new)
            + said(wire.ANSWER, **(new | words | {"n": 1}))
        )
        second = said(wire.ANSWER, **(new | {"n": 2}))  # `append` is no question, but it has a number
        failure, _ = ask(call, {**new, **HELLO, "features": [*features, "import"]}, answer + second)
        assert failure is None, op


ODD_VERSION = JSON.filter(lambda value: value != 1)


@WAYS
@given(ODD_VERSION)
def test_a_receiver_of_another_version_is_refused_by_name(version: object) -> None:
    failure, _ = ask(Depot.close, {**HELLO, "wire": version}, said(wire.ANSWER, n=0))
    assert type(failure) is Unsupported
    assert f"version {version!r:.20} of the wire" in failure.message
    assert failure.hint or failure.advice


@WAYS
@given(st.lists(st.text(max_size=9), min_size=1, max_size=3) | JSON.filter(lambda value: value != []))
def test_a_receiver_that_insists_on_something_new_is_refused_by_name(mandatory: object) -> None:
    failure, _ = ask(Depot.close, {**HELLO, "mandatory": mandatory}, said(wire.ANSWER, n=0))
    assert type(failure) is Unsupported
    assert f"insists on {mandatory!r:.100}" in failure.message
