"""The options of `transfer site`."""

from __future__ import annotations

import typer

from transfer.cli.commands.sync import SiteName
from transfer.cli.options import Json, StoreOption

app = typer.Typer(no_args_is_help=True, help="List sites, show what each one has, and forget one.")


@app.command("ls")
def site_ls(store: StoreOption = None, json: Json = False) -> None:
    """List all sites: those with a site file, and those that sent a receipt."""
    from transfer.cli.status import site_ls as run

    run(store, json)


@app.command("show")
def site_show(site: SiteName, store: StoreOption = None, json: Json = False) -> None:
    """Show what a site has, what it should have, and its last runs."""
    from transfer.cli.status import site_show as run

    run(site, store, json)


@app.command("rm")
def site_rm(site: SiteName, store: StoreOption = None) -> None:
    """Forget the sync of a site that has no site file any more.

    Bundles for it that are still on this host are deleted. Its receipts, and what the store holds, stay.
    """
    from transfer.cli.status import site_rm as run

    run(site, store)
