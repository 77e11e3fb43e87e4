"""A store of a thousand bundles and ten million chunks, catalogs only: what opening, adding and looking up cost as it grows."""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from array import array
from pathlib import Path

from benchmarks.run import RESULTS
from transfer.bundle import header as head
from transfer.bundle.catalog import frame_record, recipe_records
from transfer.bundle.ranges import Ranges
from transfer.chunks.frame import FrameHeader, encode_frame
from transfer.chunks.name import Kind
from transfer.chunks.pack import PACK_HEADER, FrameLocation
from transfer.model import ChunkId, Descriptor, Digest, Image, Part, Recipe
from transfer.store.entry import Entry, Role
from transfer.store.store import Store
from transfer.streams import sha256

CHUNKS, LAYERS, FRAME = 10_000, 25, 1000
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"


def add_bundle(store: Store, number: int) -> Digest:
    """A bundle of CHUNKS chunks in LAYERS layers, its packs claimed and not written. One layer's digest."""
    names = os.urandom(32 * CHUNKS)
    sizes = (20_000,) * FRAME
    records: list[bytes] = []
    layers: list[Descriptor] = []
    share = CHUNKS // LAYERS
    for layer in range(LAYERS):
        part = Part(b"", names[32 * share * layer : 32 * share * (layer + 1)], array("Q", [0] * (share + 1)))
        digest = Digest(f"sha256:{number:032x}{layer:032x}")
        layers.append(Descriptor(OCI_LAYER, digest, 20_000 * share))
        records += recipe_records(Recipe(digest, 20_000 * share, 0, (part,)))
    offset = 16
    for at in range(0, CHUNKS, FRAME):
        frame = FrameHeader(int(Kind.OTHER), 1, 20_000 * FRAME, 1000, sizes, (), 0, 3040)
        records.append(frame_record(0, FrameLocation(offset, frame), names[32 * at : 32 * (at + FRAME)]))
        offset += 4040
    catalog_frame, packed = encode_frame(Kind.CATALOG, b"".join(records), [len(each) for each in records], 3)
    catalog = PACK_HEADER + catalog_frame.encode() + packed
    pack = head.Blob(sha256(b"%d" % number), offset, CHUNKS // FRAME, 20_000 * CHUNKS)
    listed = head.Blob(sha256(catalog), len(catalog), 1, sum(map(len, records)))
    image = Image((f"scale/image{number}:1",), layers[0], None, (), tuple(layers), (), ())
    header = head.Header(0, "scale", 3, (image,), (Ranges(),), (listed,), (pack,), {"packed_bytes": 0})
    config = _put(store, header.encode(), head.CONFIG_TYPE)
    manifest = _put(store, header.manifest(config), "application/vnd.oci.image.manifest.v1+json")
    _put(store, catalog, "")
    store.put(Entry(manifest.digest, head.encode_index(manifest).decode(), Role.HELD, number, 0, True, ""))
    return layers[LAYERS // 2].digest


def _put(store: Store, data: bytes, kind: str) -> Descriptor:
    digest = sha256(data)
    (store.blobs / digest.hex).write_bytes(data)
    return Descriptor(kind, digest, len(data))


def measure(root: Path, until: int) -> list[dict[str, float]]:
    """Rows as the store grows tenfold: per chunk, the cost of reading a catalog and of indexing it; open; lookup of a layer's recipe and chunks."""
    rows, done = [], 0
    store = Store(root)
    with store.adding():
        pass
    for goal in (1, 10, 100, 1000):
        if goal > until:
            break
        layer = Digest("sha256:" + "0" * 64)
        fresh = goal - done
        for number in range(done, goal):
            layer = add_bundle(store, number)
        done = goal
        store = Store(root)
        started = time.perf_counter()
        store.refresh()
        adding = (time.perf_counter() - started) / (fresh * CHUNKS)
        store = Store(root)
        started = time.perf_counter()
        store.refresh()
        opening = time.perf_counter() - started
        started = time.perf_counter()
        (holder,) = store.index.holders(layer)
        bundle = store.bundle(holder)
        assert bundle
        recipe = bundle.catalog().recipe(layer)
        first = time.perf_counter() - started
        started = time.perf_counter()
        payload = recipe.parts[0].payload
        names = [ChunkId(payload[at : at + 32]) for at in range(0, len(payload), 32)]
        assert len(store.locate(names)) == len(names)
        located = time.perf_counter() - started
        rows.append(
            {
                "bundles": goal,
                "chunks": goal * CHUNKS,
                "index_bytes": (root / "index.sqlite").stat().st_size,
                "add_us_per_chunk": round(adding * 1e6, 2),
                "open_s": round(opening, 3),
                "recipe_ms": round(first * 1e3, 1),
                "locate_layer_ms": round(located * 1e3, 1),
                "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000),
            }
        )
        print(rows[-1])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundles", type=int, default=1000)
    parser.add_argument("--place", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.place) as place:
        rows = measure(Path(place) / "store", options.bundles)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "scale.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    lines = [
        "| bundles | chunks | add, per chunk | open | a layer's recipe | its chunks | index | peak |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r['bundles']} | {r['chunks']:,} | {r['add_us_per_chunk']} µs | {r['open_s']} s | {r['recipe_ms']} ms"
            f" | {r['locate_layer_ms']} ms | {r['index_bytes'] / 1e6:.1f} MB | {r['peak_mb']} MB |"
        )
    (RESULTS / "scale.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
