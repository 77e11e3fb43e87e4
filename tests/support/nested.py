"""Files that are compressed inside: zips of every sort, by programs and as no program should write them, and gzip files."""

from __future__ import annotations

import gzip
import io
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence

from tests.support.gzipped import words
from tests.support.zoo import noise
from transfer.bundle.files import payload_paths
from transfer.chunks.cut import Cutter
from transfer.chunks.fold import folded
from transfer.chunks.layer import Piece, split
from transfer.chunks.memory import MemoryChunks
from transfer.chunks.name import split_names
from transfer.chunks.unfold import KnownRecords, Unfolding
from transfer.model import ChunkId, Folds
from transfer.streams import IterReader
from transfer.work import Pool

STAMP = (2020, 2, 2, 2, 2, 2)


def zipped(files: Mapping[str, bytes], *, stored: Sequence[str] = (), streamed: bool = False, level: int = 6) -> bytes:
    """A zip by zlib; `streamed`: as from a pipe, with descriptors behind its entries."""
    out = io.BytesIO()
    target = _Pipe(out) if streamed else out
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as made:  # type: ignore[call-overload]
        for name, data in files.items():
            info = zipfile.ZipInfo(name, STAMP)
            info.compress_type = zipfile.ZIP_STORED if name in stored or not data else zipfile.ZIP_DEFLATED
            made.writestr(info, data)
    return out.getvalue()


class _Pipe:
    """What can be written to, and nothing else."""

    def __init__(self, out: io.BytesIO) -> None:
        self._out = out

    def write(self, data: bytes) -> int:
        return self._out.write(data)

    def flush(self) -> None:
        pass


def classes(seed: int, count: int = 60, changed: int = 0) -> dict[str, bytes]:
    """Files as a jar has them; of `changed` of them some bytes are others."""
    rand = random.Random(seed)
    common = words(0, 1500)
    out = {"META-INF/": b"", "META-INF/MANIFEST.MF": words(seed, 300)}
    for n in range(count):
        body = b"\xca\xfe\xba\xbe" + common + words(seed * 1000 + n, rand.randrange(500, 4000))
        out[f"org/it/C{n}.class"] = body if n >= changed else body[:200] + b"another" + body[207:]
    return out


def jar(seed: int = 1, count: int = 60, changed: int = 0, *, streamed: bool = True) -> bytes:
    return zipped(classes(seed, count, changed), streamed=streamed)


def small_jar(name: str) -> bytes:
    """Many streams that cost a bundle little."""
    return zipped({f"{name}{n}": words(0, 1500) + words(ord(name) * n, 100) for n in range(280)})


def fat_jar(changed: int = 0) -> bytes:
    """A jar with jars in it that are stored."""
    inner = {f"BOOT-INF/lib/{name}.jar": jar(n) for n, name in enumerate(("one", "two"), 3)}
    return zipped({**classes(9, 40, changed), **inner, "BOOT-INF/z.txt": words(8, 900)}, stored=list(inner))


def gz(data: bytes, name: str = "") -> bytes:
    """As the gzip program writes it."""
    out = io.BytesIO()
    with gzip.GzipFile(name, "wb", 6, out, mtime=0) as file:
        file.write(data)
    return out.getvalue()


def raw_entry(
    name: bytes, packed: bytes, plain: bytes, *, method: int = 8, flags: int = 0, size: int | None = None
) -> bytes:
    """A zip entry, header and bytes, that says of itself what is asked for."""
    crc, said = zlib.crc32(plain), len(packed) if size is None else size
    head = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, flags, method, 0, 0, crc, said, len(plain), len(name), 0)
    return head + name + packed


def deflated(data: bytes, level: int = 6) -> bytes:
    maker = zlib.compressobj(level, wbits=-15)
    return maker.compress(data) + maker.flush()


def odd_zips() -> dict[str, bytes]:
    """Zips that are none, or not to their end. Each begins as one, and has some 100 kB."""
    good, text = jar(1, 90), words(5, 90_000)
    whole = b"".join(raw_entry(b"f%d" % n, deflated(words(n, 3000)), words(n, 3000)) for n in range(90))
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 64
    bomb = deflated(bytes(40 << 20), 9)
    tail = struct.pack("<LLL", zlib.crc32(text), len(deflated(text)), len(text))
    return {
        "cut": good[: len(good) * 2 // 3],
        "cut in a header": whole[: whole.rfind(b"PK\x03\x04") + 20],
        "a bit flipped": bytes(flipped),
        "junk behind": good + words(4, 30_000),
        "no directory": whole,
        "encrypted": whole + raw_entry(b"secret", text, text, flags=1) + good,
        "another method": whole + raw_entry(b"lzma", text, text, method=14) + good,
        "stored without a size": whole + raw_entry(b"s", text, text, method=0, flags=8, size=0) + good,
        "stored with more than there is": whole + raw_entry(b"s", text, text, method=0, size=1 << 31),
        "stored with less": whole + raw_entry(b"s", text, text, method=0, size=99) + good,
        "deflated with another size": whole + raw_entry(b"d", deflated(text), text, size=7) + good,
        "a descriptor without its mark": raw_entry(b"d", deflated(text), text, flags=8, size=0) + tail + whole,
        "a bomb": whole + raw_entry(b"bomb", bomb, b"") + good,
        "empty blocks": whole + raw_entry(b"e", b"\0\0\0\xff\xff" * 30_000, b"") + good,
        "a directory in the middle": good + whole,
        "an entry over another": whole + good[:40] + good,
        "a zip in a zip in a zip": zipped({"a": zipped({"b": good}, stored=["b"])}, stored=["a"]),
        "a name with a header in it": raw_entry(b"PK\x03\x04" * 9, deflated(text), text) + whole,
    }


def shuffled(seed: int, pieces: int) -> bytes:
    """So many pieces of 40 kB of a few: far apart, so that deflate does not find them, and zstd does."""
    rand = random.Random(seed)
    few = [words(n, 34_000) + noise(n, 6_000) for n in range(5)]
    return b"".join(rand.choice(few) for _ in range(pieces))


def compressed_files(changed: int = 0, *, wide: bool = True) -> dict[str, bytes]:
    """Files of a layer, most of them compressed inside; of some classes a few bytes are `changed`. `wide`: streams of every size are among them."""
    inner = tarred({f"srv/{n}.txt": shuffled(n, 10) for n in range(12 if wide else 1)})
    library = shuffled(77, 120 if wide else 1)
    return {
        "app/readme": words(1, 700),
        f"app/lib/core-1.{changed}.jar": jar(1, 200, changed, streamed=True),
        f"app/lib/more-2.{changed}.jar": jar(2, 200, changed, streamed=False),
        "app/app.jar": fat_jar(changed),
        "srv/wheel.whl": zipped({"pkg/__init__.py": words(6, 900), "pkg/lib.so": b"\x7fELF" + library}),
        "srv/image.tar.gz": gz(inner, "image.tar"),
        "etc/after": words(2, 600),
    }


def tarred(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as made:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))
    return out.getvalue()


class There:
    """A layer that was unfolded and cut: how, and what it was made of."""

    def __init__(self, layer: bytes, jobs: int = 0, room: int = 1 << 30) -> None:
        self.chunks, self.paths = MemoryChunks(), list[bytes]()
        self._jobs = jobs
        with Pool(jobs, "there") as pool:
            unfolding = Unfolding(self.chunks, pool, max(1, jobs), room, KnownRecords())
            blocks = (layer[at : at + 100_000] for at in range(0, len(layer), 100_000))
            self.parts = Cutter(self.chunks).cut(map(self._seen, unfolding.pieces(split(IterReader(blocks)))))
        self.folds: Folds | None = unfolding.folds

    def _seen(self, piece: Piece) -> Piece:
        if len(piece.data):
            self.paths.append(piece.path)
        return piece

    def get(self, name: bytes) -> bytes:
        return self.chunks.get(ChunkId(name))

    @property
    def unfolded(self) -> bytes:
        """Its unfolded bytes."""
        out = bytearray()
        for part in self.parts:
            skeleton, at = b"".join(map(self.get, split_names(part.skeleton))), 0
            for gap, name in zip(part.gaps, [*split_names(part.payload), b""], strict=True):
                out += skeleton[at : at + gap]
                out += self.get(name) if name else b""
                at += gap
        return bytes(out)

    def runs(self) -> list[tuple[int, IterReader]]:
        chunks = [self.get(name) for name in split_names(self.folds.names)] if self.folds else []
        out = []
        for lead, count in self.folds.runs() if self.folds else ():
            out.append((lead, IterReader(iter(chunks[:count]))))
            del chunks[:count]
        return out

    def back(self) -> bytes:
        """The layer, made again."""
        if self.folds is None:
            return self.unfolded
        with Pool(self._jobs, "back") as pool:
            return b"".join(folded(self.runs(), IterReader(iter([self.unfolded])), pool, 2, "test"))

    def paths_again(self) -> list[bytes]:
        """The paths that a delta's base finds, one for each chunk."""
        out: list[bytes] = []
        for part in self.parts:
            skeleton = b"".join(map(self.get, split_names(part.skeleton)))
            out += [path for path, _ in payload_paths(part, skeleton)]
        return out
