"""A Docker data folder as an overlay2 daemon leaves it, made from a layout of the zoo: for tests that need no daemon."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
from pathlib import Path

from tests.support.zoo import Layout
from transfer.chunks.layer import split
from transfer.engines.base import ResolvedImage
from transfer.model import Digest


def write_data(root: Path, layout: Layout) -> list[ResolvedImage]:
    """The folder; what a daemon would say of its images, in the layout's order."""
    found = []
    for entry in layout.entries:
        manifest = json.loads(layout.blobs[entry["digest"]])
        config = layout.blobs[manifest["config"]["digest"]]
        digest = Digest(manifest["config"]["digest"])
        put(root / "image/overlay2/imagedb/content/sha256" / digest.hex, config)
        chain = ""
        for each in manifest["layers"]:
            parent, chain = chain, chain_id(chain, each["digest"])
            write_layer(root, chain, each["digest"], layout.blobs[each["digest"]])
            if parent:
                put(record_of(root, chain) / "parent", parent.encode())
        name = entry["annotations"]["org.opencontainers.image.ref.name"]
        layers = tuple((Digest(each["digest"]), 0) for each in manifest["layers"])
        found.append(ResolvedImage((name,), digest, len(config), layers))
    return found


def chain_id(below: str, diff_id: str) -> str:
    """Image-spec, config.md."""
    return f"sha256:{hashlib.sha256(f'{below} {diff_id}'.encode()).hexdigest()}" if below else diff_id


def record_of(root: Path, chain: str) -> Path:
    return root / "image/overlay2/layerdb/sha256" / chain.removeprefix("sha256:")


def files_of(root: Path, chain: str) -> Path:
    return root / "overlay2" / (record_of(root, chain) / "cache-id").read_text() / "diff"


def write_layer(root: Path, chain: str, diff_id: str, tar: bytes) -> None:
    """One layer's record and files."""
    record, cache = record_of(root, chain), hashlib.sha256(b"cache" + chain.encode()).hexdigest()
    put(record / "diff", diff_id.encode())
    put(record / "cache-id", cache.encode())
    files = root / "overlay2" / cache / "diff"
    files.mkdir(parents=True, exist_ok=True)
    lines = []
    for piece in split(io.BytesIO(tar)):
        if piece.skeleton:
            lines.append({"type": 2, "payload": base64.b64encode(piece.skeleton).decode()})
        if piece.data and not piece.offset:
            size = piece.size
            entry = {"type": 1, "size": size, "payload": "AAAAAAAAAAA="}
            try:
                entry["name"] = piece.path.decode()
            except UnicodeDecodeError:
                entry["name_raw"] = base64.b64encode(piece.path).decode()
            lines.append(entry)
            put(files / piece.path.decode("utf-8", "surrogateescape"), b"")
        if piece.data:
            with (files / piece.path.decode("utf-8", "surrogateescape")).open("ab") as file:
                file.write(piece.data)
    text = "".join(json.dumps({**line, "position": at}) + "\n" for at, line in enumerate(lines))
    put(record / "tar-split.json.gz", gzip.compress(text.encode()))


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
