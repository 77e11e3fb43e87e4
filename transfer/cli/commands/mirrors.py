"""The options of `transfer mirrors`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transfer.cli.options import epilog

EXAMPLES = epilog(
    "transfer mirrors docker --url http://127.0.0.1:5000",
    "transfer mirrors podman --url https://10.0.0.5:5000 --ca ca.crt --registry docker.io --registry registry.hq --write",
)


def mirrors(
    engine: Annotated[str, typer.Argument(help="docker, podman, containerd or k3s.")],
    url: Annotated[str, typer.Option("--url", help="The registry, as `transfer serve` prints it.")],
    ca: Annotated[str, typer.Option("--ca", help="The CA certificate of the registry, if it is your own.")] = "",
    registry: Annotated[
        list[str] | None,
        typer.Option("--registry", help="A registry whose images come from there. Default: docker.io, or all."),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Write the files; an old file is kept beside.")] = False,
    root: Annotated[Path, typer.Option("--root", help="Write below this folder instead of /.")] = Path("/"),
) -> None:
    """Configure an engine to pull from `transfer serve`.

    Prints the configuration files; --write writes them.
    """
    from transfer.cli.mirrors import mirrors as run

    run(engine, url, ca, registry or (), write, root)
