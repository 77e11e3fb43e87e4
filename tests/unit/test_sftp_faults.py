"""A far side whose disk fails under SFTP: paramiko's own `putfo` may call a corrupt file good, a depot never does."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from tests.support.sftphost import Host, Outcome, changed, lost, refused
from tests.support.zoo import noise
from transfer.errors import Damaged, MediumError, Nonsense
from transfer.ship import sftp
from transfer.ship.base import PART, HeldFile
from transfer.ship.sftp import SftpDepot
from transfer.streams import sha256

NAME = "night.bundle/blobs/sha256/aa"
DATA = noise(1, 3 * PART)
FIRST, MIDDLE, LATE, TAIL = 0, PART + 777, len(DATA) - (64 << 10), len(DATA) - 2048


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    host.close()


def finished(host: Host) -> Path:
    return host.yard / NAME


def put(depot: SftpDepot, data: bytes) -> None:
    for at in range(0, len(data), PART):
        depot.append(NAME, data[at : at + PART], at)
    depot.finish(NAME, sha256(data), len(data))


@pytest.mark.parametrize("at", [FIRST, MIDDLE, LATE])
def test_why_putfo_is_not_used_it_calls_a_file_with_a_hole_good(host: Host, at: int) -> None:
    """If this fails, paramiko reads the status of every write at last: look whether SftpDepot can be simpler."""
    host.fault = at, refused
    path = host.folder / "plain"
    client = paramiko.SFTPClient(host.line().sftp().channel)
    assert client.putfo(io.BytesIO(DATA), str(path), confirm=True).st_size == len(DATA)
    assert host.fault is None
    assert path.read_bytes() != DATA


@pytest.mark.parametrize(("at", "shell"), [(FIRST, "none"), (MIDDLE, "all"), (LATE, "bare"), (TAIL, "none")])
def test_a_refused_write_is_told(host: Host, at: int, shell: str) -> None:
    host.fault, host.shell = (at, refused), shell
    depot = host.depot()
    with pytest.raises(MediumError, match="Failure"):
        put(depot, DATA)
    assert not finished(host).exists()
    held = depot.stat([NAME])[0]
    assert held is not None and not held.finished
    put(depot, DATA)
    assert finished(host).read_bytes() == DATA


@pytest.mark.parametrize("shell", ["all", "bare", "none"])
@pytest.mark.parametrize(("at", "outcome"), [(FIRST, changed), (MIDDLE, lost), (TAIL, changed)])
def test_what_the_disk_made_of_it_is_looked_at(host: Host, shell: str, at: int, outcome: Outcome) -> None:
    """With every status OK and the size right: the program over there hashes it, or it is read back."""
    host.fault, host.shell = (at, outcome), shell
    depot = host.depot()
    with pytest.raises(Damaged, match="digest"):
        put(depot, DATA)
    assert not finished(host).exists()
    assert depot.traits.checks_there is (shell == "all")
    depot.discard(NAME)
    assert depot.stat([NAME]) == [None]
    put(depot, DATA)
    assert finished(host).read_bytes() == DATA


def test_a_hole_is_found_by_who_goes_on_behind_it(host: Host) -> None:
    """The write is refused, the line ends before that is told, and a new depot takes up what looks whole."""
    host.fault = MIDDLE, refused
    first = host.depot()
    first.append(NAME, DATA[: 2 * PART], 0)
    first.close()
    following = host.depot()
    assert following.stat([NAME]) == [HeldFile(2 * PART, False)]
    following.append(NAME, DATA[2 * PART :], 2 * PART)
    with pytest.raises(Damaged):
        following.finish(NAME, sha256(DATA), len(DATA))
    assert not finished(host).exists()


@pytest.mark.parametrize("shell", ["all", "bare", "none"])
@pytest.mark.parametrize("replaces", [True, False], ids=["posix-rename", "rename"])
def test_a_sound_host(host: Host, shell: str, replaces: bool) -> None:
    host.shell, host.replaces = shell, replaces
    depot = host.depot()
    big = noise(2, 6 * PART + 4321)
    for data in (big, DATA):
        put(depot, data)
        assert finished(host).read_bytes() == data
        assert depot.stat([NAME]) == [HeldFile(len(data), True)]
        assert depot.check(NAME, sha256(data), len(data)) == ""
    assert list(finished(host).parent.iterdir()) == [finished(host)]
    finished(host).write_bytes(changed(DATA))
    assert "digest" in depot.check(NAME, sha256(DATA), len(DATA))


def test_a_folder_without_an_end_is_refused(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    place = host.yard / "night.bundle" / "blobs" / "sha256"
    place.mkdir(parents=True)
    for number in range(300):
        (place / f"{number:064x}").touch()
    depot = host.depot()
    assert len(depot.list("night.bundle")) == 300
    monkeypatch.setattr(sftp, "LISTED_MAX", 100_000)
    with pytest.raises(Nonsense, match="has no end"):
        depot.list("night.bundle")
