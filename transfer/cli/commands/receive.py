"""The options of `transfer receive`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transfer.cli.options import (
    NoStore,
    ReceiverRules,
    StoreOption,
    epilog,
)

EXAMPLES = epilog(
    'restrict,command="transfer receive --stdio --inbox /srv/inbox" ssh-ed25519 AAAA... sender',
)


def receive(
    stdio: Annotated[bool, typer.Option("--stdio", help="Use standard input and output (always needed).")] = False,
    inbox: Annotated[Path | None, typer.Option("--inbox", help="Write only into this folder.")] = None,
    allow_import: Annotated[
        bool, typer.Option("--allow-import", help="With --inbox: allow the sender to start an import.")
    ] = False,
    import_to: Annotated[
        str,
        typer.Option("--import-to", help="With --allow-import: where images go, as `import --to`. Default: Docker."),
    ] = "",
    allow_move: Annotated[
        bool,
        typer.Option(
            "--allow-move", help="With --allow-import: allow an import to move a name that another image has."
        ),
    ] = False,
    site: Annotated[
        str, typer.Option("--site", help="With --inbox and --outbox: the folder in it for whoever has this key.")
    ] = "",
    outbox: Annotated[
        Path | None,
        typer.Option("--outbox", help="Only give: let the site with this key take the bundles of this folder."),
    ] = None,
    allow_prune: Annotated[
        int,
        typer.Option(
            "--allow-prune",
            min=0,
            help="With --inbox: allow the sender to delete old bundles of the store, but keep this many of the newest.",
        ),
    ] = 0,
    max_bytes: Annotated[
        str, typer.Option("--max-bytes", help="With --inbox: the most that may lie there, for example 50G.")
    ] = "",
    discard_imported: Annotated[
        bool,
        typer.Option(
            "--discard-imported", help="With --allow-import: remove a bundle from the inbox once the store has it."
        ),
    ] = False,
    store: StoreOption = None,
    no_store: NoStore = False,
) -> None:
    """Receive bundles: the remote end of `ship`, started over SSH.

    In authorized_keys, on one line: restrict,command="transfer receive --stdio --inbox /srv/inbox" ssh-ed25519 AAAA... sender
    """
    from transfer.cli.receive import receive as run
    from transfer.cli.render import parse_size

    rules = ReceiverRules(
        inbox,
        allow_import,
        import_to,
        allow_move,
        site,
        parse_size("--max-bytes", max_bytes),
        outbox,
        allow_prune,
        discard_imported,
    )
    run(stdio, rules, store, no_store)
