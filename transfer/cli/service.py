"""What a service says to systemd: that it is ready, what it is doing, that it is alive (sd_notify(3)); and sockets that it is given (sd_listen_fds(3))."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time

from transfer.events import Advanced, Event, Noted, Observer

FIRST_FD = 3
STATUS_SECONDS = 2.0
STUCK_SECONDS = 1800.0
"""Without a sign of progress for so long, the watchdog hears nothing more, and ends the service."""


class Service:
    """Says nothing where no service manager listens."""

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        pid, microseconds = os.environ.pop("WATCHDOG_PID", ""), os.environ.pop("WATCHDOG_USEC", "")
        self._every = 0.0
        if self._address and microseconds.isdecimal() and pid in ("", str(os.getpid())):
            self._every = int(microseconds) / 3e6
        self._alive = time.monotonic()
        self._over = threading.Event()

    def ready(self, status: str = "") -> None:
        """Started. From now on the watchdog hears of this program as long as it makes progress."""
        self.say(f"READY=1\nSTATUS={_line(status)}")
        if self._every:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def status(self, text: str) -> None:
        self._alive = time.monotonic()
        self.say(f"STATUS={_line(text)}")

    def stopping(self) -> None:
        self._over.set()
        self.say("STOPPING=1")

    def heard(self, observer: Observer) -> Observer:
        """The observer; what it is told is passed on as the status."""
        told = 0.0

        def hear(event: Event) -> None:
            nonlocal told
            self._alive = time.monotonic()
            if isinstance(event, Noted):
                self.status(event.text)
            elif isinstance(event, Advanced) and self._alive - told > STATUS_SECONDS:
                told = self._alive
                self.status(f"{event.stage} under way")
            observer(event)

        return hear if self._address else observer

    def _watch(self) -> None:
        while not self._over.wait(self._every):
            if time.monotonic() - self._alive < STUCK_SECONDS:
                self.say("WATCHDOG=1")

    def say(self, text: str) -> None:
        if not self._address:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line,
        ):
            line.connect(address)
            line.sendall(text.encode(errors="replace"))


def _line(text: str) -> str:
    return " ".join(text.split())[:500]


def listening() -> list[socket.socket]:
    """The sockets that the service manager gives; none if it gives none, or to another process."""
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    out = []
    for fd in range(FIRST_FD, FIRST_FD + int(count)):
        os.set_inheritable(fd, False)
        out.append(socket.socket(fileno=fd))
    return out


JOURNAL = "/run/systemd/journal/socket"
LOG_ERR, LOG_INFO = 3, 6  # syslog(3)


def to_journal(message: str, priority: int, fields: dict[str, str]) -> None:
    """A record with fields of its own (systemd's native journal protocol), so that `journalctl TRANSFER_SITE=NAME` finds it."""
    if not os.environ.get("JOURNAL_STREAM"):
        return
    told = {"MESSAGE": message, "PRIORITY": str(priority), "SYSLOG_IDENTIFIER": "transfer", **fields}
    data = b"".join(_field(key, value.encode(errors="replace")) for key, value in told.items() if value)
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
        line.sendto(data, JOURNAL)


def _field(key: str, value: bytes) -> bytes:
    if b"\n" not in value:
        return key.encode() + b"=" + value + b"\n"
    return key.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
