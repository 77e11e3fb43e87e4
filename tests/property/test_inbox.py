"""A receiver takes whatever a sender says, and neither writes nor reads anything outside its inbox."""

from __future__ import annotations

import contextlib
import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.property.test_wire import JSON, ODD, ODD_WORDS, WAYS, Message, frame, meet, messages, said
from transfer.errors import FormatError, TransferError
from transfer.model import Digest
from transfer.ship import wire
from transfer.ship.base import split_name
from transfer.ship.receive import Receiver
from transfer.streams import sha256

X, Z = sha256(b"x"), sha256(b"z")
SECRET = b"this is secret"
LINKS = {"link", "leak", "trap"}
LYING = {"link", "leak", ".trap.part"}
COMPONENTS = [
    "a",
    "b",
    "..",
    ".",
    "",
    *sorted(LINKS),
    "~",
    "x" * 240,
    "e\u0301",
    ".x.part",
    ".transfer-ship.lock",
    "nul\0",
]
NAMES = st.text(max_size=12) | st.lists(st.sampled_from(COMPONENTS), min_size=1, max_size=9).map("/".join)
SOUND: dict[str, dict[str, Any]] = {
    "append": {"name": "b/x", "offset": 0},
    "check": {"name": "b/x", "digest": str(X), "size": 1},
    "discard": {"name": "b/x"},
    "finish": {"name": "b/x", "digest": str(X), "size": 1},
    "free": {"folder": "b"},
    "hold": {"folder": "b", "token": "t"},
    "import": {"folder": "b", "options": {}},
    "list": {"folder": "b"},
    "parts": {"name": "b/x"},
    "read": {"name": "b/x", "offset": 0},
    "stat": {"names": ["b/x", "b/y"]},
    "supply": {"folder": "b", "files": [["z", str(Z), 1]]},
}


@st.composite
def calls(draw: st.DrawFn) -> bytes:
    """A call that a sender could make, mostly with something odd in it."""
    op = draw(st.sampled_from(sorted(SOUND)))
    words = {"n": draw(st.integers(0, (1 << 32) - 1)), "op": op, **SOUND[op]}
    for key in draw(st.lists(st.sampled_from([*words, "new"]), max_size=2)):
        words[key] = draw(st.text(max_size=3) if key == "n" else NAMES | JSON)
    return said(wire.CALL, **words)


@contextlib.contextmanager
def inboxes() -> Iterator[Path]:
    """An inbox with links that lead out of it; afterwards nothing may have changed outside."""
    with tempfile.TemporaryDirectory() as name:
        outside = Path(name)
        inbox = outside / "in"
        inbox.mkdir()
        (outside / "secret").write_bytes(SECRET)
        (inbox / "link").symlink_to(outside)
        for each in LYING - {"link"}:
            (inbox / each).symlink_to(outside / "secret")
        yield inbox
        assert {each.name for each in outside.iterdir()} == {"in", "secret"}
        assert (outside / "secret").read_bytes() == SECRET


def supply(path: Path, digest: Digest, size: int) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    return bool(path.write_bytes(b"z"))


def receive(inbox: Path, hello: bytes, data: bytes) -> list[Message]:
    """What a receiver says after the magic and its hello; it may fail with what has a name, and with nothing else."""
    receiving = lambda channel: Receiver(channel, inbox=inbox, patience=0.0, supply=supply).run()  # noqa: E731
    failure, heard = meet(receiving, hello + data)
    assert failure is None or isinstance(failure, TransferError), failure
    assert heard.startswith(wire.MAGIC)
    assert SECRET not in heard
    first, *rest = messages(heard.removeprefix(wire.MAGIC))
    assert first[0] == wire.HELLO
    return rest


def hello(folder: object = "", **new: object) -> bytes:
    return said(wire.HELLO, **{"wire": 1, "mandatory": [], "folder": folder, **new})


@WAYS
@given(st.lists(calls() | st.binary(max_size=40).map(lambda data: frame(wire.DATA, data)) | ODD, max_size=10))
def test_a_receiver_takes_whatever_comes(frames: list[bytes]) -> None:
    with inboxes() as inbox:
        for kind, body in receive(inbox, hello(), b"".join(frames)):
            assert kind == wire.BLOCK or isinstance(json.loads(body or b"{}"), dict)


@pytest.mark.parametrize("op", sorted(SOUND))
def test_a_receiver_answers_every_odd_word(op: str) -> None:
    odd = [SOUND[op] | {key: word} for key in SOUND[op] for word in ODD_WORDS]
    odd += [{word: value for word, value in SOUND[op].items() if word != key} for key in SOUND[op]]
    data = b"".join(said(wire.CALL, **words | {"op": op, "n": n}) for n, words in enumerate(odd, 1))
    with inboxes() as inbox:
        told = [json.loads(body)["n"] for kind, body in receive(inbox, hello(), data) if kind != wire.BLOCK]
    assert told == [*range(len(odd) + 1)] if op != "append" else set(told) <= {*range(len(odd) + 1)}


def test_what_the_system_refuses_is_told() -> None:
    with inboxes() as inbox:
        (inbox / "b" / "z").mkdir(parents=True)
        answers = receive(inbox, hello(), said(wire.CALL, n=1, op="supply", **SOUND["supply"]))
        assert [kind for kind, _ in answers] == [wire.ANSWER, wire.FAIL]
        assert "directory" in json.loads(answers[1][1])["message"]


@WAYS
@given(st.binary(max_size=200))
def test_a_receiver_that_meets_no_sender(data: bytes) -> None:
    with inboxes() as inbox:
        receive(inbox, data, b"")
        assert {each.name for each in inbox.iterdir()} == LYING


@WAYS
@given(JSON.filter(lambda value: value != 1), JSON.filter(lambda value: value != []))
def test_a_sender_of_another_version_is_refused_by_name(version: object, mandatory: object) -> None:
    call = said(wire.CALL, n=1, op="append", **SOUND["append"]) + frame(wire.DATA, b"x")
    for key, value, words in (
        ("wire", version, f"speaks version {version!r:.20} of the wire"),
        ("mandatory", mandatory, f"insists on {mandatory!r:.100}"),
    ):
        with inboxes() as inbox:
            answers = receive(inbox, hello(**{key: value}), call)
            assert [kind for kind, _ in answers] == [wire.FAIL]
            told = json.loads(answers[0][1])
            assert (told["n"], told["slug"]) == (0, "unsupported")
            assert words in told["message"]
            assert told["hint"]
            assert {each.name for each in inbox.iterdir()} == LYING


@WAYS
@given(st.dictionaries(st.text(max_size=6), JSON, max_size=3), st.sampled_from(sorted(SOUND)))
def test_what_is_new_and_optional_is_passed_over(new: dict[str, Any], op: str) -> None:
    kinds = []
    for more in ({}, new):
        data = said(wire.CALL, **(more | SOUND["append"] | {"n": 1, "op": "append"})) + frame(wire.DATA, b"x")
        data += said(wire.CALL, **(more | SOUND["finish"] | {"n": 2, "op": "finish"}))
        data += said(wire.CALL, **(more | SOUND[op] | {"n": 3, "op": op}))
        with inboxes() as inbox:
            greeting = said(wire.HELLO, **(more | {"wire": 1, "mandatory": [], "folder": ""}))
            kinds.append([kind for kind, _ in receive(inbox, greeting, data)])
            assert op in ("discard", "append") or (inbox / "b" / "x").read_bytes() == b"x"
    assert kinds[0] == kinds[1]


@WAYS
@given(st.integers(0, 1 << 20), st.binary(max_size=6), st.booleans())
def test_a_spoiled_stream_never_makes_a_wrong_file(at: int, put: bytes, cut: bool) -> None:
    files = {str(n): bytes([n]) * 100 * n for n in range(1, 4)}
    sound = b"".join(
        said(wire.CALL, n=1, op="append", name=f"b/{name}", offset=0)
        + frame(wire.DATA, data)
        + said(wire.CALL, n=2, op="finish", name=f"b/{name}", digest=str(sha256(data)), size=len(data))
        for name, data in files.items()
    )
    at %= len(sound)
    with inboxes() as inbox:
        receive(inbox, hello(), sound)
        assert {path.name: path.read_bytes() for path in inbox.glob("b/*")} == files
    with inboxes() as inbox:
        receive(inbox, hello(), sound[:at] + put + (b"" if cut else sound[at + len(put) :]))
        for path in inbox.rglob("[!.]*"):
            assert path.name in LINKS or path.is_dir() or path.read_bytes() in files.values()


def sound_name(name: str) -> bool:
    try:
        split_name(name)
    except FormatError:
        return False
    return True


@WAYS
@given(NAMES, NAMES)
@example("", "link/secret")
@example("", "link")
@example("", "leak")
@example("", "trap")
@example("link", "secret")
@example("a", "../../secret")
@example("~/b", "a")
def test_a_receiver_stays_in_its_inbox(root: str, name: str) -> None:
    """Every call, with this name and root; what is sound is done, so that the refusals mean something."""
    words = {"name": name, "folder": name, "names": [name], "token": "t", "offset": 0, "size": 1}
    words |= {"digest": str(X), "files": [[name, str(Z), 1]]}
    looks = ["supply", "read", "check", "parts", "stat", "list", "free", "hold", "finish", "discard"]
    writing = said(wire.CALL, n=1, op="append", **words) + frame(wire.DATA, b"x")
    for before, writes in itertools.product(("", "{inbox}/", "{inbox}/../", "/{inbox}/"), (True, False)):
        ops = ["finish", "check", "read", "discard"] if writes else looks
        calls = b"".join(said(wire.CALL, n=n, op=op, **words) for n, op in enumerate(ops, 2))
        with inboxes() as inbox:
            answers = receive(inbox, hello(before.format(inbox=inbox) + root), writing * writes + calls)
            told = {json.loads(body)["n"]: kind for kind, body in answers if kind in (wire.ANSWER, wire.FAIL)}
            if told.pop(0) == wire.FAIL:
                assert len(answers) == 1
                assert {each.name for each in inbox.iterdir()} == LYING
                continue
            assert {*told} - {1} == {*range(2, 2 + len(ops))}
            if not sound_name(name):
                assert {*told.values()} == {wire.FAIL}
            elif writes and not LINKS & {*name.split("/")}:
                assert {*told.values()} == {wire.ANSWER}
                assert (wire.BLOCK, b"x") in answers


@WAYS
@given(NAMES)
def test_a_sound_root_is_taken(root: str) -> None:
    """Below the inbox, without .. and links: anything else is refused."""
    with inboxes() as inbox:
        rest = "" if root == "~" else root.removeprefix("~/")
        parts = [each for each in rest.split("/") if each not in ("", ".")]
        sound = not rest.startswith("/") and ".." not in parts and "\0" not in rest and not LYING & {*parts[:1]}
        answers = receive(inbox, hello(root), b"")
        assert [kind for kind, _ in answers] == [wire.ANSWER if sound else wire.FAIL]
