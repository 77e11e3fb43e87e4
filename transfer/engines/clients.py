"""One client for each registry that an export or import talks to, and where an image may be asked for."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

from transfer.engines.base import RegistryOptions
from transfer.engines.distribution import RegistryClient
from transfer.engines.endpoints import Endpoint, endpoints
from transfer.events import Observer
from transfer.model import Reference


@dataclass(frozen=True, slots=True)
class Place:
    """A repository of a registry."""

    client: RegistryClient
    repository: str


class Clients:
    """One client for each host."""

    def __init__(self, options: RegistryOptions, observer: Observer) -> None:
        self._options, self._observer = options, observer
        self._clients: dict[str, RegistryClient] = {}
        self._lock = threading.Lock()

    def of(self, host: str) -> RegistryClient:
        """The client of the registry that a name says."""
        return self._at(Endpoint(host, ""))

    def places(self, wanted: Reference) -> list[Place]:
        """Where an image may be had, in the order in which to ask."""
        found = endpoints(wanted) if self._options.mirrors else [Endpoint(wanted.domain, wanted.path)]
        return [Place(self._at(each), each.path) for each in found]

    def _at(self, each: Endpoint) -> RegistryClient:
        options = replace(
            self._options,
            verify=self._options.verify and not each.insecure,
            plain_http=self._options.plain_http or each.plain,
        )
        key = f"{each.host} {options.verify} {options.plain_http} {each.namespace}"
        with self._lock:
            if key not in self._clients:
                self._clients[key] = RegistryClient(
                    each.host, options, self._observer, namespace=each.namespace, authorities=each.authorities
                )
            return self._clients[key]

    def close(self) -> None:
        for each in self._clients.values():
            each.close()
