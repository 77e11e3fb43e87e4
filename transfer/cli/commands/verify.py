"""The options of `transfer verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
)


def verify(
    bundle: Annotated[str, typer.Argument(help="The bundle folder, a medium, or [user@]host:folder/bundle.")],
    deep: Annotated[bool, typer.Option("--deep", help="Also rebuild every layer and check its digest.")] = False,
    against: Annotated[
        str, typer.Option("--against", help="Is what it builds on there? A store's folder, or site:NAME.")
    ] = "",
    request: Annotated[
        Path | None, typer.Option("--request", help="Write the list of damaged or missing files, for export --answer.")
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
    """Check every byte of a bundle; damage is named by file, frame and image."""
    from transfer.cli.verify import verify as run

    reach = SshOptions(ssh, identity, host_key, accept_new, ssh_config, remote)
    options = StoreOptions((), tuple(seed or ()), store, no_store)
    run(bundle, reach, options, Output(json, quiet, jobs), deep=deep, against=against, request=request)
