"""Where images are really asked for: mirrors and other locations, as podman's, Docker's and containerd's files on this host say.

registries.conf and its drop-ins (containers-registries.conf(5)) first; else daemon.json for Docker Hub; else hosts.toml (containerd,
docs/hosts.md). For pulls alone: a push goes where the name says. Short names and aliases are not read: they can mean several images.
"""

from __future__ import annotations

import os
import re
import tomllib
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transfer.errors import EngineError, FormatError, NotFound, UsageError
from transfer.model import HUB, Reference
from transfer.streams import parse_object, read_small

SYSTEM = Path("/etc/containers/registries.conf")
DAEMON = Path("/etc/docker/daemon.json")
CONTAINERD = Path("/etc/containerd/certs.d")
MIRRORS_MAX = 32


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place to ask: host, repository there, how it is reached. `namespace`: the registry that is meant, for a host that stands for several."""

    host: str
    path: str
    insecure: bool = False
    plain: bool = False
    namespace: str = ""
    authorities: tuple[Path, ...] = ()


class Blocked(EngineError):
    """This host's rules (registries.conf, policy.json) forbid the registry or the image."""

    slug = "policy"
    advice = "ask whoever administers this host"


def endpoints(reference: Reference) -> list[Endpoint]:
    """In the order in which they are to be tried, the one that the name says last. Blocked, or UsageError for a file that is none."""
    own = Endpoint(reference.domain, reference.path)
    registry = _matching(f"{reference.domain}/{reference.path}")
    if registry is not None:
        return _of_registry(registry, reference)
    if reference.domain == HUB:
        mirrors = [_at(url, reference.path) for url in _daemon_mirrors()]
        if mirrors:
            return [*mirrors[:MIRRORS_MAX], own]
    return list(_containerd(reference)) or [own]


# podman's


def _files() -> list[Path]:
    """The files that count, the last one of two that say the same wins."""
    named = os.environ.get("CONTAINERS_REGISTRIES_CONF")
    home = os.environ.get("HOME", "")
    users = Path(home) / ".config" / "containers" / "registries.conf" if home else None
    if named:
        return [Path(named)]
    first = users if users and users.is_file() else SYSTEM
    return [first, *_drop_ins(users)]


def _drop_ins(users: Path | None) -> list[Path]:
    folders = [Path(f"{SYSTEM}.d"), *([Path(f"{users}.d")] if users else [])]
    return [path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.conf"))]


def ruled(reference: Reference) -> Path | None:
    """A drop-in with a rule for exactly this repository: it counts for podman, whatever registries.conf it is told to read."""
    home = os.environ.get("HOME", "")
    name = f"{reference.domain}/{reference.path}"
    users = Path(home) / ".config" / "containers" / "registries.conf" if home else None
    return next((path for prefix, _, path in _registries(_drop_ins(users)) if prefix == name), None)


def _toml(path: Path) -> dict[str, Any]:
    """{} for a file that is not there. UsageError for one that cannot be read."""
    try:
        return tomllib.loads(read_small(path).decode())
    except NotFound:
        return {}
    except (ValueError, RecursionError, FormatError) as error:
        raise UsageError(f"{path}: {error}", hint="repair the file, or use --no-mirrors") from error


def _registries(files: Sequence[Path]) -> Iterator[tuple[str, dict[str, Any], Path]]:
    for path in files:
        found = _toml(path).get("registry", [])
        for each in found if isinstance(found, list) else ():
            if isinstance(each, dict):
                prefix = each.get("prefix") or each.get("location")
                if not isinstance(prefix, str) or not prefix:
                    raise UsageError(
                        f"{path}: a [[registry]] without prefix and location",
                        hint="repair the file, or use --no-mirrors",
                    )
                yield prefix, each, path


def _matching(name: str) -> dict[str, Any] | None:
    """The entry with the longest prefix of a full name; of two with the same the later one."""
    best: tuple[int, dict[str, Any]] | None = None
    for prefix, entry, path in _registries(_files()):
        length = _matches(name, prefix)
        if length and (best is None or length >= best[0]):
            best = (length, {**entry, "prefix": prefix, "file": path})
    return best[1] if best else None


def _matches(name: str, prefix: str) -> int:
    """How many characters of a name a prefix stands for; 0 for none. `*.example.com` stands for every host below it."""
    if prefix.startswith("*."):
        host = name.partition("/")[0]
        return len(host) if host.endswith(prefix[1:]) and len(host) > len(prefix) - 1 else 0
    return len(prefix) if name == prefix or name.startswith(f"{prefix}/") else 0


def _of_registry(entry: dict[str, Any], reference: Reference) -> list[Endpoint]:
    name, prefix = f"{reference.domain}/{reference.path}", entry["prefix"]
    if entry.get("blocked"):
        raise Blocked(f"{entry['file']} blocks {prefix}, so {reference.familiar} is not pulled")
    by_digest = bool(reference.digest)
    out = []
    mirrors = entry.get("mirror", [])
    for each in (mirrors if isinstance(mirrors, list) else [])[:MIRRORS_MAX]:
        when = each.get("pull-from-mirror", "digest-only" if entry.get("mirror-by-digest-only") else "all")
        if when == "all" or (when == "digest-only") == by_digest:
            out.append(_rewritten(each, prefix, name))
    location = entry.get("location") or ("" if prefix.startswith("*.") else prefix)
    return [*out, _rewritten({**entry, "location": location}, prefix, name)]


def _rewritten(entry: dict[str, Any], prefix: str, name: str) -> Endpoint:
    """A location in place of the prefix."""
    location = entry.get("location")
    full = name
    if location:
        full = f"{location}{name[_matches(name, prefix) :]}"
    host, _, path = full.partition("/")
    return Endpoint(_host(host), path, insecure=bool(entry.get("insecure")))


def _host(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9.-]+(:\d{1,5})?|\[[0-9a-fA-F:]+\](:\d{1,5})?", text):
        raise UsageError(
            f"{text!r:.100} in a registries.conf is not a host", hint="repair the file, or use --no-mirrors"
        )
    return HUB if text in ("registry-1.docker.io", "index.docker.io") else text


# Docker's and containerd's


def _daemon_mirrors() -> list[str]:
    try:
        found = parse_object(read_small(DAEMON), str(DAEMON)).get("registry-mirrors")
    except NotFound:
        return []
    except FormatError as error:
        raise UsageError(error.message, hint="repair the file, or use --no-mirrors") from error
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def _at(
    url: str, path: str, *, namespace: str = "", insecure: bool = False, authorities: Sequence[Path] = ()
) -> Endpoint:
    """A mirror by its address; the path of the address comes before the repository."""
    try:
        parts = urllib.parse.urlsplit(url if "://" in url else f"https://{url}")
        host = _host(parts.netloc)
    except ValueError as error:
        raise UsageError(f"{url!r:.100} is not the address of a mirror", hint="use --no-mirrors") from error
    before = parts.path.strip("/").removeprefix("v2").strip("/")
    whole = f"{before}/{path}" if before else path
    return Endpoint(host, whole, insecure, parts.scheme == "http", namespace, tuple(authorities))


def _containerd(reference: Reference) -> Iterator[Endpoint]:
    """hosts.toml of the registry, or of all of them."""
    host = reference.domain
    names = [host, re.sub(r":(\d+)$", r"_\1_", host), "_default"]
    path = next((each for name in names if (each := CONTAINERD / name / "hosts.toml").is_file()), None)
    if path is None:
        return
    value = _toml(path)
    hosts = value.get("host", {})
    for url, each in list(hosts.items())[:MIRRORS_MAX] if isinstance(hosts, dict) else ():
        can = each.get("capabilities", ["pull", "resolve"]) if isinstance(each, dict) else []
        needed = "pull" if reference.digest else "resolve"
        if needed in can:
            yield _at(
                url,
                reference.path,
                namespace=reference.domain,
                insecure=bool(each.get("skip_verify")),
                authorities=_authorities(each.get("ca"), path.parent),
            )
    server = value.get("server")
    if isinstance(server, str) and server:
        yield _at(server, reference.path, namespace="" if _is_own(server, host) else host)
    else:
        yield Endpoint(host, reference.path)


def _is_own(server: str, host: str) -> bool:
    return server.partition("://")[2].partition("/")[0] in (host, "registry-1.docker.io" if host == HUB else host)


def _authorities(found: object, folder: Path) -> list[Path]:
    return [folder / each for each in (found if isinstance(found, list) else [found]) if isinstance(each, str)]
