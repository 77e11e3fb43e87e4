"""The application on a socket: uvicorn with TLS, in this thread or one of its own."""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from transfer.errors import EngineError, UsageError, from_os_error
from transfer.serve.app import App
from transfer.work import background

if TYPE_CHECKING:
    import uvicorn

STOP_SECONDS = 10
CONNECTIONS_MAX = 1000


@dataclass(frozen=True, slots=True)
class Tls:
    """The server's certificate and key, and whose clients are let in (None: everybody)."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


def listen(address: str) -> socket.socket:
    """A socket on HOST:PORT; port 0 is a free one. UsageError for what is not an address."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"{address!r:.100} is not an address", hint="write HOST:PORT, such as 127.0.0.1:5000")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    out = socket.socket(family, socket.SOCK_STREAM)
    try:
        out.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        out.bind((host.strip("[]"), int(port)))
        out.listen(128)  # whoever reads the address may connect at once
    except OSError as error:
        out.close()
        raise from_os_error(error, f"listening on {address}") from error
    return out


def _server(app: Any, tls: Tls | None) -> uvicorn.Server:
    import ssl

    import uvicorn

    silent = logging.getLogger("uvicorn")
    silent.addHandler(logging.NullHandler())
    silent.propagate = False
    try:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            ws="none",
            h11_max_incomplete_event_size=64 << 10,
            timeout_keep_alive=30,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_graceful_shutdown=STOP_SECONDS,
            ssl_certfile=str(tls.certificate) if tls else None,
            ssl_keyfile=str(tls.key) if tls else None,
            ssl_ca_certs=str(tls.client_ca) if tls and tls.client_ca else None,
            ssl_cert_reqs=ssl.CERT_REQUIRED if tls and tls.client_ca else ssl.CERT_NONE,
        )
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"the certificate or key cannot be used: {error}", hint="check --tls-cert and --tls-key"
        ) from error
    return uvicorn.Server(config)


class _Watched:
    """The application, and when it was asked last."""

    def __init__(self, app: App) -> None:
        self._app, self._active, self._last = app, 0, time.monotonic()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self._active += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._active -= 1
            self._last = time.monotonic()

    def idle(self) -> float:
        """Seconds since the last request ended; 0 while one is under way."""
        return 0.0 if self._active else time.monotonic() - self._last


def run(
    app: App,
    sock: socket.socket,
    tls: Tls | None = None,
    *,
    idle: float = 0,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGINT or SIGTERM, or until nobody asked for `idle` seconds (0: for ever); what is under way is finished first."""
    before = {each: signal.signal(each, signal.SIG_IGN) for each in (signal.SIGINT, signal.SIGTERM)}
    watched = _Watched(app)
    server = _server(watched, tls)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(min(1.0, idle / 4)):
            if watched.idle() > idle:
                server.should_exit = True
                return

    if idle:
        background(watch, "idle")
    ready()
    try:  # uvicorn raises the signal that ended it once more, for handlers that were there before
        server.run(sockets=[sock])
    finally:
        over.set()
        for number, handler in before.items():
            signal.signal(number, handler)


class Background:
    """The application served by a thread, for as long as the `with` block takes."""

    def __init__(self, app: App, address: str = "127.0.0.1:0") -> None:
        self.app, self._socket = app, listen(address)
        self.port = int(self._socket.getsockname()[1])
        self._server = _server(app, None)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="registry", daemon=True
        )

    def __enter__(self) -> Background:
        self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        self._thread.start()
        until = time.monotonic() + STOP_SECONDS
        while not self._server.started:
            if time.monotonic() > until or not self._thread.is_alive():
                raise EngineError("the registry in this process did not start")
            time.sleep(0.005)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._server.force_exit = kind is not None
        self._thread.join(STOP_SECONDS)
        self._socket.close()
