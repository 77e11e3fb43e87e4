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
)


def diff(
    older: Annotated[str, typer.Argument(help="A bundle folder, or an image.")],
    newer: Annotated[str, typer.Argument(help="Another bundle folder, or another image.")],
    source: From = "",
    files: Annotated[bool, typer.Option("--files", help="List every file.")] = False,
    seed: Seeds = None,
    store: StoreOption = None,
    no_store: NoStore = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """What changed between two bundles or two images: images, layers, files, and the bytes each costs."""
    from transfer.cli.diff import diff as run

    run(older, newer, source, files, StoreOptions((), tuple(seed or ()), store, no_store), Output(json, quiet))
