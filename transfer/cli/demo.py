"""The whole road on an embedded default: two versions of a small image set made from this Python's own files."""

from __future__ import annotations

import hashlib
import json
import shutil
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from transfer.bundle.library import BundleList
from transfer.bundle.reader import Bundle
from transfer.cli.render import amount, several
from transfer.engines.index import name_annotations
from transfer.engines.ocilayout import LayoutSink, LayoutSource
from transfer.errors import Damaged, UsageError
from transfer.events import silent
from transfer.flows.export import export
from transfer.flows.load_images import load_images
from transfer.flows.select import select
from transfer.flows.verify import check
from transfer.model import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from transfer.streams import canonical_json
from transfer.tarfmt import make_header, padding


def run(keep: Path | None, quiet: bool) -> None:
    """Make images, export, carry, import, verify, damage; print a table. UsageError if `keep` is not a new folder."""
    if keep and keep.exists():
        raise UsageError(f"{keep} exists", hint="name a new folder")
    folder = Path(tempfile.mkdtemp(prefix="transfer-demo-")) if keep is None else keep
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _Demo(folder, quiet).all()
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


class _Demo:
    def __init__(self, folder: Path, quiet: bool) -> None:
        self._folder, self._quiet = folder, quiet
        self._rows: list[tuple[str, str, str]] = []

    def _say(self, text: str) -> None:
        if not self._quiet:
            print(text)

    def all(self) -> None:
        here, there = self._folder / "connected-host", self._folder / "offline-host"
        self._say("1. Making two versions of two small images from this Python's own files, as an OCI layout ...")
        size = make_layout(here)
        self._rows.append(("images made here", amount(size), ""))
        bundle = self._folder / "night.bundle"
        started = time.monotonic()
        source = LayoutSource(here)
        done = export(source, select(source, ["*"], None, silent), bundle, level=3, jobs=None, observer=silent)
        self._rows.append(("exported bundle", amount(done.bytes_packed), f"{time.monotonic() - started:.1f} s"))
        self._say(f"2. Exported {several(len(done.images), 'image')}: each file once, though layers repeat it")
        carried = self._folder / "stick"
        started = time.monotonic()
        shutil.copytree(bundle, carried)
        self._rows.append(("carried (copied)", amount(done.bytes_packed), f"{time.monotonic() - started:.1f} s"))
        self._say("3. Carried the folder to the other host")
        for text in ("imported", "imported again"):
            self._import(carried, there, text)
        same = _roots(here) == _roots(there)
        self._say(f"4. Imported; every name and digest is {'the same' if same else 'DIFFERENT'} on both hosts")
        self._delta(here)
        started = time.monotonic()
        sound = check(carried, deep=True, jobs=None, observer=silent).sound
        self._rows.append(("verified, all rebuilt", amount(size), f"{time.monotonic() - started:.1f} s"))
        self._damage(carried)
        if not self._quiet:
            width = max(len(row[0]) for row in self._rows)
            print()
            for what, much, seconds in self._rows:
                print(f"   {what.ljust(width)}  {much:>9}  {seconds:>6}")
        if not (same and sound):
            raise Damaged("the demo went wrong: what arrived is not what was sent", hint="please report this")

    def _import(self, carried: Path, there: Path, text: str) -> None:
        started = time.monotonic()
        with Bundle(carried) as bundle:
            done = load_images(bundle, bundle.images, tuple, LayoutSink(there), observer=silent)
        self._rows.append((text, amount(done.bytes_unpacked), f"{time.monotonic() - started:.1f} s"))

    def _delta(self, here: Path) -> None:
        """Version 1 whole, version 2 as a delta on it, both into a third place."""
        jan, feb, there = (self._folder / name for name in ("jan.bundle", "feb.bundle", "other-host"))
        source = LayoutSource(here)
        export(source, select(source, ["demo/*:1"], None, silent), jan, level=3, jobs=None, observer=silent)
        started = time.monotonic()
        with Bundle(jan) as base:
            found = select(source, ["demo/*:2"], None, silent)
            done = export(source, found, feb, level=3, jobs=None, observer=silent, base=[base])
        self._rows.append(
            ("version 2, given version 1", amount(done.bytes_packed), f"{time.monotonic() - started:.1f} s")
        )
        with Bundle(jan) as base, Bundle(feb) as delta:
            BundleList([base, delta])
            for bundle in (base, delta):
                load_images(bundle, bundle.images, tuple, LayoutSink(there), observer=silent)
        if _roots(here) != _roots(there):
            raise Damaged("the demo went wrong: a delta did not come out right", hint="please report this")
        self._say("5. Version 2 once more as a delta on version 1: every layer differs, yet little travels")

    def _damage(self, carried: Path) -> None:
        """Flip one byte and show what verify says."""
        with Bundle(carried) as bundle:
            path = carried / bundle.header.packs[0].path
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2)
            byte = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte[0] ^ 1]))
        found = check(carried, deep=False, jobs=None, observer=silent).damage
        self._say("6. One bit flipped on the stick; `transfer verify` says:")
        for each in found:
            self._say(
                f"   {each.file[:28]}..., frame {each.frame}: {each.why}; cannot be imported: {', '.join(each.images)}"
            )
        if len(found) != 1:
            raise Damaged("the demo went wrong: one flipped bit was not found", hint="please report this")


def _roots(folder: Path) -> dict[str, str]:
    return {name: str(each.id) for each in LayoutSource(folder).names() for name in each.names}


def make_layout(folder: Path) -> int:
    """Two images in two versions; the second versions rebuilt, with new times and one changed file. Bytes of layers."""
    library = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(p for p in library.rglob("*.py") if p.is_file() and "site-packages" not in p.parts)[:700]
    base = [(f"usr/lib/python/{p.relative_to(library)}", p.read_bytes()) for p in files]
    app = [(f"app/{p.name}", p.read_bytes()) for p in files[::7]]
    entries, total = [], 0
    for version, stamp in ((1, 1_700_000_000), (2, 1_702_600_000)):
        changed = [
            (name, data + b"# patched\n" if n == 0 and version == 2 else data) for n, (name, data) in enumerate(base)
        ]
        layer, size = _layer(folder, changed, stamp)
        top, top_size = _layer(folder, app, stamp)
        total += size + top_size
        entries.append(_image(folder, f"demo/base:{version}", [(layer, size)]))
        entries.append(_image(folder, f"demo/app:{version}", [(layer, size), (top, top_size)]))
    (folder / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}\n')
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    (folder / "index.json").write_bytes(canonical_json(index))
    return total


def _blob(folder: Path, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    path = folder / "blobs" / "sha256" / digest
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return f"sha256:{digest}"


def _layer(folder: Path, files: list[tuple[str, bytes]], stamp: int) -> tuple[str, int]:
    data = b"".join(_members(files, stamp)) + bytes(1024)
    return _blob(folder, data), len(data)


def _members(files: list[tuple[str, bytes]], stamp: int) -> Iterator[bytes]:
    for name, data in files:
        if len(name.encode()) <= 100:
            yield make_header(name, len(data), mtime=stamp)
            yield data
            yield bytes(padding(len(data)))


def _image(folder: Path, name: str, layers: list[tuple[str, int]]) -> dict[str, object]:
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["python3"]},
            "rootfs": {"type": "layers", "diff_ids": [digest for digest, _ in layers]},
        }
    ).encode()
    manifest = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": _blob(folder, config), "size": len(config)},
            "layers": [{"mediaType": OCI_LAYER, "digest": digest, "size": size} for digest, size in layers],
        }
    )
    digest = _blob(folder, manifest)
    return {
        "mediaType": OCI_MANIFEST,
        "digest": digest,
        "size": len(manifest),
        "annotations": name_annotations(name),
    }
