"""The images that compose files, manifests, sets and charts need, for the commands that take -f and --helm."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from transfer.cli.exits import printable
from transfer.engines.transports import REGISTRIES
from transfer.errors import UsageError

if TYPE_CHECKING:
    from transfer.flows.picks import Picks


@dataclass(frozen=True, slots=True)
class Needs:
    """What is looked into: files ("-" is standard input), compose profiles, Helm charts and the values they get. `deep`: see picks."""

    files: Sequence[Path] = ()
    profiles: Sequence[str] = ()
    charts: Sequence[str] = ()
    values: Sequence[Path] = ()
    deep: bool = False


def found(needs: Needs) -> Picks:
    """What the files and charts need. What only looked like an image is told."""
    from transfer.flows.charts import rendered
    from transfer.flows.picks import FILE_MAX, picks

    given, charts = {}, {}
    for chart in needs.charts:
        given[f"the chart {chart}"], charts[f"Chart.yaml of {chart}"] = rendered(chart, needs.values)
    if Path("-") in needs.files:
        given["standard input"] = sys.stdin.buffer.read(FILE_MAX + 1)
    files = [path for path in needs.files if path != Path("-")]
    out = picks(files, needs.profiles, given=given, charts=charts, deep=needs.deep)
    for each in out.passed:
        print(f"not taken: {printable(each)}", file=sys.stderr)
    return out


def needed(source: str, names: tuple[str, ...], needs: Needs) -> tuple[str, tuple[str, ...]]:
    """Where images are from and which, with those that files need: from registries, if nothing else is said. What was not taken is told."""
    if not needs.files and not needs.charts:
        return source, names
    picked = found(needs)
    first = str(needs.files[0]) if needs.files else needs.charts[0]
    if not picked.names and not names:
        raise UsageError(f"{first:.200} needs no image")
    if source:
        return source, (*names, *picked.names)
    mark = f"{REGISTRIES}://"
    plain = [name for name in names if not name.startswith(mark)]
    if plain:
        raise UsageError(
            f"{plain[0]:.100} is not in a registry, and the images of {first:.200} are",
            hint="name the place with --from",
        )
    return "", (*names, *(f"{mark}{name}" for name in picked.names))
