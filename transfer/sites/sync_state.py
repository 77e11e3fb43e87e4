"""Where the sync of a site stands: the bundle that is being made or sent, those on their way, and the last runs. For speed and for people.

Nothing in it is needed for correctness: what a site holds is in its receipts, what a bundle holds in the bundle.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from transfer.errors import FormatError, TransferError
from transfer.folders import own_folder
from transfer.model import Digest
from transfer.sites.receipt import site_name
from transfer.streams import parse_object, publish, read_small

FILE_MAX = 16 << 20
HISTORY_MAX = 50
FLIGHTS_MAX = 100
Stage = Literal["exporting", "exported", "shipping", "shipped"]
STAGES: tuple[Stage, ...] = ("exporting", "exported", "shipping", "shipped")


@dataclass(frozen=True, slots=True)
class Flight:
    """One bundle on its way. `want`: names and root digests that it brings; `base`: the bundles it builds on; `road`, `to`: the one that took it.

    `sent`: bytes on the road so far; `since`: when it was begun, `shipped`: when it was all sent (seconds since 1970; 0: not yet).
    `imported`: the other side said that it imported it. `here`: its folder is still in the store.
    """

    serial: int
    folder: str
    stage: Stage = "exporting"
    digest: str = ""
    want: Mapping[str, str] = field(default_factory=dict)
    base: tuple[str, ...] = ()
    full_because: str = ""
    road: str = ""
    to: str = ""
    since: float = 0
    shipped: float = 0
    size: int = 0
    sent: int = 0
    imported: bool = False
    here: bool = True


@dataclass(frozen=True, slots=True)
class Failure:
    """What is wrong now. `told`: when hooks heard of it last."""

    slug: str
    message: str
    hint: str
    exit_code: int
    since: float
    count: int
    told: float = 0


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one run that did something, or failed."""

    at: float
    exit_code: int
    slug: str = ""
    serial: int = 0
    size: int = 0
    road: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class SyncState:
    """`want`: what the site should have, as looked up last. `waiting`: why nothing could be done, in words ("" if all is well).

    `attempt`, `contact`, `confirmed`: when a run was last begun, the site last reached, a receipt last accepted. `serial`: the last that was used.
    `fulls` and `bytes`: counters by reason and by road. `there`: names that the site has and what they mean there; `there_serial`: which bundle
    brought each. `receipt`, `acked`: the receipt accepted last, and the one that the site may act on. `behind`: since when it lacks something (0: it
    does not). `missing`: names that were wanted and are not in their engine.
    """

    site: str
    serial: int = 0
    want: Mapping[str, str] = field(default_factory=dict)
    under_way: Flight | None = None
    flights: tuple[Flight, ...] = ()
    waiting: str = ""
    attempt: float = 0
    contact: float = 0
    confirmed: float = 0
    confirmed_serial: int = 0
    up_to_date: bool = False
    full_at: float = 0
    failure: Failure | None = None
    stale_told: float = 0
    fulls: Mapping[str, int] = field(default_factory=dict)
    bytes: Mapping[str, int] = field(default_factory=dict)
    history: tuple[Run, ...] = ()
    there: Mapping[str, str] = field(default_factory=dict)
    there_serial: Mapping[str, int] = field(default_factory=dict)
    receipt: int = -1
    acked: int = -1
    behind: float = 0
    missing: tuple[str, ...] = ()
    medium_told: float = 0

    @property
    def unconfirmed(self) -> tuple[Flight, ...]:
        """The bundles on their way, and the one that is being made or sent."""
        return (*self.flights, self.under_way) if self.under_way else self.flights

    def ran(self, run: Run) -> SyncState:
        return replace(self, history=(*self.history, run)[-HISTORY_MAX:])


class SyncStates:
    """One file a site, in the store of whoever runs the sync."""

    def __init__(self, store: Path) -> None:
        self._store, self.folder = store, store / "sync"

    def names(self) -> list[str]:
        with contextlib.suppress(OSError):
            return sorted(path.stem for path in self.folder.glob("*.json"))
        return []

    def lock_path(self, name: str) -> Path:
        return self.folder / f"{site_name(name)}.lock"

    def get(self, name: str) -> SyncState:
        """The state, or that of a site that was never synced. FormatError for a file that cannot be read."""
        path = self.folder / f"{site_name(name)}.json"
        if not path.exists():
            return SyncState(name)
        value = parse_object(read_small(path, FILE_MAX), str(path), FILE_MAX)
        if value.get("format") != "transfer.sync" or value.get("version") != 1 or value.get("site") != name:
            raise FormatError(f"{path}: not the state of a sync", hint="remove the file; it is made again")
        try:
            return _state(value)
        except (TypeError, ValueError, KeyError) as error:
            raise FormatError(f"{path}: malformed", hint="remove the file; it is made again") from error

    def get_or_new(self, name: str) -> tuple[SyncState, str]:
        """The state; where it cannot be read, a new one, and why: the file is set aside."""
        try:
            return self.get(name), ""
        except TransferError as error:
            path = self.folder / f"{site_name(name)}.json"
            with contextlib.suppress(OSError):
                os.replace(path, path.with_suffix(".broken"))
            return SyncState(name), error.message

    def get_or_empty(self, name: str) -> SyncState:
        """For whoever only looks: the state, an empty one where it cannot be read."""
        try:
            return self.get(name)
        except TransferError:
            return SyncState(name)

    def put(self, state: SyncState) -> None:
        own_folder(self._store, "sync", private=True)
        value = {"format": "transfer.sync", "version": 1, **asdict(state)}
        publish(self.folder / f"{site_name(state.site)}.json", json.dumps(value, indent=1).encode() + b"\n")


def _state(value: Mapping[str, Any]) -> SyncState:
    """TypeError, ValueError or KeyError for what is none."""
    under_way, failure = value["under_way"], value["failure"]
    return SyncState(
        _is(str, value["site"]),
        _is(int, value["serial"]),
        _texts(value["want"]),
        _flight(under_way) if under_way else None,
        tuple(_flight(each) for each in _is(list, value["flights"])[:FLIGHTS_MAX]),
        _is(str, value["waiting"]),
        _when(value["attempt"]),
        _when(value["contact"]),
        _when(value["confirmed"]),
        _is(int, value["confirmed_serial"]),
        _is(bool, value["up_to_date"]),
        _when(value["full_at"]),
        _failure(failure) if failure else None,
        _when(value["stale_told"]),
        _counts(value["fulls"]),
        _counts(value["bytes"]),
        tuple(_run(each) for each in _is(list, value["history"])[-HISTORY_MAX:]),
        _texts(value["there"]),
        _counts(value["there_serial"]),
        _is(int, value["receipt"]),
        _is(int, value["acked"]),
        _when(value["behind"]),
        tuple(_is(str, each) for each in _is(list, value["missing"])),
        _when(value["medium_told"]),
    )


def _flight(value: Mapping[str, Any]) -> Flight:
    stage = value["stage"]
    if stage not in STAGES:
        raise ValueError(stage)
    folder = _is(str, value["folder"])
    if "/" in folder or folder.startswith(".") or not folder.isprintable():
        raise ValueError(folder)
    digest = _is(str, value["digest"])
    return Flight(
        _is(int, value["serial"]),
        folder,
        stage,
        str(Digest.parse(digest)) if digest else "",
        _texts(value["want"]),
        tuple(str(Digest.parse(each)) for each in _is(list, value["base"])),
        _is(str, value["full_because"]),
        _is(str, value["road"]),
        _is(str, value["to"]),
        _when(value["since"]),
        _when(value["shipped"]),
        _is(int, value["size"]),
        _is(int, value["sent"]),
        _is(bool, value["imported"]),
        _is(bool, value["here"]),
    )


def _failure(value: Mapping[str, Any]) -> Failure:
    return Failure(
        _is(str, value["slug"]),
        _is(str, value["message"]),
        _is(str, value["hint"]),
        _is(int, value["exit_code"]),
        _when(value["since"]),
        _is(int, value["count"]),
        _when(value["told"]),
    )


def _run(value: Mapping[str, Any]) -> Run:
    return Run(
        _when(value["at"]),
        _is(int, value["exit_code"]),
        _is(str, value["slug"]),
        _is(int, value["serial"]),
        _is(int, value["size"]),
        _is(str, value["road"]),
        _is(str, value["message"]),
    )


def _is(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(value)
    return value


def _when(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < 1 << 40:
        raise ValueError(value)
    return float(value)


def _texts(value: Any) -> dict[str, str]:
    return {_is(str, key): _is(str, each) for key, each in _is(dict, value).items()}


def _counts(value: Any) -> dict[str, int]:
    return {_is(str, key): _is(int, each) for key, each in _is(dict, value).items()}
