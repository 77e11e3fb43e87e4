"""Whatever the far side says, a sender goes on or says one of the named failures, and it talks with none that it does not know."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.property.test_wire import BODY, JSON, ODD, ODD_WORDS, WAYS, frame, meet, said
from transfer.errors import MediumError, TransferError, Unsupported
from transfer.ship import wire
from transfer.ship.base import Depot
from transfer.ship.receiver import NoReceiver, ReceiverDepot
from transfer.ship.socketed import SocketChannel
from transfer.streams import sha256


def send(depot: Depot) -> None:
    depot.append("b/x", b"x", 0)
    depot.finish("b/x", sha256(b"x"), 1)


ANSWERS: dict[str, tuple[Callable[[ReceiverDepot], object], dict[str, Any]]] = {
    "append": (send, {}),
    "check": (lambda depot: depot.check("b/x", sha256(b"x"), 1), {"fault": "the content does not match its digest"}),
    "discard": (lambda depot: depot.discard("b/x"), {}),
    "free": (lambda depot: depot.free("b"), {"bytes": 5}),
    "hold": (lambda depot: depot.hold("b", "t"), {}),
    "import": (lambda depot: depot.run_import("b", {}, lambda event: None), {"code": 0}),
    "parts": (lambda depot: depot.parts("b/x"), {"parts": ["ab" * 32]}),
    "read": (lambda depot: list(depot.read("b/x")), {}),
}
HELLO = {"wire": 1, "mandatory": [], "features": ["supply", "import"], "tool": "0"}


def ask(call: Callable[[ReceiverDepot], object], hello: Mapping[str, Any], data: bytes) -> Any:
    """What a sender's call fails with, if the far side says this, whatever it hears."""

    def work(channel: SocketChannel) -> None:
        with contextlib.closing(ReceiverDepot(channel, "there", "")) as depot:
            call(depot)

    failure, _ = meet(work, wire.MAGIC + said(wire.HELLO, **hello) + data)
    return failure


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
    failure = ask(call, HELLO, said(wire.ANSWER, n=0) * met + b"".join(said_then))
    assert failure is None or isinstance(failure, TransferError), failure


@pytest.mark.parametrize("op", sorted(ANSWERS))
@pytest.mark.parametrize("odd", ODD_WORDS, ids=repr)
def test_a_sender_takes_an_odd_word(op: str, odd: object) -> None:
    call, words = ANSWERS[op]
    met, number = said(wire.ANSWER, n=0), 2 if op == "append" else 1
    for key in [*words, "more"]:
        failure = ask(call, HELLO, met + said(wire.ANSWER, **{**words, "n": number, key: odd}))
        assert failure is None or isinstance(failure, TransferError), failure
    for key in ("slug", "message", "hint"):
        failure = ask(call, HELLO, met + said(wire.FAIL, n=1, **{key: odd}))
        assert type(failure) is MediumError, failure


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
        met, number = said(wire.ANSWER, **(new | {"n": 0})), 2 if op == "append" else 1
        answer = said(wire.EVENT, **new) + said(wire.ANSWER, **(new | words | {"n": number}))
        failure = ask(call, {**new, **HELLO, "features": [*features, "import"]}, met + answer)
        assert failure is None, op


@WAYS
@given(JSON.filter(lambda value: value != 1))
def test_a_receiver_of_another_version_is_refused_by_name(version: object) -> None:
    failure = ask(Depot.close, {**HELLO, "wire": version}, said(wire.ANSWER, n=0))
    assert type(failure) is Unsupported
    assert f"version {version!r:.20} of the wire" in failure.message
    assert failure.hint or failure.advice


@WAYS
@given(st.lists(st.text(max_size=9), min_size=1, max_size=3) | JSON.filter(lambda value: value != []))
def test_a_receiver_that_insists_on_something_new_is_refused_by_name(mandatory: object) -> None:
    failure = ask(Depot.close, {**HELLO, "mandatory": mandatory}, said(wire.ANSWER, n=0))
    assert type(failure) is Unsupported
    assert f"the other side needs {mandatory!r:.100}" in failure.message
