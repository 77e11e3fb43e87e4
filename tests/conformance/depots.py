"""What every Depot must do. A depot joins by one entry in the dict of a module that runs this suite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.support.zoo import noise
from transfer.chunks.name import chunk_id
from transfer.errors import Damaged, FormatError, Locked, NotFound, TransferError
from transfer.ship.base import PART, Depot, HeldFile
from transfer.streams import sha256

BUNDLE = "night.bundle"
NAME = f"{BUNDLE}/blobs/sha256/aa"
DATA = noise(1, 3 * PART + 12345)


@dataclass(frozen=True)
class Yard:
    """Where depots write. `open` gives a new depot on the same place; `finished` reads a file there by another way (None: not there).

    `spoil` changes one byte of the unfinished file, or else of the finished one.
    """

    open: Callable[[], Depot]
    finished: Callable[[str], bytes | None]
    spoil: Callable[[str, int], None]
    locks: bool = True


class DepotSuite:
    """The contract of ship/base.py, Depot."""

    @pytest.fixture
    def yard(self) -> Yard:
        raise NotImplementedError

    @pytest.fixture
    def depot(self, yard: Yard) -> Iterator[Depot]:
        depot = yard.open()
        yield depot
        depot.close()

    def put(self, depot: Depot, name: str, data: bytes, *, start: int = 0) -> None:
        for at in range(start, len(data), PART):
            depot.append(name, memoryview(data)[at : at + PART], at)
        depot.finish(name, sha256(data), len(data))

    def test_a_file_is_there_when_it_is_finished_and_not_before(self, yard: Yard, depot: Depot) -> None:
        assert depot.stat([NAME]) == [None]
        depot.append(NAME, DATA[:PART], 0)
        assert yard.finished(NAME) is None
        depot.append(NAME, DATA[PART:], PART)
        assert yard.finished(NAME) is None
        depot.finish(NAME, sha256(DATA), len(DATA))
        assert yard.finished(NAME) == DATA
        assert depot.stat([NAME, f"{BUNDLE}/other"]) == [HeldFile(len(DATA), True), None]
        assert depot.check(NAME, sha256(DATA), len(DATA)) == ""

    @pytest.mark.parametrize("data", [b"", b"x", noise(2, PART), noise(3, PART + 1)], ids=["0", "1", "part", "part+1"])
    def test_any_size(self, yard: Yard, depot: Depot, data: bytes) -> None:
        self.put(depot, NAME, data)
        assert yard.finished(NAME) == data
        assert b"".join(depot.read(NAME)) == data

    def test_another_depot_goes_on_where_one_stopped(self, yard: Yard, depot: Depot) -> None:
        depot.append(NAME, DATA[:PART], 0)
        depot.append(NAME, DATA[PART : PART + 700], PART)
        depot.stat([NAME])
        depot.close()
        following = yard.open()
        try:
            held = following.stat([NAME])[0]
            assert held == HeldFile(PART + 700, False)
            parts = following.parts(NAME)
            if following.traits.compares_parts:
                assert parts == [chunk_id(DATA[:PART]), chunk_id(DATA[PART : PART + 700])]
            following.append(NAME, DATA[PART + 700 : 2 * PART], PART + 700)
            self.put(following, NAME, DATA, start=2 * PART)
            assert yard.finished(NAME) == DATA
        finally:
            following.close()

    def test_what_is_wrong_is_never_finished(self, yard: Yard, depot: Depot) -> None:
        wrong = DATA[:-1] + bytes([DATA[-1] ^ 1])
        with pytest.raises(Damaged, match="digest"):
            depot.append(NAME, wrong, 0)
            depot.finish(NAME, sha256(DATA), len(DATA))
        assert yard.finished(NAME) is None
        with pytest.raises(Damaged, match="bytes where"):
            depot.append(NAME, DATA[:-1], 0)
            depot.finish(NAME, sha256(DATA), len(DATA))
        depot.discard(NAME)
        assert depot.stat([NAME]) == [None]
        self.put(depot, NAME, DATA)
        assert yard.finished(NAME) == DATA

    def test_a_spoiled_beginning_is_found_at_the_end_at_the_latest(self, yard: Yard, depot: Depot) -> None:
        depot.append(NAME, DATA[: 2 * PART], 0)
        depot.stat([NAME])
        depot.close()
        yard.spoil(NAME, 5)
        following = yard.open()
        try:
            if following.traits.compares_parts:
                assert following.parts(NAME)[0] != chunk_id(DATA[:PART])
                assert following.parts(NAME)[1] == chunk_id(DATA[PART : 2 * PART])
            with pytest.raises(Damaged):
                self.put(following, NAME, DATA, start=2 * PART)
            following.discard(NAME)
            self.put(following, NAME, DATA)
            assert yard.finished(NAME) == DATA
        finally:
            following.close()

    def test_an_append_cuts_what_lies_behind_it(self, yard: Yard, depot: Depot) -> None:
        depot.append(NAME, noise(9, 2 * PART), 0)
        depot.append(NAME, DATA[:PART], 0)
        self.put(depot, NAME, DATA, start=PART)
        assert yard.finished(NAME) == DATA

    def test_no_gap_is_left(self, depot: Depot) -> None:
        with pytest.raises(FormatError, match="beyond its end"):
            depot.append(NAME, b"x", 10)
            depot.finish(NAME, sha256(b"x"), 1)

    def test_a_finished_file_is_replaced_whole(self, yard: Yard, depot: Depot) -> None:
        self.put(depot, NAME, DATA)
        self.put(depot, NAME, b"new")
        assert yard.finished(NAME) == b"new"

    def test_damage_afterwards_is_found(self, yard: Yard, depot: Depot) -> None:
        self.put(depot, NAME, DATA)
        yard.spoil(NAME, 100)
        assert "digest" in depot.check(NAME, sha256(DATA), len(DATA))
        assert "bytes where" in depot.check(NAME, sha256(DATA), 7)
        assert depot.check(f"{BUNDLE}/none", sha256(DATA), 7) != ""

    def test_lists_and_reads_what_is_finished(self, depot: Depot) -> None:
        assert depot.list(BUNDLE) == {}
        self.put(depot, NAME, DATA)
        self.put(depot, f"{BUNDLE}/index.json", b"{}")
        depot.append(f"{BUNDLE}/blobs/sha256/bb", b"x", 0)
        assert depot.list(BUNDLE) == {"blobs/sha256/aa": len(DATA), "index.json": 2}
        assert b"".join(depot.read(NAME, PART + 3)) == DATA[PART + 3 :]
        with pytest.raises(NotFound):
            b"".join(depot.read(f"{BUNDLE}/none"))

    def test_many_names_at_once(self, depot: Depot) -> None:
        names = [f"{BUNDLE}/blobs/sha256/{n:04x}" for n in range(1500)]
        self.put(depot, names[1400], b"here")
        found = depot.stat(names)
        assert found[1400] == HeldFile(4, True)
        assert sum(each is not None for each in found) == 1

    @pytest.mark.parametrize(
        "name", ["../x", "/etc/x", "a/../b", "a//b", "", ".", "a/./b", "a\\b", "a\0b", "a\nb", "c:x", "x" * 300, "a. "]
    )
    def test_a_name_leads_nowhere_else(self, depot: Depot, name: str) -> None:
        with pytest.raises(TransferError):
            depot.stat([name])
        with pytest.raises(TransferError):
            depot.append(name, b"x", 0)
            depot.finish(name, sha256(b"x"), 1)
        with pytest.raises(TransferError):
            b"".join(depot.read(name))
        with pytest.raises(TransferError):
            depot.discard(name)

    def test_one_ship_at_a_time(self, yard: Yard, depot: Depot) -> None:
        if not yard.locks:
            pytest.skip("this place has no locks: two that write the same bytes to the same names do no harm")
        depot.hold(BUNDLE, "mine")
        lane, other = yard.open(), yard.open()
        try:
            lane.hold(BUNDLE, "mine")
            with pytest.raises(Locked):
                other.hold(BUNDLE, "theirs")
            depot.close()
            with pytest.raises(Locked):
                other.hold(BUNDLE, "theirs")
            lane.close()
            other.hold(BUNDLE, "theirs")
        finally:
            lane.close()
            other.close()

    def test_says_what_is_free_or_nothing(self, depot: Depot) -> None:
        free = depot.free(BUNDLE)
        assert free is None or free > 0
