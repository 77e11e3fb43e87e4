"""Archives of images as many tools write them, members in memory: then as a tar, or packed in any way."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pyzstd

from tests.support.zoo import Layout, layer, noise, zoo
from transfer.model import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from transfer.streams import sha256

Member = tuple[str, bytes | str]
"""A name and its bytes; or a link's target, as text."""
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "tar.gz": lambda data: gzip.compress(data, 1, mtime=0),
    "tar.zst": lambda data: pyzstd.compress(data, 1),
}
ODD_PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "tar.xz": lambda data: lzma.compress(data, preset=0),
    "tar.bz2": bz2.compress,
    "skippable": lambda data: b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + pyzstd.compress(data, 1),
    "two members": lambda data: gzip.compress(data[:1000]) + gzip.compress(data[1000:]),
    "long": lambda data: _long(data),
}


def _long(data: bytes) -> bytes:
    """As `zstd --long=31` packs what comes through a pipe."""
    made = pyzstd.ZstdCompressor(
        {pyzstd.CParameter.windowLog: 31, pyzstd.CParameter.contentSizeFlag: 0, pyzstd.CParameter.compressionLevel: 1}
    )
    return made.compress(data[:100]) + made.compress(data[100:]) + made.flush()


def tar(members: Sequence[Member]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            if isinstance(data, str):
                info.type, info.linkname = tarfile.SYMTYPE, data
                archive.addfile(info)
            else:
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def of_layout(layout: Layout) -> list[Member]:
    """An oci-archive, its blobs in the order of their digests."""
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": layout.entries}
    blobs = [(f"blobs/sha256/{digest[7:]}", data) for digest, data in sorted(layout.blobs.items())]
    return [*blobs, ("index.json", json.dumps(index).encode()), ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')]


def config(layers: Sequence[bytes], **more: object) -> bytes:
    ids = [str(sha256(each)) for each in layers]
    value = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}, **more}
    return json.dumps(value).encode()


def saved(*images: tuple[str, bytes, Sequence[str]]) -> Member:
    """manifest.json: name ("" for none), config, and the layers' member names."""
    value = [
        {"Config": _config_name(data), "RepoTags": [name] if name else None, "Layers": list(names)}
        for name, data, names in images
    ]
    return "manifest.json", json.dumps(value).encode()


def _config_name(data: bytes) -> str:
    return sha256(data).hex + ".json"


def old(*images: tuple[str, Sequence[bytes]], suffix: str = "/layer.tar") -> list[Member]:
    """As docker save wrote before version 25."""
    out: dict[str, bytes] = {}
    listed = []
    for name, layers in images:
        names = [sha256(each).hex + suffix for each in layers]
        data = config(layers)
        out |= dict(zip(names, layers, strict=True)) | {_config_name(data): data}
        listed.append((name, data, names))
    return [*out.items(), saved(*listed)]


A, B, C = (layer({name: noise(n, 3000)}) for n, name in enumerate("abc"))
LARGE = [layer({f"large{n}": noise(n, 60_000)}) for n in range(3)]


def both(how: str) -> list[Member]:
    """Docker 25: both lists. `how`: what is wrong with index.json (moby#47150, #47065, #47210, #51389)."""
    layout, listed = Layout(), []
    for name, layers in (("site/a:1", [A, B, C]), ("site/b:1", [C])):
        data = config(layers)
        order = {"reversed": layers[::-1], "none": []}.get(how, layers)
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": layout.blob(data, OCI_CONFIG),
            "layers": [layout.blob(each, OCI_LAYER) for each in order],
        }
        for each in layers:
            layout.blob(each, OCI_LAYER)
        layout.name(layout.document(manifest, OCI_MANIFEST), name)
        listed.append(
            {
                "Config": f"blobs/sha256/{sha256(data).hex}",
                "RepoTags": [name],
                "Layers": [f"blobs/sha256/{sha256(x).hex}" for x in layers],
            }
        )
    if how == "first":
        layout.entries = layout.entries[:1]
    if how == "config":
        listed[0]["Layers"] = listed[0]["Layers"][::-1]
    members = [*of_layout(layout), ("manifest.json", json.dumps(listed).encode())]
    none = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": None}).encode()
    return [(name, none if how == "null" and name == "index.json" else data) for name, data in members]


def artifacts() -> Layout:
    """What is no image: configs that are empty, text, a list; beside an image."""
    out = Layout()
    for name, data in (("empty", b""), ("text", b"just text\n"), ("list", b"[1]"), ("spaces", b'  \n{"a": 1}')):
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": out.blob(data, "application/vnd.site.config.v1"),
            "layers": [out.blob(b"payload of " + name.encode(), "application/vnd.site.data")],
        }
        out.name(out.document(manifest, OCI_MANIFEST), f"site/{name}:1")
    out.name(out.image([A]), "site/app:1")
    return out


def platforms() -> Layout:
    """One name for two platforms, and an index that says of no child what it is for."""
    out = Layout()
    for arch in ("amd64", "arm64"):
        platform = {"os": "linux", "architecture": arch}
        out.name({**out.image([layer({"a": arch.encode()})], arch=arch), "platform": platform}, "v1.0")
    children = [out.image([layer({"silent": arch.encode()})], arch=arch) for arch in ("amd64", "arm64")]
    out.name(out.document({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}, OCI_INDEX), "silent:1")
    return out


def empties() -> Layout:
    """Lists as Go writes empty ones: null, or not at all."""
    out = Layout()
    for name, rootfs, layers in (
        ("out", {"type": "layers"}, []),
        ("null", {"diff_ids": None}, []),
        ("layers", {"diff_ids": []}, None),
    ):
        data = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()
        value = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": out.blob(data, OCI_CONFIG), "layers": layers}
        out.name(out.document(value, OCI_MANIFEST), f"site/{name}:1")
    return out


LAYOUTS: dict[str, Callable[[], Layout]] = {
    "zoo": zoo,
    "artifacts": artifacts,
    "platforms": platforms,
    "empties": empties,
}
"""Those that are a folder as well."""

ARCHIVES: dict[str, list[Member]] = {
    "old": old(("site/a:1", [A, B]), ("site/b:1", [A, C])),
    "old, by ID": old(("", [A, B])),
    "large, in the wrong order": old(("site/a:1", LARGE))[::-1],
    "crane": [
        (f"sha256:{sha256(config([A])).hex}", config([A])),
        ("a.tar.gz", gzip.compress(A, mtime=0)),
        (
            "manifest.json",
            json.dumps(
                [{"Config": f"sha256:{sha256(config([A])).hex}", "RepoTags": ["site/a:1"], "Layers": ["a.tar.gz"]}]
            ).encode(),
        ),
    ],
    "packed layers": [
        *(
            member
            for name, data in (
                ("g", gzip.compress(A, mtime=0)),
                ("z", pyzstd.compress(B)),
                ("x", lzma.compress(C)),
                ("b", bz2.compress(A)),
            )
            for member in ((f"layer.{name}", data),)
        ),
        (_config_name(config([A, B, C, A])), config([A, B, C, A])),
        saved(("site/a:1", config([A, B, C, A]), ["layer.g", "layer.z", "layer.x", "layer.b"])),
    ],
    "links": [
        ("real/layer.tar", A),
        ("one/layer.tar", "../real/layer.tar"),
        ("out", "/etc/passwd"),
        (_config_name(config([A])), config([A])),
        saved(("site/a:1", config([A]), ["one/layer.tar"])),
    ],
    "twice": [("x/layer.tar", A), *old(("site/a:1", [A])), ("x/layer.tar", A)],
    "lists anew": [*old(("site/a:1", [A])), *old(("site/b:1", [A]))[-1:]],
    "a tag that is none": [
        ("l.tar", A),
        ("c.json", config([A])),
        (
            "manifest.json",
            json.dumps(
                [{"Config": "c.json", "RepoTags": ["Site/App:1", "<none>:<none>", "", "ok:1"], "Layers": ["l.tar"]}]
            ).encode(),
        ),
    ],
    "leading spaces": [
        ("l.tar", A),
        ("c.json", b"\n\n " + config([A])),
        ("manifest.json", json.dumps([{"Config": "c.json", "RepoTags": ["site/a:1"], "Layers": ["l.tar"]}]).encode()),
    ],
    "no layers": [
        ("c.json", b'{"rootfs":{"type":"layers"}}'),
        ("manifest.json", b'[{"Config":"c.json","RepoTags":["site/a:1"],"Layers":null}]'),
    ],
    **{f"both, {how}": both(how) for how in ("right", "reversed", "none", "null", "first", "config")},
}

REFUSED: dict[str, tuple[list[Member], int]] = {
    "no lists": ([("bin/sh", b"x"), ("bin/busybox", "sh"), ("etc/link", "/etc/passwd")], 13),
    "other bytes twice": ([("x.tar", A), *old(("site/a:1", [A])), ("x.tar", B)], 13),
    "a layer does not exist": ([m for m in old(("site/a:1", [A, B])) if not m[0].startswith(sha256(B).hex)], 10),
    "a config does not exist": ([m for m in old(("site/a:1", [A])) if m[0] != _config_name(config([A]))], 10),
    "one layer more": (
        [
            ("b.tar", B),
            *old(("site/a:1", [A]))[:-1],
            saved(("site/a:1", config([A]), [sha256(A).hex + "/layer.tar", "b.tar"])),
        ],
        13,
    ),
    "another layer": ([("b.tar", B), *old(("site/a:1", [A]))[:-1], saved(("site/a:1", config([A]), ["b.tar"]))], 13),
    "a link out": (
        [
            ("l.tar", "/etc/passwd"),
            ("c.json", config([A])),
            ("manifest.json", b'[{"Config":"c.json","RepoTags":["a:1"],"Layers":["l.tar"]}]'),
        ],
        13,
    ),
}


def wrong_size(what: str) -> Layout:
    """A layout of a sound image and one of which a descriptor has a wrong size."""
    out = Layout()
    out.name(out.image([B]), "site/fine:1")
    data = out.blob(config([A]), OCI_CONFIG)
    held = out.blob(A, OCI_LAYER)
    {"config": data, "layer": held}.get(what, {})["size"] = 99
    root = out.document({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": data, "layers": [held]}, OCI_MANIFEST)
    out.name({**root, "size": 99} if what == "root" else root, "site/app:1")
    return out


def write(path: Path, members: Sequence[Member], form: str) -> Path:
    path.write_bytes((PACKERS | ODD_PACKERS)[form](tar(members)))
    return path
