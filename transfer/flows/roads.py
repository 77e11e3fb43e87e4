"""The ways to a site: whether one is there now, a bundle sent by it, and what the other side says back."""

from __future__ import annotations

import contextlib
import fnmatch
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from transfer.bundle.reader import Bundle
from transfer.engines.http import TlsFailed
from transfer.errors import (
    EngineAway,
    LinkError,
    Locked,
    Nonsense,
    NotFound,
    NotNow,
    TransferError,
    TryAgain,
    UsageError,
)
from transfer.events import Advanced, Noted, Observer, silent
from transfer.flows import remote_import, spool
from transfer.flows.offers import write_offers
from transfer.flows.remote import Connector, RemoteOptions
from transfer.flows.ship import Shipment, files_of, name_of
from transfer.ship.address import Options, parse_address, parse_pin
from transfer.ship.base import Depot
from transfer.ship.folder import FolderDepot
from transfer.ship.gate import Gate
from transfer.ship.media import eject, mounted, removable
from transfer.ship.receiver import ReceiverDepot
from transfer.ship.throttled import Throttled
from transfer.sites.receipt import RECEIPT_MAX
from transfer.sites.site_file import CREDENTIAL, Road, SiteFile
from transfer.streams import read_small

NO_CREDENTIAL = b"none"
"""What a unit gives where a site has no key of its own (systemd's SetCredential=)."""


CURES = {
    "ssh": "check the network and the host",
    "medium": "insert and mount a medium with that label",
    "spool": "create or mount the folder, or correct `to` in the site file",
    "folder": "create or mount the folder, or correct `to` in the site file",
    "https": "check the address and the network",
}
"""What to do where a road is not there, and should be."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of sending a bundle (bytes). `left`: still to come, on further media. `media`: labels or folders that were written."""

    sent: int
    left: int = 0
    media: tuple[str, ...] = ()


def credential(name: str) -> Path | None:
    """A credential of the service that runs this (systemd.exec(5), LoadCredential=); None if there is none."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if not folder or "/" in name or name.startswith("."):
        return None
    path = Path(folder) / name
    try:
        return path if path.read_bytes().strip() not in (b"", NO_CREDENTIAL) else None
    except OSError:
        return None


def connector(road: Road, gate: Gate, observer: Observer) -> Connector:
    """For a road of the kind ssh. UsageError for a site file that names no host or no key."""
    address = parse_address(road.to)
    if address is None:
        raise UsageError(f"{road.to!r:.200} has no host name", hint="write user@host:/folder into the site file")
    identity = None
    if road.identity.startswith(CREDENTIAL):
        identity = credential(road.identity.removeprefix(CREDENTIAL))
    elif road.identity:
        identity = Path(road.identity).expanduser()
    options = Options(
        identity, parse_pin(road.host_key), config=Path(road.ssh_config).expanduser() if road.ssh_config else None
    )
    return Connector(RemoteOptions(address, options, program=road.remote), observer, gate)


def sound(site: SiteFile) -> None:
    """UsageError for a road that leads nowhere, whatever is reachable now."""
    for road in site.roads:
        if road.kind == "ssh":
            connector(road, Gate(site.window), silent)
        elif road.kind != "https" and road.to and not Path(road.to).is_absolute():
            raise UsageError(f"{site.path}: {road.to!r:.100} is not an absolute path", hint="write the path from / on")


def media(road: Road) -> list[Path]:
    """The media of this road that are mounted now: by the label of their filesystem, or the folder that is named."""
    if road.to:
        folder = Path(road.to)
        return [folder] if folder.is_dir() and (folder.is_mount() or not road.label) else []
    return [place for label, place in mounted() if fnmatch.fnmatchcase(label, road.label)]


def away(road: Road, gate: Gate, observer: Observer) -> str:
    """Why a road is not there now; "" if it is. A failure that waiting does not mend is raised."""
    if road.kind == "medium":
        return "" if media(road) else f"no medium {road.label or road.to} is inserted"
    if road.kind in ("spool", "folder"):
        return "" if Path(road.to).is_dir() else f"{road.to} does not exist"
    if road.kind == "ssh":
        try:
            connector(road, gate, observer).raw().close()
        except TransferError as error:
            if is_not_now(error):
                return error.message
            raise
    return ""


def send(bundle: Bundle, road: Road, gate: Gate, observer: Observer, *, new_set: bool = False) -> Sent:
    """The bundle by this road; what is there already is not sent again. NotNow when the window shuts."""
    if road.kind == "ssh":
        reach = connector(road, gate, observer)
        files, name, place = files_of(bundle), name_of(bundle), reach.way.address.place
        done = Shipment(files, name, reach.depot, observer, road.jobs, place=place).run(bundle.manifest.digest)
        return Sent(done.sent)
    if road.kind == "spool":
        done = spool.fill(bundle, Path(road.to), road.survive_loss, 0, observer, gate)
        return Sent(done.sent)
    if road.kind == "folder":
        folder = Path(road.to)

        def connect() -> Depot:
            return Throttled(FolderDepot(folder), gate)

        done = Shipment(files_of(bundle), name_of(bundle), connect, observer, 1, place=road.to).run(
            bundle.manifest.digest
        )
        write_offers(folder)
        return Sent(done.sent)
    return _onto_media(bundle, road, observer, new_set=new_set)


def _onto_media(bundle: Bundle, road: Road, observer: Observer, *, new_set: bool) -> Sent:
    from transfer.flows.media import ToMedia

    folders = media(road)
    if not folders:
        raise NotNow(f"no medium {road.label or road.to} is inserted")
    filling = ToMedia(bundle, road.survive_loss, new_set, observer, any_folder=bool(road.to) and not road.label)
    done = filling.run(filling.plan(folders))
    for folder, error in done.failed:
        observer(Noted(f"{folder}: {error.message}: do not use this medium"))
    if done.failed and not done.written:
        raise done.failed[0][1]
    for each in done.written:
        _eject(each.folder, road, observer)
    return Sent(
        sum(each.sent for each in done.written), done.left_size, tuple(str(each.folder) for each in done.written)
    )


def _eject(folder: Path, road: Road, observer: Observer) -> None:
    """A medium that was found by its label is unmounted, so that it can be pulled; one that cannot be is told."""
    if not road.label:
        return
    try:
        eject(removable(folder))
        observer(Noted(f"{folder} is written and unmounted: safe to remove"))
    except TransferError as error:
        observer(Noted(error.message))


def _receiver(road: Road, gate: Gate, observer: Observer) -> contextlib.AbstractContextManager[ReceiverDepot]:
    """The program over there, closed at the end."""
    return contextlib.closing(connector(road, gate, observer).receiver())


def import_there(folder: str, road: Road, gate: Gate, observer: Observer) -> None:
    """Import over there what was sent. The failure is the import's own."""
    said = {"to": road.import_to, "retag": list(road.retag)}
    with _receiver(road, gate, observer) as depot:
        answer = depot.run_import(folder, said, lambda value: observer(Advanced("there", 0)))
    failure = remote_import.import_failure(depot.where, answer)
    if failure:
        raise failure


def receipt_there(site: str, seen: int, road: Road, gate: Gate, observer: Observer) -> bytes | None:
    """The other side's receipt; None if the program there has no store, or is too old to give one, which is told."""
    with _receiver(road, gate, observer) as depot:
        if "receipt" not in depot.features:
            observer(Noted(f"{depot.where} gives no receipt: its transfer program is older, or has no store"))
            return None
        try:
            return depot.receipt(site, seen)
        except NotFound as error:
            observer(Noted(f"{depot.where} gives no receipt yet: {error.message}"))
            return None


def prune_there(keep: int, road: Road, gate: Gate, observer: Observer) -> int:
    """Ask the other side to forget all but the newest `keep` bundles; how many go. 0 where that is not allowed."""
    with _receiver(road, gate, observer) as depot:
        return depot.prune(keep) if "prune" in depot.features else 0


def receipts_on(folders: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    """The receipts that media bring back, and where each lies."""
    for folder in folders:
        place = folder / "receipts"
        try:
            names = sorted(each.name for each in os.scandir(place) if each.is_file(follow_symlinks=False))[:1000]
        except OSError:
            continue
        for name in names:
            if name.endswith(".json") and not name.startswith("."):
                try:
                    yield str(place / name), read_small(place / name, RECEIPT_MAX)
                except TransferError:
                    continue


def is_not_now(error: TransferError) -> bool:
    """Whether waiting mends it: the line, another run, an engine that is not running, a busy registry. The rest is for people."""
    if isinstance(error, TlsFailed | Nonsense):
        return False
    if isinstance(error, remote_import.ImportFailed):
        return error.exit_code in (Locked.exit_code, TryAgain.exit_code)
    return isinstance(error, LinkError | Locked | TryAgain | EngineAway)
