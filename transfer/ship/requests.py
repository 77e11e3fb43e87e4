"""What paramiko's SFTP client lacks: writes whose every status is read, the far side's limits, fsync, and its filesystem's state."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import paramiko
from paramiko.sftp import CMD_EXTENDED, CMD_EXTENDED_REPLY, CMD_STATUS, CMD_WRITE, int64

from transfer.errors import CutOff
from transfer.ship.pace import Pace
from transfer.ship.ssh import LINE_GONE, ParamikoChannel, send_all
from transfer.ship.wire import Channel

REQUEST, REQUEST_MAX = 32 << 10, 255 << 10
"""Bytes of one read or write: what every server takes, and more than which OpenSSH does not."""


class _Whole:
    """A paramiko channel that sends all it is given: the client would copy the rest of a request for each packet of it."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def send(self, data: bytes) -> int:
        send_all(self._channel, data)
        return len(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)


def sftp_client(channel: Channel) -> paramiko.SFTPClient:
    """An SFTP client over a channel of either line. CutOff if none answers there."""
    own = isinstance(channel, ParamikoChannel)
    inner: Any = _Whole(channel.channel) if own else getattr(channel, "connection", channel)  # type: ignore[attr-defined]
    try:
        return paramiko.SFTPClient(inner)
    except (OSError, *LINE_GONE) as error:
        raise CutOff(f"the sftp server does not answer: {error}") from error


class Writes:
    """Writes on their way to one open file. The far side may answer in any order; the first failure is raised by whoever waits next."""

    def __init__(self, client: paramiko.SFTPClient, file: paramiko.SFTPFile, pace: Pace) -> None:
        self._client, self._file, self._pace = client, file, pace
        self._waiting: dict[int, int] = {}
        self._failed: Exception | None = None
        self.on_way = 0

    def send(self, at: int, data: memoryview) -> None:
        """Write at an offset, whatever its status will be."""
        if not self._waiting:
            self._pace.begin()
        words = (self._file.handle, int64(at), data)
        number = self._client._async_request(self, CMD_WRITE, *words)  # type: ignore[attr-defined]
        self._waiting[number] = len(data)
        self.on_way += len(data)

    def wait(self, most: int) -> None:
        """Read statuses until no more than `most` bytes are on their way. OSError if the far side could not write."""
        while self.on_way > most:
            self._client._read_response()  # type: ignore[attr-defined]
        if self._failed:
            failed, self._failed = self._failed, None
            raise failed

    def _async_response(self, kind: int, message: paramiko.Message, number: int) -> None:
        """What the client calls when a status has come, whoever was waiting for something."""
        size = self._waiting.pop(number)
        self.on_way -= size
        self._pace.told(size)
        try:
            if kind != CMD_STATUS:
                raise OSError("it answers a write with something else")
            self._client._convert_status(message)  # type: ignore[attr-defined]
        except (OSError, EOFError) as error:
            self._failed = self._failed or OSError(str(error))


def request_size(client: paramiko.SFTPClient) -> int:
    """Bytes that one request may read or write: what OpenSSH's limits extension says, else what every server takes."""
    try:
        kind, message = client._request(CMD_EXTENDED, "limits@openssh.com")  # type: ignore[attr-defined]
    except OSError:
        return REQUEST
    if kind != CMD_EXTENDED_REPLY:
        return REQUEST
    _, read, write = [message.get_int64() for _ in range(3)]
    return max(REQUEST, min(read or REQUEST, write or REQUEST, REQUEST_MAX))


def ask_ahead(file: paramiko.SFTPFile) -> None:
    """What asks ahead for this file's bytes runs in a thread of paramiko's; when the line is cut it ends, and says nothing of its own."""
    asking = file._prefetch_thread  # type: ignore[attr-defined]

    def ask(*words: Any) -> None:
        with contextlib.suppress(OSError, *LINE_GONE):
            asking(*words)

    file._prefetch_thread = ask  # type: ignore[attr-defined]


def fsync(client: paramiko.SFTPClient, file: paramiko.SFTPFile) -> bool:
    """OpenSSH's fsync extension; False where there is none. OSError if the far side could not write it down."""
    try:
        client._request(CMD_EXTENDED, "fsync@openssh.com", file.handle)  # type: ignore[attr-defined]
    except OSError as error:
        if "unsupported" in str(error).lower():
            return False
        raise
    return True


@dataclass(frozen=True, slots=True)
class Room:
    """What the far side's filesystem says of itself."""

    free: int
    read_only: bool


def room(client: paramiko.SFTPClient, path: str) -> Room | None:
    """OpenSSH's statvfs extension; None where there is none."""
    try:
        kind, message = client._request(CMD_EXTENDED, "statvfs@openssh.com", path.encode())  # type: ignore[attr-defined]
    except OSError:
        return None
    if kind != CMD_EXTENDED_REPLY:
        return None
    _, size, _, _, available, _, _, _, _, flags, _ = [message.get_int64() for _ in range(11)]
    return Room(available * size, bool(flags & 1))
