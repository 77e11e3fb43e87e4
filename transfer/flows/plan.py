"""What an export would read and need, without anything written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transfer.bundle.reader import Bundle
from transfer.engines.base import ImageSource, ResolvedImage
from transfer.events import Observer
from transfer.flows.export import Exported, export
from transfer.model import GzipWay


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes in bytes. `to_read` counts shared layers once, and is an upper bound unless `exact`; `needed` is the most the folder can take.

    `kept`: what an unfinished export has packed there. `room`: the nearest folder that exists, with `free` bytes. `weighed`: with a base the
    delta was made and thrown away, and its bytes are exact.
    """

    found: tuple[ResolvedImage, ...]
    to_read: int
    exact: bool
    needed: int
    kept: int
    room: Path
    free: int
    finished: bool
    weighed: Exported | None

    @property
    def is_too_little_room(self) -> bool:
        """Whether the layers will hardly fit: a bundle is rarely less than a quarter of them."""
        return self.exact and self.weighed is None and self.free < (self.to_read - self.kept) // 4


def plan_export(
    source: ImageSource,
    found: Sequence[ResolvedImage],
    folder: Path,
    *,
    level: int,
    jobs: int | None,
    observer: Observer,
    base: Sequence[Bundle] = (),
    gzip: GzipWay = "exact",
) -> Plan:
    """What `export` with the same arguments would read and need."""
    weighed = None
    if base:
        with tempfile.TemporaryDirectory() as place:
            weighed = export(
                source,
                found,
                Path(place) / "plan",
                level=level,
                jobs=jobs,
                observer=observer,
                base=base,
                weigh=True,
                gzip=gzip,
            )
    layers = {digest: size for each in found for digest, size in each.layers}
    exact = bool(sum(layers.values())) or not layers
    total = sum(layers.values()) if exact else sum(each.size for each in found)
    room, free = _room(folder)
    finished = (folder / "index.json").exists()
    kept = 0 if finished else sum(path.stat().st_size for path in folder.glob("blobs/sha256/*"))
    needed = weighed.bytes_folder if weighed else max(0, total - kept)
    return Plan(tuple(found), total, exact, needed, kept, room, free, finished, weighed)


def _room(folder: Path) -> tuple[Path, int]:
    """The nearest folder that exists, and the bytes free there."""
    there = folder
    while not there.exists():
        there = there.absolute().parent
    state = os.statvfs(there)
    return there, state.f_bavail * state.f_frsize
