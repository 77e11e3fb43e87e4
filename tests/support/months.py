"""A small image set as it is rebuilt month by month: new times everywhere, a few files changed, the big one in two places."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tests.support.zoo import Layout, layer, noise
from transfer.bundle.assembly import BundleSet
from transfer.bundle.reader import Bundle, BundleLookup
from transfer.bundle.rebuild import BlobReader
from transfer.streams import blocks
from transfer.work import Pool

BIG = 9 << 20


def _text(number: int, month: int) -> bytes:
    """A file that changes in its own month, a line of it."""
    lines = [b"line %d of file %d, which says much the same\n" % (n, number) for n in range(120)]
    for each in range(1, month + 1):
        if number % 12 == each % 12:
            lines[each % 120] = b"changed in month %d: %s\n" % (each, noise(each * 100 + number, 20).hex().encode())
    return b"".join(lines)


def _big(month: int) -> bytes:
    data = bytearray(noise(77, BIG))
    for each in range(1, month + 1):
        data[each << 20 : (each << 20) + 5000] = noise(each, 5000)
    return bytes(data)


@cache
def month(number: int, *, big: bool = True) -> Layout:
    """Three images, `m/base`, `m/app` and `m/tool`, tagged v<number>; what one month changes is small."""
    out = Layout()
    system = {f"usr/share/{n % 5}/file{n}": _text(n, number) for n in range(60)}
    system |= {f"usr/lib/libx.so.{number}.{number % 3}": b"\x7fELF" + noise(5, 60_000) + noise(number, 900)}
    base = layer(system, stamp=number)
    files = {"opt/app/main.py": _text(3, number), "opt/app/data": noise(9, 40_000) + b"%d" % number}
    if big:
        files["opt/app/model.bin"] = _big(number)
    app = layer(files, stamp=number)
    tool = layer({"usr/bin/tool": b"\x7fELF" + noise(8, 30_000) + b"v%d" % number}, stamp=number)
    out.name(out.image([base]), f"m/base:v{number}")
    out.name(out.image([base, app]), f"m/app:v{number}")
    out.name(out.image([base, app, tool]), f"m/tool:v{number}")
    return out


def write_months(folder: Path, count: int, *, big: bool = True) -> list[Path]:
    """`count` layouts, one a month."""
    return [month(n, big=big).write(folder / f"layout{n}") for n in range(1, count + 1)]


def blobs_of(layout: Path) -> dict[str, bytes]:
    """Every blob of an OCI layout folder, each found to be what its name says."""
    out = {path.name: path.read_bytes() for path in (layout / "blobs" / "sha256").iterdir() if path.name[0] != "."}
    assert all(hashlib.sha256(data).hexdigest() == name for name, data in out.items())
    return out


def weight(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "blobs").rglob("*") if path.is_file())


def rebuilds(bundle: Bundle, library: BundleLookup) -> bool:
    """Whether every layer of the bundle comes out right, with what the library has."""
    bundle.library = library
    layers = {layer.digest: layer for image in bundle.images for layer in image.layers}
    with Pool(0, "test") as pool:
        rebuilding = BlobReader(bundle, layers, pool=pool, jobs=1)
        for digest in layers:
            hasher = hashlib.sha256()
            for block in blocks(rebuilding.open(digest)):
                hasher.update(block)
            assert hasher.hexdigest() == digest.hex
    return True


def depths(bundles: list[Bundle]) -> list[int]:
    """How many steps each frame of the first bundle is from a plain one."""
    assembly = BundleSet(bundles)
    return [assembly.depth(frame) for frame in range(len(bundles[0].catalog().frames))]


Make = Callable[[int], Path]
