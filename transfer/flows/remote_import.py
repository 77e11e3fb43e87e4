"""What a receiver does beside taking files: it gives what the site's store has, and imports what has arrived."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from transfer.engines.transports import DEFAULT
from transfer.errors import CutOff, Nonsense, NotFound, TransferError, UsageError
from transfer.flows.itself import command
from transfer.model import Digest
from transfer.store.store import Store
from transfer.streams import copy_verified

EVENTS = "TRANSFER_EVENTS"
"""Set for a command whose progress another program reads: events are JSON lines on standard error."""


RESULT_MAX = 4 << 20
"""Bytes of an import's JSON that are sent back."""


def supply(store: Store, path: Path, digest: Digest, size: int) -> bool:
    """Put a file of the store where an arriving bundle wants it, checked. False if the store has not got it whole."""
    source = store.blobs / digest.hex
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        copy_verified(source, path, digest, size)
    except TransferError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Landing:
    """Where what a sender ships may be imported, as whoever set up the receiver says: `to` as for `import --to`, and whether names may move.

    `free`: there is no inbox, so the sender is a user of this host like any other, and says it himself.
    """

    to: str = ""
    allow_move: bool = False
    free: bool = False
    discard: bool = False
    """A bundle that is imported, and in the store, is removed from the inbox."""
    store: tuple[str, ...] = ()
    """`--store DIR` or `--no-store`, as the receiver itself was started."""


def run_import(
    folder: Path, options: dict[str, Any], event: Callable[[dict[str, Any]], None], landing: Landing
) -> dict[str, Any]:
    """Import in a process of its own, which is waited for. The answer has its exit code, what it printed, and what it said was wrong."""
    words = command("import", str(folder.absolute()), "--json", "--in-turn", *landing.store)
    words += _options(options, landing)
    with tempfile.TemporaryFile() as printed:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=printed,  # no pipe: whoever reads one to its end before the other waits for ever
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, EVENTS: "1"},
        )
        assert process.stderr
        said: list[str] = []
        gone: CutOff | None = None
        try:
            for line in process.stderr:
                if not line.startswith("{"):
                    said = [*said[-20:], line.rstrip()[:2000]]
                elif gone is None:
                    try:
                        event(json.loads(line))
                    except CutOff as error:
                        gone = error  # the import goes on to its end all the same
            code = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
            process.stderr.close()
        if gone:
            raise gone
        return {"code": code, "said": said, "result": _result(printed)}


def _options(options: dict[str, Any], landing: Landing) -> list[str]:
    """The import's options. UsageError where the sender wants what is for the administrator to say."""
    to, retag = options.get("to", ""), options.get("retag", [])
    if not isinstance(to, str) or not isinstance(retag, list) or not all(isinstance(each, str) for each in retag):
        raise UsageError("malformed options for an import")
    if not landing.free and (to not in ("", landing.to or DEFAULT) or retag):
        raise UsageError(
            "this receiver does not let the sender choose where images go or what they are called",
            hint="ship without --to and --retag; the administrator there can set: receive --import-to PLACE",
        )
    words = [f"--to={to or landing.to}"] if to or landing.to else []
    if not landing.free and not landing.allow_move:
        words.append("--keep-tags")
    return words + [f"--retag={each}" for each in retag]


def _result(printed: IO[bytes]) -> Any:
    """The JSON an import printed; of one that is too large for a message only what became of each image."""
    printed.seek(0)
    data = printed.read()
    try:
        value = json.loads(data) if data.startswith(b"{") else None
    except ValueError:
        return None
    if len(data) <= RESULT_MAX or not isinstance(value, dict):
        return value
    short = {
        "images": [{"status": each.get("status")} for each in value.get("images", [])],
        "seconds": value.get("seconds"),
    }
    return short if len(json.dumps(short)) <= RESULT_MAX else {"images": []}


class ImportFailed(TransferError):
    """An import on the far side failed, with the far side's words and exit code."""

    slug = "far-import"


def import_failure(where: str, answer: dict[str, Any]) -> TransferError | None:
    """The failure an answer of `run_import` tells of; None for a success."""
    code, told = answer.get("code"), answer.get("said", [])
    if type(code) is not int or not isinstance(told, list):
        raise Nonsense(f"{where}: its answer to the import cannot be understood")
    said = [str(each)[:2000] for each in told[-30:]]
    if code == 0:
        return None
    hints = [each.removeprefix("  -> ") for each in said if each.startswith("  -> ")]
    lines = [each.removeprefix("transfer: ") for each in said if not each.startswith("  -> ")]
    text = f"{where}: the import on that host failed: {'; '.join(lines[-3:]) or 'no reason given'}"
    failed = ImportFailed(text, hint=hints[-1] if hints else "the bundle has arrived; import it on that host by hand")
    failed.exit_code = code if 0 < code < 256 else 1
    return failed


def nothing_there(where: str) -> NotFound:
    """For --import where there is no program to do it."""
    return NotFound(
        f"{where} has no transfer program that could import",
        hint="ship without --import; install transfer on that host, or use verify.py --rebuild there",
    )
