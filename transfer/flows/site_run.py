"""What every run for a site has: it is alone, it is noted, and whatever goes wrong in it is told to whoever watches the site."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from transfer.errors import NotNow, TransferError, one_failure
from transfer.events import Observer
from transfer.flows import roads
from transfer.flows.ledger import Ledger
from transfer.ship.gate import Gate
from transfer.sites.site_file import Road, SiteFile
from transfer.sites.sync_state import SyncState
from transfer.store.store import Store


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `exit_code`: 0, 14 (a further medium is wanted), or that of `error`."""

    site: str
    what: str
    message: str
    exit_code: int = 0
    error: TransferError | None = None
    serial: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """`now`: the window's times do not count. `full`: the next bundle builds on nothing."""

    now: bool = False
    full: bool = False
    jobs: int | None = None


class MediumWanted(TransferError):
    """Part of a bundle is on media; the rest needs further ones."""

    slug, exit_code = "medium-wanted", 14
    advice = "insert the next medium"


class SiteRun(ABC):
    """One run. `after`: called when a step is done and noted, for tests that end a run there."""

    def __init__(
        self,
        site: SiteFile,
        store: Store,
        observer: Observer,
        options: SyncOptions = SyncOptions(),
        *,
        clock: Callable[[], float] = time.time,
        after: Callable[[str], None] = lambda step: None,
    ) -> None:
        self._site, self._store, self._observer, self._options = site, store, observer, options
        self._clock, self._after = clock, after
        self._ledger = Ledger(site, store, observer, clock)

    @property
    def state(self) -> SyncState:
        return self._ledger.state

    def run(self) -> Outcome:
        """All steps that can be done now. Failures come in the outcome."""
        with self._ledger.alone() as alone:
            if not alone:
                return Outcome(self._site.name, "busy", "another run for this site is under way")
            self._ledger.open()
            self._ledger.put(attempt=self._clock())
            try:
                roads.sound(self._site)
                outcome = self._steps()
            except Exception as unknown:  # noqa: BLE001 - whatever it is, it is told to whoever watches this site
                outcome = self._failed(one_failure(unknown, self._site.name))
            self._ledger.write(self._ledger.alarms.ended(self.state, outcome.error, outcome.exit_code, outcome.what))
            return outcome

    @abstractmethod
    def _steps(self) -> Outcome:
        """Whatever can be done now, and how it ended; a failure is raised."""

    def _failed(self, error: TransferError) -> Outcome:
        if isinstance(error, MediumWanted):
            self._ledger.put(waiting=error.message)
            return Outcome(self._site.name, "medium-wanted", error.message, 14, None, self.state.serial)
        if roads.is_not_now(error):
            self._ledger.put(waiting=error.message, up_to_date=False)
            later = error if isinstance(error, NotNow) else NotNow(error.message)
            return Outcome(self._site.name, "not-now", error.message, 75, later, self.state.serial)
        self._ledger.put(waiting="", up_to_date=False)
        self._ledger.note("failed", slug=error.slug, message=error.message)
        return Outcome(self._site.name, "failed", error.message, error.exit_code, error, self.state.serial)

    def _open(self) -> bool:
        return self._options.now or self._site.window.at(self._clock()).open

    def _gate(self, road: Road) -> Gate:
        return Gate(self._site.window, road.limit, ignore=self._options.now, clock=self._clock)
