"""status, site, log and notify: what is known of sites, without touching anything."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transfer.cli.exits import printable
from transfer.cli.render import amount, print_json, several
from transfer.errors import SomeImagesFailed, TransferError, UsageError
from transfer.flows import history, hooks, metrics
from transfer.flows import site as site_flow
from transfer.flows.ledger import forget_site
from transfer.flows.status import SiteStatus, moment, receiving, statuses
from transfer.folders import own_folder
from transfer.sites.states import Sites
from transfer.sites.sync_state import SyncStates
from transfer.sites.values import duration
from transfer.store.store import Store
from transfer.streams import publish

TOLD_SECONDS = 86400


class SitesNeedHelp(SomeImagesFailed):
    """Some sites fail, or lack something for too long."""

    slug = "sites"


def _store(folder: Path | None) -> Store:
    return site_flow.need_store(site_flow.choose_store(folder, False))


def status(name: str, check: bool, textfile: Path | None, folder: Path | None, json: bool) -> None:
    """How every site stands. With `check`, one line and exit 3 if one is bad."""
    store = _store(folder)
    found = statuses(store.root, name)
    if textfile:
        metrics.write(textfile, store.root, {})
    bad = [each for each in found if each.bad]
    if check:
        _say_check(found, bad)
    elif json:
        arrived = None if name else receiving(store)
        print_json({"sites": [_as_json(each) for each in found], "receiving": arrived and asdict(arrived)})
    else:
        for each in found:
            _say(each)
        if name:
            _say_more(found[0], store)
        else:
            _say_receiving(store, bool(found))
    if check and bad:
        raise SitesNeedHelp(
            f"{several(len(bad), 'site')} of {len(found)} need attention: {_few([each.name for each in bad])}",
            hint="see transfer status",
        )


def _say(each: SiteStatus) -> None:
    stale = f"  STALE since {moment(max(each.state.behind, each.state.confirmed))}" if each.stale else ""
    print(printable(f"{each.name:<16}  {each.word:<16}  {each.detail}{stale}"))
    if each.hint:
        print(printable(f"{'':<16}  -> {each.hint}"))


def _say_more(each: SiteStatus, store: Store) -> None:
    state = each.state
    for name, digest in sorted(state.want.items()):
        there = state.there.get(name, "")
        word = "there" if there == digest else "another version is there" if there else "not there"
        print(printable(f"  {name:<40}  {digest[7:19]}  {word}"))
    for name in state.missing:
        print(printable(f"  {name:<40}  missing in its engine: left out"))
    for run in state.history[-10:]:
        print(printable(f"  {moment(run.at)}  exit {run.exit_code}  bundle {run.serial}  {run.message}"))


def _say_receiving(store: Store, beside: bool) -> None:
    arrived = receiving(store)
    if arrived is None:
        if not beside:
            print("no site has a site file here, and nothing has arrived: see docs/sync.md")
        return
    print(f"this store holds {several(arrived.held, 'bundle')}; last receipt: {arrived.receipt or 'none'}")
    for bundle, waits in arrived.staged.items():
        print(f"  bundle {bundle} waits for {', '.join(waits) or 'its import'}")
    for event in arrived.events:
        _say_event(event)


def _say_check(found: list[SiteStatus], bad: list[SiteStatus]) -> None:
    """One line as Nagios reads it: what, then figures after the bar."""
    word = "CRITICAL" if any(each.state.failure or each.error for each in bad) else "WARNING" if bad else "OK"
    behind = sum(bool(each.state.behind) for each in found)
    failing = sum(bool(each.state.failure) for each in found)
    words = [f"{each.name} {each.word}{' (stale)' if each.stale else ''}" for each in bad]
    named = f": {_few(words)}" if bad else ""
    print(
        printable(
            f"TRANSFER {word} - {several(len(found), 'site')}{named} | sites={len(found)} behind={behind} failing={failing}"
        )
    )


def _few(words: list[str]) -> str:
    """The first ten, and how many more."""
    return ", ".join(words[:10]) + (f" and {len(words) - 10} more" if len(words) > 10 else "")


def _as_json(each: SiteStatus) -> dict[str, Any]:
    made, failure = each.state.under_way, each.state.failure
    return {
        "site": each.name,
        "state": each.word,
        "detail": each.detail,
        "stale": each.stale,
        "bad": each.bad,
        "serial": each.state.serial,
        "serial_confirmed": each.state.confirmed_serial,
        "confirmed": each.state.confirmed,
        "contact": each.state.contact,
        "attempt": each.state.attempt,
        "behind_since": each.state.behind,
        "wanted": dict(each.state.want),
        "there": dict(each.state.there),
        "missing": list(each.state.missing),
        "under_way": made
        and {
            "serial": made.serial,
            "stage": made.stage,
            "bytes": made.size,
            "bytes_sent": made.sent,
            "road": made.road,
        },
        "on_their_way": [{"serial": f.serial, "road": f.road, "shipped": f.shipped} for f in each.state.flights],
        "failure": failure
        and {
            "slug": failure.slug,
            "message": failure.message,
            "hint": failure.hint,
            "since": failure.since,
            "count": failure.count,
        },
        "error": each.error and each.error.message,
    }


def site_ls(folder: Path | None, json: bool) -> None:
    """All sites: with a file, with a state, or known by a receipt."""
    store = _store(folder)
    found = {each.name: each for each in statuses(store.root)}
    known = Sites(store.root)
    rows = []
    for name in sorted({*found, *known.names()}):
        confirmed = len(known.known(name).confirmed)
        each = found.get(name)
        rows.append(
            {
                "site": name,
                "state": each.word if each else "no site file",
                "confirmed": confirmed,
                "receipt": known.known(name).serial,
            }
        )
    if json:
        print_json({"sites": rows})
        return
    for row in rows:
        print(
            printable(
                f"{row['site']:<16}  {row['state']:<16}  {several(int(str(row['confirmed'])), 'bundle')} confirmed"
            )
        )
    if not rows:
        print("no sites yet: write a site file (docs/sync.md), or accept a receipt")


def site_show(name: str, folder: Path | None, json: bool) -> None:
    """One site, with its events."""
    store = _store(folder)
    [found] = statuses(store.root, name)
    events = [each for each in history.read(store.root) if each.site == name][-50:]
    if json:
        print_json({**_as_json(found), "events": [asdict(each) for each in events]})
        return
    _say(found)
    _say_more(found, store)
    for event in events:
        _say_event(event)


def site_rm(name: str, folder: Path | None) -> None:
    """Forget the sync of a site."""
    forget_site(_store(folder), name)
    print(f"the sync of {name} is forgotten")


def log(since: str, site: str, folder: Path | None, json: bool) -> None:
    """The events of the last days."""
    store = _store(folder)
    try:
        begin = time.time() - duration(since)
    except ValueError:
        raise UsageError(f"--since {since!r:.40} is not a duration", hint="write 12h, 7d or 4w") from None
    found = [each for each in history.read(store.root, begin) if not site or each.site == site]
    if json:
        print_json({"events": [asdict(each) for each in found]})
        return
    for event in found:
        _say_event(event)
    if not found:
        print(f"nothing since {moment(begin)}")


def _say_event(event: history.Event) -> None:
    parts = [f"{moment(event.at)}  {event.what:<9}", event.site]
    if event.serial or event.bundle:
        parts.append(f"bundle {event.serial or event.bundle.removeprefix('sha256:')[:12]}")
    parts += [several(event.images, "image")] if event.images else []
    parts += [amount(event.size)] if event.size else []
    parts += [f"by {event.road}"] if event.road else []
    parts += [event.where] if event.where else []
    parts += [f"{event.slug}: {event.message}" if event.slug else event.message]
    print(printable("  ".join(part for part in parts if part)))


def notify(unit: str) -> None:
    """Tell the hooks of a unit that failed, with what systemd says of it."""
    if not re.fullmatch(r"[A-Za-z0-9@:_.\\-]{1,255}", unit) or unit.startswith("-"):
        raise UsageError(f"{unit!r:.100} is not the name of a unit")
    told: dict[str, object] = {"unit": unit}
    command = ["systemctl", "show", "--property=Result,ExecMainStatus,ExecMainCode", "--", unit]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        told |= dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    except (OSError, subprocess.TimeoutExpired) as error:
        told["Result"] = f"unknown: {error}"
    if os.environ.get("MONITOR_UNIT") == unit:  # systemd.exec(5): the unit may have been started again since
        told |= {
            "Result": os.environ.get("MONITOR_SERVICE_RESULT", ""),
            "ExecMainStatus": os.environ.get("MONITOR_EXIT_STATUS", ""),
        }
    site = re.fullmatch(r"transfer-sync@(.+)\.service", unit)
    if told.get("Result") == "exit-code" and _was_told(unit, site[1] if site else ""):
        print(f"{unit}: {told['Result']}, exit code {told.get('ExecMainStatus', 'unknown')}; the hooks know")
        return
    hooks.tell("failed", {"site": site[1] if site else "", "slug": "unit", **told}, lambda event: _print(event))
    print(f"{unit}: {told.get('Result', 'unknown')}, exit code {told.get('ExecMainStatus', 'unknown')}")


def _was_told(unit: str, site: str) -> bool:
    """Whether the hooks have heard of this: from the sync itself, or from this unit within a day. It is noted that they hear it now."""
    choice = site_flow.choose_store(None, False)
    if choice.store is None:
        return False
    states = SyncStates(choice.store.root)
    failure = states.get_or_empty(site).failure if site else None
    if failure and failure.told:
        return True
    path = states.folder / f"told-{unit}"
    try:
        if time.time() - path.stat().st_mtime < TOLD_SECONDS:
            return True
    except OSError:
        pass
    with contextlib.suppress(TransferError):
        own_folder(choice.store.root, "sync", private=True)
        publish(path, b"")
    return False


def _print(event: object) -> None:
    text = getattr(event, "text", "")
    if text:
        print(printable(text), file=sys.stderr)
