"""Files of a web server, read by range: what a site takes that may only go out itself."""

from __future__ import annotations

import ssl
import urllib.parse
from collections.abc import Iterator
from typing import Any

from transfer import __version__
from transfer.errors import CredentialsError, CutOff, EngineError, LinkError, NotFound, TryAgain, UsageError
from transfer.ship.base import split_name

SECONDS = 30.0


class WebFiles:
    """Files below an address. A redirect to another host, or away from TLS, is refused; so is what is not a plain file."""

    def __init__(self, address: str, *, plain_http: bool = False) -> None:
        parts = urllib.parse.urlsplit(address)
        if parts.scheme != "https" and not (plain_http and parts.scheme == "http"):
            raise UsageError(f"{address!r:.200} is not an https address", hint="write https://HOST/FOLDER")
        if not parts.hostname or parts.username or parts.query or parts.fragment:
            raise UsageError(f"{address!r:.200} is not an address of a folder", hint="write https://HOST/FOLDER")
        import httpx

        self.where = address.rstrip("/")
        self._client = httpx.Client(
            verify=ssl.create_default_context(),
            timeout=SECONDS,
            follow_redirects=False,
            headers={"User-Agent": f"transfer/{__version__}", "Accept-Encoding": "identity"},
        )

    def read(self, name: str, offset: int = 0) -> Iterator[bytes]:
        """A file's bytes from an offset. NotFound if it is not there; CutOff when the line breaks, or fewer bytes come than were promised."""
        import httpx

        if name:
            split_name(name)
        url = f"{self.where}/{urllib.parse.quote(name)}"
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            with self._client.stream("GET", url, headers=headers) as reply:
                self._sound(reply, url)
                left = (
                    offset if reply.status_code == 200 else 0
                )  # the server knows no ranges: what is here already is passed over
                for block in reply.iter_raw():
                    if left >= len(block):
                        left -= len(block)
                        continue
                    yield block[left:]
                    left = 0
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            if "CERTIFICATE" in str(error).upper():
                raise CredentialsError(
                    f"{self.where}: its certificate is not trusted: {error}",
                    hint="add its CA to this host's certificates",
                ) from error
            raise LinkError(
                f"{self.where} does not answer: {error}", hint="check the address and the network"
            ) from error
        except httpx.HTTPError as error:
            raise CutOff(f"{self.where}: the connection broke off: {type(error).__name__}: {error}") from error

    def _sound(self, reply: Any, url: str) -> None:
        code = reply.status_code
        if code in (200, 206):
            return
        if code in (404, 410):
            raise NotFound(f"{url} does not exist")
        if code in (401, 403):
            raise CredentialsError(f"{url} may not be read (HTTP {code})", hint="ask whoever administers that server")
        if code in (408, 425, 429, 500, 502, 503, 504):
            raise TryAgain(f"{self.where} is busy (HTTP {code})")
        if 300 <= code < 400:
            raise EngineError(
                f"{url} redirects to {str(reply.headers.get('location', ''))!r:.200}, which is refused",
                hint="write the address that it leads to into the site file",
            )
        raise EngineError(f"{url}: HTTP {code}", hint="see the log of that server")

    def close(self) -> None:
        self._client.close()
