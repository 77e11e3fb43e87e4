"""One blob on its way into a registry."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator

from transfer.engines.distribution import RegistryClient, pull, push
from transfer.engines.http import BUSY
from transfer.errors import EngineError, TransferError, TryAgain
from transfer.model import Descriptor

AGAIN_MAX = 8
"""So often the sending of one blob goes on after a cut."""


class Upload:
    """One blob on its way into a repository: mounted from another one, or sent whole; after a cut it goes on where the registry says."""

    def __init__(self, client: RegistryClient, repository: str) -> None:
        self._client, self._repository = client, repository
        self._scope = push(repository)

    def put(self, blob: Descriptor, open_at: Callable[[int], Iterator[bytes]], *, mount: str = "") -> bool:
        """Send it; whether it was mounted instead. `open_at` gives the bytes from an offset on."""
        location = self._begin(blob, mount)
        if location is None:
            return True
        start = 0
        for attempt in itertools.count(1):
            try:
                self._send(location, blob, start, open_at)
                return False
            except (TryAgain, EngineError) as error:
                if attempt >= AGAIN_MAX or (isinstance(error, EngineError) and "416" not in error.message):
                    raise
                self._client.gate.busy(error.message)
                there = self._status(location) if isinstance(error, TryAgain) else None
                if there is None:
                    location, start = self._begin(blob, "") or location, 0
                else:
                    location, start = there
        raise AssertionError("the loop returns or raises")

    def _begin(self, blob: Descriptor, mount: str) -> str | None:
        """A new upload's address; None if the blob was mounted from the repository that is named."""
        path = f"/v2/{self._repository}/blobs/uploads/"
        scope = self._scope
        if mount:
            path += f"?mount={blob.digest}&from={mount}"
            scope = f"{self._scope} {pull(mount)}"
        try:
            reply = self._client.request(
                "POST", path, scope=scope, headers={"Content-Length": "0"}, ok=frozenset({201, 202})
            )
        except TransferError:
            if not mount:
                raise
            return self._begin(blob, "")
        if reply.status_code == 201:
            return None
        found = reply.headers.get("location", "")
        if not found:
            raise EngineError(f"{self._client.where}: it began an upload and does not say where")
        return self._client.joined(path, found)

    def _send(self, location: str, blob: Descriptor, start: int, open_at: Callable[[int], Iterator[bytes]]) -> None:
        """All that is left in one PUT with its length: what every registry takes."""
        url = f"{location}{'&' if '?' in location else '?'}digest={blob.digest}"
        left = blob.size - start
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(left)}
        if start:
            headers["Content-Range"] = f"{start}-{blob.size - 1}"
        with self._client.stream(
            "PUT",
            url,
            scope=self._scope,
            headers=headers,
            content=lambda: open_at(start),
            ok=frozenset({201, 202, 204}),
            repeat=False,
        ):
            return

    def _status(self, location: str) -> tuple[str, int] | None:
        """Where an upload goes on, and how many bytes the registry has; None if it has forgotten it."""
        try:
            reply = self._client.request("GET", location, scope=self._scope, ok=frozenset({200, 202, 204} | BUSY))
        except EngineError:
            return None
        if reply.status_code not in (200, 202, 204):
            return None
        found = re.fullmatch(r"(?:bytes=)?0-(\d{1,18})", reply.headers.get("range", ""))
        following = reply.headers.get("location", "")
        # "0-0" is what an empty upload says, too (distribution): from the start then, and anew if one byte was there
        end = int(found[1]) if found else 0
        return (self._client.joined(location, following) if following else location), end + 1 if end else 0
