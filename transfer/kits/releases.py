"""The releases whose packages apt can fetch here, and what an engine consists of there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transfer.errors import NotFound, UsageError

DEBS = {"x86_64": "amd64", "aarch64": "arm64"}
"""Debian's names for machines, by the kernel's."""
_KEYRINGS = Path("/usr/share/keyrings")


@dataclass(frozen=True, slots=True)
class Family:
    """A distribution of apt: where its packages are, and whose keys sign them.

    `keys`: how a host gets these keys. `apart`: where the packages of other machines than amd64 are.
    """

    name: str
    archive: str
    security: str
    components: str
    keys: str
    apart: str = ""


DEBIAN = Family(
    "debian",
    "http://deb.debian.org/debian",
    "http://deb.debian.org/debian-security",
    "main",
    "apt-get install debian-archive-keyring",
)
UBUNTU = Family(
    "ubuntu",
    "http://archive.ubuntu.com/ubuntu",
    "http://security.ubuntu.com/ubuntu",
    "main universe",
    "apt-get install ubuntu-keyring (Debian 12 lacks this package: take the file ubuntu-keyring_*_all.deb of Debian 13)",
    apart="http://ports.ubuntu.com/ubuntu-ports",
)


@dataclass(frozen=True, slots=True)
class Release:
    """One release: `suite` is its code name."""

    family: Family
    version: str
    suite: str

    @property
    def name(self) -> str:
        return f"{self.family.name}:{self.version}"

    @property
    def slug(self) -> str:
        """Its name as part of a file's."""
        return f"{self.family.name}-{self.version}"

    def sources(self, machine: str) -> str:
        """Lines for apt's list of sources. NotFound where this host has no keys to check them by."""
        keyring = _KEYRINGS / f"{self.family.name}-archive-keyring.gpg"
        if not keyring.is_file():
            raise NotFound(
                f"{keyring} is not here: the packages of {self.name} cannot be checked",
                hint=self.family.keys,
            )
        archive, security = self.family.archive, self.family.security
        if self.family.apart and machine != "x86_64":
            archive = security = self.family.apart
        mirror = os.environ.get(f"TRANSFER_{self.family.name.upper()}_MIRROR", "")
        if mirror:
            archive, security = mirror, f"{mirror}-security" if self.family is DEBIAN else mirror
        places = ((archive, self.suite), (archive, f"{self.suite}-updates"), (security, f"{self.suite}-security"))
        return "".join(f"deb [signed-by={keyring}] {url} {suite} {self.family.components}\n" for url, suite in places)


RELEASES = {
    each.name: each
    for each in (
        Release(DEBIAN, "11", "bullseye"),
        Release(DEBIAN, "12", "bookworm"),
        Release(DEBIAN, "13", "trixie"),
        Release(UBUNTU, "22.04", "jammy"),
        Release(UBUNTU, "24.04", "noble"),
    )
}
PYTHON_OF = RELEASES["debian:12"]
"""Whose Python a kit brings. Its C library asks for Linux 3.2 and no more (glibc 2.36, NEWS)."""


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine's packages for apt (`also`: those that a release may have or not) and for dnf."""

    debs: Sequence[str]
    also: Sequence[str] = ()
    rpms: Sequence[str] = ()


ENGINES = {
    "docker.io": Engine(
        ("docker.io", "iptables", "ca-certificates"),
        ("docker-cli",),
        ("docker-ce", "docker-ce-cli", "containerd.io", "container-selinux"),
    ),
    "podman": Engine(
        ("podman", "ca-certificates"),
        (
            "crun",
            "uidmap",
            "slirp4netns",
            "fuse-overlayfs",
            "netavark",
            "aardvark-dns",
            "containernetworking-plugins",
            "nftables",
            "passt",
        ),
        ("podman", "container-selinux"),
    ),
}
"""By the names of Debian's packages."""
RPM_FAMILIES = ("rhel", "rocky", "almalinux", "centos", "fedora")


def engine_named(name: str) -> Engine:
    """UsageError for one that is not in the table."""
    if name not in ENGINES:
        raise UsageError(f"--engine {name!r:.60} is not known", hint=f"write {' or '.join(ENGINES)}")
    return ENGINES[name]


def release_named(name: str, engine: str, machine: str) -> Release:
    """The release `--for` means. UsageError for one that apt has no packages of; for the relatives of RHEL the hint is the command to type there."""
    if name in RELEASES:
        return RELEASES[name]
    family = name.partition(":")[0]
    if family in RPM_FAMILIES:
        packages = " ".join(engine_named(engine).rpms)
        raise UsageError(
            f"the packages of {name:.40} cannot be fetched from here",
            hint=f"on a connected host of the same release: dnf download --resolve --alldeps --arch {machine} --arch noarch"
            f" --destdir DIR {packages}; then here --engine-files DIR",
        )
    raise UsageError(
        f"--for {name!r:.40} is not known", hint=f"write one of {', '.join(RELEASES)}, or use --engine-files DIR"
    )
