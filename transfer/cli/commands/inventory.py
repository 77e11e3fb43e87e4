"""The options of `transfer inventory`."""

from __future__ import annotations

from transfer.cli.options import (
    Json,
    NoStore,
    StoreOption,
    epilog,
)

EXAMPLES = epilog(
    "transfer inventory --json",
)


def inventory(store: StoreOption = None, no_store: NoStore = False, json: Json = False) -> None:
    """List the bundles and images that this site has."""
    from transfer.cli.inventory import inventory as run

    run(store, no_store, json)
