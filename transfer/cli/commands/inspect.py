"""The options of `transfer inspect`."""

from __future__ import annotations

from transfer.cli.options import (
    BundleArgument,
    Json,
)


def inspect(bundle: BundleArgument, json: Json = False) -> None:
    """Show what a bundle holds: images, layers, sizes, savings, prerequisites, signature state."""
    from transfer.cli.inspect import inspect as run

    run(bundle, json)
