"""The options of `transfer store`."""

from __future__ import annotations

from typing import Annotated

import typer

from transfer.cli import completing
from transfer.cli.options import (
    Jobs,
    Json,
    StoreOption,
)

app = typer.Typer(no_args_is_help=True, help="Inspect, check and clean up the store of this site.")


@app.command("ls")
def store_ls(store: StoreOption = None, json: Json = False) -> None:
    """List the bundles in the store."""
    from transfer.cli.store import ls as run

    run(store, json)


@app.command("path")
def store_path(store: StoreOption = None) -> None:
    """Print the path of the store."""
    from transfer.cli.store import path as run

    run(store)


@app.command("check")
def store_check(
    store: StoreOption = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Rebuild the index from the catalogs.")] = False,
    jobs: Jobs = None,
    json: Json = False,
) -> None:
    """Verify every file in the store."""
    from transfer.cli.store import check as run

    run(store, rebuild, jobs, json)


@app.command("prune")
def store_prune(
    keep_last: Annotated[int, typer.Option("--keep-last", min=1, help="Keep this many of the newest bundles.")],
    store: StoreOption = None,
    now: Annotated[
        bool,
        typer.Option(
            "--now", help="Also delete at once what the last receipt names, though the sender may still depend on it."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    json: Json = False,
) -> None:
    """Delete old bundles.

    What the remaining bundles depend on stays. A bundle that the last receipt names is deleted by a later prune, when the
    sender has accepted a receipt without it, or after 60 days.
    """
    from transfer.cli.store import prune as run

    run(keep_last, store, now, dry_run, json)


@app.command("drop")
def store_drop(
    bundle: Annotated[
        str,
        typer.Argument(
            help="The beginning of its digest, as `transfer store ls` prints it.", autocompletion=completing.stored
        ),
    ],
    store: StoreOption = None,
) -> None:
    """Delete one bundle that no other bundle needs."""
    from transfer.cli.store import drop as run

    run(bundle, store)


@app.command("compact")
def store_compact(store: StoreOption = None, jobs: Jobs = None, json: Json = False) -> None:
    """Make bundles smaller that are kept only for newer ones.

    Chunks that no bundle needs any more are removed.
    """
    from transfer.cli.store import compact as run

    run(store, jobs, json)
