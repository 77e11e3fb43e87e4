"""The options of `transfer ship`."""

from __future__ import annotations

from typing import Annotated

import typer

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
    SshConfigOption,
    SshOption,
    SshOptions,
    StoreOption,
)


def ship(
    bundle: BundleArgument,
    to: Annotated[
        list[str],
        typer.Argument(help="[user@]host:folder, ssh://user@host:port/folder, folders of media, or spool:DIR."),
    ],
    import_: Annotated[bool, typer.Option("--import", help="Also import it over there.")] = False,
    target: Annotated[str, typer.Option("--to", help="With --import: where to, as for `import --to`.")] = "",
    retag: Annotated[list[str] | None, typer.Option("--retag", help="With --import: OLD=NEW.")] = None,
    site: Annotated[str, typer.Option("--site", help="Note that this site has it shipped.")] = "",
    ssh: SshOption = "",
    identity: IdentityOption = None,
    host_key: HostKeyOption = "",
    accept_new: AcceptNewOption = False,
    ssh_config: SshConfigOption = None,
    remote: RemoteOption = "transfer",
    limit_rate: Annotated[str, typer.Option("--limit-rate", help="Bytes a second, e.g. 500K, 2M.")] = "",
    parity: Annotated[
        str, typer.Option("--parity", help="Media, spool: recovery files, so that e.g. 30% of all files may be lost.")
    ] = "",
    eject: Annotated[bool, typer.Option("--eject", help="Unmount media when all is written and read back.")] = False,
    folder: Annotated[
        bool, typer.Option("--folder", help="Media: what is named are folders; nothing need be mounted there.")
    ] = False,
    anew: Annotated[
        bool, typer.Option("--anew", help="Forget which media were filled before: begin a new set.")
    ] = False,
    store: StoreOption = None,
    no_store: NoStore = False,
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Files at once (default: two).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go where.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Bring a bundle to another host or onto media: run it again after an interruption and it goes on where it stopped."""
    from transfer.cli.ship import ship as run

    reach = SshOptions(ssh, identity, host_key, accept_new, ssh_config, remote, limit_rate)
    after = AfterShipping(import_, target, tuple(retag or ()), site, store, no_store)
    media = MediaOptions(parity, eject, anew, folder)
    run(bundle, to, reach, after, media, Output(json, quiet, jobs, dry_run))
