"""All wheels an offline host needs to install this program, for each Python it runs on: `make wheels`.

`pip download --python-version` reads the markers of requirements (`; python_version < "3.14"`) as the Python that runs it, so it asks for
what the other does not need, or leaves out what it does. Here each wheel's requirements are read for the Python it is meant for.
"""

from __future__ import annotations

import argparse
import email.parser
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

GLIBC = ("2014", "_2_17", "_2_28", "_2_34")


def requirements(wheel: Path, python: str, machine: str, extras: Iterable[str]) -> Iterator[Requirement]:
    """What a wheel needs on that Python, on Linux."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        metadata = email.parser.Parser().parsestr(archive.read(name).decode())
    for line in metadata.get_all("Requires-Dist", []):
        needed = Requirement(line)
        on = {"python_version": python, "python_full_version": f"{python}.0", "platform_machine": machine}
        if needed.marker is None or any(needed.marker.evaluate({**on, "extra": extra}) for extra in ("", *extras)):
            needed.marker = None
            yield needed


def download(needed: list[Requirement], python: str, machine: str, folder: Path, pins: Path) -> None:
    """The wheels of these requirements alone, as this environment has them where it has them."""
    platforms = [word for glibc in GLIBC for word in ("--platform", f"manylinux{glibc}_{machine}")]
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"),
            *("--only-binary=:all:", "--implementation", "cp", "--python-version", python, *platforms),
            *("-c", str(pins), "-d", str(folder), *map(str, needed)),
        ],
        check=True,
    )


def gather(python: str, machine: str, folder: Path, pins: Path, root: Path) -> None:
    """The wheels that `root` needs on one Python, level by level."""
    extras: dict[str, set[str]] = {}
    level = [(root, set[str]())]
    while level:
        needed: dict[str, Requirement] = {}
        for wheel, wanted in level:
            for each in requirements(wheel, python, machine, wanted):
                name = canonicalize_name(each.name)
                if name not in extras or each.extras - extras[name]:
                    needed[name] = each
                extras.setdefault(name, set()).update(each.extras)
        if needed:
            download(list(needed.values()), python, machine, folder, pins)
        level = [(wheel_of(folder, name, python), extras[name]) for name in needed]


def wheel_of(folder: Path, name: str, python: str) -> Path:
    """The wheel of that name which that Python takes."""
    mine = f"cp{python.replace('.', '')}"
    for wheel in sorted(folder.glob("*.whl")):
        found, _, _, tags = parse_wheel_filename(wheel.name)
        if found == name and any(tag.abi in ("abi3", "none") or tag.interpreter == mine for tag in tags):
            return wheel
    raise SystemExit(f"{folder}: no wheel of {name} for Python {python} was found")


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("folder", type=Path)
    words.add_argument("machine")
    words.add_argument("pythons", nargs="+")
    given = words.parse_args()
    root = next(given.folder.glob("transfer_appliance-*.whl"))
    pins = given.folder / "pins.txt"
    frozen = subprocess.run(
        [sys.executable, "-m", "pip", "freeze", "--exclude-editable"], check=True, capture_output=True, text=True
    )
    pins.write_text(frozen.stdout, encoding="utf-8")
    try:
        for python in given.pythons:
            gather(python, given.machine, given.folder, pins, root)
    finally:
        pins.unlink()


if __name__ == "__main__":
    main()
