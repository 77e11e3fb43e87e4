"""Programs of the administrator that are told what happened: every executable in hooks.d, one after the other."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

from transfer.events import Noted, Observer
from transfer.sites.site_file import folders

SECONDS = 30
OUTPUT_MAX = 10_000
EVENTS = ("confirmed", "failed", "recovered", "stale", "medium-wanted", "medium-done", "refused")


def places() -> list[Path]:
    """Beside the folders of site files."""
    return [folder.parent / "hooks.d" for folder in folders()]


def tell(event: str, told: Mapping[str, object], observer: Observer) -> None:
    """Run every hook: the event is its argument, the rest JSON on its standard input. What a hook does wrong is noted and changes nothing."""
    for place in places():
        try:
            found = sorted(each for each in place.iterdir() if not each.name.startswith("."))
        except OSError:
            continue
        for path in found:
            why = _unfit(path)
            if why:
                observer(Noted(f"the hook {path} is not run: {why}"))
                continue
            _run(path, event, told, observer)


def _unfit(path: Path) -> str:
    """Why a file is no hook: it is run with this program's rights, so nobody else may have written it."""
    try:
        found = path.stat()
        above = path.parent.stat()
    except OSError as error:
        return str(error.strerror)
    if not stat.S_ISREG(found.st_mode) or not os.access(path, os.X_OK):
        return "it is not an executable file"
    if (found.st_mode | above.st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
        return "others than its owner can write it, or its folder"
    if {found.st_uid, above.st_uid} - {0, os.geteuid()}:
        return "it belongs to another user"
    return ""


def _run(path: Path, event: str, told: Mapping[str, object], observer: Observer) -> None:
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "TRANSFER_EVENT": event,
        "TRANSFER_SITE": str(told.get("site", "")),
        "TRANSFER_SLUG": str(told.get("slug", "")),
        "TRANSFER_SERIAL": str(told.get("serial", "")),
    }
    data = json.dumps({"event": event, **told}).encode()
    read, write = os.pipe()
    os.set_blocking(read, False)
    try:
        process = subprocess.Popen(
            [str(path), event],
            stdin=subprocess.PIPE,
            stdout=write,
            stderr=write,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        observer(Noted(f"the hook {path} cannot be run: {error.strerror}"))
        os.close(read)
        os.close(write)
        return
    os.close(write)
    try:
        said = _heard(process, data, read)
    finally:
        os.close(read)
    if said:
        observer(Noted(f"the hook {path.name} says: {' '.join(said.split())[:1000]}"))
    if process.returncode:
        observer(Noted(f"the hook {path} failed: exit code {process.returncode}"))


def _heard(process: subprocess.Popen[bytes], data: bytes, read: int) -> str:
    """The beginning of what it says. It is killed when it takes too long; what it says beyond the beginning is thrown away."""
    import select
    import signal
    import time
    from contextlib import suppress

    assert process.stdin
    with suppress(OSError):  # it may read nothing; what is told is less than a pipe holds
        process.stdin.write(data)
        process.stdin.close()
    out = bytearray()
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        ready, _, _ = select.select([read], [], [], 0.2)
        if ready:
            block = os.read(read, 1 << 16)
            if not block:
                break
            out += block[: max(0, OUTPUT_MAX - len(out))]
        elif process.poll() is not None:
            break
    try:
        process.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return out.decode(errors="replace")
