"""What a person who helps with a problem asks first: versions, engines, store, room, clock."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from transfer import __version__
from transfer.chunks.deflate import DISTRIBUTION, codec
from transfer.engines.base import SourceOptions
from transfer.engines.transports import TRANSPORTS
from transfer.errors import TransferError
from transfer.flows.site import StoreChoice, last_receipt

LIBRARIES = ("pyzstd", "blake3", "pyfastcdc", "httpx", "paramiko", "typer", "tqdm")
ENGINES = ("dockerd", "podman", "containerd")
"""Programs of engines, which may be installed and not running."""
PROGRAMS = ("ssh", "docker", "podman", "ctr", "zstd")
VARIABLES = ("DOCKER_HOST", "SOURCE_DATE_EPOCH")
UNIT_FOLDERS = tuple(map(Path, ("/usr/lib/systemd/system", "/usr/local/lib/systemd/system", "/etc/systemd/system")))
EARLIEST = 1_767_225_600
"""2026-01-01: a clock before this is wrong. Certificates and times in bundles go by it (seconds since 1970)."""
LITTLE = 1 << 30
"""Bytes: with less room than this an export or import will soon fail."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, what was found, and what to do if something is wrong with it ("" if nothing is)."""

    subject: str
    found: str
    advice: str = ""


def examine(choice: StoreChoice) -> Iterator[Finding]:
    """Everything, one after the other. Nothing is changed."""
    yield Finding("transfer", f"{__version__}, in {Path(__file__).parents[1]}")
    yield Finding("Python", f"{platform.python_version()} ({sys.executable}), {platform.system()} {platform.machine()}")
    yield Finding("libraries", ", ".join(f"{name} {_version(name)}" for name in LIBRARIES))
    yield Finding("programs", ", ".join(f"{name} {shutil.which(name) or 'not found'}" for name in PROGRAMS))
    yield _clock(time.time())
    engines = [each for each in TRANSPORTS.values() if each.host]
    for transport in [each for each in engines if each.is_here] or engines[:1]:
        yield _engine(transport.name)
    yield from _store(choice)
    yield _room("this folder", Path.cwd())
    names = sorted(name for name in os.environ if name.startswith(("TRANSFER_", "CONTAINER")) or name in VARIABLES)
    yield Finding("environment", ", ".join(f"{name}={os.environ[name]}" for name in names) or "nothing set")


def examine_offline(choice: StoreChoice) -> Iterator[Finding]:
    """What a host without a network needs to import what is brought to it, each as one finding. Nothing is changed."""
    for subject, look in (
        ("Python", _python),
        ("store", lambda: _writable_store(choice)),
        ("engine", _engine_here),
        ("room", lambda: _room_for(choice)),
        ("clock", lambda: _clock(time.time())),
        ("units", _units),
        ("site", lambda: _site(choice)),
    ):
        try:
            yield look()
        except OSError as error:
            yield Finding(
                subject, f"cannot be looked at: {error}", "run this as root, or as the user the store belongs to"
            )


def _python() -> Finding:
    """This Python, and whether it can read everything that a bundle may have."""
    version, how = platform.python_version(), "" if codec() else f"install {DISTRIBUTION}: a kit brings it"
    held = "with" if codec() else "without"
    return Finding("Python", f"{version} ({sys.executable}), {held} the codec for gzip layers", how)


def _room_for(choice: StoreChoice) -> Finding:
    root = choice.store.root if choice.store else Path.cwd()
    return _room("room", next(each for each in (root, *root.parents) if each.is_dir()))


def _engine_here() -> Finding:
    """The first engine that is here, or one that is installed and does not run."""
    hosts = [each for each in TRANSPORTS.values() if each.host]
    here = [each for each in hosts if each.is_here]
    if here or any(shutil.which(name) for name in ENGINES):
        return _engine((here or hosts)[0].name)
    return Finding("engine", "none on this host", "as root: sh KIT/install.sh --engine")


def _writable_store(choice: StoreChoice) -> Finding:
    if choice.store is None:
        return Finding("store", "none", "leave out --no-store, and set HOME if this is not root")
    root = choice.store.root
    place = next(each for each in (root, *root.parents) if each.exists())
    if not place.is_dir():
        return Finding("store", f"{place} is not a folder", "name another one: --store DIR, or TRANSFER_STORE")
    foreign = root.is_dir() and root.stat().st_uid != os.geteuid()
    if foreign or not os.access(place, os.W_OK | os.X_OK):
        return Finding("store", f"{root} cannot be written by this user", "run this as the user the store belongs to")
    return next(_store(choice))


def _units() -> Finding:
    """Which of our units are here, and which of them the system starts by itself."""
    if not Path("/run/systemd/system").is_dir() and not shutil.which("systemctl"):
        return Finding("units", "no systemd on this host")
    if not any((folder / "transfer-sync@.service").is_file() for folder in UNIT_FOLDERS):
        return Finding("units", "not installed", "sh KIT/install.sh without --no-units and --user, if they are wanted")
    enabled = sorted({each.name for each in Path("/etc/systemd/system").glob("*.wants/transfer-*")})
    return Finding("units", f"installed; enabled: {', '.join(enabled) or 'none (docs/sync.md)'}")


def _site(choice: StoreChoice) -> Finding:
    advice = "transfer receipt --site NAME, with the name that the sending side uses"
    try:
        name = last_receipt(choice.store).site if choice.store else ""
    except TransferError as error:
        return Finding("site", error.message, error.hint or error.advice)
    return Finding("site", name or "has no name yet", "" if name else advice)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not found"


def _clock(now: float) -> Finding:
    text = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    return Finding("clock", text, "" if now >= EARLIEST else "set the clock: it is before this program was made")


def _engine(name: str) -> Finding:
    try:
        source = TRANSPORTS[name].open_source("", SourceOptions())
        try:
            count = len(source.names())
            traits = source.traits
            how = "read from its files" if traits.random_access else "read through its API"
            kept = "digests kept" if traits.keeps_digest else "image IDs kept"
            return Finding("engine", f"{source.where}: {count} images, {how}, {kept}")
        finally:
            source.close()
    except TransferError as error:
        return Finding("engine", error.message, error.hint or error.advice)


def _store(choice: StoreChoice) -> Iterator[Finding]:
    if choice.store is None:
        yield Finding("store", "none")
        return
    root = choice.store.root
    if not root.is_dir():
        yield Finding("store", f"{root} (not there yet: the first export or import makes it)")
        return
    try:
        entries = choice.store.entries()
        damaged = len(choice.store.malformed) + len(choice.store.marks.damaged())
        advice = "transfer store check" if damaged else ""
        yield Finding("store", f"{root}: {len(entries)} bundles, {damaged} files known to be damaged", advice)
    except TransferError as error:
        yield Finding("store", error.message, error.hint or error.advice)
    yield _room("store's disk", root)


def _room(subject: str, folder: Path) -> Finding:
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    writable = os.access(folder, os.W_OK)
    advice = "" if free >= LITTLE else "free some space"
    if not writable:
        advice = f"{folder} cannot be written by this user"
    return Finding(subject, f"{folder}: {free / 1e9:.1f} GB free", advice)
