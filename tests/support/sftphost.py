"""An SSH server in the test's own process, whose disk refuses, loses or changes what is written through SFTP."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import paramiko
from paramiko.common import AUTH_SUCCESSFUL, OPEN_SUCCEEDED
from paramiko.sftp import SFTP_FAILURE, SFTP_OK, SFTP_OP_UNSUPPORTED

from transfer.errors import CutOff
from transfer.ship.address import Address, Options
from transfer.ship.sftp import SftpDepot
from transfer.ship.socketed import SocketChannel
from transfer.ship.ssh import ParamikoChannel, ParamikoLine
from transfer.ship.wire import Channel

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
        self._closing.callback(self._door.shutdown, socket.SHUT_RDWR)
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
        address = Address("127.0.0.1", str(self.yard), "somebody", self._door.getsockname()[1])
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
    def yard(self) -> Path:
        """Where depots write."""
        return self.folder / "yard"

    def close(self) -> None:
        self._closing.close()
