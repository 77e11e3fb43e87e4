"""Layers as gzip streams of every sort: by encoders, and as no encoder should write them."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Iterable
from pathlib import Path

from tests.support.run import run
from tests.support.zoo import Layout, layer, noise
from transfer.bundle.reader import Bundle
from transfer.model import OCI_LAYER

GZIP_LAYER = OCI_LAYER + "+gzip"


def words(seed: int, size: int) -> bytes:
    """Text that compresses about as a layer does."""
    rand = random.Random(seed)
    known = [bytes(rand.randrange(97, 123) for _ in range(rand.randrange(2, 10))) for _ in range(500)]
    out = bytearray()
    while len(out) < size:
        out += known[int(rand.random() ** 2 * 500)] + (b"\n" if rand.random() < 0.1 else b" ")
        if rand.random() < 0.01:
            out += noise(rand.randrange(1 << 30), rand.randrange(200))
    return bytes(out[:size])


def tar(changed: int = 0, files: int = 40) -> bytes:
    """A layer of some hundred kB; of `changed` of its files a few bytes are others."""
    contents = {f"srv/{n:03}.txt": words(n, 8000 + 137 * n) for n in range(files)}
    for n in range(changed):
        old = contents[f"srv/{n * 7:03}.txt"]
        contents[f"srv/{n * 7:03}.txt"] = old[:4000] + b"another version" + old[4015:]
    return layer(contents)


def long_tar(files: int = 28) -> bytes:
    """A layer of three records' length that costs a bundle little: files of the same pieces in other orders, zeros, and noise."""
    rand = random.Random(7)
    pieces = [words(n, 40_000) for n in range(10)]
    contents = {f"srv/{n:03}.txt": b"".join(rand.sample(pieces, 8)) for n in range(files)}
    contents |= {
        "srv/zeros": bytes(700_000),
        "srv/noise": noise(3, 70_000),
        "srv/few": bytes(rand.choice(b"ab") for _ in range(20_000)),
    }
    return layer(contents)


def zlib_stream(data: bytes, level: int = 6) -> bytes:
    """As Jib, bsdtar and Python write it."""
    maker = zlib.compressobj(level, wbits=31)
    return maker.compress(data) + maker.flush()


def members(data: bytes, size: int = 30_000) -> bytes:
    """As estargz writes it: a member for each piece."""
    return b"".join(gzip.compress(data[at : at + size], 9, mtime=0) for at in range(0, len(data), size))


def odd(data: bytes) -> dict[str, bytes]:
    """Streams that cannot be taken apart, or not to their end, and what is said of each."""
    good = zlib_stream(data)
    changed = bytearray(good)
    changed[len(good) // 2] ^= 16
    return {
        "the file ends early": good[: len(good) // 2],
        "header is not one": good + b"what was on the disk before",
        "checksum": good[:-6] + bytes([good[-6] ^ 1]) + good[-5:],
        "not sound": bytes(changed),
        "has only": zlib_stream(data[:2000])[:4000],
    }


def image_of(streams: Iterable[bytes], plain: Iterable[bytes], name: str, layout: Layout | None = None) -> Layout:
    """A layout with one image more, of these layers."""
    layout = layout or Layout()
    layout.name(layout.image(list(streams), plain=list(plain), layer_kind=GZIP_LAYER), name)
    return layout


def from_folder(folder: Path, plain: bytes) -> Layout:
    """An image for each NAME.gz of a folder, all of them of one tar."""
    layout = Layout()
    for path in sorted(folder.glob("*.gz")):
        image_of([path.read_bytes()], [plain], f"gzip/{path.stem}:1", layout)
    return layout


def out(layout: Layout, folder: Path, *words: object, code: int = 0) -> Path:
    """A bundle of all of a layout."""
    place = folder.with_name(folder.name + "-layout")
    layout.write(place)
    run("export", "--from", f"oci:{place}", "*", "-o", folder, "-q", *words, code=code)
    return folder


def comes_back(layout: Layout, *bundles: Path) -> None:
    """The newest bundle, with those it builds on, gives every blob of the layout."""
    first = bundles[0]
    target = first.with_name(first.name + "-out")
    seeds = [word for each in bundles[1:] for word in ("--seed", each)]
    run("verify", "--deep", first, *seeds)
    run("import", first, "--to", f"oci:{target}", *seeds)
    found = {path.name: path.read_bytes() for path in (target / "blobs" / "sha256").iterdir()}
    assert found.items() >= {digest[7:]: data for digest, data in layout.blobs.items()}.items()


def packed(bundle: Path) -> int:
    """The bytes of its packs and catalogs."""
    with Bundle(bundle) as opened:
        return opened.header.totals["packed_bytes"]
