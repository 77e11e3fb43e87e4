"""One blob on its way into a registry: mounted, sent whole, or in parts where whole is refused; and gone on with after a cut or a kill."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from transfer.engines.distribution import RegistryClient, pull, push
from transfer.engines.http import BUSY
from transfer.errors import EngineError, NotFound, TransferError, TryAgain
from transfer.folders import state_folder
from transfer.model import Descriptor
from transfer.streams import IterReader, parse_object, publish, read_small, sha256

AGAIN_MAX = 8
"""So often one blob is begun again or gone on with, without a byte of progress."""
PART, PART_MIN = 16 << 20, 16 << 10
"""Bytes sent at a time where a blob cannot be sent whole, and the least that is tried (nginx takes 1 MB where nobody says more)."""
REMEMBERED_FROM = 4 << 20
"""Blobs of this size (bytes) are gone on with by a later run, where the registry keeps what it has."""
REMEMBERED_DAYS = 7
OpenAt = Callable[[int], Iterator[bytes]]


@dataclass(frozen=True, slots=True)
class _Place:
    """An upload under way: its address, how many bytes the registry has, and the least it takes at a time but at the end."""

    location: str
    start: int = 0
    least: int = 0


class Remembered:
    """Where uploads were begun, in a folder of this user: what a killed push left in a registry is found again. Never a reason to fail."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def _path(self, key: str) -> Path | None:
        return self._folder / f"{sha256(key.encode()).hex}.json" if self._folder else None

    def find(self, key: str) -> str:
        """The address that was remembered; "" for none."""
        path = self._path(key)
        with contextlib.suppress(TransferError, OSError):
            if path:
                found = parse_object(read_small(path), str(path))
                location = found.get("location")
                return location if found.get("key") == key and isinstance(location, str) else ""
        return ""

    def put(self, key: str, location: str) -> None:
        path = self._path(key)
        with contextlib.suppress(TransferError, OSError):
            if path:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                publish(path, json.dumps({"key": key, "location": location}).encode(), 0o600)

    def drop(self, key: str) -> None:
        path = self._path(key)
        with contextlib.suppress(OSError):
            if path:
                path.unlink()

    def tidy(self) -> None:
        """Forget what no registry keeps any more."""
        with contextlib.suppress(OSError):
            for each in os.scandir(self._folder) if self._folder else ():
                old = time.time() - each.stat(follow_symlinks=False).st_mtime > REMEMBERED_DAYS * 86400
                if old and re.fullmatch(r"[0-9a-f]{64}\.json", each.name):
                    Path(each.path).unlink()


def remembered() -> Remembered:
    """The folder of this user's uploads; none where no state is kept."""
    folder = state_folder() if os.environ.get("TRANSFER_STORE") != "none" else None
    out = Remembered(folder / "transfer-uploads" if folder else None)
    out.tidy()
    return out


class Upload:
    """One blob on its way into a repository. `sent`: bytes of it that were given to the registry."""

    def __init__(self, client: RegistryClient, repository: str, memory: Remembered = Remembered(None)) -> None:  # noqa: B008 - has no state
        self._client, self._repository, self._memory = client, repository, memory
        self._scope = push(repository)
        self._part = 0
        self.sent = 0

    def put(self, blob: Descriptor, open_at: OpenAt, *, mount: str = "") -> bool:
        """Send it; whether it was mounted instead. `open_at` gives the bytes from an offset on."""
        key = f"{self._client.host}/{self._repository}@{blob.digest}"
        large = blob.size >= REMEMBERED_FROM
        place = self._resumed(key, blob) if large else None
        place = place or self._begin(mount, blob)
        furthest, left = 0, AGAIN_MAX
        while left:
            if place is None:
                self._memory.drop(key)
                return True
            left = AGAIN_MAX if place.start > furthest else left - 1
            furthest = max(furthest, place.start)
            if large:
                self._memory.put(key, place.location)
            try:
                following = self._go_on(place, blob, open_at)
                if following is None:
                    self._memory.drop(key)
                    return False
                place = following
            except TryAgain as error:
                if not left:
                    raise
                self._client.gate.busy(error.message)
                if self._client.has_blob(self._repository, blob.digest, self._scope):
                    self._memory.drop(key)  # all of it came, the answer alone did not
                    return False
                place = self._status(place, blob) or self._begin("", blob)
        raise EngineError(
            f"{self._client.where}: it forgot {blob.digest} {AGAIN_MAX} times while it was sent",
            hint="see the registry's log",
        )

    def _resumed(self, key: str, blob: Descriptor) -> _Place | None:
        location = self._memory.find(key)
        if not location:
            return None
        with contextlib.suppress(TransferError):
            if self._client.is_own(self._client.joined("/v2/", location)):
                return self._status(_Place(location), blob)
        return None

    def _begin(self, mount: str, blob: Descriptor) -> _Place | None:
        """A new upload; None if the blob was mounted from the repository that is named."""
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
            return self._begin("", blob)
        if reply.status == 404:
            raise EngineError(
                f"{self._client.where} has no place for {self._repository}",
                hint="create the project in the registry first, as Harbor wants it, or check the name",
            )
        if reply.status == 201 and mount:
            return None
        found = reply.headers.get("location", "")
        if not found:
            raise EngineError(f"{self._client.where}: it began an upload and does not say where")
        least = reply.headers.get("oci-chunk-min-length", "")
        return _Place(self._client.joined(path, found), 0, int(least) if least.isdecimal() and len(least) < 12 else 0)

    def _go_on(self, place: _Place, blob: Descriptor, open_at: OpenAt) -> _Place | None:
        """Send what is left, whole or in parts. None when the registry has it; else where it is to be begun again."""
        if self._part:
            return self._in_parts(place, blob, open_at)
        status = self._whole(place, blob, open_at)
        if status in (404, 416):
            return self._begin("", blob)
        if status == 413:
            self._part = max(PART, place.least)
            return self._begin("", blob)
        return None

    def _whole(self, place: _Place, blob: Descriptor, open_at: OpenAt) -> int:
        """All that is left in one PUT with its length, which nearly every registry takes. The status."""
        left = blob.size - place.start
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(left)}
        if place.start and left:
            headers["Content-Range"] = f"{place.start}-{blob.size - 1}"

        def body() -> Iterator[bytes]:
            for block in open_at(place.start):
                self.sent += len(block)
                yield block

        with self._client.stream(
            "PUT",
            _with_digest(place.location, blob),
            scope=self._scope,
            headers=headers,
            content=body if left else b"",
            ok=frozenset({201, 202, 204, 404, 413, 416}),
            repeat=False,
        ) as reply:
            return reply.status_code

    def _in_parts(self, place: _Place, blob: Descriptor, open_at: OpenAt) -> _Place | None:
        """PATCH after PATCH. A part is never sent again without asking what became of it: some registries would append it twice."""
        blocks = IterReader(open_at(place.start))
        location, start = place.location, place.start
        while start < blob.size:
            data = _taken(blocks, min(self._part, blob.size - start))
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(len(data))}
            headers["Content-Range"] = f"{start}-{start + len(data) - 1}"
            with self._client.stream(
                "PATCH",
                location,
                scope=self._scope,
                headers=headers,
                content=data,
                ok=frozenset({201, 202, 204, 404, 413, 416}),
                repeat=False,
            ) as reply:
                status, told = reply.status_code, dict(reply.headers)
            if status == 413:
                return self._smaller(_Place(location, start, place.least), blob)
            if status in (404, 416):
                return self._begin("", blob)
            self.sent += len(data)
            if status == 201:
                return None
            start += len(data)
            location = self._client.joined(location, told["location"]) if told.get("location") else location
        closed = self._client.request(
            "PUT",
            _with_digest(location, blob),
            scope=self._scope,
            headers={"Content-Length": "0"},
            ok=frozenset({201, 202, 204}),
        )
        return self._begin("", blob) if closed.status == 404 else None

    def _smaller(self, place: _Place, blob: Descriptor) -> _Place | None:
        """The same upload in smaller parts."""
        self._part //= 4
        if self._part < max(PART_MIN, place.least):
            raise EngineError(
                f"{self._client.where} or a proxy before it refuses parts of {self._part * 4} bytes as too large",
                hint="raise the size that the proxy accepts (nginx: client_max_body_size 0)",
            )
        return self._status(place, blob) or self._begin("", blob)

    def _status(self, place: _Place, blob: Descriptor) -> _Place | None:
        """Where an upload goes on; None if the registry has forgotten it, or says what cannot be."""
        try:
            reply = self._client.request("GET", place.location, scope=self._scope, ok=frozenset({200, 202, 204} | BUSY))
        except (EngineError, NotFound):
            return None
        found = re.fullmatch(r"(?:bytes=)?0-([1-9]\d{0,17})", reply.headers.get("range", ""))
        if reply.status not in (200, 202, 204) or not found:
            return None  # "0-0" is what an empty upload says, too (distribution): then a new one is begun
        following = reply.headers.get("location", "")
        start = int(found[1]) + 1
        if start > blob.size:
            return None
        location = self._client.joined(place.location, following) if following else place.location
        return _Place(location, start, place.least)


def _with_digest(location: str, blob: Descriptor) -> str:
    return f"{location}{'&' if '?' in location else '?'}digest={blob.digest}"


def _taken(blocks: IterReader, size: int) -> bytes:
    """The next `size` bytes."""
    out = bytearray()
    while len(out) < size and (data := blocks.read(size - len(out))):
        out += data
    return bytes(out)
