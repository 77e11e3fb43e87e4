"""ready: whether what files and charts need would start here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transfer.cli.exits import printable
from transfer.cli.needed import Needs, found
from transfer.cli.options import StoreOptions
from transfer.cli.render import print_json, several
from transfer.errors import NotFound, UsageError
from transfer.flows import ready as flow
from transfer.flows.picks import Picks
from transfer.flows.select import open_source
from transfer.model import Platform, familiar


def ready(
    bundles: Sequence[Path],
    needs: Needs,
    names: Sequence[str],
    place: str,
    platform: str,
    store: StoreOptions,
    json: bool,
) -> None:
    """Look at every image; NotFound if one would not start."""
    if not needs.files and not needs.charts and not names:
        raise UsageError(
            "nothing to look for", hint="name a file with -f, a chart with --helm, or an image with --name"
        )
    picked = found(needs) if needs.files or needs.charts else Picks()
    for name in names:
        picked.take(name, "--name")
    if not picked.names:
        raise UsageError(f"{(needs.files or needs.charts)[0]} needs no image")
    shelf = flow.shelved(bundles, store.choice().store)
    opened, _ = open_source(place)
    try:
        wanted = Platform.parse(platform) if platform else None
        done = flow.ready(opened, picked, wanted, shelf)
        where = opened.where
    finally:
        opened.close()
    lacking = [each for each in done if not each.ready]
    if json:
        rows = [
            {
                "name": each.name,
                "needed_by": each.where,
                "ready": each.ready,
                "id": str(each.id) if each.id else None,
                "reasons": list(each.reasons),
                "notes": list(each.notes),
                "bundle": each.bundle or None,
            }
            for each in done
        ]
        print_json({"where": where, "ready": not lacking, "images": rows})
    else:
        for each in done:
            _say(each)
    if lacking:
        raise NotFound(
            f"{len(lacking)} of {several(len(done), 'image')} would not start in {where}",
            hint="import the bundles that are named above"
            if any(each.bundle for each in lacking)
            else "bring a bundle that has them",
        )
    if not json:
        print(printable(f"{several(len(done), 'image')} would start in {where}"))


def _say(each: flow.Readiness) -> None:
    """One image: a line for it, and one for each thing that is wrong or odd."""
    print(printable(f"{'ready' if each.ready else 'NOT READY':9}  {familiar(each.name)}  (needed by {each.where})"))
    for text in each.reasons:
        print(printable(f"           -> {text}"))
    for text in each.notes:
        print(printable(f"           note: {text}"))
    if each.bundle:
        print(printable(f"           -> in {each.bundle}"))
