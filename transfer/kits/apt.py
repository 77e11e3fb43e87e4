"""Packages of a release, chosen and fetched by apt in a folder of ours. This host's own packages, lists and settings for sources have no part in it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from transfer.engines.program import Program
from transfer.errors import Damaged, EngineError, LinkError, NotFound, TransferError, UsageError
from transfer.kits.releases import DEBS, Release
from transfer.streams import sha256_of

_LINE = re.compile(r"'(?P<url>[^']+)' (?P<file>\S+) (?P<size>[0-9]+) SHA256:(?P<hash>[0-9a-f]{64})")
_FILE = re.compile(r"(?P<name>[a-z0-9][a-z0-9.+-]*)_(?P<version>[A-Za-z0-9.+~:%-]+)_(?P<arch>[a-z0-9]+)\.deb")


@dataclass(frozen=True, slots=True)
class Package:
    """A package as apt means to fetch it. `file`: its file's name; `sha256`: hexadecimal digits."""

    name: str
    version: str
    arch: str
    file: str
    size: int
    sha256: str


class Apt:
    """apt with a root of its own at `place`, which is kept: what was fetched once is fetched no more.

    `status`: the file in which dpkg says what the target has (its /var/lib/dpkg/status); without it, the target has nothing.
    NotFound where there is no apt on this host.
    """

    def __init__(self, place: Path, release: Release, machine: str, *, status: Path | None = None) -> None:
        for name in ("apt-get", "apt-cache", "dpkg-deb"):
            if not shutil.which(name):
                raise NotFound(
                    f"{name} is not on this host: a kit is made on a Debian or Ubuntu",
                    hint="use another host, or take the Python of another kit: --python-from KIT",
                )
        self.release, self.machine = release, machine
        self._place = place / f"{release.slug}-{machine}"
        self._debs = self._place / "debs"
        for folder in ("lists/partial", "cache/none/partial", "debs"):
            (self._place / folder).mkdir(parents=True, exist_ok=True)
        (self._place / "empty").write_bytes(b"")
        (self._place / "sources.list").write_text(release.sources(machine), encoding="utf-8")
        self._options = self._settings(status or self._place / "empty")
        self._apt = Program(["apt-get", *self._options], f"apt ({release.name})", env={"LC_ALL": "C"})
        self._cache = Program(["apt-cache", *self._options], f"apt ({release.name})", env={"LC_ALL": "C"})

    def _settings(self, status: Path) -> list[str]:
        place = self._place.absolute()
        settings = {
            "APT::Architecture": DEBS[self.machine],
            "APT::Architectures": DEBS[self.machine],
            "APT::Default-Release": "",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
            "Acquire::ForceHash": "SHA256",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Debug::NoLocking": "true",
            "Dir::Cache": place / "cache",
            "Dir::Cache::archives": place / "cache/none",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::Etc::sourcelist": place / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State": place,
            "Dir::State::lists": place / "lists",
            "Dir::State::status": status.absolute(),
        }
        return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]

    def refresh(self) -> None:
        """Fetch the lists of packages; their signatures are checked. LinkError if that does not work."""
        try:
            self._apt.run("-q", "update", "--error-on=any")
        except EngineError as error:
            raise LinkError(
                f"the lists of packages of {self.release.name} cannot be had: {error.message}",
                hint="check the network and the proxy of this host, then run again",
            ) from error

    def known(self, names: Sequence[str]) -> list[str]:
        """Those of these packages that the release has."""
        there = set(self._cache.run("pkgnames").decode("utf-8", "replace").split())
        return [name for name in names if name in there]

    def closure(self, names: Sequence[str]) -> list[Package]:
        """What the target lacks of these and of all they depend on, by name."""
        try:
            said = self._apt.run("-qq", "install", "--print-uris", "--no-remove", "--", *names).decode()
        except EngineError as error:
            raise UsageError(
                f"apt finds no way to install {', '.join(names)} in {self.release.name}: {error.message}",
                hint="check --for, and the file that --installed names",
            ) from error
        found = []
        for line in said.splitlines():
            match = _LINE.fullmatch(line.strip())
            parts = _FILE.fullmatch(match["file"]) if match else None
            if not match or not parts:
                raise EngineError(f"apt ({self.release.name}) said {line!r:.200}, which does not name a package")
            version = unquote(parts["version"])
            found.append(
                Package(parts["name"], version, parts["arch"], match["file"], int(match["size"]), match["hash"])
            )
        return sorted(found, key=lambda each: each.name)

    def fetch(self, packages: Sequence[Package]) -> list[Path]:
        """Their files, each of which has its hash."""
        lacking = [each for each in packages if not self._is_here(each)]
        if lacking:
            words = [f"{each.name}:{each.arch}={each.version}" for each in lacking if each.arch != "all"]
            words += [f"{each.name}={each.version}" for each in lacking if each.arch == "all"]
            try:
                Program(
                    ["sh", "-c", 'cd -- "$0" && exec apt-get "$@"', str(self._debs), *self._options],
                    f"apt ({self.release.name})",
                    env={"LC_ALL": "C"},
                ).run("-q", "download", *words)
            except TransferError as error:
                raise LinkError(
                    f"packages of {self.release.name} cannot be had: {error.message}",
                    hint="check the network, then run again: what was fetched is kept",
                ) from error
        for each in lacking:
            if not self._is_here(each):
                raise Damaged(f"{each.file}, fetched by apt, is not what its list says")
        return [self._debs / each.file for each in packages]

    def _is_here(self, package: Package) -> bool:
        path = self._debs / package.file
        return path.is_file() and path.stat().st_size == package.size and sha256_of(path) == package.sha256


def unpack(deb: Path, folder: Path) -> None:
    """The files of one package, into a folder of its own."""
    folder.mkdir(parents=True)
    Program(["dpkg-deb"], "dpkg-deb").run("-x", str(deb), str(folder))


def control(deb: Path, *fields: str) -> dict[str, str]:
    """Fields of a package's control file; those that it does not have are empty."""
    program = Program(["dpkg-deb"], "dpkg-deb")
    return {field: program.run("-f", str(deb), field).decode("utf-8", "replace").strip() for field in fields}


def index(debs: Sequence[tuple[Package, Path]]) -> bytes:
    """A list of these packages as apt reads it (deb822, `Packages`), for a flat repository in which each lies beside the list."""
    program, parts = Program(["dpkg-deb"], "dpkg-deb"), []
    for package, path in debs:
        told = program.run("-f", str(path)).decode("utf-8", "replace").strip("\n")
        parts.append(f"{told}\nFilename: ./{package.file}\nSize: {package.size}\nSHA256: {package.sha256}\n")
    return "\n".join(parts).encode()
