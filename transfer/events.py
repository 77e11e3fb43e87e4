"""What the core says while it works. A value handed to an observer; drawing is the command line's business."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Planned:
    """A stage begins: how many bytes it will go through (0: unknown)."""

    stage: str
    total: int


@dataclass(frozen=True, slots=True)
class Advanced:
    """So many more bytes are through."""

    stage: str
    count: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something needed no work, and why."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Rewound:
    """Work kept from an earlier run was found wrong and is done again."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Noted:
    """A line for people: a choice made, a fact worth knowing."""

    text: str


@dataclass(frozen=True, slots=True)
class Done:
    """A stage is over."""

    stage: str


Event: TypeAlias = Planned | Advanced | Skipped | Rewound | Noted | Done
Observer: TypeAlias = Callable[[Event], None]


def silent(event: Event) -> None:
    """The observer that listens to nothing."""
