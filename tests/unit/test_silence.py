"""A far side that falls silent, as behind a line that died without a word: it is noticed, and nothing waits for ever."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import pytest

from tests.support.zoo import noise
from transfer.errors import CutOff, LinkError
from transfer.events import silent
from transfer.ship import receive, receiver, wire
from transfer.ship.base import PART, Depot, HeldFile, unfinished
from transfer.ship.folder import FolderDepot
from transfer.ship.receive import Receiver, StdioChannel
from transfer.ship.receiver import NoReceiver, ReceiverDepot
from transfer.ship.retrying import Retrying
from transfer.ship.socketed import SocketChannel
from transfer.ship.wire import Talk
from transfer.streams import sha256
from transfer.work import Pool, background

R = TypeVar("R")
TICK, SILENCE, FOREVER = 0.04, 0.2, 15.0
HANGS: list[str] = []
"""One is enough."""
NAME, DATA = "b/README.txt", noise(1, 3 * PART)


def frame(kind: int, body: bytes) -> bytes:
    return struct.pack("<BI", kind, len(body)) + body


HELLO = frame(wire.HELLO, json.dumps({"wire": wire.VERSION, "mandatory": [], "folder": ""}).encode())
MET = wire.MAGIC + HELLO + frame(wire.ANSWER, b'{"n":0}')


def in_the_end(call: Callable[[], R]) -> R:
    """What the call gives or fails with; queue.Empty if it hangs."""
    assert not HANGS
    ended: queue.Queue[Future[R]] = queue.Queue()
    background(lambda: ended.put(Pool(0, "here").submit(call)), "here")
    try:
        future = ended.get(timeout=FOREVER)
    except queue.Empty:
        HANGS.append("it hangs")
        raise
    return future.result()


class Far:
    """The other end of a line. It says its words and then no more; what comes it takes in, or lets it lie (`deaf`)."""

    def __init__(self, words: bytes = b"", *, deaf: bool = False) -> None:
        ours, theirs = socket.socketpair()
        self.channel, self._end = SocketChannel(ours, "far"), SocketChannel(theirs, "near")
        self._end.send(words)
        if not deaf:
            background(self._take_in, "far")
        ALL.append(self)

    def _take_in(self) -> None:
        with contextlib.suppress(CutOff):
            while self._end.recv(1 << 16):
                pass

    def close(self) -> None:
        self.channel.close()
        self._end.close()


ALL: list[Far] = []


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything as it is, but for the seconds."""
    monkeypatch.setattr(wire, "SILENCE", SILENCE)
    for each in (receive, receiver):
        monkeypatch.setattr(each, "Talk", functools.partial(Talk, tick=TICK, silence=SILENCE))
    yield
    while ALL:
        ALL.pop().close()


def talk(far: Far) -> Talk:
    talk = Talk(far.channel, "far", tick=TICK, silence=SILENCE)
    talk.begin()
    return talk


@pytest.mark.parametrize("words", [b"", HELLO[:9], frame(wire.DATA, bytes(99))[:50]], ids=["nothing", "words", "data"])
def test_silence_is_noticed_where_a_message_may_begin_and_within_one(words: bytes) -> None:
    def hear() -> None:
        mine = talk(Far(words))
        while True:
            mine.hear()

    with pytest.raises(CutOff, match="far: nothing was heard for"):
        in_the_end(hear)


def test_who_says_something_to_the_deaf_is_told() -> None:
    def say() -> None:
        mine = talk(Far(deaf=True))
        while True:
            mine.say(wire.DATA, bytes(1 << 20))

    with pytest.raises(CutOff, match="nothing was heard for"):
        in_the_end(say)


def test_two_that_have_nothing_to_say_keep_each_other_awake() -> None:
    ours, theirs = socket.socketpair()
    both = [Talk(SocketChannel(end, "other"), "other", tick=TICK, silence=1.0) for end in (ours, theirs)]
    for each in both:
        each.begin()
    time.sleep(1.2)
    both[0].say(wire.EVENT, b"still here")
    assert in_the_end(both[1].hear) == (wire.EVENT, b"still here")
    for each in both:
        each.close()


def test_a_far_side_that_never_greets_has_no_receiver() -> None:
    with pytest.raises(NoReceiver):
        in_the_end(lambda: ReceiverDepot(Far(b"Welcome!\n").channel, "far", ""))


@pytest.mark.parametrize("words", [wire.MAGIC, wire.MAGIC + HELLO], ids=["magic", "hello"])
def test_one_that_greets_and_says_no_more(words: bytes) -> None:
    with pytest.raises(CutOff, match="nothing was heard for"):
        in_the_end(lambda: ReceiverDepot(Far(words).channel, "far", ""))


def put(depot: Depot, data: bytes = DATA) -> None:
    for at in range(0, len(data), PART):
        depot.append(NAME, data[at : at + PART], at)
    depot.finish(NAME, sha256(data), len(data))


WORK: dict[str, Callable[[Depot], object]] = {
    "stat": lambda depot: depot.stat([NAME]),
    "read": lambda depot: list(depot.read(NAME)),
    "finish": put,
}


@pytest.mark.parametrize("op", WORK)
def test_a_receiver_that_falls_silent_at_work(op: str) -> None:
    depot = ReceiverDepot(Far(MET).channel, "far", "")
    with pytest.raises(CutOff, match="nothing was heard for"):
        in_the_end(lambda: WORK[op](depot))
    depot.close()


@pytest.mark.parametrize("deaf", [False, True], ids=["hears", "deaf"])
def test_one_that_never_says_how_far_it_is(deaf: bool) -> None:
    depot = ReceiverDepot(Far(MET, deaf=deaf).channel, "far", "", window=PART)
    depot.append(NAME, DATA[:1000], 0)
    with pytest.raises(CutOff, match="nothing was heard for"):
        in_the_end(lambda: depot.append(NAME, DATA, 1000))
    depot.close()


def test_a_new_line_is_had_when_one_fell_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = itertools.count()

    def connect() -> Depot:
        if next(numbers) < 2:
            return ReceiverDepot(Far(MET).channel, "far", "")
        monkeypatch.undo()
        ours, theirs = socket.socketpair()
        background(Receiver(SocketChannel(theirs, "sender"), inbox=tmp_path).run, "far")
        return ReceiverDepot(SocketChannel(ours, "far"), "far", "")

    depot = Retrying(connect, silent, pauses=(0, 0, 0))
    assert in_the_end(lambda: depot.stat([NAME])) == [None]
    in_the_end(lambda: put(depot))
    assert (tmp_path / NAME).read_bytes() == DATA
    depot.close()


def test_a_line_that_is_always_silent_is_given_up() -> None:
    depot = Retrying(lambda: ReceiverDepot(Far(MET).channel, "far", ""), silent, pauses=(0, 0))
    with pytest.raises(LinkError, match=r"nothing was heard for .* \(2 attempts\)"):
        in_the_end(lambda: depot.list("b"))


def test_a_sender_that_falls_silent_is_let_go(tmp_path: Path) -> None:
    """What had come is kept, and the next one need not wait for the lock."""
    calls = [{"n": 1, "op": "hold", "folder": "b", "token": "t"}, {"n": 2, "op": "append", "name": NAME, "offset": 0}]
    words = HELLO + b"".join(frame(wire.CALL, json.dumps(each).encode()) for each in calls)
    far = Far(words + frame(wire.DATA, bytes(5000))[:3000])
    in_the_end(Receiver(far.channel, inbox=tmp_path).run)
    next_one = FolderDepot(tmp_path, patience=0)
    assert next_one.stat([NAME]) == [HeldFile(3000 - 5, False)]
    assert (tmp_path / "b" / unfinished("README.txt")).read_bytes() == bytes(3000 - 5)
    next_one.hold("b", "another")
    next_one.close()


def test_closing_standard_input_ends_a_wait_on_it() -> None:
    source, unused = os.pipe()
    channel = StdioChannel(source, 1)
    found: list[bytes] = []
    waiting = threading.Thread(target=lambda: found.append(channel.recv(10)))
    waiting.start()
    channel.close()
    waiting.join(30)
    assert found == [b""]
    for each in (source, unused):
        os.close(each)
