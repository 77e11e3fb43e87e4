"""Bad lines for the tests: a TCP proxy that cuts, freezes, damages, delays and throttles, and network namespaces.

The delay is the proxy's because the kernels of many small machines have no netem (`namespaces(delay=...)` skips there).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import select
import signal
import socket
import struct
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support import engines
from tests.support.ssh import needed

BLOCK = 256 * 1024
LINE_BYTES = 64 << 20
CONNECT_SECONDS = 10.0
_NAMES = itertools.count()
_NEWKEYS = 21


@dataclass(eq=False)
class _Way:
    """One direction of one connection: what was read from the source and is on its way to the sink."""

    source: socket.socket
    sink: socket.socket
    up: bool
    flip: int | None = None
    line: deque[tuple[float, memoryview]] = field(default_factory=deque)
    held: int = 0
    seen: int = 0
    head: bytes = b""
    ended: bool = False
    shut: bool = False


class Proxy:
    """A TCP proxy on a free port of 127.0.0.1, run by one thread of the test process for as long as a `with` block.

    connections, cuts and flips count these. delay (seconds each way) and rate (bytes/s each way, over all connections) may be changed at any time. A connection
    is set up without delay. schedule: see cut_after.
    """

    def __init__(
        self, target: tuple[str, int], *, schedule: Sequence[int] = (), delay: float = 0.0, rate: float = 0.0
    ) -> None:
        self.target = target
        self.delay, self.rate = delay, rate
        self.connections = self.cuts = self.flips = 0
        self._sent = self._received = 0
        self._schedule, self._left = list(schedule[1:]), next(iter(schedule), None)
        self._flip: int | None = None
        self._frozen = self._stopped = False
        self._free = {True: 0.0, False: 0.0}
        self._links: list[tuple[_Way, _Way]] = []
        self._lock = threading.Lock()
        self._waker, self._wake = socket.socketpair()
        self._wake.setblocking(False)
        self._door = socket.socket()
        # Small buffers in the kernel, so that what the client has sent is about what has passed.
        self._door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BLOCK)
        self._door.bind(("127.0.0.1", 0))
        self._door.listen(128)
        self._door.setblocking(False)
        self.port = int(self._door.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._told():
            self._stopped = True
        self._thread.join()
        for each in (self._door, self._wake, self._waker):
            each.close()

    @property
    def sent(self) -> int:
        """The bytes that went on to the server."""
        with self._lock:
            return self._sent

    @property
    def received(self) -> int:
        """The bytes that went on to the client."""
        with self._lock:
            return self._received

    def cut_after(self, *counts: int) -> None:
        """Reset all connections when so many more bytes went to the server (0: now), and so on for each further count.

        Each count begins at the cut before it. New connections work at once. Replaces what was planned; no count: no
        cut. Of the last bytes some may not arrive, as with any reset.
        """
        with self._told():
            self._left, self._schedule = next(iter(counts), None), list(counts[1:])

    def freeze(self) -> None:
        """Forward nothing, accept nothing and close nothing from now on, as a line that is dead without a word."""
        with self._told():
            self._frozen = True

    def thaw(self) -> None:
        """Go on after freeze(), with all that waited."""
        with self._told():
            self._frozen = False

    def flip_at(self, count: int) -> None:
        """Change a bit of the count-th byte (from 0) which the next connection's client sends after an SSH handshake.

        After means after the client's NEWKEYS, so that the byte is encrypted; logging in takes the next 1 to 2 KB. What
        does not begin as SSH is counted from its beginning.
        """
        with self._told():
            self._flip = count

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Change something while the thread does nothing, then let it look."""
        with self._lock:
            yield
        self._waker.send(b".")

    def _serve(self) -> None:
        """Move bytes until stopped."""
        while True:
            with self._lock:
                wanted, patience = self._wanted(time.monotonic())
            poller = select.poll()
            for number, mask in wanted.items():
                poller.register(number, mask)
            ready = dict(poller.poll(patience))
            with self._lock:
                if self._stopped:
                    break
                self._step(ready)
        for link in self._links:
            _reset(*link)

    def _wanted(self, now: float) -> tuple[dict[int, int], float | None]:
        """The sockets to wait for with what they should be ready for, and for how many milliseconds at most."""
        wanted: dict[int, int] = {self._wake.fileno(): select.POLLIN}
        if self._frozen:
            return wanted, None
        wanted[self._door.fileno()] = select.POLLIN
        waits: list[float] = []
        for way in itertools.chain.from_iterable(self._links):
            if not way.ended and way.held < self._capacity():
                number = way.source.fileno()
                wanted[number] = wanted.get(number, 0) | select.POLLIN
            if way.line:
                wait = max(way.line[0][0], self._free[way.up]) - now
                if wait > 0:
                    waits.append(wait)
                else:
                    number = way.sink.fileno()
                    wanted[number] = wanted.get(number, 0) | select.POLLOUT
        return wanted, max(1.0, min(waits) * 1000) if waits else None

    def _capacity(self) -> float:
        """How many bytes one way of the line holds: no more than a block where nothing asks for a long line."""
        return BLOCK + (self.rate * self.delay if self.rate else LINE_BYTES if self.delay else 0)

    def _step(self, ready: dict[int, int]) -> None:
        """Do what the sockets are ready for."""
        if self._wake.fileno() in ready:
            self._wake.recv(BLOCK)
        if self._left == 0:
            self._cut()
        if self._frozen:
            return
        if self._door.fileno() in ready:
            self._accept()
        for link in list(self._links):
            try:
                # A cut in the midst of this empties the list.
                for way in link:
                    if link in self._links and ready.get(way.source.fileno(), 0) & ~select.POLLOUT:
                        self._read(way)
                    if link in self._links and ready.get(way.sink.fileno(), 0) & ~select.POLLIN:
                        self._write(way)
            except BlockingIOError:
                continue
            except OSError:
                self._drop(link)
            if link in self._links and all(way.shut for way in link):
                self._drop(link)

    def _accept(self) -> None:
        """Take one connection and make the one to the server; reset it if there is no server."""
        client, _ = self._door.accept()
        try:
            server = socket.create_connection(self.target, CONNECT_SECONDS)
        except OSError:
            _close_abruptly(client)
            return
        for each in (client, server):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BLOCK)
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections += 1
        self._links.append((_Way(client, server, True, self._flip), _Way(server, client, False)))
        self._flip = None

    def _read(self, way: _Way) -> None:
        """Put what came, or the end, on the line."""
        if way.ended or way.held >= self._capacity():
            return
        data = bytearray(way.source.recv(BLOCK))
        way.ended = not data
        if way.flip is not None:
            self._damage(way, data)
        way.seen += len(data)
        way.held += len(data)
        way.line.append((time.monotonic() + self.delay, memoryview(data)))

    def _damage(self, way: _Way, data: bytearray) -> None:
        """Change the bit that was asked for, if it is here."""
        way.head += data
        start = _handshake_end(way.head)
        if start is None or way.flip is None:
            return
        at = start + way.flip - way.seen
        if at < len(data):
            data[at] ^= 1
            way.flip, way.head = None, b""
            self.flips += 1

    def _write(self, way: _Way) -> None:
        """Send what is due, as much as the rate and the next cut allow."""
        now = time.monotonic()
        if not way.line or max(way.line[0][0], self._free[way.up]) > now:
            return
        due, data = way.line[0]
        if not data:
            way.sink.shutdown(socket.SHUT_WR)
            way.shut = True
            way.line.popleft()
            return
        most = max(1460, int(self.rate / 100)) if self.rate else len(data)
        if way.up and self._left is not None:
            most = min(most, self._left)
        count = way.sink.send(data[:most])
        if count == len(data):
            way.line.popleft()
        else:
            way.line[0] = (due, data[count:])
        self._count(way, count, now)

    def _count(self, way: _Way, count: int, now: float) -> None:
        """Count what was sent; cut if it was the last."""
        way.held -= count
        if self.rate:
            # What a late wake-up lost may be made up for, up to 50 ms.
            self._free[way.up] = max(self._free[way.up], now - 0.05) + count / self.rate
        if not way.up:
            self._received += count
            return
        self._sent += count
        if self._left is not None:
            self._left -= count
            if self._left == 0:
                self._cut()

    def _cut(self) -> None:
        """Reset all connections, and plan the next cut."""
        self.cuts += 1
        for link in self._links:
            _reset(*link)
        self._links.clear()
        self._left = self._schedule.pop(0) if self._schedule else None

    def _drop(self, link: tuple[_Way, _Way]) -> None:
        """Forget a connection; one that did not end on both sides is reset."""
        self._links.remove(link)
        if all(way.shut for way in link):
            for way in link:
                way.source.close()
        else:
            _reset(*link)


def _reset(*ways: _Way) -> None:
    """Reset both sides of a connection."""
    for way in ways:
        _close_abruptly(way.source)


def _close_abruptly(side: socket.socket) -> None:
    """Close with RST instead of FIN."""
    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    side.close()


def _handshake_end(sent: bytes) -> int | None:
    """Where what a client has sent begins to be encrypted (RFC 4253): 0 if it is not SSH, None if that is to come."""
    if not sent.startswith(b"SSH-"[: len(sent)]):
        return 0
    at = sent.find(b"\n") + 1
    while at > 0 and at + 6 <= len(sent):
        kind, at = sent[at + 5], at + 4 + int.from_bytes(sent[at : at + 4], "big")
        if kind == _NEWKEYS:
            return at
    return None


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace with an IPv4 address of its own."""

    name: str
    address: str

    def command(self, *words: object) -> list[str]:
        """The command line which runs these words inside; without words, what to put before a command line."""
        return ["ip", "netns", "exec", self.name, *map(str, words)]

    def run(self, *words: object, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run words inside with this standard input; any status will do."""
        return subprocess.run(self.command(*words), input=data, capture_output=True, check=False, timeout=60)


@contextlib.contextmanager
def namespaces(
    *, rate: str = "", queue: str = "burst 128kb latency 50ms", delay: str = ""
) -> Iterator[tuple[Namespace, Namespace]]:
    """Two network namespaces with a cable between them, each with one end.

    Both send at `rate` ("100mbit", as tc says) or after `delay` ("20ms"), which needs netem in the kernel. Raises
    EngineError if something does not work.
    """
    needed("netns", engines._missing_programs("ip", "tc") or engines._missing_rights())
    if delay:
        needed("netem", missing_netem())
    _sweep()
    base = f"{engines.PREFIX}{os.getpid()}-{next(_NAMES)}"
    ends = Namespace(f"{base}-a", "10.213.0.1"), Namespace(f"{base}-b", "10.213.0.2")
    shape = f"netem delay {delay}" if delay else f"tbf rate {rate} {queue}" if rate else ""
    try:
        for end in ends:
            _ip(f"netns add {end.name}")
        _ip(f"link add cable netns {ends[0].name} type veth peer name cable netns {ends[1].name}")
        for end in ends:
            _ip(f"-n {end.name} address add {end.address}/24 dev cable")
            for device in ("lo", "cable"):
                _ip(f"-n {end.name} link set {device} up")
            if shape:
                _shape(end.name, "cable", shape)
        yield ends
    finally:
        for end in ends:
            _remove(end.name)


def missing_netem() -> str | None:
    """Why there can be no netem here; None if there can."""
    name = f"{engines.PREFIX}{os.getpid()}-{next(_NAMES)}-netem"
    try:
        _ip(f"netns add {name}")
        _shape(name, "lo", "netem delay 1ms")
    except engines.EngineError as error:
        return str(error)
    finally:
        _remove(name)
    return None


def _sweep() -> None:
    """Remove the namespaces which dead test processes left."""
    for line in engines._output(["ip", "netns", "list"]).splitlines():
        found = re.match(rf"{engines.PREFIX}(\d+)-\d+-\w+", line)
        if found and not _lives(found[1]):
            _remove(found[0])


def _lives(pid: str) -> bool:
    """Whether there is such a process, but it is not dead but for the formalities."""
    with contextlib.suppress(OSError):
        return Path("/proc", pid, "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    return False


def _remove(name: str) -> None:
    """Remove a namespace, if it is there, and what runs in it; its end of the cable takes the other along."""
    if Path("/run/netns", name).exists():
        # Nothing in it is worth more than the end of the test.
        for pid in engines._output(["ip", "netns", "pids", name]).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        _ip(f"netns delete {name}")


def _ip(words: str) -> None:
    """One command of ip."""
    engines._output(["ip", *words.split()])


def _shape(name: str, device: str, shape: str) -> None:
    """Let a device in a namespace send only in this manner of tc."""
    engines._output(["tc", "-n", name, "qdisc", "add", "dev", device, "root", *shape.split()])
