"""The options of `transfer images`."""

from __future__ import annotations

from transfer.cli.options import (
    From,
    Json,
    Patterns,
)


def images(patterns: Patterns = None, source: From = "", json: Json = False) -> None:
    """List what this host's engine (or a layout or archive) holds."""
    from transfer.cli.images import images as run

    run(patterns or [], source, json)
