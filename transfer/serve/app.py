"""The read-only registry as an ASGI application (OCI distribution-spec 1.1, pull and discovery): paths to answers, no sockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import json
import logging
import re
import threading
import time
import urllib.parse
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from transfer.errors import TransferError
from transfer.model import Descriptor, Digest
from transfer.work import background

LOG = logging.getLogger(__name__)
Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
_NAME = r"(?P<name>[a-z0-9]+(?:[._:/-]+[a-z0-9]+)*)"
_DIGEST = r"(?P<digest>sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})"
_PATHS = {
    "manifest": re.compile(rf"/v2/{_NAME}/manifests/(?P<reference>[A-Za-z0-9_][\w.:-]{{0,140}})", re.ASCII),
    "blob": re.compile(rf"/v2/{_NAME}/blobs/{_DIGEST}", re.ASCII),
    "tags": re.compile(rf"/v2/{_NAME}/tags/list", re.ASCII),
    "referrers": re.compile(rf"/v2/{_NAME}/referrers/{_DIGEST}", re.ASCII),
}
_NO_DIGEST = re.compile(rf"/v2/{_NAME}/(?:blobs|referrers)/[^/]*", re.ASCII)
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
REBUILDS = 4
"""Layers that are rebuilt at once; whoever comes later waits."""
PAGE_MAX = 1000
BODY_MAX = 64 << 20
"""Bytes of a refused upload that are read before the connection is closed."""
STALLED = 60.0
"""Seconds in which a client takes nothing, after which its connection is closed."""
MARKED = 60.0
"""Seconds for which a layer that turned out damaged is refused: clients ask again and again otherwise."""
THREADS = 16
BLOCKS_AHEAD = 4
"""Blocks that wait for each client (256 KiB each)."""


@dataclass(frozen=True, slots=True)
class Blob:
    """Something with a digest: how large, and how to read it from an offset on.

    `at_hand`: reading costs no more than a file, so as many may read at once as like.
    """

    size: int
    open: Callable[[int], Iterator[bytes]]
    at_hand: bool = False


class Holdings(Protocol):
    """What there is to serve. Called from worker threads."""

    def manifest(self, name: str, reference: str, host: str) -> tuple[Descriptor, bytes] | None:
        """By tag or digest. `host`: the registry that the client believes to ask ("" if it does not say)."""
        ...

    def blob(self, name: str, digest: Digest, host: str) -> Blob | None: ...

    def tags(self, name: str, host: str) -> list[str] | None: ...

    def repositories(self) -> list[str]: ...

    def referrers(self, name: str, digest: Digest, host: str) -> list[dict[str, Any]]: ...

    policy: str
    """The Content-Security-Policy of the page."""

    def page(self, under_way: int) -> str:
        """A page for people, as HTML. `under_way`: how many answers are being sent."""
        ...


@dataclass(frozen=True)
class Answer:
    """What is sent back. `body` is read in a worker thread; `blob` is what it is of, if that has to be rebuilt."""

    status: int
    headers: Mapping[str, str]
    body: Iterator[bytes] = field(default_factory=lambda: iter(()))
    blob: Blob | None = None


class App:
    """The application. `users` says whether a user and password are known (None: everybody may read); `prefix` is part of every path.

    `failure` is the first that a body met.
    """

    def __init__(
        self, holdings: Holdings, *, users: Callable[[str, str], bool] | None = None, prefix: str = ""
    ) -> None:
        self._holdings, self._users, self.prefix = holdings, users, prefix
        self._rebuilds = threading.Semaphore(REBUILDS)
        self._threads = ThreadPoolExecutor(THREADS, "serve")
        self._marked: dict[str, float] = {}
        self.failure: TransferError | None = None
        self.under_way = 0

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        method, path, query = scope["method"], scope["path"], scope["query_string"].decode("latin-1")
        try:
            answer = await self._threaded(self._answer, method, path, query, headers)
        except TransferError as error:
            LOG.info("%s: %s", path, error.message)
            self._failed(error)
            answer = _error(500, "UNKNOWN", error.message)
        if method not in ("GET", "HEAD"):
            await _drain(receive)
        body = method == "GET" or answer.status >= 400
        gone = asyncio.ensure_future(_gone(receive))
        self.under_way += 1
        try:
            await self._send(answer, send, path, gone, body=body)
        finally:
            self.under_way -= 1
            gone.cancel()

    async def _threaded(self, function: Callable[..., Any], *arguments: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(function, *arguments))

    def _failed(self, error: TransferError) -> None:
        """Kept without what led to it: a request's headers hang on that."""
        if self.failure is None:
            self.failure = error.with_traceback(None)
            self.failure.__cause__ = self.failure.__context__ = None

    def allow_again(self) -> None:
        """Layers that failed may be asked for again."""
        self._marked.clear()

    async def _send(self, answer: Answer, send: Send, path: str, gone: asyncio.Future[None], *, body: bool) -> None:
        """Headers, then the body. One that fails breaks the connection before its last byte: never a whole wrong one."""
        raw = [(key.lower().encode(), value.encode("latin-1", "replace")) for key, value in answer.headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": raw})
        if body:
            rebuilt = answer.blob is not None and not answer.blob.at_hand
            try:
                await self._stream(_Ahead(answer.body, self._rebuilds if rebuilt else None), send, gone)
            except TransferError as error:
                LOG.info("a body was broken off: %s", error.message)
                self._failed(error)
                self._marked[path] = time.monotonic() + MARKED
                raise ConnectionError(error.message) from None
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    @staticmethod
    async def _stream(blocks: _Ahead, send: Send, gone: asyncio.Future[None]) -> None:
        """Block by block, for as long as somebody takes them."""
        try:
            while not gone.done() and (block := await blocks.next()) is not None:
                async with asyncio.timeout(STALLED):
                    await send({"type": "http.response.body", "body": block, "more_body": True})
        except TimeoutError:
            LOG.info("a client takes nothing; its connection is closed")
            raise ConnectionError("a client takes nothing") from None
        finally:
            blocks.stop()

    def _answer(self, method: str, path: str, query: str, headers: Mapping[str, str]) -> Answer:
        if self._users and not self._knows(headers.get("authorization", "")):
            return _error(
                401, "UNAUTHORIZED", "log in", {"WWW-Authenticate": 'Basic realm="transfer", charset="UTF-8"'}
            )
        if method not in ("GET", "HEAD"):
            return _error(405, "UNSUPPORTED", "this registry is read-only", {"Allow": "GET, HEAD"})
        if self.prefix:
            if not path.startswith(f"/v2/{self.prefix}/") and path not in ("/v2", "/v2/"):
                return _error(404, "NAME_UNKNOWN", "no such repository")
            path = path.replace(f"/v2/{self.prefix}/", "/v2/", 1)
        try:
            words = urllib.parse.parse_qs(query, max_num_fields=20)
        except ValueError:
            return _error(400, "UNSUPPORTED", "too many fields in the query")
        if self._marked.get(path, 0) > time.monotonic():
            return _error(403, "DENIED", "this blob is damaged here; see the messages of this server")
        host = words.get("ns", [""])[0]
        if path in ("/v2", "/v2/"):
            return _json({})
        if path == "/v2/_catalog":
            return self._paged(path, "repositories", self._holdings.repositories(), words, {})
        for kind, pattern in _PATHS.items():
            match = pattern.fullmatch(path)
            if match:
                return getattr(self, f"_{kind}")(match, host, headers, words)  # type: ignore[no-any-return]
        if _NO_DIGEST.fullmatch(path):
            return _error(400, "DIGEST_INVALID", "what follows is not a sha256 or sha512 digest")
        if path == "/" and not self.prefix:
            policy = {"Content-Security-Policy": self._holdings.policy, "Referrer-Policy": "no-referrer"}
            return _text(200, "text/html; charset=utf-8", self._holdings.page(self.under_way).encode(), policy)
        return _error(404, "NAME_UNKNOWN", "no such path")

    def _knows(self, given: str) -> bool:
        try:
            user, _, password = base64.b64decode(given.removeprefix("Basic "), validate=True).decode().partition(":")
        except ValueError:
            return False
        return bool(self._users and given.startswith("Basic ") and self._users(user, password))

    def _manifest(
        self, match: re.Match[str], host: str, headers: Mapping[str, str], words: Mapping[str, list[str]]
    ) -> Answer:
        found = self._holdings.manifest(match["name"], match["reference"], host)
        if found is None:
            return _error(404, "MANIFEST_UNKNOWN", f"{match['name']}: no manifest {match['reference']} is held here")
        descriptor, data = found
        told = _digest_headers(descriptor.digest) | {"Content-Type": descriptor.media_type}
        if descriptor.digest.text in headers.get("if-none-match", ""):
            return Answer(304, told)
        return Answer(200, told | {"Content-Length": str(len(data))}, iter([data]))

    def _blob(
        self, match: re.Match[str], host: str, headers: Mapping[str, str], words: Mapping[str, list[str]]
    ) -> Answer:
        digest = Digest.parse(match["digest"])
        found = self._holdings.blob(match["name"], digest, host)
        if found is None:
            return _error(404, "BLOB_UNKNOWN", f"{match['name']}: no blob {digest} is held here")
        told = _digest_headers(digest) | {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        if digest.text in headers.get("if-none-match", ""):
            return Answer(304, told)
        span = _range(headers.get("range", ""), found.size)
        if span is None:
            return Answer(200, told | {"Content-Length": str(found.size)}, found.open(0), found)
        start, end = span
        if start >= end:
            return _error(416, "RANGE_INVALID", "no such range", {"Content-Range": f"bytes */{found.size}"})
        told |= {"Content-Length": str(end - start), "Content-Range": f"bytes {start}-{end - 1}/{found.size}"}
        return Answer(206, told, _first(found.open(start), end - start), found)

    def _tags(
        self, match: re.Match[str], host: str, headers: Mapping[str, str], words: Mapping[str, list[str]]
    ) -> Answer:
        found = self._holdings.tags(match["name"], host)
        if found is None:
            return _error(404, "NAME_UNKNOWN", f"{match['name']} is not held here")
        path = f"/v2/{self.prefix + '/' if self.prefix else ''}{match['name']}/tags/list"
        return self._paged(path, "tags", found, words, {"name": match["name"]})

    def _referrers(
        self, match: re.Match[str], host: str, headers: Mapping[str, str], words: Mapping[str, list[str]]
    ) -> Answer:
        found = self._holdings.referrers(match["name"], Digest.parse(match["digest"]), host)
        wanted = words.get("artifactType", [""])[0]
        kept = [each for each in found if not wanted or each.get("artifactType") == wanted]
        index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": kept}
        more = {"OCI-Filters-Applied": "artifactType"} if wanted else {}
        return _text(200, "application/vnd.oci.image.index.v1+json", json.dumps(index).encode(), more)

    @staticmethod
    def _paged(
        path: str, key: str, names: Sequence[str], words: Mapping[str, list[str]], more: Mapping[str, Any]
    ) -> Answer:
        """A list in pages of `n`, from behind `last` on (distribution-spec, listing)."""
        asked = words.get("n", [""])[0]
        count = min(int(asked), PAGE_MAX) if asked.isdecimal() and len(asked) < 10 else PAGE_MAX
        rest = [name for name in sorted(names) if name > words.get("last", [""])[0]]
        page = rest[:count]
        link = {}
        if page and len(page) < len(rest):
            following = urllib.parse.urlencode({"n": count, "last": page[-1]})
            link = {"Link": f'<{path}?{following}>; rel="next"'}
        return _text(200, "application/json", json.dumps({**more, key: page}).encode(), link)


class _Ahead:
    """A body that a thread of its own reads, a few blocks ahead of whoever sends them. `turns`: it waits for one before it begins."""

    def __init__(self, blocks: Iterator[bytes], turns: threading.Semaphore | None) -> None:
        self._blocks, self._turns = blocks, turns
        self._loop, self._arrived = asyncio.get_running_loop(), asyncio.Event()
        self._items: deque[bytes | BaseException | None] = deque()
        self._room, self._stopped = threading.Semaphore(BLOCKS_AHEAD), threading.Event()
        background(self._run, "serve")

    async def next(self) -> bytes | None:
        """The next block; None after the last. What broke the reading is raised."""
        while not self._items:
            self._arrived.clear()
            if not self._items:
                await self._arrived.wait()
        item = self._items.popleft()
        self._room.release()
        if isinstance(item, BaseException):
            raise item
        return item

    def stop(self) -> None:
        """Nobody takes more."""
        self._stopped.set()

    def _put(self, item: bytes | BaseException | None) -> None:
        self._items.append(item)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._arrived.set)

    def _got(self, what: threading.Semaphore) -> bool:
        while not self._stopped.is_set():
            if what.acquire(timeout=0.2):
                return True
        return False

    def _run(self) -> None:
        if self._turns and not self._got(self._turns):
            return
        try:
            for block in self._blocks:
                if not self._got(self._room):
                    return
                self._put(bytes(block))
            self._put(None)
        except BaseException as error:  # noqa: BLE001 - raised again by whoever sends
            self._put(error)
        finally:
            close = getattr(self._blocks, "close", None)
            if close:
                close()
            if self._turns:
                self._turns.release()


def _digest_headers(digest: Digest) -> dict[str, str]:
    return {"Docker-Content-Digest": str(digest), "ETag": f'"{digest}"'}


def _text(status: int, kind: str, data: bytes, more: Mapping[str, str] = {}) -> Answer:
    told = {"Content-Type": kind, "Content-Length": str(len(data)), "X-Content-Type-Options": "nosniff"}
    told["Docker-Distribution-API-Version"] = "registry/2.0"
    return Answer(status, {**told, **more}, iter([data]))


def _json(value: object) -> Answer:
    return _text(200, "application/json", json.dumps(value).encode())


def _error(status: int, code: str, message: str, more: Mapping[str, str] = {}) -> Answer:
    body = json.dumps({"errors": [{"code": code, "message": message[:500], "detail": None}]}).encode()
    return _text(status, "application/json", body, more)


def _range(text: str, size: int) -> tuple[int, int] | None:
    """Start and end of a single range; None for none, several, or one that cannot be read (RFC 9110, 14.2)."""
    match = _RANGE.fullmatch(text)
    if not match or not (match[1] or match[2]):
        return None
    if not match[1]:
        return max(0, size - int(match[2])), size
    return int(match[1]), min(size, int(match[2]) + 1) if match[2] else size


def _first(blocks: Iterator[bytes], count: int) -> Iterator[bytes]:
    """The first `count` bytes."""
    for block in blocks:
        yield bytes(block[:count])
        count -= len(block)
        if count <= 0:
            return


async def _gone(receive: Receive) -> None:
    """Until the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _drain(receive: Receive) -> None:
    """Read a body that is not wanted, so that the client gets the answer."""
    size, more = 0, True
    while more and size < BODY_MAX:
        message = await receive()
        size += len(message.get("body", b""))
        more = bool(message.get("more_body"))


def same(one: str, other: str) -> bool:
    """Compared in a time that tells nothing."""
    return hmac.compare_digest(one.encode(), other.encode())
