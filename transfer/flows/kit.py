"""The kit: a folder from which a host with nothing on it becomes an appliance, made on a connected one."""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shutil
import stat
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from transfer import __version__
from transfer.engines.program import Program
from transfer.errors import Damaged, EngineError, Locked, NotFound, UsageError
from transfer.events import Noted, Observer
from transfer.flows.kit_engine import EngineWanted, fetch_engines, put_engines
from transfer.flows.sealing import given_time
from transfer.flows.verify import check
from transfer.folders import clear_scratch, open_own, own_folder, scratch
from transfer.kits import packed, parts
from transfer.kits.apt import Apt, Package, control
from transfer.kits.folder import KitFolder, listed
from transfer.kits.releases import DEBS, PYTHON_OF
from transfer.kits.sbom import DebianPart, deb, debs_of, sbom
from transfer.kits.tree import TOOLS, UNNAMED, VERSION_LENGTH, Tree, python_packages, unpacked
from transfer.kits.wheels import CODEC, Pip, needed_names
from transfer.kits.wheels import parts as wheel_parts
from transfer.streams import read_small

if TYPE_CHECKING:
    from collections.abc import Iterator

MINOR = "3.11"
"""The Python of PYTHON_OF."""
STAMP = 1_767_225_600
"""The time of every file in a kit, unless SOURCE_DATE_EPOCH names another: 2026-01-01 (seconds since 1970)."""
TREE = "transfer-{machine}.tar.gz"
_WORK = "work-"


@dataclass(frozen=True, slots=True)
class KitOptions:
    """What a kit is to hold. `machines`: as `uname -m` calls them; `manual`: the man pages by file name."""

    machines: Sequence[str] = ()
    engine: EngineWanted = field(default_factory=EngineWanted)
    bundles: Sequence[Path] = ()
    sites: Path | None = None
    python_from: Path | None = None
    wheels: Path | None = None
    manual: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Kit:
    """A kit that is done: its folder, its bytes, the hash of SHA256SUMS, and for each machine the version that is installed."""

    root: Path
    size: int
    sums: str
    versions: Mapping[str, str]
    trees: Mapping[str, int]
    engine: Sequence[str]


def make_kit(root: Path, options: KitOptions, cache: Path, observer: Observer) -> Kit:
    """Make it. What is fetched is kept in `cache`, and fetched no more."""
    machines = list(dict.fromkeys(options.machines)) or [platform.machine()]
    for each in machines:
        if each not in DEBS:
            raise UsageError(f"--arch {each!r:.40} is not known", hint=f"write one of {', '.join(DEBS)}")
    for path in options.bundles:
        if not check(path, deep=False, jobs=None, observer=observer).sound:
            raise Damaged(f"the bundle {path} is damaged", hint=f"transfer verify {path}")
    names = [path.resolve().name.casefold() for path in options.bundles]
    if len(set(names)) < len(names):
        raise UsageError("two of the bundles have the same name", hint="rename the folder of one of them")
    sites = _sites(options.sites) if options.sites else []
    for each in machines if options.python_from else ():
        assert options.python_from
        listed(options.python_from, TREE.format(machine=each))
    given = given_time()
    folder = KitFolder(root)
    folder.there()
    with _work(cache) as work:
        engines = fetch_engines(options.engine, machines, cache, observer)
        trees = _Trees(work, cache, options, observer, STAMP if given is None else given)
        folder.begin()
        versions, sizes = {}, {}
        for machine in machines:
            versions[machine] = trees.write(machine, folder)
            sizes[machine] = (root / TREE.format(machine=machine)).stat().st_size
    held = put_engines(folder, engines, options.engine.files)
    _beside(folder, versions, sites)
    for path in options.bundles:
        observer(Noted(f"copying the bundle {path}"))
        folder.copy(path, f"bundles/{path.resolve().name}", summed=False)
    sums = folder.end()
    return Kit(root, folder.size, sums, versions, sizes, held)


@contextmanager
def _work(cache: Path) -> Iterator[Path]:
    """A new folder for what is put together, in the cache: it takes some 300 MB. Locked if another run is at work there."""
    own_folder(cache, private=True)
    lock = open_own(cache / "lock")
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Locked(f"another kit is being made with the downloads in {cache}") from error
        clear_scratch(cache, _WORK, age=0)
        with scratch(cache, _WORK) as folder:
            yield folder
    finally:
        os.close(lock)


class _Trees:
    """The folders to be installed, one for each kind of machine."""

    def __init__(self, work: Path, cache: Path, options: KitOptions, observer: Observer, stamp: int) -> None:
        self._work, self._cache, self._options, self._observer = work, cache, options, observer
        self._stamp = stamp
        self._here = platform.machine()
        self._made: dict[str, tuple[Tree, list[Package], list[Path]]] = {}
        self._pip: Pip | None = None

    def write(self, machine: str, folder: KitFolder) -> str:
        """One machine's into the kit; its version and build."""
        tree = self._taken(machine) if self._options.python_from else self._assembled(machine)
        self._finish(tree)
        version = _version(packed.identity(tree.root))
        tree.name(version)
        self._observer(Noted(f"{machine}: packing {version}"))
        with folder.writing(TREE.format(machine=machine)) as write:
            packed.pack(tree.root, write, self._stamp)
        folder.put(f"sbom-{machine}.cdx.json", (tree.root / "share/sbom.cdx.json").read_bytes())
        return version

    def _assembled(self, machine: str) -> Tree:
        """From Debian's packages and the index of Python's."""
        if self._here not in DEBS:
            raise UsageError(f"no kit can be made on {self._here}", hint=f"use a host of one of {', '.join(DEBS)}")
        tree, packages, files = self._python(machine)
        pip = self._pip or self._tools()
        self._observer(Noted(f"{machine}: fetching the libraries"))
        wheels = self._work / f"wheels-{machine}"
        pip.download(machine, wheels, self._options.wheels)
        pip.install(machine, sorted(wheels.glob("*.whl")), tree.wheels)
        self._codec(pip, machine, tree)
        tree.take_libraries()
        tree.licences(packages)
        self._patch(tree)
        debs = [
            deb(_part(package, path))
            for package, path in zip(packages, files, strict=True)
            if package.name in tree.used
        ]
        parts.install_program(tree.wheels)
        (tree.root / "share/sbom.cdx.json").write_bytes(sbom(__version__, wheel_parts(tree.wheels), debs))
        return tree

    def _python(self, machine: str) -> tuple[Tree, list[Package], list[Path]]:
        """Python itself for a machine, not yet with all libraries."""
        if machine not in self._made:
            self._observer(Noted(f"{machine}: fetching {PYTHON_OF.name}'s Python {MINOR}"))
            apt = Apt(self._cache, PYTHON_OF, machine)
            apt.refresh()
            tools = TOOLS if machine == self._here else ()
            packages = apt.closure([*python_packages(MINOR), *tools])
            files = apt.fetch(packages)
            debs = unpacked(packages, files, self._work / f"debs-{machine}")
            tree = Tree(self._work / f"tree-{machine}", debs, machine, MINOR)
            tree.take_python()
            self._made[machine] = tree, packages, files
        return self._made[machine]

    def _tools(self) -> Pip:
        """pip and patchelf, which run here: in this machine's own tree, of which nothing else is needed for that."""
        tree, *_ = self._python(self._here)
        tree.take_libraries()
        wheels = sorted((self._work / f"debs-{self._here}").glob("*/usr/share/python-wheels/pip-*.whl"))
        if not wheels:
            raise NotFound(
                f"the packages of {PYTHON_OF.name} have no pip", hint="this release of the packages is not known here"
            )
        self._pip = Pip(tree.command(), wheels[0], MINOR)
        return self._pip

    def _patch(self, tree: Tree) -> None:
        own = self._work / f"debs-{self._here}"
        program = own / "patchelf/usr/bin/patchelf"
        library = self._made[self._here][0].root / "lib"
        loader = self._made[self._here][0].command()[0]
        search = os.pathsep.join([str(library), *map(str, own.glob("*/usr/lib/*-linux-gnu"))])
        tree.fix([loader, "--inhibit-cache", "--library-path", search, str(program)])

    def _codec(self, pip: Pip, machine: str, tree: Tree) -> None:
        given = (
            sorted(self._options.wheels.glob(f"{CODEC.replace('-', '_')}-*{machine}.whl"))
            if self._options.wheels
            else []
        )
        if given:
            pip.install(machine, given[-1:], tree.wheels)
        elif machine != self._here or not parts.install_codec(tree.wheels):
            self._observer(
                Noted(
                    f"{machine}: the kit is without {CODEC}: bundles of gzip layers, and of jars and wheels, cannot be read there;"
                    " give the folder with its wheel for that machine with --wheels (`make codec`)"
                )
            )

    def _taken(self, machine: str) -> Tree:
        """From another kit: its Python and its libraries, with this program in the place of the one in there."""
        assert self._options.python_from
        source = self._options.python_from / TREE.format(machine=machine)
        tree = Tree(self._work / f"tree-{machine}", self._work / "none", machine, MINOR)
        packed.unpack_kit(source, tree.root)
        if not (tree.root / "bin" / tree.python).is_file():
            raise UsageError(f"{source} has another Python than {MINOR}", hint="take a newer kit")
        before = re.search(
            rb"/opt/transfer-([\w.+-]{%d})/lib" % VERSION_LENGTH, (tree.root / "bin" / tree.python).read_bytes()
        )
        if not before:
            raise UsageError(f"{source} is not from this program", hint="take another kit")
        tree.name(UNNAMED, before[1].decode())
        for path in [
            *tree.wheels.glob("transfer"),
            *tree.wheels.glob("transfer_appliance-*.dist-info"),
            tree.root / "share/man",
            tree.root / "share/doc",
        ]:
            shutil.rmtree(path, ignore_errors=True)
        for path in tree.root.rglob("*.pyc"):
            path.unlink()
        parts.install_program(tree.wheels)
        listing = tree.root / "share/sbom.cdx.json"
        held = wheel_parts(tree.wheels)
        lacking = sorted(set(needed_names()) - {each.name.lower().replace("_", "-") for each in held})
        if lacking or not listing.is_file():
            raise UsageError(
                f"{source} lacks what this program needs: {', '.join(lacking) or 'the list of its parts'}",
                hint="take a newer kit, or make this one without --python-from",
            )
        debs = debs_of(read_small(listing), str(listing))
        listing.write_bytes(sbom(__version__, held, debs))
        if machine == self._here:
            self._made[machine] = tree, [], []
        return tree

    def _finish(self, tree: Tree) -> None:
        """What is the same whatever the Python came from: scripts, documents, and everything compiled."""
        tree.write_starts((parts.HERE / "start.sh").read_text(encoding="utf-8"))
        shutil.copyfile(parts.HERE / "install.sh", tree.root / "share/install.sh")
        parts.copy(parts.beside("docs"), tree.root / "share/doc")
        parts.copy(parts.beside("bundles/FORMAT.md"), tree.root / "share/doc/FORMAT.md")
        parts.copy(parts.beside("systemd") / "examples", tree.root / "share/examples")
        for name, text in self._options.manual.items():
            page = tree.root / "share/man/man1" / name
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(text, encoding="utf-8")
        for path in [tree.root, *tree.root.rglob("*")]:
            path.chmod(
                0o755 if path.is_dir() or path.parent.name == "bin" or path.stat().st_mode & stat.S_IXUSR else 0o644
            )
        self._compile(tree)

    def _compile(self, tree: Tree) -> None:
        if self._here not in self._made:
            raise UsageError(
                f"a kit for {tree.machine} needs one for {self._here} beside it", hint=f"add --arch {self._here}"
            )
        runner = self._made[self._here][0]
        words = [
            "-m",
            "compileall",
            "-q",
            "-f",
            "-j1",
            "--invalidation-mode",
            "unchecked-hash",
            "-s",
            str(tree.root),
            "-p",
            "/opt/transfer",
        ]
        python = Program(runner.command(), "the kit's Python", env={"PYTHONHASHSEED": "0"})
        python.run(*words, str(tree.root / "lib" / tree.python), str(tree.wheels))
        if tree.machine == self._here:
            said = python.run("-m", "transfer", "--version").decode().strip()
            python.run("-m", "transfer", "demo", "--quiet")
            if said != f"transfer {__version__}":
                raise EngineError(f"the kit's own program says {said!r:.100} of its version")
            if (tree.wheels / "transfer_deflate").is_dir():
                python.run("-c", "import transfer_deflate")


def _version(identity: str) -> str:
    """The name of what is installed: this program's version and the build, always as long."""
    return f"{__version__}-{identity}"[:VERSION_LENGTH]


def _part(package: Package, path: Path) -> DebianPart:
    told = control(path, "Source")["Source"] or package.name
    return DebianPart(package.name, package.version, package.arch, package.sha256, told)


def _beside(folder: KitFolder, versions: Mapping[str, str], sites: Sequence[Path]) -> None:
    """What lies beside the folders to be installed."""
    folder.copy(parts.HERE / "install.sh", "install.sh")
    folder.copy(parts.HERE / "README.txt", "README.txt")
    folder.put("kit.txt", "".join(f"{machine} {version}\n" for machine, version in sorted(versions.items())).encode())
    folder.copy(parts.beside("docs"), "docs")
    folder.copy(parts.beside("bundles/FORMAT.md"), "docs/FORMAT.md")
    folder.copy(parts.HERE.parent / "bundle/standalone.py", "verify.py")
    folder.copy(parts.beside("systemd"), "units")
    for path in sites:
        folder.copy(path, f"sites/{path.name}")


def _sites(place: Path) -> list[Path]:
    """The site files in a folder."""
    found = sorted(place.glob("*.toml"))
    if not found:
        raise UsageError(f"{place} holds no site file (*.toml)", hint="docs/sync.md says what a site file is")
    return found
