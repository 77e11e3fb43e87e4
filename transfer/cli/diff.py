"""diff: what changed between two bundles or two images."""

from __future__ import annotations

from transfer.cli.exits import printable
from transfer.cli.options import Output, StoreOptions
from transfer.cli.progress import Progress
from transfer.cli.render import amount, print_json
from transfer.flows import diff as differing
from transfer.work import Pool, default_jobs, keep_memory


def diff(older: str, newer: str, source: str, files: bool, store: StoreOptions, output: Output) -> None:
    """Two bundles, or two images of one source."""
    keep_memory()
    observer = Progress(quiet=output.quiet or output.json)
    try:
        shelf = store.shelf(store.choice())
        with (
            Pool(default_jobs(), "diff") as pool,
            differing.sides(older, newer, source, shelf, pool, observer) as (left, right, pairs),
        ):
            found = list(differing.compare(left, right, pairs))
    finally:
        observer.close()
    if output.json:
        print_json({"images": [_row(each) for each in found], "bytes_new": sum(each.new for each in found)})
        return
    for each in found:
        name = each.newer if not each.older or each.older == each.newer else f"{each.older} -> {each.newer}"
        name = name or each.older
        print(
            printable(
                f"{each.change:8} {name}  layers +{len(each.layers_added)} -{len(each.layers_removed)}  "
                f"files +{_count(each, 'added')} ~{_count(each, 'changed')} -{_count(each, 'removed')}  {amount(each.new)} new"
            )
        )
        if files:
            for file in each.files:
                mark = {"added": "+", "changed": "~", "removed": "-"}[file.change]
                print(printable(f"    {mark} {file.path}  {amount(file.size)}, {amount(file.new)} new"))
    print(f"{amount(sum(each.new for each in found))} new in the newer one, uncompressed")


def _count(each: differing.ImageDiff, change: str) -> int:
    return sum(file.change == change for file in each.files)


def _row(each: differing.ImageDiff) -> dict[str, object]:
    return {
        "older": each.older or None,
        "newer": each.newer or None,
        "change": each.change,
        "layers_added": [str(d) for d in each.layers_added],
        "layers_removed": [str(d) for d in each.layers_removed],
        "bytes_new": each.new,
        "files": [{"path": f.path, "change": f.change, "size": f.size, "bytes_new": f.new} for f in each.files],
    }
