"""The options of `transfer demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transfer.cli.options import (
    Quiet,
    epilog,
)

EXAMPLES = epilog(
    "transfer demo --keep look-at-it",
)


def demo(
    keep: Annotated[Path | None, typer.Option("--keep", help="Keep the files of the demo in this new folder.")] = None,
    quiet: Quiet = False,
) -> None:
    """Show the whole procedure on small images made here.

    Needs no root, no engine and no network.
    """
    from transfer.cli.demo import run

    run(keep, quiet)
