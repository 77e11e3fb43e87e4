"""Hosts with nothing on them: Debians as mmdebstrap leaves them, and a root that has a busybox and nothing else. Each without a network."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support import debians

SUITES = {"debian:11": "bullseye", "debian:12": "bookworm", "debian:13": "trixie"}
EMPTY = "empty"
APPLETS = (
    "sh",
    "tar",
    "gzip",
    "sha256sum",
    "mkdir",
    "rm",
    "mv",
    "ln",
    "cat",
    "ls",
    "uname",
    "readlink",
    "id",
    "sync",
    "sleep",
    "head",
)
"""What the installer may use where there is nothing: 16 names of busybox."""
KIT, BESIDE = "media/stick/KIT", "media/beside"
SECONDS = 240

_INSIDE = """
set -e
root=$1 script=$2; shift 2
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
if [ "$1" != none ]; then mount --bind "$1" "$root/media/stick/KIT"; mount -o remount,bind,ro "$root/media/stick/KIT"; fi
if [ "$2" != none ]; then mount --bind "$2" "$root/media/beside"; mount -o remount,bind,ro "$root/media/beside"; fi
shift 2
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@" chroot "$root" /bin/sh -c "$script"
"""


def cached(name: str) -> Path:
    """The root of that Debian."""
    return debians.root(Path(f"/var/tmp/transfer-test-bare-{SUITES[name]}"), SUITES[name])


@dataclass(frozen=True)
class Said:
    """How a script ended, and all that was printed."""

    code: int
    text: str


class Bare:
    """`place` is its root."""

    def __init__(self, place: Path) -> None:
        self.place = place
        for each in ("proc", "dev", "sys", "tmp", "root", KIT, BESIDE):
            (place / each).mkdir(parents=True, exist_ok=True)

    def run(
        self,
        script: str,
        *,
        kit: Path | None = None,
        beside: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
        connects: Path | None = None,
    ) -> Said:
        """A shell script as root, with the kit at /media/stick/KIT and another folder at /media/beside, and no interface but one that is down.

        `connects`: a file for every call of connect(2) that anything in it makes, as strace writes it.
        """
        words = [
            "unshare",
            "--mount",
            "--pid",
            "--net",
            "--ipc",
            "--uts",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            _INSIDE,
        ]
        variables = [f"{name}={value}" for name, value in ({"HOME": "/root"} if env is None else env).items()]
        trace = ["strace", "-f", "--seccomp-bpf", "-q", "-e", "trace=connect", "-o", str(connects)] if connects else []
        done = subprocess.run(
            [*trace, *words, "bare", str(self.place), script, str(kit or "none"), str(beside or "none"), *variables],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
        return Said(done.returncode, done.stdout)

    def fine(self, script: str, **more: object) -> str:
        """The same for a script that has to end well; what was printed."""
        said = self.run(f"set -eu\n{script}", **more)  # type: ignore[arg-type]
        assert said.code == 0, said.text
        return said.text


def fill_empty(place: Path) -> None:
    """A busybox and 16 names for it."""
    (place / "bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", place / "bin/busybox")
    for name in APPLETS:
        (place / "bin" / name).symlink_to("busybox")


@contextlib.contextmanager
def bare(name: str, *, size: str = "1500M") -> Iterator[Bare]:
    """A host on which nothing was done yet; whatever is done there is forgotten. `size`: how much can be written."""
    work = Path(tempfile.mkdtemp(prefix="transfer-bare-", dir="/var/tmp"))
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=755,size={size}", "tmpfs", str(work)], check=True)
        root = work / "root"
        root.mkdir()
        if name == EMPTY:
            fill_empty(root)
        else:
            (work / "upper").mkdir()
            (work / "work").mkdir()
            options = f"lowerdir={cached(name)},upperdir={work}/upper,workdir={work}/work"
            subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", str(root)], check=True)
        yield Bare(root)
    finally:
        for mounted in (work / "root", work):
            subprocess.run(["umount", "--lazy", str(mounted)], check=False, capture_output=True)
        shutil.rmtree(work, ignore_errors=True)
