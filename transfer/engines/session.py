"""Requests to one registry host: TLS, proxies, redirects, challenges and tokens, waiting. What is asked is in distribution.py.

Answers are taken as they are, never decoded: a body is compared with a digest, or parsed, byte for byte as it came.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from transfer.engines.base import RegistryOptions
from transfer.engines.challenges import Challenge, Token, challenges, token_of
from transfer.engines.http import BUSY, Gate, TlsFailed, failing, goes_direct, is_loopback, tls_context, told_error
from transfer.engines.logins import Credentials, credentials
from transfer.errors import (
    CredentialsError,
    EngineError,
    FormatError,
    LinkError,
    NotFound,
    TransferError,
    TryAgain,
    UsageError,
)
from transfer.events import Observer, silent
from transfer.model import HUB
from transfer.streams import MAX_DOCUMENT

if TYPE_CHECKING:
    import httpx

LOG = logging.getLogger(__name__)
HUB_HOST = "registry-1.docker.io"
REDIRECTS_MAX = 5
TRIES = 6
"""How often one request is made before its failure counts."""
LOGINS = 2
"""How often one request answers a challenge: once, and once more when its token ended while the host was busy."""
TOKEN_MAX = 1 << 20
QUIET, SETTLING = 60.0, 600.0
"""Seconds without a byte after which a connection counts as broken; and while a registry stores what it was sent."""
CERTS = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))
Body = Callable[[], Iterator[bytes]] | bytes | None
_REACH = "check the host, the port and the network; use --plain-http for a registry without TLS"


@dataclass(frozen=True, slots=True)
class Reply:
    """A small answer, whole."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Session:
    """One host. All requests of one export or import go through it, from any thread."""

    def __init__(
        self,
        host: str,
        options: RegistryOptions,
        observer: Observer = silent,
        *,
        namespace: str = "",
        authorities: Sequence[Path] = (),
    ) -> None:
        """`namespace`: the registry that is meant, where this host stands for several (containerd's `ns`). `authorities`: CA files."""
        self.host, self._options = host, options
        self._namespace, self._authorities = namespace, tuple(authorities)
        self.where = f"the registry {host}"
        self._address = HUB_HOST if host == HUB else host
        self.gate = Gate(host, observer, options.wait)
        self._lock = threading.Lock()
        self._tokens: dict[str, Token] = {}
        self._basic: dict[str, str] = {}
        self._clients: dict[str, httpx.Client] = {}
        self._base = ""

    def close(self) -> None:
        for each in self._clients.values():
            each.close()

    # reaching it

    def _client(self, url: str) -> httpx.Client:
        """The client for an address: through the proxy that the environment names for it, or without one."""
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname or ""
        proxies = (
            {} if is_loopback(host) or goes_direct(parts.netloc.rpartition("@")[2]) else urllib.request.getproxies()
        )
        proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
        with self._lock:
            if proxy not in self._clients:
                self._clients[proxy] = self._made(proxy)
            return self._clients[proxy]

    def _made(self, proxy: str) -> httpx.Client:
        import httpx

        folders = [folder / self._address for folder in CERTS]
        context = tls_context(folders, verify=self._options.verify, authorities=self._authorities)
        try:
            return httpx.Client(
                verify=context,
                timeout=QUIET,
                limits=httpx.Limits(max_connections=8),
                headers={"Accept-Encoding": "identity"},
                proxy=proxy or None,
                trust_env=False,
            )
        except (ValueError, ImportError, httpx.InvalidURL) as error:
            raise UsageError(
                f"the proxy {without_password(proxy)} cannot be used: {error}", hint="write it as http://HOST:PORT"
            ) from error

    def _found(self) -> str:
        """The beginning of every address: whether the host speaks TLS is found once. Docker's rule: a loopback host may go without."""
        if not self._base:
            self._base = self._find_base()
        return self._base

    def _find_base(self) -> str:
        secure, plain = f"https://{self._address}", f"http://{self._address}"
        if self._options.plain_http:
            return plain
        if self._options.verify and not is_loopback(urllib.parse.urlsplit(secure).hostname or ""):
            return secure
        try:
            with failing(self.where, ""), self._client(secure).stream("GET", f"{secure}/v2/"):
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
        content: Body = None,
        ok: frozenset[int] = frozenset({200}),
    ) -> Reply:
        """A small answer, read whole. What is not in `ok` is raised, but 404, which is given back. Repeated while the host is busy."""
        with self.stream(method, path, scope=scope, headers=headers, content=content, ok=ok | {404}) as reply:
            return Reply(reply.status_code, reply.headers, _limited(reply, self.where))

    @contextlib.contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        scope: str,
        headers: Mapping[str, str] | None = None,
        content: Body = None,
        ok: frozenset[int] = frozenset({200}),
        repeat: bool = True,
    ) -> Iterator[httpx.Response]:
        """An answer whose body is streamed. `content` is called anew for each try; without `repeat` there is one try after the credentials are right."""
        with failing(self.where, _REACH):
            url = urllib.parse.urljoin(f"{self._found()}/", path)
            if self._namespace:
                url += f"{'&' if '?' in url else '?'}ns={urllib.parse.quote(self._namespace)}"
        tries, logins = TRIES if repeat else 1, 0
        given = False
        while True:
            self.gate.enter()
            try:
                with contextlib.ExitStack() as stack:
                    reply, told = self._send(stack, method, url, scope, headers, content)
                    if reply.status_code == 401 and logins < LOGINS and self._authorize(reply, scope, told):
                        logins += 1
                        continue
                    tries -= 1
                    if reply.status_code in BUSY and reply.status_code not in ok and tries and not _used_up(reply):
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
                tries -= not given
                if tries <= 0 or given or "broke off" not in error.message:
                    raise
                self.gate.busy(error.message)

    def _send(
        self,
        stack: contextlib.ExitStack,
        method: str,
        url: str,
        scope: str,
        headers: Mapping[str, str] | None,
        content: Body,
    ) -> tuple[httpx.Response, str]:
        """The answer, and the authorization that it is an answer to. Credentials go to the registry's own address alone."""
        import httpx

        started = time.monotonic()
        with failing(self.where, _REACH):
            for _ in range(REDIRECTS_MAX + 1):
                ours = self._authorization(scope) if origin(url) == origin(self._base) else ""
                sent = {**(headers or {}), **({"Authorization": ours} if ours else {})}
                client = self._client(url)
                body = content() if callable(content) else content
                wait = httpx.Timeout(QUIET, connect=15.0, read=SETTLING if method == "PUT" else QUIET)
                request = client.build_request(method, url, headers=sent, content=body, timeout=wait)
                reply = client.send(request, stream=True)
                stack.callback(reply.close)
                LOG.info("%s %s: %d, %.3f s", method, _shown(url), reply.status_code, time.monotonic() - started)
                target = reply.headers.get("location", "")
                if reply.status_code not in (301, 302, 303, 307, 308) or not target:
                    return reply, ours
                following = urllib.parse.urljoin(url, target)
                scheme = urllib.parse.urlsplit(following).scheme
                if scheme not in ("http", "https") or (url.startswith("https:") and scheme != "https"):
                    raise EngineError(
                        f"{self.where} redirects to {scheme or 'nowhere'}:, which is refused",
                        hint="tell its administrator",
                    )
                reply.close()
                url = following
        raise EngineError(f"{self.where} redirects without end", hint="tell its administrator")

    def _refused(self, reply: httpx.Response, scope: str) -> TransferError:
        """What an answer means that is not one of those that were expected."""
        with failing(self.where, _REACH):
            said = told_error(_limited(reply, self.where))
        status, what = reply.status_code, f"{self.where}: {said} (HTTP {reply.status_code})"
        name = scope.partition(":")[2].rpartition(":")[0]
        if status in (401, 403):
            return CredentialsError(
                what, hint=f"log in: transfer login {self.host}; or the repository {name} does not exist"
            )
        if _used_up(reply):
            return TryAgain(what, hint=f"the quota is used up: log in (transfer login {self.host}), or wait")
        if status in BUSY:
            return TryAgain(what)
        return NotFound(what) if status == 404 else EngineError(what)

    # credentials

    def _authorization(self, scope: str) -> str:
        with self._lock:
            token = self._tokens.get(scope)
            if token and token.until > time.monotonic():
                return f"Bearer {token.value}"
            return self._basic.get(scope) or self._basic.get("", "")

    def _authorize(self, reply: httpx.Response, scope: str, told: str) -> bool:
        """Do what a 401 asks for, if the registry itself asks; whether the request is worth another try. `told`: what it was told before."""
        if origin(str(reply.request.url)) != origin(self._base):
            return False
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
                self._basic[scope] = self._basic[""] = found.basic()
            return told != found.basic()
        return False

    def check(self, found: Credentials) -> None:
        """Whether the registry takes these credentials. CredentialsError if not."""
        url = f"{self._found()}/v2/"
        status, headers, _ = self._ask("GET", url, {})
        for each in challenges(headers.get("www-authenticate", [])) if status == 401 else ():
            if each.scheme == "bearer" and each.parameters.get("realm"):
                self._fetch_token(each, "", found)
                return
            if each.scheme == "basic":
                status, _, _ = self._ask("GET", url, {"Authorization": found.basic()})
        if status != 200:
            raise CredentialsError(
                f"{self.where} does not accept this user and password (HTTP {status})", hint="check both"
            )

    def _ask(
        self, method: str, url: str, headers: Mapping[str, str], form: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, list[str]], bytes]:
        """One request outside of the repositories: status, headers, and a body of a bounded size."""
        with failing(self.where, _REACH):
            client = self._client(url)
            with client.stream(method, url, headers=dict(headers), data=dict(form) if form else None) as reply:
                told = {key: reply.headers.get_list(key) for key in reply.headers}
                return reply.status_code, told, _limited(reply, self.where, TOKEN_MAX)

    def _fetch_token(self, challenge: Challenge, scope: str, found: Credentials | None) -> Token:
        """A token for the scope, from the realm (docker token specification); by refresh where there is an identity token (OAuth2)."""
        realm, service = challenge.parameters["realm"], challenge.parameters.get("service", "")
        with failing(self.where, _REACH):
            scheme = urllib.parse.urlsplit(realm).scheme
        secure = scheme == "https" or (scheme == "http" and self._base.startswith("http:"))
        if scheme not in ("http", "https") or (found and not secure):
            raise CredentialsError(f"{self.where} wants credentials sent to {scheme}:, which is refused")
        if found and found.token:
            form = {"grant_type": "refresh_token", "refresh_token": found.token, "client_id": "transfer"}
            status, _, data = self._ask("POST", realm, {}, {**form, "service": service, "scope": scope})
        else:
            basic = {"Authorization": found.basic()} if found else {}
            query = [("service", service), *(("scope", each) for each in scope.split())]
            query += [("account", found.user)] if found else []
            joined = f"{realm}{'&' if '?' in realm else '?'}{urllib.parse.urlencode(query)}"
            status, _, data = self._ask("GET", joined, basic)
        if status != 200:
            raise CredentialsError(
                f"{self.where}: no token: {told_error(data[:4096])} (HTTP {status})",
                hint=f"log in: transfer login {self.host}",
            )
        with failing(self.where, _REACH):
            return token_of(json.loads(data), self.where)

    def joined(self, path: str, location: str) -> str:
        """An address that an answer gave, made whole. EngineError for one of another scheme."""
        base = self._found()
        with failing(self.where, _REACH):
            out = urllib.parse.urljoin(urllib.parse.urljoin(f"{base}/", path), location)
            scheme = urllib.parse.urlsplit(out).scheme
        if scheme not in ("http", "https") or (base.startswith("https:") and scheme != "https"):
            raise EngineError(f"{self.where}: an upload that goes on at {scheme}: is refused")
        return out

    def is_own(self, url: str) -> bool:
        """Whether an address is on this host."""
        return origin(url) == origin(self._found())

    def reading(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """The blocks; a cut comes out as TryAgain."""
        with failing(self.where, _REACH):
            yield from blocks


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port (RFC 6454)."""
    try:
        parts = urllib.parse.urlsplit(url)
        return (
            parts.scheme,
            (parts.hostname or "").lower(),
            parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0),
        )
    except ValueError:
        return "", "", 0


def without_password(url: str) -> str:
    """An address that may be shown."""
    scheme, _, rest = url.rpartition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _used_up(reply: httpx.Response) -> bool:
    """Docker Hub's quota, which no waiting of minutes brings back."""
    return reply.status_code == 429 and str(reply.headers.get("ratelimit-remaining", "")).startswith("0")


def _shown(url: str) -> str:
    """An address without what may be a signature."""
    return url.partition("?")[0]


def _limited(reply: httpx.Response, where: str, most: int = MAX_DOCUMENT) -> bytes:
    """A small answer's body. FormatError for one that is larger."""
    out = bytearray()
    for block in reply.iter_raw():
        out += block
        if len(out) > most:
            raise FormatError(f"{where}: an answer of more than {most} bytes is refused")
    return bytes(out)
