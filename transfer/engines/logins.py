"""Credentials for registries: Docker's and podman's files and their helpers, in the order in which podman looks (containers-auth.json(5)).

Read here, and written by login and logout. No network.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transfer.errors import CredentialsError, NotFound, UsageError, from_os_error
from transfer.streams import parse_object, publish, read_small

HELPER_SECONDS = 30
_HELPER = re.compile(r"[A-Za-z0-9._-]{1,100}", re.ASCII)
_HUB = ("https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io")
FILE_MAX = 4 << 20


@dataclass(frozen=True)
class Credentials:
    """A user and a password, or an identity token. Never printed: `repr` shows where they are from."""

    user: str
    password: str
    token: str = ""
    source: str = ""

    def __repr__(self) -> str:
        return f"Credentials(from {self.source})"

    def basic(self) -> str:
        """The Authorization header's value."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def files() -> list[Path]:
    """The files that may hold credentials, the first one first."""
    environ, out = os.environ, []
    home = Path(environ["HOME"]) if environ.get("HOME") else None
    if environ.get("REGISTRY_AUTH_FILE"):
        out.append(Path(environ["REGISTRY_AUTH_FILE"]))
    for name in ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        if environ.get(name):
            out.append(Path(environ[name]) / "containers" / "auth.json")
    if home and not environ.get("XDG_CONFIG_HOME"):
        out.append(home / ".config" / "containers" / "auth.json")
    if environ.get("DOCKER_CONFIG"):
        out.append(Path(environ["DOCKER_CONFIG"]) / "config.json")
    elif home:
        out.append(home / ".docker" / "config.json")
    return list(dict.fromkeys(out))


def credentials(repository: str) -> Credentials | None:
    """What is to be told to the registry of `host/path`; None for a stranger. UsageError for a file that cannot be read."""
    for path in files():
        value = _read(path)
        if value:
            found = _in(value, repository, str(path))
            if found:
                return found
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        data = read_small(path, FILE_MAX)
    except NotFound:
        return {}
    try:
        return parse_object(data or b"{}", str(path), FILE_MAX)
    except Exception as error:
        raise UsageError(f"{path} is not a file of credentials: {error}", hint="repair or remove the file") from error


def _keys(repository: str) -> list[str]:
    """What a file may call it: the longest namespace first, the host last."""
    parts = repository.split("/")
    out = ["/".join(parts[:n]) for n in range(len(parts), 0, -1)]
    host = parts[0]
    aliases = _HUB if host in _HUB else (f"https://{host}", f"http://{host}", f"https://{host}/", f"https://{host}/v1/")
    return [*out, *(each for each in aliases if each not in out)]


def _in(value: dict[str, Any], repository: str, where: str) -> Credentials | None:
    helpers = value.get("credHelpers")
    for key in _keys(repository):
        if isinstance(helpers, dict) and isinstance(helpers.get(key), str):
            found = _ask(helpers[key], key)
            if found:
                return found
    auths = value.get("auths")
    for key in _keys(repository):
        entry = auths.get(key) if isinstance(auths, dict) else None
        if isinstance(entry, dict) and (found := _entry(entry, f"{where} ({key})")):
            return found
    store = value.get("credsStore")
    if isinstance(store, str) and store:
        host = repository.partition("/")[0]
        for key in _HUB if host in _HUB else (host, f"https://{host}"):
            found = _ask(store, key)
            if found:
                return found
    return None


def _entry(entry: dict[str, Any], where: str) -> Credentials | None:
    token = entry.get("identitytoken")
    auth, user, password = entry.get("auth"), entry.get("username"), entry.get("password")
    if isinstance(auth, str) and auth:
        try:
            text = base64.b64decode(auth, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise UsageError(f"{where}: its `auth` cannot be read", hint="log in again: transfer login HOST") from error
        user, _, password = text.rstrip("\0").partition(":")
    if isinstance(token, str) and token:
        return Credentials(str(user or ""), "", token, where)
    if isinstance(user, str) and isinstance(password, str) and user:
        return Credentials(user, password, "", where)
    return None


def _ask(helper: str, server: str) -> Credentials | None:
    """A credential helper's answer; None if it is not installed, or knows nothing (docker-credential-helpers)."""
    program = shutil.which(f"docker-credential-{helper}") if _HELPER.fullmatch(helper) else None
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "get"], input=server.encode(), capture_output=True, timeout=HELPER_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CredentialsError(
            f"the credential helper {helper} did not answer: {type(error).__name__}", hint="run it by hand"
        ) from None
    if done.returncode:
        said = (done.stdout + done.stderr).lower()
        if b"not found" in said:
            return None
        raise CredentialsError(
            f"the credential helper {helper} failed for {server:.200} (exit {done.returncode})", hint="run it by hand"
        )
    try:
        value = json.loads(done.stdout)
        user, secret = str(value["Username"]), str(value["Secret"])
    except (ValueError, KeyError, TypeError):
        raise CredentialsError(f"the credential helper {helper} gave an answer that cannot be read") from None
    where = f"docker-credential-{helper}"
    return Credentials("", "", secret, where) if user == "<token>" else Credentials(user, secret, "", where)


# login and logout


def file_to_write(host: str) -> Path:
    """Where a login goes: the file that is named; else the first that has this host, so that no older entry is found before it;
    else Docker's where there is one, or a `docker` to read it; else podman's."""
    if os.environ.get("REGISTRY_AUTH_FILE"):
        return Path(os.environ["REGISTRY_AUTH_FILE"])
    found = files()
    if not found:
        raise UsageError("no folder for credentials is known", hint="set REGISTRY_AUTH_FILE, DOCKER_CONFIG or HOME")
    for path in found:
        auths = _read(path).get("auths")
        if isinstance(auths, dict) and any(key in auths for key in _keys(host)):
            return path
    docker = found[-1]
    return docker if docker.is_file() or shutil.which("docker") or not shutil.which("podman") else found[0]


def _key(host: str) -> str:
    return _HUB[0] if host in _HUB else host


def remember(host: str, found: Credentials) -> Path:
    """Write the credentials of a host; everything else in the file stays. Where they are now."""
    if found.token:
        entry = {"auth": base64.b64encode(f"{found.user}:".encode()).decode(), "identitytoken": found.token}
    else:
        entry = {"auth": base64.b64encode(f"{found.user}:{found.password}".encode()).decode()}
    with _changing(host) as (path, value):
        value.setdefault("auths", {})[_key(host)] = entry
    return path


def forget(host: str) -> Path | None:
    """Take the credentials of a host out of the file; None if it has none."""
    gone = False
    with _changing(host) as (path, value):
        auths = value.get("auths")
        if isinstance(auths, dict):
            found = [key for key in _keys(host) if key in auths]
            for key in found:
                del auths[key]
            gone = bool(found)
    return path if gone else None


@contextlib.contextmanager
def _changing(host: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The file's object, to be changed; published by rename, for its owner alone."""
    path = file_to_write(host)
    path = Path(os.path.realpath(path))  # through a link, as people keep their dotfiles
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise from_os_error(error, f"writing {path}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        value = _read(path)
        if not isinstance(value.get("auths", {}), dict):
            raise UsageError(f"{path}: `auths` is not an object", hint="repair or remove the file")
        before = json.dumps(value)
        yield path, value
        if json.dumps(value) != before:
            publish(path, json.dumps(value, indent=1).encode() + b"\n", 0o600)
    finally:
        os.close(lock)
