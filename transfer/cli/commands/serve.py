"""The options of `transfer serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transfer.cli import completing
from transfer.cli.options import Quiet, Seeds, ServeOptions, StoreOption, epilog

EXAMPLES = epilog(
    "transfer serve night.bundle",
    "transfer serve --from-store --listen 0.0.0.0:5000 --self-signed",
    "transfer serve jan.bundle feb.bundle --listen 10.0.0.5:443 --tls-cert cert.pem --tls-key key.pem --htpasswd users",
)


def serve(
    bundles: Annotated[
        list[Path] | None, typer.Argument(help="Bundle folders to serve.", autocompletion=completing.bundles)
    ] = None,
    from_store: Annotated[bool, typer.Option("--from-store", help="Serve the images of this site's store.")] = False,
    listen: Annotated[str, typer.Option("--listen", help="Address and port; port 0 is a free one.")] = "127.0.0.1:5000",
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help="The certificate, as PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Its private key, as PEM.")] = None,
    self_signed: Annotated[
        bool, typer.Option("--self-signed", help="Make a certificate for this run; clients need its CA file (printed).")
    ] = False,
    plain_http: Annotated[
        bool, typer.Option("--plain-http", help="Serve without TLS to other hosts: everybody on the way can read.")
    ] = False,
    client_ca: Annotated[
        Path | None, typer.Option("--client-ca", help="Let in only clients with a certificate of this CA.")
    ] = None,
    htpasswd: Annotated[
        Path | None, typer.Option("--htpasswd", help="Let in only these users (made by `htpasswd -B`). Needs TLS.")
    ] = None,
    cache: Annotated[
        str, typer.Option("--cache", help="DIR:SIZE: keep rebuilt layers there, for example /var/cache/transfer:20G.")
    ] = "",
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Serve only images with these names or patterns.")
    ] = None,
    activated: Annotated[
        bool, typer.Option("--activated", help="Use the socket that systemd gives (transfer-serve.socket).")
    ] = False,
    idle: Annotated[
        str, typer.Option("--idle", help="End when nobody asked for so long, for example 15min. Default: never.")
    ] = "",
    seed: Seeds = None,
    store: StoreOption = None,
    quiet: Quiet = False,
) -> None:
    """Serve images as a read-only registry.

    The images are those of bundles, or of the store.
    Engines pull images by their original names. `transfer mirrors` prints the configuration for each engine.
    """
    from transfer.cli.serve import serve as run

    options = ServeOptions(
        listen,
        tls_cert,
        tls_key,
        self_signed,
        plain_http,
        client_ca,
        htpasswd,
        cache,
        tuple(only or ()),
        activated,
        idle,
    )
    run(bundles or [], from_store, options, tuple(seed or ()), store, quiet)
