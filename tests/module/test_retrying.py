"""A line that drops: asked again over a new one, as long as something arrives in between or patience lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import pytest

from tests.support.zoo import noise
from transfer.errors import CutOff, Damaged, HostKeyError, LinkError, Locked, NotFound, TransferError
from transfer.events import Event, Noted
from transfer.ship.base import PART, Depot, HeldFile
from transfer.ship.memory import MemoryDepot
from transfer.ship.retrying import PAUSES, Retrying
from transfer.streams import sha256

NAME = "night.bundle/blobs/sha256/aa"
DATA = noise(1, 4 * PART + 99)
PAUSE = (0.0, 1.0, 2.0, 4.0)


class Place:
    """One place, and lines to it. `cuts`: which of all the calls end in a failure, from 0; `refusals`: instead of new lines."""

    def __init__(self, cuts: Iterable[int] = (), refusals: Sequence[TransferError] = ()) -> None:
        self.finished: dict[str, bytes] = {}
        self.growing: dict[str, bytearray] = {}
        self.failures: dict[int, TransferError] = {each: CutOff("cut") for each in cuts}
        self.refusals = list(refusals)
        self.calls: list[tuple[int, str]] = []
        self.opened = self.closed = 0
        self.slept: list[float] = []
        self.events: list[Event] = []

    def connect(self) -> Depot:
        if self.opened and self.refusals:
            raise self.refusals.pop(0)
        self.opened += 1
        return cast(Depot, Line(self))

    def depot(self, pauses: Sequence[float] = PAUSE) -> Retrying:
        return Retrying(self.connect, self.events.append, pauses=pauses, sleep=self.slept.append)

    def call(self, line: int, op: str) -> None:
        self.calls.append((line, op))
        failure = self.failures.get(len(self.calls) - 1)
        if failure:
            raise failure


class Line:
    """A depot over one line: what it does is real, until the line is cut."""

    def __init__(self, place: Place) -> None:
        self._place, self._depot = place, MemoryDepot(place.finished, place.growing)
        self._number, self._cut = place.opened, False

    def __getattr__(self, op: str) -> Any:
        found = getattr(self._depot, op)

        def call(*words: Any) -> Any:
            self._use(op)
            return found(*words)

        def read(*words: Any) -> Iterator[bytes]:
            for block in found(*words):
                self._use(op)
                yield block

        return found if not callable(found) else read if op == "read" else call

    def _use(self, op: str) -> None:
        assert not self._cut, "a line that was cut is of no more use"
        try:
            self._place.call(self._number, op)
        except CutOff:
            self._cut = True
            raise

    def close(self) -> None:
        self._place.closed += 1


def ship(depot: Depot) -> None:
    """As the flow does: after a cut, `stat` tells where to go on."""
    while True:
        held = depot.stat([NAME])[0]
        if held and held.finished:
            return
        try:
            for at in range(held.size if held else 0, len(DATA), PART):
                depot.append(NAME, DATA[at : at + PART], at)
            depot.finish(NAME, sha256(DATA), len(DATA))
        except CutOff:
            continue


QUESTIONS: dict[str, tuple[Callable[[Depot], object], object]] = {
    "stat": (lambda depot: depot.stat([NAME]), [HeldFile(len(DATA), True)]),
    "list": (lambda depot: depot.list("night.bundle"), {"blobs/sha256/aa": len(DATA)}),
    "parts": (lambda depot: depot.parts(NAME), []),
    "check": (lambda depot: depot.check(NAME, sha256(DATA), len(DATA)), ""),
    "discard": (lambda depot: depot.discard("night.bundle/none"), None),
    "free": (lambda depot: depot.free("night.bundle"), None),
    "supply": (lambda depot: depot.supply("night.bundle", []), 0),
    "hold": (lambda depot: depot.hold("night.bundle", "t"), None),
    "read": (lambda depot: b"".join(depot.read(NAME)), DATA),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_asked_again_over_new_lines(question: str) -> None:
    ask, answer = QUESTIONS[question]
    place = Place(range(3))
    place.finished[NAME] = DATA
    depot = place.depot()
    assert ask(depot) == answer
    assert (place.opened, place.closed) == (4, 3)
    assert place.slept == [0.0, 1.0, 2.0]
    assert [type(each) for each in place.events] == [Noted] * 3


@pytest.mark.parametrize("question", QUESTIONS)
def test_patience_ends(question: str) -> None:
    ask, _ = QUESTIONS[question]
    place = Place(range(4))
    place.finished[NAME] = DATA
    with pytest.raises(LinkError, match=r"cut \(4 attempts\)") as failed:
        ask(place.depot())
    assert type(failed.value) is LinkError
    assert failed.value.hint
    assert place.opened == 4


@pytest.mark.parametrize("question", QUESTIONS)
def test_what_a_line_is_not_to_blame_for_is_not_asked_again(question: str) -> None:
    ask, _ = QUESTIONS[question]
    place = Place()
    place.failures = {0: Damaged("spoiled")}
    place.finished[NAME] = DATA
    depot = place.depot()
    with pytest.raises(Damaged, match="spoiled"):
        ask(depot)
    assert (place.opened, place.slept) == (1, [])
    ask(depot)
    assert place.opened == 1


def test_append_and_finish_leave_it_to_the_caller() -> None:
    place = Place([1, 3])
    depot = place.depot()
    depot.append(NAME, DATA, 0)
    with pytest.raises(CutOff):
        depot.append(NAME, b"more", len(DATA))
    assert depot.stat([NAME]) == [HeldFile(len(DATA), False)]
    with pytest.raises(CutOff):
        depot.finish(NAME, sha256(DATA), len(DATA))
    assert place.calls == [(1, "append"), (1, "append"), (2, "stat"), (2, "finish")]
    depot.finish(NAME, sha256(DATA), len(DATA))
    assert place.finished[NAME] == DATA


@pytest.mark.parametrize("op", ["append", "finish"])
def test_append_and_finish_run_out_of_patience_too(op: str) -> None:
    place = Place(range(4))
    place.growing[NAME] = bytearray(DATA)
    depot = place.depot()
    for attempt in range(4):
        with pytest.raises(LinkError) as failed:
            if op == "append":
                depot.append(NAME, DATA, 0)
            else:
                depot.finish(NAME, sha256(DATA), len(DATA))
        assert type(failed.value) is (CutOff if attempt < 3 else LinkError)


def test_progress_renews_the_patience() -> None:
    """One cut in each part, and many more cuts than there are pauses."""
    place = Place([n for n in range(60) if n % 3 == 2])
    ship(place.depot(PAUSE[:2]))
    assert place.finished[NAME] == DATA
    assert place.opened > 4
    assert set(place.slept) == {PAUSE[0]}


def test_standing_still_does_not() -> None:
    place = Place([n for n in range(60) if n % 2])
    with pytest.raises(LinkError, match="4 attempts"):
        ship(place.depot())
    assert [op for _, op in place.calls] == ["stat", "append"] * 4
    assert place.slept == [0.0, 1.0, 2.0]


def test_a_file_read_in_pieces_goes_on_where_it_was() -> None:
    place = Place([1, 3, 5, 7])
    place.finished[NAME] = DATA
    assert b"".join(place.depot(PAUSE[:2]).read(NAME, 5)) == DATA[5:]
    assert place.opened == 5


def test_a_line_that_cannot_be_had_costs_patience_as_well() -> None:
    place = Place([0], [LinkError("refused"), CutOff("gone")])
    place.finished[NAME] = DATA
    assert place.depot().stat([NAME]) == [HeldFile(len(DATA), True)]
    assert place.slept == [0.0, 1.0, 2.0]
    place = Place([0], [LinkError(f"refused {n}") for n in range(3)])
    with pytest.raises(LinkError, match=r"refused 2 \(4 attempts\)"):
        place.depot().stat([NAME])
    assert place.slept == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("error", [HostKeyError("changed"), NotFound("no program")])
def test_a_line_that_is_refused_for_good_is_told_at_once(error: TransferError) -> None:
    place = Place([0], [error])
    with pytest.raises(type(error)):
        place.depot().stat([NAME])
    assert place.slept == [0.0]


def test_the_first_line_is_not_waited_for() -> None:
    slept: list[float] = []

    def connect() -> Depot:
        raise LinkError("nobody there")

    with pytest.raises(LinkError, match=r"^nobody there$"):
        Retrying(connect, lambda event: None, sleep=slept.append)
    assert slept == []


def test_every_new_line_holds_what_was_held() -> None:
    place = Place([1, 2])
    depot = place.depot()
    depot.hold("night.bundle", "mine")
    depot.stat([NAME])
    assert place.calls[:4] == [(1, "hold"), (1, "stat"), (2, "hold"), (3, "hold")]
    assert place.calls[-1] == (3, "stat")
    place.failures = {
        len(place.calls): CutOff("cut"),
        len(place.calls) + 1: Locked("another `transfer ship` is writing there"),
    }
    with pytest.raises(Locked):
        depot.stat([NAME])


def test_nothing_is_left_open() -> None:
    place = Place([0, 1])
    depot = place.depot()
    depot.stat([NAME])
    depot.close()
    assert place.opened == place.closed == 3


def test_the_pauses_are_enough_for_a_host_to_come_back() -> None:
    place = Place(range(len(PAUSES) - 1))
    place.depot(PAUSES).stat([NAME])
    assert sum(place.slept) > 60
