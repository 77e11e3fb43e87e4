"""What a receiver does beside taking files: it gives what the site's store has, and imports what has arrived."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transfer.bundle.store import Store
from transfer.errors import NotFound, TransferError, UsageError
from transfer.model import Digest
from transfer.streams import copy_verified

EVENTS = "TRANSFER_EVENTS"
"""Set for a command whose progress another program reads: events are JSON lines on standard error."""


def supply(store: Store, path: Path, digest: Digest, size: int) -> bool:
    """Put a file of the store where an arriving bundle wants it, checked. False if the store has not got it whole."""
    source = store.blobs / digest.hex
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        copy_verified(source, path, digest, size)
    except TransferError:
        return False
    return True


def run_import(folder: Path, options: dict[str, Any], event: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Import in a process of its own. The answer has its exit code, what it printed, and what it said was wrong."""
    words = [sys.executable, "-m", "transfer", "import", str(folder), "--json"]
    to = options.get("to", "")
    retag = options.get("retag", [])
    if not isinstance(to, str) or not isinstance(retag, list) or not all(isinstance(each, str) for each in retag):
        raise UsageError("malformed options for an import")
    words += ["--to", to] if to else []
    words += [word for each in retag for word in ("--retag", each)]
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, EVENTS: "1"},
    )
    assert process.stdout and process.stderr
    said: list[str] = []
    for line in process.stderr:
        if line.startswith("{"):
            event(json.loads(line))
        else:
            said = [*said[-20:], line.rstrip()]
    printed = process.stdout.read()
    code = process.wait()
    return {"code": code, "said": said, "result": json.loads(printed) if printed.startswith("{") else None}


class ImportFailed(TransferError):
    """An import on the far side failed, with the far side's words and exit code."""

    slug = "far-import"


def import_failure(where: str, answer: dict[str, Any]) -> TransferError | None:
    """The failure an answer of `run_import` tells of; None for a success."""
    code, said = answer.get("code"), [str(each) for each in answer.get("said", [])]
    if code == 0:
        return None
    hints = [each.removeprefix("  -> ") for each in said if each.startswith("  -> ")]
    lines = [each.removeprefix("transfer: ") for each in said if not each.startswith("  -> ")]
    text = f"{where}: the import there failed: {'; '.join(lines[-3:]) or 'it says nothing'}"
    failed = ImportFailed(text, hint=hints[-1] if hints else "the bundle is there; import it by hand")
    failed.exit_code = code if type(code) is int and 0 < code < 256 else 1
    return failed


def nothing_there(where: str) -> NotFound:
    """For --import where there is no program to do it."""
    return NotFound(
        f"{where} has no transfer program that could import", hint="the bundle is there; install transfer, or load it"
    )
