"""receipt, inventory, diff and store: what a site holds, and how it changed."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transfer.bundle import upkeep
from transfer.bundle.reader import Bundle
from transfer.bundle.store import Store
from transfer.cli.main import printable
from transfer.cli.progress import Progress
from transfer.cli.render import age, amount, print_json, several
from transfer.cli.wiring import Behind
from transfer.engines.daemon import DockerClient
from transfer.engines.docker import DockerSource
from transfer.errors import Damaged, TransferError, UsageError
from transfer.events import Observer
from transfer.flows import diff as differing
from transfer.flows import stores
from transfer.flows.export import export
from transfer.flows.select import choose, open_source, select
from transfer.model import Image
from transfer.streams import publish, read_small
from transfer.work import Pool, default_jobs, keep_memory


def _store(folder: Path | None) -> Store:
    return stores.need_store(stores.choose_store(folder, False))


def receipt(output: Path | None, text: bool, site: str, folder: Path | None) -> None:
    """Say what this site holds."""
    found = stores.receipt(_store(folder), site)
    data = found.text().encode() if text else found.encode()
    if output:
        publish(output, data)
        print(f"{printable(str(output))}: receipt {found.serial} of {found.site}, {len(found.bundles)} bundles")
    else:
        sys.stdout.write(data.decode())


def accept(file: str, anew: bool, folder: Path | None, json: bool) -> None:
    """Take a site's receipt."""
    data = sys.stdin.buffer.read(1 << 23) if file == "-" else read_small(Path(file))
    done = stores.accept(_store(folder), data, file, anew=anew)
    if json:
        print_json(
            {
                "site": done.receipt.site,
                "serial": done.receipt.serial,
                "new": done.new,
                "confirmed": [str(each) for each in done.confirmed],
                "unknown": list(done.unknown),
            }
        )
        return
    state = "" if done.new else " (accepted before)"
    print(
        f"{done.receipt.site} has confirmed {several(len(done.confirmed), 'bundle')}, receipt {done.receipt.serial}{state}"
    )
    if done.unknown:
        print(f"  and holds {len(done.unknown)} that are not known here: nothing is built on those")


def inventory(folder: Path | None, no_store: bool, json: bool) -> None:
    """The store's bundles and the engine's images."""
    choice = stores.choose_store(folder, no_store)
    rows = _rows(choice.store) if choice.store else []
    images, where = [], ""
    with contextlib.suppress(TransferError):
        source = DockerSource(DockerClient())
        try:
            images, where = source.names(), source.where
        finally:
            source.close()
    if json:
        engine = [{"names": list(i.names), "id": str(i.id), "size": i.size, "layers": i.layers} for i in images]
        store = str(choice.store.root) if choice.store else None
        print_json({"store": store, "bundles": rows, "engine": where or None, "images": engine})
        return
    if choice.store:
        print(f"store {printable(str(choice.store.root))}: {several(len(rows), 'bundle')}")
        _print_rows(rows)
    print(f"engine {where}: {several(len(images), 'image')}" if where else "no engine is running here")
    for each in sorted(images, key=lambda i: i.names):
        print(
            printable(
                f"  {', '.join(each.names) or each.id.short}  {several(each.layers, 'layer')}  {amount(each.size)}"
            )
        )


def _rows(store: Store) -> list[dict[str, Any]]:
    rows, confirmed = [], stores.confirmed_by(store)
    for entry in store.entries():
        bundle = store.bundle(entry.digest)
        header = bundle.header if bundle else None
        here = [blob for blob in header.packs if entry.packs or (store.root / blob.path).is_file()] if header else []
        blobs = (*header.catalog, *here) if header else ()
        rows.append(
            {
                "digest": str(entry.digest),
                "role": str(entry.role) if header else "damaged",
                "when": entry.when,
                "packs": entry.packs,
                "packs_here": len(here),
                "packs_all": len(header.packs) if header else 0,
                "bytes": sum(blob.size for blob in blobs),
                "images": [list(image.names) for image in header.images] if header else [],
                "builds_on": header.prerequisites["bundles"] if header else [],
                "confirmed": confirmed.get(entry.digest, []),
            }
        )
    return rows


def _print_rows(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        images = row["images"]
        names = ", ".join(name for each in images[:3] for name in each[:1])
        more = f" and {len(images) - 3} more" if len(images) > 3 else ""
        some = (
            f"  ({row['packs_here']} of {several(row['packs_all'], 'pack')})"
            if row["packs_here"]
            else "  (catalog only)"
        )
        packs = "" if row["packs"] or not row["packs_all"] else some
        by = f"  (confirmed by {', '.join(row['confirmed'])})" if row["confirmed"] else ""
        about = f"{row['role']}  {amount(row['bytes'])}  {age(row['when'])}  {names}{more}{packs}{by}"
        print(printable(f"  {row['digest'][7:19]}  {about}"))


def ls(folder: Path | None, json: bool) -> None:
    """The store's bundles."""
    store = _store(folder)
    rows = _rows(store)
    if json:
        print_json({"store": str(store.root), "bundles": rows})
    else:
        print(f"{printable(str(store.root))}: {several(len(rows), 'bundle')}")
        _print_rows(rows)


def path(folder: Path | None) -> None:
    """Where the store is."""
    print(_store(folder).root)


def check(folder: Path | None, rebuild: bool, jobs: int | None, json: bool) -> None:
    """Hash it all; Damaged if something is wrong."""
    store = _store(folder)
    done = upkeep.check(store, rebuild=rebuild, jobs=default_jobs() if jobs is None else jobs)
    if json:
        print_json(
            {
                "store": str(store.root),
                "sound": not done.faults,
                "bundles": done.bundles,
                "bytes_checked": done.bytes_checked,
                "unnamed": done.unnamed,
                "rebuilt": done.rebuilt,
                "damage": [{"file": f.file, "why": f.why, "images": list(f.images)} for f in done.faults],
            }
        )
    else:
        for each in done.faults:
            who = f"; cannot be rebuilt: {', '.join(each.images)}" if each.images else ""
            print(printable(f"{each.file}: {each.why}{who}"))
        again = ", the index was made anew" if done.rebuilt else ""
        print(
            f"{printable(str(store.root))}: {several(done.bundles, 'bundle')}, {amount(done.bytes_checked)} checked{again}"
        )
        if done.unnamed:
            print(f"  {several(done.unnamed, 'file')} no bundle names: `transfer store prune` removes them")
    if done.faults:
        raise Damaged(
            f"{store.root}: {len(done.faults)} files are damaged",
            hint="import the bundle they are from again: damaged files of a store are replaced",
        )


def prune(keep_last: int, folder: Path | None, dry_run: bool, json: bool) -> None:
    """Forget old bundles."""
    store = _store(folder)
    done = upkeep.prune(store, keep_last, stores.all_confirmed(store), dry_run=dry_run)
    if json:
        print_json(
            {
                "removed": [str(each) for each in done.removed],
                "suppliers": [str(each) for each in done.suppliers],
                "kept": [str(each) for each in done.kept],
                "bytes_freed": done.bytes_freed,
                "dry_run": dry_run,
            }
        )
        return
    verb = "would go" if dry_run else "are gone"
    print(f"{several(len(done.removed), 'bundle')} {verb}, {len(done.kept)} are kept, {amount(done.bytes_freed)} freed")
    if done.suppliers:
        print(
            f"  {len(done.suppliers)} stay because kept ones build on them; `transfer store compact` makes them smaller"
        )


def drop(bundle: str, folder: Path | None) -> None:
    """Forget one bundle."""
    print(f"bundle {upkeep.drop(_store(folder), bundle).short} is forgotten")


def compact(folder: Path | None, jobs: int | None, json: bool) -> None:
    """Pack anew what is kept only for others' sake."""
    keep_memory()
    done = upkeep.compact(_store(folder), jobs=default_jobs() if jobs is None else jobs)
    if json:
        print_json({"chunks": done.chunks, "bytes_before": done.bytes_before, "bytes_after": done.bytes_after})
    elif not done.chunks:
        print("nothing to compact")
    else:
        print(
            f"{several(done.chunks, 'chunk')} packed anew: {amount(done.bytes_before)} became {amount(done.bytes_after)}"
        )


def diff(older: str, newer: str, source: str, files: bool, behind: Behind, json: bool, quiet: bool) -> None:
    """Two bundles, or two images of one source."""
    keep_memory()
    observer = Progress(quiet=quiet or json)
    try:
        with Pool(default_jobs(), "diff") as pool, _sides(older, newer, source, behind, pool, observer) as sides:
            left, right, pairs = sides
            found = list(differing.compare(left, right, pairs))
    finally:
        observer.close()
    if json:
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
    print(f"{amount(sum(each.new for each in found))} in chunks the older side does not have, uncompressed")


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


_Pairs = list[tuple[Image | None, Image | None]]


@contextlib.contextmanager
def _sides(
    older: str, newer: str, source: str, behind: Behind, pool: Pool, observer: Observer
) -> Iterator[tuple[differing.Side, differing.Side, _Pairs]]:
    jobs = default_jobs()
    shelf = behind.shelf(behind.choice())
    are_bundles = [(Path(each) / "oci-layout").exists() and not source for each in (older, newer)]
    if all(are_bundles):
        left, right = (Bundle(Path(each), library=shelf) for each in (older, newer))
        shelf.put(left)
        shelf.put(right)
        yield (
            differing.Side(left, left.images, pool=pool, jobs=jobs),
            differing.Side(right, right.images, pool=pool, jobs=jobs),
            differing.pair(left.images, right.images),
        )
        return
    if any(are_bundles):
        raise UsageError("one is a bundle and the other an image", hint="name two bundle folders, or two images")
    opened, _ = open_source(source)
    with tempfile.TemporaryDirectory(prefix=".transfer-diff-", dir="/var/tmp") as folder:
        try:
            found = select(opened, [older, newer], None, observer)
            export(opened, found, Path(folder) / "b", level=1, jobs=None, observer=observer)
        finally:
            opened.close()
        both = Bundle(Path(folder) / "b")
        before, after = (choose(both.images, [each])[0] for each in (older, newer))
        sides = (differing.Side(both, [each], pool=pool, jobs=jobs) for each in (before, after))
        yield next(sides), next(sides), [(before, after)]
