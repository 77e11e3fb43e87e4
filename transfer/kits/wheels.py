"""The libraries of this program, as wheels for the Python of a kit: fetched and unpacked by pip, which that Python runs.

It is the Python for which the wheels are meant, so that what they ask of a version of Python is read by that version.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from transfer.engines.program import Program
from transfer.errors import EngineError, LinkError, NotFound

PROGRAM, CODEC = "transfer-appliance", "transfer-appliance-deflate"
OF_THIS_RUN = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "sboms")
"""What pip and maturin write beside a distribution about their own run: its time, its folder."""
_GLIBC = ("2014", "_2_17", "_2_24", "_2_26", "_2_27", "_2_28", "_2_31", "_2_34", "_2_35", "_2_36")
"""Manylinux platforms that run on the kit's C library (glibc 2.36; PEP 600)."""
_DROPPED = ("rich", "pygments", "markdown_it", "markdown_it_py", "mdurl", "bin", "__pycache__")
"""What draws help texts in colours: this program does not use it."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """A distribution that is in the kit, for its list of parts."""

    name: str
    version: str
    licence: str


class Pip:
    """pip, run by the kit's Python for this machine (`python`: its words)."""

    def __init__(self, python: Sequence[str], wheel: Path, minor: str) -> None:
        self._pip = Program([*python, f"{wheel}/pip"], "pip", env={"PYTHONHASHSEED": "0"})
        self._minor = minor

    def _platform(self, machine: str) -> list[str]:
        tags = [word for each in _GLIBC for word in ("--platform", f"manylinux{each}_{machine}")]
        abis = ("cp" + self._minor.replace(".", ""), "abi3", "none")
        return [
            *("--only-binary=:all:", "--implementation", "cp", "--python-version", self._minor, *tags),
            *(word for abi in abis for word in ("--abi", abi)),
        ]

    def download(self, machine: str, folder: Path, own: Path | None) -> None:
        """Fetch the wheels of all that this program needs; `own`: a folder with wheels that are taken first. LinkError if they cannot be had."""
        folder.mkdir(parents=True, exist_ok=True)
        pins = folder / "pins.txt"
        pins.write_text("".join(f"{name}=={version}\n" for name, version in here()), encoding="utf-8")
        more = ["--find-links", str(own)] if own else []
        try:
            self._pip.run(
                *("download", "-q", "--disable-pip-version-check", "--no-input", *self._platform(machine)),
                *("-c", str(pins), "-d", str(folder), *more, *requirements()),
            )
        except EngineError as error:
            raise LinkError(
                f"the libraries for {machine} cannot be had: {error.message}",
                hint="check the network; wheels that are at hand are taken from --wheels DIR",
            ) from error
        finally:
            pins.unlink()

    def install(self, machine: str, wheels: Sequence[Path], target: Path) -> None:
        """Unpack wheels into a folder, without what this program does not use."""
        self._pip.run(
            *("install", "-q", "--disable-pip-version-check", "--no-input", "--no-index", "--no-deps", "--no-compile"),
            *(*self._platform(machine), "--target", str(target), *map(str, wheels)),
        )
        for path in list(target.iterdir()):
            if path.name in _DROPPED or path.name.split("-")[0] in _DROPPED:
                shutil.rmtree(path)
        for path in list(target.rglob("*")):
            if path.name in OF_THIS_RUN and path.is_file():
                path.unlink()
            elif (path.is_dir() and path.name in OF_THIS_RUN and CODEC.replace("-", "_") in path.parent.name) or (
                path.is_dir() and path.name in ("tests", "test") and path.parent.parent == target
            ):
                shutil.rmtree(path)


def here() -> list[tuple[str, str]]:
    """The versions of libraries that this program runs with here, and was tested with."""
    return sorted(
        {(each.name, each.version) for each in metadata.distributions() if each.name and "+" not in each.version}
    )


def requirements() -> list[str]:
    """What this program needs, as its own metadata says."""
    try:
        found = metadata.requires(PROGRAM) or []
    except metadata.PackageNotFoundError as error:
        raise NotFound(
            f"{PROGRAM} is not installed here", hint="install this program as docs/install.md says, then make the kit"
        ) from error
    return [each for each in found if "extra ==" not in each]


def needed_names() -> list[str]:
    """The distributions that this program needs, by name alone, as PEP 503 writes them."""
    found = (re.match(r"[A-Za-z0-9._-]+", each) for each in requirements())
    return [re.sub(r"[-_.]+", "-", each[0]).lower() for each in found if each]


def parts(folder: Path) -> list[Wheel]:
    """The distributions in a folder of unpacked wheels, by name."""
    out = []
    for each in metadata.distributions(path=[str(folder)]):
        told = each.metadata
        licence = next((str(told[key]) for key in ("License-Expression", "License") if key in told), "")
        classifiers = told.get_all("Classifier") or []
        classified = [line.split(" :: ")[-1] for line in classifiers if line.startswith("License ::")]
        if not licence or "\n" in licence or len(licence) > 80:
            licence = ", ".join(classified) or "see its dist-info"
        out.append(Wheel(each.name, each.version, licence))
    return sorted(out, key=lambda each: each.name.lower())
