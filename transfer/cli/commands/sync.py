"""The options of `transfer sync`, `status`, `log` and `notify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transfer.cli import completing
from transfer.cli.options import Jobs, Json, Quiet, StoreOption, epilog

SYNC_EXAMPLES = epilog(
    "transfer sync plant-7",
    "transfer sync plant-7 --dry-run",
    "transfer sync plant-7 --now --wait 2h",
)
STATUS_EXAMPLES = epilog("transfer status", "transfer status plant-7 --json", "transfer status --check")
LOG_EXAMPLES = epilog("transfer log --since 7d")
SiteName = Annotated[
    str, typer.Argument(help="The site: the name of its file in /etc/transfer/sites.", autocompletion=completing.sites)
]


def sync(
    site: SiteName,
    now: Annotated[bool, typer.Option("--now", help="Do not wait until the site's window opens.")] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Make the next bundle a full one, which depends on no other bundle.")
    ] = False,
    wait: Annotated[
        str,
        typer.Option("--wait", help="Try again for so long (such as 30min, 2h) if the site cannot be reached now."),
    ] = "",
    lost: Annotated[
        int | None,
        typer.Option(
            "--lost", min=1, help="The bundle with this number is lost: send its content again.", metavar="NUMBER"
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what the next step would be.")] = False,
    store: StoreOption = None,
    jobs: Jobs = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Bring a site up to date, as its site file says.

    Run it as often as you like (a timer does): each run looks at what is, does what is lacking, and goes on where the last
    one ended. If the site cannot be reached now, the exit code is 75, and no alarm is raised.
    """
    from transfer.cli.sync import SyncRequest
    from transfer.cli.sync import sync as run

    run(site, SyncRequest(now, full, wait, lost, dry_run), store, jobs, json=json, quiet=quiet)


def status(
    site: Annotated[str, typer.Argument(help="One site. Default: all.", autocompletion=completing.sites)] = "",
    check: Annotated[
        bool, typer.Option("--check", help="One line for a monitoring system; exit code 3 if a site fails or is stale.")
    ] = False,
    metrics: Annotated[
        Path | None, typer.Option("--metrics", help="Write metrics for Prometheus' node_exporter into this file.")
    ] = None,
    store: StoreOption = None,
    json: Json = False,
) -> None:
    """Show the state of every site.

    Up to date, shipping, waiting for a medium, or failing: why, since when, and what to do now.
    """
    from transfer.cli.status import status as run

    run(site, check, metrics, store, json)


def log(
    since: Annotated[str, typer.Option("--since", help="How far back: 12h, 7d, 4w.")] = "30d",
    site: Annotated[str, typer.Option("--site", help="Only this site.", autocompletion=completing.sites)] = "",
    store: StoreOption = None,
    json: Json = False,
) -> None:
    """Show what was sent, received and refused.

    Exports, shipments, confirmations, imports and refusals are kept in the store.
    """
    from transfer.cli.status import log as run

    run(since, site, store, json)


def notify(
    unit: Annotated[str, typer.Option("--unit", help="The systemd unit that failed.")],
) -> None:
    """Tell the hooks that a unit failed. Started by transfer-failed@.service."""
    from transfer.cli.status import notify as run

    run(unit)
