"""What Prometheus' node_exporter reads from a text file: the state of every sync, and of the store."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from transfer import __version__
from transfer.errors import from_os_error
from transfer.sites.sync_state import SyncState, SyncStates

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


def text(store: Path, known: Mapping[str, SyncState]) -> str:
    """In the text format of Prometheus, without times of samples: `known` are states that are newer than what is on disk."""
    states = SyncStates(store)
    found = {name: known[name] if name in known else states.get_or_empty(name) for name in {*states.names(), *known}}
    lines = [
        "# HELP transfer_info The version of the program that wrote this.",
        "# TYPE transfer_info gauge",
        f'transfer_info{{version="{__version__}"}} 1',
    ]

    def family(name: str, kind: str, about: str, samples: list[tuple[str, float]]) -> None:
        lines.extend([f"# HELP {name} {about}", f"# TYPE {name} {kind}"])
        lines.extend(f"{name}{{{labels}}} {value:.17g}" for labels, value in samples)

    rows = sorted(found.items())
    site = {name: f'site="{name}"' for name, _ in rows}
    family(
        "transfer_sync_state",
        "gauge",
        "Where the sync stands: exactly one state of a site is 1.",
        [(f'{site[n]},state="{each}"', float(state_of(s) == each)) for n, s in rows for each in STATES],
    )
    for key, about in (
        ("attempt", "When a run was last begun."),
        ("contact", "When the site was last reached."),
        ("confirmed", "When the site last confirmed a bundle."),
        ("behind", "Since when the site lacks something that it should have; 0 if it lacks nothing."),
    ):
        name = f"transfer_sync_{'behind_since' if key == 'behind' else f'last_{key}'}_timestamp_seconds"
        family(name, "gauge", about, [(site[n], getattr(s, key)) for n, s in rows])
    family(
        "transfer_sync_last_exit_code",
        "gauge",
        "The exit code of the failure that is going on; 0 if there is none.",
        [(site[n], float(s.failure.exit_code if s.failure else 0)) for n, s in rows],
    )
    family(
        "transfer_sync_failures_consecutive",
        "gauge",
        "Runs that failed one after the other. A site that is not reachable does not count.",
        [(site[n], float(s.failure.count if s.failure else 0)) for n, s in rows],
    )
    family(
        "transfer_sync_serial",
        "gauge",
        "The number of the last bundle that was made for the site, and of the last that it confirmed.",
        [
            sample
            for n, s in rows
            for sample in ((f'{site[n]},side="sent"', s.serial), (f'{site[n]},side="confirmed"', s.confirmed_serial))
        ],
    )
    family(
        "transfer_sync_images", "gauge", "Images that the site should have.", [(site[n], len(s.want)) for n, s in rows]
    )
    family(
        "transfer_sync_bytes_total",
        "counter",
        "Bytes sent to the site, by road.",
        [(f'{site[n]},road="{road}"', count) for n, s in rows for road, count in sorted(s.bytes.items())],
    )
    family(
        "transfer_sync_under_way_bytes",
        "gauge",
        "The size of the bundle that is being sent, and how much of it was.",
        [
            sample
            for n, s in rows
            if s.under_way
            for sample in ((f'{site[n]},of="bundle"', s.under_way.size), (f'{site[n]},of="sent"', s.under_way.sent))
        ],
    )
    family(
        "transfer_sync_full_total",
        "counter",
        "Bundles that built on nothing, by reason.",
        [(f'{site[n]},reason="{why}"', count) for n, s in rows for why, count in sorted(s.fulls.items())],
    )
    free = os.statvfs(store) if store.is_dir() else None
    if free:
        family(
            "transfer_store_free_bytes",
            "gauge",
            "Free space where the store is.",
            [("", free.f_bavail * free.f_frsize)],
        )
    return "\n".join(lines).replace("{} ", " ") + "\n"


def write(path: Path, store: Path, known: Mapping[str, SyncState]) -> None:
    """The whole file at once, readable for everybody: node_exporter has a user of its own."""
    data = text(store, known).encode()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, data)
            os.fchmod(fd, 0o644)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise from_os_error(error, f"writing {path}") from error
