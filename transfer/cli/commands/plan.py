"""The options of `transfer plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transfer.cli.options import (
    Bases,
    ExportRequest,
    From,
    Jobs,
    Json,
    Level,
    NoStore,
    Output,
    Patterns,
    PlatformOption,
    Quiet,
    Seeds,
    StoreOption,
    StoreOptions,
    Via,
)


def plan(
    patterns: Patterns = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the bundle would go.")] = Path("images.bundle"),
    source: From = "",
    via: Via = "auto",
    platform: PlatformOption = "",
    level: Level = 3,
    base: Bases = None,
    seed: Seeds = None,
    store: StoreOption = None,
    no_store: NoStore = False,
    jobs: Jobs = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what an export would read and need, without writing anything; with --base, to the byte."""
    from transfer.cli.plan import plan as run

    request = ExportRequest(tuple(patterns or ()), source, via, platform, level)
    options = StoreOptions(tuple(base or ()), tuple(seed or ()), store, no_store)
    run(request, output, options, Output(json, quiet, jobs))
