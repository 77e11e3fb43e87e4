"""A depot on a medium that will be pulled out: what is read back comes from the medium, not from the cache."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from transfer.errors import MediumError, NotFound, UsageError, from_os_error
from transfer.ship.base import PART, Traits
from transfer.ship.folder import FolderDepot

CLUSTER = 64 << 10
"""A file is counted as if the filesystem gave space in units of so many bytes, or of its own if those are larger."""
_BLKFLSBUF = 0x1261  # linux/fs.h


class MediumDepot(FolderDepot):
    """One writer, in order. Nothing is hashed while it is written: `check` reads it back past the cache, where the system can do that."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, hashed=False)
        self.traits = Traits(lanes=1)
        if not root.is_dir():
            raise NotFound(f"{root} is not there", hint="insert and mount the medium, then run the same command again")

    def settle(self) -> None:
        """Before files are read back: let what holds the medium's blocks forget them."""
        device = _device(self.root)
        if device:
            with contextlib.suppress(OSError):
                fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    fcntl.ioctl(fd, _BLKFLSBUF)
                finally:
                    os.close(fd)

    def _blocks(self, fd: int, size: int) -> Iterator[memoryview]:
        return _from_the_medium(fd, size)


def _from_the_medium(fd: int, size: int) -> Iterator[memoryview]:
    """The file's bytes: directly where the filesystem lets one, else after the system was asked to forget its pages."""
    os.fsync(fd)
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    direct = _direct(fd)
    buffer = mmap.mmap(-1, PART)
    try:
        at = 0
        while at < size:
            try:
                count = os.preadv(fd if direct is None else direct, [buffer], at)
            except OSError as error:
                if direct is None or error.errno != errno.EINVAL:
                    raise
                os.close(direct)
                direct = None
                continue
            if count == 0:
                break
            yield memoryview(buffer)[:count]
            at += count
    finally:
        if direct is not None:
            os.close(direct)


def _direct(fd: int) -> int | None:
    """The same file once more, for reading without the cache; None where there is no such thing."""
    flag = getattr(os, "O_DIRECT", 0)
    with contextlib.suppress(OSError):
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC | flag) if flag else None
    return None


def mount_of(folder: Path) -> Path:
    """The mount point a folder lies under."""
    at = folder.resolve()
    while not at.is_mount() and at != at.parent:
        at = at.parent
    return at


def on_own_disk(folder: Path) -> bool:
    """Whether a folder lies on this host's own disk, where nothing is mounted over it."""
    return mount_of(folder) == Path("/")


def is_mount_point(folder: Path) -> bool:
    """Whether a folder is where media are mounted: below /media, /run/media or /mnt, or a place that fstab names."""
    real = folder.resolve()
    places = {Path("/media"), Path("/run/media"), Path("/mnt")}
    if places & {*real.parents}:
        return True
    with contextlib.suppress(OSError):
        for line in Path("/etc/fstab").read_text(errors="surrogateescape").splitlines():
            words = line.split()
            names_one = len(words) > 2 and not words[0].startswith("#") and words[1] not in ("/", "none", "swap")
            if names_one and Path(words[1]) in (real, *real.parents):
                return True
    return False


def _mounts() -> Iterator[tuple[str, str]]:
    """Block devices and where each is mounted (proc(5), mountinfo); none where that cannot be told."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
            fields, _, rest = line.partition(" - ")
            point = fields.split(" ")[4].encode("latin-1", "replace").decode("unicode_escape", "replace")
            source = rest.split(" ")[1] if rest.count(" ") else ""
            if source.startswith("/dev/"):
                yield source, point


def _device(folder: Path) -> str:
    """The block device under a folder; "" if that cannot be told."""
    mount = str(mount_of(folder))
    return next((source for source, point in _mounts() if point == mount), "")


def mounted() -> list[tuple[str, Path]]:
    """The labels of filesystems on block devices (udev's /dev/disk/by-label), and where each is mounted."""
    labels: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for entry in os.scandir("/dev/disk/by-label"):
            labels[os.path.realpath(entry.path)] = entry.name.encode().decode("unicode_escape", "replace")
    found = [(labels.get(os.path.realpath(source)), Path(point)) for source, point in _mounts()]
    return sorted((label, point) for label, point in found if label is not None)


def room(folder: Path) -> tuple[int, int, int]:
    """Bytes free, bytes a file's space is rounded up to, and a number that is the same for folders that share this space."""
    try:
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize, max(found.f_frsize, CLUSTER), folder.stat().st_dev
    except OSError as error:
        raise from_os_error(error, f"looking at {folder}") from error


def removable(folder: Path) -> Path:
    """The mount point to eject. UsageError for the system's own disk."""
    mount = mount_of(folder)
    if mount == Path("/"):
        raise UsageError(f"{folder} is on the disk of this system", hint="leave out --eject")
    return mount


def eject(mount: Path) -> None:
    """Unmount a medium. MediumError if that does not work."""
    commands = [["umount", str(mount)]]
    device = _device(mount)
    if device:
        commands.append(["udisksctl", "unmount", "-b", device])
    said = ""
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        except OSError:
            continue
        if done.returncode == 0:
            return
        said = said or done.stderr.strip()
    raise MediumError(
        f"{mount} could not be unmounted: {said or 'the umount program is missing'}",
        hint="everything is written and read back; unmount the medium by hand before you remove it",
    )
