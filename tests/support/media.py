"""Media for the tests: mounted folders that live only as long as a `with` block.

Each is kept by a shell which holds the reading end of a pipe, as the guard of engines.py does: when the block ends or
the test process dies, the shell unmounts. Loop devices are set to vanish with their last use. Where even the shell was
killed, the next medium finds the mount and removes it, because the lock in its folder is free.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeAlias

from tests.support import engines
from tests.support.ssh import needed

Kind: TypeAlias = Callable[[Path, int], AbstractContextManager[Path]]
PREFIX = f"{engines.PREFIX}medium-"

# Arguments: the folder of the medium, then those of the setup. The PID namespace takes along what serves a mount.
_KEEPER = """
set -eu
place=$1
shift
off() {
  umount "$1" || umount --lazy "$1" || :
}
trap 'off "$place/mount"; test ! -d "$place/device" || off "$place/device"' EXIT
mkdir "$place/mount"
%s
: >"$place/ready"
read -r _ || :
"""

_TMPFS = 'mount -t tmpfs -o "size=$1,mode=755" transfer-test "$place/mount"'

_EXT4 = """
truncate -s "$1" "$place/disk"
mkfs.ext4 -q -F -m 0 -E lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0 "$place/disk"
mount -o loop "$place/disk" "$place/mount"
"""

# FUSE wants a block device. To detach one in use is to say that it goes with the mount.
_EXFAT = """
truncate -s "$1" "$place/disk"
mkfs.exfat "$place/disk"
loop=$(losetup --find --show "$place/disk")
mount.exfat-fuse "$loop" "$place/mount" || { losetup -d "$loop"; exit 1; }
losetup -d "$loop"
"""

_READ_ONLY = """
mount --bind "$1" "$place/mount"
mount -o remount,bind,ro "$place/mount"
"""

# Direct I/O leaves no page cache between the filesystem and the device, which would remember what the device forgot.
# No journal and few inodes: all metadata is at the beginning, which the device keeps.
_COUNTERFEIT = """
truncate -s "$2" "$place/disk"
mkdir "$place/device"
nbdfuse -P "$place/pid" "$place/device" [ nbdkit --exit-with-parent python "$place/plugin.py" \
  "disk=$place/disk" "claimed=$1" "real=$2" "spared=$3" ] </dev/null &
for _ in $(seq 100); do
  test -s "$place/pid" && break
  sleep 0.05
done
mkfs.ext4 -q -F -m 0 -N 4096 -O ^has_journal,^resize_inode -E lazy_itable_init=0,nodiscard "$place/device/nbd"
loop=$(losetup --find --show --direct-io=on "$place/device/nbd")
mount "$loop" "$place/mount" || { losetup -d "$loop"; exit 1; }
losetup -d "$loop"
"""

_PLUGIN = '''
import builtins

API_VERSION = 2
settings = {}


def config(name, value):
    settings[name] = value if name == "disk" else int(value)


def open(readonly):
    return builtins.open(settings["disk"], "r+b", buffering=0)


def get_size(disk):
    return settings["claimed"]


def pieces(offset, count):
    """Where the bytes of a range really are: start in the range, place on the disk, length."""
    real, spared, done = settings["real"], settings["spared"], 0
    while done < count:
        at = offset + done
        place = at if at < real else spared + (at - spared) % (real - spared)
        length = min(count - done, real - place)
        yield done, place, length
        done += length


def pread(disk, buf, offset, flags):
    for done, place, length in pieces(offset, len(buf)):
        disk.seek(place)
        buf[done:done + length] = disk.read(length)


def pwrite(disk, buf, offset, flags):
    for done, place, length in pieces(offset, len(buf)):
        disk.seek(place)
        disk.write(buf[done:done + length])


def flush(disk, flags):
    pass
'''


@contextlib.contextmanager
def tmpfs(folder: Path, size: int) -> Iterator[Path]:
    """A mounted tmpfs of so many bytes."""
    needed("tmpfs", engines._missing_rights())
    with _kept(folder, _TMPFS, str(size)) as mount:
        yield mount


@contextlib.contextmanager
def loop_ext4(folder: Path, size: int) -> Iterator[Path]:
    """A mounted ext4 on a device of so many bytes."""
    needed("ext4", engines._missing_programs("mkfs.ext4", "losetup") or _missing_loop())
    with _kept(folder, _EXT4, str(size)) as mount:
        yield mount


@contextlib.contextmanager
def loop_exfat(folder: Path, size: int) -> Iterator[Path]:
    """A mounted exFAT, through FUSE, on a device of so many bytes."""
    programs = engines._missing_programs("mkfs.exfat", "mount.exfat-fuse", "losetup")
    needed("exfat", programs or _missing_fuse() or _missing_loop())
    with _kept(folder, _EXFAT, str(size)) as mount:
        yield mount


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    """What is in the folder, mounted so that nobody can write, beside the folder."""
    needed("read-only", engines._missing_rights())
    with _kept(folder.parent, _READ_ONLY, str(folder.resolve())) as mount:
        yield mount


@contextlib.contextmanager
def counterfeit(folder: Path, claimed: int, real: int, *, spared: int | None = None) -> Iterator[Path]:
    """A mounted ext4 on a device that claims so many bytes, takes them without complaint and keeps only the real ones.

    A write beyond the real end goes round to `spared` (default: half of the real size), so what was there is lost, but
    the filesystem's metadata, which is at the beginning, is not. spared=0: plain wrap-around, which breaks that too.
    Nothing caches below the filesystem: what the device lost is seen once the file's own pages are dropped.
    """
    programs = engines._missing_programs("nbdkit", "nbdfuse", "mkfs.ext4", "losetup")
    needed("counterfeit", programs or _missing_plugin() or _missing_fuse() or _missing_loop())
    numbers = [str(number) for number in (claimed, real, real // 2 if spared is None else spared)]
    with _kept(folder, _COUNTERFEIT, *numbers) as mount:
        yield mount


def drop_caches() -> None:
    """Write back what waits and let the kernel forget what it has read, on all of the machine."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")


@contextlib.contextmanager
def _kept(folder: Path, setup: str, *words: str) -> Iterator[Path]:
    """The mount which the setup makes; raises EngineError with the end of the log if it does not."""
    _sweep()
    place = engines._new_folder(folder, PREFIX)
    log = place / "log"
    with engines._locked(place):
        try:
            (place / "plugin.py").write_text(_PLUGIN, encoding="ascii")
            unshare = ["unshare", "--pid", "--fork", "--kill-child"]
            command = [*unshare, "sh", "-c", _KEEPER % setup, "keeper", str(place), *words]
            with engines._guarded(command, log) as keeper:
                engines._wait(keeper, log, lambda: (place / "ready").exists() or None)
                yield place / "mount"
        finally:
            engines._remove(place)


def _sweep() -> None:
    """Unmount and remove what dead test processes left, if their keepers died too."""
    for point in map(Path, engines._mounts_under(Path("/"))):
        place = point.parent
        if place.name.startswith(PREFIX) and (place / "lock").exists():
            with contextlib.suppress(FileNotFoundError, BlockingIOError), (place / "lock").open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                engines._remove(place)


def _missing_loop() -> str | None:
    """Why there can be no loop device here; None if there can."""
    reason = engines._missing_rights()
    return reason or (None if Path("/dev/loop-control").exists() else "no /dev/loop-control")


def _missing_fuse() -> str | None:
    """Why there can be no FUSE here; None if there can."""
    return None if Path("/dev/fuse").exists() else "no /dev/fuse"


def _missing_plugin() -> str | None:
    """Why nbdkit runs no Python here; None if it does."""
    command = ["nbdkit", "python", "--dump-plugin"]
    done = subprocess.run(command, capture_output=True, check=False, env={"PATH": engines._search_path()})
    return None if done.returncode == 0 else "nbdkit has no python plugin"
