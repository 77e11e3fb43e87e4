"""ship onto media: one after the other, asking for the next where somebody can answer."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from transfer.cli.exits import fail, printable
from transfer.cli.render import amount, print_json, several
from transfer.errors import MissingPart, TransferError
from transfer.flows.media import MediaDone, MediaPlan, ToMedia, Written
from transfer.ship.media import eject, mount_of, removable


def fill(filling: ToMedia, folders: Sequence[Path], out: bool, dry_run: bool, json: bool, quiet: bool) -> None:
    """Fill these media, and those that are inserted when it asks. Exit 14 (MissingPart) while files are still to come."""
    mounts = {folder: removable(folder) for folder in folders if folder.is_dir()} if out else {}
    plan = filling.plan(folders, dry=dry_run)
    if dry_run:
        _say_plan(plan, json)
        return
    written: list[Written] = []
    ejected: list[Path] = []
    stuck: list[TransferError] = []
    failed: list[tuple[Path, TransferError]] = []
    while True:
        _warn(plan, quiet)
        done = filling.run(plan)
        written += done.written
        failed += done.failed
        for each in () if json or quiet else done.written:
            _say_written(filling, each)
        if out:
            _eject([each.folder for each in done.written], mounts, ejected, stuck, quiet or json)
        following = _next(filling, done, folders, ejected) if done.left else None
        if following is None:
            break
        folders, plan = following
        mounts |= {folder: removable(folder) for folder in folders} if out else {}
    if json:
        print_json(_as_json(filling, written, ejected, failed, done))
    if done.failed:
        for folder, error in done.failed[1:]:
            _say_failed(folder, error)
        folder, error = done.failed[0]
        said = error.message if str(folder) in error.message else f"{folder}: {error.message}"
        raise type(error)(f"{said}; {_to_come(done)}", hint=error.hint)
    if stuck:
        raise stuck[0]
    if done.left:
        raise MissingPart(
            f"{_to_come(done)} of {filling.name}", hint="insert the next medium and run: transfer ship BUNDLE FOLDER"
        )


def _eject(
    folders: Sequence[Path], mounts: dict[Path, Path], ejected: list[Path], stuck: list[TransferError], quiet: bool
) -> None:
    """Unmount each medium once; what does not work is told when all is done."""
    for mount in dict.fromkeys(mounts[folder] for folder in folders):
        try:
            eject(mount)
        except TransferError as error:
            stuck.append(error)
            continue
        ejected += [folder for folder in folders if mounts[folder] == mount]
        if not quiet:
            print(f"{printable(str(mount))} is unmounted: safe to remove")


def _to_come(done: MediaDone) -> str:
    return f"{done.left} files, {amount(done.left_size)}, are not written yet"


def _say_failed(folder: Path, error: TransferError) -> None:
    fail(error)
    print(
        f"transfer: {printable(str(folder))} failed and must not be used; its files still have to be written to another medium",
        file=sys.stderr,
    )


def _next(
    filling: ToMedia, done: MediaDone, folders: Sequence[Path], ejected: Sequence[Path]
) -> tuple[Sequence[Path], MediaPlan] | None:
    """The next medium and what goes there, from whoever sits there; None if nobody does."""
    if sys.stdin is None or not sys.stdin.isatty() or not sys.stderr.isatty():
        return None
    for folder, error in done.failed:
        _say_failed(folder, error)
    while True:
        following = _ask(done, folders)
        if following is None:
            return None
        if following in ejected and following.is_dir() and mount_of(following) == Path("/"):
            print(f"{printable(str(following))}: no medium is mounted there.", file=sys.stderr)
            continue
        try:
            plan = filling.plan([following])
        except TransferError as error:
            fail(error)
            continue
        if any(each.files for each in plan.carriers if each.medium.id not in done.full):
            return [following], plan
        print(f"{printable(str(following))} is already written, or has no room.", file=sys.stderr)


def _ask(done: MediaDone, folders: Sequence[Path]) -> Path | None:
    """The folder that is typed; None for q, or the end of what is typed."""
    last = folders[-1]
    print(f"{_to_come(done)}.", file=sys.stderr)
    print(
        f"Insert the next medium and press Enter ({printable(str(last))}), or type its folder; q to stop: ",
        end="",
        file=sys.stderr,
    )
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if not answer or answer.strip().lower() == "q":
        return None
    return Path(answer.strip()) if answer.strip() else last


def _warn(plan: MediaPlan, quiet: bool) -> None:
    for folder in () if quiet else plan.risky:
        print(
            f"{printable(str(folder))} carries more than the recovery files can replace: if this medium is lost, images are lost; "
            "use more media, or a larger --survive-loss",
            file=sys.stderr,
        )


def _say_plan(plan: MediaPlan, json: bool) -> None:
    if json:
        rows = [{"folder": str(c.folder), "files": len(c.files), "bytes": c.size} for c in plan.carriers]
        print_json({"media": rows, "left_files": len(plan.left), "left_bytes": plan.left_size})
        return
    for each in plan.carriers:
        print(
            f"{printable(str(each.folder))}: {several(len(each.files), 'file')}, {amount(each.size)}, and what every medium carries"
        )
    if plan.left:
        print(f"not written yet: {several(len(plan.left), 'file')}, {amount(plan.left_size)}")


def _say_written(filling: ToMedia, each: Written) -> None:
    place = printable(f"{each.folder}/{filling.name}")
    there = f", {amount(each.there)} were there" if each.there else ""
    rate = f", {amount(int(each.sent / each.seconds))}/s" if each.seconds > 0.1 else ""
    print(
        f"{place}: medium {each.number}, {several(each.files, 'file')}, {amount(each.sent)} written{there}, all read back, "
        f"{each.seconds:.1f} s{rate}"
    )
    made = time.strftime("%Y-%m-%d", time.gmtime(filling.bundle.header.created))
    print(printable(f"  label: {filling.name}  medium {each.number}  set {each.set_id}  images of {made}"))


def _as_json(
    filling: ToMedia,
    written: Sequence[Written],
    ejected: Sequence[Path],
    failed: Sequence[tuple[Path, TransferError]],
    done: MediaDone,
) -> dict[str, object]:
    return {
        "digest": str(filling.bundle.manifest.digest),
        "media": [
            {
                "folder": str(each.folder),
                "number": each.number,
                "files": each.files,
                "bytes_written": each.sent,
                "bytes_there": each.there,
                "ejected": each.folder in ejected,
                "seconds": round(each.seconds, 3),
            }
            for each in written
        ],
        "failed": [{"folder": str(folder), "slug": error.slug, "error": error.message} for folder, error in failed],
        "left_files": done.left,
        "left_bytes": done.left_size,
    }
