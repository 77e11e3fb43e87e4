"""The options of `transfer ship`."""

from __future__ import annotations

from typing import Annotated

import typer

from transfer.cli import completing
from transfer.cli.options import (
    AcceptNewOption,
    AfterShipping,
    BundleArgument,
    HostKeyOption,
    IdentityOption,
    Json,
    MediaOptions,
    NoStore,
    Output,
    Quiet,
    RemoteOption,
    SiteOption,
    SshConfigOption,
    SshOption,
    SshOptions,
    StoreOption,
    epilog,
)

EXAMPLES = epilog(
    "transfer ship night.bundle ops@plant7:/srv/inbox --import",
    "transfer ship night.bundle /media/usb1 /media/usb2 --survive-loss 30%",
)


def ship(
    bundle: BundleArgument,
    to: Annotated[
        list[str],
        typer.Argument(
            help="[user@]host:folder, ssh://user@host:port/folder, a target of the configuration file, folders of media, or spool:DIR.",
            autocompletion=completing.targets,
        ),
    ],
    import_: Annotated[bool, typer.Option("--import", help="Import the bundle on the remote host, too.")] = False,
    target: Annotated[str, typer.Option("--to", help="With --import: where images go, as `import --to`.")] = "",
    retag: Annotated[
        list[str] | None, typer.Option("--retag", help="With --import: OLD=NEW, as `import --retag`.")
    ] = None,
    site: SiteOption = "",
    ssh: SshOption = "",
    identity: IdentityOption = None,
    host_key: HostKeyOption = "",
    accept_new: AcceptNewOption = False,
    ssh_config: SshConfigOption = None,
    remote: RemoteOption = "transfer",
    limit_rate: Annotated[
        str, typer.Option("--limit-rate", help="Send at most so many bytes each second, for example 500K or 2M.")
    ] = "",
    parity: Annotated[
        str,
        typer.Option(
            "--survive-loss",
            "--parity",
            help="Add recovery files so that the bundle survives losing this share of its files, 1% to 50% (media and spool only).",
        ),
    ] = "",
    eject: Annotated[
        bool, typer.Option("--eject", help="Unmount the media after everything is written and read back.")
    ] = False,
    folder: Annotated[
        bool, typer.Option("--folder", help="Write into ordinary folders: do not require a mounted medium.")
    ] = False,
    anew: Annotated[
        bool, typer.Option("--new-set", "--anew", help="Start a new set of media and ignore the media written so far.")
    ] = False,
    store: StoreOption = None,
    no_store: NoStore = False,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Number of files sent at the same time. Default: 2.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent where.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Send a bundle to a host over SSH, or write it to media.

    Everything is read back or verified at the other end. If shipping is interrupted, run the same command again: it resumes.
    """
    from transfer.cli.ship import ship as run

    reach = SshOptions(ssh, identity, host_key, accept_new, ssh_config, remote, limit_rate)
    after = AfterShipping(import_, target, tuple(retag or ()), site, store, no_store)
    media = MediaOptions(parity, eject, anew, folder)
    run(bundle, to, reach, after, media, Output(json, quiet, jobs, dry_run))
