"""The options of `transfer inventory`."""

from __future__ import annotations

from transfer.cli.options import (
    Json,
    NoStore,
    StoreOption,
)


def inventory(store: StoreOption = None, no_store: NoStore = False, json: Json = False) -> None:
    """What this site could serve as a base: its store's bundles and its engine's images."""
    from transfer.cli.inventory import inventory as run

    run(store, no_store, json)
