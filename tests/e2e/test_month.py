"""A month of nights: three sites that are mostly not there, with all that goes wrong on the way, and the right images in the end."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.ssh import Sshd, sshd
from tests.support.wires import Namespace, namespaces
from tests.support.zoo import Layout, layer, noise
from transfer.engines.transports import locate
from transfer.events import Event
from transfer.flows import history
from transfer.flows import site as site_flow
from transfer.flows.arrive import ImportRequest, arrive_all
from transfer.flows.import_bundle import Target
from transfer.flows.site_run import Outcome
from transfer.flows.spool import in_order
from transfer.flows.stick import bundles_on
from transfer.flows.sync import Sync
from transfer.sites.site_file import load
from transfer.sites.sync_state import SyncStates
from transfer.store.store import Store

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

NIGHTS = 30
BEGIN = 1_764_626_400.0
"""1 December 2025, 22:00 UTC: the windows are open for an hour."""
DAY, HOUR = 86400, 3600
BIN = Path(sys.executable).parent
HEAD = """version = 1
[[images]]
from = "oci:{hq}/oci"
select = ["*"]
[window]
open = ["* 22:00-23:00"]
zone = "UTC"
[alarm]
stale = "20d"
[keep]
out = 1
there = 4
[[road]]
"""
_CLONE_NEWNET = 0x40000000


def tonight(number: int) -> Layout:
    """Three images; a few files change each night, and once in a while all of a system layer does."""
    out = Layout()
    system = {f"usr/lib/{n}": noise(n + 1000 * (number // 15), 40_000) for n in range(20)}
    base = layer(system, stamp=number // 15)
    for name in ("web", "app", "db"):
        files = {f"opt/{name}/{n}": noise(sum(name.encode()) + n, 20_000) for n in range(10)}
        files[f"opt/{name}/{number % 10}"] = noise(number * 7 + len(name), 20_000)
        out.name(out.image([base, layer(files, stamp=number)]), f"plant/{name}:stable")
    return out


@dataclass
class Place:
    """A site: its store and engine, which are all that it has."""

    name: str
    folder: Path

    def __post_init__(self) -> None:
        (self.folder / "inbox").mkdir(parents=True)

    @property
    def store(self) -> Store:
        return Store(self.folder / "store")

    def there(self) -> dict[str, str]:
        path = self.folder / "images" / "index.json"
        entries = json.loads(path.read_bytes())["manifests"] if path.exists() else []
        name = "org.opencontainers.image.ref.name"
        return {each["annotations"][name]: each["digest"] for each in entries if name in each["annotations"]}

    def forced(self) -> str:
        return (
            f"{BIN}/transfer receive --stdio --inbox {self.folder}/inbox --allow-import --allow-move --allow-prune 3 "
            f"--import-to oci:{self.folder}/images --store {self.folder}/store"
        )


@dataclass
class Month:
    """The sender. `heard`: what hooks were told."""

    folder: Path
    now: float = BEGIN
    said: list[str] = field(default_factory=list)

    def publish(self, layout: Layout) -> dict[str, str]:
        place = self.folder / "oci"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        layout.write(place)
        return {each["annotations"]["org.opencontainers.image.ref.name"]: each["digest"] for each in layout.entries}

    def hear(self, event: Event) -> None:
        self.said.append(str(event))

    def sync(self, site: str) -> Outcome:
        return Sync(load(site), Store(self.folder / "store"), self.hear, clock=lambda: self.now).run()

    def bring(self, receipt: bytes) -> None:
        place = self.folder / "store" / "receipts" / "in"
        place.mkdir(parents=True, exist_ok=True)
        (place / "vault.json").write_bytes(receipt)

    def heard(self) -> list[str]:
        path = self.folder / "heard"
        return path.read_text().splitlines() if path.exists() else []


def inside(space: Namespace, call: Callable[[], Outcome]) -> Outcome:
    """The call in a thread that is in a network namespace, with all that it starts (setns(2) is a thread's own)."""
    out: list[Outcome] = []

    def run() -> None:
        fd = os.open(f"/run/netns/{space.name}", os.O_RDONLY)
        try:
            assert ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET) == 0
        finally:
            os.close(fd)
        out.append(call())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return out[0]


@pytest.fixture
def month(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Month:
    made = Month(tmp_path / "hq")
    etc = made.folder / "etc"
    for each in ("sites", "hooks.d"):
        (etc / each).mkdir(parents=True, mode=0o755)
    monkeypatch.setenv("TRANSFER_SITES", str(etc / "sites"))
    hook = etc / "hooks.d" / "tell"
    hook.write_text(f'#!/bin/sh\necho "$1 $TRANSFER_SITE $TRANSFER_SLUG" >> {made.folder}/heard\n')
    hook.chmod(0o755)
    return made


@contextlib.contextmanager
def line(place: Place, month: Month) -> Iterator[tuple[Namespace, Sshd]]:
    """A host in a network of its own, and its site file."""
    with (
        namespaces() as (ours, theirs),
        sshd(place.folder / "sshd", forced=place.forced(), host=theirs.address, prefix=theirs.command()) as server,
    ):
        text = HEAD.format(hq=month.folder)
        text += f'kind = "ssh"\nto = "plant:"\nssh_config = "{server.config}"\nimport = true\n'
        (month.folder / "etc" / "sites" / f"{place.name}.toml").write_text(text)
        yield ours, server


def carried(stick: Path, place: Place, said: Callable[[Event], None]) -> bytes:
    """The stick at its site: imported, and its receipt."""
    request = ImportRequest(Target(locate(f"oci:{place.folder}/images"), jobs=1), stage=True)
    came = arrive_all(in_order(bundles_on(stick)), request, (), site_flow.StoreChoice(place.store, True), said)
    assert [each.error for each in came if each.error] == []
    for each in came:
        shutil.rmtree(each.folder)
    return site_flow.receipt(place.store, place.name, keep_name=True).encode()


class Nights:
    """What goes on in one night at each of three sites."""

    def __init__(self, month: Month, folder: Path) -> None:
        self.month, self.chance = month, random.Random(21)
        self.near, self.far, self.vault = (Place(name, folder / name) for name in ("near", "far", "vault"))
        self.stick = folder / "stick"
        text = HEAD.format(hq=month.folder) + f'kind = "medium"\nto = "{self.stick}"\n'
        (month.folder / "etc" / "sites" / "vault.toml").write_text(text)
        self.posted: list[tuple[int, bytes]] = []
        self.refused = 0

    def at_near(self, night: int, space: Namespace, server: Sshd, want: dict[str, str]) -> None:
        """A line that drops: on most nights the sessions are killed while something is sent."""
        killer = threading.Timer(self.chance.uniform(0.05, 0.5), lambda: server.kill_sessions(commands=True))
        if night % 4:
            killer.start()
        outcome = inside(space, lambda: self.month.sync("near"))
        killer.cancel()
        assert outcome.exit_code in (0, 75), (night, outcome)
        if outcome.exit_code == 75:
            outcome = inside(space, lambda: self.month.sync("near"))
        assert outcome.exit_code == 0, (night, outcome)
        assert self.near.there() == want

    def at_far(self, night: int, space: Namespace, server: Sshd) -> None:
        """A host that is there one night in three, and whose store burns down in the middle of the month."""
        if night % 3:
            server.stop()
        elif night:
            server.start()
        if night == NIGHTS // 2:
            for each in ("store", "images", "inbox"):
                shutil.rmtree(self.far.folder / each)
            (self.far.folder / "inbox").mkdir()
        outcome = inside(space, lambda: self.month.sync("far"))
        if outcome.exit_code == 15:  # somebody looks, and says that it is so
            assert night >= NIGHTS // 2
            assert outcome.error
            self.refused += 1
            receipt = Path(outcome.error.hint.split()[-1])
            site_flow.accept(Store(self.month.folder / "store"), receipt.read_bytes(), "r", anew=True)
            outcome = inside(space, lambda: self.month.sync("far"))
        assert outcome.exit_code in ((0, 75) if night % 3 else (0,)), (night, outcome)

    def at_vault(self, night: int) -> None:
        """A stick that is away for days; the first receipt is lost."""
        if night % 5 != 1:
            assert self.month.sync("vault").exit_code in (0, 75), night
        else:
            self.stick.mkdir()
            assert self.month.sync("vault").exit_code == 0
            given = carried(self.stick, self.vault, self.month.hear)
            shutil.rmtree(self.stick)
            self.posted += [(night + 3, given)] if night > 1 else []
        for back, receipt in self.posted:
            if back == night:
                self.month.bring(receipt)


def test_a_month_of_nights(month: Month, tmp_path: Path) -> None:
    nights = Nights(month, tmp_path)
    near, far, vault = nights.near, nights.far, nights.vault
    every = 0
    want: dict[str, str] = {}
    with line(near, month) as (to_near, near_sshd), line(far, month) as (to_far, far_sshd):
        for night in range(NIGHTS):
            month.now = BEGIN + night * DAY
            layout = tonight(night)
            want = month.publish(layout)
            every += 3 * sum(map(len, layout.blobs.values()))
            nights.at_near(night, to_near, near_sshd, want)
            nights.at_far(night, to_far, far_sshd)
            nights.at_vault(night)
        month.now += HOUR / 2
        far_sshd.start()
        assert inside(to_far, lambda: month.sync("far")).exit_code == 0
        nights.stick.mkdir()
        assert month.sync("vault").exit_code == 0
        month.bring(carried(nights.stick, vault, month.hear))
        assert month.sync("vault").what == "up-to-date"
    assert near.there() == far.there() == vault.there() == want
    states = SyncStates(month.folder / "store")
    sent = sum(sum(states.get(name).bytes.values()) for name in ("near", "far", "vault"))
    made = sum(event.size for event in history.read(month.folder / "store") if event.what == "exported")
    print(f"{sent} bytes sent in {NIGHTS} nights to 3 sites; all images every night: {every}; {sent / every:.3f} of it")
    assert sent < every / 4
    assert made < every / 2  # what was made for a stick that was not there is made again
    assert nights.refused == 1
    failed = [line for line in month.heard() if line.startswith("failed")]
    assert failed == ["failed far rolled-back"]
    assert not [line for line in month.heard() if line.startswith("stale")]
