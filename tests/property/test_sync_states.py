"""A sender, a site and a carrier who loses, delays and doubles things: nothing is shipped that builds on what is gone, and all is well in the end."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tests.support.sites import SPOOL, Killed, Site
from tests.support.thorough import THOROUGH
from transfer.flows import retention
from transfer.flows.ledger import lose
from transfer.sites.sync_state import SyncStates

HOUR, DAY = 3600, 86400


class OneSite(RuleBasedStateMachine):
    """Everything that can happen between two stores, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="sync-states-"))
        self.site = Site(self.folder, SPOOL + "[keep]\nout = 1\nhere = 1\n")
        self.versions = {"app:1": 1, "web:1": 1}
        self.want = self.site.publish(self.versions)
        self.post: list[bytes] = []
        self.copies = self.folder / "copies"
        self.copies.mkdir()

    def teardown(self) -> None:
        try:
            self.ends_well()
        finally:
            shutil.rmtree(self.folder)

    def ends_well(self) -> None:
        """After all that: what is lost is known to be lost, and then two rounds without mishaps."""
        state = SyncStates(self.site.hq.root).get_or_empty("plant")
        for flight in state.flights:
            lose(self.site.file, self.site.hq, flight.serial, self.site.hear)
        self.want = self.site.publish({**self.versions, "last:1": 1})
        for _ in range(3):
            self.sync()
            self.arrive_all()
            self.site.bring(self.site.receipt())
        outcome = self.site.sync()
        assert outcome.what == "up-to-date", (outcome, self.site.heard)
        there = self.site.there()
        assert {name: there.get(name) for name in self.want} == self.want

    def arrive_all(self, only: list[str] | None = None) -> None:
        """What has come whole is imported: it never lacks what it builds on."""
        before = len(self.site.heard)
        self.site.arrive(only=only)
        said = [text for text in self.site.heard[before:] if "depends on" in text or "staged in" in text]
        assert said == [], said

    @rule(name=st.sampled_from(["app:1", "web:1"]), version=st.integers(1, 4), base=st.sampled_from([0, 0, 5000, 9000]))
    def publish(self, name: str, version: int, base: int) -> None:
        """Another `base` has nothing in common with what was there before."""
        self.versions = {**self.versions, name: version}
        self.want = self.site.publish(self.versions, base=base)

    @rule()
    def sync(self) -> None:
        outcome = self.site.sync()
        assert outcome.exit_code == 0, (outcome, self.site.heard)

    @rule(at=st.integers(1, 6))
    def sync_is_killed(self, at: int) -> None:
        steps: list[str] = []

        def after(step: str) -> None:
            steps.append(step)
            if len(steps) == at:
                raise Killed

        try:
            self.site.sync(after=after)
        except Killed:
            return

    @rule()
    def arrive(self) -> None:
        self.arrive_all()

    @rule()
    def the_newest_arrives_first(self) -> None:
        lying = sorted(each.name for each in (self.folder / "spool").iterdir() if each.is_dir())
        self.arrive_all(lying[-1:])

    @rule()
    def a_receipt_goes_round(self) -> None:
        """The site and the sender talk."""
        if (self.site.far.root / "bundles").is_dir():
            self.site.bring(self.site.receipt())
            self.sync()
            self.the_site_hears_what_was_accepted()

    @rule(data=st.data())
    def one_is_lost_or_comes_twice(self, data: Any) -> None:
        lying = sorted(each for each in (self.folder / "spool").iterdir() if each.is_dir())
        kept = sorted(self.copies.iterdir())
        what = data.draw(st.sampled_from(["lost", "copied", "again"]))
        if what == "again" and kept:
            each = data.draw(st.sampled_from(kept))
            shutil.copytree(each, self.folder / "spool" / each.name, dirs_exist_ok=True)
        elif lying:
            each = data.draw(st.sampled_from(lying))
            if what == "lost":
                shutil.rmtree(each)
            else:
                shutil.copytree(each, self.copies / each.name, dirs_exist_ok=True)

    @rule()
    def a_receipt_is_posted(self) -> None:
        if (self.site.far.root / "bundles").is_dir():
            self.post.append(self.site.receipt())

    @rule(data=st.data())
    def a_receipt_comes(self, data: Any) -> None:
        """In any order, or never."""
        if self.post:
            self.site.bring(self.post.pop(data.draw(st.integers(0, len(self.post) - 1))))

    @rule()
    def the_site_hears_what_was_accepted(self) -> None:
        state = SyncStates(self.site.hq.root).get_or_empty("plant")
        if state.acked >= 0 and (self.site.far.root / "bundles").is_dir():
            retention.acknowledge(self.site.far, state.acked)

    @rule(keep=st.integers(1, 2))
    def the_site_prunes(self, keep: int) -> None:
        if (self.site.far.root / "bundles").is_dir():
            retention.forget(self.site.far, keep)

    @rule(keep=st.integers(1, 2))
    def the_sender_prunes(self, keep: int) -> None:
        if (self.site.hq.root / "bundles").is_dir():
            retention.forget(self.site.hq, keep)

    @rule(days=st.integers(0, 3))
    def time_passes(self, days: int) -> None:
        self.site.now += days * DAY + HOUR


OneSite.TestCase.settings = settings(
    max_examples=30 if THOROUGH else 10,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestOneSite = OneSite.TestCase
