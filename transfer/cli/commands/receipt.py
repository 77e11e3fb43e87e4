"""The options of `transfer receipt`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transfer.cli.options import (
    Json,
    StoreOption,
)

app = typer.Typer(invoke_without_command=True, help="Say or accept what a site has imported.")


@app.callback()
def receipt(
    context: typer.Context,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the receipt to this file.")] = None,
    text: Annotated[
        bool,
        typer.Option(
            "--text", help="Write a form that can be printed and typed in again; each line has check characters."
        ),
    ] = False,
    site: Annotated[
        str, typer.Option("--site", help="The name of this site; it is remembered. Default: the host name.")
    ] = "",
    store: StoreOption = None,
) -> None:
    """Write a receipt: what this site has imported.

    Carry it back to the sender by any means. `transfer receipt accept` reads it there.
    """
    if context.invoked_subcommand is None:
        from transfer.cli.receipt import receipt as run

        run(output, text, site, store)


@app.command("accept")
def receipt_accept(
    file: Annotated[str, typer.Argument(help="The receipt file, in either form; - is standard input.")],
    anew: Annotated[
        bool, typer.Option("--restarted", "--anew", help="Accept a lower serial number: the site has lost its store.")
    ] = False,
    store: StoreOption = None,
    json: Json = False,
) -> None:
    """Accept the receipt of a site.

    An export with --base site:NAME then depends only on what that site has confirmed.
    """
    from transfer.cli.receipt import accept as run

    run(file, anew, store, json)
