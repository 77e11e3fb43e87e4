"""A read-only registry on 127.0.0.1 (OCI distribution-spec 1.1, pull only), for an engine on this host to pull from.

Repositories are reached by a secret path that only the engine is told, so other users of the host cannot read along.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from transfer.errors import TransferError
from transfer.model import Descriptor, Digest

_PATH = re.compile(
    r"/v2/(?P<name>[a-z0-9/-]{1,200})/(?P<kind>manifests|blobs)/(?P<digest>sha(?:256|512):[0-9a-f]{64,128})", re.ASCII
)


class Registry:
    """Serves what it was given. `document` and `open` are asked for bytes only when the engine asks for them."""

    def __init__(
        self,
        prefix: str,
        document: Callable[[Digest], bytes],
        open_layer: Callable[[Descriptor], Iterator[bytes]],
    ) -> None:
        self._repository = f"{prefix}/{secrets.token_hex(16)}"
        self._document, self._open = document, open_layer
        self._manifests: dict[Digest, str] = {}
        self._configs: set[Digest] = set()
        self._layers: dict[Digest, Descriptor] = {}
        self.failures: list[TransferError] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="registry", daemon=True)

    def publish(self, manifest: Descriptor, config: Descriptor, layers: tuple[Descriptor, ...]) -> str:
        """Make an image available; the reference to pull it by."""
        self._manifests[manifest.digest] = manifest.media_type
        self._configs.add(config.digest)
        self._layers |= {layer.digest: layer for layer in layers}
        return f"127.0.0.1:{self._server.server_address[1]}/{self._repository}@{manifest.digest}"

    def __enter__(self) -> Registry:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, path: str) -> tuple[int, str, int, Iterator[bytes]]:
        """Status, content type, length and body for a path. No input or output of its own until the body is read."""
        if path in ("/v2", "/v2/"):
            return 200, "application/json", 2, iter([b"{}"])
        match = _PATH.fullmatch(path)
        if not match or not secrets.compare_digest(match["name"], self._repository):
            return 404, "application/json", 2, iter([b"{}"])
        digest = Digest(match["digest"])
        if match["kind"] == "manifests" and digest in self._manifests:
            data = self._document(digest)
            return 200, self._manifests[digest], len(data), iter([data])
        if match["kind"] == "blobs" and digest in self._configs:
            data = self._document(digest)
            return 200, "application/octet-stream", len(data), iter([data])
        layer = self._layers.get(digest)
        if match["kind"] == "blobs" and layer:
            return 200, "application/octet-stream", layer.size, self._open(layer)
        return 404, "application/json", 2, iter([b"{}"])

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._reply(body=False)

            def do_GET(self) -> None:
                self._reply(body=True)

            def _reply(self, *, body: bool) -> None:
                try:
                    status, kind, length, blocks = registry.answer(self.path.partition("?")[0])
                    self.send_response(status)
                    self.send_header("Docker-Distribution-API-Version", "registry/2.0")
                    self.send_header("Content-Type", kind)
                    self.send_header("Content-Length", str(length))
                    digest = self.path.rpartition("/")[2]
                    if status == 200 and ":" in digest:
                        self.send_header("Docker-Content-Digest", digest)
                    self.end_headers()
                    if body:
                        for block in blocks:
                            self.wfile.write(block)
                except TransferError as error:
                    registry.failures.append(error)
                    self.close_connection = True
                except OSError:
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                """Nothing is printed below the command line."""

        return Handler
