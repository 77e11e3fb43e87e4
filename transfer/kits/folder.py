"""The folder of a kit: files by name, and last of all SHA256SUMS, without which it is none."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from transfer.errors import Damaged, NotFound, UsageError, from_os_error
from transfer.kits.parts import files_below
from transfer.streams import TEMPORARY, open_plain, publish, publishing, read_small, sha256_of

SUMS = "SHA256SUMS"
UNFINISHED = ".transfer-kit"
"""Is there from the first file on, until the kit is whole, and names each file before that is written."""
_BLOCK = 1 << 20


class KitFolder:
    """Where a kit is written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.size = 0
        """Bytes of all files."""
        self._sums: dict[str, str] = {}
        self._whole: tuple[str, ...] = ("\0",)
        """Folders that are copied whole: noted once."""

    def there(self) -> list[str]:
        """What a run left that was stopped. UsageError if anything else is there."""
        try:
            there = os.listdir(self.root)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise from_os_error(error, f"opening {self.root}") from error
        if UNFINISHED not in there and SUMS in there:
            raise UsageError(f"{self.root} is a kit already", hint="name a new folder, or remove this one")
        begun = self._begun() if UNFINISHED in there else []
        known = {UNFINISHED, *([SUMS, *begun] if UNFINISHED in there else [])}
        known |= {str(above) for name in known for above in Path(name).parents}
        within = tuple(name for name in known if name.endswith("/"))
        found = sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*"))
        for name in found:
            temporary = TEMPORARY.fullmatch(Path(name).name)
            meant = str(Path(name).with_name(temporary[1])) if temporary else name
            if meant not in known and not f"{name}/".startswith(within or ("\0",)):
                raise UsageError(
                    f"{self.root} holds {name!r:.100}, which is not part of a kit",
                    hint="name a new folder, such as KIT on the stick",
                )
        return found

    def _begun(self) -> list[str]:
        """The files that a run which was stopped had begun; a folder that is copied whole ends with a slash."""
        return read_small(self.root / UNFINISHED).decode("utf-8", "replace").splitlines()[1:]

    def _note(self, name: str) -> None:
        try:
            with (self.root / UNFINISHED).open("a", encoding="utf-8") as begun:
                begun.write(f"{name}\n")
        except OSError as error:
            raise from_os_error(error, f"writing {self.root / UNFINISHED}") from error

    def begin(self) -> None:
        """Have an empty folder. UsageError as for `there`."""
        there = self.there()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            for name in reversed(there):
                path = self.root / name
                if path.is_dir() and not path.is_symlink():
                    path.rmdir()
                elif name != UNFINISHED:
                    path.unlink()
            publish(self.root / UNFINISHED, b"an unfinished kit: run `transfer kit` again\n")
        except OSError as error:
            raise from_os_error(error, f"writing {self.root}") from error

    @contextmanager
    def writing(self, name: str, *, summed: bool = True) -> Iterator[Callable[[bytes], None]]:
        """One file of the kit, whole or not at all."""
        if not name.startswith(self._whole):
            self._note(name)
        path = self.root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise from_os_error(error, f"writing {path}") from error
        total = hashlib.sha256()
        with publishing(path) as write:

            def both(data: bytes) -> None:
                total.update(data)
                write(data)

            yield both
        self.size += path.stat().st_size
        if summed:
            self._sums[name] = total.hexdigest()

    def put(self, name: str, data: bytes) -> None:
        """A small file."""
        with self.writing(name) as write:
            write(data)

    def copy(self, source: Path, name: str, *, summed: bool = True) -> None:
        """A file, or all regular files of a folder. `summed`: they come into SHA256SUMS; a bundle has a list of its own."""
        if source.is_dir():
            self._note(f"{name}/")
            self._whole = (*self._whole, f"{name}/")
        for path in files_below(source) if source.is_dir() else [source]:
            inner = f"{name}/{path.relative_to(source)}" if source.is_dir() else name
            if not inner.isprintable() or "\\" in inner:
                raise UsageError(f"{inner!r:.200}: such a name cannot be in a list of sums", hint="rename the file")
            with open_plain(path, follow=True) as file, self.writing(inner, summed=summed) as write:
                while block := file.read(_BLOCK):
                    write(block)

    def end(self) -> str:
        """Write SHA256SUMS: now it is a kit. The hash of that file."""
        text = "".join(f"{total}  {name}\n" for name, total in sorted(self._sums.items())).encode()
        publish(self.root / SUMS, text)
        (self.root / UNFINISHED).unlink(missing_ok=True)
        return hashlib.sha256(text).hexdigest()


def listed(kit: Path, name: str) -> Path:
    """A file of somebody's kit, checked against its SHA256SUMS. Damaged if it is not what the list says; NotFound if either is not there."""
    path = kit / name
    if not path.is_file() or not (kit / SUMS).is_file():
        raise NotFound(f"{kit} has no {name}, or no {SUMS}", hint="name the folder of a kit")
    for line in (kit / SUMS).read_text(encoding="utf-8", errors="replace").splitlines():
        total, _, called = line.partition("  ")
        if called == name:
            if sha256_of(path) == total:
                return path
            break
    raise Damaged(f"{path} is not what {SUMS} beside it says", hint="copy the kit again from its source")
