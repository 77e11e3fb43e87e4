"""The options of `transfer kit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transfer.cli.options import Json, Quiet, epilog

EXAMPLES = epilog(
    "transfer kit -o /media/stick/KIT",
    "transfer kit -o KIT --engine docker.io --for debian:12 --bundle night.bundle",
    "transfer kit -o KIT --arch x86_64,aarch64 --sites ./sites",
)


def kit(
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", help="The new folder for the kit.")],
    arch: Annotated[
        str,
        typer.Option("--arch", help="Kinds of machines: x86_64, aarch64, or both with a comma. Default: this host's."),
    ] = "",
    engine: Annotated[str, typer.Option("--engine", help="Also bring an engine's packages: docker.io or podman.")] = "",
    release: Annotated[
        str, typer.Option("--for", help="The release of the offline host, for example debian:12 or ubuntu:24.04.")
    ] = "",
    installed: Annotated[
        Path | None,
        typer.Option(
            "--installed",
            help="The offline host's /var/lib/dpkg/status: the kit brings only what that host lacks. Default: all.",
        ),
    ] = None,
    engine_files: Annotated[
        Path | None,
        typer.Option(
            "--engine-files",
            help="A folder with the engine's files, fetched elsewhere: *.rpm, or Docker's static *.tgz.",
        ),
    ] = None,
    bundle: Annotated[
        list[Path] | None, typer.Option("--bundle", help="A bundle to put into the kit. Can be given several times.")
    ] = None,
    sites: Annotated[Path | None, typer.Option("--sites", help="A folder of site files to put into the kit.")] = None,
    python_from: Annotated[
        Path | None,
        typer.Option("--python-from", help="Another kit: take its Python and libraries. Works on hosts without apt."),
    ] = None,
    wheels: Annotated[
        Path | None,
        typer.Option("--wheels", help="A folder of wheels that are taken before those of the package index."),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option("--cache", help="Where downloads are kept. Default: ~/.cache/transfer/kit."),
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Make a kit that installs this program on an offline host.

    The kit holds this program with its own Python, and an installer: sh KIT/install.sh.
    It can also hold an engine's packages, the first bundle, and site files.
    """
    from transfer.cli.kit import kit as run
    from transfer.cli.manual import manual
    from transfer.flows.kit import KitOptions
    from transfer.flows.kit_engine import EngineWanted

    options = KitOptions(
        [word.strip() for word in arch.split(",") if word.strip()],
        EngineWanted(engine, release, installed, engine_files),
        bundle or [],
        sites,
        python_from,
        wheels,
        manual(context.find_root().command),
    )
    run(output, options, cache, quiet, json)
