"""One client for each registry that an export or import talks to."""

from __future__ import annotations

import threading

from transfer.engines.base import RegistryOptions
from transfer.engines.distribution import RegistryClient
from transfer.events import Observer


class Clients:
    """One client for each host."""

    def __init__(self, options: RegistryOptions, observer: Observer) -> None:
        self._options, self._observer = options, observer
        self._clients: dict[str, RegistryClient] = {}
        self._lock = threading.Lock()

    def of(self, host: str) -> RegistryClient:
        with self._lock:
            if host not in self._clients:
                self._clients[host] = RegistryClient(host, self._options, self._observer)
            return self._clients[host]

    def close(self) -> None:
        for each in self._clients.values():
            each.close()
