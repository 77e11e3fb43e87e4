"""Folders that somebody else may have prepared: what lies in them is opened, made and removed by descriptor, never through a link.

Anyone may have made a folder in a shared place before we came: with links in it that lead to our user's files, with hard links to them,
or owned by him, so that he changes it while we are at work.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from transfer.errors import UsageError, from_os_error

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ELSEWHERE = "name a new folder, in one that belongs to you"


def state_folder() -> Path | None:
    """Where this program keeps what lasts (file-hierarchy(7), XDG base directories): of the system for root, else of the user; None without a home."""
    if hasattr(os, "geteuid") and os.geteuid() == 0 and not _is_a_users_root():
        return Path("/var/lib")
    state, home = os.environ.get("XDG_STATE_HOME", ""), os.environ.get("HOME", "")
    return Path(state) if state else Path(home) / ".local" / "state" if home else None


def _is_a_users_root() -> bool:
    """Whether root is a user's in a namespace of his (`podman unshare`): the system's folders are nobody's that he knows there."""
    with contextlib.suppress(OSError):
        everybody = Path("/proc/self/uid_map").read_text(encoding="ascii").split() == ["0", "0", str(2**32 - 1)]
        nobody = int(Path("/proc/sys/kernel/overflowuid").read_text(encoding="ascii"))
        return not everybody and Path("/var").stat().st_uid == nobody
    return False


def config_folder() -> Path | None:
    """Where this user's configuration is (XDG base directories); None without a home."""
    config, home = os.environ.get("XDG_CONFIG_HOME", ""), os.environ.get("HOME", "")
    return Path(config) if config else Path(home) / ".config" if home else None


def cache_folder() -> Path | None:
    """Where this user keeps what can be fetched again (XDG base directories); None without a home."""
    cache, home = os.environ.get("XDG_CACHE_HOME", ""), os.environ.get("HOME", "")
    return Path(cache) if cache else Path(home) / ".cache" if home else None


def own_folder(path: Path, *inner: str, private: bool = False) -> None:
    """Make the folder and these below it (`a`, `a/b`), or see that they are real folders of ours. UsageError otherwise.

    `path` itself may be given through links by whoever names it; below it no link is followed. `private`: for nobody else to read.
    """
    try:
        path.mkdir(mode=0o700 if private else 0o777, parents=True, exist_ok=True)
        with _opened(path) as top:
            _is_ours(top, path)
            if private and stat.S_IMODE(os.fstat(top).st_mode) & 0o077:
                os.fchmod(top, 0o700)
            for name in inner:
                with _below(top, name, path, make=0o700 if private else 0o777) as fd:
                    _is_ours(fd, path / name)
    except OSError as error:
        raise from_os_error(error, f"making {path}") from error


@contextlib.contextmanager
def inner_folder(path: Path, name: str) -> Iterator[tuple[int, int]]:
    """Descriptors of a folder, which may be anybody's, and of one of ours in it, which is made. UsageError if that is a link or another user's."""
    try:
        with _opened(path) as outer, _below(outer, name, path, make=0o700) as inner:
            if os.fstat(inner).st_uid != os.geteuid():
                raise UsageError(f"{path / name} belongs to another user", hint="remove it if nobody needs it")
            yield outer, inner
    except OSError as error:
        raise from_os_error(error, f"making {path / name}") from error


def no_links(path: Path, *inner: str) -> None:
    """UsageError if one of these below a folder is there and is a link, or no folder."""
    for name in inner:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISDIR(os.lstat(path / name).st_mode):
                raise UsageError(f"{path / name} is a link, or not a folder", hint="remove it if nobody needs it")


def real_folders(path: Path, *inner: str) -> None:
    """The same, whoever they belong to: only links on the way are refused."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with _opened(path) as top:
            for name in inner:
                with _below(top, name, path, make=0o777):
                    pass
    except OSError as error:
        raise from_os_error(error, f"making {path}") from error


def open_own(path: Path, mode: int = 0o666) -> int:
    """A file of ours for reading and writing, made if it is not there. UsageError for a link, another name of another file, or no file."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UsageError(f"{path} is a link", hint=_ELSEWHERE) from error
        raise from_os_error(error, f"opening {path}") from error
    if not plain(fd):
        os.close(fd)
        raise UsageError(f"{path} is not a regular file of this program", hint=_ELSEWHERE)
    return fd


def plain(fd: int) -> bool:
    """Whether an open file is a regular one that has no other name: what is written to it is written nowhere else."""
    found = os.fstat(fd)
    return stat.S_ISREG(found.st_mode) and found.st_nlink <= 1


def remove_ours(path: Path, inner: str, ours: re.Pattern[str], keep: frozenset[str] | set[str] = frozenset()) -> int:
    """Remove the regular files in a folder below `path` that bear a name of ours and are not to be kept; how many bytes those were.

    Nothing is removed through a link; a folder that is not there, or is none, has nothing to remove.
    """
    freed = 0
    with (
        contextlib.suppress(FileNotFoundError, NotADirectoryError, UsageError),
        _opened(path) as top,
        _below(top, inner, path) as fd,
    ):
        for name in os.listdir(fd):
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if name not in keep and ours.fullmatch(name) and stat.S_ISREG(found.st_mode):
                os.unlink(name, dir_fd=fd)
                freed += found.st_size
    return freed


def remove_folder(path: Path, inner: str) -> None:
    """Remove an empty folder below `path`; one that holds anything stays."""
    with contextlib.suppress(OSError), _opened(path) as top:
        os.rmdir(inner, dir_fd=top)


@contextlib.contextmanager
def scratch(place: Path, prefix: str) -> Iterator[Path]:
    """A new folder for temporary files, locked while it is in use, so that `clear_scratch` leaves it alone. It is removed at the end."""
    import tempfile

    clear_scratch(place, prefix)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=place) as folder:
        fd = os.open(folder, _OPEN)
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_SH)
            yield Path(folder)
        finally:
            os.close(fd)


def clear_scratch(place: Path, prefix: str, age: float = 86400) -> None:
    """Remove the temporary folders of ours in a shared place that a killed run left, once they are so old (seconds)."""
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if not entry.name.startswith(prefix) or not entry.is_dir(follow_symlinks=False):
                    continue
                found = entry.stat(follow_symlinks=False)
                if found.st_uid != os.geteuid() or time.time() - found.st_mtime <= age:
                    continue
                fd = os.open(entry.path, _OPEN)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(entry.path, ignore_errors=True)
                finally:
                    os.close(fd)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _below(top: int, name: str, path: Path, *, make: int | None = None) -> Iterator[int]:
    """The folder `name` (`a/b`) below an open one, each step opened on its own. UsageError for a link or a file on the way."""
    at = os.dup(top)
    try:
        for step in name.split("/"):
            if step in ("", "."):
                continue
            if make is not None:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(step, make, dir_fd=at)
            try:
                inner = os.open(step, _OPEN, dir_fd=at)
            except NotADirectoryError as error:
                raise UsageError(f"{path / name} is a link, or not a folder", hint=_ELSEWHERE) from error
            except OSError as error:
                if (path / name).is_symlink():
                    raise UsageError(f"{path / name} is a link", hint=_ELSEWHERE) from error
                raise
            os.close(at)
            at = inner
        yield at
    finally:
        os.close(at)


def _user(number: int) -> str:
    """A user's name, for people."""
    import pwd

    try:
        return f"the user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"the user {number}"


def _is_ours(fd: int, path: Path) -> None:
    """UsageError unless a folder belongs to whom the files belong that this process makes in it (on FAT or NFS that is not always itself)."""
    owner = os.fstat(fd).st_uid
    if owner == os.geteuid() or not os.access(path, os.W_OK):
        return
    name = f".transfer-{os.getpid()}-{os.urandom(4).hex()}.tmp"
    probe = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=fd)
    try:
        mine = os.fstat(probe).st_uid
    finally:
        os.close(probe)
        os.unlink(name, dir_fd=fd)
    if mine != owner:
        raise UsageError(f"{path} belongs to another user", hint=f"run this command as {_user(owner)}, or {_ELSEWHERE}")
