"""The configuration that makes an engine ask a registry of this program first, file by file."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transfer.errors import FormatError, NotFound, UsageError
from transfer.model import HUB
from transfer.streams import parse_object, publish, read_small

KEPT = ".before-transfer"
"""Added to the name of a file that was replaced."""


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """One file of an engine's configuration, and what to do after it was written."""

    path: Path
    text: str
    then: str


@dataclass(frozen=True, slots=True)
class Mirror:
    """The registry that is to be asked: its address, and the CA that its certificate is from ("" for the system's)."""

    url: str
    ca: str = ""

    @property
    def host(self) -> str:
        return urllib.parse.urlsplit(self.url).netloc

    @property
    def is_plain(self) -> bool:
        return self.url.startswith("http:")


def mirror(url: str, ca: str = "") -> Mirror:
    """UsageError for what is not the address of a registry."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError as error:
        raise UsageError(f"--url {url!r:.100} is not a registry", hint="write https://HOST:PORT") from error
    sound = "\n" not in url and re.fullmatch(r"[A-Za-z0-9.:\[\]-]+", parts.netloc)
    if parts.scheme not in ("http", "https") or not sound or parts.path.strip("/") or parts.query:
        raise UsageError(f"--url {url!r:.100} is not a registry", hint="write https://HOST:PORT")
    if '"' in ca or "\n" in ca:
        raise UsageError(f"--ca {ca!r:.100} cannot be written into a configuration file")
    return Mirror(f"{parts.scheme}://{parts.netloc}", ca)


def for_docker(found: Mirror, hosts: Sequence[str], root: Path) -> list[ConfigFile]:
    """Docker asks mirrors for docker.io alone; what daemon.json has besides stays."""
    path = root / "etc/docker/daemon.json"
    try:
        value = parse_object(read_small(path), str(path))
    except NotFound:
        value = {}
    except FormatError as error:
        raise UsageError(error.message, hint="repair the file first") from error
    mirrors = [each for each in _strings(value, "registry-mirrors", path) if each != f"{found.url}/"]
    value["registry-mirrors"] = [f"{found.url}/", *mirrors]
    if found.is_plain:
        insecure = [each for each in _strings(value, "insecure-registries", path) if each != found.host]
        value["insecure-registries"] = [found.host, *insecure]
    then = "systemctl reload docker" if not found.is_plain else "systemctl restart docker"
    files = [ConfigFile(path, json.dumps(value, indent=2) + "\n", then)]
    return files + ([_ca_note(root / "etc/docker/certs.d" / found.host / "ca.crt", found)] if found.ca else [])


def _strings(value: dict[str, object], key: str, path: Path) -> list[str]:
    """A list that daemon.json has. UsageError for what Docker would not take either."""
    found = value.get(key) or []
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise UsageError(f"{path}: {key} is not a list of strings", hint="repair the file first")
    return found


def _ca_note(path: Path, found: Mirror) -> ConfigFile:
    return ConfigFile(path, read_small(Path(found.ca)).decode("ascii", "replace"), "")


def for_podman(found: Mirror, hosts: Sequence[str], root: Path) -> list[ConfigFile]:
    """registries.conf.d: names keep their host, and the mirror is asked below a path of that host's name."""
    lines = ["# made by `transfer mirrors podman`"]
    for host in hosts:
        lines += [
            "",
            "[[registry]]",
            f'prefix = "{host}"',
            f'location = "{host}"',
            "[[registry.mirror]]",
            f'location = "{found.host}/{host}"',
            f"insecure = {'true' if found.is_plain else 'false'}",
        ]
    path = root / "etc/containers/registries.conf.d/50-transfer.conf"
    files = [ConfigFile(path, "\n".join(lines) + "\n", "")]
    return files + ([_ca_note(root / "etc/containers/certs.d" / found.host / "ca.crt", found)] if found.ca else [])


def for_containerd(found: Mirror, hosts: Sequence[str], root: Path) -> list[ConfigFile]:
    """hosts.toml for every registry: nothing else is asked (containerd, docs/hosts.md)."""
    lines = [
        "# made by `transfer mirrors containerd`",
        f'server = "{found.url}"',
        "",
        f'[host."{found.url}"]',
        '  capabilities = ["pull", "resolve"]',
    ]
    if found.ca:
        lines.append(f'  ca = "{Path(found.ca).absolute()}"')
    then = 'set config_path = "/etc/containerd/certs.d" in the registry section of /etc/containerd/config.toml, if it is not set'
    folders = (
        ["_default"]
        if not hosts or list(hosts) == [HUB]
        else [each.replace(":", "_") + "_" if ":" in each else each for each in hosts]
    )
    return [
        ConfigFile(root / "etc/containerd/certs.d" / folder / "hosts.toml", "\n".join(lines) + "\n", then)
        for folder in folders
    ]


def for_k3s(found: Mirror, hosts: Sequence[str], root: Path) -> list[ConfigFile]:
    """registries.yaml: every registry through the mirror."""
    lines = ["# made by `transfer mirrors k3s`", "mirrors:"]
    for host in hosts if list(hosts) != [HUB] else ["*"]:
        lines += [f'  "{host}":', "    endpoint:", f'      - "{found.url}"']
    if found.ca:
        lines += ["configs:", f'  "{found.host}":', "    tls:", f'      ca_file: "{Path(found.ca).absolute()}"']
    path = root / "etc/rancher/k3s/registries.yaml"
    return [ConfigFile(path, "\n".join(lines) + "\n", "systemctl restart k3s")]


ENGINES: dict[str, Callable[[Mirror, Sequence[str], Path], list[ConfigFile]]] = {
    "docker": for_docker,
    "podman": for_podman,
    "containerd": for_containerd,
    "k3s": for_k3s,
}


def write(file: ConfigFile) -> Path | None:
    """Put a file in its place; where the one that was there is now, if it was another."""
    kept = None
    if file.path.exists():
        before = read_small(file.path)
        if before == file.text.encode():
            return None
        kept = file.path.with_name(file.path.name + KEPT)
        if not kept.exists():
            publish(kept, before, 0o600)
    file.path.parent.mkdir(parents=True, exist_ok=True)
    publish(file.path, file.text.encode(), 0o644)
    return kept
