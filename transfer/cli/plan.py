"""plan: what an export would take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transfer.cli.exits import printable
from transfer.cli.export import chosen, opened_source
from transfer.cli.options import ExportRequest, Output, StoreOptions
from transfer.cli.progress import Progress
from transfer.cli.render import amount, print_json, several
from transfer.errors import NoSpace
from transfer.flows.export import Exported
from transfer.flows.plan import Plan, plan_export


def plan(request: ExportRequest, folder: Path, store: StoreOptions, output: Output) -> None:
    """Say what an export would read and need. NoSpace if the layers will hardly fit."""
    observer = Progress(quiet=output.quiet or output.json)
    source, named = opened_source(request, observer)
    try:
        base = store.bases(store.choice(), observer)
        found = chosen(request, source, named, observer)
        made = plan_export(
            source,
            found,
            folder,
            level=request.level,
            jobs=output.jobs,
            observer=observer,
            base=base,
            gzip=request.gzip,
        )
        where = source.where
    finally:
        observer.close()
        source.close()
    if output.json:
        print_json(_as_json(made, where, folder))
    elif made.weighed:
        _say_delta(made.weighed, folder, made.free)
    else:
        _say(made, where, folder)
    if made.is_too_little_room:
        raise NoSpace(
            f"{made.room}: {amount(made.free)} are free, too little for {amount(made.to_read)} of layers",
            hint="choose another folder",
        )


def _as_json(made: Plan, where: str, folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = {
        "from": where,
        "bundle": str(folder),
        "images": [
            {"names": list(f.names), "id": str(f.id), "bytes": f.size, "layers": len(f.layers)} for f in made.found
        ],
        "bytes_to_read": made.to_read,
        "exact": made.exact,
        "bytes_needed": made.needed,
        "bytes_kept": made.kept,
        "bytes_free": made.free,
        "finished": made.finished,
    }
    weighed = made.weighed
    if weighed:
        value["delta"] = {
            "bytes_packed": weighed.bytes_packed,
            "bytes_folder": weighed.bytes_folder,
            "bytes_new": weighed.bytes_new,
            "prerequisites": weighed.prerequisites,
            "images": [
                {"names": list(image.names), "bytes": size}
                for image, size in zip(weighed.images, weighed.image_bytes, strict=True)
            ],
        }
    return value


def _say(made: Plan, where: str, folder: Path) -> None:
    for each in made.found:
        names = ", ".join(each.names) or each.id.short
        print(printable(f"{names}  {several(len(each.layers), 'layer')}  {amount(each.size)}"))
    total, place = amount(made.to_read), printable(str(folder))
    what = f"{total} to read, each shared layer once" if made.exact else f"at most {total} to read"
    print(f"{several(len(made.found), 'image')} from {printable(where)}: {what}")
    print(f"{place}: at most {amount(made.needed)} needed, {amount(made.free)} free there")
    if made.finished:
        print(f"{place} is a finished bundle: choose another folder for a new one")
    if made.kept:
        print(f"{amount(made.kept)} are packed already by an unfinished export")


def _say_delta(weighed: Exported, folder: Path, free: int) -> None:
    for image, size in zip(weighed.images, weighed.image_bytes, strict=True):
        names = ", ".join(image.names) or image.label
        print(printable(f"{names}  {several(len(image.layers), 'layer')}  {amount(size)}"))
    print(
        f"{printable(str(folder))}: {weighed.bytes_folder} bytes, {amount(free)} free there; "
        f"builds on {several(weighed.prerequisites, 'chunk')} that the other site must have:"
    )
    print("  in its store, in a bundle named with --seed, or, slower, in the images of its engine")
