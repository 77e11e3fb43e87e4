"""receipt: what this site has committed, and what another one has."""

from __future__ import annotations

import sys
from pathlib import Path

from transfer.cli.exits import printable
from transfer.cli.render import print_json, several
from transfer.cli.store import own_store
from transfer.flows import site as site_flow
from transfer.streams import publish, read_small


def receipt(output: Path | None, text: bool, site: str, folder: Path | None) -> None:
    """Say what this site holds."""
    found = site_flow.receipt(own_store(folder), site)
    data = found.text().encode() if text else found.encode()
    if output:
        publish(output, data)
        print(f"{printable(str(output))}: receipt {found.serial} of {found.site}, {len(found.bundles)} bundles")
    else:
        sys.stdout.write(data.decode())


def accept(file: str, anew: bool, folder: Path | None, json: bool) -> None:
    """Take a site's receipt."""
    data = sys.stdin.buffer.read(1 << 23) if file == "-" else read_small(Path(file))
    done = site_flow.accept(own_store(folder), data, file, anew=anew)
    if json:
        print_json(
            {
                "site": done.receipt.site,
                "serial": done.receipt.serial,
                "new": done.new,
                "confirmed": [str(each) for each in done.confirmed],
                "unknown": list(done.unknown),
            }
        )
        return
    state = "" if done.new else " (accepted before)"
    print(
        f"{done.receipt.site} has confirmed {several(len(done.confirmed), 'bundle')}, receipt {done.receipt.serial}{state}"
    )
    if done.unknown:
        print(f"  {len(done.unknown)} of its bundles are unknown here and will not be used as a base")
