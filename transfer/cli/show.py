"""images and inspect: the commands that only look."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transfer.bundle.reader import Bundle
from transfer.cli.main import printable
from transfer.cli.render import age, amount, print_json, several
from transfer.flows.select import listed_by, open_source


def images(patterns: Sequence[str], source: str, json: bool) -> None:
    """What a source holds: all, or what names, globs and the beginnings of IDs pick. NotFound if one picks nothing."""
    opened, _ = open_source(source)
    try:
        listed = sorted(opened.names(), key=lambda each: (not each.names, each.names))
        listed = listed_by(patterns, listed, opened.where)
        where = opened.where
    finally:
        opened.close()
    if json:
        rows = [
            {"names": list(i.names), "id": str(i.id), "size": i.size, "created": i.created, "layers": i.layers}
            for i in listed
        ]
        print_json({"where": where, "images": rows})
        return
    if not listed:
        print(f"no images in {printable(where)}")
        return
    table = [("NAME", "ID", "SIZE", "AGE", "LAYERS")]
    for each in listed:
        for name in each.names or ("<none>",):
            table.append((printable(name), each.id.short, amount(each.size), age(each.created), str(each.layers)))
    widths = [max(len(row[column]) for row in table) for column in range(5)]
    for row in table:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def inspect(bundle: Path, json: bool) -> None:
    """What a bundle says of itself; nothing but header and manifest is read."""
    with Bundle(bundle) as opened:
        header = opened.header
        signature = "present, not checked" if (bundle / "index.json.sig").exists() else "unsigned"
        rows = [
            {
                "names": list(image.names),
                "digest": str(image.root.digest),
                "config_digest": str(image.config_digest) if image.config_digest else None,
                "platforms": [str(each) for each in image.platforms],
                "layers": [{"digest": str(layer.digest), "size": layer.size} for layer in image.layers],
                "absent": [str(each) for each in image.absent],
                "bytes": image.size,
            }
            for image in opened.images
        ]
        value = {
            "bundle": str(bundle),
            "digest": str(opened.manifest.digest),
            "created": header.created,
            "tool": header.tool,
            "level": header.level,
            "images": rows,
            "packs": len(header.packs),
            "totals": header.totals,
            "prerequisites": header.prerequisites,
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
    missing = header.prerequisites.get("chunks", 0)
    if not missing:
        print("  complete in itself")
        return
    print(f"  builds on {several(missing, 'chunk')} ({amount(header.prerequisites['bytes'])}) of")
    about = header.prerequisites.get("about", {})
    for text in header.prerequisites["bundles"]:
        print(printable(f"    bundle {text[7:19]}  {about.get(text, '')}").rstrip())
