"""The container engine's packages in a kit: fetched by apt for the offline host's release, or brought by the user."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transfer.errors import UsageError
from transfer.events import Noted, Observer
from transfer.kits.apt import Apt, Package, index
from transfer.kits.folder import KitFolder
from transfer.kits.releases import Release, engine_named, release_named
from transfer.streams import read_small

STATUS_MAX = 64 << 20
"""Bytes: dpkg's status of a large host is some 5 MB."""


@dataclass(frozen=True, slots=True)
class EngineWanted:
    """What the user asked for: an engine by the name of its package, the release of the offline host, its status file; or a folder of files."""

    engine: str = ""
    release: str = ""
    installed: Path | None = None
    files: Path | None = None


def _release(wanted: EngineWanted, machines: Sequence[str]) -> Release | None:
    """Whose packages of the engine are fetched; None if none are."""
    for name, given in (
        ("--for", wanted.release),
        ("--installed", wanted.installed),
        ("--engine-files", wanted.files),
    ):
        if given and not wanted.engine:
            raise UsageError(
                f"{name} is about the packages of an engine", hint="add --engine docker.io or --engine podman"
            )
    if not wanted.engine:
        return None
    engine_named(wanted.engine)
    if wanted.files:
        if wanted.release or wanted.installed:
            raise UsageError(
                "--for and --installed choose packages, and --engine-files brings them", hint="leave one out"
            )
        return None
    if not wanted.release:
        raise UsageError("--engine needs the release of the offline host", hint="for example --for debian:12")
    return release_named(wanted.release, wanted.engine, machines[0])


@dataclass(frozen=True, slots=True)
class FetchedEngine:
    """An engine's packages for one kind of machine, fetched. `names`: those that were asked for."""

    place: str
    names: Sequence[str]
    packages: Sequence[Package]
    files: Sequence[Path]


def fetch_engines(
    wanted: EngineWanted, machines: Sequence[str], cache: Path, observer: Observer
) -> list[FetchedEngine]:
    """Fetch what of the engine comes from apt. UsageError for a wish that makes no sense."""
    release = _release(wanted, machines)
    if wanted.files:
        _brought(wanted.files)
    if release and wanted.installed:
        _check_status(wanted.installed, release)
    out = []
    for machine in machines if release else ():
        assert release
        engine = engine_named(wanted.engine)
        observer(Noted(f"{machine}: fetching {wanted.engine} for {release.name}"))
        apt = Apt(cache, release, machine, status=wanted.installed)
        apt.refresh()
        names = [*engine.debs, *apt.known(engine.also)]
        packages = apt.closure(names)
        out.append(FetchedEngine(f"engine/{release.slug}-{machine}", names, packages, apt.fetch(packages)))
    return out


def _check_status(path: Path, release: Release) -> None:
    """UsageError for a file that is not dpkg's status of a host with this release."""
    text = read_small(path, STATUS_MAX).decode("utf-8", "replace")
    found = re.search(r"^Package: base-files\n(?:.+\n)*?Version: ([^\n]+)", text, re.MULTILINE)
    if not found:
        raise UsageError(f"{path} is not dpkg's list of what a host has", hint="copy /var/lib/dpkg/status of that host")
    if release.family.name == "debian" and found[1].partition(".")[0].partition("+")[0] != release.version:
        raise UsageError(
            f"{path} is of a host with version {found[1]:.40}, and --for says {release.name}",
            hint="give the other --for",
        )


def put_engines(folder: KitFolder, engines: Sequence[FetchedEngine], brought: Path | None) -> list[str]:
    """The engine's files into the kit; what they are called."""
    held = []
    for path in _brought(brought) if brought else ():
        folder.copy(path, f"engine/files/{path.name}")
        held.append(path.name)
    for each in engines:
        pairs = list(zip(each.packages, each.files, strict=True))
        for package, path in pairs:
            folder.copy(path, f"{each.place}/{package.file}")
        folder.put(f"{each.place}/Packages", index(pairs))
        folder.put(f"{each.place}/install.txt", "".join(f"{name}\n" for name in each.names).encode())
        held += [f"{package.name} {package.version}" for package in each.packages]
    return held


def _brought(place: Path) -> list[Path]:
    """The engine's files that the user fetched elsewhere."""
    pattern = re.compile(r"[^-].*\.rpm|docker-.*\.tgz")
    named = sorted(path for path in place.iterdir() if pattern.fullmatch(path.name)) if place.is_dir() else []
    if not named:
        raise UsageError(
            f"{place} holds no *.rpm and no docker-*.tgz file", hint="docs/install.md says how to get them"
        )
    return named
