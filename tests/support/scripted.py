"""An HTTP server that answers what a test says, for what no registry would do."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Told:
    """One answer. `cut`: the connection ends after so many bytes of the body."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Answering = Callable[[Asked], Told]


@contextlib.contextmanager
def answering(answer: Answering) -> Iterator[tuple[str, list[Asked]]]:
    """HOST:PORT of the server, and the requests it got."""
    heard: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            return

        def handle_it(self) -> None:
            length = int(self.headers.get("Content-Length", "0"))
            headers = {key.lower(): value for key, value in self.headers.items()}
            asked = Asked(self.command, self.path, headers, self.rfile.read(length))
            heard.append(asked)
            told = answer(asked)
            self.send_response(told.status)
            for key, value in told.headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(told.body)))
            self.end_headers()
            if self.command != "HEAD":
                with contextlib.suppress(OSError):
                    self.wfile.write(told.body if told.cut is None else told.body[: told.cut])
            if told.cut is not None:
                self.close_connection = True
                self.connection.close()

        do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = handle_it  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}", heard
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
