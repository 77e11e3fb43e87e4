"""The images that compose files, manifests and sets need, for the commands that take -f."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from transfer.cli.exits import printable
from transfer.engines.transports import REGISTRIES
from transfer.errors import UsageError


def needed(
    source: str, names: tuple[str, ...], files: Sequence[Path] | None, profiles: Sequence[str] | None
) -> tuple[str, tuple[str, ...]]:
    """Where images are from and which, with those that files need: from registries, if nothing else is said. What was not taken is told."""
    if not files:
        return source, names
    from transfer.flows.picks import picks

    found = picks(files, profiles or ())
    for each in found.passed:
        print(f"not taken: {printable(each)}", file=sys.stderr)
    if not found.names and not names:
        raise UsageError(f"{files[0]} needs no image")
    if source:
        return source, (*names, *found.names)
    mark = f"{REGISTRIES}://"
    plain = [name for name in names if not name.startswith(mark)]
    if plain:
        raise UsageError(
            f"{plain[0]:.100} is not in a registry, and the images of {files[0]} are", hint="name the place with --from"
        )
    return "", (*names, *(f"{mark}{name}" for name in found.names))
