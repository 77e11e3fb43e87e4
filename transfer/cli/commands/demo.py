"""The options of `transfer demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transfer.cli.options import (
    Quiet,
)


def demo(
    keep: Annotated[Path | None, typer.Option("--keep", help="Leave the demo's files in this new folder.")] = None,
    quiet: Quiet = False,
) -> None:
    """Show the whole road on small images made here: no root, no engine, no network."""
    from transfer.cli.demo import run

    run(keep, quiet)
