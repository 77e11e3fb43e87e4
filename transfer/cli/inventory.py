"""inventory: what this site could serve as a base."""

from __future__ import annotations

import contextlib
from pathlib import Path

from transfer.cli.exits import printable
from transfer.cli.render import amount, print_json, several
from transfer.cli.store import print_rows, rows_of
from transfer.engines.base import Listed
from transfer.engines.transports import found_here
from transfer.errors import TransferError
from transfer.flows import site as site_flow


def inventory(folder: Path | None, no_store: bool, json: bool) -> None:
    """The store's bundles and the images of the engines found here."""
    choice = site_flow.choose_store(folder, no_store)
    rows = rows_of(choice.store) if choice.store else []
    engines: list[tuple[str, list[Listed]]] = []
    for source in found_here():
        with contextlib.suppress(TransferError), contextlib.closing(source):
            engines.append((source.where, source.names()))
    if json:
        held: list[dict[str, object]] = [
            {"engine": where, "images": [_row(each) for each in images]} for where, images in engines
        ]
        nothing: dict[str, object] = {"engine": None, "images": []}
        first = held[0] if held else nothing
        print_json(
            {"store": str(choice.store.root) if choice.store else None, "bundles": rows, **first, "engines": held}
        )
        return
    if choice.store:
        print(f"store {printable(str(choice.store.root))}: {several(len(rows), 'bundle')}")
        print_rows(rows)
    if not engines:
        print("no engine answers on this host")
    for where, images in engines:
        print(printable(f"engine {where}: {several(len(images), 'image')}"))
        for each in sorted(images, key=lambda i: i.names):
            called = ", ".join(each.names) or each.id.short
            print(printable(f"  {called}  {several(each.layers, 'layer')}  {amount(each.size)}"))


def _row(each: Listed) -> dict[str, object]:
    return {"names": list(each.names), "id": str(each.id), "size": each.size, "layers": each.layers}
