"""The options of `transfer diff`."""

from __future__ import annotations

from typing import Annotated

import typer

from transfer.cli.options import (
    From,
    Json,
    NoStore,
    Output,
    Quiet,
    Seeds,
    StoreOption,
    StoreOptions,
    epilog,
)

EXAMPLES = epilog(
    "transfer diff night.bundle patch.bundle --files",
    "transfer diff app/web:1.4 app/web:1.5",
)


def diff(
    older: Annotated[str, typer.Argument(help="The older bundle folder, or image.")],
    newer: Annotated[str, typer.Argument(help="The newer bundle folder, or image.")],
    source: From = "",
    files: Annotated[bool, typer.Option("--files", help="List every changed file.")] = False,
    seed: Seeds = None,
    store: StoreOption = None,
    no_store: NoStore = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what changed between two bundles or two images.

    Lists images, layers and files, and the bytes that are new with each.
    """
    from transfer.cli.diff import diff as run

    run(older, newer, source, files, StoreOptions((), tuple(seed or ()), store, no_store), Output(json, quiet))
