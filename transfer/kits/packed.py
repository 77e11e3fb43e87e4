"""A folder as one file, the same bytes each time: names in order, no owner, no time, no link; and back again."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from transfer.errors import Damaged, FormatError, from_os_error
from transfer.streams import sha256_of

_LEVEL = 9
_BLOCK = 1 << 20
UNPACKED_MAX = 1 << 30
"""More than the folder of any kit (bytes)."""


def identity(root: Path) -> str:
    """The hash of all names, modes and contents below a folder: 64 hexadecimal digits."""
    total = hashlib.sha256()
    for path in all_files(root):
        total.update(f"{sha256_of(path)} {_mode(path, root):o} {path.relative_to(root)}\n".encode())
    return total.hexdigest()


def all_files(root: Path) -> list[Path]:
    """Every regular file below a folder, caches of Python too, in the order of their names."""
    return sorted(path for path in root.rglob("*") if path.is_file())


def _mode(path: Path, root: Path) -> int:
    name = path.relative_to(root).parts
    return 0o755 if name[0] == "bin" or path.name.startswith("ld-linux") or path.name == "install.sh" else 0o644


class _Sink:
    """What gzip writes to, over a function."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write

    def write(self, data: bytes) -> int:
        self._write(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing waits here."""


def pack(root: Path, write: Callable[[bytes], object], stamp: int) -> None:
    """The folder as a tar file (PAX) in gzip. `stamp`: the time that every member gets (seconds since 1970)."""
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=_Sink(write), mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in sorted(root.rglob("*")):
            member = tarfile.TarInfo(str(path.relative_to(root)))
            member.mtime = stamp
            if path.is_dir():
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(member)
            elif path.is_file():
                member.size, member.mode = path.stat().st_size, _mode(path, root)
                with path.open("rb") as file:
                    archive.addfile(member, file)


def unpack_kit(path: Path, root: Path) -> None:
    """What `pack` made, below a new folder. FormatError for anything else: a link, a name that leads out, too much."""
    total = 0
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                total += member.size
                if (
                    not (member.isreg() or member.isdir())
                    or name.is_absolute()
                    or ".." in name.parts
                    or total > UNPACKED_MAX
                ):
                    raise FormatError(f"{path}: {member.name!r:.100} does not belong in a kit", hint="take another kit")
                target = root / name
                if target.exists() and not member.isdir():
                    raise FormatError(f"{path}: {member.name!r:.100} is there twice", hint="take another kit")
                if member.isdir():
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                source = archive.extractfile(member)
                assert source
                with target.open("xb") as file:
                    while block := source.read(_BLOCK):
                        file.write(block)
                target.chmod(_mode(target, root))
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Damaged(f"{path} is not whole: {error}") from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise FormatError(f"{path}: {error.filename!s:.200} is there twice", hint="take another kit") from error
    except OSError as error:
        raise from_os_error(error, f"unpacking {path} into {root}") from error
