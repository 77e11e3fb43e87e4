"""One Docker daemon's API: calls, streams, and every failure under a name of ours (https://docs.docker.com/engine/api/)."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transfer.engines.http import failing, told_error
from transfer.errors import EngineError, NotFound, TransferError, UsageError
from transfer.model import Platform

if TYPE_CHECKING:
    import httpx  # 70 ms, which only those pay who talk to a daemon

LOG = logging.getLogger(__name__)
DEFAULT_HOST = "unix:///var/run/docker.sock"
_NO_DOCKER = "check that DOCKER_HOST names a Docker daemon"


class DockerClient:
    """One daemon. Every failure comes out as one of our errors, naming the daemon."""

    def __init__(self, host: str = "") -> None:
        self.host = host or os.environ.get("DOCKER_HOST", "") or DEFAULT_HOST
        self.where = f"the Docker at {self.host}"
        self.local = self.host.startswith("unix://")
        self._http = _client(self.host)
        self._version: dict[str, Any] | None = None
        self._info: dict[str, Any] | None = None

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> Any:
        """A GET's JSON; None for 404."""
        reply = self._send("GET", path, params)
        return None if reply.status_code == 404 else self._json(reply)

    def do(self, method: str, path: str, **params: Any) -> None:
        """A call whose answer is only success or not. NotFound for 404."""
        reply = self._send(method, path, params)
        if reply.status_code == 404:
            raise NotFound(f"{self.where}: {told_error(reply.content)}")
        self._json(reply)

    def _send(self, method: str, path: str, params: Mapping[str, Any]) -> httpx.Response:
        started = time.monotonic()
        with self._failing():
            reply = self._http.request(method, path, params=dict(params))
        LOG.info("%s %s %s: %d, %.3f s", self.host, method, path, reply.status_code, time.monotonic() - started)
        return reply

    def _json(self, reply: httpx.Response) -> Any:
        if reply.status_code >= 300:
            raise EngineError(f"{self.where}: {told_error(reply.content)} (HTTP {reply.status_code})")
        with self._failing():
            return (
                json.loads(reply.content) if reply.content.strip() else None
            )  # podman ends an empty answer with a line end

    def ask(self, path: str, **params: Any) -> dict[str, Any]:
        """A GET's object, empty for 404. EngineError for anything else: this is no Docker."""
        value = self.get(path, **params)
        if value is not None and not isinstance(value, dict):
            raise EngineError(f"{self.where}: {path} gave an unexpected answer", hint=_NO_DOCKER)
        return value or {}

    def images(self, **params: Any) -> list[dict[str, Any]]:
        """All images, each with its Id."""
        value = self.get("/images/json", **params)
        if not isinstance(value, list) or not all(isinstance(e, dict) and isinstance(e.get("Id"), str) for e in value):
            raise EngineError(f"{self.where}: its list of images cannot be read", hint=_NO_DOCKER)
        return value

    def answers(self) -> bool:
        """Whether the daemon is there at all."""
        try:
            return bool(self.ask("/version"))
        except TransferError:
            return False

    def _failing(self) -> contextlib.AbstractContextManager[None]:
        hint = "check that the daemon is running, that you may use its socket, and that DOCKER_HOST is right"
        return failing(self.where, hint, engine=True)

    @contextlib.contextmanager
    def stream(
        self, method: str, path: str, *, content: Iterator[bytes] | None = None, length: int = 0, **params: Any
    ) -> Iterator[Iterator[bytes]]:
        """A call whose answer is streamed, as blocks. `content` is an archive of `length` bytes."""
        with (
            self._failing(),
            self._http.stream(
                method,
                path,
                params=params,
                content=content,
                headers={"Content-Type": "application/x-tar", "Content-Length": str(length)} if content else None,
            ) as reply,
        ):
            LOG.info("%s %s %s: %d, streamed", self.host, method, path, reply.status_code)
            if reply.status_code >= 400:
                text = told_error(reply.read())
                kind = NotFound if reply.status_code == 404 else EngineError
                raise kind(f"{self.where}: {text} (HTTP {reply.status_code})")
            yield reply.iter_raw()

    @property
    def platform(self) -> Platform:
        """What this daemon runs."""
        if self._version is None:
            self._version = self.ask("/version")
        return Platform(str(self._version.get("Os", "linux")), str(self._version.get("Arch", "amd64")))

    @property
    def info(self) -> dict[str, Any]:
        """What it says of itself: its store, its data folder. Asked once."""
        if self._info is None:
            self._info = self.ask("/info")
        return self._info

    def has_containerd_store(self) -> bool:
        """Whether images live in containerd: image IDs are then manifest digests."""
        status = self.info.get("DriverStatus") or []
        return ["driver-type", "io.containerd.snapshotter.v1"] in status

    def inspect(self, reference: str) -> dict[str, Any] | None:
        """An image by name or ID."""
        found = self.ask(f"/images/{reference}/json")
        if found and not isinstance(found.get("Id"), str):
            raise EngineError(f"{self.where}: its answer about {reference!r:.100} cannot be read", hint=_NO_DOCKER)
        return found or None


def _client(host: str) -> httpx.Client:
    import httpx

    timeout = httpx.Timeout(None, connect=10.0)
    if host.startswith("unix://") and len(host) > 7:
        transport = httpx.HTTPTransport(uds=host.removeprefix("unix://"), verify=False)  # no TLS here to load roots for
        return httpx.Client(transport=transport, base_url="http://docker", timeout=timeout)
    if host.startswith(("tcp://", "http://", "https://")):
        address = host.partition("://")[2]
        if not re.fullmatch(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?/?", address, re.ASCII):
            raise UsageError(f"DOCKER_HOST {host!r:.200} is not an address", hint="write it as tcp://host:port")
        secure = bool(os.environ.get("DOCKER_TLS_VERIFY")) or host.startswith("https://")
        verify = _tls() if secure else True
        scheme = "https" if secure else "http"
        return httpx.Client(base_url=f"{scheme}://{address}", timeout=timeout, verify=verify)
    raise UsageError(
        f"DOCKER_HOST {host!r:.200}: only unix:// and tcp:// are understood",
        hint="for ssh://, forward the socket: ssh -L /tmp/d.sock:/var/run/docker.sock host",
    )


def _tls() -> ssl.SSLContext:
    folder = Path(os.environ.get("DOCKER_CERT_PATH", "") or Path.home() / ".docker")
    try:
        context = ssl.create_default_context(cafile=folder / "ca.pem")
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    except OSError as error:
        raise UsageError(f"DOCKER_TLS_VERIFY is set, but the keys in {folder} cannot be read: {error}") from error
    return context
