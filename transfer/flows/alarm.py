"""When people are told: once when something is wrong, again after a while, and once when it is well. Never for a site that is merely offline."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from transfer.errors import TransferError
from transfer.events import Noted, Observer
from transfer.flows import hooks, metrics
from transfer.flows.roads import is_not_now
from transfer.sites.site_file import SiteFile
from transfer.sites.sync_state import Failure, Run, SyncState


class Alarms:
    """Of one site."""

    def __init__(self, site: SiteFile, store: Path, observer: Observer, clock: Callable[[], float] = time.time) -> None:
        self._site, self._store, self._observer, self._clock = site, store, observer, clock
        self._wanted = False

    def event(self, event: str, **told: object) -> None:
        """Tell the hooks. That a medium is wanted is told when that begins, not at every run."""
        if event == "medium-wanted":
            self._wanted = True
            return
        hooks.tell(event, {"site": self._site.name, **told}, self._observer)

    def ended(self, state: SyncState, error: TransferError | None, exit_code: int, what: str) -> SyncState:
        """The state after a run; whoever is to hear of it has heard."""
        now = self._clock()
        if error is not None and not is_not_now(error):
            state = self._failing(state, error, now)
        elif state.failure and what in ("up-to-date", "shipped", "medium-wanted"):
            hooks.tell("recovered", {"site": self._site.name, "slug": state.failure.slug}, self._observer)
            state = replace(state, failure=None)
        state = self._stale(state, now)
        if self._wanted and state.medium_told == 0:
            hooks.tell("medium-wanted", {"site": self._site.name, "serial": state.serial}, self._observer)
            state = replace(state, medium_told=now)
        elif not self._wanted:
            state = replace(state, medium_told=0)
        last = state.history[-1] if state.history else None
        slug = error.slug if error else ""
        if what != "up-to-date" and not (
            last and (last.exit_code, last.slug, last.serial) == (exit_code, slug, state.serial)
        ):
            road = state.flights[-1].road if state.flights else ""
            state = state.ran(Run(now, exit_code, slug, state.serial, 0, road, error.message if error else what))
        if self._site.textfile:
            try:
                metrics.write(Path(self._site.textfile), self._store, {state.site: state})
            except TransferError as failed:
                self._observer(Noted(f"the metrics could not be written: {failed.message}"))
        return state

    def _failing(self, state: SyncState, error: TransferError, now: float) -> SyncState:
        before = state.failure if state.failure and state.failure.slug == error.slug else None
        hint = error.hint or error.advice
        since, count = (before.since, before.count + 1) if before else (now, 1)
        failure = Failure(error.slug, error.message, hint, error.exit_code, since, count, before.told if before else 0)
        if not failure.told or now - failure.told >= self._site.alarm.repeat:
            told = {"slug": error.slug, "message": error.message, "hint": hint, "exit_code": error.exit_code}
            hooks.tell(
                "failed", {"site": self._site.name, "serial": state.serial, **told, "since": since}, self._observer
            )
            failure = replace(failure, told=now)
        return replace(state, failure=failure)

    def _stale(self, state: SyncState, now: float) -> SyncState:
        if not is_stale(state, self._site, now):
            return replace(state, stale_told=0) if state.stale_told else state
        if not state.stale_told or now - state.stale_told >= self._site.alarm.repeat:
            told = {"since": max(state.behind, state.confirmed), "waiting": state.waiting, "serial": state.serial}
            hooks.tell("stale", {"site": self._site.name, **told}, self._observer)
            return replace(state, stale_told=now)
        return state


def is_stale(state: SyncState, site: SiteFile, now: float) -> bool:
    """Whether a site lacks something, and has confirmed nothing, for too long."""
    return bool(state.behind) and now - max(state.behind, state.confirmed) >= site.alarm.stale
