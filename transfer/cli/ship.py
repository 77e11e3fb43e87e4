"""ship and receive: bundles on their way."""

from __future__ import annotations

import getpass
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from transfer.bundle.reader import Bundle
from transfer.cli.config import load
from transfer.cli.exits import printable
from transfer.cli.options import AfterShipping, MediaOptions, Output, SshOptions
from transfer.cli.progress import Progress, event_of
from transfer.cli.render import amount, print_json, several
from transfer.errors import CredentialsError, NotFound, UsageError
from transfer.events import Noted, Observer
from transfer.flows import remote_import
from transfer.flows import site as site_flow
from transfer.flows.remote import Connector, RemoteOptions
from transfer.flows.ship import Shipment, Shipped, files_of, name_of
from transfer.ship.address import SPOOL, Address, Options, parse_address, parse_pin, spool_folder
from transfer.ship.receiver import IMPORT_THERE, ONLY_RECEIVES
from transfer.sites.states import Sites
from transfer.work import keep_memory


def way_to(address: Address, options: SshOptions) -> RemoteOptions:
    """How to get to a host, as the options say. A password is asked for where somebody can answer."""
    ask = getpass.getpass if sys.stdin is not None and sys.stdin.isatty() else None
    found = Options(options.identity, parse_pin(options.host_key), options.accept_new, options.config, ask)
    return RemoteOptions(address, found, options.ssh, options.remote, parse_rate(options.limit))


def meant(to: list[str], ssh: SshOptions, after: AfterShipping) -> tuple[list[str], SshOptions, AfterShipping]:
    """A name that is a target of the configuration file stands for its settings; what was typed goes before them."""
    targets = load().targets
    if len(to) != 1 or to[0] not in targets or Path(to[0]).exists():
        return to, ssh, after
    found = targets[to[0]]
    if "to" not in found:
        raise UsageError(f"the target {to[0]} has no `to`", hint="say where it is in the configuration file")
    plain = SshOptions()
    path = {key: Path(found[key]).expanduser() for key in ("identity", "ssh-config") if key in found}
    ssh = SshOptions(
        ssh.ssh or found.get("ssh", ""),
        ssh.identity or path.get("identity"),
        ssh.host_key or found.get("host-key", ""),
        ssh.accept_new,
        ssh.config or path.get("ssh-config"),
        found.get("remote", plain.remote) if ssh.remote == plain.remote else ssh.remote,
        ssh.limit or found.get("limit-rate", ""),
    )
    after = replace(
        after, import_=after.import_ or found.get("import", False), site=after.site or found.get("site", "")
    )
    return [found["to"]], ssh, after


def parse_rate(text: str) -> int:
    """Bytes a second: `2M`, `500K`, `1.5G`, `100000`; 0 for none. UsageError for anything else."""
    if not text:
        return 0
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,3})?)([KMG]?)(?:i?B)?(?:/s)?", text, re.IGNORECASE)
    rate = int(float(found[1]) * {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3}[found[2].upper()]) if found else 0
    if rate < 1000:
        raise UsageError(f"--limit-rate {text!r:.40}", hint="write bytes a second, at least 1K: 500K, 2M, 1.5G")
    return rate


def parse_share(text: str) -> int:
    """Percent: `30%`, `30`; 0 for none. UsageError for anything else."""
    if not text:
        return 0
    from transfer.bundle import recovery

    if not re.fullmatch(r"\d{1,3}%?", text) or not recovery.LEAST <= int(text.rstrip("%")) <= recovery.GREATEST:
        raise UsageError(
            f"--survive-loss {text!r:.40}",
            hint=f"give the share of files that may be lost, {recovery.LEAST}% to {recovery.GREATEST}%",
        )
    return int(text.rstrip("%"))


def ship(
    folder: Path, to: list[str], ssh: SshOptions, after: AfterShipping, media: MediaOptions, output: Output
) -> None:
    """Run the ship flow towards a host, onto media, or into a spool."""
    keep_memory()
    to, ssh, after = meant(to, ssh, after)
    spool = next((each for each in to if each.startswith(SPOOL)), "")
    host = next((address for each in to if not each.startswith(SPOOL) and (address := parse_address(each))), None)
    if len(to) > 1 and (host or spool):
        raise UsageError("only one host or spool can be named", hint="several destinations at once are for media only")
    if after.import_ and not host:
        raise UsageError(
            "--import is for hosts only", hint="at the other end of a medium or a spool, run: transfer import FOLDER"
        )
    share = parse_share(media.parity)
    if host and (share or media.eject or media.new_set):
        raise UsageError("--survive-loss, --eject and --new-set are for media only", hint="leave them out for a host")
    if ssh.limit and not host and not spool:
        raise UsageError("--limit-rate is for hosts and spools only", hint="leave it out for media")
    observer = Progress(quiet=output.quiet)
    try:
        with Bundle(folder) as bundle:
            if host:
                _to_host(bundle, Connector(way_to(host, ssh), observer), after, output, observer)
                return
            if spool:
                _to_spool(bundle, spool_folder(spool), share, parse_rate(ssh.limit), output, observer)
            else:
                _to_media(bundle, [Path(each) for each in to], share, media, output, observer)
            if not output.dry_run:
                _note(bundle, after, observer)
    finally:
        observer.close()


def _to_host(bundle: Bundle, reach: Connector, after: AfterShipping, output: Output, observer: Observer) -> None:
    name = name_of(bundle)
    shipment = Shipment(files_of(bundle), name, reach.depot, observer, output.jobs, place=reach.way.address.place)
    if output.dry_run:
        _say_plan(shipment, output.json)
        return
    if after.import_:
        _may_import(reach)  # before anything is sent
    done = shipment.run(bundle.manifest.digest)
    _note(bundle, after, observer)
    landed = _import_there(reach, name, after, observer) if after.import_ else None
    _say(done, reach.spoken, landed, output)


def _to_spool(bundle: Bundle, place: Path, share: int, limit: int, output: Output, observer: Observer) -> None:
    from transfer.flows import spool

    if output.dry_run:
        raise UsageError("--dry-run does not work with a spool", hint="all files of a bundle are written to a spool")
    _say(spool.fill(bundle, place, share, limit, observer), "spool", None, output)


def _to_media(
    bundle: Bundle, folders: list[Path], share: int, media: MediaOptions, output: Output, observer: Observer
) -> None:
    from transfer.cli import ship_media
    from transfer.flows.media import ToMedia

    filling = ToMedia(bundle, share, media.new_set, observer, any_folder=media.any_folder)
    ship_media.fill(filling, folders, media.eject, output.dry_run, output.json, output.quiet)


def _say_plan(shipment: Shipment, json: bool) -> None:
    plan = shipment.plan()
    if json:
        print_json(
            {"to": plan.where, "bytes": plan.total, "bytes_there": plan.there, "bytes_to_send": plan.total - plan.there}
        )
    else:
        left = plan.total - plan.there
        print(f"{printable(plan.where)}: {amount(left)} of {amount(plan.total)} to send, {plan.files} files in all")


def _note(bundle: Bundle, after: AfterShipping, observer: Observer) -> None:
    """Remember that it was shipped: to the site that was named, else to the one it was exported for."""
    choice = site_flow.choose_store(after.store, after.no_store)
    if choice.store is None:
        return
    digest = bundle.manifest.digest
    sites = Sites(choice.store.root)
    names = [after.site] if after.site else [each for each in sites.names() if str(digest) in sites.get(each).states]
    if len(names) != 1:
        return
    with choice.store.adding():
        sites.note(names[0], digest, "shipped")
    observer(Noted(f"recorded as shipped to site {names[0]}"))


def _may_import(reach: Connector) -> None:
    """CredentialsError or NotFound if nothing will be imported there."""
    try:
        depot = reach.receiver()
    except NotFound as error:
        raise remote_import.nothing_there(reach.way.address.where) from error
    depot.close()
    if "import" not in depot.features:
        raise CredentialsError(f"{reach.way.address.where}: {ONLY_RECEIVES}", hint=IMPORT_THERE)


def _import_there(reach: Connector, name: str, after: AfterShipping, observer: Observer) -> dict[str, Any]:
    try:
        depot = reach.receiver()
    except NotFound as error:
        raise remote_import.nothing_there(reach.way.address.where) from error

    def heard(value: dict[str, Any]) -> None:
        event = event_of(value)
        if event:
            observer(event)

    try:
        answer = depot.run_import(name, {"to": after.to, "retag": list(after.retag)}, heard)
    finally:
        depot.close()
    failure = remote_import.import_failure(reach.way.address.where, answer)
    if failure:
        raise failure
    return answer


def _say(done: Shipped, by: str, landed: dict[str, Any] | None, output: Output) -> None:
    if output.json:
        print_json(
            {
                "to": done.where,
                "digest": str(done.digest),
                "by": by,
                "already": done.already,
                "files": done.files,
                "bytes": done.total,
                "bytes_sent": done.sent,
                "bytes_there": done.there,
                "files_supplied": done.supplied,
                "rewound": done.rewound,
                "import": landed and landed.get("result"),
                "seconds": round(done.seconds, 3),
            }
        )
    elif not output.quiet:
        if done.already:
            print(
                f"{printable(done.where)} is already there, and verified: {several(done.files, 'file')}, {amount(done.total)}"
            )
        else:
            rate = f", {amount(int(done.sent / done.seconds))}/s" if done.seconds > 0.1 else ""
            how = "written; a spool gives no confirmation" if by == "spool" else "sent, verified there"
            print(f"{printable(done.where)}: {amount(done.sent)} {how}, {done.seconds:.1f} s{rate} ({by})")
        images = _landed_there(landed)
        if images is not None:
            new = images.count("imported")
            print(f"{several(new, 'image')} imported there, {len(images) - new} already present")


def _landed_there(landed: dict[str, Any] | None) -> list[str] | None:
    """What became of each image, as the far side says; None where it says nothing."""
    result = landed.get("result") if landed else None
    images = result.get("images") if isinstance(result, dict) else None
    if not isinstance(images, list):
        return None
    return [str(each.get("status")) for each in images if isinstance(each, dict)]
