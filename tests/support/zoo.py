"""Small images of every kind there is, as an OCI layout: for the conformance suites, the golden specimens and the faults."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import struct
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transfer.model import DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST

ATTESTATION = "application/vnd.in-toto+json"


@dataclass
class Layout:
    """An OCI layout in memory: blobs by digest, and the entries of its index.json."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    entries: list[dict[str, Any]] = field(default_factory=list)

    def blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        """Keep a blob; its descriptor."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def document(self, value: Mapping[str, Any], media_type: str) -> dict[str, Any]:
        """Keep a JSON document, written in a way of its own: whoever writes it anew is found out."""
        return self.blob(json.dumps(value, indent=1).encode(), media_type)

    def image(
        self,
        layers: Sequence[bytes],
        *,
        plain: Sequence[bytes] = (),
        arch: str = "amd64",
        kind: str = OCI_MANIFEST,
        layer_kind: str = OCI_LAYER,
    ) -> dict[str, Any]:
        """A manifest's descriptor. `plain` are the layers uncompressed, where `layers` are not."""
        ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in plain or layers]
        config = {
            "architecture": arch,
            "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": {"Cmd": ["/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": ids},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": self.document(config, OCI_CONFIG),
            "layers": [self.blob(layer, layer_kind) for layer in layers],
        }
        return self.document(manifest, kind)

    def name(self, root: Mapping[str, Any], *names: str) -> None:
        """Put a root into index.json under these names."""
        for name in names:
            self.entries.append({**root, "annotations": {"org.opencontainers.image.ref.name": name}})
        if not names:
            self.entries.append(dict(root))

    def write(self, folder: Path) -> Path:
        """The layout as a folder."""
        place = folder / "blobs" / "sha256"
        place.mkdir(parents=True, exist_ok=True)
        for digest, data in self.blobs.items():
            (place / digest[7:]).write_bytes(data)
        (folder / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": self.entries}
        (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")
        return folder


def layer(
    files: Mapping[str, bytes], *, stamp: int = 0, style: int = tarfile.PAX_FORMAT, owner: int = 0, mode: int = 0o644
) -> bytes:
    """A layer's tar with these files, all made at `stamp`, all of this user and group."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=style) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.mode = len(data), stamp, mode
            member.uid = member.gid = owner
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def noise(seed: int, size: int) -> bytes:
    """Bytes that do not compress, always the same."""
    return random.Random(seed).randbytes(size)


def noisy(images: int, name: str = "app") -> Layout:
    """So many images, app:0, app:1, ..., each of 40 MB in files that do not compress."""
    layout = Layout()
    for number in range(images):
        files = {f"app/{number}-{n}": noise(100 * number + n, 2 << 20) for n in range(20)}
        layout.name(layout.image([layer(files)]), f"{name}:{number}")
    return layout


def zoo(*, big: bool = False) -> Layout:
    """One layout with every kind of image. `big` adds a file that is cut by content."""
    out = Layout()
    base = layer({"etc/base": b"base\n" * 50, "bin/tool": b"\x7fELF" + noise(1, 900), "usr/empty": b""})
    text = layer({"app/" + "deep/" * 30 + "main.py": b"print('hello')\n" * 40, "app/m\xe9": b"x"}, stamp=1)
    gnu = layer({"n" * 150: noise(2, 700)}, style=tarfile.GNU_FORMAT)
    out.name(out.image([base, text, gnu]), "zoo/plain:1", "zoo/plain:latest")
    out.name(out.image([base, layer({"app/main.py": b"print('hello')\n" * 40}, stamp=2)]), "zoo/sibling:1")
    packed = [gzip.compress(each, mtime=7) for each in (base, text)]
    out.name(out.image(packed, plain=[base, text], layer_kind=OCI_LAYER + "+gzip"), "zoo/gzip:1")
    out.name(out.image([base, base, bytes(1024), base]), "zoo/twice:1")
    out.name(out.image([]), "zoo/scratch:1")
    out.name(out.image([b"", b"no tar at all", base[:700]]), "zoo/odd:1")
    out.name(
        out.image([base], kind=DOCKER_MANIFEST, layer_kind="application/vnd.docker.image.rootfs.diff.tar"),
        "zoo/docker:1",
    )
    out.name(_multi(out, base, text), "zoo/multi:1")
    if big:
        out.name(out.image([layer({"blob": noise(3, 11 << 20), "after": b"."})]), "zoo/big:1")
    return out


def function(seed: int) -> bytes:
    """16 KiB of what looks like a function: it begins on the grid of 16 bytes, and compresses a little."""
    words = noise(seed, 16 << 8)
    pieces = (words[at : at + 16] for at in range(0, len(words), 16))
    return b"".join((b"\xb9" if n % 16 == 0 else b"\x55") + piece[1:] + bytes(48) for n, piece in enumerate(pieces))


def program(functions: Sequence[int], head: int) -> bytes:
    """An executable of these functions, behind `head` bytes of its own."""
    return b"\x7fELF" + noise(head, head - 4) + b"".join(map(function, functions))


def go_program(seed: int, shift: int) -> bytes:
    """An ELF file with Go's note, whose code calls what moved by `shift`."""
    rand = random.Random(seed)
    head = b"\x7fELF" + bytes(2000) + b"\x04\0\0\0\x53\0\0\0\x04\0\0\0Go\0\0" + bytes(80)
    out = bytearray(head)
    for _ in range(9000):
        out += noise(rand.randrange(1 << 30), 20)[: rand.randrange(12, 20)] + b"\xe8"
        out += (rand.randrange(1 << 24) + shift).to_bytes(4, "little")
    return bytes(out)


def floats(seed: int, moved: float, code: str, count: int = 60_000) -> bytes:
    """Weights, each of which moved a little."""
    rand = random.Random(seed)
    values = [rand.gauss(0, 0.02) for _ in range(count)]
    more = random.Random(seed + 1)
    return struct.pack(f"<{count}{code}", *(value + more.gauss(0, moved) for value in values))


def siblings() -> Layout:
    """Three programs in three images; the second and the third share most code with the first, at other addresses."""
    out = Layout()
    first = layer({"usr/bin/first": program(range(40), 64)})
    second = layer({"usr/bin/second": program([*range(90, 95), *range(5, 39)], 4096 + 16), "etc/second": b"2\n"})
    third = layer({"usr/lib/third": program([*range(20, 40), *range(80, 84), *range(18)], 160)}, stamp=3)
    out.name(out.image([first]), "siblings/first:1")
    out.name(out.image([second]), "siblings/second:1")
    out.name(out.image([second, third]), "siblings/third:1")
    return out


def _multi(out: Layout, base: bytes, text: bytes) -> dict[str, Any]:
    """An index of two platforms, an attestation, and a platform that does not exist."""
    first = {**out.image([base, text]), "platform": {"os": "linux", "architecture": "amd64"}}
    arm = {
        **out.image([base], arch="arm64"),
        "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"},
    }
    statement = out.document({"_type": "https://in-toto.io/Statement/v0.1", "subject": []}, ATTESTATION)
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": out.document({"architecture": "unknown", "os": "unknown", "rootfs": {"diff_ids": []}}, OCI_CONFIG),
        "layers": [statement],
    }
    attestation = {
        **out.document(manifest, OCI_MANIFEST),
        "annotations": {
            "vnd.docker.reference.digest": first["digest"],
            "vnd.docker.reference.type": "attestation-manifest",
        },
        "platform": {"os": "unknown", "architecture": "unknown"},
    }
    absent = {
        "mediaType": OCI_MANIFEST,
        "digest": "sha256:" + "5" * 64,
        "size": 500,
        "platform": {"os": "linux", "architecture": "s390x"},
    }
    return out.document(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [first, arm, attestation, absent]}, OCI_INDEX
    )
