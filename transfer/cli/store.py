"""store: the site's store, looked at, checked, kept small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transfer.cli.exits import printable
from transfer.cli.render import age, amount, print_json, several
from transfer.errors import Damaged
from transfer.flows import site as site_flow
from transfer.store import upkeep
from transfer.store.store import Store
from transfer.work import default_jobs, keep_memory


def own_store(folder: Path | None) -> Store:
    return site_flow.need_store(site_flow.choose_store(folder, False))


def rows_of(store: Store) -> list[dict[str, Any]]:
    rows, confirmed = [], site_flow.confirmed_by(store)
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
                "builds_on": [str(each) for each in header.prerequisites.bundles] if header else [],
                "confirmed": confirmed.get(entry.digest, []),
            }
        )
    return rows


def print_rows(rows: list[dict[str, Any]]) -> None:
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
    store = own_store(folder)
    rows = rows_of(store)
    if json:
        print_json({"store": str(store.root), "bundles": rows})
    else:
        print(f"{printable(str(store.root))}: {several(len(rows), 'bundle')}")
        print_rows(rows)


def path(folder: Path | None) -> None:
    """Where the store is."""
    print(own_store(folder).root)


def check(folder: Path | None, rebuild: bool, jobs: int | None, json: bool) -> None:
    """Hash it all; Damaged if something is wrong."""
    store = own_store(folder)
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
        again = ", the index was rebuilt" if done.rebuilt else ""
        print(
            f"{printable(str(store.root))}: {several(done.bundles, 'bundle')}, {amount(done.bytes_checked)} checked{again}"
        )
        if done.unnamed:
            print(f"  {several(done.unnamed, 'file')} not needed by any bundle; `transfer store prune` deletes them")
    if done.faults:
        raise Damaged(
            f"{store.root}: {len(done.faults)} files are damaged",
            hint="import the bundle of these files again: the import replaces damaged files of the store",
        )


def prune(keep_last: int, folder: Path | None, at_once: bool, dry_run: bool, json: bool) -> None:
    """Forget old bundles."""
    from transfer.flows.retention import forget

    store = own_store(folder)
    forgotten = forget(store, keep_last, dry_run=dry_run, at_once=at_once)
    done = forgotten.pruned
    if json:
        print_json(
            {
                "removed": [str(each) for each in done.removed],
                "suppliers": [str(each) for each in done.suppliers],
                "kept": [str(each) for each in done.kept],
                "leaving": [str(each) for each in forgotten.leaving],
                "bytes_freed": done.bytes_freed,
                "dry_run": dry_run,
            }
        )
        return
    verb = "would be deleted" if dry_run else "deleted"
    print(f"{several(len(done.removed), 'bundle')} {verb}, {len(done.kept)} are kept, {amount(done.bytes_freed)} freed")
    if forgotten.leaving:
        print(
            f"  {several(len(forgotten.leaving), 'bundle')} will be deleted by a later prune, when the sender has accepted"
            " the next receipt; --now deletes them at once"
        )
    if done.suppliers:
        print(
            f"  {len(done.suppliers)} stay because other bundles depend on them; `transfer store compact` makes them smaller"
        )


def drop(bundle: str, folder: Path | None) -> None:
    """Forget one bundle."""
    digest, gone = upkeep.drop(own_store(folder), bundle)
    print(
        f"bundle {digest.short} is deleted"
        if gone
        else f"bundle {digest.short} is given up: no import tries it again, and its data stays while other bundles need it"
    )


def compact(folder: Path | None, jobs: int | None, json: bool) -> None:
    """Pack anew what is kept only for others' sake."""
    keep_memory()
    done = upkeep.compact(own_store(folder), jobs=default_jobs() if jobs is None else jobs)
    if json:
        print_json({"chunks": done.chunks, "bytes_before": done.bytes_before, "bytes_after": done.bytes_after})
    elif not done.chunks:
        print("nothing to compact")
    else:
        print(
            f"{several(done.chunks, 'chunk')} packed again: {amount(done.bytes_before)} became {amount(done.bytes_after)}"
        )
