"""The options of `transfer inspect`."""

from __future__ import annotations

from transfer.cli.options import (
    BundleArgument,
    Json,
    epilog,
)

EXAMPLES = epilog(
    "transfer inspect night.bundle --json",
)


def inspect(bundle: BundleArgument, json: Json = False) -> None:
    """Show what a bundle holds.

    Lists images, layers and sizes, and the bundles that a delta depends on. Reads the header only.
    """
    from transfer.cli.inspect import inspect as run

    run(bundle, json)
