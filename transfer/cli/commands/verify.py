"""The options of `transfer verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transfer.cli import completing
from transfer.cli.options import (
    AcceptNewOption,
    HostKeyOption,
    IdentityOption,
    Jobs,
    Json,
    NoStore,
    Output,
    Quiet,
    RemoteOption,
    Seeds,
    SshConfigOption,
    SshOption,
    SshOptions,
    StoreOption,
    StoreOptions,
    epilog,
)

EXAMPLES = epilog(
    "transfer verify night.bundle",
    "transfer verify ops@plant7:/srv/inbox/night.bundle",
    "transfer verify night.bundle --repair-request wanted.json",
)


def verify(
    bundle: Annotated[
        str,
        typer.Argument(
            help="The bundle folder, a medium, or a bundle on a host: [user@]host:folder/bundle.",
            autocompletion=completing.bundles,
        ),
    ],
    deep: Annotated[bool, typer.Option("--deep", help="Rebuild every layer, too, and check its digest.")] = False,
    against: Annotated[
        str,
        typer.Option(
            "--against",
            help="Also check that the bundles this delta depends on are in this store (a folder, or site:NAME).",
        ),
    ] = "",
    request: Annotated[
        Path | None,
        typer.Option(
            "--repair-request",
            "--request",
            help="Write the list of damaged or missing parts to this file, for `export --repair-request` at the sender.",
        ),
    ] = None,
    ssh: SshOption = "",
    identity: IdentityOption = None,
    host_key: HostKeyOption = "",
    accept_new: AcceptNewOption = False,
    ssh_config: SshConfigOption = None,
    remote: RemoteOption = "transfer",
    seed: Seeds = None,
    store: StoreOption = None,
    no_store: NoStore = False,
    jobs: Jobs = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Verify every byte of a bundle.

    Damage is reported with the file, the frame and the images that need it.
    """
    from transfer.cli.verify import verify as run

    reach = SshOptions(ssh, identity, host_key, accept_new, ssh_config, remote)
    options = StoreOptions((), tuple(seed or ()), store, no_store)
    run(bundle, reach, options, Output(json, quiet, jobs), deep=deep, against=against, request=request)
