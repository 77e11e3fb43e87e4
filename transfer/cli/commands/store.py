"""The options of `transfer store`."""

from __future__ import annotations

from typing import Annotated

import typer

from transfer.cli.options import (
    Jobs,
    Json,
    StoreOption,
)

app = typer.Typer(no_args_is_help=True, help="Look at the site's store, check it, keep it small.")


@app.command("ls")
def store_ls(store: StoreOption = None, json: Json = False) -> None:
    """List the bundles of the store."""
    from transfer.cli.store import ls as run

    run(store, json)


@app.command("path")
def store_path(store: StoreOption = None) -> None:
    """Say where the store is."""
    from transfer.cli.store import path as run

    run(store)


@app.command("check")
def store_check(
    store: StoreOption = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make the index anew from the catalogs.")] = False,
    jobs: Jobs = None,
    json: Json = False,
) -> None:
    """Hash every file of the store."""
    from transfer.cli.store import check as run

    run(store, rebuild, jobs, json)


@app.command("prune")
def store_prune(
    keep_last: Annotated[int, typer.Option("--keep-last", min=1, help="How many of the newest bundles to keep.")],
    store: StoreOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    json: Json = False,
) -> None:
    """Forget old bundles; what kept ones build on stays."""
    from transfer.cli.store import prune as run

    run(keep_last, store, dry_run, json)


@app.command("drop")
def store_drop(
    bundle: Annotated[str, typer.Argument(help="The beginning of its digest, as `store ls` shows it.")],
    store: StoreOption = None,
) -> None:
    """Forget one bundle that no other needs, such as a staged one that will never be complete."""
    from transfer.cli.store import drop as run

    run(bundle, store)


@app.command("compact")
def store_compact(store: StoreOption = None, jobs: Jobs = None, json: Json = False) -> None:
    """Pack chunks anew that are kept only because newer bundles build on them."""
    from transfer.cli.store import compact as run

    run(store, jobs, json)
