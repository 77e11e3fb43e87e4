"""What the next step of a sync is, from what is known: no file is read here and nothing is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from transfer.flows.want import satisfied
from transfer.sites.sync_state import FLIGHTS_MAX, Flight, SyncState


class Step(StrEnum):
    """UP_TO_DATE and AWAIT (a receipt) end a run, SHUT (the window) does so until it opens; the others are followed by the next step."""

    UP_TO_DATE = "up to date"
    AWAIT = "await a receipt"
    SHUT = "wait for the window"
    DROP = "drop what is not wanted any more"
    BEGIN = "begin a bundle"
    EXPORT = "export"
    SHIP = "ship"
    LAND = "import there, and take the receipt"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a run has found. `have`: what each name means at the site; `answers`: roads of which the other side can be asked; `open`: the window.

    `asked`: bundles that this run has asked after.
    """

    want: Mapping[str, str]
    have: Mapping[str, frozenset[str]]
    open: bool = True
    answers: frozenset[str] = frozenset()
    asked: frozenset[int] = frozenset()


def plan(state: SyncState, facts: Facts) -> Step:
    """The next step. A bundle of which a byte was shipped is finished before another is begun: else a site behind a thin line gets none."""
    made = state.under_way
    if made is not None:
        obsolete = dict(made.want) != dict(facts.want)
        if made.stage == "exported" and obsolete:
            return Step.DROP
        if made.stage == "exporting":
            return Step.DROP if obsolete and satisfied(facts.want, facts.have) else Step.EXPORT
        return Step.SHIP if facts.open else Step.SHUT
    if facts.open and any(
        flight.road in facts.answers and flight.serial not in facts.asked for flight in state.flights
    ):
        return Step.LAND
    if satisfied(facts.want, facts.have):
        return Step.UP_TO_DATE
    if satisfied(facts.want, with_flights(facts.have, state.flights)) or len(state.flights) >= FLIGHTS_MAX:
        return Step.AWAIT
    return Step.BEGIN


def with_flights(have: Mapping[str, frozenset[str]], flights: tuple[Flight, ...]) -> dict[str, frozenset[str]]:
    """What a site will have when all that is on its way has come, the later bundle last."""
    out = dict(have)
    for flight in sorted(flights, key=lambda each: each.serial):
        out |= {name: frozenset({digest}) for name, digest in flight.want.items()}
    return out
