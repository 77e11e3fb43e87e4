"""What the sender knows of each far side: exported, shipped, confirmed. Only what is confirmed is built on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from transfer.errors import FormatError, NotFound, RolledBack
from transfer.folders import own_folder
from transfer.model import Digest
from transfer.sites.receipt import SHORT, Receipt, site_name
from transfer.streams import parse_object, publish, read_small

State = Literal["exported", "shipped", "confirmed"]
_STATES: tuple[State, ...] = ("exported", "shipped", "confirmed")
_SITE_MAX = 16 << 20


@dataclass
class Site:
    """A far side: the number of the last receipt that came from it (-1: none), where each bundle stands, and what that receipt named."""

    name: str
    serial: int = -1
    states: dict[str, State] = field(default_factory=dict)
    receipt: tuple[str, ...] = ()

    @property
    def confirmed(self) -> list[Digest]:
        """What it holds, by its last receipt."""
        return [Digest(text) for text, state in self.states.items() if state == "confirmed"]


JUMP_MAX = 1000
"""How far a receipt's number may be ahead of the last one: it rises by one whenever a store has changed."""


class Sites:
    """One small file a site, in the sender's store."""

    def __init__(self, store: Path) -> None:
        self._folder = store / "sites"

    def names(self) -> list[str]:
        return sorted(path.stem for path in self._folder.glob("*.json")) if self._folder.is_dir() else []

    def get(self, name: str) -> Site:
        """NotFound for one that nothing was exported for and no receipt came from."""
        path = self._folder / f"{site_name(name)}.json"
        if not path.exists():
            have = ", ".join(self.names()) or "none yet"
            raise NotFound(
                f"the site {name} is unknown",
                hint=f"accept its receipt first: transfer receipt accept FILE. Known: {have:.300}",
            )
        value = parse_object(read_small(path, _SITE_MAX), str(path), _SITE_MAX)
        serial, states, named = value.get("serial"), value.get("bundles"), value.get("receipt", [])
        if (
            type(serial) is not int
            or not isinstance(states, dict)
            or not all(isinstance(state, str) and state in _STATES for state in states.values())
            or not isinstance(named, list)
        ):
            raise FormatError(f"{path}: malformed", hint="remove it and accept the site's receipt again")
        known = {str(Digest.parse(text, str(path))): state for text, state in states.items()}
        return Site(name, serial, known, tuple(map(str, named)))

    def known(self, name: str) -> Site:
        """The site, or a new one."""
        try:
            return self.get(name)
        except NotFound:
            return Site(name)

    def put(self, site: Site) -> None:
        own_folder(self._folder.parent, self._folder.name, private=True)
        value = {
            "format": "transfer.site",
            "version": 1,
            "serial": site.serial,
            "bundles": site.states,
            "receipt": list(site.receipt),
        }
        publish(self._folder / f"{site_name(site.name)}.json", json.dumps(value, indent=1).encode() + b"\n")

    def note(self, name: str, bundle: Digest, state: State) -> None:
        """A bundle came further on its way; it never goes back by this."""
        site = self.known(name)
        before = site.states.get(str(bundle))
        if before is None or _STATES.index(before) < _STATES.index(state):
            site.states[str(bundle)] = state
            self.put(site)

    def accept(self, receipt: Receipt, confirmed: Iterable[Digest], *, anew: bool = False) -> bool:
        """Take a receipt: what it names is confirmed, what it names no longer is not. False if it is the one accepted before.

        RolledBack for an older one, for another with the same number, or for one far ahead (unless `anew`): after that none of the site's own
        would be taken any more.
        """
        site = self.known(receipt.site)
        if receipt.serial > max(site.serial, 0) + JUMP_MAX and not anew:
            raise RolledBack(
                f"receipt {receipt.serial} of {receipt.site} is more than {JUMP_MAX} ahead of {site.serial}, the last one accepted",
                hint="if the site confirms that this is its newest receipt: transfer receipt accept --restarted FILE",
            )
        there = {str(each) for each in confirmed}
        if receipt.serial < site.serial:
            raise RolledBack(
                f"receipt {receipt.serial} of {receipt.site} is older than {site.serial}, which was accepted before",
                hint="get the site's newest receipt",
            )
        named = tuple(sorted(each[: 2 * SHORT] for each in receipt.bundles))
        if receipt.serial == site.serial:
            if named != site.receipt:
                raise RolledBack(
                    f"two different receipts of {receipt.site} have the number {receipt.serial}",
                    hint="the site was restored from a backup, or two sites have this name: get its newest receipt,"
                    " or rename one of them (transfer receipt --site NAME)",
                )
            if there <= {str(each) for each in site.confirmed}:
                return False
        site.receipt = named
        site.serial = receipt.serial
        for text, state in list(site.states.items()):
            if state == "confirmed" and text not in there:
                site.states[text] = "shipped"
        site.states |= dict.fromkeys(sorted(there), "confirmed")
        self.put(site)
        return True
