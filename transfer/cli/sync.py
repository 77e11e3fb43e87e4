"""sync: one run of a site's sync, or several while the site cannot be reached."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transfer.cli.exits import printable
from transfer.cli.progress import Progress
from transfer.cli.render import amount, print_json, several
from transfer.cli.service import LOG_ERR, LOG_INFO, Service, to_journal
from transfer.errors import EngineAway, NotNow, UsageError
from transfer.flows import site as site_flow
from transfer.flows.ledger import lose
from transfer.flows.pull import Pull
from transfer.flows.site_run import Outcome, SyncOptions
from transfer.flows.sync import Sync
from transfer.sites.site_file import SiteFile, load
from transfer.sites.values import duration
from transfer.store.store import Store
from transfer.work import keep_memory

WAITS = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
"""Seconds between attempts with --wait."""


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """What is asked of a run: `wait` as it was typed, `lost` the number of a bundle."""

    now: bool = False
    full: bool = False
    wait: str = ""
    lost: int | None = None
    dry_run: bool = False


def sync(name: str, request: SyncRequest, folder: Path | None, jobs: int | None, *, json: bool, quiet: bool) -> None:
    """Run it, say what came of it, and raise what failed."""
    site = load(name)
    store = site_flow.need_store(site_flow.choose_store(folder, False))
    patience = _patience(request.wait)
    if request.lost is not None and request.dry_run:
        raise UsageError("--lost and --dry-run cannot be used together", hint="leave out --dry-run")
    if request.lost is not None:
        lose(site, store, request.lost, Progress(quiet=quiet))
        if not quiet and not json:
            print(f"bundle {request.lost} counts as lost: its content is sent again by the next run")
        return
    keep_memory()
    observer = Progress(quiet=quiet)
    service = Service()
    try:
        if request.dry_run:
            _say_plan(site, store, observer, json)
            return
        outcome = _until_done(site, store, request, jobs, patience, service.heard(observer), service)
    finally:
        observer.close()
        service.stopping()
    _say(outcome, json=json, quiet=quiet)
    slug = outcome.error.slug if outcome.error else ""
    told = {"TRANSFER_SITE": site.name, "TRANSFER_OUTCOME": outcome.what, "TRANSFER_SLUG": slug}
    priority = LOG_INFO if outcome.exit_code in (0, 14, 75) else LOG_ERR
    to_journal(f"{site.name}: {outcome.message}", priority, {**told, "TRANSFER_SERIAL": str(outcome.serial)})
    if outcome.error:
        raise outcome.error
    if outcome.exit_code:
        raise SystemExit(outcome.exit_code)


def _patience(text: str) -> float:
    try:
        return float(duration(text)) if text else 0.0
    except ValueError:
        raise UsageError(f"--wait {text!r:.40} is not a duration", hint="write 90s, 30min, 2h or 1d") from None


def _until_done(
    site: SiteFile,
    store: Store,
    request: SyncRequest,
    jobs: int | None,
    patience: float,
    observer: Any,
    service: Service,
) -> Outcome:
    """One run; while the site cannot be reached, further ones until the patience (seconds) ends."""
    until = time.monotonic() + patience
    service.ready(f"{site.name}: begun")
    for attempt in range(1 << 30):
        kind = Pull if site.pulls else Sync
        outcome = kind(site, store, observer, SyncOptions(request.now, request.full, jobs)).run()
        pause = WAITS[min(attempt, len(WAITS) - 1)]
        if outcome.exit_code != 75 or time.monotonic() + pause > until:
            return outcome
        service.status(f"{site.name}: {outcome.message}")
        time.sleep(pause)
    raise AssertionError


def _say_plan(site: SiteFile, store: Store, observer: Progress, json: bool) -> None:
    if site.pulls:
        raise UsageError("--dry-run is for sites that are sent to", hint=f"run: transfer sync {site.name}")
    try:
        step, wanted, facts = Sync(site, store, observer).foresee()
    except EngineAway as error:
        raise NotNow(error.message, hint=error.hint) from error
    lacking = sorted(name for name, digest in wanted.names.items() if digest not in facts.have.get(name, frozenset()))
    if json:
        print_json(
            {
                "site": site.name,
                "step": step.value,
                "want": dict(wanted.names),
                "lacking": lacking,
                "missing": [each.label for each in wanted.missing],
                "window_open": facts.open,
            }
        )
        return
    print(
        f"{site.name}: {several(len(wanted.names), 'image')} wanted, {len(lacking)} not there yet; next: {step.value}"
    )
    for name in lacking:
        print(f"  {printable(name)}")


def _say(outcome: Outcome, *, json: bool, quiet: bool) -> None:
    if json:
        print_json(
            {
                "site": outcome.site,
                "outcome": outcome.what,
                "message": outcome.message,
                "serial": outcome.serial,
                "bytes": outcome.size,
                "exit_code": outcome.exit_code,
            }
        )
    elif not quiet and not outcome.error:
        size = f", {amount(outcome.size)}" if outcome.size else ""
        print(f"{outcome.site}: {printable(outcome.message)}{size}")
