"""Two sites, bundles that get lost, come late or twice, kills, prune and compact, receipts: what is committed always rebuilds."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.support.faulty import KILLED, Fault, run_with
from tests.support.months import blobs_of, month, rebuilds
from tests.support.thorough import THOROUGH
from transfer.store.entry import Role
from transfer.store.store import Store

MONTHS = 6


class TwoSites(RuleBasedStateMachine):
    """A sender with a store, a far side with another, and bundles on their way between them."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="transfer-states-"))
        self.near, self.far, self.log = self.home / "near", self.home / "far", self.home / "log"
        self.made: list[tuple[Path, int]] = []
        self.lost: set[Path] = set()

    def teardown(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)

    def layout(self, number: int) -> Path:
        folder = self.home / f"layout{number}"
        return folder if folder.exists() else month(number, big=False).write(folder)

    def run(self, *words: object, codes: tuple[int, ...] = (0,), fault: Fault | None = None) -> str:
        ended = run_with(fault, self.log, *words)
        assert ended.code in codes, (words, ended)
        return ended.said

    @rule(number=st.integers(1, MONTHS))
    def export_full(self, number: int) -> None:
        made = self.home / f"bundle{len(self.made)}"
        self.run("export", "--from", f"oci:{self.layout(number)}", "-o", made, "-q", "-j", 1, "--store", self.near)
        self.made.append((made, number))

    @rule(number=st.integers(1, MONTHS), kill=st.none() | st.integers(1, 25))
    def export_delta(self, number: int, kill: int | None) -> None:
        """On what the far side has confirmed; 10 while that is nothing."""
        made = self.home / f"bundle{len(self.made)}"
        words = ["export", "--from", f"oci:{self.layout(number)}", "-o", made, "-q", "-j", 1]
        words += ["--store", self.near, "--base", "site:far"]
        if kill:
            self.run(*words, codes=(0, 10, KILLED), fault=Fault("write", kill, "kill-after"))
        if "confirmed nothing" not in self.run(*words, codes=(0, 10)) and (made / "index.json").exists():
            self.made.append((made, number))

    @precondition(lambda self: len(self.made) > 1)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """A bundle never arrives, and the sender's folder goes as well."""
        made, _ = data.draw(st.sampled_from(self.made))
        if made not in self.lost:
            self.lost.add(made)
            shutil.rmtree(made)

    @precondition(lambda self: len(self.made) > len(self.lost))
    @rule(data=st.data(), kill=st.none() | st.integers(1, 40), stage=st.booleans())
    def import_one(self, data: st.DataObject, kill: int | None, stage: bool) -> None:
        """Any bundle, any time: right, or exit 14 and nothing changed."""
        made, number = data.draw(st.sampled_from([each for each in self.made if each[0] not in self.lost]))
        out = self.home / "out"
        words = ["import", made, "--to", f"oci:{out}", "-q", "-j", 1, "--store", self.far, *["--stage"] * stage]
        if kill:
            self.run(*words, codes=(0, 14, KILLED), fault=Fault("write", kill, "kill-before"))
        before = {entry.digest for entry in Store(self.far).entries()}
        said = self.run(*words, codes=(0, 14))
        if "depends on" in said or "would supply" in said:
            assert {entry.digest for entry in Store(self.far).entries()} == before
        elif not stage:
            assert blobs_of(out).items() >= blobs_of(self.layout(number)).items()

    @rule(text=st.booleans())
    def send_a_receipt(self, text: bool) -> None:
        slip = self.home / "slip"
        self.run("receipt", "-o", slip, "--site", "far", "--store", self.far, *["--text"] * text)
        self.run("receipt", "accept", slip, "--store", self.near)

    @rule(keep=st.integers(1, 3), kill=st.none() | st.integers(1, 8))
    def prune(self, keep: int, kill: int | None) -> None:
        words = ["store", "prune", "--keep-last", keep, "--store", self.far]
        if kill:
            self.run(*words, codes=(0, KILLED), fault=Fault("unlink", kill, "kill-after"))
        self.run(*words)

    @rule(kill=st.none() | st.integers(1, 30))
    def compact(self, kill: int | None) -> None:
        words = ["store", "compact", "--store", self.far, "--jobs", 1]
        if kill:
            self.run(*words, codes=(0, KILLED), fault=Fault("replace", kill, "kill-before"))
        self.run(*words)

    @rule()
    def lose_the_index(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self.far / "index.sqlite").unlink()

    @rule()
    def the_far_side_starts_over(self) -> None:
        """Its store burns. Its next receipt says so; until then deltas may come that it cannot use."""
        shutil.rmtree(self.far, ignore_errors=True)
        shutil.rmtree(self.home / "out", ignore_errors=True)
        slip = self.home / "slip"
        slip.write_text(json.dumps({"format": "transfer.receipt", "version": 1, "site": "far", "serial": 0} | EMPTY))
        self.run("receipt", "accept", slip, "--anew", "--store", self.near)

    @invariant()
    def everything_committed_rebuilds(self) -> None:
        store = Store(self.far)
        for entry in store.entries():
            if entry.role is Role.HELD:
                bundle = store.bundle(entry.digest)
                assert bundle
                assert rebuilds(bundle, store)


EMPTY: dict[str, object] = {"bundles": [], "roots": []}

TwoSites.TestCase.settings = settings(
    max_examples=12 if THOROUGH else 6, stateful_step_count=14, deadline=None, suppress_health_check=list(HealthCheck)
)
TestTwoSites = TwoSites.TestCase
