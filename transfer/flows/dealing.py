"""Which file goes on which medium: the recovery groups apart, so that a lost medium can be made up for, and full media last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from transfer.bundle import recovery as rec
from transfer.bundle.medium import MediaSet, Medium
from transfer.flows.ship import File
from transfer.model import blob_path


@dataclass(frozen=True, slots=True)
class Carrier:
    """One medium of this run: what of the set lies on it, and what is to be written."""

    folder: Path
    medium: Medium
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


@dataclass
class Space:
    """Free bytes of a filesystem, which several folders may share."""

    free: int
    unit: int

    def cost(self, count: int) -> int:
        return -(-count // self.unit) * self.unit


@dataclass
class Room:
    """A medium while files are dealt out. `begun`: bytes that are there of unfinished files."""

    folder: Path
    medium: Medium
    space: Space
    there: set[str]
    begun: dict[str, int]

    def cost(self, file: File) -> int:
        return self.space.cost(file.size - min(file.size, self.begun.get(file.name, 0)))


def groups(made: rec.Recovery | None) -> dict[str, int]:
    """To which group a pack or recovery file belongs, by its path."""
    out: dict[str, int] = {}
    for number, group in enumerate(made.groups if made else ()):
        out |= {blob_path(part.digest): number for part in group.data}
        out |= {part.path: number for part in group.recovery}
    return out


def spread(
    rooms: Sequence[Room], packs: Sequence[File], known: MediaSet, group_of: dict[str, int], made: rec.Recovery | None
) -> tuple[list[Carrier], list[File], list[Path]]:
    """Deal out the files that lie on no other medium. With recovery files no medium gets more of a group than may be lost, if that can be."""
    here = {each.medium.id for each in rooms}
    elsewhere = {name for each in known.media if each.id not in here for name in each.files}
    caps = [len(group.recovery) for group in made.groups] if made else []
    free = {id(each.space): each.space.free for each in rooms}
    dealt, left = deal(rooms, packs, elsewhere, group_of, caps, dict(free))
    if left and made:
        wide, none = deal(rooms, packs, elsewhere, group_of, [], dict(free))
        if not none:
            dealt, left = wide, none
    carriers, risky = [], []
    for each, files in zip(rooms, dealt, strict=True):
        names = tuple(file.name for file in files)
        carriers.append(Carrier(each.folder, replace(each.medium, files=names), tuple(files)))
        counts = Counter(group_of[name] for name in names if name in group_of)
        if any(count > len(made.groups[group].recovery) for group, count in counts.items() if made):
            risky.append(each.folder)
    return carriers, left, risky


def deal(
    rooms: Sequence[Room],
    packs: Sequence[File],
    elsewhere: set[str],
    group_of: dict[str, int],
    caps: Sequence[int],
    free: dict[int, int],
) -> tuple[list[list[File]], list[File]]:
    """Files by medium, and those for which there is no room. Without groups the first medium is filled first."""
    dealt: list[list[File]] = [[] for _ in rooms]
    counts: list[Counter[int]] = [Counter() for _ in rooms]
    left = []

    def give(at: int, file: File) -> None:
        dealt[at].append(file)
        counts[at][group_of.get(file.name, -1)] += 1

    waiting = []
    for file in packs:
        at = next((n for n, each in enumerate(rooms) if file.name in each.there), None)
        if at is not None:
            give(at, file)
        elif file.name not in elsewhere:
            waiting.append(file)
    for file in waiting:
        group = group_of.get(file.name, -1)
        fitting = [n for n, each in enumerate(rooms) if each.cost(file) <= free[id(each.space)]]
        if caps and group >= 0:
            fitting = [n for n in fitting if counts[n][group] < caps[group]]
        if not fitting:
            left.append(file)
            continue
        at = min(fitting, key=lambda n: (counts[n][group], n)) if group_of else fitting[0]
        free[id(rooms[at].space)] -= rooms[at].cost(file)
        give(at, file)
    return dealt, left
