"""A Debian with systemd, booted by systemd-nspawn in namespaces of its own, with this program and its units installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support import debians, engines

PACKAGES = (
    "systemd,systemd-sysv,udev,dbus,openssh-server,openssh-client,procps,kmod,util-linux,dosfstools,iproute2,python3"
)
"""Debian's python3 brings the libraries that this host's Python is linked with."""
CACHE = Path(f"/var/tmp/transfer-test-trixie-{zlib.crc32(PACKAGES.encode()):08x}")
SECONDS = 200
"""A machine that has not ended by then is stuck: two cores with other tests beside it take a third of that."""
SOON = 'soon() { for _ in $(seq 80); do if eval "$1"; then return 0; fi; sleep 0.5; done; echo "never: $1"; return 1; }'
REPOSITORY = Path(__file__).parents[2]


def root() -> Path:
    """The Debian with systemd."""
    return debians.root(CACHE, "trixie", f"--include={PACKAGES}")


@dataclass(frozen=True)
class Booted:
    """How a scenario ended, and what was printed."""

    code: int
    said: str


class Machine:
    """`place` is its root, with the units installed: what a test writes there is seen inside."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        path = self.place / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)

    def run(self, scenario: str, *binds: str) -> Booted:
        """Boot, run a shell script as root, and end; its exit code is the machine's. In it, `soon 'CONDITION'` waits for one."""
        self.write("scenario.sh", f"set -eux\ntrap 'systemctl --no-block exit $?' EXIT\n{SOON}\n{scenario}\n")
        unit = (
            "[Unit]\nAfter=basic.target dbus.socket\n[Service]\nType=oneshot\nExecStart=/bin/bash /scenario.sh\n"
            f"StandardOutput=file:/scenario.log\nStandardError=inherit\nTimeoutStartSec={SECONDS - 10}\n"
        )
        self.write("etc/systemd/system/scenario.service", unit)
        wants = self.place / "etc/systemd/system/multi-user.target.wants"
        wants.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (wants / "scenario.service").symlink_to("/etc/systemd/system/scenario.service")
        command = [
            "systemd-nspawn",
            "--quiet",
            f"--directory={self.place}",
            "--boot",
            "--register=no",
            "--keep-unit",
            "--private-network",
            f"--machine=t{os.getpid()}",
            "--bind-ro=" + sys.base_prefix + ":/opt/python",
            f"--bind-ro={REPOSITORY}:/opt/checkout",
            f"--bind-ro={sysconfig.get_path('purelib')}:/opt/site",
            *binds,
            "systemd.unit=multi-user.target",
        ]
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
        log = self.place / "scenario.log"
        said = log.read_text(encoding="utf-8", errors="replace") if log.exists() else done.stdout + done.stderr
        return Booted(done.returncode, said)


@contextlib.contextmanager
def machine() -> Iterator[Machine]:
    """A machine over the Debian, of which nothing is changed."""
    engines.promised("systemd")
    lower = root()
    work = Path(tempfile.mkdtemp(prefix="transfer-booted-", dir="/var/tmp"))
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755,size=1G", "tmpfs", str(work)], check=True)
        for each in ("installed", "upper", "work", "root"):
            (work / each).mkdir()
        make = ["make", "-s", "-C", str(REPOSITORY), "install-units", f"DESTDIR={work}/installed"]
        subprocess.run(make, check=True, capture_output=True)
        options = f"lowerdir={work}/installed:{lower},upperdir={work}/upper,workdir={work}/work"
        subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", str(work / "root")], check=True)
        made = Machine(work / "root")
        program = f"python{sys.version_info.major}.{sys.version_info.minor}"
        made.write(
            "usr/bin/transfer",
            f'#!/bin/sh\nexport LD_LIBRARY_PATH=/opt/python/lib PYTHONDONTWRITEBYTECODE=1\nPYTHONPATH=/opt/checkout:/opt/site exec /opt/python/bin/{program} -m transfer "$@"\n',
            0o755,
        )
        yield made
    finally:
        for mounted in (work / "root", work):
            subprocess.run(["umount", "--lazy", str(mounted)], check=False, capture_output=True)
        shutil.rmtree(work, ignore_errors=True)
