"""The options of `transfer plan`."""

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
    StoreOption,
    StoreOptions,
    Via,
    epilog,
    listed,
)
from transfer.engines.base import RegistryOptions

EXAMPLES = epilog(
    "transfer plan app/web:1.5 --base site:plant-7",
)


def plan(
    patterns: Patterns = None,
    names: Names = None,
    file: Files = None,
    profile: Profiles = None,
    helm: Helm = None,
    values: HelmValues = None,
    deep: Deep = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the bundle would go.")] = Path("images.bundle"),
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
    store: StoreOption = None,
    no_store: NoStore = False,
    jobs: Jobs = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what an export would read and how large it would be.

    Nothing is written. With --base the delta is made and thrown away, so its size is exact.
    """
    from transfer.cli.plan import plan as run

    source, picked = needed(
        source, listed(patterns, names), Needs(file or (), profile or (), helm or (), values or (), deep)
    )
    registry = RegistryOptions(plain_http, not no_tls_verify, mirrors=not no_mirrors)
    request = ExportRequest(picked, source, via, platform, level, False, registry, referrers, gzip)
    options = StoreOptions(tuple(base or ()), tuple(seed or ()), store, no_store)
    run(request, output, options, Output(json, quiet, jobs))
