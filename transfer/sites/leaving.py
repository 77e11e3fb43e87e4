"""Bundles that a store is about to forget: they go when the sender knows, so that nothing is built on what is gone.

A receipt no longer names a bundle that leaves. The sender says which receipt it has accepted once none of its bundles on the way builds on
anything that receipt does not name; then, or after GRACE, the bundle goes.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from transfer.errors import FormatError
from transfer.model import Digest
from transfer.streams import parse_object, publish, read_small

GRACE = 60 * 86400
"""Seconds after which a bundle goes though nobody said that he knows: sticks and one-way links bring no word."""
FILE = "leaving.json"
_FILE_MAX = 4 << 20


@dataclass(frozen=True, slots=True)
class Leaving:
    """`seen`: the number of the newest receipt that the sender has said he accepted (-1: none).

    `bundles`: since when each is leaving (seconds since 1970), and the number of the first receipt that does not name it.
    """

    seen: int = -1
    bundles: Mapping[Digest, tuple[float, int]] = field(default_factory=dict)

    def due(self, now: float) -> set[Digest]:
        """Those that may go."""
        return {
            each
            for each, (since, serial) in self.bundles.items()
            if self.seen >= serial or now - since > GRACE or since > now + GRACE
        }

    def with_new(self, digests: Collection[Digest], now: float, serial: int) -> Leaving:
        new = {each: (now, serial) for each in digests if each not in self.bundles}
        return replace(self, bundles={**self.bundles, **new})

    def without(self, digests: Collection[Digest]) -> Leaving:
        return replace(self, bundles={each: told for each, told in self.bundles.items() if each not in digests})

    def acknowledged(self, serial: int) -> Leaving:
        return replace(self, seen=max(self.seen, serial))


def read_leaving(store: Path) -> Leaving:
    """What a store has noted; nothing if it has no note. FormatError for one that cannot be read."""
    path = store / FILE
    if not path.exists():
        return Leaving()
    value = parse_object(read_small(path, _FILE_MAX), str(path), _FILE_MAX)
    seen, bundles = value.get("seen"), value.get("bundles")
    try:
        if value.get("format") != "transfer.leaving" or type(seen) is not int or not isinstance(bundles, dict):
            raise ValueError(seen)
        return Leaving(
            seen, {Digest.parse(each): (float(told[0]), int(told[1])) for each, told in sorted(bundles.items())}
        )
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise FormatError(f"{path}: malformed", hint="remove the file; the next prune makes it again") from error


def write_leaving(store: Path, leaving: Leaving) -> None:
    value = {
        "format": "transfer.leaving",
        "version": 1,
        "seen": leaving.seen,
        "bundles": {str(each): list(told) for each, told in sorted(leaving.bundles.items())},
    }
    publish(store / FILE, json.dumps(value, indent=1).encode() + b"\n")
