"""Import whatever lies on a medium, and leave a word on it: mounted for this process alone, read by a user who may do nothing else."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import json
import os
import pwd
import re
import stat
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transfer.errors import MediumError, MissingPart, NotFound, TransferError, UsageError, from_os_error
from transfer.events import Advanced, Noted, Observer, silent
from transfer.flows.itself import command
from transfer.flows.reassemble import bundles_in
from transfer.flows.site import host_name
from transfer.folders import open_own, own_folder
from transfer.sites.receipt import parse_receipt
from transfer.streams import write_all

MEDIUM = "medium:"
TYPES = ("vfat", "exfat", "iso9660", "udf")
"""Filesystems that are mounted unless others are named: the drivers of the others are a larger target for a prepared medium."""
USER = "transfer"
ENTRIES_MAX = 2000
"""Folders that are looked into at most, on each of two levels."""
PRINTED_MAX = 16 << 20
ALIVE_SECONDS = 60.0
_CLONE_NEWNS, _MS_PRIVATE_REC = 0x20000, 0x44000  # linux/sched.h, linux/mount.h
_OPTIONS = "ro,nosuid,nodev,noexec"


def bundles_on(place: Path) -> list[Path]:
    """The bundle folders of a medium, on one or two levels. Names that begin with a dot are other systems' (AppleDouble, trash)."""
    if not place.is_dir():
        raise NotFound(f"{place} does not exist", hint="name the folder at which the medium is mounted")
    out = [each for each in bundles_in(place) if not each.name.startswith(".")]
    try:
        with os.scandir(place) as listed:
            names = [
                entry.name
                for _, entry in zip(range(ENTRIES_MAX), listed, strict=False)
                if entry.is_dir(follow_symlinks=False)
            ]
    except OSError as error:
        raise from_os_error(error, f"reading {place}") from error
    for name in sorted(names):
        if not name.startswith(".") and place / name not in out and place not in out:
            with contextlib.suppress(TransferError, OSError):  # such as lost+found, which is root's
                out += [each for each in bundles_in(place / name)[:ENTRIES_MAX] if not each.name.startswith(".")]
    return out


@dataclass(frozen=True, slots=True)
class StickResult:
    """What came of a medium. `report`: what the import printed, None if nothing; `answered`: whether a word was left on it."""

    code: int
    report: dict[str, Any] | None
    answered: bool
    error: TransferError | None = None


def import_stick(
    device: Path,
    words: Sequence[str],
    types: Sequence[str],
    observer: Observer,
    *,
    store: Sequence[str],
    answer: bool,
) -> StickResult:
    """A device: mounted read-only where nobody else sees it, imported by the user `transfer`, unmounted.

    `words`: further options for the import, `store`: those that say which store. With `answer`, a receipt and a text for people are written onto it
    afterwards.
    """
    _is_medium(device)
    kind = _type_of(device)
    if kind not in types:
        raise UsageError(
            f"{device} has a filesystem of the type {kind or 'unknown'}, which is not read",
            hint=f"use one of {', '.join(types)}; or allow it: --medium-types",
        )
    _own_mounts()
    place = _mount_point()
    _mount(device, place, kind)
    try:
        code, report, said = _import(place, [*words, *store], observer)
        error = _failure(code, said)
        answered = answer and _answer(device, place, kind, report, error, _receipt(store), observer)
        return StickResult(code, report, answered, error)
    finally:
        subprocess.run(["umount", str(place)], check=False, capture_output=True)


def _is_medium(device: Path) -> None:
    try:
        found = device.stat()
    except OSError as error:
        raise from_os_error(error, f"looking at {device}") from error
    if not stat.S_ISBLK(found.st_mode) or Path("/dev") not in device.resolve().parents:
        raise UsageError(f"{device} is not a block device", hint="name a device such as /dev/sdb1, or a folder")
    if os.geteuid() != 0:
        raise UsageError("only root can mount a medium", hint=f"mount it, and name the folder: {MEDIUM}FOLDER")


def _type_of(device: Path) -> str:
    """The filesystem on a device, by blkid(8), which only looks at the superblock; "" if there is none that it knows."""
    try:
        done = subprocess.run(
            ["blkid", "--probe", "--match-tag", "TYPE", "--output", "value", "--", str(device)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MediumError(f"{device} cannot be looked at: {error}", hint="install util-linux") from error
    return done.stdout.strip()[:40]


def _own_mounts() -> None:
    """A mount namespace of this process alone (mount_namespaces(7)): nobody else on the host sees the medium."""
    libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
    if libc.unshare(_CLONE_NEWNS) or libc.mount(b"none", b"/", None, _MS_PRIVATE_REC, None):
        number = ctypes.get_errno()
        raise MediumError(f"no mount namespace of its own can be had: {os.strerror(number)}", hint="run it as root")


def _mount_point() -> Path:
    """An empty folder that only root can reach: the service's own, or one below /run."""
    base = Path(os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0] or "/run/transfer-medium")
    base.mkdir(mode=0o711, parents=True, exist_ok=True)
    place = base / "medium"
    place.mkdir(mode=0o755, exist_ok=True)
    return place


def _mount(device: Path, place: Path, kind: str, *, writable: bool = False) -> None:
    said = ""
    options = _OPTIONS.replace("ro,", "rw,") if writable else _OPTIONS
    for more in (",nosymfollow", ""):  # older kernels do not know it
        remount = "remount," if place.is_mount() else ""
        command = ["mount", "-t", kind, "-o", f"{remount}{options}{more}", "--", str(device), str(place)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode == 0:
            return
        said = " ".join(done.stderr.split())[:300]
    raise MediumError(
        f"{device} cannot be mounted: {said}", hint="check the medium; another program may have mounted it"
    )


def _import(place: Path, words: Sequence[str], alive: Observer) -> tuple[int, dict[str, Any] | None, str]:
    """The import. Its exit code, what it printed, and its last words."""
    code, out, said = _as_user(["import", f"{MEDIUM}{place}", "--json", *words], alive)
    sys.stderr.write(said)
    try:
        report = json.loads(out[:PRINTED_MAX]) if out.startswith(b"{") else None
    except ValueError:
        report = None
    return code, report if isinstance(report, dict) else None, said


def _receipt(store: Sequence[str]) -> bytes | None:
    """What this site holds now; None where there is no store."""
    code, out, _ = _as_user(["receipt", *store]) if "--no-store" not in store else (1, b"", "")
    return out if code == 0 else None


def _as_user(words: Sequence[str], alive: Observer = silent) -> tuple[int, bytes, str]:
    """A command of this program, by a process without root's rights: its exit code, and what it printed on both streams."""
    try:
        user = pwd.getpwnam(USER)
    except KeyError as error:
        raise NotFound(
            f"the user {USER} does not exist",
            hint="install the units and users (docs/sync.md), or import the mounted folder",
        ) from error
    with subprocess.Popen(
        command(*words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        user=user.pw_uid,
        group=user.pw_gid,
        extra_groups=os.getgrouplist(USER, user.pw_gid),
        env={**os.environ, "HOME": user.pw_dir, "USER": USER, "LOGNAME": USER},
        cwd="/",
        umask=0o077,
    ) as process:
        while True:
            try:
                out, said = process.communicate(timeout=ALIVE_SECONDS)
                break
            except subprocess.TimeoutExpired:
                alive(Advanced("import", 0))
    return process.returncode, out, said.decode(errors="replace")


def _failure(code: int, said: str) -> TransferError | None:
    """What the import said it failed of."""
    if code == 0:
        return None
    lines = said.splitlines()
    messages = [line.removeprefix("transfer: ") for line in lines if line.startswith("transfer: ")]
    hints = [line.removeprefix("  -> ") for line in lines if line.startswith("  -> ")]
    kind = MissingPart if code == 14 else MediumError
    error = kind(
        messages[-1] if messages else f"the import ended with exit code {code}", hint=hints[-1] if hints else ""
    )
    error.exit_code = code if 0 < code < 256 else 1
    return error


def _answer(
    device: Path,
    place: Path,
    kind: str,
    report: Mapping[str, Any] | None,
    error: TransferError | None,
    given: bytes | None,
    observer: Observer,
) -> bool:
    """Leave the receipt and a text for people. A medium that cannot be written is no failure."""
    try:
        receipt = parse_receipt(given, "the receipt") if given else None
        name = receipt.site if receipt else host_name()
        _mount(device, place, kind, writable=True)
        try:
            if receipt and given:
                own_folder(place, "receipts")
                _write(place / "receipts" / f"{name}-{receipt.serial:06}.json", given)
            _write(place / f"RESULT-{name}.txt", result_text(report, error, receipt is not None).encode())
            os.sync()
        finally:
            _mount(device, place, kind)
    except (TransferError, OSError) as failed:
        observer(Noted(f"no answer could be written onto {device}: {failed}"))
        return False
    return True


def _write(path: Path, data: bytes) -> None:
    """A small file, at once and durably; nothing that a medium holds is followed."""
    if path.is_symlink():
        raise UsageError(f"{path} is a link", hint="use a medium that nobody prepared")
    fd = open_own(path, 0o644)
    try:
        os.ftruncate(fd, 0)
        write_all(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)


def result_text(report: Mapping[str, Any] | None, error: TransferError | None, receipt: bool) -> str:
    """For the person who carries the medium."""
    now = time.strftime("%Y-%m-%d %H:%M")
    rows = [image for bundle in (report or {}).get("bundles", []) for image in bundle.get("images", [])]
    new = sum(image.get("status") == "imported" for image in rows)
    there = sum(image.get("status") == "present" for image in rows)
    failed = [image for image in rows if image.get("status") == "failed"]
    lines = [f"{now}: {new} images were imported, {there} were already there, {len(failed)} failed."]
    lines += [f"  {_plain(image.get('name'))}: {_plain(image.get('error'))}" for image in failed[:20]]
    if error:
        lines += [f"Not everything is done: {_plain(error.message)}"]
        lines += [f"What to do: {_plain(error.hint or error.advice)}"] if error.hint or error.advice else []
        if error.exit_code == 14:
            lines.append("More media belong to this delivery: insert the next one. The order does not matter.")
    elif report and report.get("staged"):
        lines.append("Part of this medium waits for other deliveries, and is imported when they come.")
    else:
        lines.append("Everything on this medium is done.")
    if receipt:
        lines.append("Take this medium back to the sender: the receipt is on it.")
    return "\r\n".join(lines) + "\r\n"


def _plain(text: object) -> str:
    return re.sub(r"[^\x20-\x7e]", "?", str(text))[:300]
