"""The options of `transfer receipt`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transfer.cli.options import (
    Json,
    StoreOption,
)

app = typer.Typer(invoke_without_command=True, help="What this site holds, for the sender to build on.")


@app.callback()
def receipt(
    context: typer.Context,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it to this file.")] = None,
    text: Annotated[bool, typer.Option("--text", help="A form to print and retype: each line has a check.")] = False,
    site: Annotated[str, typer.Option("--site", help="This site's name (remembered; first: the host's).")] = "",
    store: StoreOption = None,
) -> None:
    """Say what this site has committed; carry it back to the sender by any way."""
    if context.invoked_subcommand is None:
        from transfer.cli.receipt import receipt as run

        run(output, text, site, store)


@app.command("accept")
def receipt_accept(
    file: Annotated[str, typer.Argument(help="The receipt, either form; - for standard input.")],
    anew: Annotated[
        bool, typer.Option("--anew", help="The site lost its store and counts from the beginning.")
    ] = False,
    store: StoreOption = None,
    json: Json = False,
) -> None:
    """Take a site's receipt: exports with --base site:NAME build on what it confirms."""
    from transfer.cli.receipt import accept as run

    run(file, anew, store, json)
