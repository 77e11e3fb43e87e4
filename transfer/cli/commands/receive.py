"""The options of `transfer receive`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transfer.cli.options import (
    NoStore,
    ReceiverRules,
    StoreOption,
)


def receive(
    stdio: Annotated[bool, typer.Option("--stdio", help="Speak on standard input and output.")] = False,
    inbox: Annotated[Path | None, typer.Option("--inbox", help="Take files into this folder and nowhere else.")] = None,
    allow_import: Annotated[
        bool, typer.Option("--allow-import", help="With --inbox: also import what arrived.")
    ] = False,
    import_to: Annotated[
        str, typer.Option("--import-to", help="With --allow-import: where to, as `import --to` (default: the Docker).")
    ] = "",
    allow_move: Annotated[
        bool, typer.Option("--allow-move", help="With --allow-import: a name that another image has may move.")
    ] = False,
    site: Annotated[str, typer.Option("--site", help="With --inbox: this key's own folder in it.")] = "",
    max_bytes: Annotated[str, typer.Option("--max-bytes", help="With --inbox: how much may lie there, e.g. 50G.")] = "",
    store: StoreOption = None,
    no_store: NoStore = False,
) -> None:
    """The other end of `ship`: started over SSH, also as a forced command.

    In authorized_keys, on one line: restrict,command="transfer receive --stdio --inbox /srv/inbox" ssh-ed25519 AAAA... sender
    """
    from transfer.cli.receive import receive as run
    from transfer.cli.render import parse_size

    rules = ReceiverRules(inbox, allow_import, import_to, allow_move, site, parse_size("--max-bytes", max_bytes))
    run(stdio, rules, store, no_store)
