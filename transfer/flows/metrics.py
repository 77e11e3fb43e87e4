"""What Prometheus' node_exporter reads from a text file: the state of every sync, and of the store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from transfer import __version__
from transfer.sites.sync_state import SyncState, SyncStates
from transfer.streams import publish

STATES = ("up-to-date", "behind", "shipping", "on-its-way", "failing")


def state_of(state: SyncState) -> str:
    """The one word for where a sync stands."""
    if state.failure:
        return "failing"
    if state.under_way and state.under_way.stage == "shipping":
        return "shipping"
    if state.up_to_date:
        return "up-to-date"
    return "on-its-way" if state.flights and not state.under_way else "behind"


Samples = Iterable[tuple[str, float]]
"""Labels beside the site's, and a value."""


@dataclass(frozen=True, slots=True)
class _Family:
    """One metric: its name behind `transfer_sync_`, what it says, and its samples for one site."""

    name: str
    about: str
    of: Callable[[SyncState], Samples]
    kind: str = "gauge"


def _when(name: str, about: str, of: Callable[[SyncState], float]) -> _Family:
    return _Family(f"{name}_timestamp_seconds", about, lambda state: [("", of(state))])


FAMILIES = (
    _Family(
        "state",
        "Where the sync stands: exactly one state of a site is 1.",
        lambda s: [(f'state="{each}"', float(state_of(s) == each)) for each in STATES],
    ),
    _when("last_attempt", "When a run was last begun.", lambda s: s.attempt),
    _when("last_contact", "When the site was last reached.", lambda s: s.contact),
    _when("last_confirmed", "When the site last confirmed a bundle.", lambda s: s.confirmed),
    _when(
        "waiting_since",
        "Since when the site lacks something and has confirmed nothing; 0 if it lacks nothing.",
        lambda s: max(s.behind, s.confirmed) if s.behind else 0,
    ),
    _Family(
        "last_exit_code",
        "The exit code of the failure that is going on; 0 if there is none.",
        lambda s: [("", float(s.failure.exit_code if s.failure else 0))],
    ),
    _Family(
        "failures_consecutive",
        "Runs that failed one after the other. A site that cannot be reached does not count.",
        lambda s: [("", float(s.failure.count if s.failure else 0))],
    ),
    _Family(
        "serial",
        "The number of the last bundle that was made for the site, and of the last that it confirmed.",
        lambda s: [('side="sent"', s.serial), ('side="confirmed"', s.confirmed_serial)],
    ),
    _Family("images", "Images that the site should have.", lambda s: [("", len(s.want))]),
    _Family(
        "bytes_total",
        "Bytes sent to the site, by road.",
        lambda s: [(f'road="{road}"', count) for road, count in sorted(s.bytes.items())],
        "counter",
    ),
    _Family(
        "under_way_bytes",
        "The size of the bundle that is being sent, and how much of it was.",
        lambda s: [('of="bundle"', s.under_way.size), ('of="sent"', s.under_way.sent)] if s.under_way else [],
    ),
    _Family(
        "full_total",
        "Bundles that depend on no other bundle, by reason.",
        lambda s: [(f'reason="{why}"', count) for why, count in sorted(s.fulls.items())],
        "counter",
    ),
)


def text(store: Path, known: Mapping[str, SyncState]) -> str:
    """In the text format of Prometheus, without times of samples: `known` are states that are newer than what is on disk."""
    states = SyncStates(store)
    found = {name: known[name] if name in known else states.get_or_empty(name) for name in {*states.names(), *known}}
    lines = [*_head("transfer_info", "gauge", "The version of the program that wrote this.")]
    lines.append(f'transfer_info{{version="{__version__}"}} 1')
    for family in FAMILIES:
        name = f"transfer_sync_{family.name}"
        lines += _head(name, family.kind, family.about)
        for site, state in sorted(found.items()):
            for labels, value in family.of(state):
                lines.append(f'{name}{{site="{site}"{"," if labels else ""}{labels}}} {value:.17g}')
    if store.is_dir():
        free = os.statvfs(store)
        lines += _head("transfer_store_free_bytes", "gauge", "Free space where the store is.")
        lines.append(f"transfer_store_free_bytes {free.f_bavail * free.f_frsize}")
    return "\n".join(lines) + "\n"


def _head(name: str, kind: str, about: str) -> list[str]:
    return [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]


def write(path: Path, store: Path, known: Mapping[str, SyncState]) -> None:
    """The whole file at once, readable for everybody: node_exporter has a user of its own."""
    publish(path, text(store, known).encode(), 0o644, exact=True)
