"""The options of `transfer images`."""

from __future__ import annotations

from transfer.cli.options import (
    From,
    Json,
    NoMirrors,
    NoTlsVerify,
    Patterns,
    PlainHttp,
    epilog,
)
from transfer.engines.base import RegistryOptions

EXAMPLES = epilog(
    "transfer images 'app/*'",
    "transfer images --from docker-archive:saved.tar",
)


def images(
    patterns: Patterns = None,
    source: From = "",
    plain_http: PlainHttp = False,
    no_tls_verify: NoTlsVerify = False,
    no_mirrors: NoMirrors = False,
    json: Json = False,
) -> None:
    """List the images of an engine, a layout or an archive."""
    from transfer.cli.images import images as run

    run(patterns or [], source, json, RegistryOptions(plain_http, not no_tls_verify, mirrors=not no_mirrors))
