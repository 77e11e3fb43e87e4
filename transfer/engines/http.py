"""What every engine that is asked over HTTP has in common: failures under our names, waiting, TLS, proxies.

Used by Docker's API and by registries. httpx is loaded by whoever makes a request: it takes 70 ms.
"""

from __future__ import annotations

import contextlib
import email.utils
import ipaddress
import logging
import os
import random
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from transfer.errors import EngineAway, EngineError, LinkError, TryAgain, UsageError
from transfer.events import Noted, Observer, silent

LOG = logging.getLogger(__name__)
BUSY = frozenset({408, 429, 500, 502, 503, 504})
"""Answers after which the same request may succeed."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
WAIT_MAX = 300.0
"""Seconds that a host may ask for in all, before this program gives up for now."""


class TlsFailed(LinkError):
    """The certificate of a host is not trusted, or the host wants one from this side."""

    slug = "tls"
    advice = "put the host's CA certificate into /etc/docker/certs.d/HOST/ca.crt; see docs/registries.md"


@contextlib.contextmanager
def failing(where: str, hint: str, *, engine: bool = False) -> Iterator[None]:
    """Failures of httpx in here come out as ours. `hint`: what to do if nothing answers; `engine`: then it is EngineAway, else LinkError."""
    import httpx

    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        if isinstance(_cause(error), ssl.SSLError):
            raise TlsFailed(f"{where}: {_cause(error) or error}") from error
        kind = EngineAway if engine else LinkError
        raise kind(f"{where} does not answer: {error or type(error).__name__}", hint=hint) from error
    except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
        raise EngineError(f"{where}: an answer that leads nowhere: {error}") from error
    except httpx.HTTPError as error:
        raise TryAgain(
            f"{where}: the connection broke off ({type(error).__name__}: {error})", hint="run the same command again"
        ) from error
    except (ValueError, RecursionError) as error:
        raise EngineError(f"{where}: its answer cannot be read: {error}") from error


def _cause(error: BaseException) -> BaseException | None:
    """The first failure of TLS among what led to this one."""
    seen: BaseException | None = error
    for _ in range(10):
        if seen is None or isinstance(seen, ssl.SSLError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


class Gate:
    """One for each host, shared by all threads: when it asks to wait, all wait."""

    def __init__(self, where: str, observer: Observer = silent, longest: float = WAIT_MAX) -> None:
        self._where, self._observer, self._longest = where, observer, longest
        self._lock = threading.Lock()
        self._until = 0.0
        self._waited = 0.0
        self._pause = FIRST_PAUSE

    def enter(self) -> None:
        """Wait until requests may go."""
        while (left := self._until - time.monotonic()) > 0:
            time.sleep(min(left, 1.0))

    def passed(self) -> None:
        """A request was answered."""
        self._pause = FIRST_PAUSE

    def busy(self, why: str, asked: str | None = None) -> None:
        """A request was refused for now. `asked`: its Retry-After. TryAgain when the host has asked for more than enough."""
        with self._lock:
            pause = retry_after(asked)
            if pause is None:
                pause = self._pause * (1 + random.random() / 4)
                self._pause = min(LONGEST_PAUSE, self._pause * 2)
            already = max(0.0, self._until - time.monotonic())
            if already >= pause:
                return
            self._waited += pause - already
            if self._waited > self._longest:
                raise TryAgain(f"{self._where}: {why}; waited {self._longest:.0f} s in all")
            self._until = time.monotonic() + pause
            LOG.info("%s: %s; waiting %.1f s", self._where, why, pause)
            if pause >= 3:
                self._observer(Noted(f"{self._where} asks to wait {pause:.0f} s ({why})"))


def retry_after(text: str | None, now: float | None = None) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or a date (RFC 9110, 10.2.3); None if it says nothing that can be read."""
    if not text:
        return None
    if text.strip().isdecimal() and len(text.strip()) < 7:
        return float(text)
    with contextlib.suppress(ValueError, TypeError, IndexError, OverflowError):
        date = email.utils.parsedate_to_datetime(text)
        return max(0.0, date.timestamp() - (time.time() if now is None else now))
    return None


def tls_context(folders: Sequence[Path], *, verify: bool = True, authorities: Sequence[Path] = ()) -> ssl.SSLContext:
    """The system's roots, CA files, and what folders hold: `*.crt` is a CA, `*.cert` with `*.key` a client certificate (as Docker's certs.d)."""
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for folder in [*folders, *authorities]:
        found = sorted(folder.glob("*")) if folder.is_dir() else [folder] if folder in authorities else []
        for path in found:
            try:
                if path.suffix == ".crt" or path in authorities:
                    context.load_verify_locations(path)
                elif path.suffix == ".cert":
                    context.load_cert_chain(path, path.with_suffix(".key"))
            except (OSError, ssl.SSLError) as error:
                raise UsageError(f"{path} cannot be used as a certificate: {error}") from error
    return context


def is_loopback(name: str) -> bool:
    """Whether a host's name means this machine: what Docker goes by, who allows such a registry to have no TLS."""
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return name == "localhost"


def goes_direct(host: str) -> bool:
    """Whether NO_PROXY names the host: by name, domain, or (which httpx does not know) a range of addresses."""
    name = host.partition(":")[0] if host.count(":") == 1 else host
    for each in (os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or "").split(","):
        rule = each.strip().lower()
        if not rule:
            continue
        if rule == "*" or rule in (name, host) or name.endswith("." + rule.lstrip("*").lstrip(".")):
            return True
        with contextlib.suppress(ValueError):
            if ipaddress.ip_address(name.strip("[]")) in ipaddress.ip_network(rule, strict=False):
                return True
    return False


def told_error(data: bytes) -> str:
    """What an answer says of itself, printable and short: Docker's `message`, a registry's `errors`, or text."""
    import json

    try:
        value: Any = json.loads(data)
    except (ValueError, RecursionError):
        value = data.decode("utf-8", "replace")
    if isinstance(value, dict):
        first = value.get("errors")
        inner = first[0] if isinstance(first, list) and first and isinstance(first[0], dict) else value
        said = [inner.get("code"), inner.get("message")]
        value = ": ".join(str(each) for each in said if isinstance(each, str | int) and each != "")
    text = "".join(c if c.isprintable() else " " for c in str(value))
    return text[:500].strip() or "no reason given"


def without(blocks: Iterator[bytes], skip: int) -> Iterator[bytes]:
    """The blocks without the first `skip` bytes."""
    for block in blocks:
        if skip >= len(block):
            skip -= len(block)
            continue
        yield block[skip:] if skip else block
        skip = 0
