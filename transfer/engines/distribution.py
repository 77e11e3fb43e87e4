"""One registry's API (OCI distribution-spec 1.1): requests, challenges and tokens, waiting, ranges, uploads.

Bytes are never believed here: whoever reads a blob checks it against the digest that was asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from transfer.engines.base import RegistryOptions
from transfer.engines.challenges import Challenge, Token, challenges, token_of
from transfer.engines.http import BUSY, Gate, TlsFailed, failing, goes_direct, tls_context, told_error, without
from transfer.engines.logins import Credentials, credentials
from transfer.errors import CredentialsError, Damaged, EngineError, FormatError, LinkError, NotFound, TryAgain
from transfer.events import Observer, silent
from transfer.model import DOCKER_LIST, DOCKER_MANIFEST, HUB, OCI_INDEX, OCI_MANIFEST, Descriptor, Digest
from transfer.streams import MAX_DOCUMENT, sha256

if TYPE_CHECKING:
    import httpx

LOG = logging.getLogger(__name__)
ACCEPT = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST))
HUB_HOST = "registry-1.docker.io"
LISTED_MAX, PAGES_MAX = 100_000, 1000
REDIRECTS_MAX = 5
TRIES = 6
"""How often one request is made before its failure counts."""
TOKEN_MAX = 1 << 20
CERTS = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))


class RegistryClient:
    """One host. All requests of one export or import go through it, from any thread."""

    def __init__(self, host: str, options: RegistryOptions, observer: Observer = silent) -> None:
        self.host, self._options = host, options
        self.where = f"the registry {host}"
        self._address = HUB_HOST if host == HUB else host
        self.gate = Gate(host, observer, options.wait)
        self._lock = threading.Lock()
        self._tokens: dict[str, Token] = {}
        self._basic: dict[str, str] = {}
        self._client: httpx.Client | None = None
        self._base = ""

    def close(self) -> None:
        if self._client:
            self._client.close()

    # reaching it

    def _is_loopback(self) -> bool:
        name = self._address.rpartition(":")[0] or self._address
        return name in ("localhost", "[::1]") or name.startswith("127.")

    def _http(self) -> httpx.Client:
        """The client, and with the first request whether the host speaks TLS. Docker's rule: a loopback host may go without."""
        with self._lock:
            if self._client is None:
                import httpx

                folders = [folder / self._address for folder in CERTS]
                context = tls_context(folders, verify=self._options.verify)
                timeout = httpx.Timeout(60.0, connect=15.0)
                limits = httpx.Limits(max_connections=8)
                self._client = httpx.Client(
                    verify=context, timeout=timeout, limits=limits, trust_env=not goes_direct(self._address)
                )
                self._base = self._find_base(self._client)
            return self._client

    def _find_base(self, client: httpx.Client) -> str:
        secure, plain = f"https://{self._address}", f"http://{self._address}"
        if self._options.plain_http:
            return plain
        if not self._is_loopback() and self._options.verify:
            return secure
        try:
            with failing(self.where, ""):
                client.get(f"{secure}/v2/")
            return secure
        except (LinkError, TlsFailed, TryAgain):
            return plain

    # requests

    def request(
        self,
        method: str,
        path: str,
        *,
        scope: str,
        headers: Mapping[str, str] | None = None,
        content: Callable[[], Iterator[bytes]] | bytes | None = None,
        ok: frozenset[int] = frozenset({200}),
    ) -> httpx.Response:
        """A small answer, read whole. What is not in `ok` is raised, but 404, which is given back. Repeated while the host is busy."""
        with self.stream(method, path, scope=scope, headers=headers, content=content, ok=ok | {404}) as reply:
            data = b"".join(_limited(reply, self.where))
            reply._content = data
            return reply

    @contextlib.contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        scope: str,
        headers: Mapping[str, str] | None = None,
        content: Callable[[], Iterator[bytes]] | bytes | None = None,
        ok: frozenset[int] = frozenset({200}),
        repeat: bool = True,
    ) -> Iterator[httpx.Response]:
        """An answer whose body is streamed. `content` is called anew for each try; without `repeat` there is one try after the credentials are right."""
        client = self._http()
        url = path if "://" in path else self._base + path
        allowed = 0
        given = False
        for attempt in range(TRIES):
            self.gate.enter()
            last = attempt == TRIES - 1 or (not repeat and attempt >= allowed)
            try:
                with contextlib.ExitStack() as stack:
                    reply = self._send(client, stack, method, url, scope, headers, content)
                    if reply.status_code == 401 and attempt == allowed and self._authorize(reply, scope):
                        allowed += 1
                        continue
                    if reply.status_code in BUSY and reply.status_code not in ok and not last:
                        self.gate.busy(f"HTTP {reply.status_code}", reply.headers.get("retry-after"))
                        continue
                    self.gate.passed()
                    if reply.status_code not in ok:
                        raise self._refused(reply, scope)
                    given = True  # what breaks from here on is for whoever reads the answer
                    with failing(self.where, _REACH):
                        yield reply
                    return
            except TryAgain as error:
                if last or given or "broke off" not in error.message:
                    raise
                self.gate.busy(error.message)

    def _send(
        self,
        client: httpx.Client,
        stack: contextlib.ExitStack,
        method: str,
        url: str,
        scope: str,
        headers: Mapping[str, str] | None,
        content: Callable[[], Iterator[bytes]] | bytes | None,
    ) -> httpx.Response:
        started = time.monotonic()
        for _ in range(REDIRECTS_MAX + 1):
            sent = dict(headers or {})
            if _origin(url) == _origin(self._base):
                sent |= self._authorization(scope)
            body = content() if callable(content) else content
            with failing(self.where, _REACH):
                request = client.build_request(method, url, headers=sent, content=body)
                reply = client.send(request, stream=True)
            stack.callback(reply.close)
            LOG.info("%s %s: %d, %.3f s", method, _shown(url), reply.status_code, time.monotonic() - started)
            target = reply.headers.get("location", "")
            if reply.status_code not in (301, 302, 303, 307, 308) or not target:
                return reply
            following = urllib.parse.urljoin(url, target)
            scheme = urllib.parse.urlsplit(following).scheme
            if scheme not in ("http", "https") or (url.startswith("https:") and scheme != "https"):
                raise EngineError(
                    f"{self.where} redirects to {scheme or 'nowhere'}:, which is refused", hint="tell its administrator"
                )
            reply.close()
            url = following
        raise EngineError(f"{self.where} redirects without end")

    def _refused(self, reply: httpx.Response, scope: str) -> Exception:
        """What an answer means that is not one of those that were expected."""
        said = told_error(b"".join(_limited(reply, self.where)))
        status, what = reply.status_code, f"{self.where}: {said} (HTTP {reply.status_code})"
        name = scope.partition(":")[2].rpartition(":")[0]
        if status in (401, 403):
            return CredentialsError(
                what, hint=f"log in: transfer login {self.host}; or the repository {name} does not exist"
            )
        if status == 429 and reply.headers.get("ratelimit-remaining", "").startswith("0"):
            return TryAgain(what, hint=f"the quota is used up: log in (transfer login {self.host}), or wait")
        if status in BUSY:
            return TryAgain(what)
        if status == 404:
            return NotFound(what)
        return EngineError(what)

    # credentials

    def _authorization(self, scope: str) -> dict[str, str]:
        with self._lock:
            token = self._tokens.get(scope)
            if token and token.until > time.monotonic():
                return {"Authorization": f"Bearer {token.value}"}
            basic = self._basic.get(scope) or self._basic.get("")
            return {"Authorization": basic} if basic else {}

    def _authorize(self, reply: httpx.Response, scope: str) -> bool:
        """Do what a 401 asks for; whether the request is worth another try."""
        repository = scope.partition(":")[2].partition(":")[0]
        found = credentials(f"{self.host}/{repository}" if repository else self.host)
        asked = challenges(reply.headers.get_list("www-authenticate"))
        for each in asked:
            if each.scheme == "bearer" and each.parameters.get("realm"):
                token = self._fetch_token(each, scope, found)
                with self._lock:
                    self._tokens[scope] = token
                return True
        if any(each.scheme == "basic" for each in asked) and found and not found.token:
            with self._lock:
                known = self._basic.get(scope)
                self._basic[scope] = self._basic[""] = found.basic()
            return known is None
        return False

    def check(self, found: Credentials) -> None:
        """Whether the registry takes these credentials. CredentialsError if not."""
        client = self._http()
        with failing(self.where, _REACH):
            reply = client.get(f"{self._base}/v2/")
            for each in challenges(reply.headers.get_list("www-authenticate")) if reply.status_code == 401 else ():
                if each.scheme == "bearer":
                    self._fetch_token(each, "", found)
                    return
                if each.scheme == "basic":
                    reply = client.get(f"{self._base}/v2/", headers={"Authorization": found.basic()})
        if reply.status_code != 200:
            raise CredentialsError(
                f"{self.where} does not accept this user and password (HTTP {reply.status_code})", hint="check both"
            )

    def _fetch_token(self, challenge: Challenge, scope: str, found: Credentials | None) -> Token:
        """A token for the scope, from the realm (docker token specification); by refresh where there is an identity token (OAuth2)."""
        realm, service = challenge.parameters["realm"], challenge.parameters.get("service", "")
        scheme = urllib.parse.urlsplit(realm).scheme
        secure = scheme == "https" or (scheme == "http" and self._base.startswith("http:"))
        if scheme not in ("http", "https") or (found and not secure):
            raise CredentialsError(f"{self.where} wants credentials sent to {scheme}:, which is refused")
        wanted: list[tuple[str, str]] = [("service", service), *(("scope", each) for each in scope.split())]
        client = self._http()
        with failing(self.where, _REACH):
            if found and found.token:
                form = {"grant_type": "refresh_token", "refresh_token": found.token, "client_id": "transfer"}
                reply = client.post(realm, data={**form, "service": service, "scope": scope})
            else:
                basic = {"Authorization": found.basic()} if found else {}
                query = [*wanted, *([("account", found.user)] if found else [])]
                joined = f"{realm}{'&' if '?' in realm else '?'}{urllib.parse.urlencode(query)}"
                reply = client.get(joined, headers=basic)
            if reply.status_code != 200 or len(reply.content) > TOKEN_MAX:
                raise CredentialsError(
                    f"{self.where}: no token: {told_error(reply.content[:4096])} (HTTP {reply.status_code})",
                    hint=f"log in: transfer login {self.host}",
                )
            value = json.loads(reply.content)
        return token_of(value, self.where)

    def joined(self, path: str, location: str) -> str:
        """An address that an answer gave, made whole. EngineError for one of another scheme."""
        out = urllib.parse.urljoin(path if "://" in path else self._base + path, location)
        scheme = urllib.parse.urlsplit(out).scheme
        if scheme not in ("http", "https") or (self._base.startswith("https:") and scheme != "https"):
            raise EngineError(f"{self.where}: an upload that goes on at {scheme}: is refused")
        return out

    def reading(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """The blocks; a cut comes out as TryAgain."""
        with failing(self.where, _REACH):
            yield from blocks

    # what it has

    def manifest(self, repository: str, reference: str) -> tuple[Descriptor, bytes] | None:
        """A manifest or index by tag or digest, with the digest of the bytes that came; None if it is not there."""
        path = f"/v2/{repository}/manifests/{reference}"
        reply = self.request("GET", path, scope=pull(repository), headers={"Accept": ACCEPT})
        if reply.status_code == 404:
            return None
        data = reply.content
        digest = sha256(data)
        if reference.startswith("sha512:"):
            digest = Digest(f"sha512:{hashlib.sha512(data).hexdigest()}")
        if ":" in reference and str(digest) != reference:
            raise Damaged(f"{self.where}: {repository}@{reference} has other content: {digest}")
        media_type = reply.headers.get("content-type", "").partition(";")[0].strip()
        with contextlib.suppress(ValueError, RecursionError, AttributeError):
            media_type = str(json.loads(data).get("mediaType") or media_type)
        return Descriptor(media_type, digest, len(data)), data

    def head_manifest(self, repository: str, reference: str, scope: str = "") -> str | None:
        """The digest that the registry says a tag has; None for none. For comparison alone: a header is not believed."""
        path = f"/v2/{repository}/manifests/{reference}"
        headers = {"Accept": ACCEPT}
        reply = self.request("HEAD", path, scope=scope or pull(repository), headers=headers)
        return None if reply.status_code == 404 else str(reply.headers.get("docker-content-digest", ""))

    def has_blob(self, repository: str, digest: Digest, scope: str = "") -> bool:
        path = f"/v2/{repository}/blobs/{digest}"
        return self.request("HEAD", path, scope=scope or pull(repository)).status_code != 404

    @contextlib.contextmanager
    def blob(self, repository: str, blob: Descriptor, start: int) -> Iterator[Iterator[bytes]]:
        """A blob's bytes from `start` on. One that ignores the range is read and passed over."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        path = f"/v2/{repository}/blobs/{blob.digest}"
        ok = frozenset({200, 206, 404, 416})
        with self.stream("GET", path, scope=pull(repository), headers=headers, ok=ok) as reply:
            if reply.status_code == 404:
                raise NotFound(f"{self.where}: {repository} has no blob {blob.digest}")
            skip = start
            if reply.status_code == 206:
                if not reply.headers.get("content-range", "").startswith(f"bytes {start}-"):
                    raise EngineError(f"{self.where}: it answers with another range than was asked for")
                skip = 0
            elif reply.status_code == 416:
                raise FormatError(f"{self.where}: blob {blob.digest} has fewer than {start} bytes")
            yield without(reply.iter_raw(1 << 18), skip)

    def tags(self, repository: str) -> list[str]:
        """All tags of a repository; none if it is not there."""
        return self._paged(f"/v2/{repository}/tags/list", "tags", pull(repository))

    def catalog(self) -> list[str]:
        """All repositories, where the registry tells."""
        return self._paged("/v2/_catalog", "repositories", "registry:catalog:*")

    def _paged(self, path: str, key: str, scope: str) -> list[str]:
        out: list[str] = []
        for _ in range(PAGES_MAX):
            reply = self.request("GET", path, scope=scope)
            if reply.status_code == 404:
                return out
            with failing(self.where, _REACH):
                value = json.loads(reply.content)
            found = value.get(key) if isinstance(value, dict) else None
            names = [each for each in found or () if isinstance(each, str) and len(each) < 300]
            out += names
            following = re.match(r"\s*<([^>]*)>\s*;.*rel=\"?next\"?", reply.headers.get("link", ""))
            if not following or not names or len(out) > LISTED_MAX:
                return out
            path = urllib.parse.urljoin(f"{self._base}{path}", following[1])
            if _origin(path) != _origin(self._base):
                raise EngineError(f"{self.where}: its list of {key} goes on at another host, which is refused")
        return out


_REACH = "check the host, the port and the network; use --plain-http for a registry without TLS"


def pull(repository: str) -> str:
    return f"repository:{repository}:pull"


def push(repository: str) -> str:
    return f"repository:{repository}:pull,push"


def _origin(url: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.netloc


def _shown(url: str) -> str:
    """An address without what may be a signature."""
    return url.partition("?")[0]


def _limited(reply: httpx.Response, where: str) -> Iterator[bytes]:
    """A document's body. FormatError for one that is larger than any document."""
    size = 0
    for block in reply.iter_bytes():
        size += len(block)
        if size > MAX_DOCUMENT:
            raise FormatError(f"{where}: an answer of more than {MAX_DOCUMENT} bytes is refused")
        yield block
