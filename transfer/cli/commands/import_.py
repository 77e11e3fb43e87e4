"""The options of `transfer import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transfer.cli.options import (
    ImportOptions,
    Jobs,
    Json,
    NoStore,
    Output,
    Quiet,
    Seeds,
    StoreOption,
    StoreOptions,
    To,
)


def import_(
    bundle: Annotated[
        str, typer.Argument(help="The bundle folder, a medium, or spool:DIR for all that has arrived there.")
    ],
    patterns: Annotated[
        list[str] | None,
        typer.Argument(help="Further media of the set; then names or globs, quoted. None: all images."),
    ] = None,
    to: To = "",
    retag: Annotated[list[str] | None, typer.Option("--retag", help="OLD=NEW: land under another name.")] = None,
    platform: Annotated[
        str, typer.Option("--platform", help="Of a multi-platform image, what a Docker takes (default: its own).")
    ] = "",
    via: Annotated[str, typer.Option("--via", help="How a Docker daemon takes it: auto, pull or load.")] = "auto",
    seed: Seeds = None,
    keep_tags: Annotated[
        bool, typer.Option("--keep-tags", help="A name that another image has there stays with that one.")
    ] = False,
    repair: Annotated[
        list[Path] | None, typer.Option("--repair", help="An answer to `verify --request`: it mends what is damaged.")
    ] = None,
    stage: Annotated[
        bool,
        typer.Option("--stage", help="If what it builds on is not here yet, keep it; it is imported when that comes."),
    ] = False,
    store: StoreOption = None,
    no_store: NoStore = False,
    jobs: Jobs = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say which images would come, under which names.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Import a bundle's images: what is there already is not sent; IDs and digests are compared afterwards."""
    from transfer.cli.import_ import import_ as run

    options = ImportOptions(
        tuple(patterns or ()), to, tuple(retag or ()), platform, via, stage, keep_tags, tuple(repair or ())
    )
    run(bundle, options, StoreOptions((), tuple(seed or ()), store, no_store), Output(json, quiet, jobs, dry_run))
