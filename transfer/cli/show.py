"""images, plan and inspect: the commands that only look."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transfer.bundle.library import Shelf
from transfer.bundle.reader import Bundle
from transfer.bundle.receipt import site_name
from transfer.cli.main import printable
from transfer.cli.progress import Progress
from transfer.cli.render import age, amount, print_json
from transfer.engines.base import Found, ImageSource
from transfer.errors import NoSpace
from transfer.events import Observer
from transfer.flows import export as exporting
from transfer.flows import stores
from transfer.flows.select import open_source, select
from transfer.model import Platform


def images(source: str, json: bool) -> None:
    """What a source holds."""
    opened, _ = open_source(source)
    try:
        listed = sorted(opened.names(), key=lambda each: (not each.names, each.names))
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
    table = [("NAME", "ID", "SIZE", "AGE", "LAYERS")]
    for each in listed:
        for name in each.names or ("<none>",):
            table.append((printable(name), each.id.short, amount(each.size), age(each.created), str(each.layers)))
    widths = [max(len(row[column]) for row in table) for column in range(5)]
    for row in table:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


@dataclass(frozen=True, slots=True)
class Behind:
    """What a command may build on: --base, --seed, --store, --no-store, --site."""

    base: tuple[str, ...]
    seeds: tuple[Path, ...]
    store: Path | None
    no_store: bool
    site: str

    def choice(self) -> stores.StoreChoice:
        return stores.choose_store(self.store, self.no_store)

    def shelf(self, choice: stores.StoreChoice) -> Shelf:
        return stores.library(self.seeds, choice.store)

    def bases(self, choice: stores.StoreChoice, observer: Observer) -> list[Bundle]:
        return stores.bases(self.base, self.shelf(choice), choice.store, observer)

    def __post_init__(self) -> None:
        for name in self.sites:
            site_name(name)

    @property
    def sites(self) -> list[str]:
        """The sites an export is for."""
        named = [text.removeprefix(stores.SITE) for text in self.base if text.startswith(stores.SITE)]
        return list(dict.fromkeys([*named, *([self.site] if self.site else [])]))


@dataclass(frozen=True, slots=True)
class Wished:
    """Which images an export takes, from where, how they are read and how hard they are compressed."""

    patterns: tuple[str, ...]
    source: str
    via: str
    platform: str
    level: int

    def open(self, observer: Observer) -> tuple[ImageSource, list[str]]:
        """The source, and the reference --from names, if any."""
        return open_source(self.source, via=self.via, observer=observer)

    def select(self, source: ImageSource, named: list[str], observer: Observer) -> list[Found]:
        platform = Platform.parse(self.platform) if self.platform else None
        return select(source, [*named, *self.patterns], platform, observer)


def plan(
    wished: Wished,
    output: Path,
    behind: Behind,
    jobs: int | None,
    json: bool,
    quiet: bool,
) -> None:
    """What an export would do. `bytes_to_read` counts shared layers once; `bytes_needed` is the most it can take.

    With a base the delta is made and thrown away: `delta` has its exact bytes.
    """
    observer = Progress(quiet=quiet or json)
    opened, named = wished.open(observer)
    weighed = None
    try:
        base = behind.bases(behind.choice(), observer)
        found = wished.select(opened, named, observer)
        where = opened.where
        if base and not (output / "index.json").exists():
            with tempfile.TemporaryDirectory() as folder:
                weighed = exporting.export(
                    opened,
                    found,
                    Path(folder) / "plan",
                    level=wished.level,
                    jobs=jobs,
                    observer=observer,
                    base=base,
                    weigh=True,
                )
    finally:
        observer.close()
        opened.close()
    layers = {digest: size for each in found for digest, size in each.layers}
    total = sum(layers.values()) or sum(each.size for each in found)
    there, free = _room(output)
    finished = (output / "index.json").exists()
    unfinished = sum(p.stat().st_size for p in output.glob("blobs/sha256/*")) if not finished else 0
    needed = weighed.bytes_packed if weighed else max(0, total - unfinished)
    if json:
        value: dict[str, Any] = {
            "from": where,
            "bundle": str(output),
            "images": [
                {"names": list(f.names), "id": str(f.id), "bytes": f.size, "layers": len(f.layers)} for f in found
            ],
            "bytes_to_read": total,
            "bytes_needed": needed,
            "bytes_kept": unfinished,
            "bytes_free": free,
            "finished": finished,
        }
        if weighed:
            value["delta"] = _delta_json(weighed)
        print_json(value)
    elif weighed:
        _say_delta(weighed, output, free)
    else:
        for each in found:
            print(
                printable(f"{', '.join(each.names) or each.id.short}  {len(each.layers)} layers  {amount(each.size)}")
            )
        print(f"{len(found)} images from {where}: {amount(total)} to read, each shared layer once")
        print(f"{printable(str(output))}: at most {amount(needed)} needed, {amount(free)} free there")
        if unfinished:
            print(f"{amount(unfinished)} are packed already by an unfinished export")
    if not weighed and free < (total - unfinished) // 4:
        raise NoSpace(
            f"{there}: {amount(free)} free will hardly hold {amount(total)} of layers", hint="choose another folder"
        )


def _room(output: Path) -> tuple[Path, int]:
    """The nearest folder that exists, and the bytes free there."""
    there = output
    while not there.exists():
        there = there.absolute().parent
    state = os.statvfs(there)
    return there, state.f_bavail * state.f_frsize


def _delta_json(weighed: exporting.Exported) -> dict[str, Any]:
    return {
        "bytes_packed": weighed.bytes_packed,
        "bytes_new": weighed.bytes_new,
        "prerequisites": weighed.prerequisites,
        "images": [
            {"names": list(image.names), "bytes": size}
            for image, size in zip(weighed.images, weighed.image_bytes, strict=True)
        ],
    }


def _say_delta(weighed: exporting.Exported, output: Path, free: int) -> None:
    for image, size in zip(weighed.images, weighed.image_bytes, strict=True):
        print(printable(f"{', '.join(image.names) or image.label}  {len(image.layers)} layers  {amount(size)}"))
    print(
        f"{printable(str(output))}: {weighed.bytes_packed} bytes, {amount(free)} free there; "
        f"builds on {weighed.prerequisites} chunks the other side must have:"
    )
    print("  in its store, in a bundle named with --seed, or, slower, in the images of its engine")


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
                f"  {', '.join(image.names) or image.label}  {len(image.layers)} layers  {amount(image.size)}  {platforms}"
            )
        )
    totals = header.totals
    saved = 100 - 100 * totals.get("packed_bytes", 0) / max(1, totals.get("layer_bytes", 0))
    print(
        f"  {amount(totals.get('layer_bytes', 0))} of layers in {amount(totals.get('packed_bytes', 0))}"
        f" ({saved:.0f} % less), {len(header.packs)} packs, {totals.get('chunks', 0)} chunks"
    )
    missing = header.prerequisites.get("chunks", 0)
    if not missing:
        print("  complete in itself")
        return
    print(f"  builds on {missing} chunks ({amount(header.prerequisites['bytes'])}) of")
    about = header.prerequisites.get("about", {})
    for text in header.prerequisites["bundles"]:
        print(printable(f"    bundle {text[7:19]}  {about.get(text, '')}").rstrip())
