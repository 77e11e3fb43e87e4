"""Bundles that lie: every digest is right, what they say is not. Made of a sound one, of which one thing after another is changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.run import run
from tests.support.specimens import Patient
from tests.support.zoo import Layout, layer
from transfer.bundle.catalog import document_record, frame_record, recipe_records
from transfer.bundle.header import CONFIG_TYPE, OCI_LAYOUT, Blob, Header, encode_index, parse_header
from transfer.bundle.ranges import Ranges
from transfer.chunks.frame import encode_frame
from transfer.chunks.name import Kind, chunk_id
from transfer.chunks.pack import PACK_HEADER, PackFile
from transfer.chunks.varint import put_varints
from transfer.engines.tree import image_of, walk
from transfer.model import OCI_INDEX, OCI_MANIFEST, ChunkId, Descriptor, Digest, Part, Recipe
from transfer.streams import canonical_json, sha256

Change = Callable[[Patient], None]


def sound(folder: Path) -> Path:
    """A bundle of three images: two that share a layer, and an index of two platforms."""
    layout = Layout()
    shared = layer({"shared": b"s" * 3000})
    layout.name(layout.image([shared, layer({"a": b"1" * 900})]), "app:1", "app:latest")
    layout.name(layout.image([shared, layer({"b": b"2"})]), "other:1")
    children = [
        {**layout.image([layer({"m": arch.encode()})], arch=arch), "platform": {"os": "linux", "architecture": arch}}
        for arch in ("amd64", "arm64")
    ]
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}
    layout.name(layout.document(index, OCI_INDEX), "multi:1")
    layout.write(folder / "oci")
    run("export", "--from", f"oci:{folder / 'oci'}", "-o", folder / "sound", "-q", "--no-store")
    return folder / "sound"


def changed(bundle: Path, target: Path, *changes: Change) -> Path:
    """A copy of the bundle with these changes, sealed again."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(bundle, target)
    patient = Patient(target, [])
    for change in changes:
        change(patient)
    patient.seal()
    return target


def image(patient: Patient, name: str = "app:1") -> dict[str, Any]:
    """What the header says of one image."""
    return next(each for each in patient.header["images"] if name in each["names"])


def saying(name: str, **members: object) -> Change:
    """The header says this of the image."""
    return lambda patient: image(patient, name).update(members)


def of_pack(**members: object) -> Change:
    return lambda patient: patient.header["packs"][0].update(members)


def root_of(name: str, document: object) -> Change:
    """The image's manifest is this document (with what it needs for a manifest, if it is a function of the old one)."""

    def change(patient: Patient) -> None:
        found = image(patient, name)
        old = next(
            r[2 + r[1] :] for r in patient.records if r[:1] == b"D" and found["root"]["digest"].encode() in r[:90]
        )
        value = document(json.loads(old)) if callable(document) else document
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        digest = sha256(data)
        kind = OCI_INDEX if isinstance(value, dict) and "manifests" in value else OCI_MANIFEST
        found["documents"] = [str(digest), *found["documents"]]
        found["root"] = {"mediaType": kind, "digest": str(digest), "size": len(data)}
        patient.recatalog([document_record(digest, data), *patient.records])
        patient.records.insert(0, document_record(digest, data))

    return change


def recataloged(change: Callable[[list[bytes]], list[bytes]]) -> Change:
    """Other catalog records, in one frame."""
    return lambda patient: patient.recatalog(change(patient.records))


def more_frames(records: Callable[[int], bytes], count: int) -> Change:
    """So many catalog frames more, each with one record."""

    def change(patient: Patient) -> None:
        data = patient.catalogs[0].read_bytes()
        for number in range(count):
            record = records(number)
            frame, packed = encode_frame(Kind.CATALOG, record, [len(record)], 3)
            data += frame.encode() + packed
        patient.put(patient.catalogs[0], data)

    return change


def big_document(number: int) -> bytes:
    """48 MiB that compress to nothing, under a digest that is not theirs."""
    return document_record(Digest(f"sha256:{number:064x}"), bytes(48 << 20))


def long_recipe(number: int) -> bytes:
    """A part of one recipe that names a chunk some hundred thousand times."""
    digest = b"sha256:" + b"7" * 64
    head = put_varints([1 << 45, 0, number, 60, 0, 500_000])
    return b"R" + bytes([len(digest)]) + digest + head + bytes(32) * 500_000 + bytes(500_001)


def fan(depth: int) -> Change:
    """Indexes, each of which names the next one twice."""

    def change(patient: Patient) -> None:
        found = image(patient)
        below = dict(found["root"])
        records = list(patient.records)
        for _ in range(depth):
            data = canonical_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [below, below]})
            below = {"mediaType": OCI_INDEX, "digest": str(sha256(data)), "size": len(data)}
            found["documents"].insert(0, below["digest"])
            records.insert(0, document_record(sha256(data), data))
        found["root"] = below
        patient.recatalog(records)

    return change


def many_packs(count: int) -> Change:
    """Packs that are nowhere."""

    def change(patient: Patient) -> None:
        more = [{"digest": f"sha256:{n:064x}", "size": 1, "frames": 1, "raw_size": 1} for n in range(count)]
        kind = patient.manifest["layers"][-1]["mediaType"]
        patient.header["packs"] += more
        patient.manifest["layers"] += [{"mediaType": kind, "digest": each["digest"], "size": 1} for each in more]

    return change


def many_images(count: int, frames: str) -> Change:
    def change(patient: Patient) -> None:
        found = image(patient)
        patient.header["images"] = [{**found, "names": [f"x:{n}"], "frames": frames} for n in range(count)]

    return change


def frames_of_a_lost_pack(count: int) -> Change:
    def change(patient: Patient) -> None:
        patient.header["packs"][0]["frames"] = count
        patient.packs[0].unlink()

    return change


def bloated(member: object) -> Change:
    """A member of the header that nobody knows, and that is much in memory."""
    return lambda patient: patient.header.update(more=member)


def nonsense_catalog(patient: Patient) -> None:
    patient.put(patient.catalogs[0], PACK_HEADER + b"nonsense" * 20)


def one_pack_a_layer(folder: Path, count: int) -> Path:
    """A sound bundle of one image with so many layers, each in a pack of its own."""
    layout = Layout()
    layers = [layer({"a": b"%d" % number}) for number in range(count)]
    layout.name(layout.image(layers), "many:1")
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    records = [
        document_record(Digest(each), layout.blobs[each]) for each in (layout.entries[0]["digest"], _config(layout))
    ]
    packs, places = [], []
    for number, data in enumerate(layers):
        path = folder / f"{number}.part"
        frame, packed = encode_frame(Kind.OTHER, data, [len(data)], 1)
        pack = PackFile(path)
        places.append(frame_record(number, pack.append(frame, packed), chunk_id(data)))
        packs.append(Blob(pack.finish(blobs), pack.size, 1, len(data)))
        part = Part(b"", chunk_id(data), (0, 0))
        records += recipe_records(Recipe(sha256(data), len(data), 1, (part,)))
    frame, packed = encode_frame(Kind.CATALOG, b"".join(records + places), [*map(len, records + places)], 3)
    pack = PackFile(folder / "catalog.part")
    pack.append(frame, packed)
    catalog = Blob(pack.finish(blobs), pack.size, 1, frame.raw_size)
    root = Descriptor.parse(layout.entries[0], "root")
    made = image_of(["many:1"], root, walk(root, lambda each: layout.blobs.get(str(each.digest))))
    header = Header(0, "test", 1, (made,), (Ranges([(0, count - 1)]),), (catalog,), tuple(packs), {}).encode()
    manifest = parse_header(header, "header").manifest(Descriptor(CONFIG_TYPE, sha256(header), len(header)))
    for data in (header, manifest):
        (blobs / sha256(data).hex).write_bytes(data)
    (folder / "oci-layout").write_bytes(OCI_LAYOUT)
    (folder / "index.json").write_bytes(encode_index(Descriptor(OCI_MANIFEST, sha256(manifest), len(manifest))))
    return folder


def _config(layout: Layout) -> str:
    return str(json.loads(layout.blobs[layout.entries[0]["digest"]])["config"]["digest"])


def carrying(chunks: dict[bytes, bytes]) -> Change:
    """One pack more, with these bytes under names that are not theirs; no recipe uses it."""

    def change(patient: Patient) -> None:
        data = b"".join(chunks.values())
        frame, packed = encode_frame(Kind.OTHER, data, [*map(len, chunks.values())], 1)
        pack = PackFile(patient.folder / "false.part")
        placed = pack.append(frame, packed)
        blob = Blob(pack.finish(patient.blobs), pack.size, 1, len(data))
        record = frame_record(len(patient.packs), placed, b"".join(chunks))
        patient.header["packs"].append(blob.as_json())
        entry = {**patient.manifest["layers"][-1], "digest": str(blob.digest), "size": blob.size}
        patient.manifest["layers"].append(entry)
        patient.recatalog([*patient.records, record])

    return change


def building_on_nothing(number: int) -> Change:
    """A catalog that is patched against a record which nobody has."""

    def change(patient: Patient) -> None:
        name = bytes([number]) * 32
        records = patient.records
        raw, sizes = b"".join(records), [*map(len, records)]
        frame, packed = encode_frame(Kind.CATALOG, raw, sizes, 3, [ChunkId(name)], raw)
        assert frame.prefix
        patient.put(patient.catalogs[0], PACK_HEADER + frame.encode() + packed)
        patient.header["features"] = ["patch"]
        patient.header["prerequisites"] = {"chunks": 1, "bytes": 1, "bundles": [f"sha256:{number:064x}"]}

    return change
