"""login and logout: credentials of a registry, checked and stored, or deleted."""

from __future__ import annotations

import getpass
import sys

from transfer.cli.exits import printable
from transfer.engines import logins
from transfer.engines.base import RegistryOptions
from transfer.engines.distribution import RegistryClient
from transfer.engines.logins import Credentials
from transfer.errors import UsageError
from transfer.model import HUB

PASSWORD_MAX = 64 << 10


def _host(text: str) -> str:
    """The host that is meant; UsageError for what is not one."""
    host = text.removeprefix("https://").removeprefix("http://").removeprefix("docker://").rstrip("/")
    if not host or "/" in host or not host.isprintable() or " " in host:
        raise UsageError(
            f"{text!r:.100} is not a registry", hint="write a host, such as registry.hq or registry.hq:5000"
        )
    return HUB if host in ("index.docker.io", "registry-1.docker.io") else host


def login(text: str, user: str, password_stdin: bool, options: RegistryOptions) -> None:
    """Ask for what is not given; store only what the registry accepts."""
    host = _host(text)
    can_ask = sys.stdin is not None and sys.stdin.isatty()
    if not user:
        if not can_ask or password_stdin:
            raise UsageError("the user is missing", hint="name it with --username")
        user = input("Username: ").strip()
    if password_stdin:
        password = sys.stdin.read(PASSWORD_MAX).rstrip("\r\n")
    elif can_ask:
        password = getpass.getpass("Password: ")
    else:
        raise UsageError("the password is missing", hint="give it on standard input: --password-stdin")
    if not password or ":" in user:
        raise UsageError("the password is empty, or the user has a colon")
    found = Credentials(user, password)
    client = RegistryClient(host, options)
    try:
        client.check(found)
    finally:
        client.close()
    path = logins.remember(host, found)
    print(f"logged in to {printable(host)} as {printable(user)}; stored in {printable(str(path))}")
    if str(path).startswith("/run/"):
        print("  -> this file is lost at the next start of the host; REGISTRY_AUTH_FILE names another one")


def logout(text: str) -> None:
    """Delete what is stored."""
    host = _host(text)
    path = logins.forget(host)
    print(
        f"logged out of {printable(host)}; deleted from {printable(str(path))}"
        if path
        else f"no credentials of {printable(host)} are stored in {printable(str(logins.file_to_write(host)))}"
    )
