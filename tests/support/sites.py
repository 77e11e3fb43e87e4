"""A sender and a site in two folders of one machine, with a clock that the test sets, and a line that can be cut."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.zoo import Layout, layer, noise
from transfer.engines.transports import locate
from transfer.errors import LinkError
from transfer.events import Event
from transfer.flows import remote_import, roads, spool
from transfer.flows import site as site_flow
from transfer.flows.arrive import ImportRequest, arrive_all, put_away
from transfer.flows.import_bundle import Arrival, Target
from transfer.flows.receiving import taking
from transfer.flows.site_run import Outcome, SyncOptions
from transfer.flows.sync import Sync
from transfer.ship.address import Address
from transfer.ship.base import Depot
from transfer.ship.receive import Receiver
from transfer.ship.receiver import ReceiverDepot
from transfer.ship.socketed import SocketChannel
from transfer.sites.site_file import SiteFile, parse_site
from transfer.store.store import Store

MONDAY = 1_764_547_200.0
"""1 December 2025, 00:00 UTC."""


def images(names: dict[str, int], *, base: int = 0) -> Layout:
    """Each name with a version: images that share most of their bytes from version to version."""
    out = Layout()
    shared = layer({f"lib/{n}": noise(base + n, 20_000) for n in range(6)})
    for name, version in names.items():
        own = layer(
            {"app": noise(base + sum(name.encode()), 30_000) + b"%d" % version, "version": b"%d" % version},
            stamp=version,
        )
        out.name(out.image([shared, own]), name)
    return out


class Killed(BaseException):
    """The end of a run that nobody hears of."""


@dataclass
class _Way:
    address: Address


@dataclass
class Line:
    """What stands for SSH: a receiver of the site's own, in this process. `up`: whether the host answers; `asked`: how often it was."""

    site: Site
    up: bool = True
    asked: int = 0
    keep: int = 0
    way: _Way = field(default_factory=lambda: _Way(Address("plant", "")))

    def receiver(self, window: int = 0) -> ReceiverDepot:
        self.asked += 1
        if not self.up:
            raise LinkError("plant does not answer")
        ours, theirs = socket.socketpair()
        landing = remote_import.Landing("", allow_move=True)
        duties = taking(self.site.far, landing, keep=self.keep)
        serving = Receiver(SocketChannel(theirs, "sender"), inbox=self.site.inbox, duties=duties, patience=0.2)
        threading.Thread(target=serving.run, daemon=True).start()
        return ReceiverDepot(SocketChannel(ours, "plant"), "plant", "")

    raw = receiver

    def depot(self) -> Depot:
        return self.receiver()


class Site:
    """One site. `now` is the time for all that asks; `heard` is what was said."""

    def __init__(self, folder: Path, text: str, name: str = "plant") -> None:
        self.name, self.folder, self.text = name, folder, text.replace("DIR", str(folder))
        self.now = MONDAY
        self.heard: list[str] = []
        self.hq, self.far = Store(folder / "hq"), Store(folder / "far")
        self.inbox, self.target = folder / "inbox", folder / "images"
        for each in ("spool", "inbox", "oci"):
            (folder / each).mkdir(parents=True, exist_ok=True)
        self.line = Line(self)

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> Site:
        """Roads of the kind ssh lead to this site; imports over there are done here."""
        monkeypatch.setattr(roads, "connector", lambda road, gate, observer: self.line)
        monkeypatch.setattr(remote_import, "run_import", self._run_import)
        return self

    def _run_import(
        self, folder: Path, options: Any, event: Callable[[dict[str, Any]], None], landing: Any
    ) -> dict[str, Any]:
        [came] = self._arrive([folder])
        error = came.error
        if error:
            return {"code": error.exit_code, "said": [f"transfer: {error.message}"], "result": None}
        return {"code": 0, "said": [], "result": {"images": []}}

    @property
    def file(self) -> SiteFile:
        return parse_site(self.text.encode(), self.name, self.folder / f"{self.name}.toml")

    def publish(self, names: dict[str, int], *, base: int = 0) -> dict[str, str]:
        """What is in the sender's layout from now on; names and root digests."""
        layout = images(names, base=base)
        for path in (self.folder / "oci").glob("*"):
            if path.is_file():
                path.unlink()
        layout.write(self.folder / "oci")
        return {entry["annotations"]["org.opencontainers.image.ref.name"]: entry["digest"] for entry in layout.entries}

    def hear(self, event: Event) -> None:
        text = getattr(event, "text", "")
        if text:
            self.heard.append(text)

    def sync(self, *, after: Callable[[str], None] = lambda step: None, **options: bool) -> Outcome:
        run = Sync(
            self.file,
            Store(self.hq.root),
            self.hear,
            SyncOptions(jobs=1, **options),
            clock=lambda: self.now,
            after=after,
        )
        return run.run()

    def _arrive(self, folders: list[Path]) -> Any:
        self.far = Store(self.far.root)
        target = Target(locate(f"oci:{self.target}"), jobs=1)
        request = ImportRequest(target, stage=True)
        return arrive_all(folders, request, (), site_flow.StoreChoice(self.far, True), self.hear)

    def arrive(self, place: Path | None = None, only: list[str] | None = None) -> list[str]:
        """Import what lies in the spool; the folders that were imported."""
        place = place or self.folder / "spool"
        folders = [each for each in spool.arrived(place) if only is None or each.name in only]
        came = self._arrive(folders)
        put_away(place, came, "remove")
        return [each.folder.name for each in came if isinstance(each.arrival, Arrival) and not each.error]

    def receipt(self) -> bytes:
        self.far = Store(self.far.root)
        return site_flow.receipt(self.far, self.name).encode()

    def bring(self, receipt: bytes, name: str = "r.json") -> None:
        """Leave a receipt where the next run finds it."""
        place = self.hq.root / "receipts" / "in"
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(receipt)

    def there(self) -> dict[str, str]:
        """The names in the site's engine and their digests."""
        if not (self.target / "index.json").exists():
            return {}
        index = json.loads((self.target / "index.json").read_bytes())
        name = "org.opencontainers.image.ref.name"
        return {each["annotations"][name]: each["digest"] for each in index["manifests"] if name in each["annotations"]}


SPOOL = """
version = 1
[[images]]
from = "oci:DIR/oci"
select = ["*"]
[[road]]
kind = "spool"
to = "DIR/spool"
"""
SSH = """
version = 1
[[images]]
from = "oci:DIR/oci"
select = ["*"]
[[road]]
kind = "ssh"
to = "ops@plant:"
import = true
"""
