"""The options of `transfer images`."""

from __future__ import annotations

from transfer.cli.options import (
    From,
    Json,
    Patterns,
    epilog,
)

EXAMPLES = epilog(
    "transfer images 'app/*'",
    "transfer images --from docker-archive:saved.tar",
)


def images(patterns: Patterns = None, source: From = "", json: Json = False) -> None:
    """List the images of an engine, a layout or an archive."""
    from transfer.cli.images import images as run

    run(patterns or [], source, json)
