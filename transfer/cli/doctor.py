"""doctor: what a person who helps with a problem asks first."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from transfer.cli import config
from transfer.cli.exits import printable
from transfer.cli.render import print_json
from transfer.flows.doctor import Finding, examine
from transfer.flows.site import choose_store


def doctor(store: Path | None, no_store: bool, json: bool) -> None:
    """Print what was found, with advice where something is wrong."""
    files = ", ".join(map(str, config.load().files)) or "none"
    findings = [*examine(choose_store(store, no_store)), Finding("configuration", files)]
    if json:
        print_json({"findings": [asdict(each) for each in findings]})
        return
    for each in findings:
        print(printable(f"{each.subject:14} {each.found}"))
        if each.advice:
            print(printable(f"{'':14} -> {each.advice}"))
