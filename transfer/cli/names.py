"""tag and rm: names of images, given and taken."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from transfer.cli.exits import printable
from transfer.cli.progress import Progress
from transfer.cli.render import print_json
from transfer.engines.base import RegistryOptions
from transfer.errors import SomeImagesFailed
from transfer.flows import keep


def tag(place: str, source: str, names: Sequence[str], registry: RegistryOptions, json: bool) -> None:
    """Give an image more names."""
    observer = Progress(quiet=json)
    keeper, _, (first, *rest) = keep.opened(place, [source, *names], registry, observer)
    try:
        found = keep.tag(keeper, first, rest)
    finally:
        observer.close()
        keeper.close()
    if json:
        print_json({"source": first, "names": rest, "id": str(found)})
        return
    for name in rest:
        print(printable(f"{name} is the image of {first} ({found.short})"))


def remove(
    place: str, names: Sequence[str], registry: RegistryOptions, dry_run: bool, pinned: bool, json: bool
) -> None:
    """Take names away. SomeImagesFailed if several were named and some stay."""
    observer = Progress(quiet=json)
    keeper, _, wanted = keep.opened(place, names, registry, observer, pinned=pinned)
    try:
        done = keep.remove(keeper, wanted, dry_run=dry_run)
    finally:
        observer.close()
        keeper.close()
    failed = [each for each in done if each.error]
    if json:
        rows = [{"name": each.name, "gone": each.gone, "error": each.error and each.error.message} for each in done]
        print_json({"names": rows, "dry_run": dry_run})
    else:
        for each in done:
            if each.gone:
                print(printable(f"{each.name} is already gone"))
            elif not each.error:
                print(printable(f"{each.name} {'would be removed' if dry_run else 'is removed'}"))
    if len(done) == 1 and failed and failed[0].error:
        raise failed[0].error
    for each in failed:
        if each.error:
            print(f"transfer: {printable(each.error.message)}\n  -> {printable(each.error.hint)}", file=sys.stderr)
    if failed:
        raise SomeImagesFailed(
            f"{len(failed)} of {len(done)} names could not be removed", hint="the other names are removed"
        )
