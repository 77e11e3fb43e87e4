"""The options of `transfer export`."""

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


def export(
    patterns: Patterns = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle folder to make.")] = Path("images.bundle"),
    source: From = "",
    via: Via = "auto",
    platform: PlatformOption = "",
    level: Level = 3,
    base: Bases = None,
    seed: Seeds = None,
    site: Annotated[str, typer.Option("--site", help="Note that the bundle is for this site.")] = "",
    strict: Annotated[
        bool, typer.Option("--strict", help="All images or no bundle: the first that cannot be taken ends it.")
    ] = False,
    answer: Annotated[
        Path | None, typer.Option("--answer", help="Only the files this request names (verify --request made it).")
    ] = None,
    store: StoreOption = None,
    no_store: NoStore = False,
    jobs: Jobs = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done (as `plan`).")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Export images into a bundle; run it again after an interruption and it goes on where it stopped."""
    options = StoreOptions(tuple(base or ()), tuple(seed or ()), store, no_store, site)
    request = ExportRequest(tuple(patterns or ()), source, via, platform, level, strict)
    how = Output(json, quiet, jobs, dry_run)
    if answer:
        from transfer.cli.verify import answer as run_answer

        run_answer(answer, output, options, request.patterns, how)
    elif dry_run:
        from transfer.cli.plan import plan as run_plan

        run_plan(request, output, options, how)
    else:
        from transfer.cli.export import export as run

        run(request, output, options, how)
