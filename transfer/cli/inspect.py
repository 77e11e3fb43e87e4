"""inspect: what a bundle says of itself, and how it holds each layer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from transfer.bundle.reader import Bundle
from transfer.cli.exits import printable
from transfer.cli.render import amount, print_json, several
from transfer.flows import holding
from transfer.model import Digest, Image


def inspect(bundle: Path, json: bool) -> None:
    """What a bundle says of itself. Of the content nothing is read but the catalog, and that only to say how layers are held."""
    with Bundle(bundle) as opened:
        held = holding.held(opened)
        apart = holding.with_files_apart(opened, held)
        header = opened.header
        signature = "present, not checked" if (bundle / "index.json.sig").exists() else "unsigned"
        rows = [_row(image, held, apart) for image in opened.images]
        value = {
            "bundle": str(bundle),
            "digest": str(opened.manifest.digest),
            "created": header.created,
            "tool": header.tool,
            "level": header.level,
            "images": rows,
            "packs": len(header.packs),
            "totals": header.totals,
            "prerequisites": header.prerequisites.as_json(),
            "signature": signature,
        }
    if json:
        print_json(value)
        return
    print(f"{printable(str(bundle))}  {opened.manifest.digest.short}  made by {printable(header.tool)}, {signature}")
    for image in sorted(opened.images, key=lambda each: each.names):
        platforms = ", ".join(map(str, image.platforms))
        print(
            printable(
                f"  {', '.join(image.names) or image.label}  {several(len(image.layers), 'layer')}  {amount(image.size)}  {platforms}"
            )
        )
    totals = header.totals
    saved = 100 - 100 * totals.get("packed_bytes", 0) / max(1, totals.get("layer_bytes", 0))
    print(
        f"  {amount(totals.get('layer_bytes', 0))} of layers in {amount(totals.get('packed_bytes', 0))}"
        f" ({saved:.0f} % less), {several(len(header.packs), 'pack')}, {several(totals.get('chunks', 0), 'chunk')}"
    )
    for text in holding.in_words(held):
        print(f"  {printable(text)}")
    if apart:
        have = "has" if len(apart) == 1 else "have"
        print(f"  {several(len(apart), 'layer')} {have} jars, wheels or other compressed files that are taken apart")
    missing = header.prerequisites.chunks
    if not missing:
        print("  complete: depends on no other bundle")
        return
    print(f"  depends on {several(missing, 'chunk')} ({amount(header.prerequisites.bytes)}) of")
    for each in header.prerequisites.bundles:
        print(printable(f"    bundle {each.short}  {header.prerequisites.words.get(each, '')}").rstrip())


def _row(image: Image, held: Mapping[Digest, str], apart: Collection[Digest]) -> dict[str, object]:
    return {
        "names": list(image.names),
        "digest": str(image.root.digest),
        "config_digest": str(image.config_digest) if image.config_digest else None,
        "platforms": [str(each) for each in image.platforms],
        "layers": [
            {
                "digest": str(layer.digest),
                "size": layer.size,
                "held": held.get(layer.digest, ""),
                "files_apart": layer.digest in apart,
            }
            for layer in image.layers
        ],
        "absent": [str(each) for each in image.absent],
        "bytes": image.size,
    }
