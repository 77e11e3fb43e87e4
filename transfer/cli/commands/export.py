"""The options of `transfer export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transfer.cli.needed import Needs, needed
from transfer.cli.options import (
    Bases,
    Deep,
    ExportRequest,
    Files,
    From,
    Gzip,
    Helm,
    HelmValues,
    Jobs,
    Json,
    Level,
    Names,
    NoMirrors,
    NoStore,
    NoTlsVerify,
    Output,
    Patterns,
    PlainHttp,
    PlatformOption,
    Profiles,
    Quiet,
    Referrers,
    Seeds,
    SiteOption,
    StoreOption,
    StoreOptions,
    Via,
    epilog,
    listed,
)
from transfer.engines.base import RegistryOptions

EXAMPLES = epilog(
    "transfer export app/web:1.4 'base/*' -o night.bundle",
    "transfer export app/web:1.5 --base night.bundle -o patch.bundle",
    "transfer export --names images.txt --from oci:mirror -o all.bundle",
    "transfer export docker://registry.hq/app/web:1.4 --referrers -o web.bundle",
    "transfer export -f compose.yaml -f deploy.yaml -o app.bundle",
)


def export(
    patterns: Patterns = None,
    names: Names = None,
    file: Files = None,
    profile: Profiles = None,
    helm: Helm = None,
    values: HelmValues = None,
    deep: Deep = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle folder to create.")] = Path(
        "images.bundle"
    ),
    source: From = "",
    via: Via = "auto",
    platform: PlatformOption = "",
    referrers: Referrers = False,
    plain_http: PlainHttp = False,
    no_tls_verify: NoTlsVerify = False,
    no_mirrors: NoMirrors = False,
    level: Level = 3,
    gzip: Gzip = "exact",
    base: Bases = None,
    seed: Seeds = None,
    site: SiteOption = "",
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first image that cannot be exported, and make no bundle.")
    ] = False,
    answer: Annotated[
        Path | None,
        typer.Option(
            "--repair-request",
            "--answer",
            help="Export only what this file asks for (made by `verify --repair-request`).",
        ),
    ] = None,
    store: StoreOption = None,
    no_store: NoStore = False,
    jobs: Jobs = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done (the same as `plan`).")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Export images into a bundle folder.

    If an export is interrupted, run the same command again: it resumes.
    """
    options = StoreOptions(tuple(base or ()), tuple(seed or ()), store, no_store, site)
    source, picked = needed(
        source, listed(patterns, names), Needs(file or (), profile or (), helm or (), values or (), deep)
    )
    request = ExportRequest(
        picked,
        source,
        via,
        platform,
        level,
        strict,
        RegistryOptions(plain_http, not no_tls_verify, mirrors=not no_mirrors),
        referrers,
        gzip,
    )
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
