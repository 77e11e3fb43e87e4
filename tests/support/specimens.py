"""Makes the specimens in bundles/: `python -m tests.support.specimens [FOLDER]`. The golden ones are made once for a version, then kept.

FOLDER has, in a folder for each of those that hold gzip layers, the streams as the encoders wrote them that their names say.

A broken one is the golden one with exactly one thing wrong, and `expected.json`: what the commands must say of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.support.gzipped import from_folder, image_of, long_tar, members, tar, zlib_stream
from tests.support.months import month
from tests.support.nested import compressed_files, small_jar
from tests.support.zoo import Layout, floats, go_program, layer, siblings, zoo
from transfer.bundle import seal
from transfer.bundle.catalog import FOLDED, TOGETHER, CatalogReader, document_record, recipe_records
from transfer.bundle.library import BundleList
from transfer.bundle.reader import Bundle
from transfer.chunks.frame import DIFFERENCE, FrameHeader, decode_frame, encode_frame
from transfer.chunks.name import Kind
from transfer.chunks.pack import PACK_HEADER, PACK_SIZE, FrameLocation, read_frame_header
from transfer.chunks.varint import get_varints, put_varints
from transfer.engines.ocilayout import LayoutSource
from transfer.errors import Damaged
from transfer.events import silent
from transfer.flows.export import export
from transfer.flows.media import ToMedia
from transfer.flows.select import select
from transfer.model import OCI_MANIFEST, Descriptor, Digest, Recipe
from transfer.streams import canonical_json, open_plain, sha256

BUNDLES = Path(__file__).parents[2] / "bundles"
GOLDEN, BROKEN = BUNDLES / "golden" / "v1", BUNDLES / "broken"


def make_golden(target: Path) -> None:
    """One bundle of the whole zoo, and what is in it."""
    _make(target, "zoo", zoo())


def make_golden_siblings(target: Path) -> None:
    """Programs patched against each other: frames with prefixes in a bundle that is complete: depends on no other bundle."""
    _make(target, "siblings", siblings())


def _make(target: Path, name: str, layout: Layout) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = LayoutSource(layout.write(Path(folder)))
        export(source, select(source, [], None, silent), target / name, level=3, jobs=0, observer=silent)
    _expect(target / f"{name}.json", layout, [])


def make_golden_deltas(target: Path) -> None:
    """Three months: a full bundle, a delta on it, and a delta on that."""
    made: list[Path] = []
    for number in (1, 2, 3):
        layout = month(number, big=False)
        bundle = target / f"months{number}"
        with tempfile.TemporaryDirectory() as folder:
            source = LayoutSource(layout.write(Path(folder)))
            opened = [Bundle(each) for each in made]
            shelf = BundleList(opened)
            base = [opened[-1]] if opened else []
            found = select(source, [], None, silent)
            export(source, found, bundle, level=3, jobs=0, observer=silent, base=base)
            assert all(shelf.bundle(each.manifest.digest) for each in opened)
        _expect(target / f"months{number}.json", layout, made)
        made.append(bundle)


def make_golden_gzip(target: Path, streams: Path, name: str, plain: bytes) -> None:
    """Gzip streams by encoders of every family, in images of their own; `streams` has them as NAME.gz, all of `plain`."""
    _make(target, name, from_folder(streams, plain))
    path = target / f"{name}.json"
    expected = json.loads(path.read_text(encoding="utf-8"))
    expected["plain"] = {str(sha256(plain)): len(plain)}
    path.write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")


def make_golden_folds(target: Path) -> None:
    """Files that are compressed inside, in a plain layer and in a gzip layer, and a delta on them."""
    made: list[Path] = []
    for number, changed in enumerate((0, 20), 1):
        data = layer(compressed_files(changed))
        layout = image_of([zlib_stream(data)], [data], "folds/gzip:1")
        layout.name(layout.image([data]), "folds/plain:1")
        bundle = target / f"folds{number}"
        with tempfile.TemporaryDirectory() as folder:
            source = LayoutSource(layout.write(Path(folder)))
            found = select(source, [], None, silent)
            export(source, found, bundle, level=3, jobs=0, observer=silent, base=[Bundle(each) for each in made])
        _expect(target / f"folds{number}.json", layout, made)
        path = target / f"folds{number}.json"
        expected = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**expected, "folded": True}, indent=1) + "\n", encoding="utf-8")
        made.append(bundle)


def make_golden_difference(target: Path) -> None:
    """A program in Go and an array of halves, and their next versions as deltas by subtraction."""
    made: list[Path] = []
    for number in (1, 2):
        layout = Layout()
        files = {"usr/bin/it": go_program(1, 4096 * number), "srv/weights": floats(1, number * 0.0001, "e", 40_000)}
        layout.name(layout.image([layer(files)]), f"go/it:{number}")
        bundle = target / f"go{number}"
        with tempfile.TemporaryDirectory() as folder:
            source = LayoutSource(layout.write(Path(folder)))
            found = select(source, [], None, silent)
            base = [Bundle(each) for each in made]
            export(source, found, bundle, level=3, jobs=0, observer=silent, base=base)
        _expect(target / f"go{number}.json", layout, made)
        made.append(bundle)


def make_golden_media(target: Path) -> None:
    """The zoo with a pack for each frame, on three media of which any one may be lost."""
    with tempfile.TemporaryDirectory() as folder:
        layout = zoo()
        source = LayoutSource(layout.write(Path(folder) / "oci"))
        seal.PACK_SIZE = 1  # type: ignore[attr-defined]
        export(source, select(source, [], None, silent), Path(folder) / "zoo", level=3, jobs=0, observer=silent)
        seal.PACK_SIZE = PACK_SIZE  # type: ignore[attr-defined]
        places = [target / "media" / name for name in ("one", "two", "three")]
        for place in places:
            place.mkdir(parents=True)
        with Bundle(Path(folder) / "zoo") as bundle:
            onto = ToMedia(bundle, 35, False, silent)
            plan = onto.plan(places)
            assert not plan.left and not plan.risky and not onto.run(plan).left
        for place in places:
            told = place / "zoo" / "medium.json"
            told.write_text(told.read_text(encoding="ascii").replace(str(target.absolute()), ""), encoding="ascii")
            (place / "zoo" / "verify.py").unlink()
    _expect(target / "media" / "expected.json", layout, [])


def _expect(path: Path, layout: Layout, seeds: list[Path]) -> None:
    expected = {
        "seeds": [each.name for each in seeds],
        "blobs": {digest: len(data) for digest, data in sorted(layout.blobs.items())},
        "names": sorted(e["annotations"]["org.opencontainers.image.ref.name"] for e in layout.entries),
    }
    path.write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")


def blobs_in(layout: Path) -> dict[str, int]:
    """The blobs of an OCI layout, by what they really are, and their sizes."""
    return {str(sha256(path.read_bytes())): path.stat().st_size for path in (layout / "blobs" / "sha256").iterdir()}


class Patient:
    """A bundle under the knife: change one thing, then `seal` puts right all digests above it."""

    def __init__(self, folder: Path, seeds: list[Path]) -> None:
        self.folder = folder
        self.blobs = folder / "blobs" / "sha256"
        with Bundle(folder, library=BundleList(map(Bundle, seeds))) as bundle:
            self.bundle = bundle
            bundle.catalog()
            self.manifest_digest, self.config_digest = bundle.manifest.digest, bundle.config.digest
            self.packs = [self.blobs / each.digest.hex for each in bundle.header.packs]
            self.catalogs = [self.blobs / each.digest.hex for each in bundle.header.catalog]
            self.records = list(bundle.records())
        self.header: dict[str, Any] = json.loads((self.blobs / self.config_digest.hex).read_bytes())
        self.manifest: dict[str, Any] = json.loads((self.blobs / self.manifest_digest.hex).read_bytes())
        self.index: dict[str, Any] = json.loads((folder / "index.json").read_bytes())

    def put(self, old: Path, data: bytes) -> Path:
        """Replace a blob by other bytes under their own digest, in header and manifest too."""
        digest = sha256(data)
        old.unlink()
        path = self.blobs / digest.hex
        path.write_bytes(data)
        for entry in [*self.header["packs"], *self.header["catalog"], *self.manifest["layers"]]:
            if entry["digest"] == f"sha256:{old.name}":
                entry |= {"digest": str(digest), "size": len(data)}
        return path

    def seal(self) -> None:
        """Write header, manifest and index anew, so that every digest is right again."""
        for digest in (self.manifest_digest, self.config_digest):
            (self.blobs / digest.hex).unlink()
        header = canonical_json(self.header)
        self.manifest["config"] |= {"digest": str(sha256(header)), "size": len(header)}
        manifest = canonical_json(self.manifest)
        self.index["manifests"][0] |= {"digest": str(sha256(manifest)), "size": len(manifest)}
        for data in (header, manifest):
            (self.blobs / sha256(data).hex).write_bytes(data)
        self.config_digest, self.manifest_digest = sha256(header), sha256(manifest)
        (self.folder / "index.json").write_bytes(canonical_json(self.index))

    def recatalog(self, records: list[bytes]) -> None:
        """A catalog of these records."""
        frame, packed = encode_frame(Kind.CATALOG, b"".join(records), [len(each) for each in records], 3)
        self.catalogs[0] = self.put(self.catalogs[0], PACK_HEADER + frame.encode() + packed)
        self.seal()


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def first_frame(path: Path) -> FrameLocation:
    with open_plain(path) as file:
        return read_frame_header(file.fileno(), 16, str(path))


def reframe(patient: Patient, change: Callable[[bytearray], None]) -> None:
    """Change the first pack's first frame header and put its CRC and all digests right."""
    path = patient.packs[0]
    data = bytearray(path.read_bytes())
    size = first_frame(path).header.header_size
    part = data[16 : 16 + size]
    change(part)
    part[-4:] = zlib.crc32(part[:-4]).to_bytes(4, "little")
    patient.put(path, bytes(data[:16] + part + data[16 + size :]))
    patient.seal()


def _bit_in_data(p: Patient) -> None:
    flip(p.packs[0], first_frame(p.packs[0]).data_offset + 40)


def _bit_in_header(p: Patient) -> None:
    flip(p.packs[0], 16 + 34)


def _bit_in_magic(p: Patient) -> None:
    flip(p.packs[0], 0)


def _bit_in_catalog(p: Patient) -> None:
    flip(p.catalogs[0], 200)


def _bit_in_manifest(p: Patient) -> None:
    flip(p.blobs / p.manifest_digest.hex, 30)


def _bit_in_bundle_header(p: Patient) -> None:
    flip(p.blobs / p.config_digest.hex, 30)


def _cut_pack(p: Patient) -> None:
    os.truncate(p.packs[0], p.packs[0].stat().st_size - 1)


def _longer_pack(p: Patient) -> None:
    with p.packs[0].open("ab") as file:
        file.write(b"garbage")


def _empty_pack(p: Patient) -> None:
    os.truncate(p.packs[0], 0)


def _missing_pack(p: Patient) -> None:
    p.packs[0].unlink()


def _missing_catalog(p: Patient) -> None:
    p.catalogs[0].unlink()


def _swapped(p: Patient) -> None:
    pack, catalog = p.packs[0].read_bytes(), p.catalogs[0].read_bytes()
    p.packs[0].write_bytes(catalog)
    p.catalogs[0].write_bytes(pack)


def _pack_is_link(p: Patient) -> None:
    p.packs[0].rename(p.folder / "elsewhere")
    p.packs[0].symlink_to("../../elsewhere")


def _no_index(p: Patient) -> None:
    (p.folder / "index.json").unlink()
    (p.folder / ".transfer").mkdir()
    (p.folder / ".transfer" / "lock").touch()


def _twin_keys(p: Patient) -> None:
    data = (p.folder / "index.json").read_bytes()
    (p.folder / "index.json").write_bytes(data.replace(b"{", b'{"schemaVersion":2,', 1))


def _digest_is_path(p: Patient) -> None:
    p.index["manifests"][0]["digest"] = "sha256:../../../../etc/passwd"
    (p.folder / "index.json").write_bytes(canonical_json(p.index))


def _negative_size(p: Patient) -> None:
    p.index["manifests"][0]["size"] = -1
    (p.folder / "index.json").write_bytes(canonical_json(p.index))


def _two_manifests(p: Patient) -> None:
    p.index["manifests"] *= 2
    (p.folder / "index.json").write_bytes(canonical_json(p.index))


def _set(key: str, value: object) -> Callable[[Patient], None]:
    def change(p: Patient) -> None:
        p.header[key] = value
        p.seal()

    return change


def _unknown_file(p: Patient) -> None:
    p.manifest["layers"].append({**p.manifest["layers"][0], "mediaType": "application/vnd.transfer.parity.v1"})
    p.seal()


def _lists_differ(p: Patient) -> None:
    p.header["packs"] = []
    p.seal()


def _pack_version(p: Patient) -> None:
    data = bytearray(p.packs[0].read_bytes())
    data[8] = 2
    p.put(p.packs[0], bytes(data))
    p.seal()


def _codec(p: Patient) -> None:
    reframe(p, lambda part: part.__setitem__(9, 7))


def _flags(p: Patient) -> None:
    reframe(p, lambda part: part.__setitem__(10, 1))


def _bomb(p: Patient) -> None:
    """A frame that decompresses to more than it says."""
    path = p.packs[0]
    placed, data = first_frame(path), path.read_bytes()
    h = placed.header
    big, packed = encode_frame(Kind(h.kind), bytes(h.raw_size + (8 << 20)), [h.raw_size + (8 << 20)], 3)
    small = FrameHeader(h.kind, big.codec, h.raw_size, len(packed), h.sizes, (), zlib.crc32(packed), 0)
    p.put(path, data[:16] + small.encode() + packed + data[placed.end :])
    p.seal()


def _other_content(p: Patient) -> None:
    """A sound frame of the right sizes with another byte in it: only the chunks' names tell."""
    path = p.packs[0]
    placed, data = first_frame(path), path.read_bytes()
    packed = bytearray(data[placed.data_offset : placed.end])
    sound = list(decode_frame(placed.header, bytes(packed), ""))
    for at in range(len(packed)):
        packed[at] ^= 1
        with contextlib.suppress(Damaged):
            if list(decode_frame(placed.header, bytes(packed), "")) != sound:
                break
        packed[at] ^= 1
    frame = replace(placed.header, data_crc=zlib.crc32(packed))
    p.put(path, data[:16] + frame.encode() + packed + data[placed.end :])
    p.seal()


def _lying_recipe(p: Patient) -> None:
    """A recipe that says more bytes than it makes."""
    out: list[bytes] = []
    done = False
    for record in p.records:
        if record[:1] == b"R" and not done:
            reader = CatalogReader("")
            reader.add(record)
            (digest, parts), *_ = reader._parts.items()
            size, encoding, *_ = reader._heads[digest]
            out += recipe_records(Recipe(digest, size + 512, encoding, tuple(parts)))
            done = True
        else:
            out.append(record)
    p.recatalog(out)


def _unknown_encoding(p: Patient) -> None:
    at = next(n for n, record in enumerate(p.records) if record[:1] == b"R")
    reader = CatalogReader("")
    reader.add(p.records[at])
    (digest, parts), *_ = reader._parts.items()
    p.records[at] = next(iter(recipe_records(Recipe(digest, reader._heads[digest][0], 9, tuple(parts)))))
    p.recatalog(p.records)


def _unknown_record(p: Patient) -> None:
    p.recatalog([*p.records, b"Z" + bytes(20)])


def _forged_document(p: Patient) -> None:
    digest = Digest("sha256:" + "a" * 64)
    p.recatalog([document_record(digest, b"{}"), *p.records])


def _long_number(p: Patient) -> None:
    """A varint without end."""
    p.recatalog([*p.records, b"F" + b"\xff" * 30])


def _huge_count(p: Patient) -> None:
    """A frame entry that claims 2^60 chunks."""
    p.recatalog([*p.records, b"F" + put_varints([0, 16, 60, 5, 5, 1, 1, 1 << 60, 0])])


def _other_artifact(p: Patient) -> None:
    p.index["manifests"][0] = Descriptor(OCI_MANIFEST, p.manifest_digest, 1).as_json() | {"artifactType": "text/plain"}
    (p.folder / "index.json").write_bytes(canonical_json(p.index))


Defect = tuple[Callable[[Patient], None], int, str, str]

DEFECTS: dict[str, Defect] = {
    # name: what is done, exit code of verify --deep, slug of an import's error, what its message must name
    "bit-in-data": (_bit_in_data, 13, "damaged", "frame"),
    "bit-in-frame-header": (_bit_in_header, 13, "malformed", "frame header"),
    "bit-in-pack-magic": (_bit_in_magic, 13, "malformed", "not a pack"),
    "bit-in-catalog": (_bit_in_catalog, 13, "damaged", "catalog"),
    "bit-in-manifest": (_bit_in_manifest, 13, "damaged", "manifest"),
    "bit-in-header": (_bit_in_bundle_header, 13, "damaged", "header"),
    "pack-cut-short": (_cut_pack, 13, "missing", "blobs/sha256/"),
    "pack-too-long": (_longer_pack, 13, "missing", "blobs/sha256/"),
    "pack-empty": (_empty_pack, 13, "missing", "blobs/sha256/"),
    "pack-missing": (_missing_pack, 14, "missing", "blobs/sha256/"),
    "catalog-missing": (_missing_catalog, 14, "missing", "catalog"),
    "files-swapped": (_swapped, 13, "damaged", "blobs/sha256/"),
    "pack-is-a-link": (_pack_is_link, 13, "missing", "blobs/sha256/"),
    "unfinished": (_no_index, 14, "missing", "unfinished export"),
    "index-twin-keys": (_twin_keys, 13, "malformed", "twice"),
    "digest-is-a-path": (_digest_is_path, 13, "malformed", "not a sha256"),
    "negative-size": (_negative_size, 13, "malformed", "bad size"),
    "two-manifests": (_two_manifests, 13, "unsupported", "not the index of a bundle"),
    "other-artifact": (_other_artifact, 13, "unsupported", "text/plain"),
    "unknown-version": (_set("version", 2), 13, "unsupported", "version 2"),
    "unknown-feature": (_set("features", ["teleport"]), 13, "unsupported", "teleport"),
    "unknown-file": (_unknown_file, 13, "unsupported", "parity"),
    "lists-differ": (_lists_differ, 13, "malformed", "different files"),
    "unknown-pack-version": (_pack_version, 13, "unsupported", "version 2"),
    "unknown-codec": (_codec, 13, "unsupported", "codec 7"),
    "unknown-flags": (_flags, 13, "unsupported", "flags"),
    "bomb": (_bomb, 13, "damaged", "frame"),
    "other-content": (_other_content, 13, "damaged", "does not match its name"),
    "lying-recipe": (_lying_recipe, 13, "malformed", "makes"),
    "unknown-encoding": (_unknown_encoding, 13, "unsupported", "encoding 9"),
    "unknown-record": (_unknown_record, 13, "malformed", "unknown record"),
    "forged-document": (_forged_document, 13, "damaged", "document"),
    "number-without-end": (_long_number, 13, "malformed", "malformed number"),
    "huge-count": (_huge_count, 13, "malformed", "cut short"),
}


def _other_prefix(choose: Callable[[Bundle], bytes]) -> Callable[[Patient], None]:
    """The first frame patched against another chunk, in the frame and in the catalog."""

    def change(p: Patient) -> None:
        entry = p.bundle.catalog().frames[0]
        old, new = entry.prefix[:32], choose(p.bundle)
        assert old
        records = [record.replace(old, new) if record[:1] == b"F" else record for record in p.records]

        def put(part: bytearray) -> None:
            at = bytes(part).index(old)
            part[at : at + 32] = new

        reframe(p, put)
        p.recatalog(records)

    return change


DELTA_DEFECTS: dict[str, Defect] = {
    # the same for a delta, whose base is given with --seed
    "delta-prefix-nowhere": (_other_prefix(lambda bundle: b"\x11" * 32), 14, "missing", "are missing"),
    "delta-prefix-is-itself": (
        _other_prefix(lambda bundle: bundle.catalog().frames[0].names[:32]),
        13,
        "malformed",
        "without end",
    ),
    "delta-prefix-of-other-bytes": (
        _other_prefix(lambda bundle: next(iter(bundle.catalog().recipes.values())).parts[0].payload[:32]),
        13,
        "damaged",
        "needed for",
    ),
    "delta-unannounced": (_set("features", []), 13, "malformed", "does not declare it"),
}
SEED = "months1"


def _redata(change: Callable[[bytearray], None]) -> Callable[[Patient], None]:
    """The data of the frame by subtraction changed, and all sums put right."""

    def knife(p: Patient) -> None:
        path = p.packs[0]
        data, at = bytearray(path.read_bytes()), 16
        with open_plain(path) as file:
            while (placed := read_frame_header(file.fileno(), at, "specimen")).header.codec != DIFFERENCE:
                at = placed.end
        part = data[placed.data_offset : placed.end]
        change(part)
        header = replace(placed.header, data_crc=zlib.crc32(part)).encode()
        p.put(path, bytes(data[:at]) + header + bytes(part) + bytes(data[placed.end :]))
        p.seal()

    return knife


def _other_width(part: bytearray) -> None:
    part[0] = 3


def _other_source(part: bytearray) -> None:
    """The first stretch that moved comes from elsewhere."""
    numbers, at = get_varints(bytes(part), 0, 2, "")
    stretches, _ = get_varints(bytes(part), at, 2 * numbers[1], "")
    which = next(n for n in range(1, len(stretches), 2) if stretches[n])
    ahead = len(put_varints((*numbers, *stretches[:which])))
    size = len(put_varints((stretches[which],)))
    part[ahead : ahead + size] = bytes([0xFF] * (size - 1) + [0x7F])


GO_DEFECTS: dict[str, Defect] = {
    # the same for a delta by subtraction
    "difference-undeclared": (_set("features", ["patch"]), 13, "malformed", "does not declare it"),
    "difference-of-another-width": (_redata(_other_width), 13, "damaged", "beyond the limits"),
    "difference-from-nowhere": (_redata(_other_source), 13, "damaged", "contradicts itself"),
}
GO_SEED = "go1"


def _apart(change: Callable[[bytearray, bytes], bytes]) -> Callable[[Patient], None]:
    """The first recipe of a gzip layer changed: what is before the plain blob's digest, and that digest."""

    def knife(p: Patient) -> None:
        at = next(n for n, each in enumerate(p.records) if each[:1] == b"R" and _encoding(each) == TOGETHER)
        record = p.records[at]
        size = 1 + len("sha256:") + 64
        p.recatalog([*p.records[:at], change(bytearray(record[:-size]), record[-size:]), *p.records[at + 1 :]])

    return knife


def _encoding(record: bytes) -> int:
    reader = CatalogReader("")
    reader.add(record)
    return next(iter(reader._heads.values()))[1]


def _other_records(p: Patient) -> None:
    """The records of two streams in each other's place."""
    found = [n for n, each in enumerate(p.records) if each[:1] == b"R" and _encoding(each) == TOGETHER]
    one, two = (p.records[n] for n in found[:2])
    size = 1 + len("sha256:") + 64
    names = slice(-size - 34, -size - 2)
    p.records[found[0]] = one[: names.start] + two[names] + one[names.stop :]
    p.recatalog(p.records)


GZIP_DEFECTS: dict[str, Defect] = {
    # the same for gzip layers
    "gzip-undeclared": (_set("features", []), 13, "malformed", "does not declare it"),
    "gzip-without-plain": (
        _apart(lambda head, plain: bytes(head) + plain[:-1] + bytes([plain[-1] ^ 1])),
        13,
        "malformed",
        "cannot be what it holds",
    ),
    "gzip-of-itself": (
        _apart(lambda head, plain: bytes(head) + bytes(head[1 : 1 + len(plain)])),
        13,
        "malformed",
        "cannot be what it holds",
    ),
    "gzip-cut-short": (_apart(lambda head, plain: bytes(head) + plain[:-5]), 13, "malformed", "digest"),
    "gzip-other-records": (_other_records, 13, "damaged", "gzip/"),
}


def _folded(change: Callable[[bytearray, int], bytes]) -> Callable[[Patient], None]:
    """The first folded recipe changed: the record, and where what tells of its folds begins."""

    def knife(p: Patient) -> None:
        at = next(n for n, each in enumerate(p.records) if each[:1] == b"R" and _encoding(each) == FOLDED)
        record = p.records[at]
        reader = CatalogReader("")
        reader.add(record)
        (folds,) = reader._folds.values()
        tail = put_varints((folds.size, len(folds.leads))) + folds.names + put_varints(folds.leads)
        assert record.endswith(tail)
        p.recatalog([*p.records[:at], change(bytearray(record), len(record) - len(tail)), *p.records[at + 1 :]])

    return knife


def _other_folds(record: bytearray, at: int) -> bytes:
    """The names of two fold chunks in each other's place."""
    (_, count), names = get_varints(bytes(record), at, 2, "")
    assert count > 1
    one, two = bytes(record[names : names + 32]), bytes(record[names + 32 : names + 64])
    return bytes(record[:names]) + two + one + bytes(record[names + 64 :])


def _with_size(size: int) -> Callable[[bytearray, int], bytes]:
    def change(record: bytearray, at: int) -> bytes:
        _, rest = get_varints(bytes(record), at, 1, "")
        return bytes(record[:at]) + put_varints((size,)) + bytes(record[rest:])

    return change


FOLD_DEFECTS: dict[str, Defect] = {
    # the same for layers with files taken apart
    "folds-undeclared": (_set("features", []), 13, "malformed", "does not declare it"),
    "folds-cut-short": (_folded(lambda record, at: bytes(record[:-1])), 13, "malformed", "malformed number"),
    "folds-of-another": (_folded(_other_folds), 13, "malformed", "is not sound"),
    "folds-of-more": (_folded(_with_size(1 << 50)), 13, "malformed", "where it says"),
    "folds-later": (
        _folded(lambda record, at: bytes(record[:-1]) + bytes([record[-1] ^ 1])),
        13,
        "malformed",
        "is not sound",
    ),
}


def make_broken(target: Path, golden: Path) -> None:
    """Every defect, each in a folder of its own."""
    _break(target, golden / "zoo", DEFECTS, [])
    _break(target, golden / "months2", DELTA_DEFECTS, [golden / SEED])
    _break(target, golden / "go2", GO_DEFECTS, [golden / GO_SEED])
    with tempfile.TemporaryDirectory() as folder:
        layout = image_of([zlib_stream(tar(files=2)), members(tar(files=2))], [tar(files=2)] * 2, "gzip/small:1")
        _make(Path(folder), "small", layout)
        _break(target, Path(folder) / "small", GZIP_DEFECTS, [])
        layout = Layout()
        layout.name(layout.image([layer({name: small_jar(name) for name in "ab"})]), "folds/small:1")
        _make(Path(folder), "folds", layout)
        _break(target, Path(folder) / "folds", FOLD_DEFECTS, [])


def _break(target: Path, sound: Path, defects: dict[str, Defect], seeds: list[Path]) -> None:
    for name, (change, code, slug, words) in defects.items():
        place = target / name
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(sound, place / "bundle", symlinks=True)
        for name_of_ours in ("verify.py", "README.txt"):  # no part of the bundle, and the same in all of them
            (place / "bundle" / name_of_ours).unlink()
        change(Patient(place / "bundle", seeds))
        expected = {"verify": code, "slug": slug, "names": words}
        (place / "expected.json").write_text(json.dumps(expected) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if not (GOLDEN / "zoo").exists():
        make_golden(GOLDEN)
    for kind, made in (("gzip", tar), ("gzip-long", long_tar)):
        if not (GOLDEN / kind).exists():
            make_golden_gzip(GOLDEN, Path(sys.argv[-1]) / kind, kind, made())
    if not (GOLDEN / "siblings").exists():
        make_golden_siblings(GOLDEN)
    if not (GOLDEN / "months3").exists():
        make_golden_deltas(GOLDEN)
    if not (GOLDEN / "go2").exists():
        make_golden_difference(GOLDEN)
    if not (GOLDEN / "folds2").exists():
        make_golden_folds(GOLDEN)
    if "--golden" not in sys.argv:
        make_broken(BROKEN, GOLDEN)
