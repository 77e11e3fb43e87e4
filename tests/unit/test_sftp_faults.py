"""A far side whose disk fails under SFTP: paramiko's own `putfo` may call a corrupt file good, a depot never does."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import paramiko
import pytest
from paramiko.common import AUTH_SUCCESSFUL, OPEN_SUCCEEDED
from paramiko.sftp import SFTP_FAILURE, SFTP_OK, SFTP_OP_UNSUPPORTED

from tests.support.zoo import noise
from transfer.errors import CutOff, Damaged, MediumError
from transfer.ship.address import Address, Options
from transfer.ship.base import PART, Held
from transfer.ship.sftp import KEEP_BACK, SftpDepot
from transfer.ship.socketed import SocketChannel
from transfer.ship.ssh import ParamikoChannel, ParamikoLine
from transfer.ship.wire import Channel
from transfer.streams import sha256

NAME = "night.bundle/blobs/sha256/aa"
DATA = noise(1, 3 * PART)
FIRST, MIDDLE, LATE, TAIL = 0, PART + 777, len(DATA) - (64 << 10), len(DATA) - KEEP_BACK // 2

R = TypeVar("R")
Outcome = Callable[[bytes], "bytes | int"]
"""What becomes of a write: the bytes that reach the disk, or the status that is told instead."""


def refused(data: bytes) -> int:
    return SFTP_FAILURE


def lost(data: bytes) -> bytes:
    return bytes(len(data))


def changed(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def told(call: Callable[[], R]) -> R | int:
    """What the call gives, or the status for its failure."""
    try:
        return call()
    except OSError as error:
        return paramiko.SFTPServer.convert_errno(error.errno or 0)


class Handle(paramiko.SFTPHandle):
    def __init__(self, fd: int, host: Host) -> None:
        super().__init__()
        self._fd, self._host = fd, host
        self.readfile = os.fdopen(fd, "rb", buffering=0)

    def write(self, offset: int, data: bytes) -> int:  # type: ignore[override]
        landed = self._host.landing(offset, data)
        if isinstance(landed, int):
            return landed
        os.pwrite(self._fd, landed, offset)
        return SFTP_OK

    def stat(self) -> paramiko.SFTPAttributes:
        return paramiko.SFTPAttributes.from_stat(os.fstat(self._fd))

    def chattr(self, attr: paramiko.SFTPAttributes) -> int:
        os.ftruncate(self._fd, attr.st_size or 0)
        return SFTP_OK


class Files(paramiko.SFTPServerInterface):
    """The files of this machine, by their own paths."""

    def __init__(self, server: Host) -> None:
        super().__init__(server)
        self._host = server

    def list_folder(self, path: str) -> list[paramiko.SFTPAttributes] | int:
        return told(lambda: [paramiko.SFTPAttributes.from_stat(x.lstat(), x.name) for x in Path(path).iterdir()])

    def stat(self, path: str) -> paramiko.SFTPAttributes | int:
        return told(lambda: paramiko.SFTPAttributes.from_stat(Path(path).lstat()))

    lstat = stat

    def open(self, path: str, flags: int, attr: paramiko.SFTPAttributes) -> Handle | int:
        return told(lambda: Handle(os.open(path, flags, 0o666), self._host))

    def remove(self, path: str) -> int:
        return told(lambda: Path(path).unlink()) or SFTP_OK

    def rename(self, oldpath: str, newpath: str) -> int:
        """As the protocol has it: never over a file that is there."""
        return told(lambda: os.link(oldpath, newpath)) or self.remove(oldpath)

    def posix_rename(self, oldpath: str, newpath: str) -> int:
        if not self._host.replaces:
            return SFTP_OP_UNSUPPORTED
        return told(lambda: os.replace(oldpath, newpath)) or SFTP_OK

    def mkdir(self, path: str, attr: paramiko.SFTPAttributes) -> int:
        return told(lambda: Path(path).mkdir()) or SFTP_OK


@dataclass
class Host(paramiko.ServerInterface):
    """An SSH server in this process. `shell`: "all" has every program, "bare" has no other than sh, "none" is no shell.

    `fault`: how the next write that covers this byte fares, and only that one.
    """

    folder: Path
    fault: tuple[int, Outcome] | None = None
    shell: str = "none"
    replaces: bool = True
    _closing: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __post_init__(self) -> None:
        self._key, own = paramiko.ECDSAKey.generate(), paramiko.ECDSAKey.generate()
        own.write_private_key_file(str(self.folder / "key"))
        (self.folder / "config").touch()
        (self.folder / "bin").mkdir()
        (self.folder / "bin" / "sh").symlink_to("/bin/sh")
        self._door = self._closing.enter_context(socket.create_server(("127.0.0.1", 0)))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                transport = paramiko.Transport(self._door.accept()[0])
                self._closing.callback(transport.close)
                transport.add_server_key(self._key)
                transport.set_subsystem_handler("sftp", paramiko.SFTPServer, Files)
                transport.start_server(event=threading.Event(), server=self)

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        if self.shell == "none":
            return False
        path = os.defpath if self.shell == "all" else str(self.folder / "bin")
        ours, theirs = socket.socketpair()
        with theirs:
            words, end = ["/bin/sh", "-c", command.decode()], theirs.fileno()
            process = subprocess.Popen(words, stdin=end, stdout=end, env={"PATH": path})
        program, client = SocketChannel(ours, "program"), ParamikoChannel(channel, "client")

        def pass_on(source: Channel, sink: Channel) -> None:
            with contextlib.suppress(CutOff):
                while block := source.recv(4096):
                    sink.send(block)
            for each in (program, client):
                each.close()
            process.wait()

        for ends in ((program, client), (client, program)):
            threading.Thread(target=pass_on, args=ends, daemon=True).start()
        return True

    def landing(self, offset: int, data: bytes) -> bytes | int:
        if self.fault and offset <= self.fault[0] < offset + len(data):
            (_, outcome), self.fault = self.fault, None
            return outcome(data)
        return data

    def line(self) -> ParamikoLine:
        address = Address("127.0.0.1", str(self.folder / "yard"), "somebody", self._door.getsockname()[1])
        pin = self._key.fingerprint.rstrip("=")
        line = ParamikoLine(address, Options(self.folder / "key", pin, config=self.folder / "config"))
        self._closing.callback(line.close)
        return line

    def depot(self) -> SftpDepot:
        line = self.line()
        depot = SftpDepot(line.sftp, line.run, "host", line.address.folder, also_close=line.close)
        self._closing.callback(depot.close)
        return depot

    @property
    def finished(self) -> Path:
        return self.folder / "yard" / NAME

    def close(self) -> None:
        self._closing.close()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    host.close()


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
    assert not host.finished.exists()
    held = depot.stat([NAME])[0]
    assert held is not None and not held.finished
    put(depot, DATA)
    assert host.finished.read_bytes() == DATA


@pytest.mark.parametrize("shell", ["all", "bare", "none"])
@pytest.mark.parametrize(("at", "outcome"), [(FIRST, changed), (MIDDLE, lost), (TAIL, changed)])
def test_what_the_disk_made_of_it_is_looked_at(host: Host, shell: str, at: int, outcome: Outcome) -> None:
    """With every status OK and the size right: the program over there hashes it, or it is read back."""
    host.fault, host.shell = (at, outcome), shell
    depot = host.depot()
    with pytest.raises(Damaged, match="digest"):
        put(depot, DATA)
    assert not host.finished.exists()
    assert depot.traits.checks_there is (shell == "all")
    depot.discard(NAME)
    assert depot.stat([NAME]) == [None]
    put(depot, DATA)
    assert host.finished.read_bytes() == DATA


def test_a_hole_is_found_by_who_goes_on_behind_it(host: Host) -> None:
    """The write is refused, the line ends before that is told, and a new depot takes up what looks whole."""
    host.fault = MIDDLE, refused
    first = host.depot()
    first.append(NAME, DATA[: 2 * PART], 0)
    first.close()
    following = host.depot()
    assert following.stat([NAME]) == [Held(2 * PART, False)]
    following.append(NAME, DATA[2 * PART :], 2 * PART)
    with pytest.raises(Damaged):
        following.finish(NAME, sha256(DATA), len(DATA))
    assert not host.finished.exists()


@pytest.mark.parametrize("shell", ["all", "bare", "none"])
@pytest.mark.parametrize("replaces", [True, False], ids=["posix-rename", "rename"])
def test_a_sound_host(host: Host, shell: str, replaces: bool) -> None:
    host.shell, host.replaces = shell, replaces
    depot = host.depot()
    big = noise(2, 6 * PART + 4321)
    for data in (big, DATA):
        put(depot, data)
        assert host.finished.read_bytes() == data
        assert depot.stat([NAME]) == [Held(len(data), True)]
        assert depot.check(NAME, sha256(data), len(data)) == ""
    assert list(host.finished.parent.iterdir()) == [host.finished]
    host.finished.write_bytes(changed(DATA))
    assert "digest" in depot.check(NAME, sha256(DATA), len(DATA))
