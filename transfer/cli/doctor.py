"""doctor: what a person who helps with a problem asks first."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from transfer.cli import config
from transfer.cli.exits import printable
from transfer.cli.render import print_json
from transfer.flows.doctor import Finding, examine, examine_offline
from transfer.flows.site import choose_store


def doctor(store: Path | None, no_store: bool, json: bool, offline: bool) -> None:
    """Print what was found, with advice where something is wrong. `offline`: UsageError's code if anything is."""
    if offline:
        _offline([*examine_offline(choose_store(store, no_store))], json)
        return
    files = ", ".join(map(str, config.load().files)) or "none"
    findings = [*examine(choose_store(store, no_store)), Finding("configuration", files)]
    if json:
        print_json({"findings": [asdict(each) for each in findings]})
        return
    for each in findings:
        print(printable(f"{each.subject:14} {each.found}"))
        if each.advice:
            print(printable(f"{'':14} -> {each.advice}"))


def _offline(findings: list[Finding], json: bool) -> None:
    """A line for each; the exit code says whether all is ready."""
    if json:
        print_json({"findings": [asdict(each) for each in findings]})
    else:
        for each in findings:
            told = f"{'-> ' if each.advice else ''}{each.advice}"
            print(
                printable(f"{'not ready' if each.advice else 'ready':9}  {each.subject:7} {each.found} {told}".rstrip())
            )
    if any(each.advice for each in findings):
        raise typer.Exit(2)
