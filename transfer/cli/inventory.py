"""inventory: what this site could serve as a base."""

from __future__ import annotations

import contextlib
from pathlib import Path

from transfer.cli.exits import printable
from transfer.cli.render import amount, print_json, several
from transfer.cli.store import print_rows, rows_of
from transfer.engines.transports import found_here
from transfer.errors import TransferError
from transfer.flows import site as site_flow


def inventory(folder: Path | None, no_store: bool, json: bool) -> None:
    """The store's bundles and the engine's images."""
    choice = site_flow.choose_store(folder, no_store)
    rows = rows_of(choice.store) if choice.store else []
    images, where = [], ""
    for source in found_here():
        with contextlib.suppress(TransferError), contextlib.closing(source):
            images, where = source.names(), source.where
    if json:
        engine = [{"names": list(i.names), "id": str(i.id), "size": i.size, "layers": i.layers} for i in images]
        store = str(choice.store.root) if choice.store else None
        print_json({"store": store, "bundles": rows, "engine": where or None, "images": engine})
        return
    if choice.store:
        print(f"store {printable(str(choice.store.root))}: {several(len(rows), 'bundle')}")
        print_rows(rows)
    print(f"engine {where}: {several(len(images), 'image')}" if where else "no engine answers on this host")
    for each in sorted(images, key=lambda i: i.names):
        print(
            printable(
                f"  {', '.join(each.names) or each.id.short}  {several(each.layers, 'layer')}  {amount(each.size)}"
            )
        )
