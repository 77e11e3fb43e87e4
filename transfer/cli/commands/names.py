"""The options of `transfer tag` and `transfer rm`."""

from __future__ import annotations

from typing import Annotated

import typer

from transfer.cli import completing
from transfer.cli.options import From, Json, NoTlsVerify, PlainHttp, epilog
from transfer.engines.base import RegistryOptions

TAG_EXAMPLES = epilog(
    "transfer tag app/web:1.5 app/web:prod",
    "transfer tag docker://registry.hq/app/web:1.5 docker://registry.hq/app/web:prod",
)
RM_EXAMPLES = epilog("transfer rm app/web:1.3 app/web:1.2 --dry-run")


def tag(
    source: Annotated[
        str, typer.Argument(help="The image, by its name.", autocompletion=completing.images, metavar="SOURCE")
    ],
    names: Annotated[list[str], typer.Argument(help="The names that the image gets besides.", metavar="NEW...")],
    place: From = "",
    plain_http: PlainHttp = False,
    no_tls_verify: NoTlsVerify = False,
    json: Json = False,
) -> None:
    """Give an image more names, in an engine or in a registry.

    The engine is asked afterwards. A name that another image has moves.
    """
    from transfer.cli.names import tag as run

    run(place, source, names, RegistryOptions(plain_http, not no_tls_verify, mirrors=False), json)


def rm(
    names: Annotated[
        list[str],
        typer.Argument(help="The names to remove, each in full.", autocompletion=completing.images, metavar="NAME..."),
    ],
    place: From = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which names would be removed.")] = False,
    pinned: Annotated[
        bool, typer.Option("--pinned", help="Also names of images that are pinned (containerd under Kubernetes).")
    ] = False,
    plain_http: PlainHttp = False,
    no_tls_verify: NoTlsVerify = False,
    json: Json = False,
) -> None:
    """Remove names of images from an engine or a registry.

    Only by name, never by ID, and never of an image that a container uses. The engine deletes what has no name any more.
    """
    from transfer.cli.names import remove as run

    run(place, names, RegistryOptions(plain_http, not no_tls_verify, mirrors=False), dry_run, pinned, json)
