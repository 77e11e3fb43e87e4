"""The options of `transfer site`."""

from __future__ import annotations

import typer

from transfer.cli.commands.sync import SiteName
from transfer.cli.options import Json, StoreOption

app = typer.Typer(no_args_is_help=True, help="List sites and show what each one has.")


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
