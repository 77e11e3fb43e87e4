"""A receiver takes whatever a sender says, and neither writes nor reads anything outside its inbox."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.property.test_wire import JSON, ODD, ODD_WORDS, WAYS, Message, frame, meet, messages, said
from transfer.errors import FormatError, TransferError, UsageError
from transfer.flows.remote_import import Landing, run_import
from transfer.model import Digest
from transfer.ship import wire
from transfer.ship.arrival import ARRIVED
from transfer.ship.confined import Confined, bundle_file, one_folder
from transfer.ship.folder import FolderDepot
from transfer.ship.receive import Duties, Receiver, sound_inbox
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
    "append": {"name": "b/README.txt", "offset": 0},
    "check": {"name": "b/README.txt", "digest": str(X), "size": 1},
    "discard": {"name": "b/README.txt"},
    "finish": {"name": "b/README.txt", "digest": str(X), "size": 1},
    "free": {"folder": "b"},
    "hold": {"folder": "b", "token": "t"},
    "import": {"folder": "b", "options": {}},
    "list": {"folder": "b"},
    "parts": {"name": "b/README.txt"},
    "read": {"name": "b/README.txt", "offset": 0},
    "stat": {"names": ["b/README.txt", "b/verify.py"]},
    "supply": {"folder": "b", "files": [[f"blobs/sha256/{Z.hex}", str(Z), 1]]},
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
    receiving = lambda channel: Receiver(channel, inbox=inbox, patience=0.0, duties=Duties(supply=supply)).run()  # noqa: E731
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
        (inbox / "b" / "blobs" / "sha256" / Z.hex).mkdir(parents=True)
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
        ("mandatory", mandatory, f"the other side needs {mandatory!r:.100}"),
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
            # when an ACK goes out is a matter of time
            kinds.append([kind for kind, _ in receive(inbox, greeting, data) if kind != wire.ACK])
            assert op in ("discard", "append") or (inbox / "b" / "README.txt").read_bytes() == b"x"
    assert kinds[0] == kinds[1]


@WAYS
@given(st.integers(0, 1 << 20), st.binary(max_size=6), st.booleans())
def test_a_spoiled_stream_never_makes_a_wrong_file(at: int, put: bytes, cut: bool) -> None:
    files = {name: bytes([n]) * 100 * n for n, name in enumerate(("README.txt", "oci-layout", "verify.py"), 1)}
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


FILES = [
    "index.json",
    "README.txt",
    "medium.json",
    f"blobs/sha256/{X.hex}",
    f"again/blobs/sha256/{X.hex}",
    f"recovery/{X.hex}",
]
NO_FILES = [
    f"blobs/sha256/{Z.hex[:-1]}",
    f"blobs/sha512/{X.hex}",
    ".ssh/authorized_keys",
    "x",
    "README.txt/x",
    "../b/README.txt",
]
OF_A_FOLDER = {"supply", "list", "free", "hold"}
FOLDERS = st.sampled_from(["b", "night.bundle", ".ssh", ".b", "link", "b/c"]) | NAMES


def taken(op: str, name: str) -> bool:
    """Whether a call with this name is for a bundle's file or folder, and not through a link."""
    try:
        one_folder(name) if op in OF_A_FOLDER else bundle_file(name)
    except FormatError:
        return False
    return not LINKS & {*name.split("/")}


@WAYS
@given(st.builds("{}/{}".format, FOLDERS, st.sampled_from([*FILES, *NO_FILES])) | FOLDERS)
@example("b/README.txt")
@example(f"b/blobs/sha256/{X.hex}")
@example(".ssh/README.txt")
@example("link/README.txt")
@example("b")
def test_a_receiver_takes_files_of_bundles_and_nothing_else(name: str) -> None:
    """Every call, with this name; what is sound is done, so that the refusals mean something."""
    words = {"name": name, "folder": name, "names": [name], "token": "t", "offset": 0, "size": 1}
    words |= {"digest": str(X), "files": [[f"blobs/sha256/{Z.hex}", str(Z), 1]]}
    looks = ["supply", "read", "check", "parts", "stat", "list", "free", "hold", "finish", "discard"]
    writing = said(wire.CALL, n=1, op="append", **words) + frame(wire.DATA, b"x")
    for writes in (True, False):
        ops = ["finish", "check", "read", "stat"] if writes else looks
        calls = b"".join(said(wire.CALL, n=n, op=op, **words) for n, op in enumerate(ops, 2))
        with inboxes() as inbox:
            answers = receive(inbox, hello(), writing * writes + calls)
            told = {json.loads(body)["n"]: kind for kind, body in answers if kind in (wire.ANSWER, wire.FAIL)}
            for number, op in enumerate(ops, 2):
                if not taken(op, name):
                    assert told[number] == wire.FAIL or LINKS & {*name.split("/")}, op
                elif writes or op not in ("read", "finish"):
                    assert told[number] == wire.ANSWER, op
            assert ((wire.BLOCK, b"x") in answers) == (writes and taken("read", name))
            for path in inbox.rglob("*"):
                inside = str(path.relative_to(inbox))
                there = (
                    path.is_dir() or path.name.endswith((".part", ".lock")) or inside.split("/")[0] in {*LYING, ARRIVED}
                )
                assert there or inside == name or path.read_bytes() == b"z"


@WAYS
@given(NAMES)
@example("~")
@example("./b/..")
@example("b")
def test_a_sender_gets_the_inbox_and_no_other_folder(root: str) -> None:
    """It may be named, or nothing; anything else is refused, also what lies in it."""
    for before in ("", "{inbox}/", "{inbox}/../", "/{inbox}/"):
        with inboxes() as inbox:
            asked = before.format(inbox=inbox) + root
            rest = "" if asked == "~" else asked.removeprefix("~/")
            sound = "\0" not in asked and ".." not in asked.split("/")
            sound = sound and os.path.normpath(inbox.resolve() / rest) == str(inbox.resolve())
            answers = receive(inbox, hello(asked), b"")
            assert [kind for kind, _ in answers] == [wire.ANSWER if sound else wire.FAIL]


def put(name: str, data: bytes, number: int = 1) -> bytes:
    """A file that is sent whole."""
    words = {"n": number + 1, "op": "finish", "name": name, "digest": str(sha256(data)), "size": len(data)}
    return (
        said(wire.CALL, n=number, op="append", name=name, offset=0) + frame(wire.DATA, data) + said(wire.CALL, **words)
    )


def test_another_senders_finished_bundle_stays(tmp_path: Path) -> None:
    sound = put("b/index.json", b"{}") + put(f"b/blobs/sha256/{X.hex}", b"x", 3)
    other = put("b/index.json", b"[]", 5) + put(f"b/blobs/sha256/{X.hex}", b"y", 7)
    goes = [
        said(wire.CALL, n=n, op="discard", name=f"b/{name}")
        for n, name in ((9, "index.json"), (10, f"blobs/sha256/{X.hex}"))
    ]
    with inboxes() as inbox:
        receive(inbox, hello(), sound + other + b"".join(goes))
        assert (inbox / "b" / "index.json").read_bytes() == b"{}"
        assert (inbox / "b" / "blobs" / "sha256" / X.hex).read_bytes() == b"x"


def test_an_index_is_finished_by_one_receiver_at_a_time(tmp_path: Path) -> None:
    """Between the look whether there is one and the rename another sender's could come."""
    depot = Confined(FolderDepot(tmp_path), str(tmp_path))
    depot.append("b/index.json", b"{}", 0)
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    finishing = threading.Thread(target=depot.finish, args=("b/index.json", sha256(b"{}"), 2))
    finishing.start()
    finishing.join(0.2)
    assert not (tmp_path / "b" / "index.json").exists()
    os.close(other)
    finishing.join()
    assert (tmp_path / "b" / "index.json").read_bytes() == b"{}"


def test_a_limit_is_one_for_all_that_lies_there(tmp_path: Path) -> None:
    data = b"".join(put(f"b{n}/README.txt", bytes(10_000), 2 * n + 1) for n in range(10))
    receiving = lambda channel: Receiver(channel, inbox=tmp_path, most=50_000).run()  # noqa: E731
    _, heard = meet(receiving, hello() + data)
    _, *answers = messages(heard.removeprefix(wire.MAGIC))
    told = [json.loads(body).get("slug") for kind, body in answers if kind == wire.FAIL]
    assert "no-space" in told
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= 50_000


@pytest.mark.parametrize(
    "options",
    [{"to": "oci:/elsewhere"}, {"to": "docker-archive:/root/.ssh/authorized_keys"}, {"retag": ["a:1=b:1"]}, {"to": 5}],
)
def test_where_images_go_is_not_for_the_sender_to_say(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        run_import(Path("b"), options, lambda value: None, Landing())


@pytest.mark.parametrize("kind", ["home", "ssh", "root"])
def test_an_inbox_that_is_more_than_one_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    place = {"home": tmp_path / "home", "ssh": tmp_path / "in", "root": Path("/")}[kind]
    (tmp_path / "home").mkdir()
    (tmp_path / "in" / ".ssh").mkdir(parents=True)
    with pytest.raises(UsageError):
        sound_inbox(place)
    assert sound_inbox(tmp_path / "home" / "inbox") == tmp_path / "home" / "inbox"


def test_each_site_has_a_folder_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    assert sound_inbox(tmp_path / "in", "plant-7") == tmp_path / "in" / "plant-7"
    assert (tmp_path / "in" / "plant-7").stat().st_mode & 0o777 == 0o700
    (tmp_path / "in" / "evil").symlink_to(tmp_path)
    with pytest.raises(UsageError):
        sound_inbox(tmp_path / "in", "evil")


def test_what_is_closed_stays_and_what_was_not_sent_is_not_made(tmp_path: Path) -> None:
    sound = put("b/oci-layout", b"{}") + put("b/index.json", b"{}", 3)
    goes = said(wire.CALL, n=5, op="discard", name="b/oci-layout")
    empty = {"op": "finish", "name": f"c/blobs/sha256/{X.hex}", "digest": str(X), "size": 1}
    spool = said(wire.CALL, n=7, op="append", name="b/again/index.json", offset=0) + frame(wire.DATA, b"{}")
    long = said(wire.CALL, n=8, op="hold", folder="d", token="0" * 65)
    with inboxes() as inbox:
        heard = receive(inbox, hello(), sound + goes + said(wire.CALL, n=6, **empty) + spool + long)
        told = [json.loads(body)["n"] for kind, body in heard if kind == wire.FAIL]
        assert told == [5, 6, 7, 8]
        assert (inbox / "b" / "oci-layout").read_bytes() == b"{}"
        assert not (inbox / "c").exists()
        assert not (inbox / "b" / "again").exists()


def test_what_the_receiver_supplies_counts_too(tmp_path: Path) -> None:
    def give(path: Path, digest: Digest, size: int) -> bool:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
        return True

    calls = b"".join(
        said(wire.CALL, n=n, op="supply", folder=f"b{n}", files=[[f"blobs/sha256/{X.hex}", str(X), 30_000]])
        for n in range(5)
    )
    receiving = lambda channel: Receiver(channel, inbox=tmp_path, duties=Duties(supply=give), most=100_000).run()  # noqa: E731
    _, heard = meet(receiving, hello() + calls)
    _, *answers = messages(heard.removeprefix(wire.MAGIC))
    assert "no-space" in [json.loads(body).get("slug") for kind, body in answers if kind == wire.FAIL]
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= 100_000
