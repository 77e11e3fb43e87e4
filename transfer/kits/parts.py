"""What of this program itself goes into a kit: its package, its documents, its units."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import transfer
from transfer.errors import NotFound
from transfer.kits.wheels import CODEC, OF_THIS_RUN, PROGRAM

HERE = Path(__file__).parent
_SHIPPED = HERE / "shipped"
"""Where an installed package has what lies beside it in the repository (pyproject.toml, force-include)."""
_IMPORTED = "transfer_deflate"


def beside(name: str) -> Path:
    """A file or folder of the repository: docs, systemd, bundles/FORMAT.md. NotFound if this installation came without it."""
    for place in (_SHIPPED, HERE.parents[1]):
        if (place / name).exists():
            return place / name
    raise NotFound(
        f"this installation has no {name}", hint="install this program once more, from its repository or its wheel"
    )


def files_below(folder: Path) -> Iterator[Path]:
    """Its regular files without caches, in the order of their names."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def copy(source: Path, target: Path) -> None:
    """A file, or all files of a folder."""
    for path in files_below(source) if source.is_dir() else [source]:
        to = target / path.relative_to(source) if source.is_dir() else target
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to)


def install_program(target: Path) -> None:
    """This program as it runs here, into a folder of packages."""
    copy(Path(transfer.__file__).parent, target / "transfer")
    for name in ("docs", "systemd", "bundles/FORMAT.md"):
        copy(beside(name), target / "transfer/kits/shipped" / name)
    told = target / f"{PROGRAM.replace('-', '_')}-{transfer.__version__}.dist-info"
    told.mkdir()
    headers = (metadata.distribution(PROGRAM).read_text("METADATA") or "").partition("\n\n")[0].rstrip("\n")
    text = re.sub(r"(?m)^Version: .*$", f"Version: {transfer.__version__}", headers, count=1)
    (told / "METADATA").write_text(f"{text}\n", encoding="utf-8")
    (told / "entry_points.txt").write_text("[console_scripts]\ntransfer = transfer.cli.main:run\n", encoding="utf-8")


def install_codec(target: Path) -> bool:
    """The codec for gzip layers as it is installed here; whether it is."""
    try:
        distribution = metadata.distribution(CODEC)
    except metadata.PackageNotFoundError:
        return False
    for each in distribution.files or ():
        path = Path(str(distribution.locate_file(each)))
        first = each.parts[0]
        ours = first == _IMPORTED or (first.endswith(".dist-info") and not {*OF_THIS_RUN} & {*each.parts})
        if ours and ".." not in each.parts and "__pycache__" not in each.parts and path.is_file():
            copy(path, target.joinpath(*each.parts))
    return (target / _IMPORTED).is_dir()
