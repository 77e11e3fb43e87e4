"""The options of `transfer doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from transfer.cli.options import Json, NoStore, StoreOption, epilog

EXAMPLES = epilog(
    "transfer doctor",
    "transfer doctor --offline",
    "TRANSFER_LOG=transfer.log transfer -vv export app/web:1.4",
)


def doctor(
    store: StoreOption = None,
    no_store: NoStore = False,
    json: Json = False,
    offline: Annotated[
        bool,
        typer.Option(
            "--offline",
            help="Say in a line each whether this host can import what is brought to it; exit code 2 if something is not ready.",
        ),
    ] = False,
) -> None:
    """Report versions, engines, store, disk space and clock.

    Send its output with every question about a problem.
    """
    from transfer.cli.doctor import doctor as run

    run(store, no_store, json, offline)
