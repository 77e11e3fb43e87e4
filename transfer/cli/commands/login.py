"""The options of `transfer login` and `transfer logout`."""

from __future__ import annotations

from typing import Annotated

import typer

from transfer.cli.options import NoTlsVerify, PlainHttp, epilog
from transfer.engines.base import RegistryOptions

EXAMPLES = epilog("transfer login harbor.plant", "echo $TOKEN | transfer login registry.hq -u robot --password-stdin")
Host = Annotated[str, typer.Argument(help="The registry: a host, with a port if needed. Docker Hub is docker.io.")]


def login(
    host: Host,
    user: Annotated[str, typer.Option("--username", "-u", help="The user. Default: it is asked for.")] = "",
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password or token from standard input.")
    ] = False,
    plain_http: PlainHttp = False,
    no_tls_verify: NoTlsVerify = False,
) -> None:
    """Log in to a registry.

    The credentials are checked, then stored where Docker's client has its own, for this user only.
    """
    from transfer.cli.login import login as run

    run(host, user, password_stdin, RegistryOptions(plain_http, not no_tls_verify))


def logout(host: Host) -> None:
    """Delete the stored credentials of a registry."""
    from transfer.cli.login import logout as run

    run(host)
