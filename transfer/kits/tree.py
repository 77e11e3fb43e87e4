"""The folder that is installed: Debian's Python with the libraries it needs, which starts anywhere on the same kind of machine.

    bin/transfer bin/python3   scripts that find the folder they are in
    bin/python3.N              the program itself; started alone at one place only: FIXED (below)
    lib/                       the loader, the C library, what Python and the wheels need
    lib/python3.N/ lib/python3/dist-packages/
    share/                     the installer, the licences, sbom.cdx.json

A program for Linux names its loader by an absolute path. At `/opt/transfer-VERSION` that path is right, and nothing but the program is started;
elsewhere the scripts start it through the loader. (A rule of fapolicyd forbids the latter on hosts that are locked down; there, use the usual prefix.)
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from transfer.engines.program import Program
from transfer.errors import EngineError, NotFound, Unsupported
from transfer.kits.apt import Package, unpack
from transfer.kits.elf import read_elf

PLACE = "/opt/transfer-"
VERSION_LENGTH = 24
"""Of what follows PLACE: version and build. All have one length, so that one can take the place of another in a program."""
UNNAMED = "@" * VERSION_LENGTH
LOADERS = {"x86_64": "ld-linux-x86-64.so.2", "aarch64": "ld-linux-aarch64.so.1"}
TOOLS = ("patchelf", "python3-pip-whl")
"""What is needed here to make the folder, and is not part of it."""
_LEFT_OUT = re.compile(
    r"(test|tests|idlelib|idle_test|turtledemo|tkinter|ensurepip|lib2to3|pydoc_data|distutils|venv|config-[^/]*|__pycache__|__phello__)(/|$)"
    r"|turtle\.py$|sitecustomize\.py$|.*/__pycache__/"
    r"|lib-dynload/(_dbm|_gdbm|nis|readline|_curses|_curses_panel|_tkinter|_test.*|_xxtestfuzz|_xxsubinterpreters|xxlimited.*|audioop|ossaudiodev)\."
)


def python_packages(minor: str) -> list[str]:
    """Debian's packages of a Python with its library, such as "3.11", without programs for people."""
    return [
        f"python{minor}-minimal",
        f"libpython{minor}-minimal",
        f"libpython{minor}-stdlib",
        "libstdc++6",
        "libgcc-s1",
    ]


class Tree:
    """The folder while it is made. `debs`: each of the packages, unpacked in a folder of its own name; `minor`: such as "3.11"."""

    def __init__(self, root: Path, debs: Path, machine: str, minor: str) -> None:
        self.root, self._debs, self.machine, self.minor = root, debs, machine, minor
        self.used: set[str] = set()
        """The packages that something was taken of."""
        self._libraries = {path.name: path for path in self._shared()}

    @property
    def python(self) -> str:
        return f"python{self.minor}"

    @property
    def library(self) -> Path:
        return self.root / "lib" / self.python

    @property
    def wheels(self) -> Path:
        return self.root / "lib/python3/dist-packages"

    def command(self) -> list[str]:
        """This folder's Python, for a machine like it."""
        library = self.root / "lib"
        loader = str(library / LOADERS[self.machine])
        start = [
            loader,
            "--inhibit-cache",
            "--inhibit-rpath",
            "",
            "--argv0",
            str(self.root / "bin/python3"),
            "--library-path",
            str(library),
        ]
        return [*start, str(self.root / "bin" / self.python), "-I"]

    def _shared(self) -> Iterator[Path]:
        for folder in ("lib", "usr/lib"):
            for pattern in ("*.so", "*.so.*"):
                yield from sorted(self._debs.glob(f"*/{folder}/*-linux-gnu*/{pattern}"))
                yield from sorted(self._debs.glob(f"*/{folder}64/{pattern}"))
                yield from sorted(self._debs.glob(f"*/{folder}/{pattern}"))

    def take_python(self) -> None:
        """Python and its library, without what is for people or for tests."""
        (self.root / "bin").mkdir(parents=True)
        (self.root / "share").mkdir()
        self._take(self._only(f"usr/bin/{self.python}"), self.root / "bin" / self.python)
        for folder in sorted(self._debs.glob(f"*/usr/lib/{self.python}")):
            for path in sorted(folder.rglob("*")):
                name = str(path.relative_to(folder))
                if path.is_file() and not _LEFT_OUT.match(name) and not re.search(r"/(tests?|__pycache__)/", name):
                    self._take(path, self.library / name)
        if not (self.library / "os.py").is_file():
            raise Unsupported(
                f"the packages of {self.python} hold no library of Python",
                hint="this release of the packages is not known here",
            )

    def _only(self, name: str) -> Path:
        found = sorted(self._debs.glob(f"*/{name}"))
        if not found:
            raise Unsupported(
                f"the packages of {self.python} hold no {name}", hint="this release of the packages is not known here"
            )
        return found[0]

    def _take(self, source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
        self.used.add(source.relative_to(self._debs).parts[0])

    def take_libraries(self) -> None:
        """The loader, and every library that a program or library in the folder needs. EngineError for one of another machine, or for one that is nowhere."""
        loader = LOADERS[self.machine]
        self._take(self._found(loader, "the loader"), self.root / "lib" / loader)
        self._take(self._found("libgcc_s.so.1", "a thread that ends"), self.root / "lib/libgcc_s.so.1")
        waiting = [path for path in self.root.rglob("*") if path.is_file()]
        there = {path.name for path in waiting}
        while waiting:
            path = waiting.pop()
            elf = read_elf(path)
            if elf is None:
                continue
            if elf.machine != self.machine:
                raise EngineError(
                    f"{path.relative_to(self.root)} is for {elf.machine or 'another machine'}, not for {self.machine}"
                )
            for name in elf.needed:
                if name not in there:
                    target = self.root / "lib" / name
                    self._take(self._found(name, str(path.relative_to(self.root))), target)
                    there.add(name)
                    waiting.append(target)

    def _found(self, name: str, needed_by: str) -> Path:
        if name not in self._libraries:
            raise NotFound(
                f"{needed_by} needs {name}, which none of the packages has",
                hint="this release of the packages is not known here",
            )
        return self._libraries[name]

    def fix(self, patchelf: Sequence[str]) -> None:
        """Have the program name its loader and libraries by the place where it is installed; the name of the version comes later (`name`)."""
        place, program = f"{PLACE}{UNNAMED}", self.root / "bin" / self.python
        words = [
            "--set-interpreter",
            f"{place}/lib/{LOADERS[self.machine]}",
            "--force-rpath",
            "--set-rpath",
            f"{place}/lib",
        ]
        Program(patchelf, "patchelf").run(*words, str(program))

    def write_starts(self, template: str) -> None:
        """bin/transfer and bin/python3."""
        known = {"@FIXED@": PLACE + UNNAMED, "@PYTHON@": self.python, "@LOADER@": LOADERS[self.machine]}
        for old, new in known.items():
            template = template.replace(old, new)
        for name, module in (("transfer", "-m transfer "), ("python3", "")):
            (self.root / "bin" / name).write_text(template.replace("@MODULE@", module), encoding="utf-8")

    def name(self, version: str, before: str = UNNAMED) -> None:
        """Write the version into what names its own place."""
        for name in (self.python, "python3", "transfer"):
            path = self.root / "bin" / name
            data = path.read_bytes()
            path.write_bytes(data.replace((PLACE + before).encode(), (PLACE + version).encode()))

    def licences(self, packages: Sequence[Package]) -> None:
        """What each of the packages says about the rights on it."""
        for package in packages:
            if package.name in self.used:
                target = self.root / "share/licences" / package.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self._copyright(package.name), target)

    def _copyright(self, name: str) -> Path:
        folder = self._debs / name / "usr/share/doc" / name
        for _ in range(4):
            if not folder.is_symlink():
                break
            other = folder.readlink().name
            folder = self._debs / other / "usr/share/doc" / other
        path = folder / "copyright"
        if path.is_symlink():
            other = path.readlink().parent.name
            path = self._debs / other / "usr/share/doc" / other / "copyright"
        if not path.is_file():
            raise NotFound(
                f"the package {name} says nothing about its licence",
                hint="this release of the packages is not known here",
            )
        return path


def unpacked(packages: Sequence[Package], files: Sequence[Path], folder: Path) -> Path:
    """The packages, each unpacked in a folder of its own name."""
    for package, path in zip(packages, files, strict=True):
        unpack(path, folder / package.name)
    return folder
